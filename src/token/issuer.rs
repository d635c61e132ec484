//! Issuers: who signs tokens, and with which keys.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::jwks::KeySet;

/// One party that signs tokens.
#[derive(Debug)]
pub struct Issuer {
    pub(super) name: String,
    pub(super) keys: ArcSwap<KeySet>,
}

impl Issuer {
    /// An issuer that has no keys yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), keys: ArcSwap::default() }
    }

    /// Its name: the value of `iss`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces its keys by `keys`. Tokens of keys that are gone are denied from now on.
    pub fn replace(&self, keys: KeySet) {
        let former = self.keys.load();
        self.keys.store(Arc::new(keys.replacing(&former)));
    }

    /// How many keys it has.
    pub fn key_count(&self) -> usize {
        self.keys.load().by_kid.len()
    }
}
