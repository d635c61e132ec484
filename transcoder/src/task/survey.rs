//! What the picture of a recording is over its whole length: when its frames come, and which shapes they have. The
//! container knows the first seconds only.
//!
//! Files that the probe reads to their end anyway are surveyed on the way; others, at points spread over them.

use ff::format::context::Input;
use ff::{Rational, codec};
use ffmpeg_next as ff;
use lyceum_packaging::FrameRate;

use super::ffi::IndexEntry;
use super::picture_rate;
use super::source::SourceHandle;
use super::timestamp::micros;
use super::{demux, ffi};

/// The most points, and their least distance in microseconds.
const MAX_POINTS: i64 = 24;
const MIN_DISTANCE_US: i64 = 4_000_000;
/// What is read of the picture at a point: this long, in microseconds, and at most these packets.
const LOOK_US: i64 = 2_000_000;
const LOOK_PACKETS: usize = 400;
/// The most times that are kept: a day at 60 frames a second, nearly.
const MAX_TIMES: usize = 4_000_000;

/// The findings.
pub(super) struct Survey {
    /// The picture's stream.
    pub(super) stream: usize,
    base: Rational,
    /// Runs of presentation times without a jump of the reader, in microseconds.
    runs: Vec<Vec<i64>>,
    times: usize,
    /// Whether the times are those of all frames.
    complete: bool,
    /// Key frames, at most [`MAX_POINTS`] and one more.
    keys: Vec<ff::Packet>,
    key_distance: u64,
    next_key: u64,
}

impl Survey {
    /// Nothing found yet, of the picture in `stream` of a file of `bytes`.
    pub(super) fn new(stream: &ff::Stream<'_>, bytes: u64) -> Self {
        Self {
            stream: stream.index(),
            base: stream.time_base(),
            runs: vec![Vec::new()],
            times: 0,
            complete: false,
            keys: Vec::new(),
            key_distance: (bytes / MAX_POINTS.unsigned_abs()).max(1),
            next_key: 0,
        }
    }

    /// Takes all frames' times from an index.
    pub(super) fn take_index(&mut self, index: &[IndexEntry]) {
        self.runs = vec![index.iter().filter(|e| e.shown).map(|e| micros(e.timestamp, self.base)).collect()];
        self.complete = true;
    }

    /// Prepares for the file being read from its start to its end; false if that is known already.
    pub(super) fn begin(&mut self) -> bool {
        if self.complete && !self.keys.is_empty() {
            return false;
        }
        (self.runs, self.times, self.keys, self.next_key) = (vec![Vec::new()], 0, Vec::new(), 0);
        true
    }

    /// Notes that all packets of the file were seen.
    pub(super) fn complete(&mut self) {
        self.complete = self.times < MAX_TIMES;
    }

    /// Looks at a packet of the picture that was read in the order of the file; its times are those of the lesson's source.
    pub(super) fn see(&mut self, packet: &ff::Packet) {
        self.see_time(packet);
        let byte = u64::try_from(packet.position()).unwrap_or(self.next_key);
        if packet.is_key() && byte >= self.next_key && self.keys.len() <= MAX_POINTS as usize {
            self.keys.push(packet.clone());
            self.next_key = byte.saturating_add(self.key_distance);
        }
    }

    fn see_time(&mut self, packet: &ff::Packet) -> Option<i64> {
        let at = micros(packet.pts().or(packet.dts())?, self.base);
        if let Some(run) = self.runs.last_mut().filter(|_| self.times < MAX_TIMES) {
            run.push(at);
            self.times += 1;
        }
        Some(at)
    }

    /// Looks at points between `start` and `end`, in microseconds, as far as they are not known already.
    pub(super) fn visit(&mut self, input: &mut Input, source: &SourceHandle, (start, end): (i64, i64)) {
        if self.complete && !self.keys.is_empty() {
            return;
        }
        let length = end.saturating_sub(start);
        let points = (length / MIN_DISTANCE_US).clamp(1, MAX_POINTS);
        for n in 0..points {
            let at = start.saturating_add(length / points * n);
            if input.seek(at, ..at).is_ok() || (n == 0 && input.seek(0, ..).is_ok()) {
                self.look(input, source);
            }
        }
    }

    /// The same for containers whose times start again: at points between the first byte and the last.
    pub(super) fn visit_bytes(&mut self, input: &mut Input, source: &SourceHandle) {
        if self.complete && !self.keys.is_empty() {
            return;
        }
        for n in 0..MAX_POINTS.unsigned_abs() {
            if ffi::seek_byte(input, source.size() / MAX_POINTS.unsigned_abs() * n).is_ok() {
                self.look(input, source);
            }
        }
    }

    /// Looks at what follows.
    fn look(&mut self, input: &mut Input, source: &SourceHandle) {
        self.runs.push(Vec::new());
        let (mut first, mut key_seen) = (None, false);
        for _ in 0..LOOK_PACKETS {
            let Ok(Some(packet)) = demux::next_packet(input, self.stream, source) else { return };
            let at = if self.complete { None } else { self.see_time(&packet) };
            let start = first.or(at).unwrap_or(0);
            first = first.or(at);
            if packet.is_key() && !key_seen && self.keys.len() <= MAX_POINTS as usize {
                let known = |key: &ff::Packet| key.pts() == packet.pts() && key.dts() == packet.dts();
                if !self.keys.last().is_some_and(known) {
                    self.keys.push(packet);
                }
                key_seen = true;
            }
            if key_seen && (self.complete || at.is_some_and(|at| at.saturating_sub(start) > LOOK_US)) {
                return;
            }
        }
    }

    /// The key frames, decoded each by itself; those that can't be are left out.
    pub(super) fn frames(&self, mut decoder: codec::decoder::Opened) -> Vec<ff::frame::Video> {
        let mut found = Vec::new();
        for key in &self.keys {
            decoder.flush();
            let _ = decoder.send_packet(key);
            let _ = decoder.send_eof();
            let mut frame = ff::frame::Video::empty();
            if decoder.receive_frame(&mut frame).is_ok() {
                found.push(frame);
            }
        }
        found
    }

    /// The constant rate for the frames' times; the container names `base` and `average`.
    pub(super) fn rate(&mut self, base: Option<FrameRate>, average: Option<FrameRate>) -> FrameRate {
        picture_rate::choose(&mut self.runs, base, average)
    }
}
