//! The `sample` command: a generated recording with motion, a readable clock, and each second a beep with a flashing
//! white square, which shows whether sound and picture are in sync.

use std::path::Path;
use std::process::ExitCode;

use ff::codec::{self, encoder};
use ff::format::{Pixel, context::Output};
use ff::{ChannelLayout, Dictionary, Rational, filter};
use ffmpeg_next as ff;
use lyceum_core::units::Span;

use crate::task::error::TaskError;

const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf";
const FRAMES_PER_SECOND: i32 = 25;
const SAMPLES_PER_SECOND: i32 = 48_000;
const AUDIO_FRAME: u32 = 1024;

/// Writes the recording to a temporary file and renames it, so that an incomplete file never appears at `out`.
pub(crate) fn main(out: &Path, duration: Span) -> ExitCode {
    let seconds = duration.get().as_secs();
    if !(1..=43_200).contains(&seconds) {
        eprintln!("lyceum-transcoder: --duration {duration} is out of bounds: from 1s to 12h");
        return ExitCode::from(2);
    }
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new()
        .prefix(".sample-")
        .suffix(".mp4")
        .tempfile_in(parent)
        .map_err(|cause| cause.to_string());
    let made = made.and_then(|file| {
        let path = file.into_temp_path();
        make(&path, seconds).map_err(|error| error.to_string())?;
        path.persist(out).map_err(|error| error.to_string())
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("lyceum-transcoder: {}: the sample can't be made: {why}", out.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes `seconds` of it as an MP4 file.
fn make(path: &Path, seconds: u64) -> Result<(), TaskError> {
    ff::log::set_level(ff::log::Level::Fatal);
    let failed = TaskError::ffmpeg("writing the sample");
    let mut output = ff::format::output_as(path, "mp4").map_err(&failed)?;
    let mut picture = SampleStream::picture(&mut output, seconds)?;
    let mut sound = SampleStream::sound(&mut output, seconds)?;
    let mut options = Dictionary::new();
    options.set("movflags", "+faststart");
    output.write_header_with(options).map_err(&failed)?;
    while !(picture.ended && sound.ended) {
        // The stream that is behind goes on, so that the file is interleaved.
        let next = if sound.ended || !picture.ended && picture.seconds() <= sound.seconds() {
            &mut picture
        } else {
            &mut sound
        };
        next.step(&mut output)?;
    }
    output.write_trailer().map_err(&failed)
}

enum Encoder {
    Picture(encoder::video::Encoder),
    Sound(encoder::audio::Encoder),
}

struct SampleStream {
    graph: filter::Graph,
    encoder: Encoder,
    stream: usize,
    base: Rational,
    at: i64,
    ended: bool,
}

fn missing() -> TaskError {
    TaskError::Machinery("FFmpeg lacks what the sample needs".to_owned())
}

fn chain(sink: &str, description: &str) -> Result<filter::Graph, TaskError> {
    let failed = TaskError::ffmpeg("setting the sample's filters up");
    let mut graph = filter::Graph::new();
    graph.add(&filter::find(sink).ok_or_else(missing)?, "out", "").map_err(&failed)?;
    graph.input("out", 0).and_then(|p| p.parse(description)).map_err(&failed)?;
    graph.validate().map_err(&failed)?;
    Ok(graph)
}

impl SampleStream {
    fn picture(output: &mut Output, seconds: u64) -> Result<Self, TaskError> {
        let flash = "drawbox=x=40:y=40:w=120:h=120:color=white:t=fill:enable='lt(mod(t,1),0.08)'";
        let source = format!("size=1280x720:rate={FRAMES_PER_SECOND}:duration={seconds}");
        let with_font = format!(
            "testsrc2={source},drawtext=fontfile={FONT}:text='%{{pts\\:hms}}':x=(w-tw)/2:y=h-170:fontsize=96:fontcolor=white:box=1:boxcolor=black@0.7:boxborderw=20,{flash},format=yuv420p"
        );
        // Without the font, a test pattern that draws the time itself.
        let without = format!("testsrc={source}:decimals=2,{flash},format=yuv420p");
        let graph =
            if Path::new(FONT).exists() { chain("buffersink", &with_font) } else { chain("buffersink", &without) };
        let graph = graph.or_else(|_| chain("buffersink", &without))?;
        let found = encoder::find_by_name("libx264").ok_or_else(missing)?;
        let failed = TaskError::ffmpeg("opening the sample's encoder");
        let mut context = codec::Context::new_with_codec(found);
        context.set_flags(codec::Flags::GLOBAL_HEADER);
        let mut video = context.encoder().video().map_err(&failed)?;
        video.set_width(1280);
        video.set_height(720);
        video.set_format(Pixel::YUV420P);
        video.set_time_base(Rational(1, FRAMES_PER_SECOND));
        video.set_frame_rate(Some(Rational(FRAMES_PER_SECOND, 1)));
        video.set_gop(2 * FRAMES_PER_SECOND.unsigned_abs());
        let mut options = Dictionary::new();
        options.set("preset", "ultrafast");
        options.set("crf", "27");
        let encoder = video.open_as_with(found, options).map_err(&failed)?;
        let mut stream = output.add_stream(found).map_err(&failed)?;
        stream.set_parameters(&encoder);
        let index = stream.index();
        let base = Rational(1, FRAMES_PER_SECOND);
        Ok(Self { graph, encoder: Encoder::Picture(encoder), stream: index, base, at: 0, ended: false })
    }

    fn sound(output: &mut Output, seconds: u64) -> Result<Self, TaskError> {
        let tone = "0.04*sin(2*PI*220*t)+0.4*sin(2*PI*880*t)*lt(mod(t,1),0.08)";
        let description = format!(
            "aevalsrc=exprs='{tone}|{tone}':sample_rate={SAMPLES_PER_SECOND}:duration={seconds},aformat=sample_fmts=fltp:channel_layouts=stereo"
        );
        let mut graph = chain("abuffersink", &description)?;
        if let Some(mut sink) = graph.get("out") {
            sink.sink().set_frame_size(AUDIO_FRAME);
        }
        let found = encoder::find_by_name("aac").ok_or_else(missing)?;
        let failed = TaskError::ffmpeg("opening the sample's encoder");
        let mut context = codec::Context::new_with_codec(found);
        context.set_flags(codec::Flags::GLOBAL_HEADER);
        let mut audio = context.encoder().audio().map_err(&failed)?;
        audio.set_rate(SAMPLES_PER_SECOND);
        audio.set_format(ff::format::Sample::F32(ff::format::sample::Type::Planar));
        audio.set_channel_layout(ChannelLayout::STEREO);
        audio.set_channels(2);
        audio.set_bit_rate(128_000);
        audio.set_time_base(Rational(1, SAMPLES_PER_SECOND));
        let encoder = audio.open_as(found).map_err(&failed)?;
        let mut stream = output.add_stream(found).map_err(&failed)?;
        stream.set_parameters(&encoder);
        let index = stream.index();
        let base = Rational(1, SAMPLES_PER_SECOND);
        Ok(Self { graph, encoder: Encoder::Sound(encoder), stream: index, base, at: 0, ended: false })
    }

    fn seconds(&self) -> f64 {
        self.at as f64 * f64::from(self.base)
    }

    /// One frame from the filters through the encoder into the file.
    fn step(&mut self, output: &mut Output) -> Result<(), TaskError> {
        let failed = TaskError::ffmpeg("encoding the sample");
        let mut sink = self.graph.get("out").ok_or_else(missing)?;
        let got = match &mut self.encoder {
            Encoder::Picture(encoder) => {
                let mut frame = ff::frame::Video::empty();
                let got = sink.sink().frame(&mut frame).is_ok();
                if got {
                    frame.set_kind(ff::picture::Type::None);
                    frame.set_pts(Some(self.at));
                    self.at += 1;
                    encoder.send_frame(&frame)
                } else {
                    encoder.send_eof()
                }
                .map_err(&failed)?;
                got
            }
            Encoder::Sound(encoder) => {
                let mut frame = ff::frame::Audio::empty();
                let got = sink.sink().frame(&mut frame).is_ok();
                if got {
                    frame.set_pts(Some(self.at));
                    self.at += i64::try_from(frame.samples()).unwrap_or(0);
                    encoder.send_frame(&frame)
                } else {
                    encoder.send_eof()
                }
                .map_err(&failed)?;
                got
            }
        };
        self.ended = !got;
        let target = output.stream(self.stream).ok_or_else(missing)?.time_base();
        let mut packet = ff::Packet::empty();
        loop {
            let received = match &mut self.encoder {
                Encoder::Picture(encoder) => encoder.receive_packet(&mut packet),
                Encoder::Sound(encoder) => encoder.receive_packet(&mut packet),
            };
            if received.is_err() {
                return Ok(());
            }
            packet.set_stream(self.stream);
            packet.rescale_ts(self.base, target);
            if packet.duration() == 0 {
                packet.set_duration(
                    i64::from(f64::from(self.base) > 0.001) * i64::from(target.denominator())
                        / i64::from(FRAMES_PER_SECOND),
                );
            }
            packet.write_interleaved(output).map_err(&failed)?;
        }
    }
}
