//! The request fields that select a response (`Vary`; RFC 9110, section 12.5.5).

use http::{HeaderMap, HeaderName};

use lyceum_http::fields;

/// The names of the request fields that selected a response, with the values that the request had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary(Vec<(HeaderName, Option<String>)>);

impl Vary {
    /// The fields that a response names, as `request` had them. A response that names too many is never stored.
    pub fn of(names: impl Iterator<Item = HeaderName>, request: &HeaderMap) -> Self {
        let mut names: Vec<HeaderName> = names.collect();
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self(names.into_iter().map(|name| (name.clone(), fields::normalised(request, &name))).collect())
    }

    /// Whether no request field selected the response.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request with these fields selects the same response (RFC 9111, section 4.1).
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| fields::normalised(request, name) == *value)
    }

    /// The same names with the values of another request.
    pub(super) fn for_request(&self, request: &HeaderMap) -> Self {
        Self(self.0.iter().map(|(name, _)| (name.clone(), fields::normalised(request, name))).collect())
    }

    /// Names and values, as a file holds them.
    pub(super) fn fields(&self) -> Vec<(String, Option<String>)> {
        self.0.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect()
    }

    pub(super) fn from_fields(fields: Vec<(String, Option<String>)>) -> Option<Self> {
        let named = |(name, value): (String, _)| Some((HeaderName::try_from(name).ok()?, value));
        fields.into_iter().map(named).collect::<Option<_>>().map(Self)
    }

    pub(super) fn same_names(&self, other: &Self) -> bool {
        self.0.iter().map(|(name, _)| name).eq(other.0.iter().map(|(name, _)| name))
    }

    /// The variant key of the response with these fields, under `primary` and the number of the marker there. A line feed
    /// occurs in no primary key.
    pub(super) fn key(&self, primary: &str, marker: u64) -> String {
        let mut key = format!("{primary}\n{marker}");
        for (_, value) in &self.0 {
            key.push('\n');
            key.push_str(value.as_deref().unwrap_or("\u{0}"));
        }
        key
    }
}
