//! Figures against their bounds, as JSON and as a table.

use std::fmt::Write as _;

use serde_json::json;

struct Line {
    what: &'static str,
    value: f64,
    at_most: f64,
    note: String,
}

/// All that was measured.
#[derive(Default)]
pub(super) struct Report {
    lines: Vec<Line>,
}

impl Line {
    fn held(&self) -> bool {
        self.value <= self.at_most
    }
}

impl Report {
    /// Adds a figure that must be at most `at_most`.
    pub(super) fn ratio(&mut self, what: &'static str, value: f64, at_most: f64, note: String) {
        eprintln!("{what}: {value:.3} (at most {at_most}): {note}");
        self.lines.push(Line { what, value, at_most, note });
    }

    /// Whether every bound was held.
    pub(super) fn all_held(&self) -> bool {
        self.lines.iter().all(Line::held)
    }

    pub(super) fn json(&self) -> String {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(
                |l| json!({ "what": l.what, "value": l.value, "at_most": l.at_most, "held": l.held(), "note": l.note }),
            )
            .collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!("{:#}\n", json!({ "cores": cores, "figures": lines }))
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = String::from(
            "| transcoder beside ffmpeg | measured | at most | held | ours / ffmpeg's |\n|---|---|---|---|---|\n",
        );
        for line in &self.lines {
            let held = if line.held() { "yes" } else { "**no**" };
            let _ = writeln!(out, "| {} | {:.2} | {} | {held} | {} |", line.what, line.value, line.at_most, line.note);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_is_missed_is_told() {
        let mut report = Report::default();
        report.ratio("wall time", 0.9, 1.0, "9 s / 10 s".to_owned());
        assert!(report.all_held());
        report.ratio("processor time", 1.2, 1.05, "12 s / 10 s".to_owned());
        report.ratio("nothing", f64::NAN, 1.0, String::new());
        assert!(!report.all_held());
        assert!(report.markdown().contains("| processor time | 1.20 | 1.05 | **no** | 12 s / 10 s |"));
        assert!(report.json().contains("\"held\": false"));
    }
}
