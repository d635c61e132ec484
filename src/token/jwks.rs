//! Public keys: a JWK or a JWK Set (RFC 7517, RFC 8037), read strictly and boundedly.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::Algorithm;
use super::claims::StrictMap;

/// The largest key document, in bytes.
pub(super) const MAX_DOCUMENT: usize = 64 << 10;

/// The most keys of one issuer.
const MAX_KEYS: usize = 64;

/// The longest `kid` that is read from a document, in bytes.
const MAX_KID: usize = 256;

/// What is wrong with a key, a key file or a set.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or directory.
    #[error("{}: {what}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What could not be done.
        what: &'static str,
        /// Why.
        cause: std::io::Error,
    },
    /// A file's content.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: Box<KeyError>,
    },
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// It is well formed, and not taken.
    #[error("{0}")]
    Unsupported(String),
}

impl KeyError {
    pub(super) fn content(path: &Path, what: Self) -> Self {
        Self::Invalid { path: path.to_owned(), what: Box::new(what) }
    }

    pub(super) fn file(path: &Path, what: &'static str, cause: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), what, cause }
    }
}

/// Which kinds of key a document may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Public keys alone: anything from the network.
    Public,
    /// Shared secrets too (`kty` `oct`, HS256): a local file of an issuer configured for it.
    Symmetric,
}

/// One key, good for one issuer.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    material: Vec<u8>,
    withdrawn: AtomicBool,
}

impl Key {
    /// Whether it left its issuer's set; its tokens go along.
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
    pub(super) by_kid: HashMap<String, Arc<Key>>,
}

impl KeySet {
    /// Reads a JWK Set or a single JWK. Keys of kinds that are not spoken are passed over, as RFC 7517, section 5,
    /// asks; a set without one usable key is an error, so that it never replaces one that works.
    pub fn parse(document: &[u8], trust: Trust) -> Result<Self, KeyError> {
        if document.len() > MAX_DOCUMENT {
            return Err(KeyError::Malformed("the key document is larger than 64 KiB".into()));
        }
        let StrictMap(document) = serde_json::from_slice(document)
            .map_err(|e| KeyError::Malformed(format!("the key document is no JSON object: {e}")))?;
        let mut set = Self::default();
        match document.get("keys") {
            Some(Value::Array(keys)) => {
                for key in keys {
                    let Value::Object(key) = key else {
                        return Err(KeyError::Malformed("a member of `keys` is no object".into()));
                    };
                    set.add(key, trust)?;
                }
            }
            Some(_) => return Err(KeyError::Malformed("`keys` is no list".into())),
            None => set.add(&document, trust)?,
        }
        if set.by_kid.is_empty() {
            return Err(KeyError::Unsupported("the key document has no key for EdDSA or ES256 with a kid".into()));
        }
        Ok(set)
    }

    /// Puts the keys of `other` beside these.
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
        if kid.len() > MAX_KID {
            return Err(KeyError::Malformed("a kid is longer than 256 bytes".into()));
        }
        if let Some(key) = read_key(jwk, trust)? {
            self.insert(kid.to_owned(), Arc::new(key))?;
        }
        Ok(())
    }

    fn insert(&mut self, kid: String, key: Arc<Key>) -> Result<(), KeyError> {
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

    /// Takes the place of `former`: what stayed the same stays the same object, what is gone is marked so.
    pub(super) fn succeed(mut self, former: &Self) -> Self {
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
        Some(_) => Err(KeyError::Malformed(format!("a key's `{name}` is no text"))),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, KeyError> {
    let text = member(jwk, name)?.ok_or_else(|| KeyError::Malformed(format!("a key has no `{name}`")))?;
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| KeyError::Malformed(format!("a key's `{name}` is no unpadded base64url")))?;
    if bytes.len() != length && length != 0 {
        return Err(KeyError::Malformed(format!("a key's `{name}` has {} bytes in place of {length}", bytes.len())));
    }
    Ok(bytes)
}

/// One JWK, or nothing if it is of a kind that is not spoken or for another use.
fn read_key(jwk: &Map<String, Value>, trust: Trust) -> Result<Option<Key>, KeyError> {
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
    // RFC 9864 names Ed25519 alone what RFC 8037 calls EdDSA.
    let fits = |alg: &str| alg == algorithm.name() || (algorithm == Algorithm::EdDsa && alg == "Ed25519");
    if member(jwk, "alg")?.is_some_and(|alg| !fits(alg)) {
        return Ok(None);
    }
    if jwk.contains_key("d") {
        return Err(KeyError::Unsupported("the key document holds a private key: it has to be replaced".into()));
    }
    let wrong_point = |_| KeyError::Malformed("a key is no point of its curve".into());
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
    Ok(Some(Key { algorithm, decoding, material, withdrawn: AtomicBool::new(false) }))
}
