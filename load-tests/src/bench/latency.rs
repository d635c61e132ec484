//! Latency of a hit under sustainable load: the 99th percentile at 70 % of each server's own maximum.

use std::time::Duration;

use super::args::Args;
use super::error::BenchError;
use super::goals::Goal;
use super::load::{self, Protocol};
use super::servers::TestServers;
use crate::report::median;

/// A segment of a small rendition.
const OBJECT_BYTES: usize = 64 << 10;
const LOAD_SHARE: f64 = 0.7;

/// What one server did.
#[derive(Debug, Default)]
struct LatencySamples {
    most: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// The edge beside nginx, and beside what bare hyper does.
pub(super) fn measure(args: &Args) -> Result<Vec<Goal>, BenchError> {
    load::have_programs(&["nginx".to_owned()])?;
    let setting = TestServers::new(&[OBJECT_BYTES])?;
    let servers = [setting.start("edge")?, setting.start("nginx")?, setting.start("floor")?];
    let span = Duration::from_secs(args.seconds.max(1));
    let mut goals = Vec::new();
    for protocol in Protocol::ALL {
        let mut found = [LatencySamples::default(), LatencySamples::default(), LatencySamples::default()];
        for round in 0..args.rounds.max(1) {
            for (server, found) in servers.iter().zip(&mut found) {
                let url = server.url(protocol, OBJECT_BYTES).ok_or_else(|| BenchError::new("a server without TLS"))?;
                load::check_answer(protocol, &url, OBJECT_BYTES)?;
                let (count, _) = load::timed(protocol, &url, args.connections, None, Duration::from_secs(2))?;
                let most = count as f64 / 2.0;
                let (_, times) = load::timed(protocol, &url, args.connections, Some(most * LOAD_SHARE), span)?;
                let figures = times.figures();
                let (p50, p99) = (figures.p50.unwrap_or(f64::NAN) * 1e3, figures.p99.unwrap_or(f64::NAN) * 1e3);
                eprintln!("round {}: {} {protocol}: {most:.0}/s, p99 {p99:.2} ms", round + 1, server.name());
                found.most.push(most);
                found.p50.push(p50);
                found.p99.push(p99);
            }
        }
        let [edge, nginx, floor] = found.map(|found| {
            let LatencySamples { mut most, mut p50, mut p99 } = found;
            (median(&mut most), median(&mut p50), median(&mut p99))
        });
        goals.push(Goal {
            what: format!("99th percentile of 64 KiB at 70 % of its own maximum, {protocol}; not above nginx"),
            found: edge.2,
            most: nginx.2,
            unit: "ms",
            how: format!(
                "maxima {:.0} and {:.0} a second, medians {:.2} and {:.2} ms; bare hyper and rustls {:.2} ms at 70 % of {:.0}",
                edge.0, nginx.0, edge.1, nginx.1, floor.2, floor.0
            ),
        });
    }
    Ok(goals)
}
