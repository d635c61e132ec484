//! Playlists and manifests reduced to what a token allows (`max_height`, `preview`).
//!
//! HLS (RFC 8216bis) line by line, DASH (ISO/IEC 23009-1) tag by tag. The token's scope refuses what is
//! removed here in any case; removing it keeps players from running into the refusal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The largest playlist that is filtered, in bytes.
pub const MAX_PLAYLIST_BYTES: usize = 8 << 20;

/// The formats that are filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playlist {
    /// An HLS playlist, multivariant or media.
    Hls,
    /// A DASH manifest.
    Dash,
}

impl Playlist {
    /// The format of a path, by its extension.
    pub fn of(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1 {
            "m3u8" => Some(Self::Hls),
            "mpd" => Some(Self::Dash),
            _ => None,
        }
    }
}

/// What a token allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest shorter side of a rendition.
    pub max_height: Option<u32>,
    /// Only segments that start before this, in milliseconds.
    pub preview_ms: Option<u64>,
}

impl Limits {
    /// Whether there is any limit.
    pub fn any(&self) -> bool {
        self.max_height.is_some() || self.preview_ms.is_some()
    }

    fn too_high(&self, height: Option<u32>) -> bool {
        matches!((self.max_height, height), (Some(most), Some(height)) if height > most)
    }
}

/// `text` without what is beyond `limits`.
pub fn filter(kind: Playlist, text: &str, limits: Limits) -> String {
    match kind {
        Playlist::Hls => hls(text, limits),
        Playlist::Dash => dash(text, limits),
    }
}

/// The value of an attribute in an HLS attribute list or an XML tag.
fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = text;
    loop {
        let at = rest.find(name)?;
        let before = rest.get(..at)?.bytes().next_back();
        let after = rest.get(at + name.len()..)?;
        if before.is_none_or(|b| matches!(b, b' ' | b',' | b':' | b'\n' | b'\t'))
            && let Some(value) = after.strip_prefix('=')
        {
            return match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => value.split(',').next(),
            };
        }
        rest = after;
    }
}

fn shorter_side(resolution: &str) -> Option<u32> {
    let (width, height) = resolution.split_once('x')?;
    Some(width.trim().parse::<u32>().ok()?.min(height.trim().parse().ok()?))
}

fn hls(text: &str, limits: Limits) -> String {
    let mut out = String::with_capacity(text.len());
    let mut drop_uri = false;
    let mut pending = String::new();
    let mut elapsed_ms = 0.0_f64;
    let mut duration_ms = 0.0_f64;
    for line in text.lines() {
        let variant = line.starts_with("#EXT-X-STREAM-INF:");
        if variant || line.starts_with("#EXT-X-I-FRAME-STREAM-INF:") {
            let too_high = limits.too_high(attribute(line, "RESOLUTION").and_then(shorter_side));
            drop_uri = variant && too_high;
            if !too_high {
                let _ = writeln!(if pending.is_empty() { &mut out } else { &mut pending }, "{line}");
            }
            continue;
        }
        // Tags of the next segment are held back until its URI is read.
        if let Some(rest) = line.strip_prefix("#EXTINF:") {
            duration_ms = rest.split(',').next().and_then(|d| d.trim().parse::<f64>().ok()).unwrap_or(0.0) * 1000.0;
            let _ = writeln!(pending, "{line}");
            continue;
        }
        if !pending.is_empty() && (line.is_empty() || line.starts_with('#')) {
            let _ = writeln!(pending, "{line}");
            continue;
        }
        let is_uri = !line.is_empty() && !line.starts_with('#');
        if is_uri && std::mem::take(&mut drop_uri) {
            continue;
        }
        if is_uri && !pending.is_empty() {
            let start = named_start(line).unwrap_or_else(|| saturating_millis(elapsed_ms));
            if limits.preview_ms.is_some_and(|end| start >= end) {
                out.push_str("#EXT-X-ENDLIST\n");
                return out;
            }
            elapsed_ms += duration_ms;
            out.push_str(&pending);
            pending.clear();
        }
        let _ = writeln!(out, "{line}");
    }
    out.push_str(&pending);
    out
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn saturating_millis(ms: f64) -> u64 {
    // `as` saturates.
    ms as u64
}

/// `…/00012-48000.m4s`
fn named_start(uri: &str) -> Option<u64> {
    let file = uri.split(['?', '#']).next()?.rsplit('/').next()?;
    let (_, start) = file.strip_suffix(".m4s")?.split_once('-')?;
    start.parse().ok()
}

fn dash(text: &str, limits: Limits) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut timescale = 1_u64;
    let mut next_start = 0_u64;
    let mut end_ms = 0_u64;
    while let Some(at) = rest.find('<') {
        let (before, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let length = tail.find('>').map_or(tail.len(), |end| end + 1);
        let (tag, after) = tail.split_at_checked(length).unwrap_or((tail, ""));
        rest = after;
        if is_tag(tag, "Representation") {
            let side = |name| attribute(tag, name).and_then(|v| v.parse::<u32>().ok());
            let shorter = match (side("width"), side("height")) {
                (Some(width), Some(height)) => Some(width.min(height)),
                (_, height) => height,
            };
            if limits.too_high(shorter) {
                if !tag.ends_with("/>") {
                    const END: &str = "</Representation>";
                    rest = rest.find(END).and_then(|end| rest.get(end + END.len()..)).unwrap_or("");
                }
                continue;
            }
        }
        if is_tag(tag, "SegmentTemplate") {
            timescale = attribute(tag, "timescale").and_then(|v| v.parse().ok()).filter(|t| *t > 0).unwrap_or(1);
            next_start = 0;
        }
        match (limits.preview_ms, is_tag(tag, "S")) {
            (Some(preview), true) => {
                let (kept, end) = timeline_entry(tag, next_start, timescale, preview);
                next_start = end.unwrap_or(next_start);
                end_ms = end_ms.max(next_start.saturating_mul(1000) / timescale);
                out.push_str(&kept);
            }
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    if limits.preview_ms.is_some() { shortened(&out, end_ms) } else { out }
}

fn is_tag(tag: &str, name: &str) -> bool {
    tag.strip_prefix('<')
        .and_then(|t| t.strip_prefix(name))
        .is_some_and(|t| t.starts_with([' ', '\t', '\n', '\r', '/', '>']))
}

/// A `<S t d r/>` with the repetitions that start before the limit, and where the last of them ends.
fn timeline_entry<'a>(tag: &'a str, next: u64, timescale: u64, preview_ms: u64) -> (Cow<'a, str>, Option<u64>) {
    let number = |name| attribute(tag, name).and_then(|v| v.parse::<u64>().ok());
    let start = number("t").unwrap_or(next);
    let duration = number("d").unwrap_or(0);
    let repeat = number("r").unwrap_or(0);
    let end_of = |count: u64| start.saturating_add(duration.saturating_mul(count));
    let limit = u64::try_from(u128::from(preview_ms) * u128::from(timescale) / 1000).unwrap_or(u64::MAX);
    if duration == 0 || start >= limit {
        return (Cow::Borrowed(""), None);
    }
    let fitting = (limit - start).div_ceil(duration);
    if fitting > repeat {
        return (Cow::Borrowed(tag), Some(end_of(repeat + 1)));
    }
    let repeats = if fitting > 1 { format!(" r=\"{}\"", fitting - 1) } else { String::new() };
    (Cow::Owned(format!("<S t=\"{start}\" d=\"{duration}\"{repeats}/>")), Some(end_of(fitting)))
}

/// The manifest with its durations set to what remains.
fn shortened(text: &str, end_ms: u64) -> String {
    let duration = format!("PT{}.{:03}S", end_ms / 1000, end_ms % 1000);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let length = tail.find('>').map_or(tail.len(), |end| end + 1);
        let (tag, after) = tail.split_at_checked(length).unwrap_or((tail, ""));
        out.push_str(before);
        let name = match tag {
            t if is_tag(t, "MPD") => Some("mediaPresentationDuration"),
            t if is_tag(t, "Period") => Some("duration"),
            _ => None,
        };
        match name.and_then(|name| Some((name, attribute(tag, name)?))) {
            Some((name, old)) => {
                out.push_str(&tag.replacen(&format!("{name}=\"{old}\""), &format!("{name}=\"{duration}\""), 1));
            }
            None => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MASTER: &str = "#EXTM3U\n#EXT-X-VERSION:7\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"x\",URI=\"1/a-und/index.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=5,RESOLUTION=1280x720,CODECS=\"a,b\"\n1/v720/index.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=426x240\n1/v240/index.m3u8\n\
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,RESOLUTION=720x1280,URI=\"1/v720/iframes.m3u8\"\n";

    const MEDIA: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MAP:URI=\"init.mp4\"\n\
        #EXTINF:4.000,\n00000-0.m4s\n#EXTINF:4.000,\n#EXT-X-BYTERANGE:5@0\n00001-4000.m4s\n#EXTINF:2.000,\n00002-8000.m4s\n\
        #EXT-X-ENDLIST\n";

    const MPD: &str = "<?xml version=\"1.0\"?>\n<MPD type=\"static\" mediaPresentationDuration=\"PT20.000S\">\n\
        <Period id=\"0\" duration=\"PT20.000S\"><AdaptationSet>\
        <Representation id=\"v720\" width=\"1280\" height=\"720\"><SegmentTemplate timescale=\"1000\"><SegmentTimeline>\
        <S t=\"0\" d=\"4000\" r=\"4\"/></SegmentTimeline></SegmentTemplate></Representation>\
        <Representation id=\"v240\" width=\"426\" height=\"240\"><SegmentTemplate timescale=\"1000\"><SegmentTimeline>\
        <S t=\"0\" d=\"4000\" r=\"4\"/></SegmentTimeline></SegmentTemplate></Representation>\
        </AdaptationSet></Period></MPD>\n";

    fn limits(max_height: Option<u32>, preview_ms: Option<u64>) -> Limits {
        Limits { max_height, preview_ms }
    }

    #[test]
    fn renditions_above_the_maximum_are_left_out() {
        let out = filter(Playlist::Hls, MASTER, limits(Some(480), None));
        assert!(!out.contains("720") && out.contains("1/v240/index.m3u8") && out.contains("a-und"), "{out}");
        assert_eq!(filter(Playlist::Hls, MASTER, limits(Some(720), None)), MASTER);
        let out = filter(Playlist::Dash, MPD, limits(Some(480), None));
        assert!(!out.contains("720") && out.contains("v240") && out.contains("PT20.000S"), "{out}");
        assert_eq!(out.matches("<Representation").count(), out.matches("</Representation>").count());
    }

    #[test]
    fn a_preview_ends_in_the_playlist() {
        let out = filter(Playlist::Hls, MEDIA, limits(None, Some(4001)));
        assert!(out.ends_with("#EXT-X-BYTERANGE:5@0\n00001-4000.m4s\n#EXT-X-ENDLIST\n"), "{out}");
        let out = filter(Playlist::Hls, MEDIA, limits(None, Some(4000)));
        assert!(out.ends_with("00000-0.m4s\n#EXT-X-ENDLIST\n"), "{out}");
        assert_eq!(filter(Playlist::Hls, MEDIA, limits(None, Some(60_000))), MEDIA);
        let growing = MEDIA.replace("#EXT-X-ENDLIST\n", "");
        assert_eq!(
            filter(Playlist::Hls, &growing, limits(None, Some(60_000))),
            growing,
            "a growing playlist gets no end"
        );
        let airy = MEDIA.replace(",\n", ",\n\n");
        assert_eq!(filter(Playlist::Hls, &airy, limits(None, Some(60_000))), airy, "empty lines stay where they stand");
        let unnamed = MEDIA.replace(".m4s", ".ts");
        assert!(!filter(Playlist::Hls, &unnamed, limits(None, Some(7999))).contains("00002"), "by the durations");

        let out = filter(Playlist::Dash, MPD, limits(None, Some(9000)));
        assert_eq!(out.matches("<S t=\"0\" d=\"4000\" r=\"2\"/>").count(), 2, "{out}");
        assert_eq!(out.matches("PT12.000S").count(), 2, "{out}");
        assert_eq!(filter(Playlist::Dash, MPD, limits(None, Some(20_000))), MPD);
    }

    proptest! {
        #[test]
        fn any_text_is_filtered(text in "(\\PC|\n|<S t=\"0\" d=\"9\" r=\"3\"/>|<Representation height=\"9\">|#EXTINF:4,\n){0,40}",
                           height in prop::option::of(1_u32..10), preview in prop::option::of(0_u64..100)) {
            for kind in [Playlist::Hls, Playlist::Dash] {
                let _ = filter(kind, &text, limits(height, preview));
            }
        }
    }
}
