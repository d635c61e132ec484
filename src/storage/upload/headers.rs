//! The fields of tus 1.0, read strictly: what is not a number, not Base64 or not a known algorithm is refused, never
//! guessed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The one version of the protocol that is spoken.
pub const VERSION: &str = "1.0.0";
/// The extensions that are spoken.
pub const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,termination,checksum,expiration,concatenation";
/// The algorithms of `Upload-Checksum`.
pub const ALGORITHMS: &str = "sha1,sha256,crc32";
/// Bytes of an upload, as a PATCH sends them.
pub const CONTENT_TYPE: &str = "application/offset+octet-stream";

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It is not what it should be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A checksum of an algorithm that is not known.
    #[error("the algorithm of Upload-Checksum is not known; {ALGORITHMS} are")]
    UnknownAlgorithm,
}

/// A number of bytes: digits alone, no sign, no space.
pub fn number(name: &'static str, text: &str) -> Result<u64, HeaderError> {
    let digits = !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    let value = digits.then(|| text.parse::<u64>().ok()).flatten();
    // Lengths are kept as signed numbers in the database.
    value.filter(|value| i64::try_from(*value).is_ok()).ok_or(HeaderError::Malformed(name))
}

/// The pairs of `Upload-Metadata`: keys without spaces and commas, each once; values Base64 of any bytes.
pub fn metadata(text: &str) -> Result<Vec<(String, Vec<u8>)>, HeaderError> {
    const MALFORMED: HeaderError = HeaderError::Malformed("Upload-Metadata");
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    if text.trim().is_empty() {
        return Ok(pairs);
    }
    for pair in text.split(',') {
        let pair = pair.trim_matches(' ');
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let fits = !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
        if !fits || pairs.iter().any(|(known, _)| known == key) {
            return Err(MALFORMED);
        }
        let value = STANDARD.decode(value.trim_matches(' ')).map_err(|_| MALFORMED)?;
        pairs.push((key.to_owned(), value));
    }
    Ok(pairs)
}

/// What `Upload-Concat` says of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concat {
    /// It is a part.
    Partial,
    /// It is concatenated from the uploads with these ids, in this order.
    Final(Vec<lyceum_core::ids::Id>),
}

/// `Upload-Concat`: `partial`, or `final;` with the parts' URLs, relative or absolute.
pub fn concat(text: &str) -> Result<Concat, HeaderError> {
    const MALFORMED: HeaderError = HeaderError::Malformed("Upload-Concat");
    if text == "partial" {
        return Ok(Concat::Partial);
    }
    let urls = text.strip_prefix("final;").ok_or(MALFORMED)?;
    let id = |url: &str| {
        let last = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        lyceum_core::ids::Id::parse(last).map_err(|_| MALFORMED)
    };
    let ids = urls.split_ascii_whitespace().map(id).collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() { Err(MALFORMED) } else { Ok(Concat::Final(ids)) }
}

/// A file's name for people: no controls, no path, 255 bytes at most.
pub fn filename(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name: String = last.chars().filter(|c| !c.is_control()).collect();
    while name.len() > 255 {
        name.pop();
    }
    name
}

/// The checksum that a body should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-1, which the protocol demands.
    Sha1(Vec<u8>),
    /// SHA-256.
    Sha256(Vec<u8>),
    /// CRC-32 (ISO-HDLC), big-endian.
    Crc32(Vec<u8>),
}

/// `Upload-Checksum`: an algorithm, a space, Base64.
pub fn checksum(text: &str) -> Result<Checksum, HeaderError> {
    const MALFORMED: HeaderError = HeaderError::Malformed("Upload-Checksum");
    let (algorithm, value) = text.split_once(' ').ok_or(MALFORMED)?;
    let value = STANDARD.decode(value.trim_matches(' ')).map_err(|_| MALFORMED)?;
    let (checksum, length) = match algorithm {
        "sha1" => (Checksum::Sha1 as fn(Vec<u8>) -> Checksum, 20),
        "sha256" => (Checksum::Sha256 as fn(Vec<u8>) -> Checksum, 32),
        "crc32" => (Checksum::Crc32 as fn(Vec<u8>) -> Checksum, 4),
        _ => return Err(HeaderError::UnknownAlgorithm),
    };
    if value.len() == length { Ok(checksum(value)) } else { Err(MALFORMED) }
}

/// The digest of a body so far, and the checksum that it is to have.
pub(super) enum RunningDigest {
    Sha1(aws_lc_rs::digest::Context, Vec<u8>),
    Sha256(aws_lc_rs::digest::Context, Vec<u8>),
    Crc32(crc32fast::Hasher, Vec<u8>),
}

impl RunningDigest {
    pub(super) fn new(checksum: Checksum) -> Self {
        use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
        match checksum {
            Checksum::Sha1(wanted) => Self::Sha1(Context::new(&SHA1_FOR_LEGACY_USE_ONLY), wanted),
            Checksum::Sha256(wanted) => Self::Sha256(Context::new(&SHA256), wanted),
            Checksum::Crc32(wanted) => Self::Crc32(crc32fast::Hasher::new(), wanted),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(context, _) | Self::Sha256(context, _) => context.update(bytes),
            Self::Crc32(hasher, _) => hasher.update(bytes),
        }
    }

    pub(super) fn matches(self) -> bool {
        match self {
            Self::Sha1(context, wanted) | Self::Sha256(context, wanted) => context.finish().as_ref() == wanted,
            Self::Crc32(hasher, wanted) => hasher.finalize().to_be_bytes().as_slice() == wanted,
        }
    }
}
