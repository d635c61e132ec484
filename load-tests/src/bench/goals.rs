//! Goals that one figure decides.

use std::fmt::Write as _;

use serde::Serialize;

/// A figure and what it may come to at most.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Goal {
    pub(super) what: String,
    /// The edge's figure.
    pub(super) found: f64,
    /// The most that it may be.
    pub(super) most: f64,
    pub(super) unit: &'static str,
    /// What both come from, for people.
    pub(super) how: String,
}

impl Goal {
    fn holds(&self) -> bool {
        self.found <= self.most
    }
}

/// A table of goals.
pub(super) fn markdown(goals: &[Goal]) -> String {
    let mut out = String::from("| goal | edge | at most | holds | from |\n|---|--:|--:|---|---|\n");
    for goal in goals {
        let Goal { what, found, most, unit, how } = goal;
        let holds = if goal.holds() { "yes" } else { "no" };
        let _ = writeln!(out, "| {what} | {found:.2} {unit} | {most:.2} {unit} | {holds} | {how} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_missed_above_its_bound() {
        let goal = |found| Goal { what: "w".into(), found, most: 2.0, unit: "ms", how: "h".into() };
        let text = markdown(&[goal(2.0), goal(2.1)]);
        assert!(text.contains("| w | 2.00 ms | 2.00 ms | yes | h |\n| w | 2.10 ms | 2.00 ms | no | h |\n"), "{text}");
    }
}
