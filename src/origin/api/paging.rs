//! Lists in pages: `?after=…&limit=…` in, `{"items": […], "next": …}` out.

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::answer::tagged;
use super::refusal::Refusal;
use lyceum_catalog::Page;
use lyceum_core::ids::Id;

/// `?after=…&limit=…` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    after: Option<String>,
    limit: Option<String>,
}

impl Paging {
    /// What to read from the catalogue: one row more than is shown, which tells whether there is a next page. `max` bounds
    /// the items of a page.
    pub(super) fn page(&self, max: u64) -> Result<Page, Refusal> {
        let wrong = || Refusal::Invalid("`after` is what a page before gave as `next`.".to_owned());
        // Digits alone; a number too large for any page is as good as the largest.
        if self.limit.as_deref().is_some_and(|limit| {
            !(1..=20).contains(&limit.len())
                || !limit.bytes().all(|b| b.is_ascii_digit())
                || limit.bytes().all(|b| b == b'0')
        }) {
            return Err(Refusal::Invalid("`limit` is a whole number from 1.".to_owned()));
        }
        let after = match self.after.as_deref() {
            None => (0, String::new()),
            Some(text) => {
                let (created, id) = text.split_once('.').ok_or_else(wrong)?;
                // Some lists are in the order of a number alone.
                if !id.is_empty() && Id::parse(id).is_err() {
                    return Err(wrong());
                }
                (created.parse().map_err(|_| wrong())?, id.to_owned())
            }
        };
        Ok(Page { after, limit: i64::try_from(self.limit(max)).unwrap_or(i64::MAX).saturating_add(1) })
    }

    fn limit(&self, max: u64) -> u64 {
        let limit = self.limit.as_deref().map(|limit| limit.parse().unwrap_or(u64::MAX));
        limit.unwrap_or(max).clamp(1, max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_was_asked_for_or_refused_in_plain_words() {
        let page = |after: Option<&str>, limit: Option<&str>| {
            let paging = Paging { after: after.map(str::to_owned), limit: limit.map(str::to_owned) };
            paging.page(100).map(|page| (page.after, page.limit)).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(page(None, None).unwrap(), ((0, String::new()), 101));
        assert_eq!(page(Some("12.abc"), Some("5")).unwrap(), ((12, "abc".to_owned()), 6));
        assert_eq!(page(Some("-3."), Some("18446744073709551615")).unwrap(), ((-3, String::new()), 101));
        for limit in ["0", "00", "-1", "+1", "", "1.5", "abc", "100000000000000000000"] {
            assert!(page(None, Some(limit)).unwrap_err().contains("`limit`"), "{limit}");
        }
        for after in ["", "x", "1", "1.\0", "1.A", "1.a.b", "99999999999999999999.x"] {
            assert!(page(Some(after), None).unwrap_err().contains("`after`"), "{after}");
        }
    }
}
