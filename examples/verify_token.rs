//! Signs a playback token and verifies it, as a shop's backend or another edge would with `lyceum-token` alone.
//!
//! `cargo run --example verify_token`

use std::error::Error;

use lyceum_core::time::Clock;
use lyceum_http::path::CleanPath;
use lyceum_token::{Claims, Denied, Facts, Issuer, KeySet, Signer, Trust, Verifier, VerifierConfig};

fn main() -> Result<(), Box<dyn Error>> {
    // The origin's side: a directory of signing keys, whose first key is made here.
    let keys = std::env::temp_dir().join(format!("lyceum-example-keys-{}", std::process::id()));
    let signer = Signer::open(&keys, "lyceum", "lyceum-edge")?;
    let now = Clock::system().unix_seconds();
    let claims = Claims {
        sub: "ada".to_owned(),
        exp: now + 3600,
        paths: vec!["/v/lesson1/".to_owned()],
        max_height: Some(480),
        ..Claims::default()
    };
    let token = signer.sign(&claims)?;
    println!("token of {} characters", token.len());

    // The edge's side: it knows the public keys alone, as /.well-known/jwks.json gives them.
    let issuer = Issuer::new("lyceum");
    issuer.replace(KeySet::parse(signer.jwks().to_string().as_bytes(), Trust::Public)?);
    let verifier = Verifier::new(VerifierConfig {
        audience: "lyceum-edge".to_owned(),
        issuers: vec![issuer],
        max_cached_tokens: 1_000,
        max_revoked_sessions: 1_000,
        require_session: false,
        renewer: None,
        claim_keys: Vec::new(),
    });
    for path in ["/v/lesson1/1/v360/00001-0.m4s", "/v/lesson1/1/v720/00001-0.m4s", "/v/lesson2/master.m3u8"] {
        let facts = Facts { path: Some(CleanPath::check(path)?), now, ..Facts::default() };
        match verifier.verify(&token, &facts) {
            Ok(_) => println!("{path}: opened"),
            Err(denied) => println!("{path}: {}", denied.code()),
        }
    }
    let late = Facts { path: Some(CleanPath::check("/v/lesson1/master.m3u8")?), now: now + 7200, ..Facts::default() };
    assert_eq!(verifier.verify(&token, &late).err(), Some(Denied::Expired));
    println!("two hours later: {}", Denied::Expired.code());
    std::fs::remove_dir_all(&keys)?;
    Ok(())
}
