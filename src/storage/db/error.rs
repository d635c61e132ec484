//! What can go wrong with the database, and whether it may pass.

/// Why the database failed. The text of its cause is for the log alone.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It does not answer, or is locked or overloaded: the same request may succeed in a moment.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A row with this key exists.
    #[error("a row with this key exists: {0}")]
    Duplicate(#[source] sqlx::Error),
    /// A statement or a value is wrong: a fault of this program, or of whoever else wrote to the database.
    #[error("the database refused: {0}")]
    Refused(#[source] sqlx::Error),
    /// A text with the character NUL, which PostgreSQL stores in no text, and so neither engine.
    #[error("a text holds the character NUL")]
    NulInText,
    /// A stored value can't be read.
    #[error("a stored value can't be read: {0}")]
    Corrupt(String),
    /// The schema was made by a newer program.
    #[error(
        "the database was made by a newer Lyceum (its schema is {found}, this program knows {known}): update this program"
    )]
    TooNew {
        /// The schema's number in the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
}

impl DbError {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether this session can't write, and another one might: its server is a standby, or its file was replaced.
    pub(super) fn is_read_only(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(inner)) = self else { return false };
        let code = inner.code().unwrap_or_default();
        code == READ_ONLY_SERVER || (code.len() < 5 && sqlite_code(&code) == Some(READ_ONLY))
    }
}

/// PostgreSQL's `read_only_sql_transaction`.
const READ_ONLY_SERVER: &str = "25006";
/// SQLite's `SQLITE_READONLY`.
const READ_ONLY: i64 = 8;

/// SQLite's primary result code.
fn sqlite_code(code: &str) -> Option<i64> {
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::Duplicate(error),
            sqlx::Error::Database(inner) => {
                let code = inner.code().unwrap_or_default();
                // SQLite: busy, locked and their extensions, read-only, I/O error, full disk. PostgreSQL: connection and
                // resource classes, an administrator's shutdown, serialization failures and deadlocks; and what an
                // operator or a failover does to a whole role or server: a login that is refused, a standby, a database
                // or a right that is not there, an error of its disk.
                let sqlite = code.len() < 5 && matches!(sqlite_code(&code), Some(5 | 6 | READ_ONLY | 10 | 13));
                let classes = ["08", "28", "3D", "40", "53", "57", "58", READ_ONLY_SERVER, "42501", "55P03"];
                let postgres = code.len() == 5 && classes.iter().any(|class| code.starts_with(class));
                if sqlite || postgres { Self::Unavailable(error) } else { Self::Refused(error) }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Protocol(text) if text.contains("eof") || text.contains("closed") => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}
