//! A token's text, and its claims as if the signature had been good.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use lyceum_fuzz::texts;
use lyceum_http::path::CleanPath;
use lyceum_token::{Facts, Issuer, KeySet, Trust, Verifier, VerifierConfig, fuzzing};

const JWK: &str =
    r#"{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let issuer = Issuer::new("lyceum");
        issuer.replace(KeySet::parse(JWK.as_bytes(), Trust::Public).expect("a key"));
        Verifier::new(VerifierConfig {
            audience: "lyceum-edge".into(),
            issuers: vec![issuer],
            max_cached_tokens: 16,
            max_revoked_sessions: 16,
            require_session: false,
            renewer: None,
            claim_keys: Vec::new(),
        })
    })
}

fuzz_target!(|data: &[u8]| {
    let Some([text, path]) = texts::<2>(data) else { return };
    fuzzing::payload(text.as_bytes(), path);
    let facts = Facts { path: CleanPath::check("/v/a/x").ok(), now: 1_800_000_000, ..Facts::default() };
    assert!(verifier().verify(text, &facts).is_err(), "nobody has the key to {text}");
    let _ = KeySet::parse(text.as_bytes(), Trust::Symmetric);
});
