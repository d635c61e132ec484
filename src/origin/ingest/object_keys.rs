//! Where a lesson's objects lie in the store: `v/{lesson}/{version}/{path}`.

use lyceum_core::ids::Id;
use lyceum_storage::store::Key;

use crate::ingest::error::IngestError;

/// The object of `path` of a version.
pub(crate) fn object_key(lesson: &Id, version: &Id, path: &str) -> Result<Key, IngestError> {
    parse(&format!("v/{lesson}/{version}/{path}"))
}

/// The prefix of all objects of a version.
pub(super) fn version_prefix(lesson: &Id, version: &Id) -> Result<Key, IngestError> {
    parse(&format!("v/{lesson}/{version}"))
}

/// The prefix of all objects of a lesson.
pub(super) fn lesson_prefix(lesson: &Id) -> Result<Key, IngestError> {
    parse(&format!("v/{lesson}"))
}

fn parse(key: &str) -> Result<Key, IngestError> {
    Key::parse(key).map_err(|_| IngestError::InvalidPath)
}
