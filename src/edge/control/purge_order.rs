//! A purge as operators (`POST /purge`) and the origins' feed order it.

use serde::Deserialize;

use lyceum_cache::{Purge, PurgeTarget};

/// What to purge; one of `url`, `prefix` and `tag`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PurgeOrder {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    soft: bool,
}

impl PurgeOrder {
    /// Whether exactly one target is named.
    pub(crate) fn is_one(&self) -> bool {
        [&self.url, &self.prefix, &self.tag].iter().filter(|name| name.is_some()).count() == 1
    }

    /// The cache's purges for it. A URL stands for its path with any query and host.
    pub(crate) fn purges(&self) -> Vec<Purge> {
        let path = |text: &str| match text.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/").to_owned(),
            None => text.to_owned(),
        };
        let mut targets = Vec::new();
        targets.extend(self.url.as_deref().map(|url| PurgeTarget::Path(path(url).into())));
        targets.extend(self.prefix.as_deref().map(|prefix| PurgeTarget::Prefix(path(prefix).into())));
        targets.extend(self.tag.as_deref().map(|tag| PurgeTarget::Tag(tag.into())));
        targets.into_iter().map(|target| Purge { target, soft: self.soft }).collect()
    }
}
