//! Lists in pages: `?after=…&limit=…` in, `{"items": […], "next": …}` out.

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::tagged;
use super::refusal::Refusal;
use lyceum_catalog::Page;

/// `?after=…&limit=…` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    after: Option<String>,
    limit: Option<u64>,
}

impl Paging {
    /// What to read from the catalogue: one row more than is shown, which tells whether there is a next page. `max` bounds
    /// the items of a page.
    pub(super) fn page(&self, max: u64) -> Result<Page, Refusal> {
        let wrong = || Refusal::Invalid("`after` is what a page before gave as `next`.".to_owned());
        let after = match self.after.as_deref() {
            None => (0, String::new()),
            Some(text) => {
                let (created, id) = text.split_once('.').ok_or_else(wrong)?;
                (created.parse().map_err(|_| wrong())?, id.to_owned())
            }
        };
        Ok(Page { after, limit: i64::try_from(self.limit(max)).unwrap_or(i64::MAX).saturating_add(1) })
    }

    fn limit(&self, max: u64) -> u64 {
        self.limit.unwrap_or(max).clamp(1, max)
    }

    /// The response with this page. `position` is where a row stands in the list: what `next` is made of.
    pub(super) fn show<T, S: Serialize>(
        &self,
        request: &HeaderMap,
        max: u64,
        mut rows: Vec<T>,
        position: impl Fn(&T) -> (i64, &str),
        show: impl Fn(T) -> S,
    ) -> Result<Response, Refusal> {
        let limit = usize::try_from(self.limit(max)).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| {
            let (created, id) = position(row);
            format!("{created}.{id}")
        });
        let items: Vec<S> = rows.into_iter().map(show).collect();
        tagged(StatusCode::OK, request, &serde_json::json!({ "items": items, "next": next }))
    }
}
