//! Lists in pages: `?after=…&limit=…` in, `{"items": […], "next": …}` out.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{self, ApiResult};
use super::extract::Query;
use super::refusal::Refusal;
use crate::state::App;
use lyceum_catalog::Page;
use lyceum_core::ids::Id;

/// `?after=…&limit=…` of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// The most items of the page; the origin has a limit of its own, `api.page`.
    #[param(value_type = Option<u64>, minimum = 1)]
    limit: Option<String>,
}

/// A page of a list as the API shows it.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody<T> {
    pub(super) items: Vec<T>,
    /// What `after` asks from for the next page; null on the last.
    #[schema(required)]
    pub(super) next: Option<String>,
}

/// A request for a page of a list.
pub(super) struct List {
    /// What to read from the catalogue: one row more than is shown, which tells whether there is a next page.
    pub(super) page: Page,
    /// How many items are shown at most.
    shown: usize,
    request: HeaderMap,
}

impl PageQuery {
    /// What to read from the catalogue, where `max` bounds the items of a page, and how many items to show.
    fn page(&self, max: u64) -> Result<(Page, usize), Refusal> {
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
        let limit = self.limit.as_deref().map(|limit| limit.parse().unwrap_or(u64::MAX));
        let shown = limit.unwrap_or(max).clamp(1, max);
        let limit = i64::try_from(shown).unwrap_or(i64::MAX).saturating_add(1);
        Ok((Page { after, limit }, usize::try_from(shown).unwrap_or(usize::MAX)))
    }
}

impl FromRequestParts<Arc<App>> for List {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Query(query) = Query::<PageQuery>::from_request_parts(parts, app).await?;
        let (page, shown) = query.page(app.config().api.page)?;
        Ok(Self { page, shown, request: parts.headers.clone() })
    }
}

impl List {
    /// The response with this page. `position` is where a row stands in the list: what `next` is made of.
    pub(super) fn show<T, S: Serialize>(
        &self,
        mut rows: Vec<T>,
        position: impl Fn(&T) -> (i64, &str),
        show: impl Fn(T) -> S,
    ) -> ApiResult {
        let more = rows.len() > self.shown;
        rows.truncate(self.shown);
        let next = rows.last().filter(|_| more).map(|row| {
            let (created, id) = position(row);
            format!("{created}.{id}")
        });
        answer::shown(&self.request, &PageBody { items: rows.into_iter().map(show).collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_was_asked_for_or_refused_in_plain_words() {
        let page = |after: Option<&str>, limit: Option<&str>| {
            let query = PageQuery { after: after.map(str::to_owned), limit: limit.map(str::to_owned) };
            query.page(100).map(|(page, _)| (page.after, page.limit)).map_err(|refusal| refusal.to_string())
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
