//! Reports of a run: quantiles, tables for people, JSON for programs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// The median; NaN of nothing. Sorts what it is given.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A distribution in some base unit, kept in whole micro-units with two significant digits.
#[derive(Clone, Debug)]
pub struct Quantiles {
    histogram: Option<Histogram<u64>>,
    sum: f64,
}

/// The largest recorded value, in micro-units: an hour in seconds, 3.6 Gbit/s in megabits.
const MAX_MICROS: u64 = 3_600_000_000;

impl Default for Quantiles {
    fn default() -> Self {
        // The bounds are constants that the constructor takes, so there is always a histogram.
        Self { histogram: Histogram::new_with_bounds(1, MAX_MICROS, 2).ok(), sum: 0.0 }
    }
}

/// The figures of a distribution, in its base unit; all `None` when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How many values there were.
    pub count: u64,
    /// Their mean.
    pub mean: Option<f64>,
    /// Half of them are at most this.
    pub p50: Option<f64>,
    /// Nine of ten are.
    pub p90: Option<f64>,
    /// Ninety-nine of a hundred are.
    pub p99: Option<f64>,
    /// All are.
    pub max: Option<f64>,
}

impl Quantiles {
    /// Records a time, in seconds.
    pub fn time(&mut self, value: Duration) {
        self.value(value.as_secs_f64());
    }

    /// Records a value in the base unit.
    pub fn value(&mut self, value: f64) {
        let value = value.max(0.0);
        self.sum += value;
        if let Some(histogram) = &mut self.histogram {
            // Past the upper bound it counts as the upper bound.
            histogram.saturating_record((value * 1e6) as u64);
        }
    }

    /// The figures.
    pub fn figures(&self) -> Figures {
        let Some(histogram) = self.histogram.as_ref().filter(|h| !h.is_empty()) else {
            return Figures::default();
        };
        let at = |quantile| Some(histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1e6);
        Figures {
            count: histogram.len(),
            mean: Some(self.sum / histogram.len() as f64),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: Some(histogram.max() as f64 / 1e6),
        }
    }
}

impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.figures().serialize(to)
    }
}

/// A text table: the first column to the left, the others to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its column heads.
    pub fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The rows with aligned columns, each on a line of its own.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell: &String| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from("  ");
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A time for people: `12 ms`, `1.25 s`; a dash when there was none.
pub fn show_time(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".into(),
        Some(s) if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        Some(s) if s < 1.0 => format!("{:.0} ms", s * 1e3),
        Some(s) => format!("{s:.2} s"),
    }
}

/// A rate for people, from bits per second.
pub fn show_rate(bits: Option<f64>) -> String {
    match bits {
        None => "–".into(),
        Some(b) if b < 999_500.0 => format!("{:.0} kbit/s", b / 1e3),
        Some(b) if b < 999_500_000.0 => format!("{:.1} Mbit/s", b / 1e6),
        Some(b) => format!("{:.2} Gbit/s", b / 1e9),
    }
}

/// A number of bytes for people.
pub fn show_bytes(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{:.0} kB", b / 1e3),
        10_000_000..=9_999_999_999 => format!("{:.1} MB", b / 1e6),
        _ => format!("{:.2} GB", b / 1e9),
    }
}

/// Writes `report` as JSON, whole or not at all.
pub fn write_json(path: &Path, report: &impl Serialize) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| format!("the report can't be written to {}: {error}", path.display());
    let mut text = serde_json::to_vec_pretty(report).map_err(|error| said(&error))?;
    text.push(b'\n');
    let name = path.file_name().ok_or_else(|| said(&"it is no file name"))?;
    let mut beside = name.to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(beside);
    std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)).map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        said(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_two_digits_of_the_truth() {
        let mut quantiles = Quantiles::default();
        assert_eq!(quantiles.figures(), Figures::default());
        for n in 1..=1000u64 {
            quantiles.time(Duration::from_millis(n));
        }
        let figures = quantiles.figures();
        let near = |value: Option<f64>, truth: f64| {
            assert!((value.unwrap() / truth - 1.0).abs() < 0.01, "{value:?} is not {truth}")
        };
        near(figures.p50, 0.5);
        near(figures.p90, 0.9);
        near(figures.p99, 0.99);
        near(figures.max, 1.0);
        near(figures.mean, 0.5005);
        quantiles.time(Duration::from_secs(100_000));
        near(quantiles.figures().max, 3600.0);
    }

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::new(&["what", "n"]);
        table.row(["segments".into(), "7".into()]);
        table.row(["é".into(), "1234".into()]);
        assert_eq!(table.render(), "  what         n\n  segments     7\n  é         1234\n");
    }

    #[test]
    fn a_report_is_written_whole_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("lyceum-load-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("report.json");
        write_json(&path, &serde_json::json!({"a": 1})).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\n  \"a\": 1\n}\n");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let error = write_json(&dir.join("none/report.json"), &1).unwrap_err();
        assert!(error.contains("none/report.json"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
