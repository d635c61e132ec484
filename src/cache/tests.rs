//! The cache as a whole: shared fills, flow control, failed fills, purges.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use lyceum_core::units::ByteSize;
use lyceum_http::freshness::Freshness;

type Test = Arc<Cache<&'static str>>;

fn cache() -> Test {
    Cache::new(&Config {
        memory: ByteSize::mib(64),
        object: ByteSize::kib(64),
        slice: ByteSize::kib(16),
        window: ByteSize::kib(64),
        ..Config::default()
    })
}

/// The time of purges in these tests: that at which responses were received.
const NOW: i64 = 0;

fn head(length: Option<u64>) -> ResponseHead {
    ResponseHead { status: StatusCode::OK, headers: HeaderMap::new(), length, vary: Vary::default() }
}

fn store(tags: &[&str]) -> FillPlan {
    let freshness = Freshness::lasting(60, 0);
    FillPlan::Store { freshness, tags: tags.iter().map(|tag| (*tag).into()).collect() }
}

fn fill(cache: &Test, key: &str) -> (Writer<&'static str>, Reader<&'static str>) {
    match cache.lookup(key, &HeaderMap::new(), |_| true) {
        Lookup::Fill { writer, reader, .. } => (writer, reader),
        other => panic!("{other:?}"),
    }
}

fn join(cache: &Test, key: &str) -> Reader<&'static str> {
    match cache.lookup(key, &HeaderMap::new(), |_| true) {
        Lookup::Join(reader) => reader,
        other => panic!("{other:?}"),
    }
}

fn is_hit(cache: &Test, key: &str) -> bool {
    cache.get(key, &HeaderMap::new()).is_some()
}

async fn all(reader: &mut Reader<&'static str>) -> Result<Bytes, ReadError<&'static str>> {
    let mut whole = Vec::new();
    while let Some(piece) = poll_fn(|cx| reader.poll_piece(cx)).await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole.into())
}

async fn put(cache: &Test, key: &str, tags: &[&str]) {
    let (mut writer, _reader) = fill(cache, key);
    writer.begin(head(None), store(tags));
    writer.push(Bytes::from_static(b"body")).await.unwrap();
    writer.finish().unwrap();
}

#[tokio::test]
async fn readers_share_one_fill_and_late_ones_start_at_its_beginning() {
    let cache = cache();
    let (mut writer, mut first) = fill(&cache, "k");
    let mut second = join(&cache, "k");
    writer.begin(head(Some(6)), store(&[]));
    writer.push(Bytes::from_static(b"abc")).await.unwrap();
    let piece = poll_fn(|cx| second.poll_piece(cx)).await.unwrap().unwrap();
    assert_eq!(piece, "abc", "before the end has come");
    let mut late = join(&cache, "k");
    writer.push(Bytes::from_static(b"def")).await.unwrap();
    let stored = writer.finish().unwrap();
    assert_eq!(stored.body, "abcdef");
    assert_eq!(all(&mut first).await.unwrap(), "abcdef");
    assert_eq!(all(&mut second).await.unwrap(), "def");
    assert_eq!(all(&mut late).await.unwrap(), "abcdef");
    assert!(matches!(cache.lookup("k", &HeaderMap::new(), |_| true), Lookup::Hit(_)));
    assert_eq!(cache.fills_in_progress(), 0);
}

#[tokio::test]
async fn a_thousand_tasks_share_one_fill() {
    let cache = cache();
    let (mut writer, _reader) = fill(&cache, "k");
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let mut reader = join(&cache, "k");
            tokio::spawn(async move { all(&mut reader).await })
        })
        .collect();
    writer.begin(head(None), store(&[]));
    for n in 0..50_u8 {
        writer.push(Bytes::from(vec![n; 100])).await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.finish().unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().len(), 5000);
    }
}

#[tokio::test]
async fn a_fill_that_ends_early_fails_its_readers_and_stores_nothing() {
    let cache = cache();
    let (mut writer, mut reader) = fill(&cache, "dropped");
    writer.begin(head(Some(6)), store(&[]));
    writer.push(Bytes::from_static(b"abc")).await.unwrap();
    drop(writer);
    assert_eq!(all(&mut reader).await, Err(ReadError::Abandoned));

    let (mut writer, mut reader) = fill(&cache, "short");
    writer.begin(head(Some(6)), store(&[]));
    writer.push(Bytes::from_static(b"abc")).await.unwrap();
    assert!(writer.finish().is_none());
    assert_eq!(all(&mut reader).await, Err(ReadError::Short));

    let (mut writer, mut reader) = fill(&cache, "long");
    writer.begin(head(Some(2)), store(&[]));
    writer.push(Bytes::from_static(b"abc")).await.unwrap();
    assert!(writer.finish().is_none());
    assert_eq!(all(&mut reader).await, Err(ReadError::Short));

    let (writer, reader) = fill(&cache, "failed");
    let joined = join(&cache, "failed");
    writer.fail("why");
    assert_eq!(reader.outcome().await.unwrap_err(), ReadError::Failed("why"));
    assert_eq!(joined.outcome().await.unwrap_err(), ReadError::Failed("why"));

    for key in ["dropped", "short", "long", "failed"] {
        assert!(!is_hit(&cache, key), "{key}");
        drop(fill(&cache, key));
    }
    assert_eq!(cache.fills_in_progress(), 0);
}

#[tokio::test]
async fn an_unshared_response_is_for_the_first_reader_and_waits_for_it() {
    let cache = cache();
    let (mut writer, mut reader) = fill(&cache, "k");
    let joined = join(&cache, "k");
    writer.begin(head(Some(1 << 20)), store(&[]));
    assert_eq!(joined.outcome().await.unwrap_err(), ReadError::Unshared, "too large to be stored");
    assert!(reader.outcome().await.is_ok());
    assert!(
        matches!(cache.lookup("k", &HeaderMap::new(), |_| true), Lookup::Fill { .. }),
        "the next one asks for itself"
    );
    writer.push(Bytes::from(vec![0; 60_000])).await.unwrap();
    {
        let mut stuck = Box::pin(writer.push(Bytes::from(vec![0; 60_000])));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut stuck).await.is_err(), "a window is full");
        let taken = poll_fn(|cx| reader.poll_piece(cx)).await.unwrap().unwrap();
        assert_eq!(taken.len(), 60_000);
        stuck.await.unwrap();
    }
    drop((reader, joined));
    assert_eq!(writer.push(Bytes::from_static(b"x")).await, Err(NoReaders));
}

#[tokio::test]
async fn a_body_above_the_limit_is_read_to_its_end_and_not_stored() {
    let cache = cache();
    let (mut writer, mut reader) = fill(&cache, "k");
    let mut second = join(&cache, "k");
    writer.begin(head(None), store(&[]));
    let reads = tokio::spawn(async move {
        let (a, b) = tokio::join!(all(&mut reader), all(&mut second));
        (a.unwrap().len(), b.unwrap().len())
    });
    for _ in 0..20 {
        writer.push(Bytes::from(vec![1; 10_000])).await.unwrap();
    }
    assert!(writer.finish().is_none());
    assert_eq!(reads.await.unwrap(), (200_000, 200_000));
    assert!(!is_hit(&cache, "k"));
}

#[tokio::test]
async fn a_fill_continues_for_the_store_when_all_readers_have_left() {
    let cache = cache();
    let (mut writer, reader) = fill(&cache, "k");
    writer.begin(head(None), store(&[]));
    drop(reader);
    writer.push(Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(writer.finish().unwrap().body, "abc");
    assert!(is_hit(&cache, "k"));
}

#[tokio::test]
async fn a_stored_response_reaches_all_readers() {
    let cache = cache();
    put(&cache, "k", &[]).await;
    let Lookup::Fill { writer, reader, stale, .. } = cache.lookup("k", &HeaderMap::new(), |_| false) else { panic!() };
    let Lookup::Join(joined) = cache.lookup("k", &HeaderMap::new(), |_| false) else { panic!() };
    assert!(cache.claim("k", &HeaderMap::new()).is_none(), "someone does it already");
    writer.answer_revalidated(stale.unwrap(), true);
    for reader in [reader, joined] {
        assert_eq!(reader.outcome().await.unwrap().stored().unwrap().body, "body");
    }
    assert!(cache.claim("k", &HeaderMap::new()).is_some());
}

#[tokio::test]
async fn purges_remove_keys_prefixes_and_tags_also_from_fills_in_progress() {
    let cache = cache();
    for (key, tags) in [("/v/a/1", &["a"][..]), ("/v/a/2", &["a", "x"]), ("/v/b/1", &["b"])] {
        put(&cache, key, tags).await;
    }
    let purge = |target, soft| cache.purge(&Purge { target, soft }, NOW);
    assert_eq!(purge(PurgeTarget::Key("/v/a/1".into()), true), 1);
    assert_eq!(cache.get("/v/a/1", &HeaderMap::new()).unwrap().freshness.life, 0, "soft");
    assert_eq!(purge(PurgeTarget::Tag("a".into()), false), 2);
    assert!(!is_hit(&cache, "/v/a/1") && !is_hit(&cache, "/v/a/2") && is_hit(&cache, "/v/b/1"));
    assert_eq!(purge(PurgeTarget::Prefix("/v/b/".into()), false), 1);
    assert!(!is_hit(&cache, "/v/b/1"));

    let (mut writer, _reader) = fill(&cache, "/v/c/1");
    writer.begin(head(None), store(&["c"]));
    purge(PurgeTarget::Tag("c".into()), false);
    writer.finish();
    assert!(!is_hit(&cache, "/v/c/1"), "it was fetched before the purge");
    put(&cache, "/v/c/1", &["c"]).await;
    assert!(is_hit(&cache, "/v/c/1"));
}

#[tokio::test]
async fn a_request_after_a_purge_does_not_join_a_fill_from_before_it() {
    let cache = cache();
    for (soft, target, begun) in [
        (false, PurgeTarget::Key("/v/a".into()), true),
        (false, PurgeTarget::Path("/v/a".into()), true),
        (true, PurgeTarget::Prefix("/v/".into()), true),
        (false, PurgeTarget::Tag("t".into()), true),
        (false, PurgeTarget::Tag("t".into()), false),
    ] {
        let purge = Purge { target, soft };
        let (mut old, _early) = fill(&cache, "/v/a");
        let (mut other, _other) = fill(&cache, "/w");
        other.begin(head(None), store(&["u"]));
        if begun {
            old.begin(head(None), store(&["t"]));
        }
        cache.purge(&purge, NOW);
        let (mut new, _late) = fill(&cache, "/v/a");
        drop(join(&cache, "/w"));
        if !begun {
            old.begin(head(None), store(&["t"]));
        }
        new.begin(head(None), store(&["t"]));
        new.push(Bytes::from_static(b"new")).await.unwrap();
        new.finish().unwrap();
        old.push(Bytes::from_static(b"old")).await.unwrap();
        old.finish().unwrap();
        let kept = cache.get("/v/a", &HeaderMap::new()).map(|stored| stored.body.clone());
        assert_eq!(kept.as_deref(), Some(b"new".as_slice()), "{purge:?}");
        drop(other);
        cache.purge(&Purge { target: PurgeTarget::Prefix("/".into()), soft: false }, NOW);
    }
    assert_eq!(cache.fills_in_progress(), 0);
}

#[tokio::test]
async fn memory_stays_within_its_limit() {
    let cache: Test = Cache::new(&Config {
        memory: ByteSize::mib(1),
        object: ByteSize::kib(64),
        slice: ByteSize::kib(16),
        window: ByteSize::kib(64),
        ..Config::default()
    });
    for n in 0..200 {
        let (mut writer, _reader) = fill(&cache, &format!("k{n}"));
        writer.begin(head(None), store(&[]));
        writer.push(Bytes::from(vec![0; 50_000])).await.unwrap();
        writer.finish();
    }
    assert!(cache.memory_size().0 <= 1 << 20, "{:?}", cache.memory_size());
}

#[tokio::test]
async fn a_stored_response_does_not_keep_the_buffer_that_it_came_in() {
    let cache = cache();
    let buffer = Bytes::from(vec![b'x'; 1 << 20]);
    let (mut writer, _reader) = fill(&cache, "k");
    let mut head = head(None);
    head.headers.insert("x-a", http::HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap());
    writer.begin(head, store(&[]));
    writer.push(buffer.slice(..100)).await.unwrap();
    let stored = writer.finish().unwrap();
    let within = |bytes: &[u8]| buffer.as_ptr_range().contains(&bytes.as_ptr());
    assert_eq!(stored.body.len(), 100);
    assert!(!within(&stored.body) && !within(stored.headers["x-a"].as_bytes()));
}

fn speaking(language: &str) -> HeaderMap {
    let mut request = HeaderMap::new();
    request.insert(http::header::ACCEPT_LANGUAGE, language.parse().unwrap());
    request
}

#[tokio::test]
async fn variants_are_stored_side_by_side_and_purged_together() {
    let cache = cache();
    let fill = |language: &str| match cache.lookup("k", &speaking(language), |_| true) {
        Lookup::Fill { writer, reader, .. } => (writer, reader),
        other => panic!("{other:?}"),
    };
    let vary = |language: &str| Vary::of([http::header::ACCEPT_LANGUAGE].into_iter(), &speaking(language));
    let put = async |language: &str| {
        let (mut writer, reader) = fill(language);
        writer.begin(ResponseHead { vary: vary(language), ..head(None) }, store(&[]));
        writer.push(Bytes::from(language.to_owned())).await.unwrap();
        writer.finish().unwrap();
        drop(reader);
    };
    put("de").await;
    put("en").await;
    let found = |language: &str| cache.get("k", &speaking(language)).map(|stored| stored.body.clone());
    assert_eq!((found("de"), found("en"), found("fr")), (Some("de".into()), Some("en".into()), None));
    assert_eq!(found(" de "), Some("de".into()), "normalised");
    cache.purge(&Purge { target: PurgeTarget::Key("k".into()), soft: true }, NOW);
    let life = |language: &str| cache.get("k", &speaking(language)).map(|stored| stored.freshness.life);
    assert_eq!((life("de"), life("en")), (Some(0), Some(0)), "a soft purge makes each stale and keeps it");
    cache.purge(&Purge { target: PurgeTarget::Key("k".into()), soft: false }, NOW);
    assert_eq!((found("de"), found("en")), (None, None));
    put("en").await;
    assert_eq!((found("de"), found("en")), (None, Some("en".into())), "what was purged does not come back");

    // While the first variant is being fetched, a request for another one finds out and starts a fill of its own.
    cache.purge(&Purge { target: PurgeTarget::Key("k".into()), soft: false }, NOW);
    let (mut writer, _reader) = fill("de");
    let Lookup::Join(joined) = cache.lookup("k", &speaking("en"), |_| true) else { panic!() };
    writer.begin(ResponseHead { vary: vary("de"), ..head(None) }, store(&[]));
    assert!(!joined.outcome().await.unwrap().vary().matches(&speaking("en")));
    assert!(matches!(cache.lookup("k", &speaking("en"), |_| true), Lookup::Fill { .. }));
}
