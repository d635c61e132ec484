//! Figures against their bounds.

use serde::Serialize;

/// A figure and its bound.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What it must reach, or stay below.
    pub(super) bound: f64,
    pub(super) reached: bool,
    /// What lies behind it.
    pub(super) details: serde_json::Value,
}

impl Figure {
    pub(super) fn at_least(
        name: &'static str,
        value: f64,
        unit: &'static str,
        bound: f64,
        details: serde_json::Value,
    ) -> Self {
        Self { name, value, unit, bound, reached: value >= bound, details }
    }

    pub(super) fn at_most(
        name: &'static str,
        value: f64,
        unit: &'static str,
        bound: f64,
        details: serde_json::Value,
    ) -> Self {
        Self { name, value, unit, bound, reached: value <= bound, details }
    }
}

/// The figures as a table.
pub(super) fn markdown(figures: &[Figure]) -> String {
    let mut text = String::from("| figure | measured | bound | reached | behind it |\n|---|---|---|---|---|\n");
    for figure in figures {
        let reached = if figure.reached { "yes" } else { "no" };
        let (value, bound, unit) = (figure.value, figure.bound, figure.unit);
        text +=
            &format!("| {} | {value:.3} {unit} | {bound} {unit} | {reached} | `{}` |\n", figure.name, figure.details);
    }
    text
}
