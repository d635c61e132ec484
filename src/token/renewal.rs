//! Signed Token Renewal (RFC 9246, section 3): an edge renews a token while it is used, so that issuers can give tokens a
//! short lifetime.
//!
//! A renewed token has the claims of the one before it but for `iss`, `iat` and `exp`. It is signed with the edge's own
//! key under the edge's own issuer name: a key signs for its issuer alone.

use std::path::Path;

use serde_json::{Map, Value};

use crate::claims::RenewalTerms;
use crate::jwks::{KeySet, Trust};
use crate::key_error::KeyError;
use crate::signer::Signer;

/// Renews tokens.
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

    /// The issuer of renewed tokens.
    pub fn issuer(&self) -> &str {
        self.signer.issuer()
    }

    /// The public keys, which verifiers of renewed tokens need.
    pub fn keys(&self) -> Result<KeySet, KeyError> {
        KeySet::parse(self.signer.jwks().to_string().as_bytes(), Trust::Public)
    }

    /// The longest lifetime of a renewed token, in seconds.
    pub fn max_lifetime_seconds(&self) -> i64 {
        self.max_lifetime_seconds
    }

    /// A token with the claims of `former` that expires as `terms` say, counted from `now`, and its lifetime in seconds.
    /// None where it would be longer than a token may be.
    pub(super) fn renew(&self, former: &Map<String, Value>, terms: RenewalTerms, now: i64) -> Option<(String, i64)> {
        let seconds = terms.lifetime_seconds.min(self.max_lifetime_seconds);
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

/// The claims of a token that is to be renewed.
#[derive(Debug)]
pub(super) struct Renewable {
    pub(super) terms: RenewalTerms,
    pub(super) payload: Map<String, Value>,
}

/// A renewed token and the paths that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewedToken {
    /// The token.
    pub token: String,
    /// Its lifetime, in seconds.
    pub lifetime_seconds: i64,
    /// How many leading segments of the path, counted without the token, it is for; 0: every path.
    pub path_depth: usize,
}
