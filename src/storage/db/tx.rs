//! A transaction over either engine, its parameters and its rows.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Decode, Executor, Postgres, Row as _, SqlSafeStr, Sqlite, Transaction, Type};

use crate::db::error::DbError;
use crate::db::group_commit::GroupTx;
use crate::db::sessions::Sessions;

/// A parameter. Each `None` keeps its type, which PostgreSQL wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A BIGINT; truth is 1 or 0.
    Int(Option<i64>),
    /// A DOUBLE PRECISION.
    Real(Option<f64>),
    /// A TEXT.
    Text(Option<String>),
    /// A BYTEA.
    Bytes(Option<Vec<u8>>),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident, $value:ident, $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                Self::$variant(Some($to))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map(|$value| $to))
            }
        }
    )*};
}
value_from! {
    i64 => Int, v, v;
    i32 => Int, v, i64::from(v);
    u32 => Int, v, i64::from(v);
    u64 => Int, v, i64::try_from(v).unwrap_or(i64::MAX);
    bool => Int, v, i64::from(v);
    f64 => Real, v, v;
    String => Text, v, v;
    &String => Text, v, v.clone();
    &str => Text, v, v.to_owned();
    lyceum_core::ids::Id => Text, v, v.into();
    &lyceum_core::ids::Id => Text, v, v.as_str().to_owned();
    Vec<u8> => Bytes, v, v;
    &[u8] => Bytes, v, v.to_vec();
    [u8; 32] => Bytes, v, v.to_vec();
}

/// A type that both engines can give: `i64`, `f64`, `String`, `Vec<u8>`, and `Option`s of them.
pub trait Column: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}
impl<T> Column for T where T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres> {}

/// One row of an answer.
pub enum Row {
    /// From SQLite.
    Sqlite(SqliteRow),
    /// From PostgreSQL.
    Postgres(PgRow),
}

impl Row {
    /// The column of that name.
    pub fn get<T: Column>(&self, name: &'static str) -> Result<T, DbError> {
        match self {
            Self::Sqlite(row) => row.try_get(name),
            Self::Postgres(row) => row.try_get(name),
        }
        .map_err(|error| DbError::Corrupt(format!("column {name}: {error}")))
    }

    /// A BIGINT that is no less than 0.
    pub fn unsigned(&self, name: &'static str) -> Result<u64, DbError> {
        let value: i64 = self.get(name)?;
        u64::try_from(value).map_err(|_| DbError::Corrupt(format!("column {name}: {value} is below 0")))
    }

    /// A truth value, kept as 1 or 0.
    pub fn truth(&self, name: &'static str) -> Result<bool, DbError> {
        Ok(self.get::<i64>(name)? != 0)
    }

    /// A TEXT that reads as a `T`.
    pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &'static str) -> Result<T, DbError> {
        let text: String = self.get(name)?;
        text.parse().map_err(|error| DbError::Corrupt(format!("column {name}: {error}")))
    }

    /// A TEXT that reads as a `T`, or NULL.
    pub fn parse_option<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, DbError> {
        let text: Option<String> = self.get(name)?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|error| DbError::Corrupt(format!("column {name}: {error}")))
    }

    /// A TEXT that holds JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> Result<T, DbError> {
        let text: String = self.get(name)?;
        serde_json::from_str(&text).map_err(|error| DbError::Corrupt(format!("column {name}: {error}")))
    }
}

/// A transaction. Dropped, it is rolled back.
pub struct Tx {
    engine: Engine,
}

/// Which engine a transaction runs on.
enum Engine {
    Group(GroupTx),
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>, Sessions),
}

impl Tx {
    pub(super) fn group(tx: GroupTx) -> Self {
        Self { engine: Engine::Group(tx) }
    }

    pub(super) fn sqlite(tx: Transaction<'static, Sqlite>) -> Self {
        Self { engine: Engine::Sqlite(tx) }
    }

    pub(super) fn postgres(tx: Transaction<'static, Postgres>, sessions: Sessions) -> Self {
        Self { engine: Engine::Postgres(tx, sessions) }
    }

    /// Runs a statement; answers how many rows it changed.
    pub async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, DbError> {
        check(&args)?;
        Ok(match &mut self.engine {
            Engine::Group(tx) => bind_sqlite(sql, args).execute(tx.connection()?).await?.rows_affected(),
            Engine::Sqlite(tx) => bind_sqlite(sql, args).execute(&mut **tx).await?.rows_affected(),
            Engine::Postgres(tx, sessions) => {
                let done = bind_postgres(sql, args).execute(&mut **tx).await;
                done.map_err(|error| sessions.note(error))?.rows_affected()
            }
        })
    }

    /// All rows of a query; the query bounds their number.
    pub async fn all(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, DbError> {
        check(&args)?;
        Ok(match &mut self.engine {
            Engine::Group(tx) => {
                bind_sqlite(sql, args).fetch_all(tx.connection()?).await?.into_iter().map(Row::Sqlite).collect()
            }
            Engine::Sqlite(tx) => {
                bind_sqlite(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect()
            }
            Engine::Postgres(tx, sessions) => {
                let found = bind_postgres(sql, args).fetch_all(&mut **tx).await;
                found.map_err(|error| sessions.note(error))?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row, if there is one.
    pub async fn one(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Option<Row>, DbError> {
        check(&args)?;
        Ok(match &mut self.engine {
            Engine::Group(tx) => bind_sqlite(sql, args).fetch_optional(tx.connection()?).await?.map(Row::Sqlite),
            Engine::Sqlite(tx) => bind_sqlite(sql, args).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            Engine::Postgres(tx, sessions) => {
                let found = bind_postgres(sql, args).fetch_optional(&mut **tx).await;
                found.map_err(|error| sessions.note(error))?.map(Row::Postgres)
            }
        })
    }

    /// Whether this PostgreSQL transaction can't write.
    pub(super) async fn is_read_only(&mut self) -> Result<bool, DbError> {
        let row = self.one("SELECT current_setting('transaction_read_only') AS setting", Vec::new()).await?;
        row.map_or(Ok(false), |row| Ok(row.get::<String>("setting")? == "on"))
    }

    /// The statement in the words of this engine, where the two can't share one.
    pub fn choose(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.engine {
            Engine::Group(_) | Engine::Sqlite(_) => sqlite,
            Engine::Postgres(..) => postgres,
        }
    }

    /// Holds `kind` and `name` for this transaction alone until it ends. On SQLite a writer holds the whole
    /// database already.
    pub async fn lock(&mut self, kind: &'static str, name: &str) -> Result<(), DbError> {
        if let Engine::Postgres(..) = self.engine {
            let key = format!("{kind}:{name}");
            self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", vec![Value::from(key)]).await?;
        }
        Ok(())
    }

    /// Several statements without parameters.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<(), DbError> {
        match &mut self.engine {
            Engine::Group(tx) => _ = tx.connection()?.execute(sqlx::raw_sql(sql)).await?,
            Engine::Sqlite(tx) => _ = (&mut **tx).execute(sqlx::raw_sql(sql)).await?,
            Engine::Postgres(tx, _) => _ = (&mut **tx).execute(sqlx::raw_sql(sql)).await?,
        }
        Ok(())
    }

    /// Makes it all durable.
    pub async fn commit(self) -> Result<(), DbError> {
        match self.engine {
            Engine::Group(tx) => tx.commit().await?,
            Engine::Sqlite(tx) => tx.commit().await?,
            Engine::Postgres(tx, sessions) => tx.commit().await.map_err(|error| sessions.note(error))?,
        }
        Ok(())
    }
}

/// Both engines take the same texts: what PostgreSQL can't store must not work on SQLite either.
fn check(args: &[Value]) -> Result<(), DbError> {
    let has_nul = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
    if args.iter().any(has_nul) { Err(DbError::NulInText) } else { Ok(()) }
}

fn bind_sqlite(sql: &'static str, args: Vec<Value>) -> Query<'static, Sqlite, SqliteArguments> {
    args.into_iter().fold(sqlx::query(sql.into_sql_str()), |query, value| match value {
        Value::Int(v) => query.bind(v),
        Value::Real(v) => query.bind(v),
        Value::Text(v) => query.bind(v),
        Value::Bytes(v) => query.bind(v),
    })
}

fn bind_postgres(sql: &'static str, args: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    args.into_iter().fold(sqlx::query(sql.into_sql_str()), |query, value| match value {
        Value::Int(v) => query.bind(v),
        Value::Real(v) => query.bind(v),
        Value::Text(v) => query.bind(v),
        Value::Bytes(v) => query.bind(v),
    })
}
