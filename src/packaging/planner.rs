//! Plans a lesson: from the probe's report and the ladder to tracks and tasks. Deterministic: the same input gives the
//! same plan, so that any process can make it again at any time.

use crate::framing::Framing;
use crate::grid::{AUDIO_RATE, Grid};
use crate::images::{self, Storyboard};
use crate::info::{AudioInfo, MediaInfo, Refusal, RefusalCode, SourceStream, VideoInfo};
use crate::ladder::{Fitted, Ladder, VideoCodec};
use crate::language::{self, Language};
use crate::plan::{Plan, PlannedTask};
use crate::protection::Protection;
use crate::subtitles::tracks::plan_embedded;
use crate::task::{AudioTask, Images, ImagesTask, Rendition, TaskSpec, VideoTask};
use crate::track::{TrackKind, TrackPlan};

/// The length of a video task in milliseconds, where the source's key frames allow.
const VIDEO_TASK_MS: u64 = 12_000;
/// The longest video task in milliseconds, however far apart the source's key frames are.
const MAX_VIDEO_TASK_MS: u64 = 600_000;
/// The length of an audio task in milliseconds.
const AUDIO_TASK_MS: u64 = 60_000;
/// A task is at least this many times as long as what it decodes and discards on average: the frames between a key
/// frame and its first segment. Decoding is about a tenth of the work, and half of the discarded frames are not even
/// decoded, so this bounds the loss to one part in 160 of the work.
const MIN_TASK_TO_DISCARDED: u64 = 8;
/// One video task in this many has the quality of its first segment measured.
const TASKS_PER_MEASUREMENT: usize = 8;
/// The most measured segments of a lesson.
const MAX_MEASUREMENTS: usize = 16;
/// The most audio tracks of a lesson; the rest are left out.
const MAX_AUDIO_TRACKS: usize = 16;

/// Plans a lesson. Fails with a refusal when the recording holds nothing to play.
pub fn plan(info: &MediaInfo, ladder: &Ladder) -> Result<Plan, Refusal> {
    if info.video.is_none() && info.audio.is_empty() {
        return Err(Refusal::new(RefusalCode::NotVideo, "The file has neither picture nor sound that can be played."));
    }
    if info.duration_us == 0 {
        return Err(Refusal::new(RefusalCode::Empty, "The recording has no length: nothing in it can be played."));
    }
    let segment_ms = u64::try_from(ladder.segment.get().as_millis()).unwrap_or(4000);
    let rate = info.video.as_ref().map(|v| v.rate).unwrap_or_default();
    let grid = Grid::new(rate, segment_ms, info.duration_us);
    let mut tracks = Vec::new();
    let mut tasks = Vec::new();
    if let Some(video) = &info.video {
        let (width, height) = video.display_size();
        let fitted = ladder.fit(width, height);
        tracks.extend(fitted.iter().map(|f| video_track(f, &grid)));
        video_tasks(info, (video, &fitted), ladder, &grid, &mut tasks);
    }
    let mut tags: Vec<String> = Vec::new();
    let audio_tracks: Vec<&AudioInfo> = info.audio.iter().take(MAX_AUDIO_TRACKS).collect();
    let default = audio_tracks.iter().position(|audio| audio.default).unwrap_or(0);
    for (index, audio) in audio_tracks.into_iter().enumerate() {
        let language = language::named(&audio.language, "Audio", tags.iter().map(String::as_str));
        let mut track = audio_track(audio, &language, index == default, ladder, &grid);
        track.make_label_unique(&tracks);
        audio_tasks(info, audio, &track.name, ladder, &grid, &mut tasks);
        tracks.push(track);
        tags.push(language.tag);
    }
    plan_embedded(info, &grid, &mut tracks, &mut tasks);
    images_tasks(info, &grid, &mut tasks);
    tasks.sort_by_key(|t| (t.first_ms, urgency(&t.spec)));
    for (priority, task) in tasks.iter_mut().enumerate() {
        task.priority = u32::try_from(priority).unwrap_or(u32::MAX);
    }
    Ok(Plan { duration_ms: grid.duration_ms(), grid, tracks, tasks, encryption: None })
}

/// The order of tasks that begin at the same instant: video first, as it is the most work; last what playback does
/// not need.
fn urgency(spec: &TaskSpec) -> u8 {
    match spec {
        TaskSpec::Probe | TaskSpec::Video(_) => 0,
        TaskSpec::Audio(_) => 1,
        TaskSpec::Subtitles(_) => 2,
        TaskSpec::Images(_) => 3,
    }
}

fn track_name(fitted: &Fitted) -> String {
    match fitted.rung.codec {
        VideoCodec::H264 => format!("v{}", fitted.rung.height),
        other => format!("v{}-{}", fitted.rung.height, other.as_str()),
    }
}

/// The highest bit rate of a segment: the cap over its length, plus a full buffer of one second, plus the container.
fn video_peak(max_bitrate: u64, grid: &Grid) -> u64 {
    let segment_ms = grid.frame_time(u64::from(grid.frames_per_segment), 1000).max(1);
    max_bitrate + max_bitrate * 1000 / segment_ms + 8_000
}

fn video_track(fitted: &Fitted, grid: &Grid) -> TrackPlan {
    TrackPlan {
        name: track_name(fitted),
        timescale: grid.timescale().0,
        segments: grid.segments(),
        peak_bitrate: video_peak(fitted.rung.max_bitrate.0, grid),
        kind: TrackKind::Video {
            shorter_side: u32::try_from(fitted.rung.height).unwrap_or(u32::MAX),
            width: fitted.width,
            height: fitted.height,
            codec: fitted.rung.codec,
        },
    }
}

fn audio_track(audio: &AudioInfo, language: &Language, default: bool, ladder: &Ladder, grid: &Grid) -> TrackPlan {
    let label = if audio.title.is_empty() { language.label.clone() } else { audio.title.clone() };
    TrackPlan {
        name: format!("a-{}", language.slug),
        timescale: AUDIO_RATE,
        segments: grid.segments(),
        peak_bitrate: ladder.audio.bitrate.0 * 6 / 5 + 8_000,
        kind: TrackKind::Audio { language: language.tag.clone(), label, default },
    }
}

/// How many segments a video task has: about twelve seconds, more where decoding from the previous key frame to the
/// task's first frame would take more than its share of the work.
fn video_task_segments(video: &VideoInfo, grid: &Grid) -> u32 {
    let segment_ms = grid.frame_time(u64::from(grid.frames_per_segment), 1000).max(1);
    let discarded_ms = video.key_interval_us / 2000;
    let wanted = VIDEO_TASK_MS.max(discarded_ms.saturating_mul(MIN_TASK_TO_DISCARDED)).min(MAX_VIDEO_TASK_MS);
    u32::try_from(wanted.div_ceil(segment_ms).max(1)).unwrap_or(u32::MAX)
}

/// Divides `total` segments into ranges `(first, count)`. The first is one segment long, so that it is ready soon.
fn segment_ranges(total: u32, each: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = total.saturating_sub(first);
        let count = if first == 0 { 1 } else { each.max(1) }.min(left);
        // A last range under half the others' length is not worth a process of its own.
        let count = if first > 0 && left - count < each / 2 { left } else { count };
        let range = (first, count);
        first += count;
        (count > 0).then_some(range)
    })
}

/// Which of `count` tasks are measured: spread over the lesson, without the first, which players wait for.
fn measured_tasks(count: usize) -> Vec<usize> {
    let wanted = count.div_ceil(TASKS_PER_MEASUREMENT).min(MAX_MEASUREMENTS);
    (0..wanted).map(|n| (n * 2 + 1) * count / (wanted * 2)).collect()
}

fn video_tasks(
    info: &MediaInfo,
    (video, fitted): (&VideoInfo, &[Fitted]),
    ladder: &Ladder,
    grid: &Grid,
    tasks: &mut Vec<PlannedTask>,
) {
    let renditions: Vec<Rendition> = fitted
        .iter()
        .map(|f| Rendition {
            track: track_name(f),
            codec: f.rung.codec,
            width: f.width,
            height: f.height,
            quality: u32::try_from(f.rung.crf()).unwrap_or(23),
            max_bitrate: f.rung.max_bitrate.0,
        })
        .collect();
    let ranges: Vec<(u32, u32)> = segment_ranges(grid.segments(), video_task_segments(video, grid)).collect();
    let measured = measured_tasks(ranges.len());
    for (number, (first_segment, segments)) in ranges.into_iter().enumerate() {
        tasks.push(planned(grid, first_segment, segments, |grid| {
            TaskSpec::Video(VideoTask {
                source: SourceStream::new(info, video.stream),
                rotation: video.rotation,
                framing: Framing::new(video),
                interlaced: video.interlaced,
                color: video.color,
                grid,
                first_segment,
                segments,
                renditions: renditions.clone(),
                measure: ladder.measure_quality && measured.contains(&number),
                protection: Protection::Clear,
            })
        }));
    }
}

fn audio_tasks(
    info: &MediaInfo,
    audio: &AudioInfo,
    track: &str,
    ladder: &Ladder,
    grid: &Grid,
    tasks: &mut Vec<PlannedTask>,
) {
    let segment_ms = grid.frame_time(u64::from(grid.frames_per_segment), 1000).max(1);
    let each = u32::try_from(AUDIO_TASK_MS.div_ceil(segment_ms)).unwrap_or(1);
    for (first_segment, segments) in segment_ranges(grid.segments(), each) {
        tasks.push(planned(grid, first_segment, segments, |grid| {
            TaskSpec::Audio(AudioTask {
                source: SourceStream::new(info, audio.stream),
                more_streams: audio.more_streams.clone(),
                track: track.to_owned(),
                grid,
                first_segment,
                segments,
                bitrate: ladder.audio.bitrate.0,
                gain_db: gain_db(audio, ladder.audio.loudness),
                protection: Protection::Clear,
            })
        }));
    }
}

/// The constant gain in decibels that brings a track to `target` LUFS; less where its true peak would exceed −1.5 dBTP
/// by more than the 3 dB that a limiter takes away inaudibly.
fn gain_db(audio: &AudioInfo, target: f64) -> f64 {
    const MAX_PEAK_DBTP: f64 = -1.5;
    const MAX_LIMITING_DB: f64 = 3.0;
    let Some(loudness) = audio.loudness_lufs.filter(|l| *l > -60.0) else { return 0.0 };
    let room = audio.true_peak_dbtp.map_or(f64::INFINITY, |peak| MAX_PEAK_DBTP + MAX_LIMITING_DB - peak);
    (target - loudness).min(room).clamp(-40.0, 30.0)
}

fn planned(grid: &Grid, first: u32, count: u32, spec: impl FnOnce(Grid) -> TaskSpec) -> PlannedTask {
    let first_ms = grid.frame_time(grid.first_frame(first), 1000);
    let end_ms = grid.frame_time(grid.first_frame(first.saturating_add(count)), 1000);
    PlannedTask { spec: spec(grid.clone()), first_ms, duration_ms: end_ms.saturating_sub(first_ms), priority: 0 }
}

fn images_task(info: &MediaInfo, video: &VideoInfo, grid: &Grid, images: Images) -> TaskSpec {
    TaskSpec::Images(ImagesTask {
        source: SourceStream::new(info, video.stream),
        rotation: video.rotation,
        framing: Framing::new(video),
        interlaced: video.interlaced,
        color: video.color,
        duration_ms: grid.duration_ms(),
        images,
    })
}

/// The poster follows the first video task, the storyboard all others.
fn images_tasks(info: &MediaInfo, grid: &Grid, tasks: &mut Vec<PlannedTask>) {
    let Some(video) = &info.video else { return };
    let (width, height) = video.display_size();
    let duration_ms = grid.duration_ms();
    let after_first = grid.frame_time(grid.first_frame(1), 1000);
    let (poster_width, poster_height) = images::poster_size(width, height);
    let poster = Images::Poster { width: poster_width, height: poster_height };
    let storyboard = Images::Storyboard(Storyboard::new(width, height, duration_ms));
    for (images, first_ms) in [(poster, after_first), (storyboard, duration_ms)] {
        tasks.push(PlannedTask { spec: images_task(info, video, grid, images), first_ms, duration_ms: 0, priority: 0 });
    }
}

#[cfg(test)]
mod tests;
