//! Signed Token Renewal (RFC 9246, section 3): an edge signs a token anew while it is used, so that an issuer can give
//! short ones.
//!
//! A renewed token says what the one before it said, but for who signed it, when, and its end. It is signed with the
//! edge's own key under the edge's own issuer: a key signs for its issuer alone.

use std::path::Path;

use serde_json::{Map, Value};

use super::claims::RenewalTerms;
use super::{KeyError, KeySet, Signer, Trust};

/// What renews tokens.
#[derive(Debug)]
pub struct Renewer {
    signer: Signer,
    max_lifetime_seconds: i64,
}

impl Renewer {
    /// Signs with the key file `<kid>.pem` as `issuer`; no renewed token lives longer than `max_lifetime_seconds`.
    pub fn open(key: &Path, issuer: &str, audience: &str, max_lifetime_seconds: i64) -> Result<Self, KeyError> {
        Ok(Self { signer: Signer::from_key_file(key, issuer, audience)?, max_lifetime_seconds })
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        self.signer.issuer()
    }

    /// The public keys, which verifiers of renewed tokens need.
    pub fn keys(&self) -> Result<KeySet, KeyError> {
        KeySet::parse(self.signer.jwks().to_string().as_bytes(), Trust::Public)
    }

    /// The longest life of a renewed token, in seconds.
    pub fn max_lifetime_seconds(&self) -> i64 {
        self.max_lifetime_seconds
    }

    /// A token with the claims of `former` that ends as `terms` say, counted from `now`, and its life in seconds.
    /// Nothing where it would be too long to be taken.
    pub(super) fn renew(&self, former: &Map<String, Value>, terms: RenewalTerms, now: i64) -> Option<(String, i64)> {
        let seconds = terms.seconds.min(self.max_lifetime_seconds);
        let mut payload = former.clone();
        payload.insert("exp".to_owned(), now.saturating_add(seconds).into());
        payload.insert("iat".to_owned(), now.into());
        match self.signer.sign_payload(payload) {
            Ok(token) => Some((token, seconds)),
            Err(error) => {
                tracing::warn!(%error, "a token can't be renewed");
                None
            }
        }
    }
}

/// A token's claims, kept for the one that follows it.
#[derive(Debug)]
pub(super) struct Renewable {
    pub(super) terms: RenewalTerms,
    pub(super) payload: Map<String, Value>,
}

/// A renewed token and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewedToken {
    /// The token.
    pub token: String,
    /// For how many seconds it is good.
    pub lifetime_seconds: i64,
    /// The first segments of the path, without the token, that it is for; none: every path.
    pub path_depth: usize,
}
