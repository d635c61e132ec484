//! The keys that sign tokens, and their rotation. A new key in the directory is published at once, but signs only after
//! `tokens.announce`, when every edge has had time to fetch it. Older keys are published for as long as their files exist.
//! So no valid token is refused because of a rotation.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use lyceum_core::time::{Instant, monotonic};
use lyceum_token::{KeyError, Signer};

use crate::config::Tokens;

/// The keys in force.
pub(crate) struct SigningKeys {
    signer: ArcSwap<Signer>,
    published: ArcSwap<Value>,
    /// The newest key and when it was first seen, while it does not sign yet.
    announced: ArcSwap<Option<(String, Instant)>>,
}

fn open(tokens: &Tokens) -> Result<Signer, KeyError> {
    Signer::open(&tokens.keys, &tokens.issuer, &tokens.audience)
}

impl SigningKeys {
    pub(crate) async fn open(tokens: &Tokens) -> Result<Self, KeyError> {
        let tokens = tokens.clone();
        let signer = tokio::task::spawn_blocking(move || open(&tokens)).await;
        let signer = signer.map_err(|error| KeyError::Malformed(error.to_string()))??;
        let published = ArcSwap::from_pointee(signer.jwks());
        Ok(Self { signer: ArcSwap::from_pointee(signer), published, announced: ArcSwap::from_pointee(None) })
    }

    /// The key that signs now.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        self.signer.load_full()
    }

    /// The JWK Set.
    pub(crate) fn published(&self) -> Arc<Value> {
        self.published.load_full()
    }

    /// Reads the directory again. What can't be read leaves the keys in force as they are.
    pub(crate) async fn reload(&self, tokens: &Tokens) {
        let announce = tokens.announce.get();
        let tokens = tokens.clone();
        let fresh = match tokio::task::spawn_blocking(move || open(&tokens)).await {
            Ok(Ok(fresh)) => fresh,
            Ok(Err(error)) => return tracing::error!(%error, "the signing keys can't be read; those in force stay"),
            Err(_) => return,
        };
        self.published.store(Arc::new(fresh.jwks()));
        let kid = fresh.kid().as_str().to_owned();
        if self.signer.load().kid().as_str() == kid {
            self.announced.store(Arc::new(None));
            return;
        }
        match &**self.announced.load() {
            Some((known, since)) if *known == kid => {
                if since.elapsed() >= announce {
                    tracing::info!(kid, "a new key signs from now on");
                    self.signer.store(Arc::new(fresh));
                }
            }
            _ => {
                tracing::info!(kid, "a new key is published");
                self.announced.store(Arc::new(Some((kid, monotonic()))));
            }
        }
    }
}
