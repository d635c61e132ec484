//! Medians and spread over the rounds, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::load::Protocol;
use crate::report::median;

/// One measured cell of one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    micros_per_request: f64,
    seconds_per_gigabyte: f64,
    requests_per_cpu_second: f64,
}

type Cell = (Protocol, usize);

/// All rounds.
#[derive(Debug, Default)]
pub(super) struct Report {
    samples: BTreeMap<Cell, BTreeMap<String, Vec<Sample>>>,
}

fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

impl Report {
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn add(&mut self, server: &str, protocol: Protocol, size: usize, requests: u64, cpu: Duration) {
        let requests = requests.max(1) as f64;
        let seconds = cpu.as_secs_f64();
        let sample = Sample {
            micros_per_request: seconds * 1e6 / requests,
            seconds_per_gigabyte: seconds * 1e9 / (requests * size as f64),
            requests_per_cpu_second: requests / seconds.max(1e-9),
        };
        self.samples.entry((protocol, size)).or_default().entry(server.to_owned()).or_default().push(sample);
    }

    /// The median of `a / b` over rounds: what was measured right after one another is compared.
    fn ratio(&self, cell: Cell, a: &str, b: &str) -> Option<f64> {
        let servers = self.samples.get(&cell)?;
        let pairs = servers.get(a)?.iter().zip(servers.get(b)?);
        let mut ratios: Vec<f64> = pairs.map(|(a, b)| a.micros_per_request / b.micros_per_request).collect();
        (!ratios.is_empty()).then(|| median(&mut ratios))
    }

    pub(super) fn json(&self) -> String {
        format!("{:#}\n", self.value())
    }

    pub(super) fn value(&self) -> serde_json::Value {
        let mut cells = Vec::new();
        for ((protocol, size), servers) in &self.samples {
            for (server, samples) in servers {
                let mut micros: Vec<f64> = samples.iter().map(|s| s.micros_per_request).collect();
                let mut gigabyte: Vec<f64> = samples.iter().map(|s| s.seconds_per_gigabyte).collect();
                let (low, high) = spread(&micros);
                cells.push(json!({
                    "server": server, "protocol": protocol.to_string(), "size": size, "rounds": samples.len(),
                    "cpu_microseconds_per_request": { "median": median(&mut micros), "least": low, "most": high },
                    "cpu_seconds_per_gigabyte": median(&mut gigabyte),
                }));
            }
        }
        let ratios: Vec<_> = self
            .samples
            .keys()
            .map(|cell| {
                json!({ "protocol": cell.0.to_string(), "size": cell.1,
                        "edge_by_floor": self.ratio(*cell, "edge", "floor"),
                        "nginx_by_edge": self.ratio(*cell, "nginx", "edge") })
            })
            .collect();
        json!({ "cells": cells, "ratios": ratios })
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = String::from(
            "| hit | protocol | server | CPU µs a request (least–most) | CPU s a GB | requests a CPU second | edge ÷ floor | nginx ÷ edge |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for (cell, servers) in &self.samples {
            for (server, samples) in servers {
                let mut micros: Vec<f64> = samples.iter().map(|s| s.micros_per_request).collect();
                let mut gigabyte: Vec<f64> = samples.iter().map(|s| s.seconds_per_gigabyte).collect();
                let mut rate: Vec<f64> = samples.iter().map(|s| s.requests_per_cpu_second).collect();
                let (low, high) = spread(&micros);
                let ratio = |a: &str, b: &str| {
                    let shown = (server == "edge").then(|| self.ratio(*cell, a, b)).flatten();
                    shown.map_or(String::new(), |ratio| format!("{ratio:.2}"))
                };
                let _ = writeln!(
                    out,
                    "| {} | {} | {server} | {:.1} ({low:.1}–{high:.1}) | {:.2} | {:.0} | {} | {} |",
                    size_text(cell.1),
                    cell.0,
                    median(&mut micros),
                    median(&mut gigabyte),
                    median(&mut rate),
                    ratio("edge", "floor"),
                    ratio("nginx", "edge"),
                );
            }
        }
        out
    }
}

fn size_text(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_pairs_and_medians_of_rounds() {
        let mut report = Report::default();
        for (edge, floor) in [(10, 10), (12, 10), (30, 10)] {
            report.add("edge", Protocol::Plain, 2048, 1000, Duration::from_millis(edge));
            report.add("floor", Protocol::Plain, 2048, 1000, Duration::from_millis(floor));
        }
        assert_eq!(report.ratio((Protocol::Plain, 2048), "edge", "floor"), Some(1.2));
        assert_eq!(report.ratio((Protocol::Plain, 2048), "nginx", "edge"), None);
        assert!(report.markdown().contains("| 2 KiB | plain | edge | 12.0 (10.0–30.0) |"), "{}", report.markdown());
        assert!(report.json().contains("\"edge_by_floor\": 1.2"));
    }
}
