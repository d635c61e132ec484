//! Embedded subtitles: reads the recording once and converts the text of its packets to WebVTT, without a decoder.

use std::collections::BTreeMap;

use ffmpeg_next as ff;
use lyceum_packaging::subtitles::{Packet, objects, packet_cues};
use lyceum_packaging::task::SubtitlesTask;

use super::demux;
use super::error::TaskError;
use super::ffi;
use super::output::Output;
use super::source::SourceHandle;
use super::timeline::Timeline;
use super::timestamp::micros;
use crate::limits::Limits;

/// The most packets kept of a track, and the most bytes of one packet.
const MAX_PACKETS: usize = 200_000;
const MAX_PACKET_BYTES: usize = 64 << 10;
/// Consecutive damaged packets that are skipped.
const MAX_DAMAGED: u32 = 10_000;

/// Runs the task. A track without readable text becomes an empty one.
pub(super) fn run(
    task: &SubtitlesTask,
    source: &SourceHandle,
    limits: &Limits,
    output: &Output,
) -> Result<(), TaskError> {
    let mut input = demux::open(source, limits)?;
    let kept: Vec<usize> = task.tracks.iter().map(|t| t.stream as usize).collect();
    ffi::keep_only(&mut input, &kept);
    let mut timeline = Timeline::new(&task.breaks);
    let mut packets: BTreeMap<usize, Vec<Packet>> = BTreeMap::new();
    let mut damaged = 0;
    loop {
        let mut packet = ff::Packet::empty();
        match packet.read(&mut input) {
            Ok(()) => {
                damaged = 0;
                if let Some(stream) = input.stream(packet.stream()) {
                    timeline.apply(&mut packet, stream.time_base());
                }
                if let Some((stream, line)) = line(task, &input, &packet) {
                    let lines = packets.entry(stream).or_default();
                    if lines.len() < MAX_PACKETS {
                        lines.push(line);
                    }
                }
            }
            Err(ff::Error::InvalidData) if damaged < MAX_DAMAGED => damaged += 1,
            Err(_) if source.failed() => {
                return Err(TaskError::Source(std::io::Error::other("the parent could not read it")));
            }
            Err(_) => break,
        }
    }
    for found in &task.tracks {
        let mut lines = packets.remove(&(found.stream as usize)).unwrap_or_default();
        lines.sort_by_key(|(start, _, _)| *start);
        for (handover, bytes) in objects(&task.grid, &found.track, &packet_cues(&found.codec, &lines)) {
            output.hand_over(handover, &bytes)?;
        }
    }
    Ok(())
}

/// A packet of one of the task's streams, with times in milliseconds of the lesson.
fn line(task: &SubtitlesTask, input: &ff::format::context::Input, packet: &ff::Packet) -> Option<(usize, Packet)> {
    let stream = packet.stream();
    let base = input.stream(stream)?.time_base();
    let wanted = task.tracks.iter().any(|t| t.stream as usize == stream);
    let data = packet.data().filter(|data| wanted && data.len() <= MAX_PACKET_BYTES)?;
    let start = (micros(packet.pts().or(packet.dts())?, base) - task.origin_us).div_euclid(1000);
    let length = u64::try_from(micros(packet.duration().max(0), base) / 1000).unwrap_or(0);
    Some((stream, (start, length, data.to_vec())))
}
