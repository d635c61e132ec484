//! `store`.

use std::path::PathBuf;

use serde::Deserialize;

use lyceum_core::config::Fault;
use lyceum_core::units::{self, ByteSize, Span};

use crate::store::key::Key;

/// Where objects lie: `{ directory = "data/objects" }` or `{ s3 = { … } }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Config {
    /// A directory, made when it is missing. Several origins may share it.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Config),
}

/// When checksums beyond the signature are sent and checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksums {
    /// Wherever the protocol has them.
    #[default]
    Supported,
    /// Only where the protocol demands them; for compatible servers that get trailing checksums wrong.
    Required,
}

/// `store = { s3 = { … } }`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The server's URL.
    pub endpoint: String,
    /// Its region. Default "us-east-1".
    #[serde(default = "default_region")]
    pub region: String,
    /// The bucket, which must exist.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends. Default none.
    #[serde(default)]
    pub prefix: String,
    /// The access key's name.
    pub access_key: String,
    /// The access key's secret.
    pub secret_key: String,
    /// Whether the bucket stands in the path, as look-alikes want it. Default true.
    #[serde(default = "yes")]
    pub path_style: bool,
    /// "supported" or "required". Default "supported".
    #[serde(default)]
    pub checksums: Checksums,
    /// Whether parts that were uploaded side by side are joined by the server (`UploadPartCopy`); false for look-alikes
    /// that can't or that want all parts of one size, and the origin copies them. Default true.
    #[serde(default = "yes")]
    pub copy: bool,
    /// The size of a part of a multipart upload. From 5MiB to 64MiB, default 8MiB.
    #[serde(default = "default_part", deserialize_with = "units::size::<_, 5_242_880, 67_108_864>")]
    pub part: ByteSize,
    /// Memory for parts of uploads under way, all of them together; each holds one part from its first byte to the
    /// part's end, and beyond the budget they wait for each other: give a part's size for every upload that should go on
    /// at once. One API key's uploads hold half of it at most. From 16MiB to 16GiB, default 64MiB.
    #[serde(default = "default_buffers", deserialize_with = "units::size::<_, 16_777_216, 17_179_869_184>")]
    pub buffers: ByteSize,
    /// Memory for objects that workers hand over, and for what the origin itself stores: each holds its size, a part's at
    /// most. From 16MiB to 16GiB, default 16MiB.
    #[serde(default = "default_object_buffers", deserialize_with = "units::size::<_, 16_777_216, 17_179_869_184>")]
    pub object_buffers: ByteSize,
    /// How long a connection may take to be made. From 100ms to 1m, default 3s.
    #[serde(default = "default_connect", deserialize_with = "units::span::<_, 100, 60_000>")]
    pub connect_timeout: Span,
    /// How long one try of a request may take. From 1s to 10m, default 60s.
    #[serde(default = "default_attempt", deserialize_with = "units::span::<_, 1_000, 600_000>")]
    pub attempt_timeout: Span,
    /// Tries of a request in all. From 1 to 10, default 4.
    #[serde(default = "default_attempts", deserialize_with = "units::number::<_, 1, 10>")]
    pub attempts: u64,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}
fn yes() -> bool {
    true
}
fn default_part() -> ByteSize {
    ByteSize::mib(8)
}
fn default_buffers() -> ByteSize {
    ByteSize::mib(64)
}
fn default_object_buffers() -> ByteSize {
    ByteSize::mib(16)
}
fn default_connect() -> Span {
    Span::secs(3)
}
fn default_attempt() -> Span {
    Span::secs(60)
}
fn default_attempts() -> u64 {
    4
}

impl S3Config {
    /// Finds what no single key can tell, each fault with its key; `at` is the key of this table.
    pub fn faults(&self, at: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, what: String| faults.push(Fault::at(&format!("{at}.{key}"), what));
        match url::Url::parse(&self.endpoint) {
            Err(error) => fault("endpoint", format!("it is no URL: {error}")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                fault("endpoint", "it is neither http nor https".to_owned());
            }
            Ok(_) => {}
        }
        if !self.prefix.is_empty()
            && let Err(error) = Key::parse(&self.prefix)
        {
            fault("prefix", error.to_string());
        }
        if self.buffers < self.part {
            fault("buffers", "it is smaller than one `part`".to_owned());
        }
        faults
    }
}

/// Never shows the secret.
impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
