//! Keys of objects: paths that are safe on a disk, in a URL and in a bucket.

use std::fmt;

/// The longest key, in bytes.
pub(super) const MAX_LEN: usize = 512;

/// A key: segments of `[A-Za-z0-9._-]`, parted by `/`, none of them empty or beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<str>);

/// What made a text no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is made of segments of letters, digits, `.`, `_` and `-`, none beginning with a dot, 512 bytes in all")]
pub struct InvalidKey;

impl Key {
    /// Takes `text` if it is a key.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let segment = |segment: &str| {
            (1..=128).contains(&segment.len())
                && !segment.starts_with('.')
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if text.len() <= MAX_LEN && text.split('/').all(segment) { Ok(Self(text.into())) } else { Err(InvalidKey) }
    }

    /// The key of `tail` under this one.
    pub fn join(&self, tail: &str) -> Result<Self, InvalidKey> {
        Self::parse(&format!("{self}/{tail}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The media type that the key's extension stands for.
    pub fn guessed_type(&self) -> &'static str {
        match self.0.rsplit_once('.').map(|(_, extension)| extension) {
            Some("m3u8") => "application/vnd.apple.mpegurl",
            Some("mpd") => "application/dash+xml",
            Some("m4s" | "mp4") => "video/mp4",
            Some("m4a") => "audio/mp4",
            Some("vtt") => "text/vtt",
            Some("jpg" | "jpeg") => "image/jpeg",
            Some("png") => "image/png",
            Some("webp") => "image/webp",
            Some("json") => "application/json",
            _ => "application/octet-stream",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
