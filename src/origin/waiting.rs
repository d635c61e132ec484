//! Requests that wait: event streams of lessons, workers that wait for a task, edges that wait for revocations. Each
//! purpose has a share of its own, and in the one that people use, each API key: nobody's streams keep an edge from its
//! revocations or a worker from its task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Api;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A lesson's changes.
    LessonEvents,
    /// A task.
    Tasks,
    /// News of the feed.
    Revocations,
}

/// Why a request can't wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many wait for the same.
    Purpose,
    /// Too many of one key's do.
    Key {
        /// How many may.
        limit: u64,
    },
}

/// Who waits now.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    lesson_events: Share,
    tasks: Share,
    revocations: Share,
}

type Share = Arc<Mutex<Counts>>;

#[derive(Debug, Default)]
struct Counts {
    all: u64,
    by_key: HashMap<String, u64>,
}

fn counts(share: &Share) -> MutexGuard<'_, Counts> {
    share.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that waits; it does no longer when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    share: Share,
    key: String,
}

impl Waiting {
    /// Takes a place for a request with the API key of that id.
    pub(crate) fn enter(&self, purpose: Purpose, key: &str, limits: &Api) -> Result<Place, Full> {
        let share = match purpose {
            Purpose::LessonEvents => &self.lesson_events,
            Purpose::Tasks => &self.tasks,
            Purpose::Revocations => &self.revocations,
        };
        let mut now = counts(share);
        if now.all >= limits.waiting {
            return Err(Full::Purpose);
        }
        // All workers of an installation may have one key, and all edges have one.
        let of_key = now.by_key.get(key).copied().unwrap_or(0);
        if purpose == Purpose::LessonEvents && of_key >= limits.waiting_per_key {
            return Err(Full::Key { limit: limits.waiting_per_key });
        }
        now.all += 1;
        now.by_key.insert(key.to_owned(), of_key + 1);
        Ok(Place { share: Arc::clone(share), key: key.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = counts(&self.share);
        now.all = now.all.saturating_sub(1);
        match now.by_key.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(now.by_key.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_and_each_key_has_its_share() {
        let limits = Api { waiting: 3, waiting_per_key: 2, ..Api::default() };
        let waiting = Waiting::default();
        let enter = |purpose, key| waiting.enter(purpose, key, &limits);
        let mut ada: Vec<_> = (0..2).map(|_| enter(Purpose::LessonEvents, "ada").unwrap()).collect();
        assert_eq!(enter(Purpose::LessonEvents, "ada").unwrap_err(), Full::Key { limit: 2 });
        let _bob = enter(Purpose::LessonEvents, "bob").unwrap();
        assert_eq!(enter(Purpose::LessonEvents, "eve").unwrap_err(), Full::Purpose);
        let workers: Vec<_> = (0..3).map(|_| enter(Purpose::Tasks, "worker").unwrap()).collect();
        assert_eq!(enter(Purpose::Tasks, "worker").unwrap_err(), Full::Purpose);
        let _edge = enter(Purpose::Revocations, "").unwrap();
        ada.pop();
        assert!(enter(Purpose::LessonEvents, "ada").is_ok());
        drop((ada, workers));
        assert_eq!(counts(&waiting.tasks).all, 0);
        assert!(counts(&waiting.tasks).by_key.is_empty(), "keys that wait for nothing are forgotten");
    }
}
