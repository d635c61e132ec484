//! Encrypted claims: JWE in compact serialization (RFC 7516), as RFC 9246, section 2.1.10, requires for `cdniip`.
//!
//! Supported is direct use of a shared key (`alg` `dir`; RFC 7518, section 4.5) with AES-GCM (section 5.3). Two parties who
//! share a key need no key wrapping.

use std::path::Path;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::denied::Denied;
use crate::jwks::MAX_DOCUMENT_BYTES;
use crate::key_error::KeyError;
use crate::strict_json::{self, StrictMap};

/// A claim that is still encrypted.
#[derive(Debug)]
pub(super) struct EncryptedClaim {
    header: String,
    key_id: Option<String>,
    encryption: Encryption,
    nonce: [u8; 12],
    /// Ciphertext and tag.
    sealed: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    A128Gcm,
    A256Gcm,
}

impl EncryptedClaim {
    /// Reads the five parts.
    pub(super) fn read(text: &str) -> Result<Self, Denied> {
        let parts: Vec<&str> = text.split('.').collect();
        let [header, wrapped_key, nonce, text, tag] = parts.as_slice() else { return Err(Denied::Malformed) };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed);
        let fields = strict_json::object(&decode(header)?)?;
        let field = |name: &str| fields.get(name).and_then(Value::as_str);
        if field("alg") != Some("dir") || fields.contains_key("crit") || fields.contains_key("zip") {
            return Err(Denied::UnsupportedClaim("cdniip"));
        }
        let encryption = match field("enc") {
            Some("A128GCM") => Encryption::A128Gcm,
            Some("A256GCM") => Encryption::A256Gcm,
            _ => return Err(Denied::UnsupportedClaim("cdniip")),
        };
        if !wrapped_key.is_empty() {
            return Err(Denied::Malformed);
        }
        let nonce = decode(nonce)?.try_into().map_err(|_| Denied::Malformed)?;
        let mut sealed = decode(text)?;
        let tag = decode(tag)?;
        if tag.len() != 16 {
            return Err(Denied::Malformed);
        }
        sealed.extend_from_slice(&tag);
        Ok(Self { header: (*header).to_owned(), key_id: field("kid").map(str::to_owned), encryption, nonce, sealed })
    }
}

/// A key that decrypts claims.
#[derive(Debug)]
pub struct ClaimKey {
    id: Option<String>,
    encryption: Encryption,
    pub(super) key: LessSafeKey,
}

impl ClaimKey {
    /// Reads a JWK of type `oct` with 16 or 32 bytes from a file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let bytes = std::fs::read(path).map_err(|e| KeyError::file(path, "can't be read", e))?;
        Self::parse(&bytes).map_err(|e| KeyError::content(path, e))
    }

    pub(super) fn parse(document: &[u8]) -> Result<Self, KeyError> {
        let wrong = |what: &str| KeyError::Malformed(what.to_owned());
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(wrong("the key document is larger than 64 KiB"));
        }
        let StrictMap(jwk) = serde_json::from_slice(document).map_err(|_| wrong("it is not a JWK"))?;
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        if member("kty") != Some("oct") {
            return Err(wrong("it is not a JWK with kty \"oct\""));
        }
        let bytes = member("k")
            .and_then(|k| URL_SAFE_NO_PAD.decode(k).ok())
            .ok_or_else(|| wrong("it has no `k` in base64url"))?;
        let (encryption, algorithm) = match bytes.len() {
            16 => (Encryption::A128Gcm, &AES_128_GCM),
            32 => (Encryption::A256Gcm, &AES_256_GCM),
            _ => return Err(wrong("`k` has to have 16 bytes (A128GCM) or 32 (A256GCM)")),
        };
        let key = UnboundKey::new(algorithm, &bytes).map_err(|_| wrong("`k` is not a key"))?;
        Ok(Self { id: member("kid").map(str::to_owned), encryption, key: LessSafeKey::new(key) })
    }
}

/// Decrypts `claim` with the one of `keys` that fits. Without such a key the claim is not supported here.
pub(super) fn decrypt(claim: &EncryptedClaim, keys: &[ClaimKey]) -> Result<String, Denied> {
    let fits =
        |key: &&ClaimKey| key.encryption == claim.encryption && (claim.key_id.is_none() || claim.key_id == key.id);
    let mut any = false;
    for key in keys.iter().filter(fits) {
        any = true;
        let mut text = claim.sealed.clone();
        let nonce = Nonce::assume_unique_for_key(claim.nonce);
        if let Ok(open) = key.key.open_in_place(nonce, Aad::from(claim.header.as_bytes()), &mut text) {
            return String::from_utf8(open.to_vec()).map_err(|_| Denied::Malformed);
        }
    }
    Err(if any { Denied::Malformed } else { Denied::UnsupportedClaim("cdniip") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{claim_key, encrypt};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_claim_encrypted_with_a_known_key_is_decrypted() {
        for (bytes, enc) in [(16, "A128GCM"), (32, "A256GCM")] {
            let sealed = encrypt(&claim_key(bytes), &json!({ "alg": "dir", "enc": enc, "kid": "c" }), "192.0.2.0/24");
            let read = EncryptedClaim::read(&sealed).unwrap();
            assert_eq!(decrypt(&read, &[claim_key(48 - bytes), claim_key(bytes)]).unwrap(), "192.0.2.0/24");
            assert_eq!(decrypt(&read, &[]), Err(Denied::UnsupportedClaim("cdniip")));
            let mut changed = EncryptedClaim::read(&sealed).unwrap();
            changed.sealed[0] ^= 1;
            assert_eq!(decrypt(&changed, &[claim_key(bytes)]), Err(Denied::Malformed));
        }
        let other = encrypt(&claim_key(32), &json!({ "alg": "dir", "enc": "A256GCM", "kid": "other" }), "192.0.2.1");
        assert_eq!(
            decrypt(&EncryptedClaim::read(&other).unwrap(), &[claim_key(32)]),
            Err(Denied::UnsupportedClaim("cdniip"))
        );
        let wrapped = encrypt(&claim_key(32), &json!({ "alg": "RSA-OAEP", "enc": "A256GCM" }), "192.0.2.1");
        assert_eq!(EncryptedClaim::read(&wrapped).unwrap_err(), Denied::UnsupportedClaim("cdniip"));
        assert!(ClaimKey::parse(br#"{"kty":"oct","k":"AAAA"}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[A-Za-z0-9_.-]{0,60}") {
            if let Ok(sealed) = EncryptedClaim::read(&text) {
                let _ = decrypt(&sealed, &[claim_key(16), claim_key(32)]);
            }
        }
    }
}
