//! RFC 9246 over real sockets: tokens bound to a client or to URIs, and tokens that are renewed by a cookie.

use std::time::Duration;

use http::{Method, StatusCode};
use lyceum_token::{Algorithm, key_files};
use serde_json::json;

use super::harness::*;

async fn media() -> Origin {
    Origin::start(|_| Reply::new(200, &[IMMUTABLE, ("content-type", "video/mp4")], "media")).await
}

#[tokio::test]
async fn a_token_bound_to_a_client_opens_nothing_for_another() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let bound = |to: &str| edge.sign(|claims| drop(claims.extra.insert("cdniip".to_owned(), to.into())));
    for to in ["127.0.0.1", "127.0.0.0/8"] {
        assert_eq!(edge.get(&format!("/t/{}/v/a/x.m4s", bound(to))).await.text(), "media", "{to}");
    }
    let other = format!("/t/{}/v/a/x.m4s", bound("192.0.2.0/24"));
    for _ in 0..2 {
        let answer = edge.get(&other).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "token_wrong_client"));
    }
    // Nobody says who they are but the listener: a field of the client's own changes nothing.
    let answer =
        edge.send(Method::GET, &other, &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")]).await;
    assert_eq!(answer.code(), "token_wrong_client");
    let reports = edge.send(Method::POST, &format!("/t/{}/cmcd", bound("192.0.2.0/24")), &[]).await;
    assert_eq!(reports.code(), "token_wrong_client");
}

#[tokio::test]
async fn a_container_is_compared_with_the_uri_without_its_token() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let holding = |container: String| {
        edge.sign(|claims| {
            claims.paths = Vec::new();
            claims.extra.insert("cdniuc".to_owned(), container.into());
        })
    };
    let token = holding(format!("regex:{}/v/a/[0-9]+\\.m4s(\\?a=b)?", edge.url.replace('.', "\\.")));
    for path in [
        format!("/t/{token}/v/a/7.m4s"),
        format!("/v/a/7.m4s?token={token}"),
        format!("/v/a/7.m4s?token={token}&a=b"),
        format!("/v/a/7.m4s?a=b&token={token}"),
        format!("/t/{token}/v/a/7.m4s?a=b"),
    ] {
        assert_eq!(edge.get(&path).await.text(), "media", "{path}");
    }
    assert_eq!(edge.get(&format!("/t/{token}/v/a/7.m4s?a=c")).await.code(), "token_out_of_scope");
    assert_eq!(edge.get(&format!("/t/{token}/v/a/x.m4s")).await.code(), "token_out_of_scope");
    assert_eq!(
        edge.send(Method::GET, &format!("/t/{token}/v/a/7.m4s"), &[("host", "other")]).await.code(),
        "token_out_of_scope"
    );
}

/// What a browser would send back of a `Set-Cookie`.
fn cookie(answer: &Answer) -> Option<(String, String)> {
    let text = answer.headers.get("set-cookie")?.to_str().unwrap();
    let (pair, attributes) = text.split_once("; ").unwrap();
    Some((pair.to_owned(), attributes.to_owned()))
}

#[tokio::test]
async fn a_short_token_is_renewed_while_it_is_used() {
    let origin = media().await;
    let toml = paid(&[&origin], "")
        .replace("[cors]", "renewal = { key = \"{dir}/own/edge1.pem\", issuer = \"edge\" }\n[cors]");
    let made = tempfile::tempdir().unwrap();
    let kid = key_files::generate(Algorithm::EdDsa, made.path()).unwrap();
    let key = made.path().join(format!("{kid}.pem"));
    let edge = TestEdge::start(&toml.replace("{dir}/own/edge1.pem", key.to_str().unwrap())).await;
    let token = edge.sign(|claims| {
        claims.exp = NOW + 60;
        claims.extra.extend([
            ("cdnistt".to_owned(), json!(1)),
            ("cdniets".to_owned(), json!(60)),
            ("cdnistd".to_owned(), json!(2)),
        ]);
    });
    let path = format!("/t/{token}/v/a/1/x.m4s");
    let first = edge.get(&path).await;
    assert_eq!(first.text(), "media");
    let (pair, attributes) = cookie(&first).expect("a renewed token");
    assert_eq!(attributes, format!("Path=/t/{token}/v/a; Max-Age=60; HttpOnly; SameSite=Lax"));

    // A young one is not renewed again; one past half its life is; and it carries on when the token in the path ends.
    let with = async |pair: &str| edge.send(Method::GET, &path, &[("cookie", pair)]).await;
    assert!(cookie(&with(&pair).await).is_none());
    edge.clock.advance(Duration::from_secs(40));
    let (second, _) = cookie(&with(&pair).await).expect("the next token");
    assert_ne!(second, pair);
    edge.clock.advance(Duration::from_secs(55));
    assert_eq!(edge.get(&path).await.code(), "token_expired");
    let answer = with(&second).await;
    assert_eq!(answer.text(), "media");
    assert!(cookie(&answer).is_some());
    assert_eq!(edge.send(Method::GET, "/v/a/1/x.m4s", &[("cookie", &second)]).await.text(), "media");
    // It opens no more than the first did, and no other fault of the first is looked past.
    assert_eq!(
        edge.send(Method::GET, &format!("/t/{token}/v/b/x.m4s"), &[("cookie", &second)]).await.code(),
        "token_expired"
    );
    assert_eq!(edge.send(Method::GET, "/t/bad/v/a/x.m4s", &[("cookie", &second)]).await.code(), "token_malformed");
    edge.clock.advance(Duration::from_secs(100));
    assert_eq!(with(&second).await.code(), "token_expired");
}

#[tokio::test]
async fn a_token_stands_under_the_attribute_s_name_too_and_is_renewed_under_it() {
    let origin = media().await;
    let made = tempfile::tempdir().unwrap();
    let kid = key_files::generate(Algorithm::EdDsa, made.path()).unwrap();
    let key = made.path().join(format!("{kid}.pem"));
    let more = format!(
        "attribute = \"URISigningPackage\"\nrenewal = {{ key = {:?}, issuer = \"edge\" }}\n[cors]",
        key.display().to_string()
    );
    let open = "[[route]]\nprefix = \"/\"\npool = \"origin\"\nauth = \"none\"\n";
    let edge = TestEdge::start(&(paid(&[&origin], "").replace("[cors]", &more) + open)).await;
    let token = edge.sign(|claims| {
        claims.extra.extend([("cdnistt".to_owned(), json!(1)), ("cdniets".to_owned(), json!(60))]);
    });
    // The whole of the URI but for the token, as a container wants it.
    let whole = format!("{}/v/a/x.m4s?a=1&b=2", edge.url);
    let bound = edge.sign(|claims| {
        claims.paths.clear();
        let pattern = format!("regex:{}", whole.replace(['.', '?'], "."));
        claims.extra.insert("cdniuc".to_owned(), json!(pattern));
    });
    for path in [format!("/v/a/x.m4s?a=1&URISigningPackage={bound}&b=2"), format!("/v/a/x.m4s?a=1&b=2&token={bound}")] {
        assert_eq!(edge.get(&path).await.status, 200, "{path}");
    }
    let answer = edge.get(&format!("/v/a/index.m3u8?x=1&URISigningPackage={token}")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.field("location")),
        (307, format!("/t/{token}/v/a/index.m3u8?x=1").as_str())
    );
    let (pair, attributes) =
        cookie(&edge.get(&format!("/v/a/x.m4s?URISigningPackage={token}")).await).expect("a cookie");
    assert!(pair.starts_with("URISigningPackage=") && attributes.starts_with("Path=/; "), "{pair} {attributes}");
    assert_eq!(edge.send(Method::GET, "/v/a/x.m4s", &[("cookie", &pair)]).await.status, 200);
    assert_eq!(edge.get(&format!("/v/a/x.m4s?urisigningpackage={token}")).await.code(), "token_missing");
    edge.send(Method::GET, "/open", &[("cookie", &format!("{pair}; a=1"))]).await;
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| !seen.head.contains(token.rsplit('.').next().unwrap())));
    assert_eq!(seen.last().and_then(|seen| seen.field("cookie")), Some("a=1"));
}

#[tokio::test]
async fn without_a_key_for_it_a_token_to_be_renewed_is_refused_at_the_start() {
    let origin = media().await;
    let edge = TestEdge::paid(&[&origin]).await;
    let token =
        edge.sign(|claims| claims.extra.extend([("cdnistt".to_owned(), json!(1)), ("cdniets".to_owned(), json!(60))]));
    assert_eq!(edge.get(&format!("/t/{token}/v/a/x.m4s")).await.code(), "token_unsupported_claim");
}
