//! What the probe finds about the picture: by its container's description, by the index, and by a [`Survey`] of the whole
//! recording.

use ff::codec::packet::side_data;
use ff::format::context::Input;
use ff::format::stream::Disposition;
use ff::{Stream, media};
use ffmpeg_next as ff;
use lyceum_packaging::FrameRate;
use lyceum_packaging::framing::{self, PictureShape};
use lyceum_packaging::info::{Refusal, RefusalCode, VideoInfo};

use super::error::TaskError;
use super::source::SourceHandle;
use super::stream_spans::{StreamSpan, StreamSpans, measure_index, span};
use super::survey::Survey;
use super::timeline::{JOINABLE, LostTime};
use super::timestamp::micros;
use super::{demux, ffi};
use crate::limits::Limits;

/// How much of a file without an index is read to estimate its key frame interval, in packets.
const SAMPLED_PACKETS: usize = 20_000;
/// The same in microseconds.
const SAMPLED_US: i64 = 30_000_000;
/// Samples that an index tells of this much after the end that the container names are kept, in microseconds.
const BEYOND_END_US: i64 = 250_000;

/// The picture under examination.
pub(super) struct Picture {
    pub(super) info: VideoInfo,
    pub(super) survey: Survey,
    /// The rates that the container names: what its timestamps fit, and the mean.
    named: (Option<FrameRate>, Option<FrameRate>),
    delay_frames: i64,
}

/// The video stream that a player would choose; cover art does not count.
pub(super) fn best(input: &Input) -> Option<usize> {
    let moving = |s: &Stream<'_>| {
        s.parameters().medium() == media::Type::Video && !s.disposition().contains(Disposition::ATTACHED_PIC)
    };
    let best = input.streams().best(media::Type::Video).filter(moving);
    best.or_else(|| input.streams().find(moving)).map(|s| s.index())
}

impl Picture {
    /// What the container says of the picture in `stream`, whose description was checked.
    pub(super) fn describe(
        stream: &Stream<'_>,
        input: &Input,
        source: &SourceHandle,
        spans: &mut StreamSpans,
    ) -> Result<Self, TaskError> {
        let facts = ffi::facts(stream);
        let (width, height) = (u32::try_from(facts.width).unwrap_or(0), u32::try_from(facts.height).unwrap_or(0));
        if width == 0 || height == 0 {
            let detail = "The picture's size is not in the file: it is damaged, or its picture is of a kind that can't be decoded.";
            return Err(Refusal::new(RefusalCode::NotVideo, detail).into());
        }
        let (rotation, mirrored) = orientation(stream);
        let (base, average) = (rate(stream.rate()), rate(stream.avg_frame_rate()));
        let mut own = span(stream, input);
        let index = ffi::index(stream);
        let mut survey = Survey::new(stream, source.size());
        if input.format().name().starts_with("mov") {
            // FFmpeg reads the descriptions of all fragments too.
            survey.take_index(&index);
        }
        let mut found = Self {
            info: VideoInfo {
                stream: u32::try_from(stream.index()).unwrap_or(0),
                codec: facts.codec.clone(),
                width,
                height,
                sample_aspect: aspect(facts.sample_aspect),
                rotation,
                mirrored,
                constant_rate: base.zip(average).is_some_and(|(b, a)| (b.fps() - a.fps()).abs() <= 0.004 * a.fps()),
                interlaced: facts.interlaced.unwrap_or(false),
                pixel_format: facts
                    .pixel_format
                    .and_then(|f| f.descriptor())
                    .map_or_else(String::new, |d| d.name().to_owned()),
                bit_depth: u32::try_from(facts.bit_depth).unwrap_or(8),
                color: facts.color,
                start_us: own.start,
                ..VideoInfo::default()
            },
            survey,
            named: (base, average),
            delay_frames: facts.delay,
        };
        found.set_rate(spans);
        if input.format().name().starts_with("mov") {
            measure_end(&index, stream, &mut own, spans);
        }
        measure_index(&index, i64::try_from(source.size()).unwrap_or(i64::MAX), stream, &mut own);
        found.info.key_interval_us = index_key_interval(&index, stream, own.end);
        spans.picture = Some(own);
        Ok(found)
    }

    /// Sets the rate by what is surveyed so far.
    pub(super) fn set_rate(&mut self, spans: &mut StreamSpans) {
        let (base, average) = self.named;
        self.info.rate = self.survey.rate(base, average);
        spans.frame_us = (1e6 / self.info.rate.fps()).round() as i64;
        spans.delay_us = spans.frame_us.saturating_mul(self.delay_frames);
    }

    /// Looks at what the index and the search for discontinuities did not show.
    pub(super) fn visit(&mut self, input: &mut Input, source: &SourceHandle, spans: &mut StreamSpans) {
        if JOINABLE.contains(&input.format().name()) {
            self.survey.visit_bytes(input, source);
        } else if let Some(StreamSpan { start, end: Some(end), .. }) = spans.picture {
            self.survey.visit(input, source, (start, end));
        }
        self.set_rate(spans);
    }

    /// Decodes key frames of the whole recording for its shape, and for whether there are fields in it.
    pub(super) fn look(&mut self, input: &Input, limits: &Limits) -> Result<(), TaskError> {
        let Some(stream) = input.stream(self.survey.stream) else { return Ok(()) };
        let seen: Vec<Seen> = self.survey.frames(demux::decoder(&stream, limits, 1)?).iter().map(Seen::of).collect();
        let Some(first) = seen.first() else { return Ok(()) };
        let info = &mut self.info;
        let marked = seen.iter().any(|frame| frame.fields);
        info.fields_unmarked = info.interlaced && !marked;
        info.interlaced |= marked;
        info.aspect_in_frames = first.shape.sample_aspect == info.sample_aspect;
        let overruled = |shape: PictureShape| match info.aspect_in_frames {
            true => shape,
            false => PictureShape { sample_aspect: info.sample_aspect, ..shape },
        };
        let shapes: Vec<PictureShape> = seen.iter().map(|frame| overruled(frame.shape)).collect();
        if let Some(PictureShape { width, height, sample_aspect }) = framing::canvas(&shapes) {
            (info.width, info.height, info.sample_aspect) = (width, height, sample_aspect);
        }
        Ok(())
    }

    /// Estimates the distance of key frames where the index did not tell it.
    pub(super) fn find_key_interval(&mut self, input: &mut Input) {
        if self.info.key_interval_us == 0 {
            self.info.key_interval_us = sampled_key_interval(input, self.survey.stream);
        }
    }
}

/// What one frame shows.
struct Seen {
    shape: PictureShape,
    fields: bool,
}

impl Seen {
    fn of(frame: &ff::frame::Video) -> Self {
        let told = frame.aspect_ratio();
        let sample_aspect = aspect([told.numerator(), told.denominator()]);
        let shape = PictureShape { width: frame.width(), height: frame.height(), sample_aspect };
        Self { shape, fields: frame.is_interlaced() }
    }
}

fn rate(named: ff::Rational) -> Option<FrameRate> {
    let (num, den) = (u32::try_from(named.numerator()).ok()?, u32::try_from(named.denominator()).ok()?);
    (num > 0 && den > 0).then(|| FrameRate::new(num, den))
}

/// The end of the picture and the time it lacks, by its index.
fn measure_end(index: &[ffi::IndexEntry], stream: &Stream<'_>, own: &mut StreamSpan, spans: &mut StreamSpans) {
    let base = stream.time_base();
    let mut lost = LostTime::default();
    index.iter().for_each(|entry| lost.step(micros(entry.timestamp, base), spans.frame_us));
    spans.lost_us = lost.us;
    // An edit list may end before the last presented sample does.
    let last = index.iter().filter(|e| e.shown).map(|e| micros(e.timestamp, base)).max().unwrap_or(0);
    own.end = own.end.map(|end| if last > end + BEYOND_END_US { last + spans.frame_us } else { end });
}

fn aspect([num, den]: [i32; 2]) -> [u32; 2] {
    match (u32::try_from(num), u32::try_from(den)) {
        // Aspect ratios beyond 8:1 are damaged metadata.
        (Ok(num), Ok(den)) if num > 0 && den > 0 && num / den < 8 && den / num < 8 => [num, den],
        _ => [1, 1],
    }
}

/// Clockwise degrees from the display matrix (ISO/IEC 14496-12, section 8.3.2), and whether the picture is mirrored before
/// it is turned: two columns of 16.16 numbers.
fn orientation(stream: &Stream<'_>) -> (u32, bool) {
    let Some(matrix) = stream.side_data().find(|s| s.kind() == side_data::Type::DisplayMatrix) else {
        return (0, false);
    };
    let at = |i: usize| {
        let bytes = matrix.data().get(i * 4..i * 4 + 4)?;
        Some(f64::from(i32::from_ne_bytes(bytes.try_into().ok()?)))
    };
    let (Some(a), Some(b), Some(c), Some(d)) = (at(0), at(1), at(3), at(4)) else { return (0, false) };
    let mirrored = a * d - b * c < 0.0;
    let degrees = if mirrored { (-b).atan2(-a) } else { b.atan2(a) }.to_degrees().rem_euclid(360.0);
    (((degrees / 90.0).round() as u32 % 4) * 90, mirrored)
}

/// Mean key frame interval by the index, in microseconds; 0 if the index covers only the part read so far.
fn index_key_interval(index: &[ffi::IndexEntry], stream: &Stream<'_>, end: Option<i64>) -> u64 {
    let (keys, first, last) = index
        .iter()
        .filter(|e| e.key)
        .fold((0i64, i64::MAX, i64::MIN), |(n, first, last), e| (n + 1, first.min(e.timestamp), last.max(e.timestamp)));
    let all_last = index.iter().map(|e| e.timestamp).max().unwrap_or(0);
    if end.is_none_or(|end| micros(all_last, stream.time_base()) < end / 2) {
        return 0;
    }
    match keys {
        0 => 0,
        1 => u64::try_from(micros(all_last.saturating_sub(first), stream.time_base())).unwrap_or(0),
        _ => u64::try_from(micros(last.saturating_sub(first), stream.time_base()) / (keys - 1)).unwrap_or(0),
    }
}

/// Mean key frame interval of files without an index, from the first half minute.
fn sampled_key_interval(input: &mut Input, picture: usize) -> u64 {
    let (mut keys, mut first, mut last) = (0i64, None, 0);
    for (stream, packet) in input.packets().take(SAMPLED_PACKETS) {
        let Some(ticks) = packet.pts().or(packet.dts()).filter(|_| stream.index() == picture) else { continue };
        let at = micros(ticks, stream.time_base());
        let start = *first.get_or_insert(at);
        keys += i64::from(packet.is_key());
        last = at;
        if at - start > SAMPLED_US {
            break;
        }
    }
    let length = last - first.unwrap_or(last);
    u64::try_from(length / keys.max(1)).unwrap_or(0)
}
