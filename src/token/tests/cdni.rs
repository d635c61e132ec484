//! The claims of RFC 9246.

use std::net::IpAddr;

use super::*;
use crate::testing::{claim_key, encrypt};

fn with(dir: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": signer(dir).kid().as_str()});
    forge(dir, &header, &payload(change))
}

fn asked(verifier: &Verifier, token: &str, facts: &Facts<'_>) -> &'static str {
    // Twice, so that the cached token is judged the same.
    let once = || verifier.verify(token, facts).map_or_else(Denied::code, |_| "granted");
    let first = once();
    assert_eq!(once(), first);
    first
}

#[test]
fn a_token_bound_to_a_client_is_denied_to_others_on_each_use() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = verifier(&signer(dir.path()));
    let from =
        |client: Option<&str>| Facts { client: client.map(|c| c.parse::<IpAddr>().unwrap()), ..facts(PATH, NOW) };
    for (claim, good, bad) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.0/24", "::ffff:192.0.2.99", "192.0.3.1"),
        ("2001:db8::/48", "2001:db8::1", "2001:db8:1::1"),
    ] {
        let token = with(dir.path(), |map| drop(map.insert("cdniip".into(), claim.into())));
        assert_eq!(asked(&verifier, &token, &from(Some(good))), "granted", "{claim}");
        assert_eq!(asked(&verifier, &token, &from(Some(bad))), "token_wrong_client", "{claim}");
        assert_eq!(asked(&verifier, &token, &from(None)), "token_wrong_client", "{claim}");
    }
    for bad in [json!("x"), json!("192.0.2.0/33"), json!(7), json!("a.b.c.d.e")] {
        let token = with(dir.path(), |map| drop(map.insert("cdniip".into(), bad)));
        assert_eq!(asked(&verifier, &token, &from(Some("192.0.2.7"))), "token_malformed");
    }
}

#[test]
fn an_encrypted_client_is_decrypted_with_the_configured_key() {
    let dir = tempfile::tempdir().unwrap();
    let key = claim_key(32);
    let sealed = encrypt(&key, &json!({"alg": "dir", "enc": "A256GCM", "kid": "c"}), "192.0.2.0/24");
    let token = with(dir.path(), |map| drop(map.insert("cdniip".into(), sealed.into())));
    let facts = |client: &str| Facts { client: client.parse().ok(), ..facts(PATH, NOW) };
    assert_eq!(asked(&verifier(&signer(dir.path())), &token, &facts("192.0.2.1")), "token_unsupported_claim");
    let opener = verifier_with(&signer(dir.path()), None, vec![key]);
    assert_eq!(asked(&opener, &token, &facts("192.0.2.1")), "granted");
    assert_eq!(asked(&opener, &token, &facts("192.0.3.1")), "token_wrong_client");
}

#[test]
fn a_container_allows_uris_with_or_without_paths_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = verifier(&signer(dir.path()));
    let uri = RequestUri { secure: true, host: "edge.example", query: None };
    let at = |path| Facts { uri, ..facts(path, NOW) };
    let token = |paths: Value, container: &str| {
        with(dir.path(), |map| {
            map.insert("paths".into(), paths);
            map.insert("cdniuc".into(), container.into());
        })
    };
    let alone = token(json!([]), r"regex:https://edge\.example/v/lesson2/.*");
    assert_eq!(asked(&verifier, &alone, &at("/v/lesson2/master.m3u8")), "granted");
    assert_eq!(asked(&verifier, &alone, &at("/v/lesson1/master.m3u8")), "token_out_of_scope");
    let both = token(json!(["/v/lesson1/"]), r"regex:.*\.m4s");
    assert_eq!(asked(&verifier, &both, &at(PATH)), "granted");
    assert_eq!(asked(&verifier, &both, &at("/v/lesson1/master.m3u8")), "token_out_of_scope");
    assert_eq!(asked(&verifier, &both, &at("/v/lesson2/1/v720/0-0.m4s")), "token_out_of_scope");
    assert_eq!(asked(&verifier, &token(json!([]), "glob:*"), &at(PATH)), "token_unsupported_claim");
    assert_eq!(asked(&verifier, &token(json!([]), "regex:("), &at(PATH)), "token_malformed");
}

#[test]
fn critical_extensions_are_supported_or_denied() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = verifier(&signer(dir.path()));
    for (critical, expected) in [
        (json!("paths"), "granted"),
        (json!("paths, preview"), "granted"),
        (json!("paths,other"), "token_unsupported_claim"),
        (json!(""), "token_malformed"),
        (json!("paths,paths"), "token_malformed"),
        (json!("max_height"), "token_malformed"),
        (json!("cdniip"), "token_malformed"),
        (json!(["paths"]), "token_malformed"),
    ] {
        let token = with(dir.path(), |map| {
            map.insert("preview".into(), 60.into());
            map.insert("cdnicrit".into(), critical.clone());
        });
        assert_eq!(asked(&verifier, &token, &facts(PATH, NOW)), expected, "{critical}");
    }
}

#[test]
fn a_renewed_token_keeps_the_claims_of_the_one_before_it() {
    let (dir, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kid = key_files::generate(Algorithm::Es256, own.path()).unwrap();
    let renewer =
        |longest| Renewer::open(&own.path().join(format!("{kid}.pem")), "edge", "lyceum-edge", longest).unwrap();
    let renewing = verifier_with(&signer(dir.path()), Some(renewer(300)), Vec::new());
    let short = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        with(dir.path(), |map| {
            map.extend([("exp".into(), json!(NOW + 30)), ("cdnistt".into(), 1.into()), ("cdniets".into(), 120.into())]);
            map.insert("max_height".into(), 720.into());
            change(map);
        })
    };
    let token = short(&|_| {});
    let first = renewing.verify(&token, &facts(PATH, NOW)).unwrap();
    assert!(first.is_renewable() && !first.is_renewed() && !first.is_fresh_renewal_of(&first, NOW));
    let renewed = renewing.renew(&first, &facts(PATH, NOW + 20)).unwrap();
    assert_eq!((renewed.lifetime_seconds, renewed.path_depth), (120, 0));
    let second = renewing.verify(&renewed.token, &facts(PATH, NOW + 100)).unwrap();
    assert_eq!((second.expires(), second.session(), second.max_height()), (NOW + 140, Some("session1"), Some(720)));
    assert!(
        second.is_renewed()
            && second.is_fresh_renewal_of(&first, NOW + 79)
            && !second.is_fresh_renewal_of(&first, NOW + 80)
    );
    let third = renewing.renew(&second, &facts(PATH, NOW + 139)).unwrap();
    assert_eq!(renewing.verify(&third.token, &facts(PATH, NOW + 250)).unwrap().expires(), NOW + 259);

    // It ends when its session is revoked; the first token expires by itself.
    assert_eq!(asked(&renewing, &token, &facts(PATH, NOW + 60)), "token_expired");
    renewing.revocations().add([("session1".to_owned(), NOW + 1000)], NOW);
    assert_eq!(asked(&renewing, &third.token, &facts(PATH, NOW + 250)), "token_revoked");

    // The configuration limits the lifetime, a path with too few segments gets no renewal, and absurd terms are denied.
    let renewing = verifier_with(&signer(dir.path()), Some(renewer(60)), Vec::new());
    let grant = renewing.verify(&token, &facts(PATH, NOW)).unwrap();
    assert_eq!(renewing.renew(&grant, &facts(PATH, NOW)).unwrap().lifetime_seconds, 60);
    let deep = renewing.verify(&short(&|map| drop(map.insert("cdnistd".into(), 6.into()))), &facts(PATH, NOW)).unwrap();
    assert_eq!(renewing.renew(&deep, &facts(PATH, NOW)), None);
    for (name, value, expected) in [
        ("cdnistt", json!(2), "token_unsupported_claim"),
        ("cdnistt", json!("1"), "token_malformed"),
        ("cdniets", json!(0), "token_malformed"),
        ("cdniets", json!(null), "token_malformed"),
        ("cdnistd", json!(-1), "token_malformed"),
        ("cdnistt", json!(0), "granted"),
    ] {
        let token = short(&|map| drop(map.insert(name.into(), value.clone())));
        assert_eq!(asked(&renewing, &token, &facts(PATH, NOW)), expected, "{name} {value}");
    }
    for transport in [0, 1] {
        let without = short(&|map| {
            map.remove("cdniets");
            map.insert("cdnistt".into(), transport.into());
        });
        assert_eq!(asked(&renewing, &without, &facts(PATH, NOW)), "token_malformed", "both or none (section 3.2.1)");
    }
    assert_eq!(
        asked(&verifier(&signer(dir.path())), &token, &facts(PATH, NOW)),
        "token_unsupported_claim",
        "without a renewer"
    );
}

/// What `docs/tokens.md` says of versions, audiences, subjects and claims that stand alone.
#[test]
fn optional_claims_and_those_of_other_parties() {
    let dir = tempfile::tempdir().unwrap();
    let verifier = verifier(&signer(dir.path()));
    for (name, value, expected) in [
        ("cdniv", json!(1), "granted"),
        ("cdniv", json!(2), "token_unsupported_claim"),
        ("cdniv", json!("1"), "token_unsupported_claim"),
        ("cdniv", json!(null), "token_unsupported_claim"),
        ("aud", json!(["other", "lyceum-edge"]), "granted"),
        ("aud", json!([]), "token_wrong_audience"),
        ("aud", json!(["other"]), "token_wrong_audience"),
        ("aud", json!({ "lyceum-edge": 1 }), "token_malformed"),
        ("sub", json!("eyJhbGciOiJkaXIifQ..a.b.c"), "granted"),
        ("sub", json!(7), "token_malformed"),
        ("jti", json!(""), "token_malformed"),
        ("nbf", json!(NOW + 30), "granted"),
        ("nbf", json!(NOW + 31), "token_not_yet_valid"),
        ("exp", json!(NOW - 29), "granted"),
        ("exp", json!(NOW - 30), "token_expired"),
        ("exp", json!(null), "token_malformed"),
        ("exp", json!("never"), "token_malformed"),
        ("iat", json!(NOW + 1000), "granted"),
        ("cdniets", json!(60), "granted"),
        ("cdnistd", json!(2), "granted"),
        ("cdnistd", json!("2"), "token_malformed"),
        ("cdniuc", json!(7), "token_malformed"),
        ("unheard-of", json!({ "of": 1 }), "granted"),
    ] {
        let token = with(dir.path(), |map| drop(map.insert(name.into(), value.clone())));
        assert_eq!(asked(&verifier, &token, &facts(PATH, NOW)), expected, "{name} {value}");
    }
    for (name, expected) in
        [("iss", "token_wrong_issuer"), ("aud", "token_wrong_audience"), ("exp", "token_malformed"), ("sub", "granted")]
    {
        let token = with(dir.path(), |map| drop(map.remove(name)));
        assert_eq!(asked(&verifier, &token, &facts(PATH, NOW)), expected, "without {name}");
    }
    let neither = with(dir.path(), |map| drop(map.remove("paths")));
    assert_eq!(asked(&verifier, &neither, &facts(PATH, NOW)), "token_out_of_scope");
}
