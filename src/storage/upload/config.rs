//! `[uploads]`.

use serde::Deserialize;

use lyceum_core::units::{self, ByteSize, Span};

/// `[uploads]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest upload. From 1MiB to 100TiB, default 100GiB.
    #[serde(deserialize_with = "units::size::<_, 1_048_576, 109_951_162_777_600>")]
    pub size: ByteSize,
    /// Media types that may be uploaded, `*` for all of a kind; a file whose type is not known is probed.
    /// From 1 to 100, default video, sound and the containers of both.
    #[serde(deserialize_with = "media_types")]
    pub types: Vec<String>,
    /// How many bytes of recordings a creator's key may keep that has no quota of its own. From 1MiB to 1PiB, default none.
    #[serde(deserialize_with = "quota")]
    pub quota: Option<ByteSize>,
    /// The longest `Upload-Metadata`. From 256B to 64KiB, default 4KiB.
    #[serde(deserialize_with = "units::size::<_, 256, 65_536>")]
    pub metadata: ByteSize,
    /// Unfinished uploads at once, one API key's. From 1 to 10,000, default 100.
    #[serde(deserialize_with = "units::number::<_, 1, 10_000>")]
    pub open_per_key: u64,
    /// An upload that takes no bytes for so long is removed. From 1m to 90d, default 3d.
    #[serde(deserialize_with = "units::span::<_, 60_000, 7_776_000_000>")]
    pub expires: Span,
    /// An upload that was created and that no request has written to is removed after so long. From 1m to 90d, default 1h.
    #[serde(deserialize_with = "units::span::<_, 60_000, 7_776_000_000>")]
    pub unused: Span,
    /// How long the newest request waits for an older one to leave before it takes the upload from it.
    /// From 100ms to 30s, default 3s.
    #[serde(deserialize_with = "units::span::<_, 100, 30_000>")]
    pub takeover: Span,
    /// How often a writer looks whether a newer request has come to another origin. From 50ms to 10s, default 250ms.
    #[serde(deserialize_with = "units::span::<_, 50, 10_000>")]
    pub watch: Span,
    /// A request whose body stands still for so long ends; what came is kept. From 1s to 10m, default 30s.
    #[serde(deserialize_with = "units::span::<_, 1_000, 600_000>")]
    pub idle: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            size: ByteSize(100 << 30),
            types: DEFAULT_TYPES.map(str::to_owned).into(),
            quota: None,
            metadata: ByteSize::kib(4),
            open_per_key: 100,
            expires: Span::secs(3 * 24 * 3600),
            unused: Span::secs(3600),
            takeover: Span::secs(3),
            watch: Span::millis(250),
            idle: Span::secs(30),
        }
    }
}

/// Video, audio, and their containers that are registered under other types.
const DEFAULT_TYPES: [&str; 8] = [
    "video/*",
    "audio/*",
    "application/mp4",
    "application/mxf",
    "application/ogg",
    "application/x-matroska",
    "application/vnd.ms-asf",
    "application/vnd.rn-realmedia",
];

fn media_types<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let types = Vec::<String>::deserialize(from)?;
    let plain = |text: &String| text.contains('/') && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic());
    if !(1..=100).contains(&types.len()) || !types.iter().all(plain) {
        return Err(serde::de::Error::custom("name 1 to 100 media types such as \"video/*\" or \"application/mxf\""));
    }
    Ok(types.into_iter().map(|text| text.to_ascii_lowercase()).collect())
}

fn quota<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
    units::size::<_, 1_048_576, 1_125_899_906_842_624>(from).map(Some)
}
