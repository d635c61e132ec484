//! Concatenation: parts that were uploaded in parallel become one file, copied by the store itself where it can. It is a
//! writer like any other, so it goes on at the acknowledged offset after a crash, on this origin or another, and a deletion
//! ends it.

use lyceum_core::ids::Id;

use crate::db::tx::Tx;
use crate::upload::error::UploadError;
use crate::upload::record::{self, Upload, UploadKind, UploadState};
use crate::upload::uploads::Uploads;
use crate::upload::writer::ObjectRange;

/// The most parts that one upload may have.
const MAX_PARTS: usize = 1000;

impl Uploads {
    /// The length of `partials` together, in bytes, if all of them are whole parts of `owner`'s.
    pub async fn concatenated_length(&self, tx: &mut Tx, owner: &str, partials: &[Id]) -> Result<u64, UploadError> {
        if partials.is_empty() || partials.len() > MAX_PARTS {
            return Err(UploadError::WrongPart(format!("an upload has 1 to {MAX_PARTS} parts")));
        }
        let mut length: u64 = 0;
        for id in partials {
            let part =
                record::get(tx, id).await?.filter(|part| part.owner == owner && part.kind == UploadKind::Partial);
            let part = part.ok_or_else(|| UploadError::WrongPart(id.to_string()))?;
            if part.state == UploadState::Ended || !part.is_whole() {
                return Err(UploadError::WrongPart(id.to_string()));
            }
            length = length.saturating_add(part.received);
        }
        if length > self.config().size.0 {
            return Err(UploadError::TooLarge { limit: self.config().size.0 });
        }
        Ok(length)
    }

    /// Concatenates the parts of a final upload, from where an earlier try stopped.
    pub async fn concatenate(&self, id: &Id) -> Result<Upload, UploadError> {
        let upload = self.peek(id).await?;
        if upload.kind != UploadKind::Final || upload.state != UploadState::Open || upload.is_whole() {
            return Ok(upload);
        }
        let mut skip = upload.received;
        let mut ranges = Vec::with_capacity(upload.partials.len());
        for part in &upload.partials {
            let part = self.peek(part).await?;
            let key = self.seal(&part).await?;
            if skip >= part.received {
                skip -= part.received;
                continue;
            }
            ranges.push(ObjectRange { key, range: skip..part.received });
            skip = 0;
        }
        Ok(self.append_objects(id, upload.received, ranges).await?.upload)
    }

    /// Final uploads that are still to be concatenated and that have no writer now.
    pub async fn to_concatenate(&self, limit: i64) -> Result<Vec<Id>, UploadError> {
        Ok(record::to_concatenate(&mut self.db.read().await?, limit).await?)
    }

    /// Ends the parts of a final upload that was taken, and removes their bytes. Can be repeated.
    pub async fn remove_parts(&self, upload: &Upload) -> Result<(), UploadError> {
        for id in &upload.partials {
            let mut tx = self.db.begin().await?;
            let Some(part) = record::get(&mut tx, id).await? else { continue };
            record::set_state(&mut tx, id, UploadState::Ended).await?;
            tx.commit().await?;
            self.clear(&part).await?;
        }
        Ok(())
    }
}
