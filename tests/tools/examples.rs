//! The examples run. `make test` builds them with the programs.

use std::process::Command;

use super::said;
use crate::support::program;

#[test]
fn the_examples_of_the_libraries_run() {
    for (example, prints) in [("verify_token", "two hours later: "), ("plan_and_render", "#EXTM3U")] {
        let output = Command::new(program(&format!("examples/{example}"))).output().expect("the example runs");
        let printed = said(&output);
        assert!(printed.contains(prints), "{example}: {printed}");
    }
}
