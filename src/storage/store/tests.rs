use super::*;
use bytes::Bytes;
use futures_util::StreamExt;
use lyceum_core::time::Clock;

async fn directory() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config::Directory(dir.path().join("objects")), &Clock::system()).await.unwrap();
    (dir, store)
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

async fn text(store: &Store, name: &str, range: Option<ByteRange>) -> String {
    let object = store.get(&key(name), range).await.unwrap();
    String::from_utf8(read_all(object.body, 1 << 20).await.unwrap().to_vec()).unwrap()
}

#[test]
fn keys_are_safe_on_a_disk_and_in_a_url() {
    for good in ["a", "v/abc/1/v720/00000-0.m4s", "v/a/1/a-und/init.mp4", "uploads/x_Y.1"] {
        assert!(Key::parse(good).is_ok(), "{good}");
    }
    let long = "a/".repeat(300);
    for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".tmp/x", "a b", "a%2e", "é", "a\\b", "a\0", long.as_str()] {
        assert_eq!(Key::parse(bad), Err(InvalidKey), "{bad:?}");
    }
}

#[test]
fn ranges_stay_within_the_object() {
    assert_eq!(ByteRange::Between(2, 4).within(10).unwrap(), 2..5);
    assert_eq!(ByteRange::Between(2, u64::MAX).within(10).unwrap(), 2..10);
    assert_eq!(ByteRange::From(9).within(10).unwrap(), 9..10);
    assert_eq!(ByteRange::Last(99).within(10).unwrap(), 0..10);
    for (range, size) in
        [(ByteRange::From(10), 10), (ByteRange::Between(4, 2), 10), (ByteRange::Last(0), 10), (ByteRange::Last(5), 0)]
    {
        assert!(matches!(range.within(size), Err(StoreError::RangeNotSatisfiable { .. })), "{range:?}");
    }
}

#[tokio::test]
async fn an_object_comes_back_whole_and_in_parts_with_its_type() {
    let (_dir, store) = directory().await;
    store.put_bytes(&key("v/a/x.m3u8"), "application/vnd.apple.mpegurl", "0123456789".into()).await.unwrap();
    store.put_bytes(&key("odd.bin"), "audio/x-strange", Bytes::new()).await.unwrap();
    assert_eq!(text(&store, "v/a/x.m3u8", None).await, "0123456789");
    assert_eq!(text(&store, "v/a/x.m3u8", Some(ByteRange::Between(3, 5))).await, "345");
    assert_eq!(text(&store, "v/a/x.m3u8", Some(ByteRange::Last(2))).await, "89");
    let meta = store.head(&key("odd.bin")).await.unwrap();
    assert_eq!((meta.size, meta.content_type.as_str()), (0, "audio/x-strange"));
    store.put_bytes(&key("odd.bin"), "application/octet-stream", "now plain".into()).await.unwrap();
    assert_eq!(store.head(&key("odd.bin")).await.unwrap().content_type, "application/octet-stream");
    assert!(matches!(store.get(&key("v/a"), None).await, Err(StoreError::NotFound)));
    assert!(matches!(store.get(&key("v/a/x.m3u8/y"), None).await, Err(StoreError::NotFound | StoreError::Refused(_))));
}

#[tokio::test]
async fn put_new_leaves_the_first_and_a_broken_body_leaves_nothing() {
    let (dir, store) = directory().await;
    assert!(store.put_new(&key("a/b"), "text/plain", body_of("one".into())).await.unwrap());
    assert!(!store.put_new(&key("a/b"), "text/plain", body_of("two".into())).await.unwrap());
    assert_eq!(text(&store, "a/b", None).await, "one");
    let broken = futures_util::stream::iter([Ok("part".into()), Err(StoreError::Source("gone".to_owned()))]).boxed();
    assert!(matches!(store.put(&key("a/c"), "text/plain", broken).await, Err(StoreError::Source(_))));
    assert!(matches!(store.head(&key("a/c")).await, Err(StoreError::NotFound)));
    assert_eq!(std::fs::read_dir(dir.path().join("objects/.tmp")).unwrap().count(), 0);
    store.delete_under(&key("a")).await.unwrap();
    store.delete_under(&key("a")).await.unwrap();
    store.delete(&key("a/b")).await.unwrap();
    assert!(matches!(store.head(&key("a/b")).await, Err(StoreError::NotFound)));
}

#[tokio::test]
async fn growth_goes_on_at_the_durable_length_and_one_writer_holds_it() {
    let (_dir, store) = directory().await;
    let name = key("uploads/u");
    let growth = store.start_growth(&name, "video/mp4", None).await.unwrap().reserve();
    let mut first = store.grow(&name, "ada", 0, growth.clone()).await.unwrap();
    first.write("hello ".into()).await.unwrap();
    assert_eq!(first.checkpoint(false).await.unwrap().0, 6);
    first.write("never acknowledged".into()).await.unwrap();
    assert!(matches!(store.grow(&name, "ada", 6, growth.clone()).await, Err(StoreError::Held)));
    drop(first);
    let mut second = store.grow(&name, "ada", 6, growth.clone().reserve()).await.unwrap();
    second.write("world".into()).await.unwrap();
    assert_eq!(second.pending(), 5);
    let (length, growth) = second.checkpoint(true).await.unwrap();
    drop(second);
    for _ in 0..2 {
        store.finish_growth(&name, "video/mp4", length, &growth).await.unwrap();
        assert_eq!(text(&store, "uploads/u", None).await, "hello world");
    }
    assert_eq!(store.head(&name).await.unwrap().content_type, "video/mp4");
    assert!(store.grow(&key("uploads/lost"), "ada", 5, Growth::Directory).await.is_err());
}

#[tokio::test]
async fn a_growing_object_takes_stretches_of_others() {
    let (_dir, store) = directory().await;
    store.put_bytes(&key("part/one"), "video/mp4", "0123456789".into()).await.unwrap();
    let name = key("uploads/u");
    let growth = store.start_growth(&name, "video/mp4", None).await.unwrap().reserve();
    let mut grower = store.grow(&name, "ada", 0, growth.clone()).await.unwrap();
    grower.write("<".into()).await.unwrap();
    for (range, length) in [(2..5, 4), (0..10, 14)] {
        let (upto, durable, _) = grower.copy(&key("part/one"), range.clone(), false).await.unwrap().unwrap();
        assert_eq!((upto, durable, grower.pending()), (range.end, length, 0));
    }
    // More than is there was acknowledged once: a disk has lost bytes, and nothing may be built on it.
    assert!(grower.copy(&key("part/one"), 8..12, true).await.is_err());
    drop(grower);
    let mut grower = store.grow(&name, "ada", 14, growth.clone()).await.unwrap();
    grower.write(">".into()).await.unwrap();
    let (length, growth) = grower.checkpoint(true).await.unwrap();
    store.finish_growth(&name, "video/mp4", length, &growth).await.unwrap();
    assert_eq!(text(&store, "uploads/u", None).await, "<2340123456789>");
}
