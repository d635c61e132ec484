//! What is taken away before its time, and the memory of it that keeps fills under way from bringing it back.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// The most purges that are remembered for fills under way.
const MAX_REMEMBERED_PURGES: usize = 1024;

/// What to take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// One key, with the variants and slices that lie under it.
    Key(Box<str>),
    /// A path with any query and host: every key that is this text, or goes on with `?` or a space.
    Path(Box<str>),
    /// Every key that begins so.
    Prefix(Box<str>),
    /// Every response with this tag.
    Tag(Box<str>),
}

impl PurgeTarget {
    pub(super) fn holds(&self, key: &str, tags: &[Box<str>]) -> bool {
        match self {
            Self::Key(exact) => {
                let rest = key.strip_prefix(&**exact);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('\n'))
            }
            Self::Path(path) => {
                let rest = key.strip_prefix(&**path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['?', ' ', '\n']))
            }
            Self::Prefix(prefix) => key.starts_with(&**prefix),
            Self::Tag(tag) => tags.contains(tag),
        }
    }
}

/// A purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What.
    pub target: PurgeTarget,
    /// Whether it is only made stale, to be validated at the next use, or beside it where the origin allows that.
    pub soft: bool,
}

#[derive(Debug, Default)]
pub(super) struct PurgeLog(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    /// The number of the first purge in `recent`.
    first: u64,
    recent: VecDeque<PurgeTarget>,
}

impl PurgeLog {
    pub(super) fn note(&self, purge: &Purge) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.recent.push_back(purge.target.clone());
        if log.recent.len() > MAX_REMEMBERED_PURGES {
            log.recent.pop_front();
            log.first += 1;
        }
    }

    /// The number of the next purge.
    pub(super) fn epoch(&self) -> u64 {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.first + log.recent.len() as u64
    }

    /// Whether a purge since `epoch` holds this response. When too many came to be remembered, yes.
    pub(super) fn touched(&self, epoch: u64, key: &str, tags: &[Box<str>]) -> bool {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(skip) = epoch.checked_sub(log.first) else { return true };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        log.recent.iter().skip(skip).any(|target| target.holds(key, tags))
    }
}
