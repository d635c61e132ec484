//! HLS (RFC 8216bis and Apple's HLS Authoring Specification): the multivariant playlist, media playlists that grow
//! (`EVENT`) or are complete (`VOD`), and I-frame playlists. All URIs are relative, so that a token in the path is kept.

use std::fmt::Write as _;

use crate::index::{ObjectIndex, TrackIndex};
use crate::info::Purpose;
use crate::track::{TrackKind, segment_name, ticks_ms};

/// The type of a lesson's media playlists (RFC 8216bis, section 4.4.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaylistType {
    /// The lesson is still being made: playlists grow, bandwidths are the encoder's maximum.
    Event,
    /// The lesson is complete: bandwidths are measured.
    Vod,
}

impl PlaylistType {
    /// The file name of the media playlist, next to the segments.
    fn file_name(self) -> &'static str {
        match self {
            Self::Event => "event.m3u8",
            Self::Vod => "index.m3u8",
        }
    }
}

/// The bandwidth of the first variant, at most: nearly every connection carries it.
const START_BITS_PER_SECOND: u64 = 2_000_000;

/// The multivariant playlist at `/v/{lesson}/master.m3u8`, pointing into `version`. `None` until every track has its
/// init and first segment, since players read this playlist once.
pub fn master(index: &ObjectIndex<'_>, version: &str) -> Option<String> {
    if !index.begun() {
        return None;
    }
    let playlist_type = if index.complete() { PlaylistType::Vod } else { PlaylistType::Event };
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let audios: Vec<&TrackIndex<'_>> = index.tracks().iter().filter(|t| t.plan.is_audio()).collect();
    let videos: Vec<&TrackIndex<'_>> = index.tracks().iter().filter(|t| t.plan.is_video()).collect();
    // Subtitles are made in one go: they are listed once complete.
    let texts: Vec<&TrackIndex<'_>> = index.tracks().iter().filter(|t| t.plan.is_text() && t.complete()).collect();
    let mut selected = Autoselected::default();
    for text in &texts {
        write_subtitles(&mut out, text, version, &mut selected);
    }
    // Audio alone is a variant; several audio tracks are one variant with a group, not several qualities.
    let audio_group: &[&TrackIndex<'_>] = if videos.is_empty() && audios.len() == 1 { &[] } else { &audios };
    let mut selected = Autoselected::default();
    // The default track is always selected automatically, even after another in its language.
    for audio in audio_group.iter().filter(|t| is_default(t)) {
        selected.autoselect("", language(audio));
    }
    for audio in audio_group {
        write_audio(&mut out, audio, version, playlist_type, &mut selected);
    }
    if videos.is_empty() {
        let audio = audios.iter().find(|t| is_default(t)).or(audios.first())?;
        let group = if audio_group.is_empty() { "" } else { ",AUDIO=\"audio\"" };
        let text = if texts.is_empty() { "" } else { ",SUBTITLES=\"subtitles\"" };
        write_bandwidth(&mut out, bandwidth(playlist_type, &[&audios, &texts]));
        let uri = format!("{version}/{}/{}", audio.plan.name, playlist_type.file_name());
        let _ = writeln!(out, ",CODECS=\"{}\"{group}{text}\n{uri}", codec(audio));
        return Some(out);
    }
    let mut variants: Vec<(u64, u64, &TrackIndex<'_>)> = videos
        .into_iter()
        .map(|video| {
            let (peak, average) = bandwidth(playlist_type, &[&[video], &audios, &texts]);
            (peak, average, video)
        })
        .collect();
    variants.sort_by_key(|(peak, _, _)| *peak);
    // Players start with the variant listed first.
    if let Some(start) =
        variants.iter().rposition(|(peak, _, t)| *peak <= START_BITS_PER_SECOND && codec(t).starts_with("avc1"))
    {
        let variant = variants.remove(start);
        variants.insert(0, variant);
    }
    for (peak, average, video) in &variants {
        write_variant(&mut out, index, video, (*peak, *average), audios.first().copied(), !texts.is_empty());
        let _ = writeln!(out, "{version}/{}/{}", video.plan.name, playlist_type.file_name());
    }
    if playlist_type == PlaylistType::Vod && index.plan().encryption.is_none() {
        write_iframes(&mut out, &variants, version);
    }
    Some(out)
}

fn codec<'t>(track: &'t TrackIndex<'_>) -> &'t str {
    track.facts.as_ref().map_or("", |f| f.codec.as_str())
}

/// Peak and average bandwidth of what is played together: the largest of each group. Planned while the lesson grows (no
/// average), then as measured.
fn bandwidth(playlist_type: PlaylistType, groups: &[&[&TrackIndex<'_>]]) -> (u64, u64) {
    let peak = |t: &TrackIndex<'_>| match playlist_type {
        PlaylistType::Event => t.plan.peak_bitrate,
        PlaylistType::Vod => t.peak_bitrate(),
    };
    let largest = |group: &[&TrackIndex<'_>], of: &dyn Fn(&TrackIndex<'_>) -> u64| group.iter().map(|t| of(t)).max();
    let sum = |of: &dyn Fn(&TrackIndex<'_>) -> u64| groups.iter().filter_map(|group| largest(group, of)).sum();
    (sum(&peak), if playlist_type == PlaylistType::Vod { sum(&|t| t.average_bitrate()) } else { 0 })
}

/// Which tracks of a group a player may select automatically: of each language the first (RFC 8216bis, section
/// 4.4.6.1.1). Tracks of no known language count as one language.
#[derive(Default)]
struct Autoselected(Vec<String>);

impl Autoselected {
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

fn write_bandwidth(out: &mut String, (peak, average): (u64, u64)) {
    let _ = write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak}");
    if average > 0 {
        let _ = write!(out, ",AVERAGE-BANDWIDTH={average}");
    }
}

fn write_audio(
    out: &mut String,
    audio: &TrackIndex<'_>,
    version: &str,
    playlist_type: PlaylistType,
    selected: &mut Autoselected,
) {
    let TrackKind::Audio { language, label, default } = &audio.plan.kind else { return };
    let _ = write!(out, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{}\"", quoted(label));
    if language != "und" {
        let _ = write!(out, ",LANGUAGE=\"{}\"", quoted(language));
    }
    let chosen = if *default { "YES" } else { selected.autoselect("", language) };
    let default = if *default { "YES" } else { "NO" };
    let channels = audio.facts.as_ref().map_or(2, |f| f.channels);
    let _ = writeln!(
        out,
        ",DEFAULT={default},AUTOSELECT={chosen},CHANNELS=\"{channels}\",URI=\"{version}/{}/{}\"",
        audio.plan.name,
        playlist_type.file_name()
    );
}

fn write_subtitles(out: &mut String, text: &TrackIndex<'_>, version: &str, selected: &mut Autoselected) {
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
    let chosen = selected.autoselect(purpose.as_str(), language);
    let uri = format!("{version}/{}/index.m3u8", text.plan.name);
    let _ = writeln!(out, ",DEFAULT=NO,AUTOSELECT={chosen},FORCED={forced}{more},URI=\"{uri}\"");
}

/// How Apple's players recognise subtitles for the hard of hearing.
const HARD_OF_HEARING: &str = ",CHARACTERISTICS=\"public.accessibility.transcribes-spoken-dialog,public.accessibility.describes-music-and-sound\"";

/// Text for a quoted attribute (RFC 8216bis, section 4.2): no quotes, no line ends.
fn quoted(text: &str) -> String {
    text.chars().map(|c| if c == '"' { '\'' } else { c }).filter(|c| !c.is_control()).take(120).collect()
}

fn write_variant(
    out: &mut String,
    index: &ObjectIndex<'_>,
    video: &TrackIndex<'_>,
    rates: (u64, u64),
    audio: Option<&TrackIndex<'_>>,
    texts: bool,
) {
    write_bandwidth(out, rates);
    let codecs = match audio {
        Some(audio) => format!("{},{}", codec(video), codec(audio)),
        None => codec(video).to_owned(),
    };
    let _ = write!(out, ",CODECS=\"{codecs}\"");
    if let TrackKind::Video { width, height, .. } = video.plan.kind {
        let _ = write!(out, ",RESOLUTION={width}x{height}");
    }
    let _ = write!(out, ",FRAME-RATE={:.3},VIDEO-RANGE={}", index.plan().grid.rate.fps(), video_range(video));
    out.push_str(if audio.is_some() { ",AUDIO=\"audio\"" } else { "" });
    out.push_str(if texts { ",SUBTITLES=\"subtitles\"" } else { "" });
    out.push_str(",CLOSED-CAPTIONS=NONE\n");
}

fn video_range<'t>(video: &'t TrackIndex<'_>) -> &'t str {
    video.facts.as_ref().map(|f| f.video_range.as_str()).filter(|r| !r.is_empty()).unwrap_or("SDR")
}

fn write_iframes(out: &mut String, variants: &[(u64, u64, &TrackIndex<'_>)], version: &str) {
    for (_, _, video) in variants {
        let peak = video.key_peak_bitrate();
        let (Some(peak), TrackKind::Video { width, height, .. }) = (peak, &video.plan.kind) else { continue };
        let _ = writeln!(
            out,
            "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={peak},CODECS=\"{}\",RESOLUTION={width}x{height},VIDEO-RANGE={},URI=\"{version}/{}/iframes.m3u8\"",
            codec(video),
            video_range(video),
            video.plan.name
        );
    }
}

/// `index.m3u8`: the finished playlist of a track. `None` while a segment is missing.
pub fn media_playlist(index: &ObjectIndex<'_>, track: &str) -> Option<String> {
    let track = index.track(track).filter(|t| t.complete())?;
    let mut out = head(index, track, "#EXT-X-PLAYLIST-TYPE:VOD\n");
    write_segments(&mut out, track);
    out.push_str("#EXT-X-ENDLIST\n");
    Some(out)
}

/// `event.m3u8`: the existing segments of a track from its start on, ending in `EXT-X-ENDLIST` once complete. `None`
/// until the first segment exists.
pub fn event_playlist(index: &ObjectIndex<'_>, track: &str) -> Option<String> {
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
pub fn iframe_playlist(index: &ObjectIndex<'_>, track: &str) -> Option<String> {
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

fn head(index: &ObjectIndex<'_>, track: &TrackIndex<'_>, kind: &str) -> String {
    let target = track.target_duration();
    // The init segment precedes the key: it stays unencrypted, as does text.
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

/// Seconds with six decimals: exact to the microsecond, so that sums do not drift.
fn seconds(ticks: u64, timescale: u32) -> String {
    let timescale = u128::from(timescale.max(1));
    let micros = (u128::from(ticks) * 1_000_000 + timescale / 2) / timescale;
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
