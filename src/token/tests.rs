//! The token as a whole: key files, signing, every refusal.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use lyceum_http::path::CleanPath;

mod cdni;

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
    // Asked twice, so that what is remembered says the same.
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

#[test]
fn key_files_are_private_whole_and_read_back() {
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
fn two_that_start_at_once_make_one_key() {
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
    // The newest by its file's time, whatever the grain of the file system's clock.
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

#[test]
fn a_good_token_grants_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer(dir.path());
    let token = signer.sign(&Claims { max_height: Some(720), preview: Some(60.5), ..claims() }).unwrap();
    let verifier = verifier(&signer);
    let grant = verifier.verify(&token, &facts(PATH, NOW)).unwrap();
    assert_eq!((grant.session(), grant.user()), (Some("session1"), Some("user")));
    assert_eq!((grant.max_height(), grant.preview_ms(), grant.expires()), (Some(720), Some(60_500), NOW + 600));
    let refused = |path: &str| verifier.verify(&token, &facts(path, NOW)).unwrap_err().code();
    assert_eq!(refused("/v/lesson1/1/v1080/00000-0.m4s"), "token_out_of_scope");
    assert_eq!(refused("/v/lesson1/1/v720/00099-60500.m4s"), "token_out_of_scope");
    assert_eq!(refused("/v/lesson10/1/v720/00000-0.m4s"), "token_out_of_scope");
    assert_eq!(refused("/v/lesson2/master.m3u8"), "token_out_of_scope");
}

#[test]
fn each_fault_has_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer(dir.path());
    let verifier = verifier(&signer);
    let kid = signer.kid().as_str();
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
    let with = |name: &'static str, value: Value| {
        forge(dir.path(), &header, &payload(|map| drop(map.insert(name.into(), value))))
    };
    let without = |name: &'static str| forge(dir.path(), &header, &payload(|map| drop(map.remove(name))));
    let headed = |header: Value| forge(dir.path(), &header, &payload(|_| {}));
    let good = signer.sign(&claims()).unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let none = format!("{}.{}.", B64.encode(r#"{"alg":"none"}"#), B64.encode(payload(|_| {}).to_string()));
    let other = tempfile::tempdir().unwrap();
    let stranger = Signer::open(other.path(), "lyceum", "lyceum-edge").unwrap();
    let doubled = {
        let text = payload(|_| {}).to_string().replacen('{', "{\"exp\":9999999999,", 1);
        let signed = format!("{}.{}", B64.encode(header.to_string()), B64.encode(text));
        let key = &key_files::PrivateKey::load_all(dir.path()).unwrap()[0];
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &key.encoding, jsonwebtoken::Algorithm::EdDSA).unwrap();
        format!("{signed}.{signature}")
    };
    let cases: Vec<(&str, String)> = vec![
        ("granted", good.clone()),
        ("granted", with("aud", json!(["x", "lyceum-edge"]))),
        ("granted", with("exp", json!(NOW as f64 + 0.5))),
        ("granted", with("exp", json!(NOW - CLOCK_SKEW_SECONDS + 1))),
        ("granted", with("nbf", json!(NOW + CLOCK_SKEW_SECONDS))),
        ("granted", with("cdniv", json!(1))),
        ("granted", with("unknown", json!({"is": "ignored"}))),
        ("token_malformed", String::new()),
        ("token_malformed", "a.b".into()),
        ("token_malformed", "a.b.c.d".into()),
        ("token_bad_signature", format!("{good}=")),
        ("token_bad_signature", format!("{signed}.***")),
        ("token_bad_signature", good.replacen('.', ".e", 1)),
        ("token_malformed", none),
        ("token_malformed", format!("{good}{}", "a".repeat(MAX_TOKEN_BYTES))),
        ("token_malformed", without("exp")),
        ("token_malformed", with("exp", json!("soon"))),
        ("token_malformed", with("exp", json!(1e300))),
        ("token_malformed", with("aud", json!(7))),
        ("token_malformed", with("jti", json!(7))),
        ("token_malformed", with("jti", json!(""))),
        ("token_malformed", with("paths", json!("/v/lesson1/"))),
        ("token_malformed", with("paths", json!(["v/lesson1/"]))),
        ("token_malformed", with("max_height", json!(-1))),
        ("token_malformed", with("max_height", json!("720"))),
        ("token_malformed", with("preview", json!(-1))),
        ("token_malformed", doubled),
        ("token_malformed", headed(json!({"alg": "EdDSA", "kid": 7}))),
        ("token_bad_signature", format!("{signed}.{}", signature.chars().rev().collect::<String>())),
        ("token_bad_signature", headed(json!({"alg": "ES256", "kid": kid}))),
        ("token_bad_signature", headed(json!({"alg": "HS256", "kid": kid}))),
        ("token_bad_signature", headed(json!({"alg": "none", "kid": kid}))),
        ("token_unknown_key", stranger.sign(&claims()).unwrap()),
        ("token_unknown_key", headed(json!({"alg": "EdDSA"}))),
        ("token_expired", with("exp", json!(NOW - CLOCK_SKEW_SECONDS))),
        ("token_not_yet_valid", with("nbf", json!(NOW + CLOCK_SKEW_SECONDS + 1))),
        ("token_wrong_issuer", with("iss", json!("other"))),
        ("token_wrong_issuer", without("iss")),
        ("token_wrong_audience", with("aud", json!("other"))),
        ("token_wrong_audience", with("aud", json!([]))),
        ("token_wrong_audience", without("aud")),
        ("token_unsupported_claim", with("cdniv", json!(2))),
        ("token_unsupported_claim", with("cdnicrit", json!("x"))),
        ("token_malformed", with("cdniip", json!("x"))),
        ("token_unsupported_claim", headed(json!({"alg": "EdDSA", "kid": kid, "crit": ["x"]}))),
        ("token_out_of_scope", without("paths")),
        ("token_out_of_scope", with("paths", json!(["/v/lesson2/"]))),
        ("token_out_of_scope", with("paths", json!(["/v/lesson"]))),
    ];
    for (expected, token) in cases {
        assert_eq!(code(&verifier, &token), expected, "{token}");
    }
}

#[test]
fn a_key_signs_for_its_issuer_alone() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let signer_a = Signer::open(a.path(), "a", "lyceum-edge").unwrap();
    let signer_b = Signer::open(b.path(), "b", "lyceum-edge").unwrap();
    let verifier = verifier_of(vec![("a", signer_a.jwks()), ("b", signer_b.jwks())], 10);
    assert_eq!(code(&verifier, &signer_a.sign(&claims()).unwrap()), "granted");
    let impostor = Signer::open(a.path(), "b", "lyceum-edge").unwrap();
    let denied = verifier.verify(&impostor.sign(&claims()).unwrap(), &facts(PATH, NOW)).unwrap_err();
    assert!(matches!(denied, Denied::UnknownKey(want) if want.issuer() == 1));
}

#[test]
fn what_is_remembered_ends_with_time_key_and_session() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer(dir.path());
    let verifier = verifier(&signer);
    let token = signer.sign(&claims()).unwrap();
    let grant = verifier.verify(&token, &facts(PATH, NOW)).unwrap();
    assert_eq!(verifier.cached_tokens(), 1);
    let at = |now| verifier.verify(&token, &facts(PATH, now)).map_or_else(Denied::code, |_| "granted");
    assert_eq!(at(NOW + 600 + CLOCK_SKEW_SECONDS - 1), "granted");
    assert_eq!(at(NOW + 600 + CLOCK_SKEW_SECONDS), "token_expired");
    assert_eq!(at(NOW), "granted");

    verifier.revocations().add([("session1".to_owned(), NOW + 1000)], NOW);
    assert_eq!(at(NOW), "token_revoked");
    assert_eq!(verifier.still_holds(&grant, NOW), Err(Denied::Revoked));
    verifier.revocations().add([], NOW + 1000);
    assert_eq!(at(NOW), "granted");

    // The same set again keeps the key; another one takes it away.
    let same = || KeySet::parse(signer.jwks().to_string().as_bytes(), Trust::Public).unwrap();
    verifier.issuers()[0].replace(same());
    assert_eq!(at(NOW), "granted");
    let other = tempfile::tempdir().unwrap();
    let others = Signer::open(other.path(), "lyceum", "lyceum-edge").unwrap().jwks().to_string();
    verifier.issuers()[0].replace(KeySet::parse(others.as_bytes(), Trust::Public).unwrap());
    assert_eq!(at(NOW), "token_unknown_key");
    assert!(verifier.still_holds(&grant, NOW).is_err());
    verifier.issuers()[0].replace(same());
    assert_eq!(at(NOW), "granted");
}

#[test]
fn memory_is_bounded_and_expired_tokens_never_enter() {
    let dir = tempfile::tempdir().unwrap();
    let signer = signer(dir.path());
    let verifier = verifier_of(vec![("lyceum", signer.jwks())], 64);
    for n in 0..400 {
        let token = signer.sign(&Claims { jti: Some(format!("s{n}")), ..claims() }).unwrap();
        assert_eq!(code(&verifier, &token), "granted");
    }
    assert!((1..=64).contains(&verifier.cached_tokens()), "{}", verifier.cached_tokens());
    let fresh = verifier_of(vec![("lyceum", signer.jwks())], 64);
    let _ = fresh.verify(&signer.sign(&Claims { exp: NOW - 100, ..claims() }).unwrap(), &facts(PATH, NOW));
    assert_eq!(fresh.cached_tokens(), 0);
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
    assert_eq!(parse(&json!({"keys": [rsa, key]})).unwrap().kids().len(), 1, "what is not spoken is passed over");
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
fn shared_secrets_only_where_trusted() {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No change of a good token, and no text at all, is granted or brings the verifier down.
    #[test]
    fn no_other_text_is_granted(at in 0_usize..600, byte in prop::char::range(' ', '~'), any in "[A-Za-z0-9_.-]{0,200}") {
        thread_local! {
            static CASE: (tempfile::TempDir, Verifier, String) = {
                let dir = tempfile::tempdir().unwrap();
                let signer = signer(dir.path());
                let (verifier, token) = (verifier(&signer), signer.sign(&claims()).unwrap());
                (dir, verifier, token)
            };
        }
        CASE.with(|(_, verifier, token)| {
            let mut changed = token.clone();
            let at = at % token.len();
            changed.replace_range(at..=at, &byte.to_string());
            if changed != *token {
                prop_assert!(verifier.verify(&changed, &facts(PATH, NOW)).is_err(), "{}", changed);
            }
            prop_assert!(verifier.verify(&any, &facts(PATH, NOW)).is_err());
            Ok(())
        })?;
    }

    #[test]
    fn no_payload_brings_it_down(text in "\\PC{0,100}", number in any::<f64>()) {
        thread_local! {
            static CASE: (tempfile::TempDir, Verifier) = {
                let dir = tempfile::tempdir().unwrap();
                let verifier = verifier(&signer(dir.path()));
                (dir, verifier)
            };
        }
        CASE.with(|(dir, verifier)| {
            let kid = signer(dir.path()).kid().to_string();
            let header = json!({"alg": "EdDSA", "kid": kid});
            for name in ["exp", "nbf", "paths", "max_height", "preview", "aud", "jti", "cdniv", "cdnicrit", "cdniip", "cdniuc", "cdnistt", "cdniets"] {
                for value in [json!(text), json!(number), json!([text]), json!({ "a": text }), json!(null), json!(true)] {
                    let token = forge(dir.path(), &header, &payload(|map| drop(map.insert(name.into(), value))));
                    let _ = verifier.verify(&token, &facts(PATH, NOW));
                }
            }
        });
    }
}
