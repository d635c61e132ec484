//! A stretch of one sound track: decoded, brought to 48 kHz stereo, placed on the lesson's clock to the sample,
//! encoded as AAC-LC.
//!
//! AAC frame `k` always holds the samples `k × 1024 ..` of the lesson, whichever task makes it. A task encodes some
//! frames before its own and throws them away, so that the encoder's state, and the overlap of the first frame with
//! the one before, are as if it had been running all along. The encoder's delay is one frame, which its timestamps
//! already tell: no edit list is needed.

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
use super::segmenter::Cutter;
use super::source::Source;
use super::timeline::Clock;
use super::timestamp::known;
use super::{ffi, limiter};
use crate::ipc::Message;
use crate::limits::Limits;

/// AAC frames encoded before the stretch and thrown away: a third of a second.
const PREROLL_FRAMES: u64 = 16;
/// Frames of look-ahead that the last frame's window and the encoder's model want.
const POSTROLL_FRAMES: u64 = 3;
/// What is decoded before the first sample that is used, for codecs that need a run-up, in microseconds.
const RUN_UP_US: i64 = 500_000;
/// Timestamps off by more than this many samples of 48 kHz move the sound; less is taken for rounding.
const TOLERANCE: i64 = 960;
const SAMPLE: format::Sample = format::Sample::F32(Layout::Planar);

/// Runs the task.
pub(super) fn run(task: &AudioTask, source: &Source, limits: &Limits, output: &Output) -> Result<(), TaskError> {
    let first = task.grid.first_audio_frame(task.first_segment);
    let end = task.grid.first_audio_frame(task.first_segment.saturating_add(task.segments));
    let from = first.saturating_sub(PREROLL_FRAMES) * AAC_FRAME;
    let to = (end + POSTROLL_FRAMES) * AAC_FRAME;
    let mut sound = Sound::new(from, to);
    Decode::open(&task.source, source, limits)?.fill(&mut sound)?;
    output.say(&Message::Progress { fraction: 0.7 }).map_err(TaskError::Source)?;
    sound.amplify(task.gain_db);
    encode(task, &sound, (first, end), output)
}

/// Stereo samples of the lesson's clock, silent where the source has none.
pub(super) struct Sound {
    from: u64,
    pub(super) channels: [Vec<f32>; 2],
}

impl Sound {
    /// Silence from one sample to another of the lesson's clock.
    pub(super) fn new(from: u64, to: u64) -> Self {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        Self { from, channels: [vec![0.0; length], vec![0.0; length]] }
    }

    fn end(&self) -> i64 {
        let [left, _] = &self.channels;
        i64::try_from(self.from).unwrap_or(i64::MAX).saturating_add(i64::try_from(left.len()).unwrap_or(i64::MAX))
    }

    /// Writes what of `frame` falls inside, its first sample being `at` on the lesson's clock.
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

/// Decodes one sound track, any stretches of it.
pub(super) struct Decode<'a> {
    origin_us: i64,
    source: &'a Source,
    input: Input,
    decoder: codec::decoder::Audio,
    stream: usize,
    base: ff::Rational,
    clock: Clock,
    stream_start: i64,
    moved: bool,
}

impl<'a> Decode<'a> {
    /// Opens the track.
    pub(super) fn open(track: &SourceStream, source: &'a Source, limits: &Limits) -> Result<Self, TaskError> {
        let mut input = demux::open(source, limits)?;
        let stream = track.stream as usize;
        ffi::keep_only(&mut input, &[stream]);
        let (decoder, base, stream_start) = {
            let stream = input.stream(stream).ok_or_else(|| TaskError::Machinery("no such stream".to_owned()))?;
            let decoder = demux::decoder(&stream, limits, 1)?.audio().map_err(TaskError::ffmpeg("decoding sound"))?;
            (decoder, stream.time_base(), known(stream.start_time()).unwrap_or(0))
        };
        let clock = Clock::new(&track.breaks);
        Ok(Self { origin_us: track.origin_us, source, input, decoder, stream, base, clock, stream_start, moved: false })
    }

    /// Fills `sound` with what the track has there.
    pub(super) fn fill(&mut self, sound: &mut Sound) -> Result<(), TaskError> {
        let wanted = i64::try_from(sound.from * 1_000_000 / u64::from(AUDIO_RATE)).unwrap_or(0);
        let target = self.origin_us + wanted - RUN_UP_US;
        self.decoder.flush();
        if sound.from > 0 || self.moved {
            let sought = self.clock.seek(&mut self.input, target).or_else(|_| self.input.seek(0, ..));
            sought.map_err(TaskError::ffmpeg("seeking"))?;
        }
        self.moved = true;
        let mut placer = Placer::default();
        let mut frame = ff::frame::Audio::empty();
        loop {
            let packet = self.read_packet()?;
            let sent = match &packet {
                Some(packet) => self.decoder.send_packet(packet),
                None => self.decoder.send_eof(),
            };
            // Damaged packets leave a gap, which stays silent.
            let _ = sent;
            while self.decoder.receive_frame(&mut frame).is_ok() {
                let position = self.position(&frame);
                placer.push(position, &mut frame, sound)?;
            }
            if packet.is_none() || placer.cursor.is_some_and(|cursor| cursor > sound.end()) {
                return placer.flush(sound);
            }
        }
    }

    fn read_packet(&mut self) -> Result<Option<ff::Packet>, TaskError> {
        let mut damaged = 0u32;
        loop {
            let mut packet = ff::Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) if packet.stream() == self.stream => {
                    self.clock.mend(&mut packet, self.base);
                    return Ok(Some(packet));
                }
                Ok(()) => {}
                Err(ff::Error::InvalidData) if damaged < 10_000 => damaged += 1,
                Err(_) if self.source.failed() => {
                    return Err(TaskError::Source(std::io::Error::other("the parent could not read it")));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Where a frame's first sample lies on the lesson's clock, in samples of 48 kHz with a fraction.
    fn position(&self, frame: &ff::frame::Audio) -> Option<f64> {
        // Not the decoder's best guess: that is from before samples were cut off at the start.
        let pts = frame.pts().or_else(|| frame.timestamp().and_then(known))?;
        let origin = self.origin_us as f64 / 1e6;
        let ticks = f64::from(self.base.numerator()) / f64::from(self.base.denominator().max(1));
        let mut seconds = pts as f64 * ticks;
        let samples = frame.samples() as f64 / f64::from(frame.rate().max(1));
        // Clocks coarser than a sample (Matroska's milliseconds): frames of constant length are counted instead,
        // so that all tasks agree to the sample.
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

/// Resamples, and keeps the sound contiguous where timestamps are but rounded.
#[derive(Default)]
struct Placer {
    resampler: Option<(ff::software::resampling::Context, (format::Sample, u64, u32))>,
    /// Where the next sample that comes out belongs.
    cursor: Option<i64>,
    /// Where the next sample that goes in is expected.
    expected: f64,
}

impl Placer {
    fn push(
        &mut self,
        position: Option<f64>,
        frame: &mut ff::frame::Audio,
        sound: &mut Sound,
    ) -> Result<(), TaskError> {
        if frame.rate() == 0 || frame.samples() == 0 {
            return Ok(());
        }
        if frame.channel_layout().is_empty() {
            frame.set_channel_layout(ChannelLayout::default(i32::from(frame.channels().max(1))));
        }
        let position = position.unwrap_or(self.expected);
        let jumped = self.cursor.is_some() && (position - self.expected).abs() > TOLERANCE as f64;
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
                SAMPLE,
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

    fn place(&mut self, frame: &ff::frame::Audio, sound: &mut Sound) {
        if let (Some(cursor), true) = (&mut self.cursor, frame.samples() > 0) {
            sound.place(*cursor, frame);
            *cursor += i64::try_from(frame.samples()).unwrap_or(0);
        }
    }

    fn flush(&mut self, sound: &mut Sound) -> Result<(), TaskError> {
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

/// A frame with room for `samples` of the output's form.
fn room_for(samples: usize) -> ff::frame::Audio {
    ff::frame::Audio::new(SAMPLE, samples, ChannelLayout::STEREO)
}

fn encode(task: &AudioTask, sound: &Sound, (first, end): (u64, u64), output: &Output) -> Result<(), TaskError> {
    let mut encoder = open_encoder(task)?;
    let cutter = Cutter::new(&task.track, &task.grid, false, (task.first_segment, task.segments), output);
    let mut cutter = cutter.protected(&task.protection)?;
    if task.first_segment == 0 {
        let config = ffi::extradata(encoder.as_ref());
        let bitrate = u32::try_from(task.bitrate).unwrap_or(u32::MAX);
        let entry = SampleEntry::Aac { config, channels: 2, sample_rate: AUDIO_RATE, bitrate };
        let facts =
            TrackFacts { codec: "mp4a.40.2".to_owned(), channels: 2, sample_rate: AUDIO_RATE, ..TrackFacts::default() };
        cutter.init(&entry, facts, "und")?;
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
            cutter.push(at, true, data)?;
        }
    }
    cutter.finish()
}

fn aac_frame(sound: &Sound, n: usize) -> ff::frame::Audio {
    let size = AAC_FRAME as usize;
    let mut frame = ff::frame::Audio::new(SAMPLE, size, ChannelLayout::STEREO);
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
    audio.set_format(SAMPLE);
    audio.set_channel_layout(ChannelLayout::STEREO);
    audio.set_channels(2);
    audio.set_bit_rate(usize::try_from(task.bitrate).unwrap_or(128_000));
    audio.set_time_base(ff::Rational(1, i32::try_from(AUDIO_RATE).unwrap_or(48_000)));
    audio.open_as_with(found, Dictionary::new()).map_err(TaskError::ffmpeg("opening an encoder"))
}
