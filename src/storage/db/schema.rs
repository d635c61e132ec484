//! The schema and its migrations: each runs once, in order, in one transaction with the note that it ran.

use crate::db::error::DbError;
use crate::db::tx::Tx;
use crate::db_args;

/// Every migration ever released; a new one is appended, none is changed.
const MIGRATIONS: &[&str] =
    &[INITIAL, QUOTAS_AND_ENCRYPTION, REPLANNING, ENTITLED_SESSIONS, IDENTITIES, QUEUED_IN_PARTS, REMOVALS];

/// Times are milliseconds since the Unix epoch, truths 1 or 0.
const INITIAL: &str = "
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    hash BYTEA NOT NULL UNIQUE,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE logins (
    hash BYTEA PRIMARY KEY,
    api_key TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    expires BIGINT NOT NULL
);
CREATE INDEX logins_by_expiry ON logins (expires);
CREATE TABLE courses (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    owner TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE TABLE lessons (
    id TEXT PRIMARY KEY,
    course TEXT NOT NULL,
    title TEXT NOT NULL,
    owner TEXT NOT NULL,
    created BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    newest TEXT,
    serving TEXT,
    uploading TEXT,
    deleted BIGINT
);
CREATE INDEX lessons_by_course ON lessons (course, created, id);
CREATE TABLE versions (
    id TEXT PRIMARY KEY,
    lesson TEXT NOT NULL,
    state TEXT NOT NULL,
    source TEXT NOT NULL,
    source_bytes BIGINT NOT NULL,
    filename TEXT NOT NULL,
    created BIGINT NOT NULL,
    started BIGINT,
    finished BIGINT,
    retired BIGINT,
    revision BIGINT NOT NULL,
    playable BIGINT NOT NULL,
    progress DOUBLE PRECISION NOT NULL,
    duration BIGINT,
    media TEXT,
    plan TEXT,
    renditions TEXT NOT NULL,
    error_code TEXT,
    error_detail TEXT
);
CREATE INDEX versions_by_lesson ON versions (lesson, created);
CREATE INDEX versions_by_state ON versions (state);
CREATE TABLE objects (
    version TEXT NOT NULL,
    path TEXT NOT NULL,
    position BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    handover TEXT NOT NULL,
    PRIMARY KEY (version, path)
);
CREATE INDEX objects_by_position ON objects (version, position);
CREATE TABLE entitlements (
    viewer TEXT NOT NULL,
    course TEXT NOT NULL,
    expires BIGINT,
    PRIMARY KEY (viewer, course)
);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    viewer TEXT NOT NULL,
    course TEXT NOT NULL,
    lesson TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT,
    stream_until BIGINT
);
CREATE INDEX sessions_by_viewer ON sessions (viewer, expires);
CREATE INDEX sessions_by_lesson ON sessions (lesson);
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE TABLE revocations (
    position BIGINT PRIMARY KEY,
    event TEXT NOT NULL,
    until BIGINT NOT NULL
);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    lesson TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    length BIGINT,
    received BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    writer BIGINT,
    store_state TEXT NOT NULL,
    metadata TEXT NOT NULL,
    filename TEXT NOT NULL,
    partials TEXT,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX uploads_by_owner ON uploads (owner, state);
CREATE INDEX uploads_by_expiry ON uploads (expires);
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    spec TEXT NOT NULL,
    priority BIGINT NOT NULL,
    position BIGINT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    lease TEXT,
    lease_until BIGINT,
    progress DOUBLE PRECISION NOT NULL,
    weight DOUBLE PRECISION NOT NULL,
    cancel BIGINT NOT NULL,
    error_code TEXT,
    error_detail TEXT,
    created BIGINT NOT NULL,
    finished BIGINT
);
CREATE INDEX tasks_by_version ON tasks (version, state);
CREATE INDEX tasks_waiting ON tasks (state, priority, created, position);
CREATE TABLE audit (
    position BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE answers (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    status BIGINT,
    body TEXT,
    created BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX answers_by_age ON answers (created);
";

/// Quotas of keys, encrypted lessons, courses that are removed in steps.
const QUOTAS_AND_ENCRYPTION: &str = "
ALTER TABLE api_keys ADD COLUMN quota BIGINT;
ALTER TABLE courses ADD COLUMN encrypt BIGINT;
ALTER TABLE courses ADD COLUMN deleted BIGINT;
ALTER TABLE lessons ADD COLUMN encrypt BIGINT NOT NULL DEFAULT 0;
CREATE INDEX lessons_by_owner ON lessons (owner);
CREATE TABLE content_keys (
    id TEXT PRIMARY KEY,
    lesson TEXT NOT NULL,
    version TEXT NOT NULL UNIQUE,
    sealed BYTEA NOT NULL,
    sealed_by TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX content_keys_by_lesson ON content_keys (lesson);
CREATE INDEX content_keys_by_seal ON content_keys (sealed_by);
";

/// How often a version's plan was changed: subtitles come to it and go.
const REPLANNING: &str = "
ALTER TABLE versions ADD COLUMN replanned BIGINT NOT NULL DEFAULT 0;
CREATE INDEX uploads_by_lesson ON uploads (lesson, state);
";

/// When the entitlement ends that a session stands on: the largest number for never, NULL for sessions without one. Of
/// those that began before, it is not known.
const ENTITLED_SESSIONS: &str = "
ALTER TABLE sessions ADD COLUMN entitled_until BIGINT DEFAULT 9223372036854775807;
CREATE INDEX sessions_by_entitlement ON sessions (entitled_until) WHERE revoked IS NULL;
";

/// An identity apart from its secrets, and logins that end with theirs. The views let programs of the version before read
/// on while a scaled-out system is updated origin by origin; they change no keys meanwhile.
const IDENTITIES: &str = "
CREATE TABLE identities (
    id TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    created BIGINT NOT NULL,
    quota BIGINT
);
CREATE TABLE secrets (
    id TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
    hash BYTEA NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    expires BIGINT
);
CREATE INDEX secrets_by_identity ON secrets (identity, created, id);
CREATE INDEX secrets_by_expiry ON secrets (expires) WHERE expires IS NOT NULL;
CREATE TABLE page_logins (
    hash BYTEA PRIMARY KEY,
    secret TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
    expires BIGINT NOT NULL
);
CREATE INDEX page_logins_by_secret ON page_logins (secret);
CREATE INDEX page_logins_by_expiry ON page_logins (expires);
CREATE TABLE applied_secrets (
    name TEXT PRIMARY KEY,
    hash BYTEA NOT NULL
);
INSERT INTO identities (id, role, name, created, quota) SELECT id, role, name, created, quota FROM api_keys;
INSERT INTO secrets (id, identity, hash, created) SELECT id, id, hash, created FROM api_keys;
INSERT INTO page_logins (hash, secret, expires) SELECT hash, api_key, expires FROM logins;
DROP TABLE logins;
DROP TABLE api_keys;
CREATE VIEW api_keys AS SELECT i.id, s.hash, i.role, i.name, i.created, i.quota
    FROM identities i JOIN secrets s ON s.identity = i.id WHERE s.expires IS NULL;
CREATE VIEW logins AS SELECT l.hash, s.identity AS api_key, l.expires
    FROM page_logins l JOIN secrets s ON s.id = l.secret WHERE s.expires IS NULL;
CREATE INDEX courses_by_owner ON courses (owner, created, id);
";

/// How many of a plan's tasks are still to be queued: a long lesson has too many for one transaction.
const QUEUED_IN_PARTS: &str = "
ALTER TABLE versions ADD COLUMN tasks_left BIGINT NOT NULL DEFAULT 0;
CREATE INDEX versions_partly_queued ON versions (created) WHERE tasks_left > 0;
";

/// Whether the bytes of an ended upload were removed; prefixes of the store that are looked at again after their removal.
const REMOVALS: &str = "
ALTER TABLE uploads ADD COLUMN cleared BIGINT NOT NULL DEFAULT 0;
CREATE TABLE removals (
    prefix TEXT PRIMARY KEY,
    due BIGINT NOT NULL
);
CREATE INDEX removals_by_age ON removals (due);
";

/// Runs what has not run yet. Two processes that start at the same moment queue on the lock, and the second finds
/// nothing left to do.
pub(super) async fn migrate(tx: Tx) -> Result<(), DbError> {
    run(tx, MIGRATIONS).await
}

async fn run(mut tx: Tx, migrations: &[&'static str]) -> Result<(), DbError> {
    tx.lock("schema", "migrations").await?;
    tx.script("CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY)").await?;
    let row = tx.one("SELECT MAX(number) AS newest FROM migrations", db_args![]).await?;
    let newest = row.map(|row| row.get::<Option<i64>>("newest")).transpose()?.flatten().unwrap_or(0);
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if newest > known {
        return Err(DbError::TooNew { found: newest, known });
    }
    let done = usize::try_from(newest).unwrap_or(0);
    for (script, number) in migrations.iter().zip(1_i64..).skip(done) {
        tx.script(script).await?;
        tx.execute("INSERT INTO migrations (number) VALUES ($1)", db_args![number]).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::group_commit::Writer;
    use sqlx::sqlite::SqliteConnectOptions;

    #[tokio::test]
    async fn keys_of_the_version_before_become_identities_with_their_secrets_and_logins() {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(dir.path().join("x.db")).create_if_missing(true);
        let writer = Writer::open(options.foreign_keys(true), std::time::Duration::from_secs(5)).await.unwrap();
        let begin = async || Tx::group(writer.begin().await.unwrap());
        let before = MIGRATIONS.iter().position(|script| *script == IDENTITIES).unwrap();
        run(begin().await, &MIGRATIONS[..before]).await.unwrap();
        let mut tx = begin().await;
        tx.script(
            "INSERT INTO api_keys (id, hash, role, name, created, quota) VALUES ('ada', x'01', 'creator', 'Ada', 5, 9);
             INSERT INTO logins (hash, api_key, expires) VALUES (x'02', 'ada', 100);",
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        run(begin().await, MIGRATIONS).await.unwrap();
        let mut tx = begin().await;
        let found = "SELECT i.role, i.name, i.quota, l.expires FROM page_logins l JOIN secrets s ON s.id = l.secret
             JOIN identities i ON i.id = s.identity WHERE s.hash = $1 AND l.hash = $2 AND i.id = 'ada'";
        let row = tx.one(found, db_args![vec![1_u8], vec![2_u8]]).await.unwrap().unwrap();
        assert_eq!(row.get::<String>("name").unwrap(), "Ada");
        assert_eq!((row.get::<i64>("quota").unwrap(), row.get::<i64>("expires").unwrap()), (9, 100));
        // Programs of the version before still find both.
        for old in ["SELECT id FROM api_keys WHERE hash = $1", "SELECT api_key AS id FROM logins WHERE hash <> $1"] {
            let row = tx.one(old, db_args![vec![1_u8]]).await.unwrap().unwrap();
            assert_eq!(row.get::<String>("id").unwrap(), "ada");
        }
    }
}
