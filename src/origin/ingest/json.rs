//! What the catalogue and the queue keep as JSON text.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ingest::error::IngestError;

pub(super) fn encode<T: Serialize>(value: &T) -> Result<String, IngestError> {
    serde_json::to_string(value).map_err(|error| IngestError::Internal(error.to_string()))
}

/// Reads `text`, which is `what` to the log.
pub(super) fn decode<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, IngestError> {
    serde_json::from_str(text).map_err(|error| IngestError::Internal(format!("{what}: {error}")))
}
