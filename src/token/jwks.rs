//! Verifying keys: a JWK or a JWK Set (RFC 7517, RFC 8037), read strictly and within limits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::key_error::KeyError;
use crate::strict_json::StrictMap;

/// The largest key document, in bytes.
pub(super) const MAX_DOCUMENT_BYTES: usize = 64 << 10;

/// The most keys of one issuer.
const MAX_KEYS: usize = 64;

/// The longest `kid` that is read from a document, in bytes.
const MAX_KID_BYTES: usize = 256;

/// Which keys are accepted from a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Public keys alone: for documents from the network.
    Public,
    /// Shared secrets too (`kty` `oct`, HS256): for a local file of an issuer that is configured for it.
    Symmetric,
}

/// A key that verifies the tokens of one issuer.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    material: Vec<u8>,
    withdrawn: AtomicBool,
}

impl VerifyingKey {
    /// Whether it is no longer among its issuer's keys; its tokens are denied.
    #[inline]
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    fn same(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && self.material == other.material
    }
}

/// The keys of one issuer by `kid`.
#[derive(Debug, Default)]
pub struct KeySet {
    pub(super) by_kid: HashMap<String, Arc<VerifyingKey>>,
}

impl KeySet {
    /// Reads a JWK Set or a single JWK. Keys of unknown types are ignored (RFC 7517, section 5). A document without a usable
    /// key is an error, so that it never replaces one that works.
    pub fn parse(document: &[u8], trust: Trust) -> Result<Self, KeyError> {
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(KeyError::Malformed("the key document is larger than 64 KiB".into()));
        }
        let StrictMap(document) = serde_json::from_slice(document)
            .map_err(|e| KeyError::Malformed(format!("the key document is not a JSON object: {e}")))?;
        let mut set = Self::default();
        match document.get("keys") {
            Some(Value::Array(keys)) => {
                for key in keys {
                    let Value::Object(key) = key else {
                        return Err(KeyError::Malformed("a member of `keys` is not an object".into()));
                    };
                    set.add(key, trust)?;
                }
            }
            Some(_) => return Err(KeyError::Malformed("`keys` is not a list".into())),
            None => set.add(&document, trust)?,
        }
        if set.by_kid.is_empty() {
            return Err(KeyError::Unsupported("the key document has no key for EdDSA or ES256 with a kid".into()));
        }
        Ok(set)
    }

    /// Adds the keys of `other`.
    pub fn join(&mut self, other: Self) -> Result<(), KeyError> {
        for (kid, key) in other.by_kid {
            self.insert(kid, key)?;
        }
        Ok(())
    }

    /// The kids, for logs.
    pub fn kids(&self) -> Vec<&str> {
        let mut kids: Vec<&str> = self.by_kid.keys().map(String::as_str).collect();
        kids.sort_unstable();
        kids
    }

    fn add(&mut self, jwk: &Map<String, Value>, trust: Trust) -> Result<(), KeyError> {
        let Some(kid) = member(jwk, "kid")?.filter(|kid| !kid.is_empty()) else {
            return Ok(());
        };
        if kid.len() > MAX_KID_BYTES {
            return Err(KeyError::Malformed("a kid is longer than 256 bytes".into()));
        }
        if let Some(key) = read_key(jwk, trust)? {
            self.insert(kid.to_owned(), Arc::new(key))?;
        }
        Ok(())
    }

    fn insert(&mut self, kid: String, key: Arc<VerifyingKey>) -> Result<(), KeyError> {
        match self.by_kid.get(&kid) {
            Some(present) if present.same(&key) => Ok(()),
            Some(_) => Err(KeyError::Malformed(format!("two different keys have the kid \"{kid}\""))),
            None if self.by_kid.len() == MAX_KEYS => {
                Err(KeyError::Unsupported(format!("an issuer has more than {MAX_KEYS} keys")))
            }
            None => {
                self.by_kid.insert(kid, key);
                Ok(())
            }
        }
    }

    /// This set in the place of `former`: keys that are in both stay the same objects, keys that are gone are marked as
    /// withdrawn.
    pub(super) fn replacing(mut self, former: &Self) -> Self {
        for (kid, old) in &former.by_kid {
            match self.by_kid.get_mut(kid) {
                Some(new) if new.same(old) && !old.is_withdrawn() => *new = old.clone(),
                _ => old.withdrawn.store(true, Ordering::Release),
            }
        }
        self
    }
}

fn member<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, KeyError> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyError::Malformed(format!("a key's `{name}` is not a string"))),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, KeyError> {
    let text = member(jwk, name)?.ok_or_else(|| KeyError::Malformed(format!("a key has no `{name}`")))?;
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| KeyError::Malformed(format!("a key's `{name}` is not unpadded base64url")))?;
    if bytes.len() != length && length != 0 {
        return Err(KeyError::Malformed(format!("a key's `{name}` has {} bytes instead of {length}", bytes.len())));
    }
    Ok(bytes)
}

/// Reads one JWK; none where its type is unknown or it is for another use.
fn read_key(jwk: &Map<String, Value>, trust: Trust) -> Result<Option<VerifyingKey>, KeyError> {
    let kind = (member(jwk, "kty")?, member(jwk, "crv")?);
    let algorithm = match kind {
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("oct"), _) if trust == Trust::Symmetric => Algorithm::Hs256,
        _ => return Ok(None),
    };
    if member(jwk, "use")?.is_some_and(|u| u != "sig") {
        return Ok(None);
    }
    // RFC 9864 calls Ed25519 what RFC 8037 calls EdDSA.
    let fits = |alg: &str| alg == algorithm.name() || (algorithm == Algorithm::EdDsa && alg == "Ed25519");
    if member(jwk, "alg")?.is_some_and(|alg| !fits(alg)) {
        return Ok(None);
    }
    if jwk.contains_key("d") {
        return Err(KeyError::Unsupported("the key document holds a private key: it has to be replaced".into()));
    }
    let wrong_point = |_| KeyError::Malformed("a key is not a point of its curve".into());
    let (material, decoding) = match algorithm {
        Algorithm::EdDsa => {
            let x = bytes(jwk, "x", 32)?;
            ParsedPublicKey::new(&ED25519, &x).map_err(wrong_point)?;
            let decoding = DecodingKey::from_ed_der(&x);
            (x, decoding)
        }
        Algorithm::Es256 => {
            let mut point = vec![4];
            point.extend(bytes(jwk, "x", 32)?);
            point.extend(bytes(jwk, "y", 32)?);
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).map_err(wrong_point)?;
            let decoding = DecodingKey::from_ec_der(&point);
            (point, decoding)
        }
        Algorithm::Hs256 => {
            let secret = bytes(jwk, "k", 0)?;
            if secret.len() < 32 {
                return Err(KeyError::Unsupported("a shared secret has fewer than 32 bytes".into()));
            }
            let decoding = DecodingKey::from_secret(&secret);
            (secret, decoding)
        }
    };
    Ok(Some(VerifyingKey { algorithm, decoding, material, withdrawn: AtomicBool::new(false) }))
}
