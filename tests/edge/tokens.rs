//! Without a good token not one byte: places, codes, ambiguous paths, keys that come and go.

use std::time::Duration;

use http::{Method, StatusCode};
use lyceum_token::{Algorithm, Claims, Signer, key_files};

use super::harness::*;
use crate::support::until_async;

const PATIENCE: Duration = Duration::from_secs(10);

async fn media() -> Origin {
    Origin::start(|_| Reply::new(200, &[IMMUTABLE, ("content-type", "video/mp4")], "media")).await
}

#[tokio::test]
async fn a_token_is_taken_from_four_places_and_never_sent_on() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=b; lyceum_token={token}");
    let path = "/v/a/1/v720/00000-0.m4s";
    for (path, fields) in [
        (format!("/t/{token}{path}"), vec![]),
        (format!("{path}?token={token}"), vec![]),
        (format!("{path}?x=1&token={token}"), vec![]),
        (path.to_owned(), vec![("authorization", bearer.as_str())]),
        (path.to_owned(), vec![("cookie", cookie.as_str())]),
    ] {
        let answer = edge.send(Method::GET, &path, &fields).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "media"), "{path}");
        assert_eq!(answer.field("cache-control"), "private, max-age=31536000, immutable");
        assert_eq!(answer.field("referrer-policy"), "no-referrer");
    }
    // One fetch for all of them: the token is no part of the key. And nothing of it reached the origin.
    let seen = origin.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, path);
    let signature = token.rsplit('.').next().unwrap();
    assert!(
        !seen[0].head.contains(signature)
            && seen[0].field("authorization").is_none()
            && seen[0].field("cookie").is_none()
    );
}

#[tokio::test]
async fn no_token_reaches_the_origin_of_an_open_route() {
    let origin = Origin::start(|seen: &Seen| Reply::new(200, &[("cache-control", "max-age=60")], &seen.target)).await;
    let open = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\n";
    let edge = TestEdge::start(&format!("{}{open}", paid(&[&origin], ""))).await;
    let token = edge.token();
    let cookie = format!("a=1; lyceum_token={token}; b=2");
    let both = [("cookie", cookie.as_str())];
    let alone = [("cookie", cookie[5..cookie.len() - 5].trim())];
    for (method, path, fields, outcome) in [
        // From a playlist's relative URI: the token is taken off, and what is stored is one thing.
        (Method::GET, format!("/t/{token}/assets/x.jpg"), &[][..], Ok("/assets/x.jpg")),
        (Method::HEAD, format!("/t/{token}/assets/x.jpg?v=1"), &[], Ok("/assets/x.jpg?v=1")),
        (Method::POST, format!("/t/{token}/form"), &both, Ok("/form")),
        (Method::GET, "/page".to_owned(), &both, Ok("/page")),
        (Method::GET, "/other".to_owned(), &alone, Ok("/other")),
        // What leads nowhere but to another token, or to nothing, is nobody's.
        (Method::GET, format!("/t/{token}"), &[], Err("not_found")),
        (Method::GET, format!("/t/{token}/t/{token}/v/a/x"), &[], Err("not_found")),
        (Method::GET, format!("/t/{token}/t/{token}"), &[], Err("not_found")),
        (Method::GET, format!("/t/{token}/"), &[], Ok("/")),
        (Method::GET, format!("/t/{token}//x"), &[], Err("ambiguous_path")),
        // An origin may have a `/t/` of its own.
        (Method::GET, "/t/v1.2.3/app.js".to_owned(), &[], Ok("/t/v1.2.3/app.js")),
        (Method::GET, "/t/shirts/red".to_owned(), &[], Ok("/t/shirts/red")),
    ] {
        let before = origin.seen().len();
        let answer = edge.send(method.clone(), &path, fields).await;
        let seen: Vec<String> = origin.seen()[before..].iter().map(|seen| seen.target.clone()).collect();
        match outcome {
            Ok(target) => assert_eq!((answer.status.as_u16(), seen), (200, vec![target.to_owned()]), "{method} {path}"),
            Err(code) => assert_eq!((answer.code().as_str(), seen.len()), (code, 0), "{method} {path}"),
        }
    }
    assert_eq!(edge.get("/assets/x.jpg").await.field("cache-status"), "lyceum; hit");
    let signature = token.rsplit('.').next().unwrap();
    for seen in origin.seen() {
        assert!(!seen.head.contains(signature), "{}", seen.head);
        assert_eq!(seen.field("cookie"), ["/form", "/page"].contains(&seen.target.as_str()).then_some("a=1; b=2"));
    }
}

#[tokio::test]
async fn the_first_place_that_holds_a_token_decides() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let bearer = format!("Bearer {}", edge.token());
    let answer = edge.send(Method::GET, "/t/bad.bad.bad/v/a/x", &[("authorization", &bearer)]).await;
    assert_eq!(answer.code(), "token_malformed");
    let answer = edge.send(Method::GET, "/v/a/x?token=bad", &[("authorization", &bearer)]).await;
    assert_eq!(answer.code(), "token_malformed");
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_playlist_asked_for_by_query_is_redirected_to_the_path_form() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    let answer = edge.get(&format!("/v/a/master.m3u8?x=1&token={token}&y=2")).await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.field("location"), format!("/t/{token}/v/a/master.m3u8?x=1&y=2"));
    assert_eq!(answer.field("access-control-allow-origin"), "*");
    assert_eq!(edge.get("/v/a/master.m3u8?token=bad").await.status, StatusCode::FORBIDDEN);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn each_refusal_has_its_status_and_code_and_no_byte_of_media() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    // What is in the cache is as closed as what is not.
    assert_eq!(edge.get(&format!("/t/{}/v/a/x.m4s", edge.token())).await.text(), "media");
    let fetched = origin.seen().len();
    let stranger = tempfile::tempdir().unwrap();
    let sign_as = |issuer: &str, audience: &str| {
        Signer::open(&edge.dir.path().join("keys"), issuer, audience).unwrap().sign(&claims()).unwrap()
    };
    let extra =
        |name: &str, value: serde_json::Value| edge.sign(|claims| drop(claims.extra.insert(name.to_owned(), value)));
    let good = edge.token();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    let cases: Vec<(&str, String)> = vec![
        ("token_malformed", "nonsense".into()),
        ("token_malformed", "a".repeat(5000)),
        ("token_bad_signature", format!("{signed}.{flipped}")),
        ("token_unknown_key", Signer::open(stranger.path(), "lyceum", "lyceum-edge").unwrap().sign(&claims()).unwrap()),
        ("token_expired", edge.sign(|claims| claims.exp = NOW - 31)),
        ("token_not_yet_valid", edge.sign(|claims| claims.nbf = Some(NOW + 40))),
        ("token_wrong_issuer", sign_as("other", "lyceum-edge")),
        ("token_wrong_audience", sign_as("lyceum", "other")),
        ("token_unsupported_claim", extra("cdnicrit", "x".into())),
        ("token_out_of_scope", edge.sign(|claims| claims.paths = vec!["/v/b/".into()])),
        ("token_out_of_scope", edge.sign(|claims| claims.paths = vec![])),
    ];
    for (code, token) in &cases {
        let answer = edge.get(&format!("/t/{token}/v/a/x.m4s")).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, *code), "{token}");
        assert_eq!(answer.field("access-control-allow-origin"), "*");
        assert!(!answer.text().contains("media"));
        assert!(edge.metric("lyceum_edge_refusals_total", &[code]) >= 1.0);
    }
    let answer = edge.get("/v/a/x.m4s").await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "token_missing"));
    assert!(answer.field("www-authenticate").starts_with("Bearer"));
    let answer = edge.send(Method::HEAD, "/v/a/x.m4s", &[]).await;
    assert_eq!((answer.status, answer.body.unwrap().len()), (StatusCode::UNAUTHORIZED, 0));
    let answer = edge.send(Method::POST, &format!("/t/{good}/v/a/x.m4s"), &[]).await;
    assert_eq!((answer.status, answer.field("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, OPTIONS"));
    assert_eq!(origin.seen().len(), fetched, "nothing was fetched for them");
}

#[tokio::test]
async fn ambiguous_paths_are_refused_not_repaired() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token = edge.token();
    for path in [
        "/v/a/../b/x",
        "/v/a/./x",
        "/v/a//x",
        "/v/a/%2e%2e/b/x",
        "/v/a/%2E%2E/b/x",
        "/v/a%2f..%2fb/x",
        "/v/a/%252e%252e/b/x",
        "/v/a/%5c../x",
        "/v/%61/x",
        "/v/a/%00",
        "/v/a/%zz",
        "//v/a/x",
        "/x/../v/a/x",
        "/v/a/..",
        "/v/a/..;/b/x",
        "/v/a/..%3b/b/x",
        "/v/a/%c0%ae%c0%ae/b/x",
        "/v/a%c0%af..%c0%afb/x",
    ] {
        for path in [format!("/t/{token}{path}"), format!("{path}?token={token}")] {
            let answer = edge.get(&path).await;
            assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "ambiguous_path"), "{path}");
        }
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_token_ends_while_others_go_on() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let path = format!("/t/{}/v/a/x.m4s", edge.sign(|claims| claims.exp = NOW + 10));
    assert_eq!(edge.get(&path).await.status, StatusCode::OK);
    edge.clock.advance(Duration::from_secs(39));
    assert_eq!(edge.get(&path).await.status, StatusCode::OK, "clocks may differ by 30 s");
    edge.clock.advance(Duration::from_secs(2));
    assert_eq!(edge.get(&path).await.code(), "token_expired");
    assert_eq!(edge.get(&format!("/t/{}/v/a/x.m4s", edge.token())).await.status, StatusCode::OK);
}

/// An edge that looks for the keys of `shop` at `issuer`, soon and often.
async fn follows_keys(origin: &Origin, issuer: &Origin) -> TestEdge {
    let toml = paid(&[origin], "").replace(
        "{ name = \"lyceum\", jwks = [\"{dir}/jwks.json\"] }",
        &format!("{{ name = \"shop\", jwks = [\"{}/jwks.json\"] }}", issuer.url()),
    );
    TestEdge::start(&toml.replace("[cors]", "refetch = \"100ms\"\nrefresh = \"1s\"\n[cors]")).await
}

#[tokio::test]
async fn keys_are_followed_at_their_url_and_the_last_good_ones_kept() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Signer::open(folder.path(), "shop", "lyceum-edge").unwrap();
    let first = open();
    let jwks = first.jwks().to_string();
    let issuer = Origin::start(move |_| Reply::new(200, &[], &jwks)).await;
    let origin = media().await;
    let edge = follows_keys(&origin, &issuer).await;
    let get = async |signer: &Signer| edge.get(&format!("/t/{}/v/a/x.m4s", signer.sign(&claims()).unwrap())).await;
    assert_eq!(get(&first).await.status, StatusCode::OK);
    assert!(edge.edge.ready().is_ok());

    // A key that is new is looked for while the request waits.
    key_files::generate(Algorithm::Es256, folder.path()).unwrap();
    let second = open();
    let both = second.jwks();
    let jwks = both.to_string();
    issuer.now(move |_| Reply::new(200, &[], &jwks));
    until_async("the new key", PATIENCE, async || (get(&second).await.status == StatusCode::OK).then_some(())).await;

    // Unknown keys don't make a fetch each.
    let fetches = issuer.seen().len();
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Signer::open(stranger.path(), "shop", "lyceum-edge").unwrap();
    for n in 0..20 {
        let token = stranger.sign(&Claims { jti: Some(n.to_string()), ..claims() }).unwrap();
        assert_eq!(edge.get(&format!("/t/{token}/v/a/x.m4s")).await.code(), "token_unknown_key");
    }
    assert!(issuer.seen().len() - fetches <= 3, "{}", issuer.seen().len() - fetches);

    // Nonsense at the URL changes nothing; a key that is withdrawn takes its tokens along.
    issuer.now(|_| Reply::new(200, &[], "nonsense"));
    let failed = edge.metric("lyceum_edge_follow_total", &["keys", "failed"]);
    let refused = async || (edge.metric("lyceum_edge_follow_total", &["keys", "failed"]) > failed).then_some(());
    until_async("the nonsense", PATIENCE, refused).await;
    assert_eq!(get(&first).await.status, StatusCode::OK);
    let only_new = serde_json::json!({ "keys": [both["keys"][0]] }).to_string();
    issuer.now(move |_| Reply::new(200, &[], &only_new));
    until_async("the first key to leave", PATIENCE, async || {
        (get(&first).await.status == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
    assert_eq!(get(&first).await.code(), "token_unknown_key");
    assert_eq!(get(&second).await.status, StatusCode::OK);
}

#[tokio::test]
async fn key_documents_without_bound_or_end_change_nothing_and_are_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(folder.path(), "shop", "lyceum-edge").unwrap();
    let jwks = signer.jwks().to_string();
    let issuer = Origin::start(move |_| Reply::new(200, &[], &jwks)).await;
    let origin = media().await;
    let edge = follows_keys(&origin, &issuer).await;
    let path = format!("/t/{}/v/a/x.m4s", signer.sign(&claims()).unwrap());
    assert_eq!(edge.get(&path).await.status, StatusCode::OK);
    let scripts: [fn(&Seen) -> Reply; 2] = [
        |_| Reply::new(200, &[], vec![b' '; 32 << 20]),
        |_| Reply::head(1 << 20, &[]).bytes("{\"keys\": [").then(Step::Wait(Duration::from_secs(600))),
    ];
    for script in scripts {
        let failed = edge.metric("lyceum_edge_follow_total", &["keys", "failed"]);
        issuer.now(script);
        until_async("the document to be given up", Duration::from_secs(30), async || {
            // A key that is not known does not wait for it for long either.
            let stranger = tempfile::tempdir().unwrap();
            let token = Signer::open(stranger.path(), "shop", "lyceum-edge").unwrap().sign(&claims()).unwrap();
            assert_eq!(edge.get(&format!("/t/{token}/v/a/x.m4s")).await.code(), "token_unknown_key");
            assert_eq!(edge.get(&path).await.status, StatusCode::OK);
            (edge.metric("lyceum_edge_follow_total", &["keys", "failed"]) > failed).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn shared_secrets_count_only_where_they_are_configured_and_never_from_a_url() {
    let origin = media().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = [7_u8; 32];
    let jwk = serde_json::json!({ "kty": "oct", "alg": "HS256", "kid": "s", "k": base64url(&secret) }).to_string();
    std::fs::write(folder.path().join("secret.jwk"), &jwk).unwrap();
    let named = |places: &str, hs256: bool| {
        paid(&[&origin], "").replace(
            "{ name = \"lyceum\", jwks = [\"{dir}/jwks.json\"] }",
            &format!("{{ name = \"lyceum\", jwks = [{places}], hs256 = {hs256} }}"),
        )
    };
    let file = format!("{:?}", folder.path().join("secret.jwk").display().to_string());
    let token = hs256(
        &secret,
        &serde_json::json!({ "iss": "lyceum", "aud": "lyceum-edge", "exp": NOW + 60, "paths": ["/v/a/"] }),
    );
    let path = format!("/t/{token}/v/a/x.m4s");
    assert_eq!(TestEdge::start(&named(&file, true)).await.get(&path).await.text(), "media");

    // The same secret behind a URL, with the same word for it, opens nothing; nor does the file without the word.
    let issuer = Origin::start(move |_| Reply::new(200, &[], &jwk)).await;
    let url = format!("{:?}, \"{{dir}}/jwks.json\"", format!("{}/jwks.json", issuer.url()));
    let edge = TestEdge::start(&named(&url, true)).await;
    assert_eq!(edge.get(&path).await.code(), "token_unknown_key");
    assert!(!issuer.seen().is_empty());
    let toml = named(&file, false).replace("{dir}", folder.path().to_str().unwrap());
    let config =
        lyceum_core::config::parse(&format!("listen = []\n{toml}"), std::path::Path::new("edge.toml"), &|_| None)
            .unwrap();
    let parts = lyceum_edge::Parts {
        clock: lyceum_core::time::Clock::system(),
        registry: prometheus::Registry::new(),
        shutdown: lyceum_core::shutdown::Shutdown::new(),
    };
    let error = lyceum_edge::Edge::start(config, parts).await.expect_err("a secret without the word for it");
    assert!(error.to_string().contains("secret.jwk"), "{error}");
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A token signed with a shared secret (RFC 7518, section 3.2).
fn hs256(secret: &[u8], claims: &serde_json::Value) -> String {
    let header = serde_json::json!({ "alg": "HS256", "kid": "s" });
    let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let signature = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", base64url(signature.as_ref()))
}
