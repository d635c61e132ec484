//! An edge whose origin is a bucket of a real S3 server.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode};
use lyceum_core::time::Clock;
use lyceum_storage::store::{Config, Key, Store, StoreError};

use super::harness::*;
use crate::origin::services::S3;

#[derive(serde::Deserialize)]
struct Parsed {
    store: Config,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_an_origin_whole_in_slices_and_with_no_other_key() {
    let text = format!("store = {}", S3::shared().store());
    let parsed: Parsed = toml::from_str(&text).unwrap();
    let store = Store::open(&parsed.store, &Clock::system()).await.unwrap();
    let put = async |name: &str, body: &[u8]| {
        let pieces: Vec<Result<Bytes, StoreError>> =
            body.chunks(700_001).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        store.put(&Key::parse(name).unwrap(), "video/mp4", futures_util::stream::iter(pieces).boxed()).await.unwrap();
    };
    let large = pattern(9 << 20);
    put("v/a/1/v720/00000-0.m4s", b"a segment").await;
    put("v/a/1/whole.mp4", &large).await;

    let values: toml::Table = toml::from_str(&text).unwrap();
    let s3 = |name: &str| values["store"]["s3"][name].as_str().unwrap().to_owned();
    let toml = |secret: &str| {
        let keys = format!("region = \"us-east-1\", access_key = \"{}\", secret_key = \"{secret}\"", s3("access_key"));
        format!(
            "[tokens]\naudience = \"lyceum-edge\"\nissuers = [{{ name = \"lyceum\", jwks = [\"{{dir}}/jwks.json\"] }}]\n\
             [[pool]]\nname = \"bucket\"\norigins = [{{ url = \"{}\", prefix = \"/{}/{}\" }}]\nauth = {{ s3 = {{ {keys} }} }}\n\
             [[route]]\nprefix = \"/v/\"\npool = \"bucket\"\nauth = \"token\"\ndefault_freshness = \"400d\"\n",
            s3("endpoint"),
            s3("bucket"),
            s3("prefix"),
        )
    };
    let edge = TestEdge::start(&toml(&s3("secret_key"))).await;
    let path = |name: &str| format!("/t/{}/v/a/1/{name}", edge.token());
    for status in ["fwd=uri-miss; fwd-status=200; stored", "lyceum; hit"] {
        let answer = edge.get(&path("v720/00000-0.m4s")).await;
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.field("content-type")),
            (StatusCode::OK, "a segment", "video/mp4")
        );
        assert!(answer.field("cache-status").contains(status), "{}", answer.field("cache-status"));
    }
    let last = large.len() - 1000;
    let answer = edge.send(Method::GET, &path("whole.mp4"), &[("range", &format!("bytes={last}-"))]).await;
    assert!(
        answer.status == StatusCode::PARTIAL_CONTENT && answer.body.as_deref() == Some(&large[last..]),
        "{:?}",
        answer.headers
    );
    let fetched = edge.metric("lyceum_upstream_requests_total", &[]);
    assert!(fetched <= 3.0, "{fetched}: its slice, and no more");
    assert!(edge.get(&path("whole.mp4")).await.body.as_deref() == Some(&large));
    assert_eq!(edge.get(&path("none.mp4")).await.status, StatusCode::NOT_FOUND);

    let stranger = TestEdge::start(&toml("another key")).await;
    let answer = stranger.get(&format!("/t/{}/v/a/1/v720/00000-0.m4s", stranger.token())).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    store.delete_under(&Key::parse("v/a").unwrap()).await.unwrap();
}
