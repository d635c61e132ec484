//! The pool, migrations, dialects and transactions of SQLite and PostgreSQL.
