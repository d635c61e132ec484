//! Decodes sections of a sound track, in any order, and brings them to 48 kHz stereo.

use ff::format::context::Input;
use ff::format::sample::Type as Layout;
use ff::{ChannelLayout, Dictionary, codec, format};
use ffmpeg_next as ff;
use lyceum_packaging::grid::AUDIO_RATE;
use lyceum_packaging::info::SourceStream;

use super::error::TaskError;
use super::sound_clock::{self, Stamp};
use super::source::SourceHandle;
use super::stereo::{DecodedSound, StereoBuffer};
use super::timeline::Timeline;
use super::timestamp::known;
use super::{demux, ffi, mixdown};
use crate::limits::Limits;

/// How much is decoded before the first used sample, for codecs that need to converge, in microseconds.
const RUN_UP_US: i64 = 500_000;
/// Sound may be this much longer than its section before decoding ends: its times stand still or go back.
const MAX_EXCESS_SAMPLES: usize = 60 * AUDIO_RATE as usize;
/// The level of the channel of low frequencies in stereo: recorders put voices on it.
const LOW_FREQUENCY_LEVEL: &str = "0.5";
const SAMPLE_FORMAT: format::Sample = format::Sample::F32(Layout::Planar);

/// How the times of sound are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Together with those around the section, so that neighbouring sections join.
    Followed,
    /// By themselves: for measurements.
    Trusted,
}

/// Decodes sections of one sound, which may be spread over several streams with a channel each.
pub(super) struct TrackDecoder<'a> {
    streams: Vec<AudioDecoder<'a>>,
}

impl<'a> TrackDecoder<'a> {
    /// Opens the track and its further streams.
    pub(super) fn open(
        track: &SourceStream,
        more: &[u32],
        source: &'a SourceHandle,
        limits: &Limits,
    ) -> Result<Self, TaskError> {
        let streams = std::iter::once(track.stream).chain(more.iter().copied());
        let open = |stream| AudioDecoder::open(&SourceStream { stream, ..track.clone() }, source, limits);
        Ok(Self { streams: streams.map(open).collect::<Result<_, _>>()? })
    }

    /// Fills `sound`, which is silent. Of several streams the first, third and so on are heard on the left and the others
    /// on the right, as cameras number their channels; one without a partner on both sides.
    pub(super) fn fill(&mut self, sound: &mut StereoBuffer, clock: Clock) -> Result<(), TaskError> {
        if let [only] = self.streams.as_mut_slice() {
            return only.fill(sound, clock);
        }
        let alone = (self.streams.len() % 2 == 1).then(|| self.streams.len() - 1);
        for (n, stream) in self.streams.iter_mut().enumerate() {
            let mut channel = sound.silent();
            stream.fill(&mut channel, clock)?;
            for (side, (to, from)) in sound.channels.iter_mut().zip(&channel.channels).enumerate() {
                if alone == Some(n) || side == n % 2 {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                }
            }
        }
        Ok(())
    }
}

/// Decodes sections of one stream, in any order.
struct AudioDecoder<'a> {
    origin_us: i64,
    source: &'a SourceHandle,
    input: Input,
    decoder: codec::decoder::Audio,
    stream: usize,
    base: ff::Rational,
    timeline: Timeline,
    moved: bool,
}

impl<'a> AudioDecoder<'a> {
    fn open(track: &SourceStream, source: &'a SourceHandle, limits: &Limits) -> Result<Self, TaskError> {
        let mut input = demux::open(source, limits)?;
        let stream = track.stream as usize;
        ffi::keep_only(&mut input, &[stream]);
        let (decoder, base) = {
            let stream = input.stream(stream).ok_or_else(|| TaskError::Machinery("no such stream".to_owned()))?;
            let decoder = demux::decoder(&stream, limits, 1)?.audio().map_err(TaskError::ffmpeg("decoding sound"))?;
            (decoder, stream.time_base())
        };
        let timeline = Timeline::new(&track.breaks);
        Ok(Self { origin_us: track.origin_us, source, input, decoder, stream, base, timeline, moved: false })
    }

    /// Fills `sound` from the stream.
    fn fill(&mut self, sound: &mut StereoBuffer, clock: Clock) -> Result<(), TaskError> {
        let margin_us = if clock == Clock::Followed { sound_clock::MARGIN_US } else { 0 };
        let margin = margin_us as f64 * f64::from(AUDIO_RATE) / 1e6;
        let wanted = i64::try_from(sound.from * 1_000_000 / u64::from(AUDIO_RATE)).unwrap_or(0) - margin_us;
        self.decoder.flush();
        if sound.from > 0 || self.moved {
            let target = self.origin_us.saturating_add(wanted) - RUN_UP_US;
            let sought = self.timeline.seek(&mut self.input, target).or_else(|_| self.input.seek(0, ..));
            sought.map_err(TaskError::ffmpeg("seeking"))?;
        }
        self.moved = true;
        let first = sound.from as f64 - margin;
        let last = sound.end() as f64 + margin;
        let most =
            sound.channels.iter().map(Vec::len).max().unwrap_or(0) + (2.0 * margin) as usize + MAX_EXCESS_SAMPLES;
        let mut resampler = StereoResampler::default();
        let mut frame = ff::frame::Audio::empty();
        let mut done = false;
        while !done {
            let packet = self.read_packet()?;
            let sent = match &packet {
                Some(packet) => self.decoder.send_packet(packet),
                None => self.decoder.send_eof(),
            };
            // Damaged packets leave a gap of silence.
            let _ = sent;
            done = packet.is_none();
            while self.decoder.receive_frame(&mut frame).is_ok() {
                let position = self.position(&frame);
                let length = frame.samples() as f64 * f64::from(AUDIO_RATE) / f64::from(frame.rate().max(1));
                if resampler.is_empty() && position.is_some_and(|position| position + length < first) {
                    continue;
                }
                resampler.push(position, &mut frame)?;
                done |= position.is_some_and(|position| position > last) || resampler.sound.len() > most;
            }
        }
        sound.place(&resampler.finish()?, clock == Clock::Followed);
        Ok(())
    }

    fn read_packet(&mut self) -> Result<Option<ff::Packet>, TaskError> {
        let mut packet = demux::next_packet(&mut self.input, self.stream, self.source)?;
        if let Some(packet) = &mut packet {
            self.timeline.apply(packet, self.base);
        }
        Ok(packet)
    }

    /// The time of a frame's first sample on the lesson's timeline, in samples of 48 kHz with a fraction.
    fn position(&self, frame: &ff::frame::Audio) -> Option<f64> {
        // Not the decoder's best guess, which ignores samples that were trimmed at the start.
        let pts = frame.pts().or_else(|| frame.timestamp().and_then(known))?;
        let ticks = f64::from(self.base.numerator()) / f64::from(self.base.denominator().max(1));
        Some((pts as f64 * ticks - self.origin_us as f64 / 1e6) * f64::from(AUDIO_RATE))
    }
}

/// Sample format, places of the channels, their number, and rate.
type Shape = (format::Sample, u64, u16, u32);

fn shape(frame: &ff::frame::Audio) -> Shape {
    (frame.format(), frame.channel_layout().bits(), frame.channels(), frame.rate())
}

/// Resamples frame after frame without a gap.
#[derive(Default)]
struct StereoResampler {
    resampler: Option<(ff::software::resampling::Context, Shape)>,
    /// The shape that was found to be none that FFmpeg mixes.
    unmixable: Option<Shape>,
    sound: DecodedSound,
    /// How many samples precede the next input.
    count: f64,
}

impl StereoResampler {
    fn is_empty(&self) -> bool {
        self.resampler.is_none()
    }

    fn push(&mut self, position: Option<f64>, frame: &mut ff::frame::Audio) -> Result<(), TaskError> {
        if frame.rate() == 0 || frame.samples() == 0 || frame.channels() == 0 {
            return Ok(());
        }
        if frame.channel_layout().is_empty() && frame.channels() <= 2 {
            frame.set_channel_layout(ChannelLayout::default(i32::from(frame.channels())));
        }
        let known = self.resampler.as_ref().is_some_and(|(_, known)| *known == shape(frame));
        if !known && !self.unmixable.is_some_and(|unmixable| unmixable == shape(frame)) && !can_mix(frame) {
            self.unmixable = Some(shape(frame));
        }
        if self.unmixable.is_none_or(|unmixable| unmixable != shape(frame)) {
            return self.resample(position, frame);
        }
        let mixed = mixdown::to_mono(frame)
            .ok_or_else(|| TaskError::Machinery("a decoder gives samples of an unknown format".to_owned()))?;
        self.resample(position, &mixed)
    }

    fn resample(&mut self, position: Option<f64>, frame: &ff::frame::Audio) -> Result<(), TaskError> {
        let shape = shape(frame);
        if self.resampler.as_ref().is_some_and(|(_, known)| *known != shape) {
            self.flush()?;
        }
        if self.resampler.is_none() {
            let made = resampler(frame).map_err(TaskError::ffmpeg("setting the resampler up"))?;
            self.resampler = Some((made, shape));
        }
        if let Some(time) = position {
            self.sound.stamps.push(Stamp { count: self.count, time });
        }
        self.count += frame.samples() as f64 * f64::from(AUDIO_RATE) / f64::from(frame.rate());
        if let Some((resampler, _)) = &mut self.resampler {
            let delayed = resampler.delay().map_or(0, |delay| delay.output);
            let room = frame.samples() as u64 * u64::from(AUDIO_RATE) / u64::from(frame.rate()) + 256;
            let mut out = room_for(usize::try_from(room).unwrap_or(0) + usize::try_from(delayed).unwrap_or(0));
            resampler.run(frame, &mut out).map_err(TaskError::ffmpeg("resampling"))?;
            self.sound.append(&out);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TaskError> {
        let Some((mut resampler, _)) = self.resampler.take() else { return Ok(()) };
        loop {
            let mut out = room_for(4096);
            let more = resampler.flush(&mut out).map_err(TaskError::ffmpeg("resampling"))?;
            self.sound.append(&out);
            if more.is_none() || out.samples() == 0 {
                break;
            }
        }
        self.count = self.sound.len() as f64;
        Ok(())
    }

    fn finish(mut self) -> Result<DecodedSound, TaskError> {
        self.flush()?;
        Ok(self.sound)
    }
}

/// Whether FFmpeg mixes such a frame to stereo.
fn can_mix(frame: &ff::frame::Audio) -> bool {
    let told = frame.channel_layout().channels() == i32::from(frame.channels());
    told && (frame.channels() <= 2 || resampler(frame).is_ok())
}

fn resampler(frame: &ff::frame::Audio) -> Result<ff::software::resampling::Context, ff::Error> {
    let mut options = Dictionary::new();
    options.set("lfe_mix_level", LOW_FREQUENCY_LEVEL);
    ff::software::resampling::Context::get_with(
        frame.format(),
        frame.channel_layout(),
        frame.rate(),
        SAMPLE_FORMAT,
        ChannelLayout::STEREO,
        AUDIO_RATE,
        options,
    )
}

/// A frame with room for `samples` in the output format.
fn room_for(samples: usize) -> ff::frame::Audio {
    ff::frame::Audio::new(SAMPLE_FORMAT, samples, ChannelLayout::STEREO)
}
