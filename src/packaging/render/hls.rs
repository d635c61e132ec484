//! HLS (RFC 8216bis and Apple's HLS Authoring Specification): the multivariant playlist, media playlists that grow
//! (`EVENT`) or stand (`VOD`), and I-frame playlists. All URIs are relative, so that a token in the path is carried.

use std::fmt::Write as _;

use crate::index::{Index, TrackIndex};
use crate::info::Purpose;
use crate::track::{TrackKind, segment_name, ticks_ms};

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
    let mut spoken = Spoken::default();
    for text in &texts {
        write_text(&mut out, text, version, &mut spoken);
    }
    // Sound by itself is a variant; several languages of it are one variant with a group, not several qualities.
    let beside: &[&TrackIndex<'_>] = if pictures.is_empty() && sounds.len() == 1 { &[] } else { &sounds };
    let mut spoken = Spoken::default();
    // The default is chosen by itself, whatever stands before it in its language.
    for sound in beside.iter().filter(|t| is_default(t)) {
        spoken.autoselect("", language(sound));
    }
    for sound in beside {
        write_sound(&mut out, sound, version, state, &mut spoken);
    }
    if pictures.is_empty() {
        let sound = sounds.iter().find(|t| is_default(t)).or(sounds.first())?;
        let group = if beside.is_empty() { "" } else { ",AUDIO=\"audio\"" };
        let text = if texts.is_empty() { "" } else { ",SUBTITLES=\"subtitles\"" };
        write_rates(&mut out, bandwidth(state, &[&sounds, &texts]));
        let place = format!("{version}/{}/{}", sound.plan.name, state.playlist());
        let _ = writeln!(out, ",CODECS=\"{}\"{group}{text}\n{place}", codec(sound));
        return Some(out);
    }
    let mut variants: Vec<(u64, u64, &TrackIndex<'_>)> = pictures
        .into_iter()
        .map(|picture| {
            let (peak, average) = bandwidth(state, &[&[picture], &sounds, &texts]);
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
        write_variant(&mut out, index, picture, (*peak, *average), sounds.first().copied(), !texts.is_empty());
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

/// Peak and average of what is played together: of each group the largest. The caps while it grows, then as measured.
fn bandwidth(state: State, groups: &[&[&TrackIndex<'_>]]) -> (u64, u64) {
    let peak = |t: &TrackIndex<'_>| match state {
        State::Growing => t.plan.peak_bitrate,
        State::Complete => t.peak_bitrate(),
    };
    let largest = |group: &[&TrackIndex<'_>], of: &dyn Fn(&TrackIndex<'_>) -> u64| group.iter().map(|t| of(t)).max();
    let sum = |of: &dyn Fn(&TrackIndex<'_>) -> u64| groups.iter().filter_map(|group| largest(group, of)).sum();
    (sum(&peak), if state == State::Complete { sum(&|t| t.average_bitrate()) } else { 0 })
}

/// Which languages of a group a player may choose by itself: of those alike only the first (RFC 8216bis, section
/// 4.4.6.1.1). What is in no known language is one of them.
#[derive(Default)]
struct Spoken(Vec<String>);

impl Spoken {
    fn autoselect(&mut self, kind: &str, language: &str) -> &'static str {
        let named = format!("{kind} {language}");
        let first = !self.0.contains(&named);
        self.0.push(named);
        if first { "YES" } else { "NO" }
    }
}

fn language<'t>(track: &'t TrackIndex<'_>) -> &'t str {
    match &track.plan.kind {
        TrackKind::Audio { language, .. } | TrackKind::Subtitles { language, .. } => language,
        TrackKind::Video { .. } => "",
    }
}

fn is_default(track: &TrackIndex<'_>) -> bool {
    matches!(track.plan.kind, TrackKind::Audio { default: true, .. })
}

fn write_rates(out: &mut String, (peak, average): (u64, u64)) {
    let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak}");
    if average > 0 {
        let _ = write!(out, ",AVERAGE-BANDWIDTH={average}");
    }
}

fn write_sound(out: &mut String, sound: &TrackIndex<'_>, version: &str, state: State, spoken: &mut Spoken) {
    let TrackKind::Audio { language, label, default } = &sound.plan.kind else { return };
    let _ = write!(out, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{}\"", quoted(label));
    if language != "und" {
        let _ = write!(out, ",LANGUAGE=\"{}\"", quoted(language));
    }
    let chosen = if *default { "YES" } else { spoken.autoselect("", language) };
    let default = if *default { "YES" } else { "NO" };
    let channels = sound.facts.as_ref().map_or(2, |f| f.channels);
    let _ = writeln!(
        out,
        ",DEFAULT={default},AUTOSELECT={chosen},CHANNELS=\"{channels}\",URI=\"{version}/{}/{}\"",
        sound.plan.name,
        state.playlist()
    );
}

fn write_text(out: &mut String, text: &TrackIndex<'_>, version: &str, spoken: &mut Spoken) {
    let TrackKind::Subtitles { language, label, purpose, .. } = &text.plan.kind else { return };
    let _ = write!(out, "#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"subtitles\",NAME=\"{}\"", quoted(label));
    if language != "und" {
        let _ = write!(out, ",LANGUAGE=\"{}\"", quoted(language));
    }
    let (forced, more) = match purpose {
        Purpose::Dialogue => ("NO", ""),
        Purpose::Forced => ("YES", ""),
        Purpose::HardOfHearing => ("NO", HARD_OF_HEARING),
    };
    let chosen = spoken.autoselect(purpose.as_str(), language);
    let place = format!("{version}/{}/index.m3u8", text.plan.name);
    let _ = writeln!(out, ",DEFAULT=NO,AUTOSELECT={chosen},FORCED={forced}{more},URI=\"{place}\"");
}

/// What Apple's players know subtitles for the hard of hearing by.
const HARD_OF_HEARING: &str = ",CHARACTERISTICS=\"public.accessibility.transcribes-spoken-dialog,public.accessibility.describes-music-and-sound\"";

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
    write_rates(out, rates);
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
        let peak = picture.key_peak_bitrate();
        let (Some(peak), TrackKind::Video { width, height, .. }) = (peak, &picture.plan.kind) else { continue };
        let _ = writeln!(
            out,
            "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={peak},CODECS=\"{}\",RESOLUTION={width}x{height},VIDEO-RANGE={},URI=\"{version}/{}/iframes.m3u8\"",
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

/// `iframes.m3u8`: the key frame of each segment, for scrubbing. `None` for audio and while a segment is missing.
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
    let target = track.target_duration();
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
