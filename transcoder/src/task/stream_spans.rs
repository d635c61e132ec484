//! When each stream of a recording starts and ends, and the lesson's timeline that follows.

use ff::Stream;
use ff::format::context::Input;
use ffmpeg_next as ff;
use lyceum_packaging::info::{MediaInfo, TimeBreak};

use super::error::TaskError;
use super::ffi::IndexEntry;
use super::survey::Survey;
use super::timeline::Timeline;
use super::timestamp::{known, micros};

/// The most packets of a file's end that are read.
const MAX_END_PACKETS: usize = 20_000;
/// How much of a file's end is read to check that it is complete, in microseconds.
const END_READ_US: i64 = 3_000_000;
/// Audio that ends up to this much after the picture does not extend the lesson, in microseconds.
const TAIL_US: i64 = 100_000;
/// Audio that begins up to this much before the picture is trimmed, in microseconds.
const LEAD_US: i64 = 200_000;

/// When each used stream starts and ends, in microseconds of the file's timestamps.
#[derive(Default)]
pub(super) struct StreamSpans {
    /// Duration of a video frame, for packets without a duration.
    pub(super) frame_us: i64,
    /// Reordering delay, for packets without a presentation timestamp.
    pub(super) delay_us: i64,
    /// Time of the picture that timestamps leave no room for, by the index.
    pub(super) lost_us: i64,
    pub(super) picture: Option<StreamSpan>,
    pub(super) sounds: Vec<StreamSpan>,
}

#[derive(Clone, Copy)]
pub(super) struct StreamSpan {
    pub(super) index: usize,
    pub(super) start: i64,
    pub(super) end: Option<i64>,
    /// Byte offset of the end of its last sample, and the end of what is playable if the file is truncated.
    pub(super) last_byte: i64,
    pub(super) playable_end: Option<i64>,
}

impl StreamSpans {
    pub(super) fn all(&self) -> impl Iterator<Item = &StreamSpan> {
        self.picture.iter().chain(&self.sounds)
    }

    fn longest_end(&self) -> Option<i64> {
        self.all().filter_map(|s| s.end).max()
    }

    pub(super) fn truncated(&self, size: u64) -> bool {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.all().any(|s| s.last_byte > size)
    }

    /// Finds where the streams end, as containers without a full index tell that only roughly. Reads the last seconds, or
    /// the whole file if they are missing. Returns whether the file ends before its container claims.
    pub(super) fn find_end(&mut self, input: &mut Input, survey: Option<&mut Survey>) -> Result<bool, TaskError> {
        let Some(end) = self.longest_end() else {
            self.measure(input, &[], survey)?;
            return Ok(false);
        };
        let from = end - END_READ_US;
        if end >= END_READ_US * 2 && input.seek(from, ..from).is_ok() {
            let mut ends: Vec<(usize, i64)> = Vec::new();
            for (stream, packet) in input.packets().take(MAX_END_PACKETS) {
                let index = stream.index();
                let Some(found) = self.end_of(&stream, &packet) else { continue };
                match ends.iter_mut().find(|(known, _)| *known == index) {
                    Some((_, end)) => *end = found.max(*end),
                    None => ends.push((index, found)),
                }
            }
            if ends.iter().any(|(_, found)| *found >= end - END_READ_US / 2) {
                for span in self.picture.iter_mut().chain(&mut self.sounds) {
                    let found = ends.iter().find(|(index, _)| *index == span.index).map(|(_, end)| *end);
                    // A stream without packets there ended before.
                    span.end = found.or(span.end.map(|end| end.min(from.max(span.start))));
                }
                return Ok(false);
            }
        }
        self.measure(input, &[], survey)?;
        Ok(self.longest_end().is_none_or(|found| found < end - END_READ_US / 2))
    }

    /// The end of a packet's presentation; `None` for unused streams.
    fn end_of(&self, stream: &Stream<'_>, packet: &ff::Packet) -> Option<i64> {
        let span = self.all().find(|s| s.index == stream.index())?;
        let own = micros(packet.duration().max(0), stream.time_base());
        let picture = self.picture.as_ref().is_some_and(|picture| picture.index == span.index);
        let length = if own == 0 && picture { self.frame_us } else { own };
        let delay = if packet.pts().is_none() && picture { self.delay_us } else { 0 };
        Some(micros(packet.pts().or(packet.dts())?, stream.time_base()).saturating_add(length + delay))
    }

    /// Reads a file without a reliable duration to its end; `survey` sees the picture's packets.
    pub(super) fn measure(
        &mut self,
        input: &mut Input,
        breaks: &[TimeBreak],
        survey: Option<&mut Survey>,
    ) -> Result<(), TaskError> {
        let mut survey = survey.and_then(|survey| survey.begin().then_some(survey));
        let mut timeline = Timeline::new(breaks);
        timeline.seek(input, i64::MIN).map_err(TaskError::ffmpeg("going back to the start"))?;
        self.picture.iter_mut().chain(&mut self.sounds).for_each(|span| span.end = None);
        for (stream, mut packet) in input.packets() {
            let index = stream.index();
            timeline.apply(&mut packet, stream.time_base());
            if let Some(survey) = survey.as_mut().filter(|survey| survey.stream == index) {
                survey.see(&packet);
            }
            let end = self.end_of(&stream, &packet);
            let Some(span) = self.picture.iter_mut().chain(&mut self.sounds).find(|s| s.index == index) else {
                continue;
            };
            if let (Some(end), Some(pts)) = (end, packet.pts().or(packet.dts())) {
                let start = micros(pts, stream.time_base());
                if !breaks.is_empty() {
                    // The container's start ignores discontinuities.
                    span.start = if span.end.is_none() { start } else { span.start.min(start) };
                }
                span.end = Some(span.end.map_or(end, |known| known.max(end)));
            }
        }
        if let Some(survey) = survey {
            survey.complete();
        }
        Ok(())
    }
}

pub(super) fn span(stream: &Stream<'_>, input: &Input) -> StreamSpan {
    let base = stream.time_base();
    let start = known(stream.start_time()).map_or(0, |t| micros(t, base));
    let container_end = || {
        let whole = known(input.duration()).filter(|d| *d > 0)?;
        // Matroska tells when the last sample ends, others how long all is.
        let from = if input.format().name().starts_with("matroska") { 0 } else { container_start(input) };
        Some(from.saturating_add(whole))
    };
    let end = known(stream.duration()).filter(|d| *d > 0).map(|d| start + micros(d, base)).or_else(container_end);
    StreamSpan { index: stream.index(), start, end, last_byte: 0, playable_end: None }
}

/// The start of the earliest stream.
pub(super) fn container_start(input: &Input) -> i64 {
    input.streams().filter_map(|s| known(s.start_time()).map(|t| micros(t, s.time_base()))).min().unwrap_or(0)
}

/// Sets the end of the samples in the file, and how much is playable if the file is truncated.
pub(super) fn measure_index(index: &[IndexEntry], size: i64, stream: &Stream<'_>, span: &mut StreamSpan) {
    span.last_byte = index.iter().map(|e| e.position.saturating_add(e.size)).max().unwrap_or(0);
    if span.last_byte > size {
        let first_missing =
            index.iter().filter(|e| e.position.saturating_add(e.size) > size).map(|e| e.timestamp).min();
        span.playable_end = first_missing.map(|t| micros(t, stream.time_base()));
    }
}

/// Sets the origin of the lesson's timeline and all durations. The frame grid is aligned to the first video frame, so that
/// sources of constant rate keep their frame times exactly and audio stays in sync.
pub(super) fn set_timeline(info: &mut MediaInfo, spans: &StreamSpans, input: &Input) {
    let whole = known(input.duration()).filter(|d| *d > 0);
    let sound_start = spans.sounds.iter().map(|s| s.start).min();
    let frame = info.video.as_ref().map_or(1, |v| (1e6 / v.rate.fps()).round().max(1.0) as i64);
    let origin = match (&spans.picture, sound_start) {
        (Some(picture), Some(sound)) if picture.start - sound > LEAD_US => {
            // Whole frames before the first one keep the grid aligned to the picture.
            picture.start - (picture.start - sound + frame - 1) / frame * frame
        }
        (Some(picture), _) => picture.start,
        (None, sound) => sound.unwrap_or(0),
    };
    let end_of = |s: &StreamSpan| s.playable_end.or(s.end).or_else(|| whole.map(|w| s.start + w));
    let picture_end = spans.picture.as_ref().and_then(end_of);
    let sound_end = spans.sounds.iter().filter_map(end_of).max();
    let end = match (picture_end, sound_end) {
        (Some(picture), Some(sound)) if sound - picture > TAIL_US => sound,
        (Some(picture), _) => picture,
        (None, sound) => sound.unwrap_or(origin),
    };
    info.start_us = origin;
    info.duration_us = u64::try_from(end - origin).unwrap_or(0);
    let length = |s: &StreamSpan| u64::try_from(end_of(s).unwrap_or(s.start) - s.start).unwrap_or(0);
    if let (Some(video), Some(span)) = (&mut info.video, &spans.picture) {
        video.start_us = span.start - origin;
        video.duration_us = length(span);
    }
    for (audio, span) in info.audio.iter_mut().zip(&spans.sounds) {
        audio.start_us = span.start - origin;
        audio.duration_us = length(span);
    }
}
