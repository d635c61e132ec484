//! The poster and the storyboard, made from key frames only: frames between them are not decoded. A recording without
//! a decodable key frame gets neither, which is no failure.

use std::collections::VecDeque;

use ff::codec::{self, encoder};
use ff::format::Pixel;
use ff::format::context::Input;
use ff::{Dictionary, Rational};
use ffmpeg_next as ff;
use lyceum_packaging::images::{POSTER, STORYBOARD, Storyboard, sheet_path};
use lyceum_packaging::task::{Images, ImagesTask};
use lyceum_packaging::{DeliveredObject, ObjectKind};

use super::error::TaskError;
use super::normalize::{NormalizedFrame, Normalizer, normalized_color};
use super::output::Output;
use super::source::SourceHandle;
use super::timeline::Timeline;
use super::timestamp::micros;
use super::{canvas, demux, ffi};
use crate::ipc::Message;
use crate::limits::Limits;

/// Key frames from which the poster is chosen, and the part of the lesson they come from, in milliseconds.
const POSTER_CANDIDATES: u64 = 8;
const POSTER_REACH_MS: u64 = 120_000;
/// The most packets that are read to find a key frame.
const MAX_PACKETS: usize = 100_000;
/// The quantiser of the JPEG encoder, 1 (best) to 31.
const POSTER_QUANTISER: u32 = 3;
const SHEET_QUANTISER: u32 = 5;

/// Runs the task.
pub(super) fn run(task: &ImagesTask, source: &SourceHandle, limits: &Limits, output: &Output) -> Result<(), TaskError> {
    let mut keys = KeyFrames::open(task, source, limits)?;
    match &task.images {
        Images::Poster { width, height } => poster(task, &mut keys, (*width, *height), output),
        Images::Storyboard(board) => storyboard(task, &mut keys, board, output),
    }
}

/// The frame with the highest contrast among the first ones, as recordings often fade in from black.
fn poster(task: &ImagesTask, keys: &mut KeyFrames<'_>, size: (u32, u32), output: &Output) -> Result<(), TaskError> {
    let reach = (task.duration_ms / 3).min(POSTER_REACH_MS);
    let mut best: Option<(f64, ff::frame::Video)> = None;
    for n in 0..POSTER_CANDIDATES {
        let Some(KeyFrame { frame, fresh: true }) = keys.at(reach * n / POSTER_CANDIDATES)? else { continue };
        let picture = keys.scaled(&frame, size)?;
        let seen = contrast(&picture);
        if best.as_ref().is_none_or(|(most, _)| seen > most * 1.05) {
            best = Some((seen, picture));
        }
    }
    let Some((_, picture)) = best else { return Ok(()) };
    hand(output, POSTER.to_owned(), ObjectKind::Image, &jpeg(&picture, POSTER_QUANTISER)?)
}

fn storyboard(
    task: &ImagesTask,
    keys: &mut KeyFrames<'_>,
    board: &Storyboard,
    output: &Output,
) -> Result<(), TaskError> {
    let size = (board.width, board.height);
    let mut tile: Option<ff::frame::Video> = None;
    for n in 0..board.sheets() {
        let first = n * board.per_sheet();
        let end = first.saturating_add(board.per_sheet()).min(board.tiles);
        let rows = (end - first).div_ceil(board.columns.max(1)).min(board.rows.max(1));
        let mut sheet = canvas::black(Pixel::YUVJ420P, (board.columns * board.width, rows * board.height));
        for at in first..end {
            match keys.at(u64::from(at) * board.interval_ms)? {
                Some(KeyFrame { frame, fresh: true }) => tile = Some(keys.scaled(&frame, size)?),
                Some(_) => {}
                None if tile.is_none() => return Ok(()),
                None => {}
            }
            if let Some(tile) = &tile {
                canvas::paste(&mut sheet, tile, board.position(at));
            }
            let fraction = f64::from(at + 1) / f64::from(board.tiles.max(1));
            output.send(&Message::Progress { fraction }).map_err(TaskError::Source)?;
        }
        hand(output, sheet_path(n), ObjectKind::Image, &jpeg(&sheet, SHEET_QUANTISER)?)?;
    }
    hand(output, STORYBOARD.to_owned(), ObjectKind::Text, board.index(task.duration_ms).as_bytes())
}

fn hand(output: &Output, path: String, kind: ObjectKind, bytes: &[u8]) -> Result<(), TaskError> {
    let handover = DeliveredObject {
        path,
        kind,
        track: String::new(),
        n: 0,
        start: 0,
        duration: 0,
        timescale: 0,
        bytes: bytes.len() as u64,
        key_bytes: None,
        ssim: None,
        facts: None,
    };
    output.hand_over(handover, bytes)
}

/// A key frame, and whether it differs from the previous one.
struct KeyFrame {
    frame: ff::frame::Video,
    fresh: bool,
}

struct KeyFrames<'a> {
    task: &'a ImagesTask,
    source: &'a SourceHandle,
    input: Input,
    decoder: codec::decoder::Opened,
    stream: usize,
    base: Rational,
    timeline: Timeline,
    scaler: Option<(ff::software::scaling::Context, (u32, u32))>,
    /// The last key frame and its timestamp, in ticks.
    last: Option<(i64, ff::frame::Video)>,
}

impl<'a> KeyFrames<'a> {
    fn open(task: &'a ImagesTask, source: &'a SourceHandle, limits: &Limits) -> Result<Self, TaskError> {
        let mut input = demux::open(source, limits)?;
        let stream = task.source.stream as usize;
        ffi::keep_only(&mut input, &[stream]);
        let (decoder, base) = {
            let stream = input.stream(stream).ok_or_else(|| TaskError::Machinery("no such stream".to_owned()))?;
            (demux::decoder(&stream, limits, 1)?, stream.time_base())
        };
        Ok(Self {
            task,
            source,
            input,
            decoder,
            stream,
            base,
            timeline: Timeline::new(&task.source.breaks),
            scaler: None,
            last: None,
        })
    }

    /// The key frame at or before `ms` of the lesson, or the first one after it.
    fn at(&mut self, ms: u64) -> Result<Option<KeyFrame>, TaskError> {
        let wanted = i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX);
        let wanted = self.task.source.origin_us.saturating_add(wanted);
        if self.timeline.seek(&mut self.input, wanted).or_else(|_| self.input.seek(0, ..)).is_err() {
            return self.again();
        }
        // In files with discontinuities, key frames are read from the first byte of the section.
        let forward = !self.task.source.breaks.is_empty();
        let mut before: Option<(i64, ff::Packet)> = None;
        for _ in 0..MAX_PACKETS {
            let mut packet = ff::Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) if packet.stream() == self.stream && packet.is_key() => {}
                Ok(()) | Err(ff::Error::InvalidData) => continue,
                Err(_) if self.source.failed() => {
                    return Err(TaskError::Source(std::io::Error::other("the parent could not read it")));
                }
                Err(_) => break,
            }
            self.timeline.apply(&mut packet, self.base);
            let at = packet.pts().or(packet.dts()).unwrap_or(0);
            let time = micros(at, self.base);
            if forward && time <= wanted {
                before = Some((at, packet));
                continue;
            }
            let (at, packet) = before.take().unwrap_or((at, packet));
            if let Some(found) = self.key_frame(at, &packet)? {
                return Ok(Some(found));
            }
            // Damaged: the next key frame is used, unless it is far ahead.
            if time > wanted.saturating_add(10_000_000) {
                break;
            }
        }
        if let Some((at, packet)) = before
            && let Some(found) = self.key_frame(at, &packet)?
        {
            return Ok(Some(found));
        }
        self.again()
    }

    /// Decodes the key frame in `packet`, or returns the last one if it is the same.
    fn key_frame(&mut self, at: i64, packet: &ff::Packet) -> Result<Option<KeyFrame>, TaskError> {
        if self.last.as_ref().is_some_and(|(last, _)| *last == at) {
            return self.again();
        }
        let Some(frame) = self.decode(packet)? else { return Ok(None) };
        self.last = Some((at, ffi::share(&frame)?));
        Ok(Some(KeyFrame { frame, fresh: true }))
    }

    fn again(&self) -> Result<Option<KeyFrame>, TaskError> {
        let Some((_, frame)) = &self.last else { return Ok(None) };
        Ok(Some(KeyFrame { frame: ffi::share(frame)?, fresh: false }))
    }

    /// Decodes one packet by itself.
    fn decode(&mut self, packet: &ff::Packet) -> Result<Option<ff::frame::Video>, TaskError> {
        self.decoder.flush();
        let _ = self.decoder.send_packet(packet);
        let _ = self.decoder.send_eof();
        let mut frame = ff::frame::Video::empty();
        let got = self.decoder.receive_frame(&mut frame).is_ok();
        self.decoder.flush();
        if !got {
            return Ok(None);
        }
        let mut normalizer = Normalizer::new(&self.task.framing, self.task.rotation, &self.task.color, self.base);
        let mut ready = VecDeque::new();
        normalizer.push(frame, &mut ready)?;
        normalizer.finish(&mut ready)?;
        Ok(ready.pop_front().and_then(|prepared| match prepared {
            NormalizedFrame::Timed(_, _, frame) => Some(frame),
            NormalizedFrame::OnGrid(..) => None,
        }))
    }

    /// Scales `frame` and converts it for JPEG: BT.601, full range.
    fn scaled(&mut self, frame: &ff::frame::Video, size: (u32, u32)) -> Result<ff::frame::Video, TaskError> {
        let area = canvas::area(&self.task.framing, frame, size);
        let own = (area.width, area.height);
        let fits = self.scaler.as_ref().is_some_and(|(context, made)| {
            let input = context.input();
            *made == own && (input.format, input.width, input.height) == (frame.format(), frame.width(), frame.height())
        });
        if !fits {
            let flags = ff::software::scaling::Flags::AREA;
            let (format, width, height) = (frame.format(), frame.width(), frame.height());
            let made = ff::software::scaling::Context::get(format, width, height, Pixel::YUVJ420P, own.0, own.1, flags);
            let mut context = made.map_err(TaskError::ffmpeg("setting the scaler up"))?;
            let color = normalized_color(&self.task.color);
            ffi::set_scaler_color(&mut context, (color.matrix, color.full_range), (6, true));
            self.scaler = Some((context, own));
        }
        let mut scaled = ff::frame::Video::empty();
        if let Some((context, _)) = &mut self.scaler {
            context.run(frame, &mut scaled).map_err(TaskError::ffmpeg("scaling"))?;
        }
        Ok(canvas::framed(scaled, area, size))
    }
}

/// The standard deviation of a frame's luma.
fn contrast(frame: &ff::frame::Video) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0f64, 0.0f64, 0.0f64);
    let rows = frame.data(0).chunks(frame.stride(0).max(1)).take(frame.plane_height(0) as usize).step_by(4);
    for row in rows {
        for value in row.iter().take(frame.plane_width(0) as usize).step_by(4) {
            let value = f64::from(*value);
            (count, sum, squares) = (count + 1.0, sum + value, squares + value * value);
        }
    }
    (squares / count.max(1.0) - (sum / count.max(1.0)).powi(2)).max(0.0).sqrt()
}

fn jpeg(picture: &ff::frame::Video, quantiser: u32) -> Result<Vec<u8>, TaskError> {
    let failed = TaskError::ffmpeg("encoding a picture");
    let found = encoder::find_by_name("mjpeg").ok_or_else(|| TaskError::Machinery("FFmpeg lacks mjpeg".to_owned()))?;
    let context = codec::Context::new_with_codec(found);
    let mut video = context.encoder().video().map_err(&failed)?;
    video.set_width(picture.width());
    video.set_height(picture.height());
    video.set_format(Pixel::YUVJ420P);
    video.set_time_base(Rational(1, 25));
    let mut options = Dictionary::new();
    options.set("qmin", &quantiser.to_string());
    options.set("qmax", &quantiser.to_string());
    options.set("threads", "1");
    let mut encoder = video.open_as_with(found, options).map_err(&failed)?;
    let mut frame = ffi::share(picture)?;
    frame.set_pts(Some(0));
    frame.set_kind(ff::picture::Type::None);
    encoder.send_frame(&frame).and_then(|()| encoder.send_eof()).map_err(&failed)?;
    let mut packet = ff::Packet::empty();
    encoder.receive_packet(&mut packet).map_err(&failed)?;
    Ok(packet.data().unwrap_or_default().to_vec())
}
