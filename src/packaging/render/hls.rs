//! HLS (RFC 8216bis and Apple's HLS Authoring Specification): the multivariant playlist, media playlists that grow
//! (`EVENT`) or stand (`VOD`), and I-frame playlists. All URIs are relative, so that a token in the path is carried.

use std::fmt::Write as _;

use super::super::index::{Index, TrackIndex};
use super::super::plan::{TrackKind, segment_name, ticks_ms};

/// Whether a lesson is still being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Playlists grow; bandwidths are the encoder's caps.
    Growing,
    /// All is there; bandwidths are measured.
    Complete,
}

impl State {
    /// The name of the media playlist beside the segments.
    fn playlist(self) -> &'static str {
        match self {
            Self::Growing => "event.m3u8",
            Self::Complete => "index.m3u8",
        }
    }
}

/// A variant that starts playback well: the best one that nearly every connection carries.
const START_BITS_PER_SECOND: u64 = 2_000_000;

/// The multivariant playlist at `/v/{lesson}/master.m3u8`, pointing into `version`. `None` until every track has its
/// init and first segment, since players read it once.
pub fn master(index: &Index<'_>, version: &str) -> Option<String> {
    if !index.begun() {
        return None;
    }
    let state = if index.complete() { State::Complete } else { State::Growing };
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let sounds: Vec<&TrackIndex<'_>> = index.tracks().iter().filter(|t| t.plan.is_audio()).collect();
    let pictures: Vec<&TrackIndex<'_>> = index.tracks().iter().filter(|t| t.plan.is_video()).collect();
    // Subtitles are made at once: they are listed when they are whole.
    let texts: Vec<&TrackIndex<'_>> = index.tracks().iter().filter(|t| t.plan.is_text() && t.complete()).collect();
    for text in &texts {
        write_text(&mut out, text, version);
    }
    let texts = !texts.is_empty();
    if pictures.is_empty() {
        for sound in &sounds {
            let (peak, average) = bandwidth(state, sound, &[]);
            write_rates(&mut out, peak, average);
            let group = if texts { ",SUBTITLES=\"subtitles\"" } else { "" };
            let _ = writeln!(
                out,
                ",CODECS=\"{}\"{group}\n{version}/{}/{}",
                codec(sound),
                sound.plan.name,
                state.playlist()
            );
        }
        return Some(out);
    }
    for sound in &sounds {
        write_sound(&mut out, sound, version, state);
    }
    let mut variants: Vec<(u64, u64, &TrackIndex<'_>)> = pictures
        .into_iter()
        .map(|picture| {
            let (peak, average) = bandwidth(state, picture, &sounds);
            (peak, average, picture)
        })
        .collect();
    variants.sort_by_key(|(peak, _, _)| *peak);
    // Players begin with the variant named first.
    if let Some(start) =
        variants.iter().rposition(|(peak, _, t)| *peak <= START_BITS_PER_SECOND && codec(t).starts_with("avc1"))
    {
        let variant = variants.remove(start);
        variants.insert(0, variant);
    }
    for (peak, average, picture) in &variants {
        write_variant(&mut out, index, picture, (*peak, *average), sounds.first().copied(), texts);
        let _ = writeln!(out, "{version}/{}/{}", picture.plan.name, state.playlist());
    }
    if state == State::Complete && index.plan().encryption.is_none() {
        write_iframes(&mut out, &variants, version);
    }
    Some(out)
}

fn codec<'t>(track: &'t TrackIndex<'_>) -> &'t str {
    track.facts.as_ref().map_or("", |f| f.codec.as_str())
}

/// Peak and average of a variant with the largest of its sounds: the caps while it grows, then as measured.
fn bandwidth(state: State, track: &TrackIndex<'_>, sounds: &[&TrackIndex<'_>]) -> (u64, u64) {
    let peak = |t: &TrackIndex<'_>| match state {
        State::Growing => t.plan.peak_bitrate,
        State::Complete => t.peak_bitrate(),
    };
    let sound_peak = sounds.iter().map(|t| peak(t)).max().unwrap_or(0);
    let sound_average = sounds.iter().map(|t| t.average_bitrate()).max().unwrap_or(0);
    (peak(track) + sound_peak, if state == State::Complete { track.average_bitrate() + sound_average } else { 0 })
}

fn write_rates(out: &mut String, peak: u64, average: u64) {
    let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak}");
    if average > 0 {
        let _ = write!(out, ",AVERAGE-BANDWIDTH={average}");
    }
}

fn write_sound(out: &mut String, sound: &TrackIndex<'_>, version: &str, state: State) {
    let TrackKind::Audio { language, label, default } = &sound.plan.kind else { return };
    let _ = write!(out, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{}\"", quoted(label));
    if language != "und" {
        let _ = write!(out, ",LANGUAGE=\"{}\"", quoted(language));
    }
    let default = if *default { "YES" } else { "NO" };
    let channels = sound.facts.as_ref().map_or(2, |f| f.channels);
    let _ = writeln!(
        out,
        ",DEFAULT={default},AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{version}/{}/{}\"",
        sound.plan.name,
        state.playlist()
    );
}

fn write_text(out: &mut String, text: &TrackIndex<'_>, version: &str) {
    let TrackKind::Subtitles { language, label, .. } = &text.plan.kind else { return };
    let _ = write!(out, "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"subtitles\",NAME=\"{}\"", quoted(label));
    if language != "und" {
        let _ = write!(out, ",LANGUAGE=\"{}\"", quoted(language));
    }
    let _ = writeln!(out, ",DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI=\"{version}/{}/index.m3u8\"", text.plan.name);
}

/// Text inside an attribute's quotes (RFC 8216bis, section 4.2): no quotes, no line ends.
fn quoted(text: &str) -> String {
    text.chars().map(|c| if c == '"' { '\'' } else { c }).filter(|c| !c.is_control()).take(120).collect()
}

fn write_variant(
    out: &mut String,
    index: &Index<'_>,
    picture: &TrackIndex<'_>,
    rates: (u64, u64),
    sound: Option<&TrackIndex<'_>>,
    texts: bool,
) {
    write_rates(out, rates.0, rates.1);
    let codecs = match sound {
        Some(sound) => format!("{},{}", codec(picture), codec(sound)),
        None => codec(picture).to_owned(),
    };
    let _ = write!(out, ",CODECS=\"{codecs}\"");
    if let TrackKind::Video { width, height, .. } = picture.plan.kind {
        let _ = write!(out, ",RESOLUTION={width}x{height}");
    }
    let _ = write!(out, ",FRAME-RATE={:.3},VIDEO-RANGE={}", index.plan().grid.rate.fps(), video_range(picture));
    out.push_str(if sound.is_some() { ",AUDIO=\"audio\"" } else { "" });
    out.push_str(if texts { ",SUBTITLES=\"subtitles\"" } else { "" });
    out.push_str(",CLOSED-CAPTIONS=NONE\n");
}

fn video_range<'t>(picture: &'t TrackIndex<'_>) -> &'t str {
    picture.facts.as_ref().map(|f| f.video_range.as_str()).filter(|r| !r.is_empty()).unwrap_or("SDR")
}

fn write_iframes(out: &mut String, variants: &[(u64, u64, &TrackIndex<'_>)], version: &str) {
    for (_, _, picture) in variants {
        let key_rate = |bytes: u64, duration: u64| bytes * 8 * u64::from(picture.plan.timescale) / duration.max(1);
        let peak = picture.contiguous().filter_map(|s| Some(key_rate(s.key_bytes?, s.duration))).max();
        let (Some(peak), TrackKind::Video { width, height, .. }) = (peak, &picture.plan.kind) else { continue };
        let _ = writeln!(
            out,
            "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={},CODECS=\"{}\",RESOLUTION={width}x{height},VIDEO-RANGE={},URI=\"{version}/{}/iframes.m3u8\"",
            peak.max(1),
            codec(picture),
            video_range(picture),
            picture.plan.name
        );
    }
}

/// `index.m3u8`: the finished playlist of a track. `None` while a segment is missing.
pub fn media_playlist(index: &Index<'_>, track: &str) -> Option<String> {
    let track = index.track(track).filter(|t| t.complete())?;
    let mut out = head(index, track, "#EXT-X-PLAYLIST-TYPE:VOD\n");
    write_segments(&mut out, track);
    out.push_str("#EXT-X-ENDLIST\n");
    Some(out)
}

/// `event.m3u8`: what is there of a track from its start on, ending in `EXT-X-ENDLIST` once all is. `None` until the
/// first segment is there.
pub fn event_playlist(index: &Index<'_>, track: &str) -> Option<String> {
    let track = index.track(track).filter(|t| t.facts.is_some())?;
    track.contiguous().next()?;
    let mut out = head(index, track, "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-START:TIME-OFFSET=0,PRECISE=YES\n");
    write_segments(&mut out, track);
    if track.complete() {
        out.push_str("#EXT-X-ENDLIST\n");
    }
    Some(out)
}

/// `iframes.m3u8`: the key frame of each segment, for scrubbing. `None` for sound and while a segment is missing.
pub fn iframe_playlist(index: &Index<'_>, track: &str) -> Option<String> {
    let track = index.track(track).filter(|t| t.plan.is_video() && t.complete())?;
    if index.plan().encryption.is_some() {
        // A byte range of an encrypted segment can't be decrypted by itself.
        return None;
    }
    let mut out = head(index, track, "#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-I-FRAMES-ONLY\n");
    for segment in track.contiguous() {
        let name = segment_name(segment.n, ticks_ms(segment.start, track.plan.timescale));
        let _ = writeln!(
            out,
            "#EXTINF:{},\n#EXT-X-BYTERANGE:{}@0\n{name}",
            seconds(segment.duration, track.plan.timescale),
            segment.key_bytes?
        );
    }
    out.push_str("#EXT-X-ENDLIST\n");
    Some(out)
}

fn head(index: &Index<'_>, track: &TrackIndex<'_>, kind: &str) -> String {
    let longest = (0..track.plan.segments.min(2))
        .chain(track.plan.segments.checked_sub(1))
        .map(|n| track.plan.segment(&index.plan().grid, n).1)
        .chain(track.contiguous().map(|s| s.duration))
        .max()
        .unwrap_or(0);
    // The longest EXTINF, rounded to the nearest second (RFC 8216bis, section 4.4.3.1). It must not change while
    // the playlist grows; audio segments differ by a frame, so the planned ones stand for those still to come.
    let timescale = u64::from(track.plan.timescale.max(1));
    let target = ((longest + timescale / 2) / timescale).max(1);
    // The init stands before the key: it stays in the clear, and so does text.
    let map = if track.plan.is_text() { "" } else { "#EXT-X-MAP:URI=\"init.mp4\"\n" };
    let key = index.plan().encryption.as_ref().filter(|_| !track.plan.is_text());
    let key = key.map_or_else(String::new, |e| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{}\"\n", e.key_uri));
    format!(
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:0\n{kind}#EXT-X-INDEPENDENT-SEGMENTS\n{map}{key}"
    )
}

fn write_segments(out: &mut String, track: &TrackIndex<'_>) {
    for segment in track.contiguous() {
        let name = track.plan.segment_name(segment.n, ticks_ms(segment.start, track.plan.timescale));
        let _ = writeln!(out, "#EXTINF:{},\n{name}", seconds(segment.duration, track.plan.timescale));
    }
}

/// Seconds with six decimals, exact to the microsecond so that sums do not drift.
fn seconds(ticks: u64, timescale: u32) -> String {
    let timescale = u128::from(timescale.max(1));
    let micros = (u128::from(ticks) * 1_000_000 + timescale / 2) / timescale;
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
