//! What a creator may upload: which types, and how much of it. Told before the first byte is sent, by the creation of
//! an upload and by `GET /v1/me`.
//!
//! Bytes are counted each time from what is there, in the transaction that begins an upload: recordings of lessons that
//! were not deleted, and what unfinished uploads have announced.

use super::auth::Caller;
use super::refusal::Refusal;
use crate::state::App;
use lyceum_catalog::{self as catalog, Role};
use lyceum_storage::db::Tx;
use lyceum_storage::upload;

/// How much of a quota is used, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) bytes: u64,
    pub(super) used: u64,
}

impl Quota {
    pub(super) fn left(self) -> u64 {
        self.bytes.saturating_sub(self.used)
    }

    pub(super) fn exceeded(self) -> Refusal {
        Refusal::QuotaExceeded { bytes: self.bytes, used: self.used }
    }
}

/// What the caller may keep: the key's own quota, else the configured one. Admins have none but their key's own.
pub(super) async fn of(app: &App, tx: &mut Tx, caller: &Caller) -> Result<Option<Quota>, Refusal> {
    let configured = app.config().uploads.quota.filter(|_| caller.key.role == Role::Creator).map(|bytes| bytes.0);
    let Some(bytes) = caller.key.quota.or(configured) else { return Ok(None) };
    let owner = caller.key.id.as_str();
    let used = catalog::kept_bytes(tx, owner).await?.saturating_add(upload::announced(tx, owner).await?);
    Ok(Some(Quota { bytes, used }))
}

/// Types that say nothing of what is in a file: browsers and clients send them when they don't know.
const SAYS_NOTHING: &[&str] =
    &["", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"];

/// The media type of a file by what its sender says, else by its name's extension; `None` where neither tells.
fn media_type(said: &str, filename: &str) -> Option<String> {
    let said = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !SAYS_NOTHING.contains(&said.as_str()) {
        return Some(said);
    }
    mime_guess::from_path(filename).first().map(|kind| kind.essence_str().to_owned())
}

/// Refuses what can't be a recording by its type. What no type is known of is let in: the probe looks into it.
pub(super) fn check_type(allowed: &[String], said: &str, filename: &str) -> Result<(), Refusal> {
    let Some(kind) = media_type(said, filename) else { return Ok(()) };
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => kind.starts_with(prefix),
        None => *pattern == kind,
    };
    if allowed.iter().any(fits) { Ok(()) } else { Err(Refusal::UploadType(kind.chars().take(80).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_word_or_by_name() {
        let allowed = upload::Config::default().types;
        for (said, name) in [
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
            assert!(check_type(&allowed, said, name).is_ok(), "{said} {name}");
        }
        for (said, name) in [
            ("application/pdf", "a.pdf"),
            ("", "a.pdf"),
            ("", "notes.docx"),
            ("image/png", "a.mp4"),
            ("", "a.zip"),
            ("text/html", ""),
        ] {
            assert!(check_type(&allowed, said, name).is_err(), "{said} {name}");
        }
    }
}
