//! A section of one audio track: decoded, resampled to 48 kHz stereo, aligned to the lesson's timeline by the sample,
//! and encoded as AAC-LC.
//!
//! AAC frame `k` always holds the samples `k × 1024 ..` of the lesson, whichever task encodes it. A task encodes some
//! frames before its own and discards them, so that the encoder's state and the overlap of its first frame with the
//! previous one are as in continuous encoding. The encoder's delay of one frame is in its timestamps: no edit list is
//! needed.

use std::collections::VecDeque;

use ff::format::context::Input;
use ff::format::sample::Type as Layout;
use ff::{ChannelLayout, Dictionary, codec, format};
use ffmpeg_next as ff;
use lyceum_packaging::TrackFacts;
use lyceum_packaging::cmaf::SampleEntry;
use lyceum_packaging::grid::{AAC_FRAME, AUDIO_RATE};
use lyceum_packaging::info::SourceStream;
use lyceum_packaging::task::AudioTask;

use super::demux;
use super::error::TaskError;
use super::output::Output;
use super::segmenter::Segmenter;
use super::source::SourceHandle;
use super::timeline::Timeline;
use super::timestamp::known;
use super::{ffi, limiter};
use crate::ipc::Message;
use crate::limits::Limits;

/// AAC frames encoded before the section and discarded: a third of a second.
const PREROLL_FRAMES: u64 = 16;
/// AAC frames after the section that the encoder needs as look-ahead.
const POSTROLL_FRAMES: u64 = 3;
/// How much is decoded before the first used sample, for codecs that need to converge, in microseconds.
const RUN_UP_US: i64 = 500_000;
/// Deviations of timestamps up to this many samples at 48 kHz count as rounding; larger ones move the sound.
const MAX_JITTER_SAMPLES: i64 = 960;
const SAMPLE_FORMAT: format::Sample = format::Sample::F32(Layout::Planar);

/// Runs the task.
pub(super) fn run(task: &AudioTask, source: &SourceHandle, limits: &Limits, output: &Output) -> Result<(), TaskError> {
    let first = task.grid.first_audio_frame(task.first_segment);
    let end = task.grid.first_audio_frame(task.first_segment.saturating_add(task.segments));
    let from = first.saturating_sub(PREROLL_FRAMES) * AAC_FRAME;
    let to = (end + POSTROLL_FRAMES) * AAC_FRAME;
    let mut sound = StereoBuffer::new(from, to);
    AudioDecoder::open(&task.source, source, limits)?.fill(&mut sound)?;
    output.send(&Message::Progress { fraction: 0.7 }).map_err(TaskError::Source)?;
    sound.amplify(task.gain_db);
    encode(task, &sound, (first, end), output)
}

/// Stereo samples of a range of the lesson's timeline, silent where the source has none.
pub(super) struct StereoBuffer {
    from: u64,
    pub(super) channels: [Vec<f32>; 2],
}

impl StereoBuffer {
    /// Silence for a range of samples of the lesson's timeline.
    pub(super) fn new(from: u64, to: u64) -> Self {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        Self { from, channels: [vec![0.0; length], vec![0.0; length]] }
    }

    fn end(&self) -> i64 {
        let [left, _] = &self.channels;
        i64::try_from(self.from).unwrap_or(i64::MAX).saturating_add(i64::try_from(left.len()).unwrap_or(i64::MAX))
    }

    /// Writes the part of `frame` inside the range; its first sample is at `at` of the lesson's timeline.
    fn place(&mut self, at: i64, frame: &ff::frame::Audio) {
        let offset = at - i64::try_from(self.from).unwrap_or(i64::MAX);
        let skipped = usize::try_from(-offset.min(0)).unwrap_or(usize::MAX);
        let start = usize::try_from(offset.max(0)).unwrap_or(usize::MAX);
        for (plane, channel) in self.channels.iter_mut().enumerate() {
            let samples = frame.plane::<f32>(plane).get(skipped..).unwrap_or_default();
            let Some(room) = channel.get_mut(start..) else { continue };
            for (to, from) in room.iter_mut().zip(samples) {
                *to = if from.is_finite() { from.clamp(-8.0, 8.0) } else { 0.0 };
            }
        }
    }

    fn amplify(&mut self, gain_db: f64) {
        if gain_db != 0.0 {
            let factor = 10f64.powf(gain_db / 20.0) as f32;
            self.channels.iter_mut().flatten().for_each(|sample| *sample *= factor);
        }
        limiter::limit(&mut self.channels);
    }
}

/// Decodes sections of one audio track, in any order.
pub(super) struct AudioDecoder<'a> {
    origin_us: i64,
    source: &'a SourceHandle,
    input: Input,
    decoder: codec::decoder::Audio,
    stream: usize,
    base: ff::Rational,
    timeline: Timeline,
    stream_start: i64,
    moved: bool,
}

impl<'a> AudioDecoder<'a> {
    /// Opens the track.
    pub(super) fn open(track: &SourceStream, source: &'a SourceHandle, limits: &Limits) -> Result<Self, TaskError> {
        let mut input = demux::open(source, limits)?;
        let stream = track.stream as usize;
        ffi::keep_only(&mut input, &[stream]);
        let (decoder, base, stream_start) = {
            let stream = input.stream(stream).ok_or_else(|| TaskError::Machinery("no such stream".to_owned()))?;
            let decoder = demux::decoder(&stream, limits, 1)?.audio().map_err(TaskError::ffmpeg("decoding sound"))?;
            (decoder, stream.time_base(), known(stream.start_time()).unwrap_or(0))
        };
        let timeline = Timeline::new(&track.breaks);
        Ok(Self {
            origin_us: track.origin_us,
            source,
            input,
            decoder,
            stream,
            base,
            timeline,
            stream_start,
            moved: false,
        })
    }

    /// Fills `sound` from the track.
    pub(super) fn fill(&mut self, sound: &mut StereoBuffer) -> Result<(), TaskError> {
        let wanted = i64::try_from(sound.from * 1_000_000 / u64::from(AUDIO_RATE)).unwrap_or(0);
        let target = self.origin_us + wanted - RUN_UP_US;
        self.decoder.flush();
        if sound.from > 0 || self.moved {
            let sought = self.timeline.seek(&mut self.input, target).or_else(|_| self.input.seek(0, ..));
            sought.map_err(TaskError::ffmpeg("seeking"))?;
        }
        self.moved = true;
        let mut resampler = AlignedResampler::default();
        let mut frame = ff::frame::Audio::empty();
        loop {
            let packet = self.read_packet()?;
            let sent = match &packet {
                Some(packet) => self.decoder.send_packet(packet),
                None => self.decoder.send_eof(),
            };
            // Damaged packets leave a gap of silence.
            let _ = sent;
            while self.decoder.receive_frame(&mut frame).is_ok() {
                let position = self.position(&frame);
                resampler.push(position, &mut frame, sound)?;
            }
            if packet.is_none() || resampler.cursor.is_some_and(|cursor| cursor > sound.end()) {
                return resampler.flush(sound);
            }
        }
    }

    fn read_packet(&mut self) -> Result<Option<ff::Packet>, TaskError> {
        let mut packet = demux::next_packet(&mut self.input, self.stream, self.source)?;
        if let Some(packet) = &mut packet {
            self.timeline.apply(packet, self.base);
        }
        Ok(packet)
    }

    /// The position of a frame's first sample on the lesson's timeline, in samples of 48 kHz with a fraction.
    fn position(&self, frame: &ff::frame::Audio) -> Option<f64> {
        // Not the decoder's best guess, which ignores samples that were trimmed at the start.
        let pts = frame.pts().or_else(|| frame.timestamp().and_then(known))?;
        let origin = self.origin_us as f64 / 1e6;
        let ticks = f64::from(self.base.numerator()) / f64::from(self.base.denominator().max(1));
        let mut seconds = pts as f64 * ticks;
        let samples = frame.samples() as f64 / f64::from(frame.rate().max(1));
        // Time bases coarser than a sample (milliseconds in Matroska): frames of constant length are counted instead, so
        // that all tasks agree to the sample.
        if ticks * f64::from(frame.rate()) > 1.5 && frame.samples() >= 128 {
            let start = self.stream_start as f64 * ticks;
            let counted = start + ((seconds - start) / samples).round() * samples;
            if (counted - seconds).abs() <= ticks {
                seconds = counted;
            }
        }
        Some((seconds - origin) * f64::from(AUDIO_RATE))
    }
}

/// Resamples, and keeps the sound contiguous where timestamps are only rounded.
#[derive(Default)]
struct AlignedResampler {
    resampler: Option<(ff::software::resampling::Context, (format::Sample, u64, u32))>,
    /// Position of the next output sample.
    cursor: Option<i64>,
    /// Expected position of the next input sample.
    expected: f64,
}

impl AlignedResampler {
    fn push(
        &mut self,
        position: Option<f64>,
        frame: &mut ff::frame::Audio,
        sound: &mut StereoBuffer,
    ) -> Result<(), TaskError> {
        if frame.rate() == 0 || frame.samples() == 0 {
            return Ok(());
        }
        if frame.channel_layout().is_empty() {
            frame.set_channel_layout(ChannelLayout::default(i32::from(frame.channels().max(1))));
        }
        let position = position.unwrap_or(self.expected);
        let jumped = self.cursor.is_some() && (position - self.expected).abs() > MAX_JITTER_SAMPLES as f64;
        let shape = (frame.format(), frame.channel_layout().bits(), frame.rate());
        if jumped || self.resampler.as_ref().is_some_and(|(_, known)| *known != shape) {
            self.flush(sound)?;
            self.resampler = None;
            self.cursor = None;
        }
        if self.cursor.is_none() {
            self.cursor = Some(position.round() as i64);
            self.expected = position;
        }
        if self.resampler.is_none() {
            let made = ff::software::resampling::Context::get(
                frame.format(),
                frame.channel_layout(),
                frame.rate(),
                SAMPLE_FORMAT,
                ChannelLayout::STEREO,
                AUDIO_RATE,
            );
            self.resampler = Some((made.map_err(TaskError::ffmpeg("setting the resampler up"))?, shape));
        }
        self.expected += frame.samples() as f64 * f64::from(AUDIO_RATE) / f64::from(frame.rate());
        if let Some((resampler, _)) = &mut self.resampler {
            let delayed = resampler.delay().map_or(0, |delay| delay.output);
            let room = frame.samples() as u64 * u64::from(AUDIO_RATE) / u64::from(frame.rate()) + 256;
            let mut out = room_for(usize::try_from(room).unwrap_or(0) + usize::try_from(delayed).unwrap_or(0));
            resampler.run(frame, &mut out).map_err(TaskError::ffmpeg("resampling"))?;
            self.place(&out, sound);
        }
        Ok(())
    }

    fn place(&mut self, frame: &ff::frame::Audio, sound: &mut StereoBuffer) {
        if let (Some(cursor), true) = (&mut self.cursor, frame.samples() > 0) {
            sound.place(*cursor, frame);
            *cursor += i64::try_from(frame.samples()).unwrap_or(0);
        }
    }

    fn flush(&mut self, sound: &mut StereoBuffer) -> Result<(), TaskError> {
        let Some((mut resampler, shape)) = self.resampler.take() else { return Ok(()) };
        loop {
            let mut out = room_for(4096);
            let more = resampler.flush(&mut out).map_err(TaskError::ffmpeg("resampling"))?;
            self.place(&out, sound);
            if more.is_none() || out.samples() == 0 {
                break;
            }
        }
        self.resampler = Some((resampler, shape));
        Ok(())
    }
}

/// A frame with room for `samples` in the output format.
fn room_for(samples: usize) -> ff::frame::Audio {
    ff::frame::Audio::new(SAMPLE_FORMAT, samples, ChannelLayout::STEREO)
}

fn encode(task: &AudioTask, sound: &StereoBuffer, (first, end): (u64, u64), output: &Output) -> Result<(), TaskError> {
    let mut encoder = open_encoder(task)?;
    let segmenter = Segmenter::new(&task.track, &task.grid, false, (task.first_segment, task.segments), output);
    let mut segmenter = segmenter.with_protection(&task.protection)?;
    if task.first_segment == 0 {
        let config = ffi::extradata(encoder.as_ref());
        let bitrate = u32::try_from(task.bitrate).unwrap_or(u32::MAX);
        let entry = SampleEntry::Aac { config, channels: 2, sample_rate: AUDIO_RATE, bitrate };
        let facts =
            TrackFacts { codec: "mp4a.40.2".to_owned(), channels: 2, sample_rate: AUDIO_RATE, ..TrackFacts::default() };
        segmenter.write_init(&entry, facts, "und")?;
    }
    let mut pending: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let frames = sound.channels.first().map_or(0, Vec::len) / AAC_FRAME as usize;
    let mut packet = ff::Packet::empty();
    for n in 0..=frames {
        if n < frames {
            let frame = aac_frame(sound, n);
            encoder.send_frame(&frame).map_err(TaskError::ffmpeg("encoding sound"))?;
        } else {
            encoder.send_eof().map_err(TaskError::ffmpeg("encoding sound"))?;
        }
        while encoder.receive_packet(&mut packet).is_ok() {
            let at = packet.pts().and_then(|pts| u64::try_from(pts).ok());
            if let (Some(at), Some(data)) = (at.map(|at| at / AAC_FRAME), packet.data())
                && (first..end).contains(&at)
            {
                pending.push_back((at, data.to_vec()));
            }
        }
        while let Some((at, data)) = pending.pop_front() {
            segmenter.push(at, true, data)?;
        }
    }
    segmenter.finish()
}

fn aac_frame(sound: &StereoBuffer, n: usize) -> ff::frame::Audio {
    let size = AAC_FRAME as usize;
    let mut frame = ff::frame::Audio::new(SAMPLE_FORMAT, size, ChannelLayout::STEREO);
    frame.set_rate(AUDIO_RATE);
    frame.set_pts(i64::try_from(sound.from + n as u64 * AAC_FRAME).ok());
    for (plane, channel) in sound.channels.iter().enumerate() {
        if let Some(samples) = channel.get(n * size..(n + 1) * size) {
            frame.plane_mut::<f32>(plane).copy_from_slice(samples);
        }
    }
    frame
}

fn open_encoder(task: &AudioTask) -> Result<codec::encoder::audio::Encoder, TaskError> {
    let found = codec::encoder::find_by_name("aac")
        .ok_or_else(|| TaskError::Machinery("FFmpeg lacks its AAC encoder".to_owned()))?;
    let mut context = codec::Context::new_with_codec(found);
    context.set_flags(codec::Flags::GLOBAL_HEADER);
    let mut audio = context.encoder().audio().map_err(TaskError::ffmpeg("preparing an encoder"))?;
    audio.set_rate(i32::try_from(AUDIO_RATE).unwrap_or(48_000));
    audio.set_format(SAMPLE_FORMAT);
    audio.set_channel_layout(ChannelLayout::STEREO);
    audio.set_channels(2);
    audio.set_bit_rate(usize::try_from(task.bitrate).unwrap_or(128_000));
    audio.set_time_base(ff::Rational(1, i32::try_from(AUDIO_RATE).unwrap_or(48_000)));
    audio.open_as_with(found, Dictionary::new()).map_err(TaskError::ffmpeg("opening an encoder"))
}
