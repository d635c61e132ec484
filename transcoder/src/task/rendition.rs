//! One rendition of the picture: scaled, encoded on one thread, segmented and sent.
//!
//! Each encoder runs on one thread: renditions run in parallel, the output does not depend on the number of cores, and
//! no time is lost to synchronization inside an encoder.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use ff::codec::{self, encoder};
use ff::format::Pixel;
use ff::{Dictionary, Rational};
use ffmpeg_next as ff;
use lyceum_packaging::cmaf::{Color, SampleEntry};
use lyceum_packaging::framing::{Area, Framing};
use lyceum_packaging::info::ColorInfo;
use lyceum_packaging::task::{Rendition, VideoTask};
use lyceum_packaging::{TrackFacts, VideoCodec, av1, avc, hevc};

use super::error::TaskError;
use super::frame::GridFrame;
use super::normalize::normalized_color;
use super::output::Output;
use super::segmenter::Segmenter;
use super::ssim::SsimMeter;
use super::{canvas, ffi};

/// Encodes `rendition` of the frames from `pictures`.
pub(super) fn run(
    task: &VideoTask,
    rendition: &Rendition,
    pictures: &Receiver<Arc<GridFrame>>,
    output: &Output,
) -> Result<(), TaskError> {
    let mut encoder = RenditionEncoder::open(task, rendition, output)?;
    // A frame is encoded when its successor arrives, as only then its duration is known.
    let mut shown: Option<Arc<GridFrame>> = None;
    for picture in pictures {
        let until = picture.index;
        if let Some(before) = shown.replace(picture) {
            encoder.encode(&before, until)?;
        }
    }
    if let Some(last) = shown {
        encoder.encode(&last, task.grid.first_frame(task.first_segment.saturating_add(task.segments)))?;
    }
    encoder.finish()
}

/// Scaler, encoder and segmenter of one rendition.
struct RenditionEncoder<'a> {
    codec: VideoCodec,
    scaler: Scaler<'a>,
    encoder: encoder::video::Encoder,
    packet: ff::Packet,
    ssim: Option<SsimMeter>,
    /// End of the measured segment, exclusive.
    measured_end: u64,
    segmenter: Segmenter<'a>,
}

impl<'a> RenditionEncoder<'a> {
    fn open(task: &'a VideoTask, rendition: &'a Rendition, output: &'a Output) -> Result<Self, TaskError> {
        let prepared = normalized_color(&task.color);
        let color = output_color(&prepared);
        let encoder = open(task, rendition, &color)?;
        let segmenter = Segmenter::new(&rendition.track, &task.grid, true, (task.first_segment, task.segments), output);
        let segmenter =
            segmenter.with_reordering(reordered(&encoder, rendition.codec)).with_protection(&task.protection)?;
        if task.first_segment == 0 {
            let (entry, facts) = describe(&encoder, rendition, &color)?;
            segmenter.write_init(&entry, facts, "und")?;
        }
        let first = task.grid.first_frame(task.first_segment);
        let measured_end = task.grid.first_frame(task.first_segment.saturating_add(1));
        let ssim = if task.measure { Some(SsimMeter::new(&encoder, first, measured_end)?) } else { None };
        let scaler = Scaler::new(task, rendition, prepared);
        Ok(Self { codec: rendition.codec, scaler, encoder, packet: ff::Packet::empty(), ssim, measured_end, segmenter })
    }

    /// Encodes `picture`, which is shown from its index up to `until`.
    fn encode(&mut self, picture: &GridFrame, until: u64) -> Result<(), TaskError> {
        let mut frame = self.scaler.scale(&picture.frame)?;
        // Decoded frames carry the source's picture type, which the encoder would use.
        frame.set_kind(if picture.key { ff::picture::Type::I } else { ff::picture::Type::None });
        if let Some(ssim) = &mut self.ssim {
            ssim.add_source(picture.index, &frame)?;
        }
        if self.codec == VideoCodec::H264 {
            ffi::set_quantiser_offset(&mut frame, quantiser_offset(until.saturating_sub(picture.index)))?;
            return self.send(&mut frame, picture.index);
        }
        // The other encoders ignore frame durations: their rate control, and AV1's key frames, count frames.
        for index in picture.index..until.max(picture.index + 1) {
            let mut again = ffi::share(&frame)?;
            if index > picture.index {
                again.set_kind(ff::picture::Type::None);
            }
            self.send(&mut again, index)?;
        }
        Ok(())
    }

    fn send(&mut self, frame: &mut ff::frame::Video, index: u64) -> Result<(), TaskError> {
        frame.set_pts(i64::try_from(index).ok());
        self.encoder.send_frame(frame).map_err(TaskError::ffmpeg("encoding"))?;
        self.take()
    }

    /// Passes on finished packets.
    fn take(&mut self) -> Result<(), TaskError> {
        while self.encoder.receive_packet(&mut self.packet).is_ok() {
            let index = self.packet.pts().and_then(|pts| u64::try_from(pts).ok());
            let index =
                index.ok_or_else(|| TaskError::Machinery("the encoder gave a packet without its time".to_owned()))?;
            if index >= self.measured_end && self.packet.is_key() {
                self.finish_measurement();
            } else if let Some(ssim) = &mut self.ssim {
                ssim.add_packet(&self.packet);
            }
            let data = self.packet.data().unwrap_or_default();
            let data = match self.codec {
                VideoCodec::H264 => avc::sample(data),
                VideoCodec::Hevc => hevc::sample(data),
                VideoCodec::Av1 => av1::sample(data),
            };
            self.segmenter.push(index, self.packet.is_key(), data)?;
        }
        Ok(())
    }

    /// Ends the measurement: the segment is complete but not yet sent.
    fn finish_measurement(&mut self) {
        if let Some(ssim) = self.ssim.take() {
            self.segmenter.set_ssim(ssim.finish());
        }
    }

    fn finish(mut self) -> Result<(), TaskError> {
        self.encoder.send_eof().map_err(TaskError::ffmpeg("encoding"))?;
        self.take()?;
        self.finish_measurement();
        self.segmenter.finish()
    }
}

/// How many quantiser steps coarser x264 must encode a frame that is shown for `frames` of the grid.
///
/// x264 lowers the quantiser by 2.4 steps for each doubling of a frame's duration: eleven for a second at 25 frames a
/// second, far more than a repeated picture would get. 75 % of that is undone; the rest makes a held slide as good as a
/// repeated one, in no more bytes.
fn quantiser_offset(frames: u64) -> f64 {
    const GIVEN_BACK: f64 = 0.75;
    GIVEN_BACK * 2.4 * (frames.max(1) as f64).log2()
}

/// The most frames by which the encoder reorders.
fn reordered(encoder: &encoder::video::Encoder, codec: VideoCodec) -> u32 {
    match codec {
        VideoCodec::H264 => ffi::reordered_frames(encoder.as_ref()),
        // libx265's wrapper does not tell; with a B-frame pyramid it is two.
        VideoCodec::Hevc => ffi::reordered_frames(encoder.as_ref()).max(2),
        // AV1 packets come in presentation order.
        VideoCodec::Av1 => 0,
    }
}

/// Renditions have limited range; the scaler converts RGB sources to BT.601.
fn output_color(source: &ColorInfo) -> ColorInfo {
    let matrix = if source.matrix == 0 { 6 } else { source.matrix };
    ColorInfo { matrix, full_range: false, ..*source }
}

fn open(task: &VideoTask, rendition: &Rendition, color: &ColorInfo) -> Result<encoder::video::Encoder, TaskError> {
    let name = match rendition.codec {
        VideoCodec::H264 => "libx264",
        VideoCodec::Hevc => "libx265",
        VideoCodec::Av1 => "libsvtav1",
    };
    let found = encoder::find_by_name(name).ok_or_else(|| TaskError::Machinery(format!("FFmpeg lacks {name}")))?;
    let rate = task.grid.rate;
    let signed = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut context = codec::Context::new_with_codec(found);
    context.set_threading(codec::threading::Config { kind: codec::threading::Type::Frame, count: 1, safe: true });
    context.set_flags(codec::Flags::GLOBAL_HEADER | codec::Flags::CLOSED_GOP);
    let mut video = context.encoder().video().map_err(TaskError::ffmpeg("preparing an encoder"))?;
    video.set_width(rendition.width);
    video.set_height(rendition.height);
    video.set_format(Pixel::YUV420P);
    video.set_time_base(Rational(signed(rate.den), signed(rate.num)));
    video.set_frame_rate(Some(Rational(signed(rate.num), signed(rate.den))));
    video.set_aspect_ratio(Rational(1, 1));
    let mut options = match rendition.codec {
        VideoCodec::H264 => h264_options(rendition),
        VideoCodec::Hevc => hevc_options(rendition),
        VideoCodec::Av1 => av1_options(rendition),
    };
    // Key frames are requested one by one, as the encoder's own would fall elsewhere. Only AV1's encoder counts them.
    let each = task.grid.frames_per_segment;
    video.set_gop(if rendition.codec == VideoCodec::Av1 { each } else { each.saturating_mul(4) });
    set_color(&mut options, color);
    video.open_as_with(found, options).map_err(TaskError::ffmpeg("opening an encoder"))
}

fn h264_options(rendition: &Rendition) -> Dictionary<'static> {
    let mut options = Dictionary::new();
    options.set("preset", "veryfast");
    options.set("profile", "high");
    options.set("crf", &rendition.quality.to_string());
    options.set("maxrate", &rendition.max_bitrate.to_string());
    options.set("bufsize", &rendition.max_bitrate.to_string());
    options.set("forced-idr", "1");
    options.set("sc_threshold", "0");
    options.set("keyint_min", "1");
    options.set("x264-params", "scenecut=0:open-gop=0");
    options
}

fn hevc_options(rendition: &Rendition) -> Dictionary<'static> {
    let kbps = rendition.max_bitrate / 1000;
    let mut options = Dictionary::new();
    options.set("preset", "veryfast");
    options.set("forced-idr", "1");
    let parameters = format!(
        "log-level=none:crf={}:vbv-maxrate={kbps}:vbv-bufsize={kbps}:scenecut=0:open-gop=0:min-keyint=1:info=0:pools=none:frame-threads=1",
        rendition.quality
    );
    options.set("x265-params", &parameters);
    options
}

fn av1_options(rendition: &Rendition) -> Dictionary<'static> {
    let mut options = Dictionary::new();
    options.set("preset", "10");
    options.set("crf", &rendition.quality.to_string());
    options.set("maxrate", &rendition.max_bitrate.to_string());
    options.set("bufsize", &rendition.max_bitrate.to_string());
    options.set("svtav1-params", &format!("lp=1:mbr={}", rendition.max_bitrate / 1000));
    options
}

fn set_color(options: &mut Dictionary<'_>, color: &ColorInfo) {
    for (name, value) in
        [("color_primaries", color.primaries), ("color_trc", color.transfer), ("colorspace", color.matrix)]
    {
        if value != 2 && value != 0 {
            options.set(name, &value.to_string());
        }
    }
    options.set("color_range", "tv");
}

fn describe(
    encoder: &encoder::video::Encoder,
    rendition: &Rendition,
    color: &ColorInfo,
) -> Result<(SampleEntry, TrackFacts), TaskError> {
    let headers = ffi::extradata(encoder.as_ref());
    let (format, kind, found) = match rendition.codec {
        VideoCodec::H264 => (*b"avc1", *b"avcC", avc::configuration(&headers)),
        VideoCodec::Hevc => (*b"hvc1", *b"hvcC", hevc::configuration(&headers)),
        VideoCodec::Av1 => (*b"av01", *b"av1C", av1::configuration(&headers)),
    };
    let (config, name) = found.ok_or_else(|| TaskError::Machinery("the encoder gave no headers".to_owned()))?;
    let size = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
    let said = color.primaries != 2 || color.transfer != 2 || color.matrix != 2;
    let entry = SampleEntry::Visual {
        format,
        config: (kind, config),
        width: size(rendition.width),
        height: size(rendition.height),
        color: said.then_some(Color {
            primaries: color.primaries,
            transfer: color.transfer,
            matrix: color.matrix,
            full_range: false,
        }),
    };
    Ok((entry, TrackFacts { codec: name, video_range: "SDR".to_owned(), ..TrackFacts::default() }))
}

/// Scales to the rendition's size, as 4:2:0 with eight bits; frames of another shape than the lesson's between bars.
struct Scaler<'a> {
    framing: &'a Framing,
    width: u32,
    height: u32,
    color: ColorInfo,
    context: Option<(ff::software::scaling::Context, bool, Area)>,
    last: Option<(Arc<ff::frame::Video>, ff::frame::Video)>,
}

impl<'a> Scaler<'a> {
    fn new(task: &'a VideoTask, rendition: &Rendition, color: ColorInfo) -> Self {
        let (width, height) = (rendition.width, rendition.height);
        Self { framing: &task.framing, width, height, color, context: None, last: None }
    }

    fn scale(&mut self, frame: &Arc<ff::frame::Video>) -> Result<ff::frame::Video, TaskError> {
        if let Some((source, scaled)) = &self.last
            && Arc::ptr_eq(source, frame)
        {
            return ffi::share(scaled);
        }
        let full = self.color.full_range || full_range_format(frame.format());
        let size = (self.width, self.height);
        let area = canvas::area(self.framing, frame, size);
        let fills = (area.width, area.height) == size && (frame.width(), frame.height()) == size;
        if fills && frame.format() == Pixel::YUV420P && !full {
            return ffi::share(frame);
        }
        let fits = self.context.as_ref().is_some_and(|(context, was_full, was_in)| {
            let input = context.input();
            (*was_full, *was_in) == (full, area)
                && (input.format, input.width, input.height) == (frame.format(), frame.width(), frame.height())
        });
        if !fits {
            let flags = ff::software::scaling::Flags::BICUBIC;
            let (width, height) = (frame.width(), frame.height());
            let made = ff::software::scaling::Context::get(
                frame.format(),
                width,
                height,
                Pixel::YUV420P,
                area.width,
                area.height,
                flags,
            );
            let mut context = made.map_err(TaskError::ffmpeg("setting the scaler up"))?;
            ffi::set_scaler_color(&mut context, (self.color.matrix, full), (self.color.matrix, false));
            self.context = Some((context, full, area));
        }
        let mut scaled = ff::frame::Video::empty();
        if let Some((context, ..)) = &mut self.context {
            context.run(frame, &mut scaled).map_err(TaskError::ffmpeg("scaling"))?;
        }
        let scaled = canvas::framed(scaled, area, size);
        let shared = ffi::share(&scaled)?;
        self.last = Some((frame.clone(), scaled));
        Ok(shared)
    }
}

fn full_range_format(format: Pixel) -> bool {
    matches!(format, Pixel::YUVJ420P | Pixel::YUVJ422P | Pixel::YUVJ444P | Pixel::YUVJ440P | Pixel::YUVJ411P)
}
