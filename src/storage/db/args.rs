//! The macro for parameters of statements.

/// Parameters of a statement, in the order of `$1`, `$2`, …
#[macro_export]
#[doc(hidden)]
macro_rules! db_args {
    ($($value:expr),* $(,)?) => { vec![$($crate::db::Value::from($value)),*] };
}
