//! Examines a recording, and refuses files that can't become a lesson.

use ff::codec::packet::side_data;
use ff::format::context::Input;
use ff::format::stream::Disposition;
use ff::{Stream, media};
use ffmpeg_next as ff;
use lyceum_packaging::grid::AUDIO_RATE;
use lyceum_packaging::info::{
    AudioInfo, Chapter, MediaInfo, Purpose, Refusal, RefusalCode, SourceStream, SubtitleInfo, Warning,
};

use super::audio_decoder::{Clock, TrackDecoder};
use super::demux;
use super::error::TaskError;
use super::ffi::{self, StreamFacts};
use super::loudness::LoudnessMeter;
use super::picture::{self, Picture};
use super::source::SourceHandle;
use super::stereo::StereoBuffer;
use super::stream_spans::{StreamSpan, StreamSpans, measure_index, set_timeline};
use super::survey::Survey;
use super::timeline::{self, TimelineScan};
use super::timestamp::{known, micros};
use crate::limits::Limits;

/// Formats of pictures, some of which move.
const STILL_OR_MOVING: &[&str] = &["gif", "apng"];
/// Packets that are examined for encryption.
const FIRST_PACKETS: usize = 8;
/// Windows over which loudness is estimated, how long each is in seconds, and for how many tracks.
const LOUDNESS_WINDOWS: u64 = 30;
const WINDOW_S: u64 = 3;
const MEASURED_TRACKS: usize = 8;
/// The most chapters that are kept.
const MAX_CHAPTERS: usize = 1000;

/// Probes the source.
pub(super) fn probe(source: &SourceHandle, limits: &Limits) -> Result<MediaInfo, TaskError> {
    let mut input = demux::open(source, limits)?;
    let mut info =
        MediaInfo { bytes: source.size(), container: input.format().name().to_owned(), ..MediaInfo::default() };
    let mut spans = StreamSpans::default();
    let mut picture = None;
    if let Some(stream) = picture::best(&input).and_then(|index| input.stream(index)) {
        check(&ffi::facts(&stream), limits)?;
        picture = Some(Picture::describe(&stream, &input, source, &mut spans)?);
    }
    for stream in input.streams() {
        collect(&stream, limits, &mut info, &mut spans)?;
    }
    if picture.is_none() && info.audio.is_empty() {
        return Err(
            Refusal::new(RefusalCode::NotVideo, "The file has neither picture nor sound that can be played.").into()
        );
    }
    refuse_by_first_packets(&mut input)?;
    if let Some(picture) = &mut picture {
        picture.find_key_interval(&mut input);
    }
    if spans.truncated(source.size()) {
        info.warn(Warning::Truncated);
    }
    let streams: Vec<usize> = spans.all().map(|span| span.index).collect();
    let TimelineScan { breaks, lost_us } =
        timeline::scan(&mut input, &streams, source.size(), survey(&mut picture), || demux::open(source, limits));
    info.breaks = breaks;
    if lost_us > 0 || spans.lost_us > 0 {
        info.warn(Warning::ClockDamaged);
    }
    if let Some(picture) = &mut picture {
        picture.visit(&mut input, source, &mut spans);
    }
    if !info.breaks.is_empty() {
        spans.measure(&mut input, &info.breaks, survey(&mut picture))?;
    } else if !info.container.starts_with("mov") && spans.find_end(&mut input, survey(&mut picture))? {
        info.warn(Warning::Truncated);
    }
    if let Some(mut picture) = picture {
        picture.set_rate(&mut spans);
        picture.look(&input, limits)?;
        info.video = Some(picture.info);
    }
    set_timeline(&mut info, &spans, &input);
    join_channels(&mut info);
    info.chapters = chapters(&input, &info);
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

fn survey(picture: &mut Option<Picture>) -> Option<&mut Survey> {
    picture.as_mut().map(|picture| &mut picture.survey)
}

/// Cameras write each channel of their sound as a track of its own: such tracks become one.
fn join_channels(info: &mut MediaInfo) {
    let camera = info.container.starts_with("mov") || info.container.starts_with("mxf");
    let [first, others @ ..] = info.audio.as_slice() else { return };
    let alike = |a: &AudioInfo| {
        (a.channels, &a.codec, a.sample_rate, &a.language, &a.title)
            == (1, &first.codec, first.sample_rate, &first.language, &String::new())
    };
    if camera && !others.is_empty() && first.codec.starts_with("pcm_") && info.audio.iter().all(alike) {
        let more_streams = others.iter().map(|a| a.stream).collect();
        let joined = AudioInfo { more_streams, ..first.clone() };
        info.audio = vec![joined];
    }
}

/// The chapters between the lesson's start and its end.
fn chapters(input: &Input, info: &MediaInfo) -> Vec<Chapter> {
    let end = i64::try_from(info.duration_us).unwrap_or(i64::MAX);
    let at = |ticks: i64, base| micros(ticks, base).saturating_sub(info.start_us).clamp(0, end);
    let mut found: Vec<Chapter> = input
        .chapters()
        .take(MAX_CHAPTERS)
        .map(|chapter| {
            let title = plain(chapter.metadata().get("title").unwrap_or_default());
            let base = chapter.time_base();
            Chapter { start_us: at(chapter.start(), base), end_us: at(chapter.end(), base), title }
        })
        .collect();
    found.sort_by_key(|chapter| chapter.start_us);
    found.dedup_by_key(|chapter| chapter.start_us);
    found.retain(|chapter| chapter.start_us < end);
    let starts: Vec<i64> = found.iter().skip(1).map(|chapter| chapter.start_us).chain([end]).collect();
    for ((n, chapter), next) in found.iter_mut().enumerate().zip(starts) {
        chapter.end_us = next;
        if chapter.title.is_empty() {
            chapter.title = format!("Chapter {}", n + 1);
        }
    }
    found
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
        let opened = TrackDecoder::open(&track, &audio.more_streams, source, limits);
        let Ok(mut decode) = opened else { continue };
        let mut meter = LoudnessMeter::default();
        for window in 0..windows {
            let from = window * spacing + (spacing - WINDOW_S * second) / 2;
            let mut sound = StereoBuffer::new(from, from + WINDOW_S * second);
            if decode.fill(&mut sound, Clock::Trusted).is_ok() {
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

/// Common encryption (ISO/IEC 23001-7) shows in the samples: the demuxer passes on how they were encrypted. Formats of
/// pictures that may move show by their second frame whether they do.
fn refuse_by_first_packets(input: &mut Input) -> Result<(), Refusal> {
    let encrypted = |packet: &ff::Packet| packet.side_data().any(|s| s.kind() == side_data::Type::EncryptionInfo);
    let first: Vec<ff::Packet> = input.packets().take(FIRST_PACKETS).map(|(_, packet)| packet).collect();
    // Later readers seek for themselves.
    let _ = input.seek(0, ..);
    if first.iter().any(encrypted) {
        return Err(is_encrypted());
    }
    if first.len() < 2 && STILL_OR_MOVING.contains(&input.format().name()) {
        return Err(Refusal::new(RefusalCode::NotVideo, demux::IS_A_PICTURE));
    }
    Ok(())
}

fn is_encrypted() -> Refusal {
    let detail = "The recording is encrypted (DRM): it can't be decoded. Upload one without copy protection.";
    Refusal::new(RefusalCode::Encrypted, detail)
}

fn tag(stream: &Stream<'_>, name: &str) -> String {
    plain(stream.metadata().get(name).unwrap_or_default())
}

/// The first 120 characters of a text, without control characters.
fn plain(text: &str) -> String {
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
