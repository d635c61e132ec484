//! Bounds of what a probe reports. A worker's machine is where hostile files are opened, so whoever plans from its report
//! believes it only within limits of its own: what a plan costs in memory and tasks follows from them.

use crate::info::{MediaInfo, Refusal, RefusalCode};

/// Streams of one kind. Workers have a limit of their own, of 64 by default.
const MAX_STREAMS: usize = 1000;
/// Bytes of a name, a title or a language.
const MAX_TEXT_BYTES: usize = 1000;
/// Warnings; each has a code of its own.
const MAX_WARNINGS: usize = 100;
/// Pixels of a side of the picture.
const MAX_SIDE: u32 = 1 << 16;
/// Frames per second.
const FRAME_RATES: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
/// Places where timestamps start again, times the hours of the recording: each task gets a copy of all of them.
const MAX_BREAK_HOURS: u64 = 4000;
const HOUR_US: u64 = 3_600_000_000;

/// Refuses a report that is longer than `longest_us` microseconds, or that no recording within limits gives.
pub fn check(report: &MediaInfo, longest_us: u64) -> Result<(), Refusal> {
    let refuse = |what: String| Err(Refusal::new(RefusalCode::LimitExceeded, what));
    let hours = |us: u64| us as f64 / HOUR_US as f64;
    if report.duration_us > longest_us {
        return refuse(format!(
            "The recording is {:.1} hours long; at most {:.1} hours are taken here.",
            hours(report.duration_us),
            hours(longest_us)
        ));
    }
    if report.audio.len().max(report.subtitles.len()) > MAX_STREAMS || report.warnings.len() > MAX_WARNINGS {
        return refuse(format!("The recording has more than {MAX_STREAMS} streams of a kind."));
    }
    let break_hours = (report.breaks.len() as u64).saturating_mul(report.duration_us.div_ceil(HOUR_US));
    if break_hours > MAX_BREAK_HOURS {
        return refuse("The recording's clock starts again too often: join its parts with a video editor.".to_owned());
    }
    if texts(report).any(|text| text.len() > MAX_TEXT_BYTES) {
        return refuse(format!("A name in the recording is longer than {MAX_TEXT_BYTES} bytes."));
    }
    let Some(video) = &report.video else { return Ok(()) };
    if video.width.max(video.height) > MAX_SIDE || video.width.min(video.height) == 0 {
        return refuse(format!("The picture of {} x {} pixels is out of bounds.", video.width, video.height));
    }
    if !FRAME_RATES.contains(&video.rate.fps()) {
        return refuse(format!("A frame rate of {} is out of bounds.", video.rate.fps()));
    }
    Ok(())
}

fn texts(report: &MediaInfo) -> impl Iterator<Item = &String> {
    let audio = report.audio.iter().flat_map(|track| [&track.codec, &track.language, &track.title]);
    let subtitles = report.subtitles.iter().flat_map(|track| [&track.codec, &track.language, &track.title]);
    let video = report.video.iter().flat_map(|video| [&video.codec, &video.pixel_format]);
    report.warnings.iter().chain([&report.container]).chain(audio).chain(subtitles).chain(video)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::FrameRate;
    use crate::info::{AudioInfo, TimeBreak, VideoInfo};

    const DAY_US: u64 = 24 * HOUR_US;

    fn lecture() -> MediaInfo {
        let video = VideoInfo { width: 1280, height: 720, rate: FrameRate::new(25, 1), ..VideoInfo::default() };
        MediaInfo {
            duration_us: HOUR_US,
            video: Some(video),
            audio: vec![AudioInfo::default()],
            breaks: vec![TimeBreak::default(); 1000],
            ..MediaInfo::default()
        }
    }

    #[test]
    fn a_report_is_believed_within_limits() {
        assert_eq!(check(&lecture(), HOUR_US), Ok(()));
        assert_eq!(check(&MediaInfo { duration_us: DAY_US, breaks: Vec::new(), ..lecture() }, DAY_US), Ok(()));
        let video = |change: fn(&mut VideoInfo)| {
            let mut report = lecture();
            report.video.as_mut().map(change);
            report
        };
        for (what, report) in [
            ("too long", MediaInfo { duration_us: HOUR_US + 1, ..lecture() }),
            (
                "many breaks over a long time",
                MediaInfo { duration_us: HOUR_US, breaks: vec![TimeBreak::default(); 4001], ..lecture() },
            ),
            ("many streams", MediaInfo { audio: vec![AudioInfo::default(); 1001], ..lecture() }),
            ("many warnings", MediaInfo { warnings: vec![String::new(); 101], ..lecture() }),
            ("a long title", MediaInfo { container: "x".repeat(1001), ..lecture() }),
            ("a wide picture", video(|video| video.width = 70_000)),
            ("no picture", video(|video| video.height = 0)),
            ("an absurd rate", video(|video| video.rate = FrameRate::new(u32::MAX, 1))),
            ("a rate of nearly nothing", video(|video| video.rate = FrameRate::new(1, u32::MAX))),
        ] {
            let refused = check(&report, HOUR_US).expect_err(what);
            assert_eq!(refused.code, RefusalCode::LimitExceeded, "{what}");
        }
    }
}
