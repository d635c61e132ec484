//! The format of a file on disk.
//!
//! ```text
//! "lyceum2\n"            8 bytes
//! state                  8 bytes: zeros, or when a purge made it stale: seconds since the Unix epoch and their
//!                        complement, little endian; has no checksum, and any other value counts as stale since ever
//! offset of the header   8 bytes, little endian
//! length of the header   4 bytes, little endian
//! SHA-256 of the header  32 bytes
//! body
//! header                 JSON: key, status, fields, freshness, `Vary` fields, tags, length and SHA-256 of the body
//! ```
//!
//! A revalidation changes the header alone: the new one is appended, and then the first 60 bytes, which lie in one sector,
//! are overwritten to point to it. A concurrent reader finds the old header or the new one. After a crash between the two
//! writes the old header is in force; any other damage fails a checksum.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::private_files::private_file;
use crate::slice_layout::SliceLayout;
use crate::stored_response::{EntryKind, StoredResponse};
use crate::vary::Vary;
use lyceum_core::time::Clock;
use lyceum_http::freshness::Freshness;

const MAGIC: &[u8; 8] = b"lyceum2\n";
const STATE_OFFSET: u64 = 8;
/// What comes in front of the body.
const PREFIX_BYTES: usize = 8 + 8 + 8 + 4 + 32;
/// The largest header, in bytes: far more than a response may have.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// The bytes of a file that superseded headers may take before it is written anew.
const MAX_SUPERSEDED_BYTES: u64 = 256 << 10;

/// Why a file can't be used.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Corrupt(&'static str),
}

impl From<io::Error> for Unreadable {
    fn from(cause: io::Error) -> Self {
        // The file is shorter than its header says.
        if cause.kind() == io::ErrorKind::UnexpectedEof { Self::Corrupt("cut short") } else { Self::Io(cause) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryHeader {
    key: String,
    status: u16,
    /// Each byte of a value is one character, as values need not be UTF-8.
    fields: Vec<(String, String)>,
    /// Its time of receipt is by the wall clock: the steady one begins anew with each process.
    freshness: Freshness,
    vary: Vec<(String, Option<String>)>,
    kind: EntryKind,
    tags: Vec<Box<str>>,
    length: u64,
    digest: String,
}

/// What the header of a file tells the index.
#[derive(Debug)]
pub(super) struct FoundEntry {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) tags: Vec<Box<str>>,
    pub(super) modified: SystemTime,
}

/// The name of a key's file.
pub(super) fn name(key: &str) -> String {
    let mut name = hex(digest(&SHA256, key.as_bytes()).as_ref());
    name.truncate(32);
    name
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An entry in the format of a file.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    header: Vec<u8>,
    digest: String,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// None for an entry that has no format on disk, as its header is too large.
    pub(super) fn of(key: &str, stored: &'a StoredResponse, clock: &Clock) -> Option<Self> {
        let text = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        let sum = hex(digest(&SHA256, &stored.body).as_ref());
        let header = EntryHeader {
            key: key.to_owned(),
            status: stored.status.as_u16(),
            fields: stored.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
            freshness: stored.freshness.received_at(clock.unix_of_steady(stored.freshness.received_ms)),
            vary: stored.vary.fields(),
            kind: stored.kind.clone(),
            tags: stored.tags.clone(),
            length: stored.body.len() as u64,
            digest: sum.clone(),
        };
        let header = serde_json::to_vec(&header).ok().filter(|header| header.len() <= MAX_HEADER_BYTES)?;
        Some(Self { header, digest: sum, body: &stored.body })
    }

    /// Bytes of its file.
    pub(super) fn size(&self) -> u64 {
        (PREFIX_BYTES as u64).saturating_add(self.body.len() as u64).saturating_add(self.header.len() as u64)
    }

    /// The first bytes of a file whose header lies at `offset`.
    fn prefix(&self, offset: u64) -> Vec<u8> {
        let length = u32::try_from(self.header.len()).unwrap_or(u32::MAX);
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        prefix.extend_from_slice(MAGIC);
        prefix.extend_from_slice(&[0; 8]);
        prefix.extend_from_slice(&offset.to_le_bytes());
        prefix.extend_from_slice(&length.to_le_bytes());
        prefix.extend_from_slice(digest(&SHA256, &self.header).as_ref());
        prefix
    }

    /// Writes a new file.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = private_file().create(true).truncate(true).open(path)?;
        file.write_all(&self.prefix((PREFIX_BYTES as u64).saturating_add(self.body.len() as u64)))?;
        file.write_all(self.body)?;
        file.write_all(&self.header)
    }

    /// Writes the header alone into a file that has the same key and body already; gives the file's new size in bytes.
    /// None: it has to be written whole.
    pub(super) fn update_header(&self, path: &Path, key: &str) -> io::Result<Option<u64>> {
        let Ok((_, old, _, size)) = open(path) else { return Ok(None) };
        let same = old.key == key && old.length == self.body.len() as u64 && old.digest == self.digest;
        let new = size.saturating_add(self.header.len() as u64);
        if !same || new > self.size().saturating_add(MAX_SUPERSEDED_BYTES) {
            return Ok(None);
        }
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&self.header, size)?;
        file.write_all_at(&self.prefix(size), 0)?;
        Ok(Some(new))
    }
}

/// Marks a file as stale from `at_ms` of the wall clock on; one that is stale already keeps its time.
pub(super) fn mark_stale(path: &Path, at_ms: i64) -> io::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut state = [0; 8];
    file.read_exact_at(&mut state, STATE_OFFSET)?;
    if state != [0; 8] {
        return Ok(());
    }
    let at = u32::try_from(at_ms.div_euclid(1000)).unwrap_or(0);
    let state = u64::from(at) | u64::from(!at) << 32;
    file.write_all_at(&state.to_le_bytes(), STATE_OFFSET)
}

/// Whether a purge made an entry stale.
#[derive(Clone, Copy, Debug)]
enum MadeStale {
    Not,
    AtMs(i64),
    /// The state is damaged.
    Unknown,
}

impl MadeStale {
    fn of(state: &[u8]) -> Self {
        let Some(state) = number(state).map(u64::from_le_bytes) else { return Self::Unknown };
        let (at, complement) = (state & u64::from(u32::MAX), state >> 32);
        match i64::try_from(at) {
            _ if state == 0 => Self::Not,
            Ok(seconds) if at ^ complement == u64::from(u32::MAX) => Self::AtMs(seconds.saturating_mul(1000)),
            _ => Self::Unknown,
        }
    }
}

fn number<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Reads and verifies the header of a file; whether it was made stale, and the length of the file in bytes.
fn open(path: &Path) -> Result<(File, EntryHeader, MadeStale, u64), Unreadable> {
    let mut file = File::open(path)?;
    let mut prefix = [0_u8; PREFIX_BYTES];
    file.read_exact(&mut prefix)?;
    let (magic, rest) = prefix.split_at(8);
    let (state, rest) = rest.split_at(8);
    let (offset, rest) = rest.split_at(8);
    let (length, sum) = rest.split_at(4);
    if magic != MAGIC {
        return Err(Unreadable::Corrupt("no cache entry"));
    }
    let offset = number(offset).map_or(u64::MAX, u64::from_le_bytes);
    let length = number(length).and_then(|bytes| usize::try_from(u32::from_le_bytes(bytes)).ok());
    let Some(length) = length.filter(|length| *length <= MAX_HEADER_BYTES) else {
        return Err(Unreadable::Corrupt("the header is too long"));
    };
    let size = file.metadata()?.len();
    if offset.checked_add(length as u64).is_none_or(|end| end > size) {
        return Err(Unreadable::Corrupt("cut short"));
    }
    let mut header = vec![0_u8; length];
    file.read_exact_at(&mut header, offset)?;
    if digest(&SHA256, &header).as_ref() != sum {
        return Err(Unreadable::Corrupt("the header's checksum"));
    }
    let header: EntryHeader = serde_json::from_slice(&header).map_err(|_| Unreadable::Corrupt("the header's form"))?;
    if (PREFIX_BYTES as u64).checked_add(header.length).is_none_or(|end| end > offset) {
        return Err(Unreadable::Corrupt("the file's length"));
    }
    Ok((file, header, MadeStale::of(state), size))
}

/// Reads and verifies the header of a file of an earlier run.
pub(super) fn read_header(path: &Path) -> Result<FoundEntry, Unreadable> {
    let (file, header, _, size) = open(path)?;
    let modified = file.metadata()?.modified()?;
    Ok(FoundEntry { key: header.key, size, tags: header.tags, modified })
}

/// Reads and verifies a whole file.
pub(super) fn read(path: &Path, key: &str, clock: &Clock) -> Result<StoredResponse, Unreadable> {
    let (mut file, header, made_stale, _) = open(path)?;
    if header.key != key {
        return Err(Unreadable::Corrupt("another key"));
    }
    let length = usize::try_from(header.length).map_err(|_| Unreadable::Corrupt("the body's length"))?;
    let mut body = vec![0_u8; length];
    file.read_exact(&mut body)?;
    if hex(digest(&SHA256, &body).as_ref()) != header.digest {
        return Err(Unreadable::Corrupt("the body's checksum"));
    }
    restore(header, made_stale, body.into(), clock).ok_or(Unreadable::Corrupt("the header's fields"))
}

fn restore(header: EntryHeader, made_stale: MadeStale, body: Bytes, clock: &Clock) -> Option<StoredResponse> {
    let mut headers = HeaderMap::with_capacity(header.fields.len());
    for (name, value) in &header.fields {
        let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        headers.append(HeaderName::try_from(name.as_str()).ok()?, HeaderValue::from_bytes(&bytes?).ok()?);
    }
    let freshness = match made_stale {
        MadeStale::Not => header.freshness,
        MadeStale::AtMs(at_ms) => header.freshness.ended_at(at_ms),
        MadeStale::Unknown => header.freshness.ended_long_ago(),
    };
    // What seems to come from the future is of unknown age: the wall clock was put back since.
    let freshness = match clock.steady_of_unix(freshness.received_ms) {
        Some(received_ms) => freshness.received_at(received_ms),
        None => freshness.received_at(clock.steady_millis()).ended_long_ago(),
    };
    let whole = StoredResponse::whole(StatusCode::from_u16(header.status).ok()?, headers, body, freshness);
    Some(StoredResponse { vary: Vary::from_fields(header.vary)?, kind: header.kind, tags: header.tags, ..whole })
}

/// Does not compile when a kind of entry is added: the format has to be considered then.
const _: fn(EntryKind) -> bool = |kind| match kind {
    EntryKind::Whole | EntryKind::VaryMarker(_) | EntryKind::Sliced(SliceLayout { .. }) => true,
};
