//! Sends a session's CMCD events to the edge that it plays from, a bounded number at a time.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lyceum_core::time::{Clock, monotonic};
use url::Url;

use super::cmcd::{self, Event, Ids, Now};
use super::fetch::{Failure, Fetcher};
use super::tally::Tally;

/// The most lines that wait; the oldest go first.
const MAX_WAITING_LINES: usize = 64;
/// How long the last reports of a session may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the events of a playback URL go: `/t/{token}/cmcd` beside `/t/{token}/v/…`, or `/cmcd` with the token in the
/// query. `None` when the URL carries no token.
pub fn target(playback: &Url) -> Option<Url> {
    let mut segments = playback.path_segments()?;
    let mut target = playback.clone();
    target.set_fragment(None);
    match (segments.next(), segments.next()) {
        (Some("t"), Some(token)) if !token.is_empty() => {
            target.set_path(&format!("/t/{token}/cmcd"));
            target.set_query(None);
            Some(target)
        }
        _ => {
            let token = playback.query_pairs().find(|(name, _)| name == "token")?.1.into_owned();
            target.set_path("/cmcd");
            target.query_pairs_mut().clear().append_pair("token", &token);
            Some(target)
        }
    }
}

/// The events of one session.
pub struct Reporter {
    ids: Ids,
    clock: Clock,
    target: Option<Url>,
    enabled: bool,
    waiting: VecDeque<String>,
    number: u64,
    sending: Option<(u64, BoxFuture<'static, Result<Duration, Failure>>)>,
}

impl Reporter {
    /// A reporter that keeps lines until it is told where to.
    pub fn new(ids: Ids, clock: Clock, enabled: bool) -> Self {
        Self { ids, clock, target: None, enabled, waiting: VecDeque::new(), number: 0, sending: None }
    }

    /// Reports go to the edge that answered at `playback`.
    pub fn send_beside(&mut self, playback: &Url) {
        self.target = target(playback);
        self.enabled &= self.target.is_some();
    }

    /// Something happened `ago`.
    pub fn push(&mut self, event: &Event, state: char, now: &Now, position: Duration, ago: Duration, tally: &Tally) {
        if !self.enabled {
            return;
        }
        let ago = i64::try_from(ago.as_millis()).unwrap_or(0);
        let line = cmcd::report(&self.ids, event, state, now, self.number, self.clock.unix_millis() - ago, position);
        self.number += 1;
        if self.waiting.len() >= MAX_WAITING_LINES {
            self.waiting.pop_front();
            tally.reported(0, 0, 1);
        }
        self.waiting.push_back(line);
    }

    /// Sends what waits and resolves when one POST was answered; never while there is nothing to send. Cancel safe.
    pub async fn turn(&mut self, fetcher: &Fetcher, tally: &Tally) {
        if self.sending.is_none()
            && !self.waiting.is_empty()
            && let Some(target) = self.target.clone().filter(|_| self.enabled)
        {
            let lines: Vec<String> = self.waiting.drain(..).collect();
            let (count, fetcher) = (lines.len() as u64, fetcher.clone());
            let work = async move { fetcher.report(target, lines.join("\n") + "\n").await };
            self.sending = Some((count, work.boxed()));
        }
        let Some((count, work)) = &mut self.sending else {
            return std::future::pending().await;
        };
        let (count, answer) = (*count, work.await);
        self.sending = None;
        match answer {
            Ok(took) => {
                tally.reported(count, 0, 0);
                tally.report_took(took);
            }
            Err(failure) => {
                tally.reported(0, count, 0);
                tally.failed(&failure);
            }
        }
    }

    /// The last reports, within a bound.
    pub async fn flush(mut self, fetcher: &Fetcher, tally: &Tally) {
        let end = monotonic() + FLUSH_TIMEOUT;
        while self.enabled && (self.sending.is_some() || (!self.waiting.is_empty() && self.target.is_some())) {
            if tokio::time::timeout_at(end, self.turn(fetcher, tally)).await.is_err() {
                let under_way = self.sending.as_ref().map_or(0, |(count, _)| *count);
                tally.reported(0, under_way, self.waiting.len() as u64);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_go_where_the_token_is() {
        let target = |text: &str| target(&Url::parse(text).unwrap()).map(String::from);
        assert_eq!(target("http://e:1/t/a.b.c/v/l/master.m3u8?CMCD=x").as_deref(), Some("http://e:1/t/a.b.c/cmcd"));
        assert_eq!(
            target("http://e:1/v/l/master.m3u8?token=a.b.c&x=y").as_deref(),
            Some("http://e:1/cmcd?token=a.b.c")
        );
        assert_eq!(target("http://e:1/v/l/master.m3u8"), None);
    }
}
