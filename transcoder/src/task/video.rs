//! A section of the picture: decoded once, aligned to the constant frame grid, and passed to all renditions.
//!
//! The grid index of a decoded frame depends on its timestamp only, never on where a task began, so that the outputs of
//! tasks join without duplicated or lost frames.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use ff::codec::discard::Discard;
use ff::format::context::Input;
use ffmpeg_next as ff;
use lyceum_packaging::info::{Refusal, RefusalCode};
use lyceum_packaging::task::VideoTask;

use super::demux;
use super::error::TaskError;
use super::frame::{GridFrame, place};
use super::normalize::{NormalizedFrame, Normalizer};
use super::output::Output;
use super::source::SourceHandle;
use super::still_frames::StillFrameDetector;
use super::timeline::Timeline;
use super::timestamp::micros;
use super::{ffi, rendition};
use crate::ipc::Message;
use crate::limits::Limits;

/// Frames queued for each rendition. More would only cost memory, as the slowest rendition sets the pace.
const QUEUED_FRAMES: usize = 3;
/// The first frames of a lesson are encoded whether or not they change: tools take a track's rate from them (FFmpeg from
/// the first twenty), and drop later frames that come faster.
const OPENING_FRAMES: u64 = 12;
/// Threads of the decoder.
const DECODER_THREADS: usize = 2;

/// Runs the task.
pub(super) fn run(task: &VideoTask, source: &SourceHandle, limits: &Limits, output: &Output) -> Result<(), TaskError> {
    std::thread::scope(|scope| {
        let mut renditions: Vec<RenditionThread<'_>> = Vec::new();
        let mut started = Ok(());
        for rendition in &task.renditions {
            let (sender, pictures) = sync_channel(QUEUED_FRAMES);
            let work = move || rendition::run(task, rendition, &pictures, output);
            match std::thread::Builder::new().spawn_scoped(scope, work) {
                Ok(work) => renditions.push(RenditionThread { sender, work }),
                Err(cause) => started = Err(TaskError::thread(&cause)),
            }
        }
        let fed = started.and_then(|()| FrameFeeder::open(task, source, limits)?.feed(&renditions, output));
        let mut failed = Ok(());
        for RenditionThread { sender, work } in renditions {
            drop(sender);
            let ended = work.join().unwrap_or_else(|_| Err(TaskError::Machinery("a rendition panicked".to_owned())));
            failed = failed.and(ended);
        }
        // If the feeder failed because a rendition ended, the rendition's own error is more precise.
        if matches!(fed, Err(TaskError::Machinery(_))) { failed.and(fed) } else { fed.and(failed) }
    })
}

struct RenditionThread<'scope> {
    sender: SyncSender<Arc<GridFrame>>,
    work: ScopedJoinHandle<'scope, Result<(), TaskError>>,
}

struct FrameFeeder<'a> {
    task: &'a VideoTask,
    source: &'a SourceHandle,
    input: Input,
    decoder: ff::codec::decoder::Opened,
    normalizer: Normalizer,
    timeline: Timeline,
    ready: VecDeque<NormalizedFrame>,
    stream: usize,
    base: ff::Rational,
    first: u64,
    end: u64,
    drained: bool,
}

impl<'a> FrameFeeder<'a> {
    fn open(task: &'a VideoTask, source: &'a SourceHandle, limits: &Limits) -> Result<Self, TaskError> {
        let mut input = demux::open(source, limits)?;
        let stream = task.source.stream as usize;
        ffi::keep_only(&mut input, &[stream]);
        let (decoder, base) = {
            let stream = input.stream(stream).ok_or_else(|| TaskError::Machinery("no such stream".to_owned()))?;
            (demux::decoder(&stream, limits, DECODER_THREADS)?, stream.time_base())
        };
        let first = task.grid.first_frame(task.first_segment);
        let end = task.grid.first_frame(task.first_segment.saturating_add(task.segments));
        let normalizer = Normalizer::new(&task.framing, task.rotation, &task.color, base);
        Ok(Self {
            task,
            source,
            input,
            decoder,
            normalizer,
            timeline: Timeline::new(&task.source.breaks),
            ready: VecDeque::new(),
            stream,
            base,
            first,
            end,
            drained: false,
        })
    }

    /// Decodes from the key frame before the section to its end.
    fn feed(&mut self, renditions: &[RenditionThread<'_>], output: &Output) -> Result<(), TaskError> {
        let mut held = self.start()?;
        let mut next = self.first;
        let mut told = 0;
        let mut still = StillFrameDetector::new(self.task.grid.rate);
        while next < self.end {
            let following = self.next_frame()?;
            let until = following.as_ref().map_or(self.end, |(place, _)| u64::try_from(*place).unwrap_or(0));
            let until = until.min(self.end);
            while next < until {
                let each = u64::from(self.task.grid.frames_per_segment.max(1));
                let segment = u32::try_from(next / each).unwrap_or(u32::MAX);
                let key = self.task.grid.first_frame(segment) == next;
                if key || next < OPENING_FRAMES || still.must_show(&held, next) {
                    still.show(&held, next);
                    let picture = Arc::new(GridFrame { frame: held.clone(), index: next, key });
                    for rendition in renditions {
                        let sent = rendition.sender.send(picture.clone());
                        sent.map_err(|_| TaskError::Machinery("a rendition ended early".to_owned()))?;
                    }
                }
                next += 1;
            }
            if let Some((_, frame)) = following {
                held = frame;
            }
            let tenths = (next - self.first) * 20 / (self.end - self.first).max(1);
            if tenths > told {
                told = tenths;
                let fraction = (next - self.first) as f64 / (self.end - self.first) as f64;
                output.send(&Message::Progress { fraction }).map_err(TaskError::Source)?;
            }
        }
        Ok(())
    }

    /// Seeks so that the frame at the section's first index is decoded, further and further back where seeking is not
    /// exact, and returns that frame.
    fn start(&mut self) -> Result<Arc<ff::frame::Video>, TaskError> {
        let target = self.task.source.origin_us.saturating_add(self.frame_us(self.first));
        let mut back = 0;
        loop {
            let at_start = self.first == 0 || back > target.saturating_sub(self.task.source.origin_us);
            if !(self.first == 0 && back == 0) {
                let to = if at_start { i64::MIN / 2 } else { target - back };
                self.seek(to)?;
            }
            let mut held = None;
            while let Some((place, frame)) = self.next_frame()? {
                let place_needed = i64::try_from(self.first).unwrap_or(i64::MAX);
                if place > place_needed {
                    // The section's first index lies between the held frame and this one.
                    self.ready.push_front(NormalizedFrame::OnGrid(place, frame));
                    break;
                }
                let found = place == place_needed;
                held = Some(frame);
                if found {
                    return held.ok_or_else(unreachable_frame);
                }
            }
            if let Some(frame) = held {
                return Ok(frame);
            }
            if at_start {
                // No frame precedes: the first one fills the gap.
                let first = self.next_frame()?;
                return first
                    .map(|(place, frame)| {
                        self.ready.push_front(NormalizedFrame::OnGrid(place, frame.clone()));
                        frame
                    })
                    .ok_or_else(nothing_decoded);
            }
            back = (back * 4).max(2_000_000);
        }
    }

    fn frame_us(&self, frame: u64) -> i64 {
        i64::try_from(self.task.grid.frame_time(frame, 1_000_000)).unwrap_or(i64::MAX)
    }

    fn seek(&mut self, to: i64) -> Result<(), TaskError> {
        self.decoder.flush();
        self.normalizer = Normalizer::new(&self.task.framing, self.task.rotation, &self.task.color, self.base);
        self.ready.clear();
        self.drained = false;
        let sought = if to <= i64::MIN / 2 {
            self.timeline.seek(&mut self.input, i64::MIN)
        } else {
            self.timeline.seek(&mut self.input, to)
        };
        // If the container can't seek there, it is read from its start.
        sought.or_else(|_| self.input.seek(0, ..)).map_err(|_| {
            let detail = "The recording can't be read from its middle on: its index is damaged.";
            Refusal::new(RefusalCode::NotVideo, detail).into()
        })
    }

    /// The next decoded frame and its grid index.
    fn next_frame(&mut self) -> Result<Option<(i64, Arc<ff::frame::Video>)>, TaskError> {
        loop {
            match self.ready.pop_front() {
                Some(NormalizedFrame::OnGrid(place, frame)) => return Ok(Some((place, frame))),
                Some(NormalizedFrame::Timed(pts, base, frame)) => {
                    let place = place(pts, base, self.task.source.origin_us, self.task.grid.rate);
                    return Ok(Some((place, Arc::new(frame))));
                }
                None if self.drained => return Ok(None),
                None => self.decode_more()?,
            }
        }
    }

    fn decode_more(&mut self) -> Result<(), TaskError> {
        match self.read_packet()? {
            Some(packet) => {
                self.skip_discarded_frames(&packet);
                match self.decoder.send_packet(&packet) {
                    Ok(()) | Err(ff::Error::InvalidData | ff::Error::Eof) => {}
                    // Damaged frames are shown as far as decodable; only a lack of memory fails the task.
                    Err(cause @ ff::Error::Other { errno: ff::error::ENOMEM }) => {
                        return Err(TaskError::Ffmpeg { doing: "decoding", cause });
                    }
                    Err(_) => {}
                }
            }
            None => {
                let _ = self.decoder.send_eof();
                self.drained = true;
            }
        }
        let mut frame = ff::frame::Video::empty();
        while self.decoder.receive_frame(&mut frame).is_ok() {
            let done = std::mem::replace(&mut frame, ff::frame::Video::empty());
            self.normalizer.push(done, &mut self.ready)?;
        }
        if self.drained {
            self.normalizer.finish(&mut self.ready)?;
        }
        Ok(())
    }

    /// Skips decoding of non-reference frames before the section.
    fn skip_discarded_frames(&mut self, packet: &ff::Packet) {
        let wanted = self.task.source.origin_us.saturating_add(self.frame_us(self.first)) - 1_000_000;
        let early = packet.pts().is_some_and(|pts| micros(pts, self.base) < wanted);
        self.decoder.skip_frame(if early { Discard::NonReference } else { Discard::Default });
    }

    fn read_packet(&mut self) -> Result<Option<ff::Packet>, TaskError> {
        let mut packet = demux::next_packet(&mut self.input, self.stream, self.source)?;
        if let Some(packet) = &mut packet {
            self.timeline.apply(packet, self.base);
        }
        Ok(packet)
    }
}

fn unreachable_frame() -> TaskError {
    TaskError::Machinery("a frame was lost".to_owned())
}

fn nothing_decoded() -> TaskError {
    let detail = "Not one frame of the picture can be decoded: the recording is damaged.";
    Refusal::new(RefusalCode::NotVideo, detail).into()
}
