//! Key files: `<kid>.pem` (PKCS#8, mode 600) beside `<kid>.jwk` (public, RFC 7517).

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use crate::algorithm::Algorithm;
use crate::key_error::KeyError;
use lyceum_core::ids::Id;

/// The largest private key file, in bytes.
const MAX_PEM_BYTES: u64 = 16 << 10;

/// The most key files that are read from one directory.
const MAX_KEY_FILES: usize = 64;

/// The id of a key: `kid` in a token's header, and the stem of the key's files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kid(Box<str>);

impl Kid {
    /// Accepts 1 to 64 of `[A-Za-z0-9._-]`, the first not a dot.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if (1..=64).contains(&text.len()) && plain && !text.starts_with('.') {
            Ok(Self(text.into()))
        } else {
            Err(KeyError::Malformed("a kid is 1 to 64 letters, digits, dots, dashes or underscores".into()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Generates a key pair in `out_dir`, which is created where it is missing. No reader sees a half-written file, and the
/// private one appears last.
pub fn generate(algorithm: Algorithm, out_dir: &Path) -> Result<Kid, KeyError> {
    let kid = Kid(Id::random().as_str().into());
    let refused = |_| KeyError::Malformed("the cryptographic library generated no key".into());
    let (pkcs8, public) = match algorithm {
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().map_err(refused)?;
            let public = jwk(&kid, algorithm, pair.public_key().as_ref())?;
            (pair.to_pkcs8v1().map_err(refused)?, public)
        }
        Algorithm::Es256 => {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(refused)?;
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())
                .map_err(|e| KeyError::Malformed(e.to_string()))?;
            (document, jwk(&kid, algorithm, pair.public_key().as_ref())?)
        }
        Algorithm::Hs256 => {
            return Err(KeyError::Unsupported("key files are made for EdDSA and ES256".into()));
        }
    };
    let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref()));
    std::fs::create_dir_all(out_dir).map_err(|e| KeyError::file(out_dir, "can't be made", e))?;
    let mut public = serde_json::to_vec_pretty(&public).map_err(|e| KeyError::Malformed(e.to_string()))?;
    public.push(b'\n');
    write_new(&out_dir.join(format!("{kid}.jwk")), &public, 0o644)?;
    write_new(&out_dir.join(format!("{kid}.pem")), pem.as_bytes(), 0o600)?;
    Ok(kid)
}

/// Writes under a temporary name and renames: a reader sees the whole file or none.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let failed = |e| KeyError::file(path, "can't be written", e);
    let mut staging = path.as_os_str().to_owned();
    staging.push(".part");
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&staging)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&staging, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&staging);
        failed(error)
    })
}

/// The public half as a JWK; `point` is the raw public key of the algorithm.
fn jwk(kid: &Kid, algorithm: Algorithm, point: &[u8]) -> Result<Value, KeyError> {
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (kid, alg) = (kid.as_str(), algorithm.name());
    match (algorithm, point) {
        (Algorithm::EdDsa, x) => {
            Ok(json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": alg, "kid": kid, "x": b64(x)}))
        }
        // An uncompressed point (SEC 1, section 2.3.3): 4, x, y.
        (Algorithm::Es256, [4, coordinates @ ..]) if coordinates.len() == 64 => {
            let (x, y) = coordinates.split_at(32);
            Ok(json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": alg, "kid": kid, "x": b64(x), "y": b64(y)}))
        }
        _ => Err(KeyError::Malformed("the public key has an unexpected form".into())),
    }
}

/// A private key as read from its file.
pub(super) struct PrivateKey {
    pub(super) kid: Kid,
    pub(super) algorithm: Algorithm,
    pub(super) encoding: EncodingKey,
    pub(super) public: Value,
    pub(super) modified: SystemTime,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Reads `<kid>.pem`.
    pub(super) fn load(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |e| KeyError::file(path, "can't be read", e);
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let kid = Kid::parse(stem).map_err(|e| KeyError::content(path, e))?;
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        let modified = file.metadata().and_then(|m| m.modified()).map_err(unreadable)?;
        file.take(MAX_PEM_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        let wrong = |what: &str| KeyError::content(path, KeyError::Malformed(what.into()));
        let pem = pem::parse(&text).map_err(|_| wrong("it is not a PEM file"))?;
        if pem.tag() != "PRIVATE KEY" {
            return Err(wrong("it is not a PKCS#8 private key (\"BEGIN PRIVATE KEY\")"));
        }
        let der = pem.contents();
        let (algorithm, encoding, public) = if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let public = jwk(&kid, Algorithm::EdDsa, pair.public_key().as_ref())?;
            (Algorithm::EdDsa, EncodingKey::from_ed_der(der), public)
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            let public = jwk(&kid, Algorithm::Es256, pair.public_key().as_ref())?;
            (Algorithm::Es256, EncodingKey::from_ec_der(der), public)
        } else {
            return Err(wrong("the key is neither Ed25519 nor ECDSA on P-256"));
        };
        Ok(Self { kid, algorithm, encoding, public, modified })
    }

    /// Reads every `*.pem` of a directory, the newest first (by modification time, then by name).
    pub(super) fn load_all(dir: &Path) -> Result<Vec<Self>, KeyError> {
        let unreadable = |e| KeyError::file(dir, "can't be read", e);
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|e| e == "pem") {
                if keys.len() == MAX_KEY_FILES {
                    return Err(KeyError::Unsupported(format!("{}: more than {MAX_KEY_FILES} keys", dir.display())));
                }
                keys.push(Self::load(&path)?);
            }
        }
        keys.sort_by(|a: &Self, b| b.modified.cmp(&a.modified).then_with(|| b.kid.cmp(&a.kid)));
        Ok(keys)
    }
}
