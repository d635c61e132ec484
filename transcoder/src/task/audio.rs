//! A section of one audio track: decoded, resampled to 48 kHz stereo, aligned to the lesson's timeline by the sample,
//! and encoded as AAC-LC.
//!
//! AAC frame `k` always holds the samples `k × 1024 ..` of the lesson, whichever task encodes it. A task encodes some
//! frames before its own and discards them, so that the encoder's state and the overlap of its first frame with the
//! previous one are as in continuous encoding. The encoder's delay of one frame is in its timestamps: no edit list is
//! needed.

use std::collections::VecDeque;

use ff::format::sample::Type as Layout;
use ff::{ChannelLayout, Dictionary, codec, format};
use ffmpeg_next as ff;
use lyceum_packaging::TrackFacts;
use lyceum_packaging::cmaf::SampleEntry;
use lyceum_packaging::grid::{AAC_FRAME, AUDIO_RATE};
use lyceum_packaging::task::AudioTask;

use super::audio_decoder::{Clock, TrackDecoder};
use super::error::TaskError;
use super::ffi;
use super::output::Output;
use super::segmenter::Segmenter;
use super::source::SourceHandle;
use super::stereo::StereoBuffer;
use crate::ipc::Message;
use crate::limits::Limits;

/// AAC frames encoded before the section and discarded: a third of a second.
const PREROLL_FRAMES: u64 = 16;
/// AAC frames after the section that the encoder needs as look-ahead.
const POSTROLL_FRAMES: u64 = 3;
const SAMPLE_FORMAT: format::Sample = format::Sample::F32(Layout::Planar);

/// Runs the task.
pub(super) fn run(task: &AudioTask, source: &SourceHandle, limits: &Limits, output: &Output) -> Result<(), TaskError> {
    let first = task.grid.first_audio_frame(task.first_segment);
    let end = task.grid.first_audio_frame(task.first_segment.saturating_add(task.segments));
    let from = first.saturating_sub(PREROLL_FRAMES) * AAC_FRAME;
    let to = (end + POSTROLL_FRAMES) * AAC_FRAME;
    let mut sound = StereoBuffer::new(from, to);
    TrackDecoder::open(&task.source, &task.more_streams, source, limits)?.fill(&mut sound, Clock::Followed)?;
    output.send(&Message::Progress { fraction: 0.7 }).map_err(TaskError::Source)?;
    sound.amplify(task.gain_db);
    encode(task, &sound, (first, end), output)
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
