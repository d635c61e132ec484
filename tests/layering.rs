//! The architecture, held by a test: which module may use which, where each dependency lives, how long a file is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::repository;

/// Each module of `src` and the modules of `crate` it may use. A name on the left that is missing is an error,
/// so that a new module takes its place in the picture.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["app"]),
    (
        "app",
        &[
            "edge",
            "origin",
            "demo",
            "front",
            "admin",
            "client",
            "token",
            "packaging",
            "telemetry",
            "config",
            "ids",
            "time",
            "units",
        ],
    ),
    ("demo", &["client", "ids", "time", "units"]),
    (
        "edge",
        &[
            "front",
            "admin",
            "client",
            "token",
            "cache",
            "upstream",
            "telemetry",
            "semantics",
            "packaging",
            "ids",
            "time",
            "units",
        ],
    ),
    (
        "origin",
        &[
            "front",
            "admin",
            "client",
            "token",
            "store",
            "upload",
            "catalog",
            "jobs",
            "db",
            "telemetry",
            "packaging",
            "semantics",
            "ids",
            "time",
            "units",
        ],
    ),
    ("front", &["telemetry", "semantics", "time", "units"]),
    ("admin", &["front", "telemetry"]),
    ("client", &["semantics", "time", "units"]),
    ("token", &["telemetry", "semantics", "ids", "time", "units"]),
    ("cache", &["telemetry", "semantics", "time", "units"]),
    ("upstream", &["telemetry", "semantics", "ids", "time", "units"]),
    ("store", &["telemetry", "semantics", "ids", "time", "units"]),
    ("upload", &["store", "db", "telemetry", "semantics", "ids", "time", "units"]),
    ("catalog", &["db", "telemetry", "packaging", "semantics", "ids", "time", "units"]),
    ("jobs", &["db", "telemetry", "packaging", "semantics", "ids", "time", "units"]),
    ("db", &["telemetry", "ids", "time", "units"]),
    ("telemetry", &[]),
    ("packaging", &["semantics", "units"]),
    ("semantics", &[]),
    ("config", &["units"]),
    ("ids", &[]),
    ("time", &[]),
    ("units", &[]),
];

/// The modules of `src` in which a dependency may be named.
const HOMES: &[(&str, &[&str])] = &[
    ("aws_sdk_s3", &["store"]),
    ("jsonwebtoken", &["token"]),
    ("moka", &["cache", "token"]),
    ("sqlx", &["db", "catalog", "jobs"]),
    ("axum", &["origin", "admin", "edge", "app"]),
    ("hyper", &["front", "upstream", "client", "edge", "origin"]),
    ("hyper_util", &["front", "upstream", "client"]),
    ("hyper_rustls", &["client", "upstream"]),
    ("rustls", &["front", "upstream", "client"]),
    ("quinn", &["front"]),
    ("h3", &["front"]),
    ("h3_quinn", &["front"]),
    ("tokio_rustls", &["front", "upstream"]),
    ("ffmpeg_next", &[]),
];

/// Modules that do no I/O and read no clock.
const PURE: &[&str] = &["packaging", "semantics", "ids", "units"];
const IMPURE: &[&str] = &["tokio::", "std::fs", "std::net", "std::io::stdin", "crate::time"];

/// Lines a file may have.
const LONGEST: usize = 600;

fn rust_files(below: &Path) -> Vec<PathBuf> {
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
    found
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// The code of a file without comments and without its `#[cfg(test)]` modules, which stand at its end.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file is text");
    let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first module of a file's path below `src`.
fn module(path: &Path, src: &Path) -> String {
    let below = path.strip_prefix(src).expect("below src");
    let first = below.components().next().expect("a file").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules named in `crate::a`, `crate::{a, b::c}` of `text`.
fn used(text: &str, root: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(root) {
        rest = after;
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.extend([std::mem::take(&mut name)]),
                    c => name.push(c),
                }
            }
            names.insert(name);
        } else {
            names.insert(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    let first = |name: String| {
        name.split("::").next().unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    names.into_iter().map(first).filter(|name| !name.is_empty() && name != "self").collect()
}

fn named(text: &str, dependency: &str) -> bool {
    let path = format!("{dependency}::");
    text.match_indices(&path).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn imports_point_downwards() {
    let src = repository("src");
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in rust_files(&src).into_iter().filter(|path| !is_test(path)) {
        let module = module(&path, &src);
        if module == "lib" {
            continue;
        }
        let Some(below) = allowed.get(module.as_str()) else {
            wrong.push(format!("src/{module} has no layer: give it one in tests/layering.rs"));
            continue;
        };
        for name in used(&code(&path), "crate::") {
            if name != module && allowed.contains_key(name.as_str()) && !below.contains(&name.as_str()) {
                wrong.push(format!("{}: {module} may not use {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_dependency_stays_at_home() {
    let src = repository("src");
    let mut wrong = Vec::new();
    for path in rust_files(&src).into_iter().filter(|path| !is_test(path)) {
        let (module, text) = (module(&path, &src), code(&path));
        for (dependency, homes) in HOMES {
            if named(&text, dependency) && !homes.contains(&module.as_str()) {
                wrong.push(format!("{}: {dependency} lives in {homes:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let src = repository("src");
    let mut wrong = Vec::new();
    for path in rust_files(&src).into_iter().filter(|path| !is_test(path)) {
        if PURE.contains(&module(&path, &src).as_str()) {
            let text = code(&path);
            wrong.extend(
                IMPURE.iter().filter(|name| text.contains(**name)).map(|name| format!("{}: {name}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_task_process_knows_only_packaging_and_only_it_knows_ffmpeg() {
    let src = repository("transcoder/src");
    let mut wrong = Vec::new();
    for path in rust_files(&src) {
        let text = code(&path);
        let task = path.strip_prefix(&src).is_ok_and(|below| below.starts_with("task"));
        if task {
            let pure = ["packaging", "semantics", "ids", "units"];
            let others = used(&text, "lyceum::").into_iter().filter(|name| !pure.contains(&name.as_str()));
            wrong.extend(others.map(|name| format!("{}: lyceum::{name}", path.display())));
        } else if named(&text, "ffmpeg_next") || named(&text, "ffmpeg") {
            wrong.push(format!("{}: FFmpeg lives in transcoder/src/task", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_two_modules() {
    let known = ["src/cache/prefetch.rs", "transcoder/src/task/raw.rs"].map(repository);
    let mut holders = Vec::new();
    for folder in ["src", "load-tests/src", "transcoder/src"] {
        for path in rust_files(&repository(folder)) {
            if code(&path).contains("unsafe {") || code(&path).contains("unsafe fn") {
                holders.push(path);
            }
        }
    }
    holders.sort();
    assert_eq!(holders, known);
}

#[test]
fn a_file_says_one_thing() {
    let mut long = Vec::new();
    for folder in ["src", "transcoder/src", "load-tests/src", "tests"] {
        for path in rust_files(&repository(folder)) {
            let lines = std::fs::read_to_string(&path).expect("a source file is text").lines().count();
            if lines > LONGEST {
                long.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "files over {LONGEST} lines:\n{}", long.join("\n"));
}

#[test]
fn the_reader_of_imports_reads_them() {
    let text = "use crate::a::B;\nuse crate::{c, d::{E, F}, g as h};\ncrate::i::j()";
    let names: Vec<_> = used(text, "crate::").into_iter().collect();
    assert_eq!(names, ["a", "c", "d", "g", "i"]);
    assert!(named("use sqlx::Row;", "sqlx") && !named("my_sqlx::Row", "sqlx"));
}
