//! The log: structured lines on standard error, as text for people or JSON for machines.
//!
//! No thread that logs waits for a reader: lines go through a bounded queue to a thread of their own (`log_queue.rs`),
//! and lines of one kind have a rate (`log_rate.rs`). What is dropped is counted, and said in the log.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use super::log_queue::LineQueue;
use super::log_rate::RateLimit;
use super::registered;
use crate::time::monotonic;
use crate::units::ByteSize;

/// How often the log says what was left out of it.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// How long a program that ends waits for its last lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The options of every program about its log.
#[derive(Clone, Debug, clap::Args)]
pub struct LogOptions {
    /// The form of log lines, which go to standard error; LYCEUM_LOG filters them
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    /// Log lines of one kind a second, after a first burst of ten times as many; what exceeds it is counted. 1 to 100000;
    /// 0: no limit
    #[arg(
        long, value_name = "LINES", default_value_t = 10, global = true, hide_short_help = true,
        value_parser = clap::value_parser!(u32).range(0..=100_000)
    )]
    log_rate: u32,
    /// Log lines that may wait for what reads standard error; what exceeds it is dropped and counted. 64KiB to 1GiB
    #[arg(
        long, value_name = "SIZE", default_value = "1MiB", global = true, hide_short_help = true,
        value_parser = queue_size
    )]
    log_queue: ByteSize,
}

fn queue_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: crate::units::UnitError| error.to_string())?;
    let (least, most) = (ByteSize::kib(64), ByteSize::mib(1024));
    if (least..=most).contains(&size) {
        Ok(size)
    } else {
        Err(format!("{size} is out of bounds: from {least} to {most}"))
    }
}

/// The log of this process; one, as `tracing` has one subscriber and a process one standard error.
static LOG: OnceLock<Arc<Log>> = OnceLock::new();

#[derive(Debug)]
struct Log {
    queue: LineQueue,
    rate: Option<RateLimit>,
    dropped: IntCounterVec,
}

/// Why a line is missing; a label of `lyceum_log_dropped_lines_total`.
const QUEUE_FULL: &str = "queue_full";
const RATE: &str = "rate";
const WRITE_FAILED: &str = "write_failed";

/// Writes what still waits when the program ends, by whatever way; see [`finish`].
#[derive(Debug)]
#[must_use = "the last lines are written when it is dropped"]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        finish();
    }
}

/// Starts the log once for the process. `LYCEUM_LOG` filters as `tracing`'s directives do; default `info`. A panic is
/// logged as an error.
pub fn init(options: &LogOptions) -> LogGuard {
    let log = Arc::new(Log::new(options));
    // A second start, as in tests, leaves the first in place.
    if LOG.set(Arc::clone(&log)).is_ok() {
        let writer = Arc::clone(&log);
        let started = std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write());
        match started {
            Ok(_) => start(options.log_format, LogLines(log)),
            Err(_) => start(options.log_format, io::stderr),
        }
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let trace = std::backtrace::Backtrace::capture();
            let trace = (trace.status() == std::backtrace::BacktraceStatus::Captured).then(|| trace.to_string());
            let (payload, other) = (panic.payload(), "a value that is no text");
            let text = payload.downcast_ref::<&str>().copied();
            let cause = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or(other);
            let place = panic.location().map(ToString::to_string);
            tracing::error!(thread = thread.name(), place, cause, trace, "a thread panicked");
        }));
    }
    LogGuard(())
}

/// Starts a log that writes each line itself: for a process that starts no thread before it enters its sandbox.
pub fn init_unqueued(options: &LogOptions) {
    start(options.log_format, io::stderr);
}

fn start<W>(format: LogFormat, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_env("LYCEUM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let _ = match format {
        LogFormat::Text => {
            builder.with_ansi(io::stderr().is_terminal()).with_target(false).finish().with(RateLayer).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).finish().with(RateLayer).try_init(),
    };
}

/// Writes what waits, within two seconds: a reader that stands still does not keep a program from ending.
pub fn finish() {
    if let Some(log) = LOG.get() {
        log.report();
        log.queue.flush(FLUSH_LIMIT);
    }
}

/// Ends the process with its last lines written.
pub fn exit(code: i32) -> ! {
    finish();
    std::process::exit(code)
}

/// Says something on standard error as it is, behind the lines that wait there: why a program ends.
pub fn say(text: &str) {
    match LOG.get() {
        Some(log) => log.push(format!("{text}\n").as_bytes()),
        None => eprintln!("{text}"),
    }
}

/// Registers the log's metrics.
pub fn register(registry: &Registry) {
    if let Some(log) = LOG.get() {
        registered(registry, log.dropped.clone());
    }
}

impl Log {
    fn new(options: &LogOptions) -> Self {
        let name = "lyceum_log_dropped_lines_total";
        let dropped =
            match IntCounterVec::new(Opts::new(name, "Log lines that were not written, by reason."), &["reason"]) {
                Ok(dropped) => dropped,
                // A valid name and label, so this arm is never reached.
                Err(_) => std::process::abort(),
            };
        // An alert needs a series before it grows.
        [QUEUE_FULL, RATE, WRITE_FAILED].iter().for_each(|reason| drop(dropped.with_label_values(&[reason])));
        let rate = (options.log_rate > 0).then(|| RateLimit::new(options.log_rate, dropped.with_label_values(&[RATE])));
        Self { queue: LineQueue::new(options.log_queue.as_usize()), rate, dropped }
    }

    fn push(&self, line: &[u8]) {
        if self.queue.push(line).is_err() {
            self.dropped.with_label_values(&[QUEUE_FULL]).inc();
        }
    }

    /// The writing thread.
    fn write(&self) {
        let (mut batch, mut reported, mut told) = (Vec::new(), monotonic(), 0);
        let full = self.dropped.with_label_values(&[QUEUE_FULL]);
        loop {
            let failed = self.queue.write_batch(&mut io::stderr(), &mut batch, REPORT_INTERVAL);
            self.dropped.with_label_values(&[WRITE_FAILED]).inc_by(failed);
            if reported.elapsed() < REPORT_INTERVAL {
                continue;
            }
            reported = monotonic();
            self.report();
            let dropped = full.get();
            if dropped > told {
                tracing::warn!(lines = dropped - told, "log lines were dropped: what reads them is too slow");
                told = dropped;
            }
        }
    }

    /// Logs how many lines of each kind were left out.
    fn report(&self) {
        for left_out in self.rate.iter().flat_map(RateLimit::take_left_out) {
            tracing::warn!(kind = left_out.message, lines = left_out.lines, "log lines of one kind were left out");
        }
    }
}

/// The process's rate limit as a layer.
struct RateLayer;

impl<S: Subscriber> Layer<S> for RateLayer {
    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let rate = LOG.get().and_then(|log| log.rate.as_ref());
        rate.is_none_or(|rate| rate.event_enabled(event, context))
    }
}

/// Makes lines of what `tracing` formats; each is one `write`.
struct LogLines(Arc<Log>);

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
