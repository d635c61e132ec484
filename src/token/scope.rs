//! What a token allows: path prefixes of whole segments, the height of a rendition, the start of a segment.
//!
//! Heights and starts are read from paths such as `/v/{lesson}/{version}/v{height}[-{codec}]/{n}-{start_ms}.m4s`;
//! subtitles end in `.vtt`.

use crate::claims::ParsedClaims;
use crate::uri_container::{PatternCache, RequestUri, UriContainer};
use lyceum_http::path::CleanPath;

/// The paths that a token allows.
#[derive(Debug, PartialEq)]
pub(super) struct Scope {
    paths: Vec<Box<str>>,
    container: Option<UriContainer>,
    pub(super) max_height: Option<u32>,
    pub(super) preview_ms: Option<u64>,
}

impl Scope {
    pub(super) fn new(parsed: &mut ParsedClaims) -> Self {
        Self {
            paths: std::mem::take(&mut parsed.paths).into_iter().map(String::into_boxed_str).collect(),
            container: parsed.container.take(),
            max_height: parsed.max_height,
            preview_ms: parsed.preview_ms,
        }
    }

    /// Whether `path` is allowed. A token with paths and a container allows what both do; one with neither allows nothing.
    pub(super) fn holds(&self, path: CleanPath<'_>, uri: &RequestUri<'_>, patterns: &PatternCache) -> bool {
        if self.paths.is_empty() && self.container.is_none() {
            return false;
        }
        if !self.paths.is_empty() && !self.paths.iter().any(|prefix| path.is_under(prefix)) {
            return false;
        }
        if !self.container.as_ref().is_none_or(|container| container.holds(path, uri, patterns)) {
            return false;
        }
        if self.max_height.is_none() && self.preview_ms.is_none() {
            return true;
        }
        let named = MediaName::read(path);
        let too_high = matches!((self.max_height, named.height), (Some(most), Some(height)) if height > most);
        let too_late = matches!((self.preview_ms, named.start_ms), (Some(end), Some(start)) if start >= end);
        !too_high && !too_late
    }
}

/// What the path of a media object says of it.
#[derive(Debug, Default, PartialEq)]
struct MediaName {
    height: Option<u32>,
    start_ms: Option<u64>,
}

impl MediaName {
    fn read(path: CleanPath<'_>) -> Self {
        let mut named = Self::default();
        for segment in path.segments() {
            // Any segment that reads as a rendition counts, wherever it is: better to deny one path too many.
            if let Some(height) = rendition_height(segment) {
                named.height = named.height.max(Some(height));
            }
        }
        named.start_ms = path.segments().next_back().and_then(start_of);
        named
    }
}

/// `v720` or `v720-hevc`.
fn rendition_height(segment: &str) -> Option<u32> {
    let rest = segment.strip_prefix('v')?;
    let digits = rest.split_once('-').map_or(rest, |(digits, _)| digits);
    number(digits).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
}

/// The start of `00012-48000.m4s` or a segment of subtitles (`.vtt`), in milliseconds. Files with text or pictures of the
/// whole lesson count as starting at its end.
fn start_of(file: &str) -> Option<u64> {
    if file == "subtitles.vtt" || file.starts_with("storyboard") {
        return Some(u64::MAX);
    }
    let (n, start) = file.rsplit_once('.')?.0.split_once('-')?;
    number(n)?;
    number(start)
}

/// Decimal digits alone; a number that does not fit counts as the largest.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(paths: &[&str], max_height: Option<u32>, preview_ms: Option<u64>) -> Scope {
        Scope { paths: paths.iter().map(|p| (*p).into()).collect(), container: None, max_height, preview_ms }
    }

    fn holds(scope: &Scope, path: &str) -> bool {
        scope.holds(CleanPath::check(path).unwrap(), &RequestUri::default(), &PatternCache::new())
    }

    #[test]
    fn heights_above_the_limit_are_denied() {
        let scope = scope(&["/v/a/"], Some(480), None);
        for open in
            ["/v/a/master.m3u8", "/v/a/1/v480/00000-0.m4s", "/v/a/1/v240-hevc/init.mp4", "/v/a/1/a-und/index.m3u8"]
        {
            assert!(holds(&scope, open), "{open}");
        }
        for closed in [
            "/v/a/1/v720/00000-0.m4s",
            "/v/a/1/v720-hevc/init.mp4",
            "/v/a/1/v481/index.m3u8",
            "/v/a/1/v99999999999999999999999/init.mp4",
            "/v/b/1/v240/init.mp4",
        ] {
            assert!(!holds(&scope, closed), "{closed}");
        }
    }

    #[test]
    fn a_preview_denies_segments_that_start_after_it() {
        let scope = scope(&["/v/a/"], None, Some(12_000));
        for open in [
            "/v/a/1/v720/00000-0.m4s",
            "/v/a/1/v720/00005-11999.m4s",
            "/v/a/1/v720/init.mp4",
            "/v/a/1/s-en/00000-0.vtt",
            "/v/a/1/poster.jpg",
        ] {
            assert!(holds(&scope, open), "{open}");
        }
        for closed in [
            "/v/a/1/v720/00006-12000.m4s",
            "/v/a/1/a-und/00099-198000.m4s",
            "/v/a/1/s-en/00001-60000.vtt",
            "/v/a/1/s-en/subtitles.vtt",
            "/v/a/1/storyboard.vtt",
            "/v/a/1/storyboard-0.jpg",
            "/v/a/1/v1/1-99999999999999999999.m4s",
        ] {
            assert!(!holds(&scope, closed), "{closed}");
        }
    }

    #[test]
    fn a_token_without_paths_allows_nothing() {
        assert!(!holds(&scope(&[], None, None), "/v/a/master.m3u8"));
    }
}
