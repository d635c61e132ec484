//! Key files, key documents and signing.

use super::*;

#[test]
fn key_files_are_private_complete_and_readable() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let out = dir.path().join(algorithm.name());
        let kid = key_files::generate(algorithm, &out).unwrap();
        let private = out.join(format!("{kid}.pem"));
        assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        let public: Value = serde_json::from_slice(&std::fs::read(out.join(format!("{kid}.jwk"))).unwrap()).unwrap();
        assert_eq!(public["alg"], algorithm.name());
        assert!(public.get("d").is_none());
        let signer = Signer::from_key_file(&private, "lyceum", "lyceum-edge").unwrap();
        assert_eq!(signer.jwks()["keys"][0], public);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2, "nothing else is left behind");
        assert_eq!(code(&verifier(&signer), &signer.sign(&claims()).unwrap()), "granted");
    }
}

#[test]
fn processes_that_start_at_once_generate_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let kids: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| signer(dir.path()).kid().to_string())).collect();
        starts.into_iter().map(|s| s.join().unwrap()).collect()
    });
    assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    assert_eq!(signer(dir.path()).jwks()["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn the_newest_key_signs_and_all_are_published() {
    let dir = tempfile::tempdir().unwrap();
    let first = signer(dir.path());
    let kid = key_files::generate(Algorithm::Es256, dir.path()).unwrap();
    // The newest by its file's time, however coarse the file system's clock.
    let later = std::fs::metadata(dir.path().join(format!("{}.pem", first.kid()))).unwrap().modified().unwrap();
    let newer = std::fs::File::options().append(true).open(dir.path().join(format!("{kid}.pem"))).unwrap();
    newer.set_modified(later + std::time::Duration::from_secs(1)).unwrap();
    let second = signer(dir.path());
    assert_eq!(second.kid(), &kid);
    assert_eq!(second.jwks()["keys"].as_array().unwrap().len(), 2);
    let verifier = verifier(&second);
    assert_eq!(code(&verifier, &first.sign(&claims()).unwrap()), "granted");
    assert_eq!(code(&verifier, &second.sign(&claims()).unwrap()), "granted");
}

#[test]
fn key_documents_are_read_strictly() {
    let dir = tempfile::tempdir().unwrap();
    let jwks = signer(dir.path()).jwks();
    let key = jwks["keys"][0].clone();
    let parse = |v: &Value| KeySet::parse(v.to_string().as_bytes(), Trust::Public);
    let changed = |name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    assert_eq!(parse(&key).unwrap().kids().len(), 1, "a single JWK");
    let rsa = json!({"kty": "RSA", "kid": "r", "n": "x", "e": "AQAB"});
    assert_eq!(parse(&json!({"keys": [rsa, key]})).unwrap().kids().len(), 1, "unknown types are ignored");
    for bad in [
        json!({"keys": []}),
        json!({"keys": [rsa]}),
        json!({"keys": {}}),
        json!({"keys": [7]}),
        json!([key]),
        changed("x", json!("AAAA")),
        changed("x", json!("not base64!")),
        changed("d", json!("secret")),
        changed("use", json!("enc")),
        changed("alg", json!("ES256")),
        changed("kid", json!("")),
        json!({"keys": [key, changed("x", json!(B64.encode([1_u8; 32])))]}),
        json!({"kty": "oct", "kid": "s", "k": B64.encode([7_u8; 32])}),
        json!({"kty": "EC", "crv": "P-256", "kid": "e", "x": B64.encode([1_u8; 32]), "y": B64.encode([1_u8; 32])}),
    ] {
        assert!(parse(&bad).is_err(), "{bad}");
    }
    assert!(KeySet::parse(&vec![b' '; 70_000], Trust::Public).is_err());
}

#[test]
fn shared_secrets_are_accepted_only_from_trusted_documents() {
    let secret = [7_u8; 32];
    let jwk = json!({"kty": "oct", "alg": "HS256", "kid": "s", "k": B64.encode(secret)});
    let issuer = Issuer::new("lyceum");
    issuer.replace(KeySet::parse(jwk.to_string().as_bytes(), Trust::Symmetric).unwrap());
    let verifier = Verifier::new(VerifierConfig {
        audience: "lyceum-edge".into(),
        issuers: vec![issuer],
        max_cached_tokens: 1,
        max_revoked_sessions: 1,
        require_session: true,
        renewer: None,
        claim_keys: Vec::new(),
    });
    let header = jsonwebtoken::Header { kid: Some("s".into()), ..jsonwebtoken::Header::default() };
    let key = jsonwebtoken::EncodingKey::from_secret(&secret);
    let token = jsonwebtoken::encode(&header, &payload(|_| {}), &key).unwrap();
    assert_eq!(code(&verifier, &token), "granted");
    let token = jsonwebtoken::encode(&header, &payload(|map| drop(map.remove("jti"))), &key).unwrap();
    assert_eq!(code(&verifier, &token), "token_malformed", "a session is required here");
}

#[test]
fn a_token_too_long_for_the_edge_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = claims();
    long.extra.insert("x".into(), "y".repeat(MAX_TOKEN_BYTES).into());
    assert!(matches!(signer(dir.path()).sign(&long), Err(KeyError::Unsupported(_))));
}

#[test]
fn extra_claims_never_replace_registered_ones() {
    let mut sneaky = claims();
    sneaky.extra.insert("exp".into(), (NOW * 2).into());
    sneaky.extra.insert("iss".into(), "other".into());
    sneaky.extra.insert("course".into(), "c1".into());
    let payload = sneaky.payload("lyceum", "lyceum-edge");
    assert_eq!((&payload["exp"], &payload["iss"]), (&json!(NOW + 600), &json!("lyceum")));
    assert_eq!(payload["course"], "c1");
}
