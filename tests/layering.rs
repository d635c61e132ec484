//! The architecture, held by a test: which crate may use which, where each dependency lives, that no files import one
//! another in a circle, how long a file is. ARCHITECTURE.md shows the same picture to people.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use imports::Crate;

use crate::support::repository;

/// Each crate and the crates of ours that it may use. One that has no line here is an error, so that a new crate takes
/// its place in the picture.
const CRATES: &[(&str, &[&str])] = &[
    ("src/core", &[]),
    ("src/http", &[]),
    ("src/packaging", &["core"]),
    ("src/token", &["core", "http"]),
    ("src/client", &["core"]),
    ("src/admin", &["core", "http"]),
    ("src/server", &["core", "http"]),
    ("src/cache", &["core", "http"]),
    ("src/upstream", &["core", "http"]),
    ("src/storage", &["core"]),
    ("src/catalog", &["core", "storage"]),
    ("src/edge", &["core", "http", "packaging", "token", "client", "admin", "server", "cache", "upstream"]),
    ("src/origin", &["core", "http", "packaging", "token", "client", "admin", "server", "storage", "catalog"]),
    // Its `lib.rs` names them all.
    (
        ".",
        &[
            "core",
            "http",
            "packaging",
            "token",
            "client",
            "admin",
            "server",
            "cache",
            "upstream",
            "storage",
            "catalog",
            "edge",
            "origin",
        ],
    ),
    ("transcoder", &["core", "http", "packaging", "client", "admin"]),
    ("load-tests", &["core", "packaging", "token", "client", "server", "storage", "catalog", "edge"]),
];

/// The crates that may depend on a library. Crates that `src` is not the parent of are named by their folder.
const HOMES: &[(&str, &[&str])] = &[
    ("aws-sdk-s3", &["src/storage"]),
    ("sqlx", &["src/storage"]),
    ("jsonwebtoken", &["src/token"]),
    ("moka", &["src/cache", "src/token"]),
    ("axum", &["src/edge", "src/origin"]),
    ("hyper", &["src/server", "src/upstream", "src/client", "src/admin", "src/edge", "src/origin", "load-tests"]),
    ("hyper-util", &["src/server", "src/upstream", "src/client", "src/admin", "load-tests"]),
    ("hyper-rustls", &["src/client", "src/upstream"]),
    ("rustls", &["src/server", "src/upstream", "src/client", "load-tests"]),
    ("tokio-rustls", &["src/server", "src/upstream", "load-tests"]),
    ("quinn", &["src/server"]),
    ("h3", &["src/server"]),
    ("h3-quinn", &["src/server"]),
    ("ffmpeg-next", &["transcoder"]),
];

/// Crates that do no I/O and read no clock, and what their code may not name for that.
const PURE: &[&str] = &["src/packaging", "src/http"];
const IMPURE: &[&str] =
    &["tokio::", "std::fs", "std::net::Tcp", "std::net::Udp", "std::io::stdin", "lyceum_core::time"];

/// What the transcoder builds without.
const NOT_IN_THE_TRANSCODER: &[&str] = &["sqlx", "aws-sdk-s3", "quinn", "axum"];

/// The two modules with `unsafe` code.
const UNSAFE: &[&str] = &["src/cache/cpu_prefetch.rs", "transcoder/src/task/ffi.rs"];

/// Lines a file may have.
const MAX_FILE_LINES: usize = 600;

pub fn rust_files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no Rust below {}", below.display());
    found.sort();
    found
}

pub fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The code of a file without comments and without its `#[cfg(test)]` modules, which stand at its end.
pub fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file is text");
    let tests = text.match_indices("#[cfg(test)]\n").find(|(at, mark)| {
        text[at + mark.len()..].lines().next().is_some_and(|line| line.contains("mod ") && line.ends_with('{'))
    });
    let shipped = &text[..tests.map_or(text.len(), |(at, _)| at)];
    shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The folder of a crate's Rust code.
fn sources(krate: &str) -> PathBuf {
    match krate {
        "." => repository("src"),
        krate if krate.starts_with("src/") => repository(krate),
        krate => repository(krate).join("src"),
    }
}

/// The Rust files of a crate, without its tests. The root package's stand beside the crates' folders.
fn files_of(krate: &str) -> Vec<PathBuf> {
    let mut files = match krate {
        "." => ["src/app", "src/demo"].iter().flat_map(|folder| rust_files(&repository(folder))).collect(),
        krate => rust_files(&sources(krate)),
    };
    files.retain(|path| !is_test(path));
    files
}

fn manifest(krate: &str) -> toml::Table {
    let path = repository(krate).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a crate depends on when it is built to be shipped.
fn dependencies(krate: &str) -> BTreeSet<String> {
    manifest(krate)["dependencies"].as_table().expect("a table of dependencies").keys().cloned().collect()
}

#[test]
fn every_crate_has_its_place_and_uses_only_what_lies_below() {
    let mut wrong = Vec::new();
    let places: BTreeMap<_, _> = CRATES.iter().copied().collect();
    for entry in std::fs::read_dir(repository("src")).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        let krate = format!("src/{}", path.file_name().expect("a name").to_string_lossy());
        if path.join("Cargo.toml").is_file() && !places.contains_key(krate.as_str()) {
            wrong.push(format!("{krate} has no place: give it one in CRATES"));
        }
    }
    for (krate, below) in CRATES {
        for dependency in dependencies(krate) {
            let ours = dependency.strip_prefix("lyceum-");
            if ours.is_some_and(|name| !below.contains(&name)) {
                wrong.push(format!("{krate} may not use {dependency}"));
            }
        }
    }
    // The order itself has no circle: each line uses only lines above it.
    let mut above = BTreeSet::new();
    for (krate, below) in CRATES {
        let unknown = below.iter().filter(|name| !above.contains(&format!("src/{name}")));
        wrong.extend(unknown.map(|name| format!("{krate} stands above {name} in CRATES")));
        above.insert((*krate).to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_dependency_stays_at_home() {
    let mut wrong = Vec::new();
    for (krate, _) in CRATES {
        let has = dependencies(krate);
        for (dependency, homes) in HOMES {
            if has.contains(*dependency) && !homes.contains(krate) {
                wrong.push(format!("{krate}: {dependency} lives in {homes:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_of_a_crate_import_one_another_in_a_circle() {
    let mut wrong = Vec::new();
    for (krate, _) in CRATES {
        let read = Crate::read(&sources(krate), files_of(krate));
        wrong.extend(read.circles().iter().map(|circle| format!("{krate}: {circle:#?}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_do_no_io_and_read_no_clock() {
    let mut wrong = Vec::new();
    for krate in PURE {
        if dependencies(krate).contains("tokio") {
            wrong.push(format!("{krate} depends on tokio"));
        }
        for path in files_of(krate) {
            let text = code(&path);
            let named = IMPURE.iter().filter(|name| text.contains(**name));
            wrong.extend(named.map(|name| format!("{}: {name}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_task_process_knows_only_packaging_and_only_it_knows_ffmpeg() {
    let mut wrong = Vec::new();
    let known = ["lyceum_packaging::", "lyceum_core::ids", "lyceum_core::units"];
    // Makes the demo's recording out of FFmpeg's own sources: no task, and no input from outside.
    let is_sample = |path: &Path| path.ends_with("sample_recording.rs");
    for path in files_of("transcoder") {
        let text = code(&path);
        let in_task = path.strip_prefix(sources("transcoder")).is_ok_and(|below| below.starts_with("task"));
        if in_task {
            let others = text.match_indices("lyceum_").map(|(at, _)| &text[at..]);
            let others = others.filter(|name| !known.iter().any(|known| name.starts_with(known)));
            wrong.extend(others.map(|name| format!("{}: {:.40}", path.display(), name)));
        } else if (text.contains("ffmpeg_next::") || text.contains("ffmpeg::")) && !is_sample(&path) {
            wrong.push(format!("{}: FFmpeg lives in transcoder/src/task", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_transcoder_waits_for_no_database_bucket_or_quic() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "lyceum-transcoder", "-e", "normal", "--prefix", "none", "--locked", "--offline"])
        .current_dir(repository("."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("lyceum-packaging") && names.len() > 50, "{tree}");
    let brought: Vec<_> = NOT_IN_THE_TRANSCODER.iter().filter(|name| names.contains(**name)).collect();
    assert!(brought.is_empty(), "{brought:?}");
}

#[test]
fn no_source_is_taken_by_its_path() {
    let mut wrong = Vec::new();
    for folder in ["src", "transcoder/src", "load-tests/src", "fuzz/src", "fuzz/fuzz_targets", "benches"] {
        for path in rust_files(&repository(folder)) {
            if std::fs::read_to_string(&path).expect("a source file is text").contains("#[path =") {
                wrong.push(path);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_stands_in_two_modules() {
    let mut known: Vec<_> = UNSAFE.iter().map(|path| repository(path)).collect();
    let mut holders = Vec::new();
    for folder in ["src", "load-tests/src", "transcoder/src"] {
        for path in rust_files(&repository(folder)) {
            if code(&path).contains("unsafe {") || code(&path).contains("unsafe fn") {
                holders.push(path);
            }
        }
    }
    known.sort();
    holders.sort();
    assert_eq!(holders, known);
}

#[test]
fn a_file_says_one_thing() {
    let mut long = Vec::new();
    for folder in ["src", "transcoder/src", "load-tests/src", "tests"] {
        for path in rust_files(&repository(folder)) {
            let lines = std::fs::read_to_string(&path).expect("a source file is text").lines().count();
            if lines > MAX_FILE_LINES {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "files over {MAX_FILE_LINES} lines:\n{}", long.join("\n"));
}
