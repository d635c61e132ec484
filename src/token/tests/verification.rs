//! What a verifier grants and denies.

use proptest::prelude::*;

use super::*;

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
fn each_fault_is_denied_with_its_code() {
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
fn a_cached_token_ends_with_time_key_and_session() {
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
fn the_cache_is_bounded_and_takes_no_expired_token() {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No change of a good token, and no text at all, is granted or makes the verifier panic.
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
    fn no_payload_panics(text in "\\PC{0,100}", number in any::<f64>()) {
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
