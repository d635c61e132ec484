//! The disk tier by itself.

use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus::Registry;

use super::config::DiskConfig;
use super::directory::TEMPORARY;
use super::tier::{Disk, DiskError};
use crate::purge::{Purge, PurgeLog, PurgeTarget};
use crate::stored_response::StoredResponse;
use lyceum_core::time::Clock;
use lyceum_core::units::{ByteSize, Span};
use lyceum_http::freshness::{Freshness, FreshnessState};

const NOW: i64 = 1_800_000_000_000;

struct World {
    dir: tempfile::TempDir,
    purges: Arc<PurgeLog>,
    registry: Registry,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            purges: Arc::default(),
            registry: Registry::new(),
            clock: Clock::manual(NOW),
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn try_open(&self, size: u64) -> Result<Disk, DiskError> {
        self.try_open_with(size, 0)
    }

    fn try_open_with(&self, size: u64, min_free: u64) -> Result<Disk, DiskError> {
        let config = DiskConfig {
            path: self.root(),
            size: ByteSize(size),
            min_free: ByteSize(min_free),
            queue: ByteSize::mib(64),
            readers: 4,
            least_life: Span::secs(10),
            rest: Span::secs(10),
        };
        Disk::open(&config, Arc::clone(&self.purges), self.clock.clone(), &self.registry)
    }

    /// Once the one before has let go of the directory, and what it left has been taken up.
    fn open(&self, size: u64) -> Disk {
        let disk = until("the lock", || match self.try_open(size) {
            Ok(disk) => Some(disk),
            Err(DiskError::Taken(_)) => None,
            Err(other) => panic!("{other}"),
        });
        until("the scan", || disk.directory.scanned.load(Ordering::Acquire).then_some(()));
        disk
    }

    fn put(&self, disk: &Disk, key: &str, body: &[u8], tags: &[&str]) {
        self.offer(disk, key, body, tags);
        until("the writer", || (disk.directory.queued_bytes.load(Ordering::Acquire) == 0).then_some(()));
    }

    fn offer(&self, disk: &Disk, key: &str, body: &[u8], tags: &[&str]) {
        disk.offer(key, &Arc::new(stored(body, 60, tags)), self.purges.epoch());
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.root()).unwrap().flatten().filter(|folder| folder.file_name().len() == 2);
        folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path())).collect()
    }
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(value) = condition() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain for {what}");
}

fn stored(body: &[u8], life: u32, tags: &[&str]) -> StoredResponse {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, HeaderValue::from_static("\"one\""));
    headers.insert("x-bytes", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let freshness = Freshness {
        life,
        initial_age: 3,
        received_ms: NOW,
        always_validate: false,
        must_revalidate: true,
        while_revalidate: 5,
        if_error: 6,
        ended: false,
    };
    let mut stored = StoredResponse::whole(StatusCode::NOT_FOUND, headers, Bytes::copy_from_slice(body), freshness);
    stored.tags = tags.iter().map(|tag| (*tag).into()).collect();
    stored
}

#[tokio::test]
async fn an_entry_comes_back_as_it_was_over_a_restart() {
    let world = World::new();
    let disk = world.open(1 << 20);
    world.put(&disk, "/v/a/1", b"body", &["a", "b"]);
    let mut disk = Some(disk);
    for _ in 0..2 {
        let disk = disk.take().unwrap_or_else(|| world.open(1 << 20));
        let (found, put) = (disk.read("/v/a/1").await.unwrap(), stored(b"body", 60, &["a", "b"]));
        assert_eq!((found.status, &found.headers, &found.body), (put.status, &put.headers, &put.body));
        assert_eq!((&found.freshness, &found.tags), (&put.freshness, &put.tags));
        assert!(disk.read("/v/a/2").await.is_none());
        assert_eq!(disk.size(), (4096, 1));
        assert!(matches!(world.try_open(1 << 20), Err(DiskError::Taken(_))), "one process at a time");
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = world.files().remove(0);
    assert_eq!((mode(&file), mode(file.parent().unwrap()), mode(&world.root())), (0o600, 0o700, 0o700));
}

#[tokio::test]
async fn a_file_with_a_changed_bit_or_a_missing_end_is_removed() {
    let world = World::new();
    let disk = world.open(1 << 20);
    world.put(&disk, "k", b"some body", &[]);
    let file = world.files().remove(0);
    let sound = fs::read(&file).unwrap();
    // Bytes 8 to 15 are the state: any change there only makes it stale.
    let places: Vec<usize> = (0..8).chain(16..sound.len()).step_by(7).chain([sound.len() - 1]).collect();
    let broken = places.iter().map(|at| {
        let mut broken = sound.clone();
        broken[*at] ^= 0x10;
        broken
    });
    let cut = [0, 7, 20, 60, sound.len() - 1].map(|end| sound[..end].to_vec());
    for bytes in broken.chain(cut) {
        world.put(&disk, "k", b"some body", &[]);
        fs::write(&file, &bytes).unwrap();
        assert!(disk.read("k").await.is_none());
        assert!(!file.exists() && !disk.may_hold("k"));
    }
    let mut soft = sound.clone();
    soft[9] ^= 1;
    world.put(&disk, "k", b"some body", &[]);
    fs::write(&file, &soft).unwrap();
    assert_eq!(disk.read("k").await.unwrap().freshness.life, 0);

    // What an earlier run left half-written or broken is not taken up.
    drop(disk);
    fs::write(&file, &sound[..40]).unwrap();
    fs::write(world.root().join(TEMPORARY).join("x"), b"half").unwrap();
    let disk = world.open(1 << 20);
    assert_eq!(disk.size(), (0, 0));
    assert!(!file.exists() && !world.root().join(TEMPORARY).join("x").exists());
}

#[tokio::test]
async fn a_revalidation_writes_the_header_alone_and_a_crash_in_it_costs_nothing() {
    let world = World::new();
    let disk = world.open(8 << 20);
    let body = vec![7; 100_000];
    world.put(&disk, "k", &body, &["a"]);
    let count = |result: &str| disk.directory.metrics.writes.with_label_values(&[result]).get();
    let file = world.files().remove(0);
    let (before, created) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().created().unwrap());
    let renew = |tag: &str, received_ms: i64| {
        let mut renewed = stored(&body, 90, &[tag]);
        renewed.headers.insert("x-new", HeaderValue::from_static("yes"));
        renewed.freshness.received_ms = received_ms;
        disk.offer("k", &Arc::new(renewed), world.purges.epoch());
        until("the writer", || (disk.directory.queued_bytes.load(Ordering::Acquire) == 0).then_some(()));
    };
    renew("b", NOW + 5);
    assert_eq!((count("ok"), count("renewed")), (1, 1));
    let after = fs::read(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().created().unwrap(), created, "the same file");
    assert!(
        after.len() < before.len() + 4096 && after[60..before.len()] == before[60..],
        "the body was not written again"
    );
    let found = disk.read("k").await.unwrap();
    assert_eq!(
        (found.freshness.received_ms, &found.headers["x-new"], &*found.tags[0]),
        (NOW + 5, &HeaderValue::from_static("yes"), "b")
    );
    assert!(found.body == body);

    // The new header is there, and what is in front does not name it yet.
    fs::write(&file, [&before[..60], &after[60..]].concat()).unwrap();
    assert_eq!(disk.read("k").await.unwrap().freshness.received_ms, NOW, "the old one is in force");

    // What was made stale is fresh once it was validated, and other bytes are another file.
    let purge = Purge { target: PurgeTarget::Key("k".into()), soft: true };
    disk.purge(&purge);
    renew("b", NOW + 6);
    assert_eq!((disk.read("k").await.unwrap().freshness.life, count("renewed")), (90, 2));
    world.put(&disk, "k", b"other", &[]);
    assert_eq!((count("ok"), &*disk.read("k").await.unwrap().body), (2, b"other".as_slice()));

    // Old headers are bounded.
    for n in 0..700 {
        renew("b", NOW + n);
    }
    assert!(fs::metadata(&file).unwrap().len() < 100_000 + (512 << 10));
    assert_eq!(disk.size().0, fs::metadata(&file).unwrap().len().div_ceil(4096) * 4096);
}

#[tokio::test]
async fn its_size_is_bounded_and_the_least_recently_used_entry_is_evicted() {
    let world = World::new();
    let disk = world.open(1 << 20);
    for n in 0..10 {
        world.put(&disk, &format!("k{n}"), &[n; 90_000], &[]);
    }
    assert!(disk.read("k0").await.is_some(), "used again");
    world.put(&disk, "k10", &[10; 90_000], &[]);
    world.put(&disk, "k11", &[11; 90_000], &[]);
    assert!(disk.size().0 <= 1 << 20);
    assert!(disk.may_hold("k0") && disk.may_hold("k11") && !disk.may_hold("k1"));
    world.put(&disk, "huge", &[0; 2 << 20], &[]);
    assert!(!disk.may_hold("huge") && disk.may_hold("k11"), "what never fits drives nothing out");
    assert_eq!(world.files().len(), disk.size().1);
    drop(disk);
    let disk = world.open(1 << 20);
    assert!(disk.size().0 <= 1 << 20 && disk.size().1 >= 9);
}

#[tokio::test]
async fn purges_reach_queued_entries_and_those_of_an_earlier_run() {
    let world = World::new();
    let disk = world.open(1 << 20);
    let purge = |disk: &Disk, target: PurgeTarget, soft: bool| {
        let purge = Purge { target, soft };
        world.purges.note(&purge);
        disk.purge(&purge)
    };
    for (key, tag) in [("/v/a/1", "a"), ("/v/a/2", "a"), ("/v/b/1", "b"), ("/v/c/1", "c")] {
        world.put(&disk, key, b"x", &[tag]);
    }
    drop(disk);
    let disk = world.open(1 << 20);
    assert_eq!(purge(&disk, PurgeTarget::Tag("a".into()), false), 2);
    assert!(disk.read("/v/a/1").await.is_none() && disk.read("/v/b/1").await.is_some());
    assert_eq!(purge(&disk, PurgeTarget::Prefix("/v/b/".into()), true), 1);
    let ended = disk.read("/v/b/1").await.unwrap().freshness.clone();
    assert_eq!((ended.left(NOW), ended.left(NOW + 4000)), (0, -4), "soft: stale from then on");
    world.clock.advance(Duration::from_secs(4));
    disk.purge(&Purge { target: PurgeTarget::Key("/v/b/1".into()), soft: true });
    assert_eq!(disk.read("/v/b/1").await.unwrap().freshness, ended, "and no later");
    assert_eq!(purge(&disk, PurgeTarget::Path("/v/c/1".into()), false), 1);
    assert_eq!(world.files().len(), 1);

    // What was fetched before a purge is not written after it.
    let epoch = world.purges.epoch();
    purge(&disk, PurgeTarget::Tag("late".into()), false);
    disk.offer("/v/d/1", &Arc::new(stored(b"x", 60, &["late"])), epoch);
    until("the writer", || {
        (world.files().len() == 1 && disk.directory.queued_bytes.load(Ordering::Acquire) == 0).then_some(())
    });
    assert!(disk.read("/v/d/1").await.is_none());
    drop(disk);

    // A purge before the scan has come to an entry.
    purge_before(&world, "b");
    let disk = world.open(1 << 20);
    assert!(disk.read("/v/b/1").await.is_none());
    assert!(world.files().is_empty());
}

fn purge_before(world: &World, tag: &str) {
    world.purges.note(&Purge { target: PurgeTarget::Tag(tag.into()), soft: false });
}

#[tokio::test]
async fn a_disk_that_fails_is_not_used_for_a_while() {
    let world = World::new();
    let disk = world.open(1 << 20);
    fs::remove_dir_all(world.root().join(TEMPORARY)).unwrap();
    fs::write(world.root().join(TEMPORARY), b"a file in place of a directory").unwrap();
    world.put(&disk, "k", b"x", &[]);
    let count = |result: &str| disk.directory.metrics.writes.with_label_values(&[result]).get();
    assert_eq!((count("failed"), disk.read("k").await.is_none()), (1, true));
    assert!(disk.directory.is_resting());
    world.put(&disk, "k", b"x", &[]);
    assert_eq!((count("failed"), count("resting")), (1, 1));
    fs::remove_file(world.root().join(TEMPORARY)).unwrap();
    fs::create_dir(world.root().join(TEMPORARY)).unwrap();
    *disk.directory.rests_until.lock().unwrap() = None;
    world.put(&disk, "k", b"x", &[]);
    assert_eq!(count("ok"), 1);
    assert!(disk.read("k").await.is_some(), "and used again when it is well");
}

#[tokio::test]
async fn responses_soon_stale_or_too_many_for_the_queue_are_not_written() {
    let world = World::new();
    let disk = world.open(1 << 30);
    disk.offer("short", &Arc::new(stored(b"x", 12, &[])), 0);
    assert_eq!(disk.directory.queued_bytes.load(Ordering::Acquire), 0);
    let large = Arc::new(stored(&vec![0; 40 << 20], 60, &[]));
    for n in 0..3 {
        disk.offer(&format!("large{n}"), &large, 0);
    }
    assert!(disk.directory.metrics.writes.with_label_values(&["queue_full"]).get() >= 1);
}

#[tokio::test]
async fn ages_go_on_over_a_restart_and_what_is_from_the_future_is_to_be_validated() {
    let mut world = World::new();
    let disk = world.open(1 << 20);
    world.put(&disk, "k", b"x", &[]);
    // Within the run the wall clock does not matter until it says that the file is from the future.
    world.clock.put_right(-1_000);
    assert_eq!(disk.read("k").await.unwrap().freshness.age(world.clock.steady_millis()), 3);
    world.clock.put_right(1_000);
    drop(disk);
    // Another process: its steady clock began elsewhere.
    world.clock = Clock::manual(NOW - 9_000_000);
    world.clock.put_right(9_000_000 + 20_000);
    let disk = world.open(1 << 20);
    assert_eq!(disk.read("k").await.unwrap().freshness.age(world.clock.steady_millis()), 23);
    world.clock.put_right(-3_600_000);
    let found = disk.read("k").await.unwrap().freshness.clone();
    assert_eq!(found.standing(world.clock.steady_millis()), FreshnessState::Stale);
}

#[tokio::test]
async fn what_is_written_anew_while_its_corrupt_file_is_read_stays() {
    let world = World::new();
    let disk = world.open(1 << 20);
    world.put(&disk, "k", b"corrupt", &[]);
    let read = disk.directory.index().touch("k");
    world.put(&disk, "k", b"sound", &[]);
    disk.directory.forget_as_read("k", read);
    assert_eq!(&*disk.read("k").await.unwrap().body, b"sound");
    assert_eq!((world.files().len(), disk.size()), (1, (4096, 1)));
    let read = disk.directory.index().touch("k");
    disk.directory.forget_as_read("k", read);
    assert!(world.files().is_empty() && !disk.may_hold("k"));
}

#[tokio::test]
async fn files_make_room_where_the_file_system_has_less_free_than_it_shall() {
    let world = World::new();
    // More than any file system has free: each write makes room for itself, and does not empty the tier.
    let disk = world.try_open_with(1 << 30, 1 << 50).unwrap();
    until("the scan", || disk.directory.scanned.load(Ordering::Acquire).then_some(()));
    for n in 0..10 {
        world.put(&disk, &format!("k{n}"), b"x", &[]);
    }
    assert_eq!(disk.size(), (4096, 1));
    assert!(disk.may_hold("k9") && disk.directory.metrics.evicted.get() == 9);
}
