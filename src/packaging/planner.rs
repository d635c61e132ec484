//! From what a probe found and the ladder to the tracks and tasks of a lesson. Deterministic: the same input gives
//! the same plan, so that it can be made again at any time and place.

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

/// How long a task of the picture is, in milliseconds, where key frames allow.
const VIDEO_TASK_MS: u64 = 12_000;
/// The longest task of the picture, in milliseconds, however far the source's key frames are apart.
const VIDEO_TASK_MAX_MS: u64 = 600_000;
/// How long a task of a sound track is, in milliseconds.
const AUDIO_TASK_MS: u64 = 60_000;
/// A task is at least this many times as long as what it decodes in vain on average. Decoding is about a tenth of the
/// work, and half of what is thrown away is not even decoded: that is one part in 160 of the work.
const DECODED_IN_VAIN: u64 = 8;
/// One task of the picture in so many has its first segment measured, and at most so many of a lesson.
const MEASURED_EVERY: usize = 8;
const MEASURED_MOST: usize = 16;
/// The most sound tracks that are made.
const MAX_AUDIO_TRACKS: usize = 16;

/// Plans a lesson.
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
    let sounds: Vec<&AudioInfo> = info.audio.iter().take(MAX_AUDIO_TRACKS).collect();
    let default = sounds.iter().position(|audio| audio.default).unwrap_or(0);
    for (index, audio) in sounds.into_iter().enumerate() {
        let language = language::named(&audio.language, "Audio", tags.iter().map(String::as_str));
        let mut track = audio_track(audio, &language, index == default, ladder, &grid);
        track.set_label_apart(&tracks);
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

/// Of tasks that begin at one instant: the picture is more work than the sound, so it goes first; what one can play
/// without goes last.
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

/// What a segment takes at most: the cap over its length, a full buffer of one second on top, and the container.
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

/// How many segments a task of the picture has: about twelve seconds, more where the way from a key frame to the
/// task's first frame would be more than its share of the work.
fn video_task_segments(video: &VideoInfo, grid: &Grid) -> u32 {
    let segment_ms = grid.frame_time(u64::from(grid.frames_per_segment), 1000).max(1);
    let in_vain_ms = video.key_interval_us / 2000;
    let wanted = VIDEO_TASK_MS.max(in_vain_ms.saturating_mul(DECODED_IN_VAIN)).min(VIDEO_TASK_MAX_MS);
    u32::try_from(wanted.div_ceil(segment_ms).max(1)).unwrap_or(u32::MAX)
}

/// The stretches `(first, count)` of `total` segments: the first one segment long, so that it is there soon.
fn stretches(total: u32, each: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = total.saturating_sub(first);
        let count = if first == 0 { 1 } else { each.max(1) }.min(left);
        // A last stretch under half the others' length is not worth a process of its own.
        let count = if first > 0 && left - count < each / 2 { left } else { count };
        let stretch = (first, count);
        first += count;
        (count > 0).then_some(stretch)
    })
}

/// Which of `count` tasks are measured: spread over the lesson, and not the first, which is waited for.
fn measured_tasks(count: usize) -> Vec<usize> {
    let wanted = count.div_ceil(MEASURED_EVERY).min(MEASURED_MOST);
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
    let stretches: Vec<(u32, u32)> = stretches(grid.segments(), video_task_segments(video, grid)).collect();
    let measured = measured_tasks(stretches.len());
    for (number, (first_segment, segments)) in stretches.into_iter().enumerate() {
        tasks.push(planned(grid, first_segment, segments, |grid| {
            TaskSpec::Video(VideoTask {
                source: SourceStream::new(info, video.stream),
                rotation: video.rotation,
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
    for (first_segment, segments) in stretches(grid.segments(), each) {
        tasks.push(planned(grid, first_segment, segments, |grid| {
            TaskSpec::Audio(AudioTask {
                source: SourceStream::new(info, audio.stream),
                track: track.to_owned(),
                grid,
                first_segment,
                segments,
                bitrate: ladder.audio.bitrate.0,
                gain_db: gain(audio, ladder.audio.loudness),
                protection: Protection::Clear,
            })
        }));
    }
}

/// The one gain that brings a track to `target` LUFS, quieter where its peak would pass −1.5 dBTP by more than the
/// limiter takes without being heard (3 dB).
fn gain(audio: &AudioInfo, target: f64) -> f64 {
    const PEAK: f64 = -1.5;
    const LIMITED: f64 = 3.0;
    let Some(loudness) = audio.loudness_lufs.filter(|l| *l > -60.0) else { return 0.0 };
    let room = audio.true_peak_dbtp.map_or(f64::INFINITY, |peak| PEAK + LIMITED - peak);
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
        interlaced: video.interlaced,
        color: video.color,
        duration_ms: grid.duration_ms(),
        images,
    })
}

/// The poster comes once the first stretch is made, the storyboard when all is.
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
