//! HLS playlists as a player reads them (RFC 8216): attribute lists, multivariant and media playlists.
//!
//! Stricter than most players, as some player refuses what others tolerate. It is deliberately independent of the code
//! that writes Lyceum's playlists, so that a mistake there is not repeated here.
//! Knows nothing of HTTP; URIs stay as written until [`resolve`].

pub mod attributes;
mod line;
mod media;
mod multivariant;
#[cfg(test)]
mod tests;

pub use media::{ByteRange, Key, Media, PlaylistType, Segment, Start};
pub use multivariant::{MediaType, Multivariant, Rendition, Variant};

use line::{Line, meaning};
use url::Url;

/// The largest playlist that is read, in bytes. Ten hours of two-second segments take about 1 MiB.
pub const MAX_BYTES: usize = 8 << 20;

/// A parsed playlist.
#[derive(Clone, Debug, PartialEq)]
pub enum Playlist {
    /// Names renditions (RFC 8216, section 4.3.4).
    Multivariant(Multivariant),
    /// Names segments (RFC 8216, section 4.3.3).
    Media(Media),
}

/// Why a text is no valid playlist, with the line of the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// Counted from 1; the line after the last one when something is missing at the end.
    pub line: usize,
    /// What is wrong, as half a sentence.
    pub what: String,
}

/// Reads a playlist of either kind.
pub fn parse(bytes: &[u8]) -> Result<Playlist, ParseError> {
    let at = |line, what: &str| ParseError { line, what: what.into() };
    if bytes.len() > MAX_BYTES {
        return Err(at(1, "the playlist is larger than 8 MiB"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| at(1, "the playlist is not UTF-8"))?;
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate();
    if lines.next().map(|(_, line)| line) != Some("#EXTM3U") {
        return Err(at(1, "a playlist begins with #EXTM3U"));
    }
    let mut media = media::Builder::default();
    let mut multivariant = multivariant::Builder::default();
    let mut last = 1;
    for (index, line) in lines {
        last = index + 1;
        let wrap = |what| ParseError { line: last, what };
        let Some(line) = meaning(line).map_err(wrap)? else {
            continue;
        };
        // Each builder takes what is its own and says whether it did; tags of both kinds belong to both.
        let took = media.take(&line).map_err(wrap)? | multivariant.take(&line).map_err(wrap)?;
        if let (Line::Uri(_), false) = (&line, took) {
            return Err(wrap("a URI with neither EXTINF nor EXT-X-STREAM-INF before it".into()));
        }
        if media.begun() && multivariant.begun() {
            return Err(wrap("a playlist names either renditions or segments, not both".into()));
        }
    }
    let wrap = |what| ParseError { line: last + 1, what };
    if multivariant.begun() {
        multivariant.finish().map(Playlist::Multivariant).map_err(wrap)
    } else {
        media.finish().map(Playlist::Media).map_err(wrap)
    }
}

/// A URI of a playlist as seen from the playlist's own address (RFC 3986, section 5).
pub fn resolve(base: &Url, uri: &str) -> Result<Url, String> {
    let url = base.join(uri).map_err(|error| format!("the URI {uri:?} does not resolve: {error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("the URI {uri:?} has the scheme {other}, not http or https")),
    }
}
