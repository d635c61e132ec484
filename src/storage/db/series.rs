//! Named series of numbers that rise by one.

use crate::db::error::DbError;
use crate::db::tx::Tx;
use crate::db_args;

/// Takes the next number of a named series. The row is held until the transaction ends, so numbers are committed in
/// their order, and a reader that has seen one has seen all below it.
pub async fn next_number(tx: &mut Tx, series: &'static str) -> Result<i64, DbError> {
    let row = tx
        .one(
            "INSERT INTO counters (name, value) VALUES ($1, 1)
             ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value",
            db_args![series],
        )
        .await?;
    row.ok_or_else(|| DbError::Corrupt(format!("the series {series} gave no number")))?.get("value")
}
