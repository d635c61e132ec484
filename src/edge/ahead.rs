//! Read-ahead: after a segment, the next ones of its rendition.
//!
//! A segment that had to be fetched, or was fetched ahead and is now asked for the first time, brings the next ones on
//! their way. Their names stand in the rendition's media playlist, which the player has just read: it is looked for in
//! memory alone. What waits to be asked for stays within a budget, and an origin that is busy is left alone.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{self, HeaderValue};

use super::config;
use super::fetch::{Fetcher, Wanted};
use super::metrics::AheadMetrics;
use super::route::Route;
use super::serve::key_for;
use lyceum_cache::{PrefetchTally, PrefetchTicket};
use lyceum_http::path::CleanPath;

/// Reads ahead for one edge. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    segments: usize,
    budget: i64,
    busy: usize,
    metrics: AheadMetrics,
}

/// The media playlists that may stand beside a segment.
const PLAYLISTS: [&str; 2] = ["index.m3u8", "event.m3u8"];
/// How segments end.
const SEGMENTS: [&str; 2] = [".m4s", ".ts"];

impl Ahead {
    pub(super) fn new(config: &config::Ahead, metrics: AheadMetrics) -> Self {
        Self {
            segments: usize::try_from(config.segments).unwrap_or(0),
            budget: i64::try_from(config.bytes.0).unwrap_or(i64::MAX),
            busy: usize::try_from(config.busy).unwrap_or(usize::MAX),
            metrics,
        }
    }

    /// The same with other settings.
    pub(super) fn reconfigured(&self, config: &config::Ahead) -> Self {
        Self::new(config, self.metrics.clone())
    }

    /// After `path` of about `length` bytes was asked for: brings what comes next on its way.
    pub(super) fn after(&self, fetcher: &Fetcher, route: &Arc<Route>, path: &str, host: &str, length: u64) {
        if self.segments == 0 || !SEGMENTS.iter().any(|end| path.ends_with(end)) {
            return;
        }
        let Some((folder, name)) = path.rfind('/').and_then(|slash| path.split_at_checked(slash + 1)) else { return };
        let next = PLAYLISTS.iter().find_map(|playlist| {
            let playlist = format!("{folder}{playlist}");
            let stored = fetcher.cache.get(&key_for(route, &playlist, None, host), &HeaderMap::new())?;
            let names = names_after(std::str::from_utf8(&stored.body).ok()?, name, self.segments);
            (!names.is_empty()).then(|| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
        });
        for name in next.unwrap_or_default() {
            let path = format!("{folder}{name}");
            if CleanPath::check(&path).is_ok_and(|path| path.is_under(&route.prefix)) {
                self.bring(fetcher, route, path, host, length);
            }
        }
    }

    fn bring(&self, fetcher: &Fetcher, route: &Arc<Route>, path: String, host: &str, length: u64) {
        let key = key_for(route, &path, None, host).into_owned();
        if fetcher.cache.get(&key, &HeaderMap::new()).is_some() {
            return;
        }
        let tally: &PrefetchTally = &self.metrics.tally;
        if route.pool.in_flight() >= self.busy {
            return self.metrics.busy.inc();
        }
        if tally.unused.get().saturating_add(i64::try_from(length).unwrap_or(i64::MAX)) > self.budget {
            return self.metrics.budget.inc();
        }
        let Some(mut writer) = fetcher.cache.claim(&key, &HeaderMap::new()) else { return };
        writer.mark_prefetched(PrefetchTicket::new(tally.clone(), length));
        let headers = HeaderMap::from_iter([(header::VIA, HeaderValue::from_static("1.1 lyceum"))]);
        let wanted = Wanted {
            route: Arc::clone(route),
            key,
            target: path,
            headers,
            authorized: false,
            range: None,
            if_range: None,
        };
        self.metrics.fetched.inc();
        fetcher.spawn(writer, wanted, None);
    }
}

/// The names of the segments after `name` in a media playlist (RFC 8216, section 4.1): those that lie beside it.
fn names_after<'a>(playlist: &'a str, name: &str, most: usize) -> Vec<&'a str> {
    let uris = playlist.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let after = uris.skip_while(|uri| *uri != name).skip(1);
    after.take(most).filter(|uri| !uri.contains(['/', ':', '?', '#'])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_names_stand_in_the_playlist() {
        let playlist = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4,\n00000-0.m4s\n#EXTINF:4,\n00001-4000.m4s\r\n#EXTINF:4,\n../x.m4s\n#EXTINF:1,\n00003-9000.m4s\n#EXT-X-ENDLIST\n";
        assert_eq!(names_after(playlist, "00000-0.m4s", 1), ["00001-4000.m4s"]);
        assert_eq!(names_after(playlist, "00000-0.m4s", 3), ["00001-4000.m4s", "00003-9000.m4s"]);
        assert!(names_after(playlist, "00003-9000.m4s", 3).is_empty());
        assert!(names_after(playlist, "other.m4s", 3).is_empty());
    }
}
