//! Every crate's licence is one that this project may be built with. (What FFmpeg brings is said in the README.)

use std::process::Command;

use crate::support::repository;

/// Permissive licences (SPDX). An expression needs each of its `AND` parts to have an `OR` part among these.
const TAKEN: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "ISC",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "MIT-0",
    "CDLA-Permissive-2.0",
    "WTFPL",
];

/// Whether an SPDX expression without nested brackets can be satisfied from [`TAKEN`].
fn allowed(expression: &str) -> bool {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut part = String::new();
    for word in expression.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match word {
            "(" => depth += 1,
            ")" => depth -= 1,
            "AND" if depth == 0 => parts.push(std::mem::take(&mut part)),
            word => part.push_str(&format!("{word} ")),
        }
    }
    parts.push(part);
    let any = |part: &String| part.replace('/', " OR ").split(" OR ").any(|name| TAKEN.contains(&name.trim()));
    parts.iter().all(any)
}

#[test]
fn every_crate_may_be_used() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(repository("."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 100, "only {} packages", packages.len());
    let licence = |package: &serde_json::Value| package["license"].as_str().unwrap_or("none named").to_owned();
    let refused: Vec<_> = packages
        .iter()
        .filter(|package| !allowed(&licence(package)))
        .map(|package| format!("{}: {}", package["name"], licence(package)))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn the_reader_of_expressions_refuses_copyleft() {
    for good in ["MIT OR GPL-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "MIT/Apache-2.0"] {
        assert!(allowed(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND LGPL-2.1", "none named"] {
        assert!(!allowed(bad), "{bad}");
    }
}
