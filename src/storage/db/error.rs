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
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::Duplicate(error),
            sqlx::Error::Database(inner) => {
                let code = inner.code().unwrap_or_default();
                // SQLite: busy, locked and their extensions, I/O error, full disk. PostgreSQL: connection and
                // resource classes, an administrator's shutdown, serialization failures and deadlocks.
                let sqlite = code.parse::<i64>().is_ok_and(|n| matches!(n & 0xff, 5 | 6 | 10 | 13)) && code.len() < 5;
                let postgres = ["08", "53", "57", "40"].iter().any(|class| code.len() == 5 && code.starts_with(class));
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
