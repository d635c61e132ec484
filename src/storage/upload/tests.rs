use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;

use super::headers::{Checksum, Concat, HeaderError, checksum, concat, filename, metadata, number};
use super::writer::IncomingBytes;
use super::*;
use crate::db::{Db, PoolConfig, Url};
use crate::store::{self, Store};
use lyceum_core::ids::Id;
use lyceum_core::time::Clock;
use lyceum_core::units::{ByteSize, Span};

#[test]
fn fields_are_read_strictly() {
    assert_eq!(number("Upload-Offset", "0"), Ok(0));
    for bad in ["", "-1", "+1", " 1", "1 ", "1.0", "0x1", "9999999999999999999", "99999999999999999999"] {
        assert_eq!(number("Upload-Offset", bad), Err(HeaderError::Malformed("Upload-Offset")), "{bad:?}");
    }
    let pairs = metadata("lesson YWJj,filename w6kudHh0, empty").unwrap();
    assert_eq!(pairs[0], ("lesson".to_owned(), b"abc".to_vec()));
    assert_eq!(filename(&pairs[1].1), "é.txt");
    assert_eq!(pairs[2], ("empty".to_owned(), Vec::new()));
    for bad in ["lesson ***", "a YQ==,a YQ==", ",", "é YQ==", "a YQ== x"] {
        assert!(metadata(bad).is_err(), "{bad:?}");
    }
    assert_eq!(filename(b"../../etc/passwd\n"), "passwd");
    assert_eq!(filename(&[b'x'; 999]).len(), 255);
    let ids = ["a1", "b2"].map(|id| Id::parse(id).unwrap()).to_vec();
    assert_eq!(concat("final;/v1/uploads/a1 https://x/v1/uploads/b2/"), Ok(Concat::Final(ids)));
    assert_eq!(concat("partial"), Ok(Concat::Partial));
    for bad in ["", "final", "final;", "final; ", "final;/v1/uploads/../x/A", "Partial"] {
        assert!(concat(bad).is_err(), "{bad:?}");
    }
    assert!(matches!(checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="), Ok(Checksum::Sha1(_))));
    assert_eq!(checksum("md5 AAAA"), Err(HeaderError::UnknownAlgorithm));
    for bad in ["sha1", "sha1 AAAA", "sha1 ***", ""] {
        assert!(checksum(bad).is_err(), "{bad:?}");
    }
}

struct World {
    _dir: tempfile::TempDir,
    uploads: Uploads,
    clock: Clock,
    store: Store,
}

async fn world(config: Config) -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let db = Db::open(&Url::Sqlite(dir.path().join("x.db")), &PoolConfig::default()).await.unwrap();
    let store = Store::open(&store::Config::Directory(dir.path().join("o")), &clock).await.unwrap();
    let uploads = Uploads::new(db, store.clone(), clock.clone(), config);
    World { _dir: dir, uploads, clock, store }
}

impl World {
    async fn create(&self, name: &str, length: Option<u64>) -> Result<Upload, UploadError> {
        let new = NewUpload {
            id: Id::parse(name).unwrap(),
            owner: "ada".to_owned(),
            lesson: Some(Id::parse("l").unwrap()),
            partials: Vec::new(),
            kind: UploadKind::Whole,
            length,
            metadata: String::new(),
            filename: "a.mp4".to_owned(),
        };
        let growth = self.uploads.prepare(&new).await?;
        let mut tx = self.uploads.db.begin().await?;
        let upload = self.uploads.create(&mut tx, &new, &growth).await?;
        tx.commit().await?;
        Ok(upload)
    }

    async fn append(&self, offset: u64, body: IncomingBytes) -> Result<Upload, UploadError> {
        self.append_with(AppendRequest {
            offset,
            content_length: None,
            length: None,
            max_length: None,
            checksum: None,
            body,
        })
        .await
    }

    async fn append_with(&self, request: AppendRequest) -> Result<Upload, UploadError> {
        Ok(self.uploads.append(&Id::parse("u").unwrap(), request).await?.upload)
    }

    async fn received(&self) -> u64 {
        self.uploads.settle(&Id::parse("u").unwrap()).await.unwrap().received
    }
}

fn chunks(parts: Vec<Result<&'static str, &'static str>>) -> IncomingBytes {
    let parts = parts.into_iter().map(|part| part.map(Bytes::from).map_err(str::to_owned));
    futures_util::stream::iter(parts).boxed()
}

#[tokio::test]
async fn an_upload_in_pieces_becomes_an_object() {
    let world = world(Config::default()).await;
    world.create("u", Some(11)).await.unwrap();
    assert_eq!(
        world.append(0, chunks(vec![Ok("hello "), Err("reset")])).await.unwrap_err().to_string(),
        "the body broke off: reset"
    );
    assert_eq!(world.received().await, 6);
    let wrong = world.append(0, chunks(vec![Ok("hello ")])).await;
    assert!(matches!(wrong, Err(UploadError::WrongOffset { expected: 6 })));
    let long = world.append(6, chunks(vec![Ok("world and more")])).await;
    assert!(matches!(long, Err(UploadError::TooLong)));
    let upload = world.append(6, chunks(vec![Ok("wor"), Ok("ld")])).await.unwrap();
    assert!(upload.is_whole());
    assert_eq!(world.uploads.whole_but_open(9).await.unwrap().len(), 1);
    let key = world.uploads.seal(&upload).await.unwrap();
    let mut tx = world.uploads.db.begin().await.unwrap();
    assert!(world.uploads.mark_complete(&mut tx, &upload.id).await.unwrap());
    assert!(!world.uploads.mark_complete(&mut tx, &upload.id).await.unwrap());
    tx.commit().await.unwrap();
    let object = world.store.get(&key, None).await.unwrap();
    assert_eq!(store::read_all(object.body, 99).await.unwrap(), "hello world");
    assert!(matches!(world.append(11, chunks(vec![])).await, Err(UploadError::NotWritable)));
}

#[tokio::test]
async fn the_newest_request_wins_and_what_the_older_one_had_is_kept() {
    let world = world(Config::default()).await;
    world.create("u", Some(11)).await.unwrap();
    // Rung when the writer has taken what there is and asks for more.
    let taken = Arc::new(tokio::sync::Notify::new());
    let rung = Arc::clone(&taken);
    let silence = futures_util::stream::once(async move {
        rung.notify_one();
        std::future::pending().await
    });
    let ghost = chunks(vec![Ok("hello ")]).chain(silence).boxed();
    let uploads = world.uploads.clone();
    let request =
        AppendRequest { offset: 0, content_length: None, length: None, max_length: None, checksum: None, body: ghost };
    let older = tokio::spawn(async move { uploads.append(&Id::parse("u").unwrap(), request).await });
    taken.notified().await;
    assert_eq!(world.received().await, 6);
    assert!(matches!(older.await.unwrap(), Err(UploadError::Superseded)));
    assert!(world.append(6, chunks(vec![Ok("world")])).await.unwrap().is_whole());
}

#[tokio::test]
async fn a_writer_on_another_origin_that_is_dead_is_fenced_off() {
    let config = Config { takeover: Span::millis(100), ..Config::default() };
    let world = world(config).await;
    let upload = world.create("u", Some(5)).await.unwrap();
    // As another origin would, and then die.
    let ticket = world.uploads.take_ticket(&upload.id).await.unwrap();
    world.uploads.take_over(&upload.id, ticket, true).await.unwrap();
    assert!(world.append(0, chunks(vec![Ok("hello")])).await.unwrap().is_whole());
    let mut tx = world.uploads.db.begin().await.unwrap();
    let late = record::acknowledge(&mut tx, &upload.id, ticket, 3, &upload.growth, true, 0).await.unwrap();
    assert!(!late, "a writer that lost the upload can acknowledge nothing");
}

#[tokio::test]
async fn a_body_that_misses_its_checksum_leaves_nothing() {
    let world = world(Config::default()).await;
    world.create("u", Some(11)).await.unwrap();
    let request = |text: &'static str, sum: &str| AppendRequest {
        offset: 0,
        content_length: None,
        length: None,
        max_length: None,
        checksum: Some(checksum(sum).unwrap()),
        body: chunks(vec![Ok(text)]),
    };
    let sha1 = "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=";
    let wrong = world.append_with(request("hello_world", sha1)).await;
    assert!(matches!(wrong, Err(UploadError::ChecksumMismatch)));
    assert_eq!(world.received().await, 0);
    assert!(world.append_with(request("hello world", sha1)).await.unwrap().is_whole());
}

#[tokio::test]
async fn a_length_may_come_later_and_only_once() {
    let world = world(Config::default()).await;
    world.create("u", None).await.unwrap();
    world.append(0, chunks(vec![Ok("hello")])).await.unwrap();
    let say = |length| AppendRequest {
        offset: 5,
        content_length: Some(0),
        length: Some(length),
        max_length: None,
        checksum: None,
        body: chunks(vec![]),
    };
    assert!(matches!(world.append_with(say(4)).await, Err(UploadError::WrongLength)));
    assert!(world.append_with(say(5)).await.unwrap().is_whole());
    assert!(matches!(world.append_with(say(6)).await, Err(UploadError::WrongLength)));
}

#[tokio::test]
async fn limits_hold_and_what_takes_no_bytes_is_overdue() {
    let world = world(Config { open_per_key: 1, size: ByteSize::mib(1), ..Config::default() }).await;
    assert!(matches!(world.create("big", Some(2 << 20)).await, Err(UploadError::TooLarge { .. })));
    world.create("u", Some(3)).await.unwrap();
    assert!(matches!(world.create("v", Some(3)).await, Err(UploadError::TooMany { limit: 1 })));
    world.clock.advance(std::time::Duration::from_secs(2 * 24 * 3600));
    world.append(0, chunks(vec![Ok("a")])).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(2 * 24 * 3600));
    assert!(world.uploads.overdue(9).await.unwrap().is_empty());
    world.clock.advance(std::time::Duration::from_secs(2 * 24 * 3600));
    let overdue = world.uploads.overdue(9).await.unwrap();
    let mut tx = world.uploads.db.begin().await.unwrap();
    let upload = world.uploads.terminate(&mut tx, &overdue[0]).await.unwrap();
    tx.commit().await.unwrap();
    world.uploads.clear(&upload).await.unwrap();
    assert!(matches!(world.uploads.settle(&overdue[0]).await, Err(UploadError::Gone)));
    world.create("v", Some(3)).await.unwrap();
}

#[tokio::test]
async fn bytes_that_the_store_lost_are_not_acknowledged_again() {
    for left in [None, Some(3)] {
        let world = world(Config::default()).await;
        let upload = world.create("u", Some(10)).await.unwrap();
        world.append(0, chunks(vec![Ok("01234")])).await.unwrap();
        assert_eq!(world.uploads.settle(&upload.id).await.unwrap().received, 5);
        let file = world._dir.path().join("o/.growing/uploads/u");
        match left {
            None => std::fs::remove_file(file).unwrap(),
            Some(bytes) => std::fs::File::options().write(true).open(file).unwrap().set_len(bytes).unwrap(),
        }
        assert!(matches!(world.uploads.settle(&upload.id).await, Err(UploadError::Lost)), "{left:?}");
        assert!(matches!(world.append(5, chunks(vec![Ok("56789")])).await, Err(UploadError::Lost)), "{left:?}");
    }
}

#[tokio::test]
async fn what_nobody_writes_to_is_overdue_soon_and_what_ended_is_cleared_once() {
    let world = world(Config::default()).await;
    world.create("u", Some(10)).await.unwrap();
    world.create("unused", Some(10)).await.unwrap();
    world.append(0, chunks(vec![Ok("01234")])).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(3601));
    let unused = Id::parse("unused").unwrap();
    assert_eq!(world.uploads.overdue(9).await.unwrap(), [unused]);
    let mut tx = world.uploads.db.begin().await.unwrap();
    world.uploads.terminate(&mut tx, &Id::parse("u").unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    let ended = world.uploads.to_clear(9).await.unwrap();
    assert_eq!(ended.len(), 1);
    world.uploads.clear(&ended[0]).await.unwrap();
    assert!(world.uploads.to_clear(9).await.unwrap().is_empty());
    assert!(!world._dir.path().join("o/.growing/uploads/u").exists());
}
