//! The API key of the workers that an origin starts itself: made at each start, and kept in memory alone.

use lyceum_catalog as catalog;

/// The key of the origin's own workers.
pub(crate) struct WorkerKey {
    secret: String,
    hash: [u8; 32],
}

impl WorkerKey {
    /// Makes a key at random.
    pub(crate) fn random() -> Self {
        let secret = catalog::new_secret("lyw");
        Self { hash: catalog::hash_secret(&secret), secret }
    }

    /// The secret itself, which is handed to the workers.
    pub(crate) fn expose(&self) -> &str {
        &self.secret
    }

    /// Whether a secret with this hash is the key. Takes the same time for each.
    pub(crate) fn matches(&self, hash: &[u8; 32]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.hash, hash).is_ok()
    }
}
