//! DASH (ISO/IEC 23009-1, profile `isoff-live`, static): the same segments as HLS.

use std::fmt::Write as _;

use crate::grid::AUDIO_RATE;
use crate::index::{ObjectIndex, TrackIndex};
use crate::info::Purpose;
use crate::track::{TrackKind, ticks_ms, whole_path};

/// `manifest.mpd` at `/v/{lesson}/`, pointing into `version`. `None` until every object exists, and for a
/// lesson with HLS whole-segment encryption, which DASH does not support.
pub fn manifest(index: &ObjectIndex<'_>, version: &str) -> Option<String> {
    if !index.complete() || index.plan().encryption.is_some() {
        return None;
    }
    let duration = seconds(index.plan().duration_ms);
    let longest = index
        .tracks()
        .iter()
        .filter(|t| !t.plan.is_text())
        .flat_map(|t| t.contiguous().map(|s| ticks_ms(s.duration, t.plan.timescale)))
        .max()?;
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019\" \
         type=\"static\" mediaPresentationDuration=\"{duration}\" maxSegmentDuration=\"{}\" minBufferTime=\"PT4S\">",
        seconds(longest + 1)
    );
    let _ = writeln!(out, "  <Period id=\"0\" start=\"PT0S\" duration=\"{duration}\">");
    let mut id = 0;
    for codec in ["avc1", "hvc1", "av01"] {
        let videos: Vec<_> =
            index.tracks().iter().filter(|t| t.plan.is_video() && codec_of(t).starts_with(codec)).collect();
        if !videos.is_empty() {
            write_videos(&mut out, index, &videos, id, version);
            id += 1;
        }
    }
    for audio in index.tracks().iter().filter(|t| t.plan.is_audio()) {
        write_audio(&mut out, audio, id, version);
        id += 1;
    }
    for text in index.tracks().iter().filter(|t| index.has(&whole_path(&t.plan.name))) {
        write_subtitles(&mut out, text, id, version);
        id += 1;
    }
    out.push_str("  </Period>\n</MPD>\n");
    Some(out)
}

fn codec_of<'t>(track: &'t TrackIndex<'_>) -> &'t str {
    track.facts.as_ref().map_or("", |f| f.codec.as_str())
}

fn seconds(ms: u64) -> String {
    format!("PT{}.{:03}S", ms / 1000, ms % 1000)
}

fn write_videos(out: &mut String, index: &ObjectIndex<'_>, videos: &[&TrackIndex<'_>], id: u32, version: &str) {
    let rate = index.plan().grid.rate;
    let rate = if rate.den == 1 { rate.num.to_string() } else { format!("{}/{}", rate.num, rate.den) };
    let _ = writeln!(
        out,
        "    <AdaptationSet id=\"{id}\" contentType=\"video\" mimeType=\"video/mp4\" segmentAlignment=\"true\" startWithSAP=\"1\" frameRate=\"{rate}\">"
    );
    out.push_str("      <Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"main\"/>\n");
    for video in videos {
        let TrackKind::Video { width, height, .. } = video.plan.kind else { continue };
        let _ = writeln!(
            out,
            "      <Representation id=\"{}\" codecs=\"{}\" width=\"{width}\" height=\"{height}\" sar=\"1:1\" bandwidth=\"{}\">",
            video.plan.name,
            codec_of(video),
            video.peak_bitrate()
        );
        write_template(out, video, version);
        out.push_str("      </Representation>\n");
    }
    out.push_str("    </AdaptationSet>\n");
}

fn write_audio(out: &mut String, audio: &TrackIndex<'_>, id: u32, version: &str) {
    let TrackKind::Audio { language, label, default } = &audio.plan.kind else { return };
    let _ = writeln!(
        out,
        "    <AdaptationSet id=\"{id}\" contentType=\"audio\" mimeType=\"audio/mp4\" lang=\"{language}\" segmentAlignment=\"true\" startWithSAP=\"1\">"
    );
    let _ = writeln!(
        out,
        "      <Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"{}\"/>",
        if *default { "main" } else { "dub" }
    );
    let _ = writeln!(out, "      <Label>{}</Label>", escaped(label));
    let channels = audio.facts.as_ref().map_or(2, |f| f.channels);
    let _ = writeln!(
        out,
        "      <Representation id=\"{}\" codecs=\"{}\" audioSamplingRate=\"{AUDIO_RATE}\" bandwidth=\"{}\">",
        audio.plan.name,
        codec_of(audio),
        audio.peak_bitrate()
    );
    let _ = writeln!(
        out,
        "        <AudioChannelConfiguration schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" value=\"{channels}\"/>"
    );
    write_template(out, audio, version);
    out.push_str("      </Representation>\n    </AdaptationSet>\n");
}

/// Subtitles are one file: few DASH players support segmented WebVTT.
fn write_subtitles(out: &mut String, text: &TrackIndex<'_>, id: u32, version: &str) {
    let TrackKind::Subtitles { language, label, purpose, .. } = &text.plan.kind else { return };
    let role = match purpose {
        Purpose::Dialogue => "subtitle",
        Purpose::Forced => "forced-subtitle",
        Purpose::HardOfHearing => "caption",
    };
    let _ = writeln!(
        out,
        "    <AdaptationSet id=\"{id}\" contentType=\"text\" mimeType=\"text/vtt\" lang=\"{}\">",
        escaped(language)
    );
    let _ = writeln!(out, "      <Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"{role}\"/>");
    let _ = writeln!(out, "      <Label>{}</Label>", escaped(label));
    let name = &text.plan.name;
    let _ = writeln!(
        out,
        "      <Representation id=\"{name}\" bandwidth=\"{}\">\n        <BaseURL>{version}/{}</BaseURL>\n      </Representation>\n    </AdaptationSet>",
        text.average_bitrate().max(1),
        whole_path(name)
    );
}

/// A segment's name holds its start in milliseconds, which `$Time$` yields when the timeline is in milliseconds. Each
/// entry ends where the next begins, so that rounding errors do not accumulate.
fn write_template(out: &mut String, track: &TrackIndex<'_>, version: &str) {
    let name = &track.plan.name;
    let _ = writeln!(
        out,
        "        <SegmentTemplate timescale=\"1000\" startNumber=\"0\" initialization=\"{version}/{name}/init.mp4\" media=\"{version}/{name}/$Number%05d$-$Time$.m4s\">"
    );
    out.push_str("          <SegmentTimeline>\n");
    let ms = |ticks| ticks_ms(ticks, track.plan.timescale);
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for segment in track.contiguous() {
        let (start, end) = (ms(segment.start), ms(segment.start + segment.duration));
        match runs.last_mut() {
            Some((_, duration, count)) if *duration == end - start => *count += 1,
            _ => runs.push((start, end - start, 1)),
        }
    }
    for (start, duration, count) in runs {
        let repeat = if count > 1 { format!(" r=\"{}\"", count - 1) } else { String::new() };
        let _ = writeln!(out, "            <S t=\"{start}\" d=\"{duration}\"{repeat}/>");
    }
    out.push_str("          </SegmentTimeline>\n        </SegmentTemplate>\n");
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()).take(120) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
