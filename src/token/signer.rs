//! Signing: the newest key of a directory signs; the public halves of all are published.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
use crate::claims::Claims;
use crate::jws::MAX_TOKEN_BYTES;
use crate::key_error::KeyError;
use crate::key_files::{Kid, PrivateKey, generate};

/// Signs tokens of one issuer for one audience.
#[derive(Debug)]
pub struct Signer {
    issuer: String,
    audience: String,
    current: PrivateKey,
    /// The public halves of the other keys.
    older: Vec<Value>,
}

impl Signer {
    /// Reads the keys of `dir`. Where it has none, an EdDSA key is generated; a lock file keeps two processes that start at
    /// the same time from generating two.
    pub fn open(dir: &Path, issuer: &str, audience: &str) -> Result<Self, KeyError> {
        std::fs::create_dir_all(dir).map_err(|e| KeyError::file(dir, "can't be made", e))?;
        let mut keys = PrivateKey::load_all(dir)?;
        if keys.is_empty() {
            let lock_path = dir.join(".lock");
            let failed = |e| KeyError::file(&lock_path, "can't be locked", e);
            let lock = std::fs::File::create(&lock_path).map_err(failed)?;
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
            keys = PrivateKey::load_all(dir)?;
            if keys.is_empty() {
                generate(Algorithm::EdDsa, dir)?;
                keys = PrivateKey::load_all(dir)?;
            }
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or_else(|| KeyError::Malformed(format!("{}: no key", dir.display())))?;
        let older = keys.map(|key| key.public).collect();
        Ok(Self { issuer: issuer.into(), audience: audience.into(), current, older })
    }

    /// Signs with the key file `path`, named `<kid>.pem`.
    pub fn from_key_file(path: &Path, issuer: &str, audience: &str) -> Result<Self, KeyError> {
        let current = PrivateKey::load(path)?;
        Ok(Self { issuer: issuer.into(), audience: audience.into(), current, older: Vec::new() })
    }

    /// The name of the signing key.
    pub fn kid(&self) -> &Kid {
        &self.current.kid
    }

    /// The issuer.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token with `claims`, `iss` and `aud`.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`] when it would be longer than [`MAX_TOKEN_BYTES`]: edges would deny it.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        self.encode(&claims.payload(&self.issuer, &self.audience))
    }

    /// A token with `payload`, whose `iss` and `aud` are replaced.
    pub(super) fn sign_payload(&self, mut payload: Map<String, Value>) -> Result<String, KeyError> {
        payload.insert("iss".to_owned(), self.issuer.as_str().into());
        payload.insert("aud".to_owned(), self.audience.as_str().into());
        self.encode(&payload)
    }

    fn encode(&self, payload: &Map<String, Value>) -> Result<String, KeyError> {
        let header = jsonwebtoken::Header {
            kid: Some(self.current.kid.as_str().to_owned()),
            ..jsonwebtoken::Header::new(self.current.algorithm.for_library())
        };
        let token = jsonwebtoken::encode(&header, payload, &self.current.encoding)
            .map_err(|e| KeyError::Malformed(e.to_string()))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(KeyError::Unsupported(format!(
                "the token has {} bytes; at most 4096 are allowed",
                token.len()
            )));
        }
        Ok(token)
    }

    /// The public keys as a JWK Set (RFC 7517, section 5), the signing one first.
    pub fn jwks(&self) -> Value {
        let keys: Vec<&Value> = std::iter::once(&self.current.public).chain(&self.older).collect();
        json!({ "keys": keys })
    }
}
