use super::*;
use lyceum_core::ids::Id;
use lyceum_storage::db::{Db, PoolConfig, Tx, Url};

async fn database() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&Url::Sqlite(dir.path().join("x.db")), &PoolConfig::default()).await.unwrap();
    (dir, db)
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

#[tokio::test]
async fn a_key_is_found_by_its_secret_alone_and_takes_its_logins_along() {
    let (_dir, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    let ada = Identity { id: id("k1"), role: Role::Creator, name: "Ada".to_owned(), created: 1, quota: Some(9) };
    add_identity(&mut tx, &ada).await.unwrap();
    let secret = async |tx: &mut Tx, name: &str, expires: Option<i64>| {
        let secret = Secret { id: id(name), identity: ada.id.clone(), created: 1, expires };
        add_secret(tx, &secret, hash_secret(name)).await.unwrap();
    };
    secret(&mut tx, "s1", None).await;
    secret(&mut tx, "s2", Some(50)).await;
    let found = async |tx: &mut Tx, name: &str, now: i64| find_by_secret(tx, hash_secret(name), now).await.unwrap();
    assert_eq!(found(&mut tx, "s1", 49).await, Some((ada.clone(), id("s1"))));
    assert_eq!(found(&mut tx, "s2", 49).await, Some((ada.clone(), id("s2"))));
    assert_eq!((found(&mut tx, "s2", 50).await, found(&mut tx, "s3", 1).await), (None, None));
    for (page, secret) in [("page1", "s1"), ("page2", "s2")] {
        add_login(&mut tx, hash_secret(page), &id(secret), 100).await.unwrap();
    }
    let login = async |tx: &mut Tx, page: &str, now: i64| find_by_login(tx, hash_secret(page), now).await.unwrap();
    assert_eq!(login(&mut tx, "page1", 99).await.as_ref(), Some(&ada));
    assert_eq!(login(&mut tx, "page1", 100).await, None);
    assert_eq!(login(&mut tx, "page2", 50).await, None, "no longer than its secret");
    // Rotated: the newest stays, the others end together, or when they did before.
    secret(&mut tx, "s3", None).await;
    assert_eq!(end_other_secrets(&mut tx, &ada.id, &id("s3"), 80).await.unwrap(), 1);
    assert_eq!(count_secrets(&mut tx, &ada.id, 49).await.unwrap(), 3);
    assert_eq!(count_secrets(&mut tx, &ada.id, 79).await.unwrap(), 2);
    assert_eq!((found(&mut tx, "s1", 80).await, login(&mut tx, "page1", 80).await), (None, None));
    assert!(delete_secret(&mut tx, &ada.id, &id("s1")).await.unwrap());
    assert!(!delete_secret(&mut tx, &id("k2"), &id("s3")).await.unwrap(), "it is another's");
    drop_expired_secrets(&mut tx, 60).await.unwrap();
    let page = Page { after: (0, String::new()), limit: 9 };
    let kept = secrets_of(&mut tx, &ada.id, 1, &page).await.unwrap();
    assert_eq!(kept.iter().map(|secret| secret.id.as_str()).collect::<Vec<_>>(), ["s3"]);
    delete_identity(&mut tx, &ada.id).await.unwrap();
    assert_eq!(found(&mut tx, "s3", 1).await, None);
}

#[tokio::test]
async fn the_configured_admin_key_replaces_the_one_before() {
    let (_dir, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    let admin = Identity { id: id("admin"), role: Role::Admin, name: "admin".to_owned(), created: 1, quota: None };
    configure_admin_secret(&mut tx, &admin, hash_secret("old"), 1).await.unwrap();
    configure_admin_secret(&mut tx, &admin, hash_secret("new"), 2).await.unwrap();
    assert_eq!(find_by_secret(&mut tx, hash_secret("old"), 3).await.unwrap(), None);
    assert!(find_by_secret(&mut tx, hash_secret("new"), 3).await.unwrap().is_some());
    assert_eq!(count_lasting_admin_secrets(&mut tx).await.unwrap(), 1);
    note_applied(&mut tx, "admin_key", hash_secret("old")).await.unwrap();
    note_applied(&mut tx, "admin_key", hash_secret("new")).await.unwrap();
    assert!(was_applied(&mut tx, "admin_key", hash_secret("new")).await.unwrap());
    assert!(!was_applied(&mut tx, "admin_key", hash_secret("old")).await.unwrap());
}

#[tokio::test]
async fn entitlements_end_and_their_sessions_are_revoked_once_in_order() {
    let (_dir, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    let (course, lesson) = (id("c"), id("l"));
    entitle(&mut tx, "eve", &course, Some(50), 1).await.unwrap();
    assert_eq!(entitlement(&mut tx, "eve", &course, 49).await.unwrap(), Some(Entitlement { expires: Some(50) }));
    assert_eq!(entitlement(&mut tx, "eve", &course, 50).await.unwrap(), None);
    entitle(&mut tx, "eve", &course, None, 1).await.unwrap();
    assert_eq!(entitlement(&mut tx, "eve", &course, 1 << 40).await.unwrap(), Some(Entitlement { expires: None }));
    for (name, viewer) in [("s1", "eve"), ("s2", "eve"), ("s3", "bob")] {
        let new = NewSession {
            id: id(name),
            viewer: viewer.to_owned(),
            course: course.clone(),
            lesson: lesson.clone(),
            expires: 5_000,
            entitled_until: Some(i64::MAX),
        };
        start_session(&mut tx, &new, 1).await.unwrap();
    }
    let renewed = |name: &str, viewer: &str| NewSession {
        id: id(name),
        viewer: viewer.to_owned(),
        course: course.clone(),
        lesson: lesson.clone(),
        expires: 9_000,
        entitled_until: Some(i64::MAX),
    };
    assert!(renew_session(&mut tx, &renewed("s3", "bob"), 2).await.unwrap());
    assert_eq!(session(&mut tx, &id("s3")).await.unwrap().unwrap().expires, 9_000);
    assert!(!renew_session(&mut tx, &renewed("s2", "bob"), 2).await.unwrap(), "it is another's");
    assert!(!renew_session(&mut tx, &renewed("s2", "eve"), 5_000).await.unwrap(), "it is over");
    assert!(revoke_session(&mut tx, &id("s1"), 10).await.unwrap());
    assert!(!renew_session(&mut tx, &renewed("s1", "eve"), 11).await.unwrap(), "it was revoked");
    assert!(revoke_session(&mut tx, &id("s1"), 11).await.unwrap());
    assert!(!revoke_session(&mut tx, &id("none"), 11).await.unwrap());
    assert_eq!(revoke_viewer_sessions(&mut tx, "eve", &course, 12).await.unwrap(), 1);
    let events = events_after(&mut tx, 0, 13, 10).await.unwrap();
    let positions: Vec<_> = events.iter().map(|event| event.position).collect();
    assert_eq!(positions, [1, 2]);
    assert!(events[0].json.contains("s1") && events[1].json.contains("s2"));
    assert_eq!(events_after(&mut tx, 1, 13, 10).await.unwrap().len(), 1);
    assert_eq!(newest_event(&mut tx).await.unwrap(), 2);
}

#[tokio::test]
async fn no_session_outlives_the_entitlement_that_it_stands_on() {
    let (_dir, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    let (course, hour) = (id("c"), 3_600_000);
    let begin = |name: &str, expires: i64, entitled_until: Option<i64>| NewSession {
        id: id(name),
        viewer: "eve".to_owned(),
        course: course.clone(),
        lesson: id("l"),
        expires,
        entitled_until,
    };
    for new in [
        begin("endless", 5 * hour, Some(i64::MAX)),
        begin("long", 4 * hour, Some(4 * hour)),
        begin("short", hour, Some(i64::MAX)),
        begin("preview", 5 * hour, None),
    ] {
        start_session(&mut tx, &new, 1).await.unwrap();
    }
    assert_eq!(entitle(&mut tx, "eve", &course, Some(5 * hour), 2).await.unwrap(), 0, "as long as the longest");
    assert_eq!(entitle(&mut tx, "eve", &course, Some(2 * hour), 2).await.unwrap(), 2, "shortened");
    assert_eq!(entitle(&mut tx, "bob", &course, Some(1), 2).await.unwrap(), 0);
    let running = async |tx: &mut Tx, name: &str| session(tx, &id(name)).await.unwrap().unwrap().revoked.is_none();
    assert!(!running(&mut tx, "endless").await && !running(&mut tx, "long").await);
    assert!(running(&mut tx, "short").await && running(&mut tx, "preview").await);
    // Edges accept a token for half a minute after its end, but not after the end of what was bought.
    start_session(&mut tx, &begin("last", 2 * hour, Some(2 * hour)), 3).await.unwrap();
    assert!(!any_lapsed_session(&mut tx, 2 * hour - 1).await.unwrap());
    assert_eq!(revoke_lapsed_sessions(&mut tx, 2 * hour - 1, 9).await.unwrap(), 0);
    assert!(any_lapsed_session(&mut tx, 2 * hour).await.unwrap());
    assert_eq!(revoke_lapsed_sessions(&mut tx, 2 * hour, 9).await.unwrap(), 1);
    assert!(!any_lapsed_session(&mut tx, 2 * hour).await.unwrap());
    let told = events_after(&mut tx, 0, 2 * hour, 10).await.unwrap();
    assert_eq!(told.len(), 3);
    assert!(told[2].json.contains("last"), "{told:?}");
    // Withdrawn within that half minute: edges hear of it.
    assert_eq!(revoke_viewer_sessions(&mut tx, "eve", &course, hour + 20_000).await.unwrap(), 2);
    assert_eq!(events_after(&mut tx, 3, hour + 20_000, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_version_serves_only_while_it_is_the_newest() {
    let (_dir, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    let lesson_id = id("l");
    add_lesson(
        &mut tx,
        &NewLesson {
            id: lesson_id.clone(),
            course: id("c"),
            title: "T".to_owned(),
            owner: "k".to_owned(),
            encrypt: false,
        },
        1,
    )
    .await
    .unwrap();
    assert_eq!(lessons_by_state(&mut tx).await.unwrap(), [("awaiting_upload".to_owned(), 1)]);
    for name in ["v1", "v2"] {
        let new = NewVersion {
            id: id(name),
            lesson: lesson_id.clone(),
            source: "uploads/x".to_owned(),
            source_bytes: 9,
            filename: String::new(),
        };
        add_version(&mut tx, &new, 1).await.unwrap();
        assert!(record_plan(&mut tx, &id(name), "{}", "{}", 1000, "[]", 2).await.unwrap());
        assert!(!record_plan(&mut tx, &id(name), "{}", "{}", 1000, "[]", 2).await.unwrap());
    }
    start_serving(&mut tx, &lesson_id, &id("v1"), 3).await.unwrap();
    assert!(playing_version(&mut tx, &lesson_id).await.unwrap().is_none());
    start_serving(&mut tx, &lesson_id, &id("v2"), 3).await.unwrap();
    assert_eq!(playing_version(&mut tx, &lesson_id).await.unwrap().unwrap().id, id("v2"));
    assert_eq!(versions_to_remove(&mut tx, 4, 9).await.unwrap(), [(lesson_id.clone(), id("v1"))]);
    let object = |path: &str| StoredObject { path: path.to_owned(), bytes: 1, handover: format!("\"{path}\"") };
    add_objects(&mut tx, &id("v2"), &[object("a"), object("b")]).await.unwrap();
    let seen = add_objects(&mut tx, &id("v2"), &[object("b"), object("c")]).await.unwrap();
    let objects = objects_after(&mut tx, &id("v2"), seen - 1).await.unwrap();
    assert_eq!(objects, [(seen, "\"c\"".to_owned())]);
    assert!(finish_version(&mut tx, &id("v2"), "[]", 5).await.unwrap());
    assert!(!fail_version(&mut tx, &id("v2"), "x", "y", 6).await.unwrap());
    assert_eq!(lessons_by_state(&mut tx).await.unwrap(), [("ready".to_owned(), 1)]);
    assert!(mark_lesson_deleted(&mut tx, &lesson_id, 7).await.unwrap());
    assert_eq!(lessons_by_state(&mut tx).await.unwrap(), []);
    assert!(lesson(&mut tx, &lesson_id).await.unwrap().is_none());
    assert!(playing_version(&mut tx, &lesson_id).await.unwrap().is_none());
    assert_eq!(lessons_to_remove(&mut tx, 9).await.unwrap(), std::slice::from_ref(&lesson_id));
    forget_lesson(&mut tx, &lesson_id).await.unwrap();
    assert!(version(&mut tx, &id("v2")).await.unwrap().is_none());
}
