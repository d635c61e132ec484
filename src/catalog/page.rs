//! Pages of lists.

/// Which rows of a list: those after `after`, `limit` at most. Lists are in the order of their keys.
#[derive(Clone, Debug)]
pub struct Page {
    /// When the last row seen was made, and its id; the first page starts after 0 and "".
    pub after: (i64, String),
    /// How many rows at most.
    pub limit: i64,
}
