//! Concatenation: parts that were uploaded side by side become one file, copied by the store itself where it can. The
//! joining is a writer like any other, so it goes on at the acknowledged offset after a crash, on this origin or another,
//! and a deletion ends it.

use super::writer::Piece;
use super::{Kind, State, Upload, UploadError, Uploads, record, source_key};
use crate::db::Tx;
use lyceum_core::ids::Id;

/// Parts that one upload may have.
pub(super) const PARTS: usize = 1000;

impl Uploads {
    /// The length that `partials` come to, if all of them are whole parts of `owner`'s.
    pub async fn length_of(&self, tx: &mut Tx, owner: &str, partials: &[Id]) -> Result<u64, UploadError> {
        if partials.is_empty() || partials.len() > PARTS {
            return Err(UploadError::WrongPart(format!("an upload has 1 to {PARTS} parts")));
        }
        let mut length: u64 = 0;
        for id in partials {
            let part = record::get(tx, id).await?.filter(|part| part.owner == owner && part.kind == Kind::Partial);
            let part = part.ok_or_else(|| UploadError::WrongPart(id.to_string()))?;
            if part.state == State::Ended || !part.is_whole() {
                return Err(UploadError::WrongPart(id.to_string()));
            }
            length = length.saturating_add(part.received);
        }
        if length > self.config().size.0 {
            return Err(UploadError::TooLarge { limit: self.config().size.0 });
        }
        Ok(length)
    }

    /// Joins the parts of a final upload, from where an earlier try came to.
    pub async fn join(&self, id: &Id) -> Result<Upload, UploadError> {
        let upload = self.peek(id).await?;
        if upload.kind != Kind::Final || upload.state != State::Open || upload.is_whole() {
            return Ok(upload);
        }
        let mut skip = upload.received;
        let mut pieces = Vec::with_capacity(upload.partials.len());
        for part in &upload.partials {
            let part = self.peek(part).await?;
            let key = self.seal(&part).await?;
            if skip >= part.received {
                skip -= part.received;
                continue;
            }
            pieces.push(Piece { key, range: skip..part.received });
            skip = 0;
        }
        Ok(self.append_objects(id, upload.received, pieces).await?.upload)
    }

    /// Final uploads that are still to be joined and that nobody is joining now.
    pub async fn to_join(&self, limit: i64) -> Result<Vec<Id>, UploadError> {
        Ok(record::to_join(&mut self.db.read().await?, limit).await?)
    }

    /// Ends the parts of a final upload that was taken, and removes their bytes. Can be repeated.
    pub async fn drop_parts(&self, upload: &Upload) -> Result<(), UploadError> {
        for id in &upload.partials {
            let mut tx = self.db.begin().await?;
            let Some(part) = record::get(&mut tx, id).await? else { continue };
            record::set_state(&mut tx, id, State::Ended).await?;
            tx.commit().await?;
            self.remove_bytes(&part).await?;
            self.store.delete(&source_key(id)?).await?;
        }
        Ok(())
    }
}
