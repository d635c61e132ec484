//! `lyceum-load faults`: a soak with random faults between the edge and its origins.
//!
//! Clients of several kinds request everything that an edge serves and check every byte; the origins randomly refuse,
//! reset, truncate, stall, trickle and send wrong headers. Afterwards the edge's counters must match what clients saw, and
//! nothing may be left open.

mod client;
mod origin;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyceum_core::time::monotonic;
use lyceum_core::units::Span;
use serde::Serialize;

use crate::report::{self, Table, show_bytes};
use crate::world::{World, WorldError, resident};
use client::Seen;
use origin::{Deeds, Fault};

/// Soak an edge with random faults between it and its origins; afterwards the counters have to balance
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long
    #[arg(long, default_value = "10m")]
    duration: Span,
    /// Clients at once
    #[arg(long, default_value_t = 32)]
    clients: u64,
    /// Requests to the origins that go wrong, in percent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100))]
    percent: u64,
    /// The same seed asks for the same and fails in the same ways, but for timing
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the figures as JSON here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// How long a body may stand still for the edge.
const IDLE_BODY_TIMEOUT: Duration = Duration::from_millis(500);

/// Time for everything under way to end.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    expected: String,
    found: String,
    holds: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    seed: u64,
    clients: u64,
    fault_percent: u64,
    requests: u64,
    hits: u64,
    whole: u64,
    broken_off: u64,
    left_by_client: u64,
    refused: u64,
    bytes: u64,
    origin_requests: u64,
    faults: Vec<(&'static str, u64)>,
    outcomes: Vec<(String, f64)>,
    fills: Vec<(String, f64)>,
    resident_before: u64,
    resident_after: u64,
    checks: Vec<Check>,
}

/// Runs the soak. Fails when a check does not hold.
pub async fn run(args: Args) -> ExitCode {
    match soak(&args).await {
        Ok(report) => {
            print!("{}", table(&report).render());
            let holds = report.checks.iter().all(|check| check.holds);
            let json = args.json.iter().try_for_each(|path| report::write_json(path, &report));
            let markdown = args
                .markdown
                .iter()
                .try_for_each(|path| std::fs::write(path, markdown(&report)).map_err(|error| error.to_string()));
            if let Err(error) = json.and(markdown) {
                eprintln!("lyceum-load: {error}");
                return ExitCode::FAILURE;
            }
            if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("lyceum-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(args: &Args) -> Result<Report, WorldError> {
    let deeds = Deeds::new(args.seed, args.percent, IDLE_BODY_TIMEOUT);
    let mut origins = Vec::new();
    for _ in 0..2 {
        origins.push(format!("http://{}", crate::origin::listen(Arc::clone(&deeds)).await?));
    }
    let pool = format!(
        "idle = \"{}ms\"\nfirst_byte = \"1s\"\neject_for = \"200ms\"\neject_after = 5",
        IDLE_BODY_TIMEOUT.as_millis()
    );
    let more = "[cache]\nmemory = \"48MiB\"\ndisk = { path = \"{dir}/disk\", size = \"256MiB\" }\n\
                [limits]\nrequests_per_client = 1000000\nrequests_burst = 10000000\nconnections_per_client = 100000\n";
    let world = Arc::new(World::start(&origins, &pool, more).await?);
    let seen = Arc::new(Seen::default());
    let (start, before) = (monotonic(), resident());
    let end = start + args.duration.get();
    let clients: Vec<_> = (0..args.clients)
        .map(|place| tokio::spawn(client::run(Arc::clone(&world), Arc::clone(&seen), args.seed, place, end)))
        .collect();
    for client in clients {
        client.await.map_err(|_| WorldError::new("a client panicked"))?;
    }
    deeds.calm.store(true, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let checks = checks(&world, &seen).await;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        seconds,
        seed: args.seed,
        clients: args.clients,
        fault_percent: args.percent,
        requests: read(&seen.sent),
        hits: read(&seen.hits),
        whole: read(&seen.whole),
        broken_off: read(&seen.broken),
        left_by_client: read(&seen.left),
        refused: read(&seen.refused),
        bytes: read(&seen.bytes),
        origin_requests: read(&deeds.requests),
        faults: Fault::ALL.iter().zip(&deeds.faults).map(|((_, name), count)| (*name, read(count))).collect(),
        outcomes: world.by_label("lyceum_edge_requests_total", "outcome"),
        fills: world.by_label("lyceum_edge_fills_total", "result"),
        resident_before: before,
        resident_after: resident(),
        checks,
    })
}

/// The books: what clients saw and what the edge counted, and what is left open.
async fn checks(world: &World, seen: &Seen) -> Vec<Check> {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut checks = Vec::new();
    let mut nothing = |what: &'static str, found: f64| {
        checks.push(Check { what, expected: "0".to_owned(), found: found.to_string(), holds: found == 0.0 });
    };
    nothing("wrong bytes, short bodies passed off as whole, parts of something else", read(&seen.wrong) as f64);
    nothing("requests that got stuck", read(&seen.stuck) as f64);
    for (what, name) in [
        ("fills left", "lyceum_edge_fills_open"),
        ("requests to origins left", "lyceum_upstream_in_flight_requests"),
        ("client connections left", "lyceum_front_connections"),
    ] {
        world.until(SETTLE_TIMEOUT, |world| world.metric(name, &[]) == 0.0).await;
        nothing(what, world.metric(name, &[]));
    }
    let counted = world.metric("lyceum_edge_requests_total", &[]);
    let observed = world.metric("lyceum_edge_first_byte_seconds_count", &[]);
    let (answered, unanswered) = (read(&seen.answered) as f64, read(&seen.unanswered) as f64);
    let mut between = |what: &'static str, least: f64, most: f64, found: f64| {
        let expected = if least == most { format!("{least}") } else { format!("{least} to {most}") };
        checks.push(Check { what, expected, found: found.to_string(), holds: (least..=most).contains(&found) });
    };
    between(
        "requests that the edge counted by outcome, beside answers that clients got",
        answered,
        answered + unanswered,
        counted,
    );
    between("requests counted and requests timed", counted, counted, observed);
    let (bytes, missing) = (read(&seen.bytes) as f64, read(&seen.missing) as f64);
    let out = world.metric("lyceum_edge_response_bytes_total", &[]);
    between("bytes out, beside bytes of bodies that clients read (and may have left)", bytes, bytes + missing, out);
    let drained = world.drain(SETTLE_TIMEOUT).await;
    checks.push(Check {
        what: "all work of the edge ended",
        expected: "true".to_owned(),
        found: drained.to_string(),
        holds: drained,
    });
    checks
}

fn rows(report: &Report) -> Vec<(String, String)> {
    let mut rows: Vec<(String, String)> = vec![
        ("seconds".into(), format!("{:.0}", report.seconds)),
        ("requests".into(), report.requests.to_string()),
        ("bodies".into(), show_bytes(report.bytes)),
        ("of them whole, every byte right".into(), report.whole.to_string()),
        ("broken off".into(), report.broken_off.to_string()),
        ("left by the client".into(), report.left_by_client.to_string()),
        ("refused (4xx, 5xx)".into(), report.refused.to_string()),
        ("requests to origins".into(), report.origin_requests.to_string()),
        (
            "memory before and after".into(),
            format!("{} {}", show_bytes(report.resident_before), show_bytes(report.resident_after)),
        ),
    ];
    rows.extend(report.faults.iter().map(|(name, count)| (format!("fault: {name}"), count.to_string())));
    rows.extend(report.outcomes.iter().map(|(name, count)| (format!("outcome: {name}"), count.to_string())));
    rows.extend(report.fills.iter().map(|(name, count)| (format!("fill: {name}"), count.to_string())));
    rows
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(&["what", "found", "expected", ""]);
    for (what, count) in rows(report) {
        table.row([what, count]);
    }
    for check in &report.checks {
        let verdict = if check.holds { "holds" } else { "DOES NOT HOLD" };
        table.row([check.what.to_owned(), check.found.clone(), check.expected.clone(), verdict.to_owned()]);
    }
    table
}

fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Soak with faults\n\n`lyceum-load faults`: {} clients, {} % of the origins' answers go wrong, seed {}.\n\n| what | |\n|---|--:|\n",
        report.clients, report.fault_percent, report.seed
    );
    for (what, count) in rows(report) {
        text.push_str(&format!("| {what} | {count} |\n"));
    }
    text.push_str("\n| check | expected | found | holds |\n|---|--:|--:|---|\n");
    for check in &report.checks {
        text.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            check.what,
            check.expected,
            check.found,
            if check.holds { "yes" } else { "**no**" }
        ));
    }
    text
}
