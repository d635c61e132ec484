//! The object store against a real S3 server: what a directory does, a bucket does.

use bytes::Bytes;
use futures_util::StreamExt;
use lyceum_core::time::Clock;
use lyceum_storage::store::{ByteRange, Config, Key, Store, StoreError, body_of, read_all};

use crate::origin::services::S3;
use crate::origin::world::noise;

#[derive(serde::Deserialize)]
struct Parsed {
    store: Config,
}

async fn bucket(change: impl Fn(String) -> String) -> Store {
    let text = format!("store = {}", change(S3::shared().store()));
    let parsed: Parsed = toml::from_str(&text).unwrap();
    Store::open(&parsed.store, &Clock::system()).await.unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

async fn whole(store: &Store, name: &str) -> Bytes {
    read_all(store.get(&key(name), None).await.unwrap().body, 1 << 30).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_a_bucket_come_back_whole_and_in_parts() {
    for checksums in ["supported", "required"] {
        let store = bucket(|text| text.replace("part =", &format!("checksums = \"{checksums}\", part ="))).await;
        store.ping().await.unwrap();
        assert_eq!(store.put_bytes(&key("v/a/x.m3u8"), "application/x-odd", "0123456789".into()).await.unwrap(), 10);
        let object = store.get(&key("v/a/x.m3u8"), Some(ByteRange::Between(3, 5))).await.unwrap();
        assert_eq!((object.range.clone(), object.meta.size), (3..6, 10));
        assert_eq!(object.meta.content_type, "application/x-odd");
        assert_eq!(read_all(object.body, 9).await.unwrap(), "345");
        let last = store.get(&key("v/a/x.m3u8"), Some(ByteRange::Last(2))).await.unwrap();
        assert_eq!(read_all(last.body, 9).await.unwrap(), "89");
        let beyond = store.get(&key("v/a/x.m3u8"), Some(ByteRange::From(10))).await;
        assert!(matches!(beyond, Err(StoreError::RangeNotSatisfiable { size: 10 })));
        assert!(matches!(store.get(&key("none"), None).await, Err(StoreError::NotFound)));
        assert!(matches!(store.head(&key("none")).await, Err(StoreError::NotFound)));
        assert!(!store.put_new(&key("v/a/x.m3u8"), "a/b", body_of("other".into())).await.unwrap());
        assert_eq!(whole(&store, "v/a/x.m3u8").await, "0123456789");
        // Larger than a part: it goes in several.
        let large = noise(12_000_000, 1);
        let pieces: Vec<Result<Bytes, StoreError>> =
            large.chunks(700_001).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
        store.put(&key("v/a/large.mp4"), "video/mp4", futures_util::stream::iter(pieces).boxed()).await.unwrap();
        assert!(whole(&store, "v/a/large.mp4").await == large);
        let broken = vec![Ok(Bytes::from(noise(6_000_000, 2))), Err(StoreError::Source("gone".to_owned()))];
        let broken = store.put(&key("v/a/broken"), "a/b", futures_util::stream::iter(broken).boxed()).await;
        assert!(matches!(broken, Err(StoreError::Source(_))));
        assert!(matches!(store.head(&key("v/a/broken")).await, Err(StoreError::NotFound)));
        store.delete(&key("v/a/x.m3u8")).await.unwrap();
        store.delete(&key("v/a/x.m3u8")).await.unwrap();
        store.delete_under(&key("v/a")).await.unwrap();
        assert!(matches!(store.head(&key("v/a/large.mp4")).await, Err(StoreError::NotFound)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_grows_in_a_bucket_over_breaks_and_a_fenced_writer_touches_nothing() {
    let store = bucket(|text| text).await;
    let name = key("uploads/u");
    let bytes = noise(13_000_000, 4);
    let mut growth = store.start_growth(&name, "video/mp4", Some(bytes.len() as u64)).await.unwrap();
    let mut length = 0;
    for end in [100, 4_000_000, 9_000_000, 9_000_000, 12_999_999, bytes.len()] {
        // An older writer that does not know yet that it was fenced off: what it stores is never part of the object.
        let before = growth.reserve();
        let mut fenced = store.grow(&name, "ada", length as u64, before.clone()).await.unwrap();
        let mut writer = store.grow(&name, "ada", length as u64, before.reserve()).await.unwrap();
        fenced.write(Bytes::from(noise(5_500_000, 99))).await.unwrap();
        fenced.checkpoint(true).await.unwrap();
        for piece in bytes[length..end].chunks(300_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            while writer.wants_checkpoint() {
                writer.checkpoint(false).await.unwrap();
                writer.state_saved().await;
            }
        }
        let (durable, last) = writer.checkpoint(true).await.unwrap();
        writer.state_saved().await;
        assert_eq!(durable, end as u64);
        (growth, length) = (last, end);
    }
    for _ in 0..2 {
        store.finish_growth(&name, "video/mp4", bytes.len() as u64, &growth).await.unwrap();
        assert!(whole(&store, "uploads/u").await == bytes);
    }
    let empty = key("uploads/empty");
    let growth = store.start_growth(&empty, "video/mp4", Some(0)).await.unwrap();
    store.finish_growth(&empty, "video/mp4", 0, &growth).await.unwrap();
    assert_eq!(store.head(&empty).await.unwrap().size, 0);
    let given_up = key("uploads/given");
    let growth = store.start_growth(&given_up, "video/mp4", None).await.unwrap().reserve();
    for _ in 0..2 {
        store.abandon_growth(&given_up, &growth).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_or_a_wrong_secret_is_said_plainly() {
    let missing = bucket(|text| text.replace("bucket = \"lyceum\"", "bucket = \"nothere\"")).await;
    assert!(matches!(missing.ping().await, Err(StoreError::Refused(_))));
    let wrong = bucket(|text| text.replace("testsecret", "wrongsecret")).await;
    assert!(matches!(wrong.ping().await, Err(StoreError::Refused(_))));
    let away = bucket(|text| {
        text.replace(S3::shared().endpoint(), "http://127.0.0.1:1").replace("part =", "attempts = 2, part =")
    })
    .await;
    let error = away.ping().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(!error.to_string().contains("testsecret"));
}
