//! Large responses in slices: what a range costs, what is shared, and what never is mixed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use proptest::prelude::*;

use super::harness::*;
use crate::support::until_async;

const KIB: usize = 1 << 10;

/// An origin of one representation that does ranges and conditions as it should.
fn ranged(seen: &Seen, body: &[u8], etag: &str) -> Reply {
    let fields = [
        IMMUTABLE,
        ("etag", etag),
        ("accept-ranges", "bytes"),
        ("content-type", "video/mp4"),
        ("surrogate-key", "lesson-a"),
    ];
    if seen.field("if-match").is_some_and(|tag| tag != etag) {
        return Reply::new(412, &[], "");
    }
    if seen.field("if-none-match") == Some(etag) {
        return Reply::new(304, &fields, "");
    }
    let Some(range) = seen.field("range") else { return Reply::new(200, &fields, body) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(usize::MAX).min(body.len() - 1);
    if first >= body.len() {
        return Reply::new(416, &[("content-range", &format!("bytes */{}", body.len()))], "");
    }
    let content_range = format!("bytes {first}-{last}/{}", body.len());
    let mut fields = fields.to_vec();
    fields.push(("content-range", &content_range));
    Reply::new(206, &fields, &body[first..=last])
}

/// Entries of at most 128 KiB, slices of 64 KiB.
fn small(origin: &Origin) -> String {
    paid(&[origin], "[cache]\nobject = \"128KiB\"\nslice = \"64KiB\"\nmemory = \"16MiB\"\n")
}

async fn world(body: &Arc<Vec<u8>>) -> (Origin, TestEdge, String) {
    let sent = Arc::clone(body);
    let origin = Origin::start(move |seen: &Seen| ranged(seen, &sent, "\"one\"")).await;
    let edge = TestEdge::start(&small(&origin)).await;
    let path = format!("/t/{}/v/a/whole.mp4", edge.token());
    (origin, edge, path)
}

async fn range(edge: &TestEdge, path: &str, range: &str) -> Answer {
    edge.send(Method::GET, path, &[("range", range)]).await
}

fn ranges(origin: &Origin) -> Vec<String> {
    origin.seen().iter().map(|seen| seen.field("range").unwrap_or("whole").to_owned()).collect()
}

#[tokio::test]
async fn a_range_of_what_is_not_known_costs_its_slices() {
    let body = Arc::new(pattern(1000 * KIB));
    let (origin, edge, path) = world(&body).await;
    let first = 500 * KIB;
    let answer = range(&edge, &path, &format!("bytes={first}-{}", first + 99)).await;
    assert_eq!((answer.status, answer.body.as_deref()), (StatusCode::PARTIAL_CONTENT, Some(&body[first..first + 100])));
    assert_eq!(answer.field("content-range"), format!("bytes {first}-{}/{}", first + 99, body.len()));
    assert_eq!(answer.field("cache-control"), "private, max-age=31536000, immutable");
    // The slice that holds byte 512,000 is the eighth.
    assert_eq!(ranges(&origin), [format!("bytes={}-{}", 7 * 64 * KIB, 8 * 64 * KIB - 1)]);
    let again = range(&edge, &path, &format!("bytes={}-{}", first + 5, first + 9)).await;
    assert_eq!(
        (again.body.as_deref(), again.field("cache-status")),
        (Some(&body[first + 5..first + 10]), "lyceum; hit")
    );
    assert_eq!(origin.seen().len(), 1);
    let suffix = range(&edge, &path, "bytes=-10").await;
    assert_eq!(suffix.body.as_deref(), Some(&body[body.len() - 10..]));
    assert!(suffix.field("cache-status").starts_with("lyceum; fwd=partial; stored"), "{suffix:?}");
    assert_eq!(origin.seen().len(), 2);
    assert_eq!(origin.seen()[1].field("if-match"), Some("\"one\""));
}

#[tokio::test]
async fn a_large_response_is_shared_in_slices_and_whole_again() {
    let body = Arc::new(pattern(1000 * KIB + 7));
    let (origin, edge, path) = world(&body).await;
    for status in ["lyceum; fwd=uri-miss; fwd-status=200; stored; ttl=31536000", "lyceum; hit"] {
        let answer = edge.get(&path).await;
        assert!(answer.body.as_deref() == Some(&body));
        assert_eq!((answer.field("cache-status"), answer.field("etag")), (status, "\"one\""));
        assert_eq!(answer.field("content-length"), body.len().to_string());
    }
    assert_eq!(origin.seen().len(), 16, "one request a slice: {:?}", ranges(&origin));
    let head = edge.send(Method::HEAD, &path, &[]).await;
    assert_eq!((head.status.as_u16(), head.field("content-length")), (200, body.len().to_string().as_str()));
    for (field, status) in
        [(("if-none-match", "\"one\""), 304), (("if-match", "\"two\""), 412), (("range", "bytes=9999999-"), 416)]
    {
        assert_eq!(edge.send(Method::GET, &path, &[field]).await.status.as_u16(), status, "{field:?}");
    }
    let stale = edge.send(Method::GET, &path, &[("range", "bytes=0-1"), ("if-range", "\"old\"")]).await;
    assert!(stale.status == StatusCode::OK && stale.body.as_deref() == Some(&body));
    let several = range(&edge, &path, &format!("bytes=0-1,{}-{}", 64 * KIB - 1, 64 * KIB)).await;
    let boundary = several.field("content-type").split("boundary=").nth(1).unwrap().to_owned();
    let mut expected =
        format!("--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes 0-1/{}\r\n\r\n", body.len())
            .into_bytes();
    expected.extend_from_slice(&body[..2]);
    let second = format!("bytes {}-{}/{}", 64 * KIB - 1, 64 * KIB, body.len());
    expected.extend(format!("\r\n--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: {second}\r\n\r\n").bytes());
    expected.extend_from_slice(&body[64 * KIB - 1..=64 * KIB]);
    expected.extend(format!("\r\n--{boundary}--\r\n").bytes());
    assert!(several.body.as_deref() == Some(&expected));
    assert_eq!(origin.seen().len(), 16, "all of that from memory");
}

#[tokio::test]
async fn a_range_of_a_small_object_brings_it_whole_and_a_range_beyond_it_is_told() {
    let body = Arc::new(pattern(50 * KIB));
    let (origin, edge, path) = world(&body).await;
    let answer = range(&edge, &path, "bytes=10-19").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_deref()), (206, Some(&body[10..20])));
    let whole = edge.get(&path).await;
    assert!(
        whole.status == StatusCode::OK
            && whole.body.as_deref() == Some(&body)
            && whole.field("cache-status") == "lyceum; hit"
    );
    assert_eq!(origin.seen().len(), 1);
    let other = path.replace("whole", "other");
    let answer = range(&edge, &other, "bytes=999999-").await;
    assert_eq!(
        (answer.status.as_u16(), answer.field("content-range")),
        (416, format!("bytes */{}", body.len()).as_str())
    );
    assert_eq!(edge.get(&other).await.field("cache-status"), "lyceum; hit");
}

#[tokio::test]
async fn slices_of_two_representations_are_never_mixed() {
    let (one, two) = (Arc::new(pattern(300 * KIB)), Arc::new(pattern(300 * KIB).into_iter().rev().collect::<Vec<_>>()));
    let (origin, edge, path) = world(&one).await;
    assert_eq!(range(&edge, &path, "bytes=0-9").await.body.as_deref(), Some(&one[..10]));
    let sent = Arc::clone(&two);
    origin.now(move |seen: &Seen| ranged(seen, &sent, "\"two\""));
    // The next slice shows that it has changed before a byte has gone out: the new one is served, from its beginning on.
    let last = 64 * KIB + 9;
    assert_eq!(
        range(&edge, &path, &format!("bytes={}-{last}", 64 * KIB)).await.body.as_deref(),
        Some(&two[64 * KIB..=last])
    );
    assert_eq!(range(&edge, &path, "bytes=0-9").await.body.as_deref(), Some(&two[..10]));
    assert!(edge.get(&path).await.body.as_deref() == Some(&two));
    assert_eq!(edge.metric("lyceum_edge_fills_total", &["changed"]), 1.0);

    // In the midst of a body nothing is left but to break off.
    let (origin, edge, path) = world(&one).await;
    assert_eq!(range(&edge, &path, "bytes=0-9").await.status, StatusCode::PARTIAL_CONTENT);
    let sent = Arc::clone(&two);
    origin.now(move |seen: &Seen| ranged(seen, &sent, "\"two\""));
    assert_eq!(edge.get(&path).await.body, None);
    assert!(edge.get(&path).await.body.as_deref() == Some(&two), "and the next asker gets the new one");
}

#[tokio::test]
async fn a_part_that_lies_is_not_believed() {
    let body = Arc::new(pattern(300 * KIB));
    let origin = Origin::start(|_| Reply::new(500, &[], "")).await;
    let edge = TestEdge::start(&small(&origin)).await;
    let token = edge.token();
    let lies: [(&str, &str, usize); 4] = [
        ("another part", "bytes 5-104/307200", 100),
        ("no part at all", "bytes */307200", 100),
        ("a longer part", "bytes 0-99999/307200", 100_000),
        ("no length", "bytes 0-65535/*", 65_536),
    ];
    for (n, (what, content_range, length)) in lies.into_iter().enumerate() {
        let sent = Arc::clone(&body);
        origin.now(move |_| {
            Reply::new(206, &[IMMUTABLE, ("etag", "\"one\""), ("content-range", content_range)], &sent[..length])
        });
        let path = format!("/t/{token}/v/a/{n}.mp4");
        assert_eq!(range(&edge, &path, "bytes=0-9").await.code(), "origin_failed", "{what}");
        assert_eq!(edge.get(&path).await.code(), "origin_failed", "{what}, and no range was asked for");
    }
    // A part cut short: nothing short is passed off as whole, nothing is stored.
    let sent = Arc::clone(&body);
    origin.now(move |_| {
        let head = "HTTP/1.1 206 X\r\ncontent-length: 65536\r\ncontent-range: bytes 0-65535/307200\r\netag: \"one\"\r\ncache-control: max-age=60\r\n\r\n";
        Reply(vec![Step::Bytes(head.as_bytes().to_vec()), Step::Bytes(sent[..1000].to_vec()), Step::Break])
    });
    assert_eq!(range(&edge, &format!("/t/{token}/v/a/short.mp4"), "bytes=0-9999").await.body, None);
    let sent = Arc::clone(&body);
    origin.now(move |seen: &Seen| ranged(seen, &sent, "\"one\""));
    assert_eq!(
        range(&edge, &format!("/t/{token}/v/a/short.mp4"), "bytes=0-9999").await.body.as_deref(),
        Some(&body[..10_000])
    );
}

#[tokio::test]
async fn what_can_not_be_stored_is_fetched_as_it_is_asked_for() {
    let body = Arc::new(pattern(300 * KIB));
    let sent = Arc::clone(&body);
    let origin = Origin::start(move |seen: &Seen| {
        let Reply(mut steps) = ranged(seen, &sent, "\"one\"");
        if let Some(Step::Bytes(bytes)) = steps.first_mut() {
            let text = b"public, max-age=31536000, immutable";
            let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
            bytes[at..at + text.len()].copy_from_slice(b"no-store                           ");
        }
        Reply(steps)
    })
    .await;
    let edge = TestEdge::start(&small(&origin)).await;
    let path = format!("/t/{}/v/a/whole.mp4", edge.token());
    let answer = range(&edge, &path, "bytes=100-199").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_deref()), (206, Some(&body[100..200])));
    assert_eq!(ranges(&origin).last().map(String::as_str), Some("bytes=100-199"));
    assert!(edge.get(&path).await.body.as_deref() == Some(&body));
    until_async("both to be counted", Duration::from_secs(5), async || {
        (edge.metric("lyceum_edge_not_stored_total", &["no_store"]) == 2.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stale_large_response_is_validated_and_keeps_its_slices() {
    let body = Arc::new(pattern(300 * KIB));
    let (origin, edge, path) = world(&body).await;
    assert!(edge.get(&path).await.body.as_deref() == Some(&body));
    let before = origin.seen().len();
    edge.clock.advance(Duration::from_secs(31_536_001));
    let path = format!("/t/{}/v/a/whole.mp4", edge.sign(|claims| claims.exp += 40_000_000));
    let answer = edge.get(&path).await;
    assert!(answer.body.as_deref() == Some(&body));
    assert!(answer.field("cache-status").starts_with("lyceum; fwd=stale; fwd-status=304"), "{:?}", answer.headers);
    assert_eq!(origin.seen().len(), before + 1);
    assert_eq!(origin.seen()[before].field("if-none-match"), Some("\"one\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_range_put_together_from_slices_is_the_original() {
    let body = Arc::new(pattern(300 * KIB + 1));
    let (_origin, edge, path) = world(&body).await;
    let (edge, asked) = (Arc::new(edge), AtomicUsize::new(0));
    let runtime = tokio::runtime::Handle::current();
    let length = body.len();
    // Places around the joints of slices are the ones that matter.
    let near_joint = (0..6_usize, 0..5_usize)
        .prop_map(move |(slice, off)| (slice * 64 * KIB + off).saturating_sub(2).min(length - 1));
    let place = prop_oneof![near_joint, 0..length];
    tokio::task::block_in_place(|| {
        proptest!(ProptestConfig::with_cases(96), |(a in place.clone(), b in place, form in 0..3_u8)| {
            let (first, last) = (a.min(b), a.max(b));
            let (field, first, last) = match form {
                0 => (format!("bytes={first}-{last}"), first, last),
                1 => (format!("bytes={first}-"), first, length - 1),
                _ => (format!("bytes=-{}", length - first), first, length - 1),
            };
            let answer = runtime.block_on(range(&edge, &path, &field));
            asked.fetch_add(1, Ordering::Relaxed);
            prop_assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            prop_assert_eq!(answer.field("content-range"), format!("bytes {first}-{last}/{length}"));
            prop_assert!(answer.body.as_deref() == Some(&body[first..=last]), "{}", field);
        });
    });
    assert_eq!(asked.load(Ordering::Relaxed), 96);
}
