//! Prefetching: after a segment, the next ones of its rendition.
//!
//! A segment that had to be fetched, or a prefetched one that is requested for the first time, starts fetches of the next
//! ones. Their names are in the rendition's media playlist, which the player has just read: it is looked up in memory
//! only. Prefetched bytes that no one has requested yet stay within a budget, and a busy origin gets no prefetches.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{self, HeaderValue};

use super::fetcher::Fetcher;
use super::fill;
use super::key::{FetchRequest, cache_key_of_path};
use crate::config;
use crate::metrics::counters::PrefetchMetrics;
use crate::request::route::Route;
use lyceum_cache::{PrefetchTally, PrefetchTicket};
use lyceum_http::path::CleanPath;

/// Prefetches for one edge. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Prefetcher {
    /// How many segments are fetched after a requested one.
    segments: usize,
    /// Bytes that may wait to be requested.
    budget: i64,
    /// Requests in flight to the pool from which on nothing is prefetched.
    max_in_flight: usize,
    metrics: PrefetchMetrics,
}

/// File names of media playlists, looked for in the segment's folder.
const PLAYLISTS: [&str; 2] = ["index.m3u8", "event.m3u8"];
/// File name extensions of segments.
const SEGMENT_EXTENSIONS: [&str; 2] = [".m4s", ".ts"];

impl Prefetcher {
    pub(crate) fn new(config: &config::Ahead, metrics: PrefetchMetrics) -> Self {
        Self {
            segments: usize::try_from(config.segments).unwrap_or(0),
            budget: i64::try_from(config.bytes.0).unwrap_or(i64::MAX),
            max_in_flight: usize::try_from(config.busy).unwrap_or(usize::MAX),
            metrics,
        }
    }

    /// The same with other settings.
    pub(crate) fn reconfigured(&self, config: &config::Ahead) -> Self {
        Self::new(config, self.metrics.clone())
    }

    /// Starts fetches of the segments after `path`, each of about `length` bytes like it.
    pub(crate) fn after(&self, fetcher: &Fetcher, route: &Arc<Route>, path: &str, host: &str, length: u64) {
        if self.segments == 0 || !SEGMENT_EXTENSIONS.iter().any(|end| path.ends_with(end)) {
            return;
        }
        let Some((folder, name)) = path.rfind('/').and_then(|slash| path.split_at_checked(slash + 1)) else { return };
        let next = PLAYLISTS.iter().find_map(|playlist| {
            let playlist = format!("{folder}{playlist}");
            let stored = fetcher.cache.get(&cache_key_of_path(route, &playlist, None, host), &HeaderMap::new())?;
            let names = names_after(std::str::from_utf8(&stored.body).ok()?, name, self.segments);
            (!names.is_empty()).then(|| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        });
        for name in next.unwrap_or_default() {
            let path = format!("{folder}{name}");
            if CleanPath::check(&path).is_ok_and(|path| path.is_under(&route.prefix)) {
                self.start(fetcher, route, path, host, length);
            }
        }
    }

    fn start(&self, fetcher: &Fetcher, route: &Arc<Route>, path: String, host: &str, length: u64) {
        let key = cache_key_of_path(route, &path, None, host).into_owned();
        if fetcher.cache.get(&key, &HeaderMap::new()).is_some() {
            return;
        }
        let tally: &PrefetchTally = &self.metrics.tally;
        if route.pool.in_flight() >= self.max_in_flight {
            return self.metrics.busy.inc();
        }
        if tally.unused.get().saturating_add(i64::try_from(length).unwrap_or(i64::MAX)) > self.budget {
            return self.metrics.budget.inc();
        }
        let Some(mut writer) = fetcher.cache.claim(&key, &HeaderMap::new()) else { return };
        writer.mark_prefetched(PrefetchTicket::new(tally.clone(), length));
        let headers = HeaderMap::from_iter([(header::VIA, HeaderValue::from_static("1.1 lyceum"))]);
        let request = FetchRequest {
            route: Arc::clone(route),
            key,
            target: path,
            headers,
            authorized: false,
            range: None,
            if_range: None,
        };
        self.metrics.fetched.inc();
        fill::start(fetcher, writer, request, None);
    }
}

/// The names of up to `max` segments after `name` in a media playlist (RFC 8216, section 4.1), if they are in the same folder.
fn names_after<'a>(playlist: &'a str, name: &str, max: usize) -> Vec<&'a str> {
    let uris = playlist.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let after = uris.skip_while(|uri| *uri != name).skip(1);
    after.take(max).filter(|uri| !uri.contains(['/', ':', '?', '#'])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_segments_are_those_after_the_name_in_the_playlist() {
        let playlist = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4,\n00000-0.m4s\n#EXTINF:4,\n00001-4000.m4s\r\n#EXTINF:4,\n../x.m4s\n#EXTINF:1,\n00003-9000.m4s\n#EXT-X-ENDLIST\n";
        assert_eq!(names_after(playlist, "00000-0.m4s", 1), ["00001-4000.m4s"]);
        assert_eq!(names_after(playlist, "00000-0.m4s", 3), ["00001-4000.m4s", "00003-9000.m4s"]);
        assert!(names_after(playlist, "00003-9000.m4s", 3).is_empty());
        assert!(names_after(playlist, "other.m4s", 3).is_empty());
    }
}
