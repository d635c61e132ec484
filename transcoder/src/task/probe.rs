//! Examines a recording, and refuses files that can't become a lesson.

use ff::codec::packet::side_data;
use ff::format::context::Input;
use ff::format::stream::Disposition;
use ff::{Stream, codec, media};
use ffmpeg_next as ff;
use lyceum_packaging::FrameRate;
use lyceum_packaging::grid::AUDIO_RATE;
use lyceum_packaging::info::{
    AudioInfo, MediaInfo, Purpose, Refusal, RefusalCode, SourceStream, SubtitleInfo, VideoInfo, Warning,
};

use super::audio::{AudioDecoder, StereoBuffer};
use super::demux;
use super::error::TaskError;
use super::ffi::{self, StreamFacts};
use super::loudness::LoudnessMeter;
use super::source::SourceHandle;
use super::stream_spans::{StreamSpan, StreamSpans, measure_index, set_timeline, span};
use super::timeline::{self, LostTime, TimelineScan};
use super::timestamp::{known, micros};
use crate::limits::Limits;

/// How much of a file without an index is read to estimate its key frame interval, in packets.
const SAMPLED_PACKETS: usize = 20_000;
/// Packets that are examined for encryption and interlacing.
const FIRST_PACKETS: usize = 8;
/// The same in microseconds.
const SAMPLED_US: i64 = 30_000_000;
/// Windows over which loudness is estimated, how long each is in seconds, and for how many tracks.
const LOUDNESS_WINDOWS: u64 = 30;
const WINDOW_S: u64 = 3;
const MEASURED_TRACKS: usize = 8;
/// Samples that an index tells of this much after the end that the container names are kept, in microseconds.
const BEYOND_END_US: i64 = 250_000;

/// Probes the source.
pub(super) fn probe(source: &SourceHandle, limits: &Limits) -> Result<MediaInfo, TaskError> {
    let mut input = demux::open(source, limits)?;
    let mut info =
        MediaInfo { bytes: source.size(), container: input.format().name().to_owned(), ..MediaInfo::default() };
    let mut spans = StreamSpans::default();
    let picture = best_picture(&input);
    if let Some(index) = picture
        && let Some(stream) = input.stream(index)
    {
        info.video = Some(video(&stream, &input, limits, &mut spans)?);
    }
    for stream in input.streams() {
        collect(&stream, limits, &mut info, &mut spans)?;
    }
    if info.video.is_none() && info.audio.is_empty() {
        return Err(
            Refusal::new(RefusalCode::NotVideo, "The file has neither picture nor sound that can be played.").into()
        );
    }
    refuse_encrypted_samples(&mut input)?;
    if let Some(video) = &mut info.video
        && let Some(stream) = input.stream(video.stream as usize)
        && ffi::facts(&stream).interlaced.is_none()
    {
        let decoder = demux::decoder(&stream, limits, 1)?;
        video.interlaced = first_frame_is_interlaced(&mut input, video.stream as usize, decoder);
    }
    if spans.truncated(source.size()) {
        info.warn(Warning::Truncated);
    }
    if let (Some(video), Some(index)) = (&mut info.video, picture)
        && video.key_interval_us == 0
    {
        video.key_interval_us = sampled_key_interval(&mut input, index);
    }
    let streams: Vec<usize> = spans.all().map(|span| span.index).collect();
    let TimelineScan { breaks, lost_us } =
        timeline::scan(&mut input, &streams, source.size(), || demux::open(source, limits));
    info.breaks = breaks;
    if lost_us > 0 || spans.lost_us > 0 {
        info.warn(Warning::ClockDamaged);
    }
    if !info.breaks.is_empty() {
        spans.measure(&mut input, &info.breaks)?;
    } else if !info.container.starts_with("mov") && spans.find_end(&mut input)? {
        info.warn(Warning::Truncated);
    }
    set_timeline(&mut info, &spans, &input);
    let stretches = u64::try_from(info.breaks.len()).unwrap_or(0);
    if let Some(video) = info.video.as_mut().filter(|_| stretches > 0) {
        // A task reads a section from its first byte: few long tasks are best.
        video.key_interval_us = video.key_interval_us.max(info.duration_us / (stretches + 1));
    }
    let longest = u64::try_from(limits.duration.get().as_micros()).unwrap_or(u64::MAX);
    if info.duration_us > longest {
        let detail = format!("The recording is longer than {}, the longest that is taken.", limits.duration);
        return Err(Refusal::new(RefusalCode::LimitExceeded, detail).into());
    }
    measure_loudness(&mut info, source, limits)?;
    Ok(info)
}

/// Estimates the loudness of each track from windows spread over it. A track that can't be decoded stays unmeasured: its
/// own task will report the error.
fn measure_loudness(info: &mut MediaInfo, source: &SourceHandle, limits: &Limits) -> Result<(), TaskError> {
    let second = u64::from(AUDIO_RATE);
    let seconds = info.duration_us / 1_000_000;
    // Short recordings are measured completely.
    let (windows, spacing) = if seconds <= LOUDNESS_WINDOWS * WINDOW_S {
        (seconds.div_ceil(WINDOW_S).max(1), WINDOW_S * second)
    } else {
        (LOUDNESS_WINDOWS, info.duration_us / LOUDNESS_WINDOWS * second / 1_000_000)
    };
    let mut track = SourceStream::new(info, 0);
    for audio in info.audio.iter_mut().take(MEASURED_TRACKS) {
        track.stream = audio.stream;
        let Ok(mut decode) = AudioDecoder::open(&track, source, limits) else { continue };
        let mut meter = LoudnessMeter::default();
        for window in 0..windows {
            let from = window * spacing + (spacing - WINDOW_S * second) / 2;
            let mut sound = StereoBuffer::new(from, from + WINDOW_S * second);
            if decode.fill(&mut sound).is_ok() {
                meter
                    .add(&sound.channels)
                    .map_err(|cause| TaskError::Machinery(format!("measuring loudness: {cause}")))?;
            }
        }
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        audio.loudness_lufs = meter.loudness().map(rounded);
        audio.true_peak_dbtp = meter.peak().map(rounded);
    }
    Ok(())
}

/// The video stream that a player would choose; cover art does not count.
fn best_picture(input: &Input) -> Option<usize> {
    let moving = |s: &Stream<'_>| {
        s.parameters().medium() == media::Type::Video && !s.disposition().contains(Disposition::ATTACHED_PIC)
    };
    let best = input.streams().best(media::Type::Video).filter(moving);
    best.or_else(|| input.streams().find(moving)).map(|s| s.index())
}

fn video(stream: &Stream<'_>, input: &Input, limits: &Limits, spans: &mut StreamSpans) -> Result<VideoInfo, TaskError> {
    let facts = ffi::facts(stream);
    check(&facts, limits)?;
    let (width, height) = (u32::try_from(facts.width).unwrap_or(0), u32::try_from(facts.height).unwrap_or(0));
    if width == 0 || height == 0 {
        let detail =
            "The picture's size is not in the file: it is damaged, or its picture is of a kind that can't be decoded.";
        return Err(Refusal::new(RefusalCode::NotVideo, detail).into());
    }
    let rate = |r: ff::Rational| {
        let (num, den) = (u32::try_from(r.numerator()).ok()?, u32::try_from(r.denominator()).ok()?);
        (num > 0 && den > 0).then(|| FrameRate::new(num, den))
    };
    let (base, average) = (rate(stream.rate()), rate(stream.avg_frame_rate()));
    let constant = FrameRate::constant(base, average);
    let mut own = span(stream, input);
    spans.frame_us = (1e6 / constant.fps()).round() as i64;
    spans.delay_us = spans.frame_us.saturating_mul(facts.delay);
    let index = ffi::index(stream);
    if input.format().name().starts_with("mov") {
        let base = stream.time_base();
        let mut lost = LostTime::default();
        index.iter().for_each(|entry| lost.step(micros(entry.timestamp, base), spans.frame_us));
        spans.lost_us = lost.us;
        // An edit list may end before the last presented sample does.
        let last = index.iter().filter(|e| e.shown).map(|e| micros(e.timestamp, base)).max().unwrap_or(0);
        own.end = own.end.map(|end| if last > end + BEYOND_END_US { last + spans.frame_us } else { end });
    }
    let size = i64::try_from(spans_size(input)).unwrap_or(i64::MAX);
    measure_index(&index, size, stream, &mut own);
    let info = VideoInfo {
        stream: u32::try_from(stream.index()).unwrap_or(0),
        codec: facts.codec.clone(),
        width,
        height,
        sample_aspect: aspect(facts.sample_aspect),
        rotation: rotation(stream),
        rate: constant,
        constant_rate: base.zip(average).is_some_and(|(b, a)| (b.fps() - a.fps()).abs() <= 0.004 * a.fps()),
        interlaced: facts.interlaced.unwrap_or(false),
        pixel_format: facts.pixel_format.and_then(|f| f.descriptor()).map_or_else(String::new, |d| d.name().to_owned()),
        bit_depth: u32::try_from(facts.bit_depth).unwrap_or(8),
        color: facts.color,
        key_interval_us: index_key_interval(&index, stream, own.end),
        start_us: own.start,
        duration_us: 0,
    };
    spans.picture = Some(own);
    Ok(info)
}

fn spans_size(input: &Input) -> u64 {
    input.io_size().and_then(|size| u64::try_from(size).ok()).unwrap_or(u64::MAX)
}

fn check(facts: &StreamFacts, limits: &Limits) -> Result<(), Refusal> {
    if demux::encrypted(facts) {
        return Err(is_encrypted());
    }
    let pixels = i64::from(facts.width.max(0)) * i64::from(facts.height.max(0));
    if u64::try_from(pixels).unwrap_or(u64::MAX) > limits.pixels {
        let detail = format!(
            "The picture is {}x{}: more than the {} pixels that are taken.",
            facts.width, facts.height, limits.pixels
        );
        return Err(Refusal::new(RefusalCode::LimitExceeded, detail));
    }
    Ok(())
}

/// Common encryption (ISO/IEC 23001-7) shows in the samples: the demuxer passes on how they were encrypted.
fn refuse_encrypted_samples(input: &mut Input) -> Result<(), Refusal> {
    let encrypted = |packet: &ff::Packet| packet.side_data().any(|s| s.kind() == side_data::Type::EncryptionInfo);
    let found = input.packets().take(FIRST_PACKETS).any(|(_, packet)| encrypted(&packet));
    // Later readers seek for themselves.
    let _ = input.seek(0, ..);
    if found { Err(is_encrypted()) } else { Ok(()) }
}

/// For streams without the flag (DV, Motion JPEG), taken from the first frame.
fn first_frame_is_interlaced(input: &mut Input, picture: usize, mut decoder: codec::decoder::Opened) -> bool {
    let mut frame = ff::frame::Video::empty();
    let packets = input.packets().filter(|(stream, _)| stream.index() == picture);
    let found = packets.map(|(_, packet)| packet).take(FIRST_PACKETS).any(|packet| {
        let _ = decoder.send_packet(&packet);
        decoder.receive_frame(&mut frame).is_ok()
    });
    let _ = input.seek(0, ..);
    found && frame.is_interlaced()
}

fn is_encrypted() -> Refusal {
    let detail = "The recording is encrypted (DRM): it can't be decoded. Upload one without copy protection.";
    Refusal::new(RefusalCode::Encrypted, detail)
}

fn aspect([num, den]: [i32; 2]) -> [u32; 2] {
    match (u32::try_from(num), u32::try_from(den)) {
        // Aspect ratios beyond 8:1 are damaged metadata.
        (Ok(num), Ok(den)) if num > 0 && den > 0 && num / den < 8 && den / num < 8 => [num, den],
        _ => [1, 1],
    }
}

/// Clockwise degrees from the display matrix (ISO/IEC 14496-12, section 8.3.2): two columns of 16.16 numbers.
fn rotation(stream: &Stream<'_>) -> u32 {
    let Some(matrix) = stream.side_data().find(|s| s.kind() == side_data::Type::DisplayMatrix) else { return 0 };
    let at = |i: usize| {
        let bytes = matrix.data().get(i * 4..i * 4 + 4)?;
        Some(f64::from(i32::from_ne_bytes(bytes.try_into().ok()?)))
    };
    let (Some(a), Some(b)) = (at(0), at(1)) else { return 0 };
    let degrees = b.atan2(a).to_degrees().rem_euclid(360.0);
    ((degrees / 90.0).round() as u32 % 4) * 90
}

/// Mean key frame interval by the index, in microseconds; 0 if the index covers only the part read so far.
fn index_key_interval(index: &[ffi::IndexEntry], stream: &Stream<'_>, end: Option<i64>) -> u64 {
    let (keys, first, last) = index
        .iter()
        .filter(|e| e.key)
        .fold((0i64, i64::MAX, i64::MIN), |(n, first, last), e| (n + 1, first.min(e.timestamp), last.max(e.timestamp)));
    let all_last = index.iter().map(|e| e.timestamp).max().unwrap_or(0);
    if end.is_none_or(|end| micros(all_last, stream.time_base()) < end / 2) {
        return 0;
    }
    match keys {
        0 => 0,
        1 => u64::try_from(micros(all_last.saturating_sub(first), stream.time_base())).unwrap_or(0),
        _ => u64::try_from(micros(last.saturating_sub(first), stream.time_base()) / (keys - 1)).unwrap_or(0),
    }
}

/// Mean key frame interval of files without an index, from the first half minute.
fn sampled_key_interval(input: &mut Input, picture: usize) -> u64 {
    let (mut keys, mut first, mut last) = (0i64, None, 0);
    for (stream, packet) in input.packets().take(SAMPLED_PACKETS) {
        let Some(ticks) = packet.pts().or(packet.dts()).filter(|_| stream.index() == picture) else { continue };
        let at = micros(ticks, stream.time_base());
        let start = *first.get_or_insert(at);
        keys += i64::from(packet.is_key());
        last = at;
        if at - start > SAMPLED_US {
            break;
        }
    }
    let length = last - first.unwrap_or(last);
    u64::try_from(length / keys.max(1)).unwrap_or(0)
}

fn tag(stream: &Stream<'_>, name: &str) -> String {
    let text = stream.metadata().get(name).unwrap_or_default().to_owned();
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn collect(
    stream: &Stream<'_>,
    limits: &Limits,
    info: &mut MediaInfo,
    spans: &mut StreamSpans,
) -> Result<(), TaskError> {
    let facts = ffi::facts(stream);
    let index = u32::try_from(stream.index()).unwrap_or(0);
    match stream.parameters().medium() {
        media::Type::Audio
            if facts.channels > 0 && facts.sample_rate > 0 && !facts.codec.is_empty() && facts.codec != "none" =>
        {
            check(&facts, limits)?;
            // A track without a decoder is left out, as players do.
            if demux::decoder(stream, limits, 1).is_err() {
                info.warn(Warning::AudioNotDecodable);
                return Ok(());
            }
            let base = stream.time_base();
            let start = known(stream.start_time()).map_or(0, |t| micros(t, base));
            let end = known(stream.duration()).filter(|d| *d > 0).map(|d| start + micros(d, base));
            let mut own = StreamSpan { index: stream.index(), start, end, last_byte: 0, playable_end: None };
            measure_index(&ffi::index(stream), i64::try_from(info.bytes).unwrap_or(i64::MAX), stream, &mut own);
            spans.sounds.push(own);
            info.audio.push(AudioInfo {
                stream: index,
                codec: facts.codec,
                channels: u32::try_from(facts.channels).unwrap_or(0),
                sample_rate: u32::try_from(facts.sample_rate).unwrap_or(0),
                language: tag(stream, "language"),
                title: tag(stream, "title"),
                default: stream.disposition().contains(Disposition::DEFAULT),
                ..AudioInfo::default()
            });
        }
        media::Type::Subtitle
            if ["subrip", "mov_text", "ass", "ssa", "webvtt", "text"].contains(&facts.codec.as_str()) =>
        {
            let purpose = match stream.disposition() {
                marks if marks.contains(Disposition::FORCED) => Purpose::Forced,
                marks if marks.contains(Disposition::HEARING_IMPAIRED) => Purpose::HardOfHearing,
                _ => Purpose::Dialogue,
            };
            info.subtitles.push(SubtitleInfo {
                stream: index,
                codec: facts.codec,
                language: tag(stream, "language"),
                title: tag(stream, "title"),
                purpose,
            });
        }
        _ => {}
    }
    Ok(())
}
