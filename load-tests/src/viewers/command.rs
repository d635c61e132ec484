//! The `viewers` command: starts the viewers, waits, prints what they saw.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lyceum_core::time::{Clock, Instant, monotonic};
use lyceum_core::units::Span;
use tokio::sync::watch;
use tokio::task::JoinSet;
use url::Url;

use super::adaptation::Policy;
use super::behaviour::Behaviour;
use super::fetch::{Fetcher, Timeouts};
use super::playback::Settings;
use super::session::watch_lesson;
use super::shared::Shared;
use super::tally::{End, Run, Tally};
use crate::report;

/// Time for viewers to send their last reports after the end of the run.
const MAX_FAREWELL: Duration = Duration::from_secs(5);

/// The command line of `lyceum-load viewers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Playback URL as `POST /v1/playback` gives it; several are spread over the viewers
    #[arg(long = "url", required = true, value_name = "PLAYBACK_URL")]
    urls: Vec<Url>,
    /// Viewers at the same time; one whose lesson ends starts it again
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    viewers: u32,
    /// Length of the run
    #[arg(long, default_value = "60s", value_parser = span::<1_000, 86_400_000>)]
    duration: Span,
    /// Time over which the viewers press play, one after the other
    #[arg(long, default_value = "0s", value_parser = span::<0, 86_400_000>)]
    ramp: Span,
    /// How renditions are chosen
    #[arg(long, value_enum, default_value_t = Policy::Throughput)]
    abr: Policy,
    /// No rendition with more pixels on its shorter side
    #[arg(long, value_name = "PIXELS")]
    max_height: Option<u32>,
    /// Language of the sound
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    /// Move the playhead to a random place about this often
    #[arg(long, value_name = "MEAN", value_parser = span::<1_000, 86_400_000>)]
    seek: Option<Span>,
    /// Media ahead of the playhead before the picture starts, or starts again
    #[arg(long, default_value = "2s", value_parser = span::<100, 60_000>)]
    startup_buffer: Span,
    /// Media ahead of the playhead at which a player stops fetching
    #[arg(long, default_value = "30s", value_parser = span::<1_000, 600_000>)]
    target_buffer: Span,
    /// Time for the header of a response, and between two pieces of its body
    #[arg(long, default_value = "10s", value_parser = span::<100, 300_000>)]
    timeout: Span,
    /// Further tries of a request that may succeed later
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=20))]
    retries: u32,
    /// Leave CMCD out of requests
    #[arg(long)]
    no_cmcd: bool,
    /// Send no CMCD events
    #[arg(long)]
    no_reports: bool,
    /// Time between two reports of a session that plays on
    #[arg(long, default_value = "10s", value_parser = span::<1_000, 3_600_000>)]
    report_interval: Span,
    /// Write the figures as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn span<const MIN: u64, const MAX: u64>(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error: lyceum_core::units::UnitError| error.to_string())?;
    let (min, max) = (Span::millis(MIN), Span::millis(MAX));
    if span < min || span > max {
        return Err(format!("{span} is out of bounds: from {min} to {max}"));
    }
    Ok(span)
}

impl Args {
    fn behaviour(&self) -> Behaviour {
        Behaviour {
            buffer: Settings { startup: self.startup_buffer.get(), target: self.target_buffer.get() },
            abr: self.abr,
            max_height: self.max_height,
            language: self.language.clone(),
            seek: self.seek.map(Span::get),
            retries: self.retries,
            cmcd: !self.no_cmcd,
            reports: !self.no_reports,
            report_interval: self.report_interval.get(),
        }
    }
}

/// Runs the viewers and prints a summary. Exit code 1 if a session failed or none showed a picture.
pub async fn run(args: Args) -> ExitCode {
    for url in &args.urls {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            eprintln!("lyceum-load: --url takes an http or https address of a playlist, not {}", shown(url));
            return ExitCode::from(2);
        }
    }
    let (stop, stopped) = watch::channel(false);
    let shared = Shared {
        behaviour: Arc::new(args.behaviour()),
        tally: Arc::new(Tally::default()),
        clock: Clock::system(),
        stop: stopped,
    };
    let began = monotonic();
    let end = began + args.duration.get();
    let mut viewers = spawn(&args, &shared, began, end);
    let interrupted = wait(&mut viewers, &shared.tally, began, end).await;
    // The final reports of sessions do not count towards the duration of the run.
    let seconds = monotonic().saturating_duration_since(began).as_secs_f64();
    let _ = stop.send(true);
    let farewell = async { while viewers.join_next().await.is_some() {} };
    if tokio::time::timeout(MAX_FAREWELL, farewell).await.is_err() {
        viewers.abort_all();
    }
    let urls = args.urls.iter().map(shown).collect();
    let summary = shared.tally.summary(Run { urls, viewers: args.viewers.into(), seconds, interrupted });
    print!("{}", summary.render());
    if let Some(error) = args.json.as_deref().and_then(|path| report::write_json(path, &summary).err()) {
        eprintln!("lyceum-load: {error}");
        return ExitCode::FAILURE;
    }
    if summary.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts the viewers, spread over the ramp and over the URLs.
fn spawn(args: &Args, shared: &Shared, began: Instant, end: Instant) -> JoinSet<()> {
    let timeouts = Timeouts { response: args.timeout.get(), idle: args.timeout.get(), ..Timeouts::default() };
    let mut viewers = JoinSet::new();
    for (number, url) in (0..args.viewers).zip(args.urls.iter().cycle()) {
        let (shared, url) = (shared.clone(), url.clone());
        let at = began + args.ramp.get() * number / args.viewers;
        viewers.spawn(async move {
            let mut stop = shared.stop.clone();
            tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // Connections belong to the viewer and are reused for its next lesson.
            let fetcher = Fetcher::new(timeouts);
            while monotonic() < end && !*shared.stop.borrow() {
                match watch_lesson(&shared, &fetcher, &url).await {
                    End::Ended => {}
                    // A refused viewer does not retry: it would be refused again.
                    End::Failed(_) | End::Stopped => return,
                }
            }
        });
    }
    viewers
}

/// Waits for the end of the run, the end of all viewers, or a signal. Returns whether it was a signal.
async fn wait(viewers: &mut JoinSet<()>, tally: &Tally, began: Instant, end: Instant) -> bool {
    let show = std::io::stderr().is_terminal();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut signal = std::pin::pin!(interrupt());
    let interrupted = loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => break false,
            left = viewers.join_next() => if left.is_none() { break false },
            () = &mut signal => break true,
            _ = second.tick(), if show => {
                let seconds = monotonic().saturating_duration_since(began).as_secs();
                eprint!("\r\x1b[K{seconds} s: {}", tally.progress());
                let _ = std::io::stderr().flush();
            }
        }
    };
    if show {
        eprint!("\r\x1b[K");
    }
    interrupted
}

/// Ctrl-C or SIGTERM.
async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        result = tokio::signal::ctrl_c() => if result.is_err() { std::future::pending().await },
        _ = terminated.recv() => {}
    }
}

/// A URL without credentials: a token in the path is shortened, the query removed.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    let _ = url.set_password(None);
    let segments: Vec<String> = url.path_segments().into_iter().flatten().map(String::from).collect();
    if let [first, token, rest @ ..] = &segments[..]
        && first == "t"
    {
        let start: String = token.chars().take(6).collect();
        url.set_path(&format!("/t/{start}~/{}", rest.join("/")));
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_shown() {
        let shown = |text: &str| shown(&Url::parse(text).unwrap());
        assert_eq!(shown("http://e:1/t/eyJhbGciOi.b.c/v/l/master.m3u8?x=y"), "http://e:1/t/eyJhbG~/v/l/master.m3u8");
        assert_eq!(shown("http://e:1/v/l/master.m3u8?token=secret"), "http://e:1/v/l/master.m3u8");
    }

    #[test]
    fn times_out_of_bounds_are_refused() {
        assert_eq!(span::<1000, 5000>("2s"), Ok(Span::secs(2)));
        assert!(span::<1000, 5000>("6s").is_err_and(|e| e.contains("from 1s to 5s")));
        assert!(span::<1000, 5000>("soon").is_err());
    }
}
