//! A version's plan and objects, kept in memory between requests and updated with what was committed since. The
//! catalogue decides: a snapshot is only as old as the transaction that it was loaded in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use lyceum_catalog as catalog;
use lyceum_core::ids::Id;
use lyceum_packaging::{DeliveredObject, MediaInfo, ObjectIndex, Plan};
use lyceum_storage::db::{DbError, Tx};

/// The most versions that are kept in memory.
const MAX_SNAPSHOTS: usize = 64;

/// A version's plan and the objects handed over, up to a revision.
pub(crate) struct Snapshot {
    pub(crate) plan: Arc<Plan>,
    pub(crate) media: Arc<MediaInfo>,
    position: i64,
    replanned: i64,
    handovers: Vec<Arc<DeliveredObject>>,
    rendered: Mutex<HashMap<String, Rendered>>,
}

/// A playlist as text, with its entity tag.
#[derive(Clone)]
pub(crate) struct Rendered {
    pub(crate) text: Bytes,
    pub(crate) etag: String,
}

impl Snapshot {
    /// The index that playlists are rendered from.
    pub(crate) fn index(&self) -> ObjectIndex<'_> {
        ObjectIndex::new(&self.plan, self.handovers.iter().map(|handover| &**handover))
    }

    /// Whether this one holds the same plan and objects as `other`.
    pub(crate) fn is_as_new_as(&self, other: &Self) -> bool {
        (self.position, self.replanned) == (other.position, other.replanned)
    }

    /// Renders `name` once; `None` when there is nothing to show yet.
    pub(crate) fn render(
        &self,
        name: &str,
        render: impl FnOnce(&ObjectIndex<'_>) -> Option<String>,
    ) -> Option<Rendered> {
        let known = self.rendered.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if known.is_some() {
            return known;
        }
        let text = render(&self.index())?;
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let tag: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        let rendered = Rendered { text: text.into(), etag: format!("\"{tag}\"") };
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), rendered.clone());
        Some(rendered)
    }
}

/// The snapshots in memory.
#[derive(Default)]
pub(crate) struct Snapshots {
    kept: Mutex<Vec<(Id, Arc<Snapshot>)>>,
}

impl Snapshots {
    /// The state of `version` as `tx` sees it; `None` while it is not planned.
    pub(crate) async fn load(&self, tx: &mut Tx, version: &Id) -> Result<Option<Arc<Snapshot>>, DbError> {
        let Some((revision, replanned)) = catalog::revisions(tx, version).await? else { return Ok(None) };
        let known = self.get(version);
        let position = known.as_ref().map_or(-1, |known| known.position);
        let (plan, media, mut handovers) = match known {
            Some(known) if known.position >= revision => return Ok(Some(known)),
            // Subtitles are added to a plan and removed; nothing else of it ever changes.
            Some(known) if known.replanned == replanned => {
                (known.plan.clone(), known.media.clone(), known.handovers.clone())
            }
            known => {
                let Some((media, plan)) = catalog::plan_of(tx, version).await? else { return Ok(None) };
                let handovers = known.map(|known| known.handovers.clone()).unwrap_or_default();
                (Arc::new(parse(&plan)?), Arc::new(parse(&media)?), handovers)
            }
        };
        for (_, json) in catalog::objects_after(tx, version, position).await? {
            handovers.push(Arc::new(parse(&json)?));
        }
        let rendered = Mutex::default();
        Ok(Some(Arc::new(Snapshot { plan, media, position: revision, replanned, handovers, rendered })))
    }

    /// The plan of `version`, or what was the plan a moment ago; `None` while it is not planned.
    pub(crate) async fn plan(&self, tx: &mut Tx, version: &Id) -> Result<Option<Arc<Plan>>, DbError> {
        if let Some(known) = self.get(version) {
            return Ok(Some(known.plan.clone()));
        }
        let Some(snapshot) = self.load(tx, version).await? else { return Ok(None) };
        self.keep(version, &snapshot);
        Ok(Some(snapshot.plan.clone()))
    }

    /// Keeps a snapshot that was loaded from committed state.
    pub(crate) fn keep(&self, version: &Id, snapshot: &Arc<Snapshot>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(id, _)| id == version).map(|at| kept.remove(at));
        let newest = match known {
            Some((_, known)) if known.position >= snapshot.position => known,
            _ => snapshot.clone(),
        };
        kept.push((version.clone(), newest));
        if kept.len() > MAX_SNAPSHOTS {
            kept.remove(0);
        }
    }

    fn get(&self, version: &Id) -> Option<Arc<Snapshot>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(id, _)| id == version).map(|(_, snapshot)| snapshot.clone())
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::Corrupt(error.to_string()))
}
