//! What a creator may upload: media types and bytes. Checked when an upload is created, before its first byte, and shown
//! by `GET /v1/me`.
//!
//! Bytes are counted each time from what is there, in the transaction that begins an upload: recordings of lessons that
//! were not deleted, and what unfinished uploads have announced.

use lyceum_catalog::{self as catalog, Role};
use lyceum_storage::db::{DbError, Tx};
use lyceum_storage::upload;

use crate::access::Caller;
use crate::ingest::context::Ingest;

/// How much of a quota is used, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) bytes: u64,
    pub(crate) used: u64,
}

impl Quota {
    pub(crate) fn left(self) -> u64 {
        self.bytes.saturating_sub(self.used)
    }
}

/// The caller's quota: that of the key, else the configured one, which does not apply to admins. `None`: no quota.
pub(crate) async fn of(ingest: &Ingest, tx: &mut Tx, caller: &Caller) -> Result<Option<Quota>, DbError> {
    let configured =
        ingest.config.load().uploads.quota.filter(|_| caller.identity.role == Role::Creator).map(|bytes| bytes.0);
    let Some(bytes) = caller.identity.quota.or(configured) else { return Ok(None) };
    let owner = caller.id();
    let used = catalog::kept_bytes(tx, owner).await?.saturating_add(upload::announced(tx, owner).await?);
    Ok(Some(Quota { bytes, used }))
}

/// Types that browsers and clients send when they don't know what is in a file.
const UNKNOWN_TYPES: &[&str] =
    &["", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"];

/// The media type of a file: as declared, else by the extension of its name; `None` if neither is known.
fn media_type(declared: &str, filename: &str) -> Option<String> {
    let declared = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !UNKNOWN_TYPES.contains(&declared.as_str()) {
        return Some(declared);
    }
    mime_guess::from_path(filename).first().map(|kind| kind.essence_str().to_owned())
}

/// A file that by its type is no recording.
#[derive(Debug, thiserror::Error)]
#[error("the type {0} is not accepted")]
pub(crate) struct WrongType(pub(crate) String);

/// Refuses files that by their type are no recordings. Files of unknown type are accepted: the probe looks into them.
pub(crate) fn check_type(allowed: &[String], declared: &str, filename: &str) -> Result<(), WrongType> {
    let Some(kind) = media_type(declared, filename) else { return Ok(()) };
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => kind.starts_with(prefix),
        None => *pattern == kind,
    };
    if allowed.iter().any(fits) { Ok(()) } else { Err(WrongType(kind.chars().take(80).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_declaration_or_by_file_name() {
        let allowed = upload::Config::default().types;
        for (declared, name) in [
            ("video/mp4", "a.mp4"),
            ("video/quicktime", ""),
            ("VIDEO/WEBM; codecs=\"vp9\"", ""),
            ("", "lecture.MKV"),
            ("application/octet-stream", "a.mov"),
            ("", "a.ts"),
            ("", "a.mxf"),
            ("", "a.wav"),
            ("", "recording"),
            ("", "a.odd"),
            ("audio/mpeg", "a.pdf"),
        ] {
            assert!(check_type(&allowed, declared, name).is_ok(), "{declared} {name}");
        }
        for (declared, name) in [
            ("application/pdf", "a.pdf"),
            ("", "a.pdf"),
            ("", "notes.docx"),
            ("image/png", "a.mp4"),
            ("", "a.zip"),
            ("text/html", ""),
        ] {
            assert!(check_type(&allowed, declared, name).is_err(), "{declared} {name}");
        }
    }
}
