//! The crate as a whole. The fixtures are here.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use super::*;
use lyceum_http::path::CleanPath;

mod cdni;
mod keys;
mod verification;

const NOW: i64 = 1_800_000_000;
const PATH: &str = "/v/lesson1/1/v720/00000-0.m4s";

fn claims() -> Claims {
    Claims {
        sub: "user".into(),
        exp: NOW + 600,
        iat: Some(NOW),
        jti: Some("session1".into()),
        paths: vec!["/v/lesson1/".into()],
        ..Claims::default()
    }
}

fn signer(dir: &Path) -> Signer {
    Signer::open(dir, "lyceum", "lyceum-edge").unwrap()
}

fn verifier_of(sets: Vec<(&str, Value)>, cached: usize) -> Verifier {
    let issuers = sets
        .into_iter()
        .map(|(name, jwks)| {
            let issuer = Issuer::new(name);
            issuer.replace(KeySet::parse(jwks.to_string().as_bytes(), Trust::Public).unwrap());
            issuer
        })
        .collect();
    Verifier::new(VerifierConfig {
        audience: "lyceum-edge".into(),
        issuers,
        max_cached_tokens: cached,
        max_revoked_sessions: 100,
        require_session: false,
        renewer: None,
        claim_keys: Vec::new(),
    })
}

fn verifier_with(signer: &Signer, renewer: Option<Renewer>, claim_keys: Vec<ClaimKey>) -> Verifier {
    let trusted = Issuer::new("lyceum");
    trusted.replace(KeySet::parse(signer.jwks().to_string().as_bytes(), Trust::Public).unwrap());
    let mut issuers = vec![trusted];
    if let Some(renewer) = &renewer {
        let own = Issuer::new(renewer.issuer());
        own.replace(renewer.keys().unwrap());
        issuers.push(own);
    }
    Verifier::new(VerifierConfig {
        audience: "lyceum-edge".into(),
        issuers,
        max_cached_tokens: 100,
        max_revoked_sessions: 100,
        require_session: false,
        renewer,
        claim_keys,
    })
}

fn verifier(signer: &Signer) -> Verifier {
    verifier_of(vec![("lyceum", signer.jwks())], 1000)
}

fn facts(path: &str, now: i64) -> Facts<'_> {
    Facts { path: Some(CleanPath::check(path).unwrap()), now, ..Facts::default() }
}

fn code(verifier: &Verifier, token: &str) -> &'static str {
    // Twice, so that the cached token is judged the same.
    let first = verifier.verify(token, &facts(PATH, NOW)).map_or_else(Denied::code, |_| "granted");
    assert_eq!(verifier.verify(token, &facts(PATH, NOW)).map_or_else(Denied::code, |_| "granted"), first);
    first
}

/// A token with any header and payload, signed with the key of `dir` as `alg`.
fn forge(dir: &Path, header: &Value, payload: &Value) -> String {
    let key = &key_files::PrivateKey::load_all(dir).unwrap()[0];
    let signed = format!("{}.{}", B64.encode(header.to_string()), B64.encode(payload.to_string()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key.encoding, key.algorithm.for_library()).unwrap();
    format!("{signed}.{signature}")
}

fn payload(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Value {
    let mut map = claims().payload("lyceum", "lyceum-edge");
    change(&mut map);
    Value::Object(map)
}
