//! Encrypted claims for unit tests.

use aws_lc_rs::aead::{Aad, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::jwe::ClaimKey;

/// A key that decrypts claims, `kid` `c`, of 16 or 32 bytes.
pub(super) fn claim_key(bytes: usize) -> ClaimKey {
    let jwk = json!({ "kty": "oct", "kid": "c", "k": URL_SAFE_NO_PAD.encode(vec![7; bytes]) });
    ClaimKey::parse(jwk.to_string().as_bytes()).unwrap()
}

/// `text` as a JWE with this header.
pub(super) fn encrypt(key: &ClaimKey, header: &Value, text: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let mut sealed = text.as_bytes().to_vec();
    let nonce = Nonce::assume_unique_for_key([3; 12]);
    key.key.seal_in_place_append_tag(nonce, Aad::from(header.as_bytes()), &mut sealed).unwrap();
    let (text, tag) = sealed.split_at(sealed.len() - 16);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{header}..{}.{}.{}", encode(&[3; 12]), encode(text), encode(tag))
}
