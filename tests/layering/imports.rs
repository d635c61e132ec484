//! Reads which files of a crate import which: `use` items and paths that begin with `crate`, `super`, `self` or a
//! child module. It reads text, not Rust: enough for code that rustfmt has laid out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path within its crate; empty for `lib.rs` and `main.rs`.
type Module = Vec<String>;

/// The files of one crate and their imports of one another.
pub struct Crate {
    /// Each module's file.
    pub files: BTreeMap<Module, PathBuf>,
    /// The modules whose files each module's file imports from.
    pub imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl Crate {
    /// Reads the crate whose `lib.rs` or `main.rs` stands in `root`: those of its files.
    pub fn read(root: &Path, sources: Vec<PathBuf>) -> Self {
        let mut files = BTreeMap::new();
        for path in sources {
            let below = path.strip_prefix(root).expect("below the crate's root").with_extension("");
            let mut module: Module =
                below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
            match module.last().map(String::as_str) {
                Some("build") if module.len() == 1 => continue,
                Some("main") if module.len() == 1 && root.join("lib.rs").is_file() => continue,
                Some("lib" | "main") if module.len() == 1 => module.clear(),
                Some("mod") => drop(module.pop()),
                _ => {}
            }
            files.insert(module, path);
        }
        let imports = files
            .iter()
            .map(|(module, path)| {
                let found = paths(&super::code(path), module, &files);
                (module.clone(), found)
            })
            .collect();
        Self { files, imports }
    }

    /// The groups of files that import one another in a circle.
    pub fn circles(&self) -> Vec<Vec<&Path>> {
        let modules: Vec<&Module> = self.files.keys().collect();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            modules.iter().map(|module| (*module, self.reachable(module))).collect();
        let mut circles = Vec::new();
        let mut seen = BTreeSet::new();
        for module in modules {
            if seen.contains(module) || !reached[module].contains(module) {
                continue;
            }
            let group: Vec<&Module> =
                reached[module].iter().copied().filter(|other| reached[*other].contains(module)).collect();
            seen.extend(group.iter().copied());
            circles.push(group.into_iter().map(|module| self.files[module].as_path()).collect());
        }
        circles
    }

    /// The modules that `from` imports, and those that they import, and so on.
    fn reachable<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(module) = next.pop() {
            next.extend(self.imports[module].iter().filter(|other| reached.insert(*other)));
        }
        reached
    }
}

/// The modules, other than itself, that `text`, the code of `module`, names.
fn paths(text: &str, module: &Module, files: &BTreeMap<Module, PathBuf>) -> BTreeSet<Module> {
    let mut named = Vec::new();
    let mut body = String::new();
    let mut rest = text;
    // `use` items first, so that their trees are taken apart.
    while let Some(at) = next_use(rest) {
        let (before, item) = rest.split_at(at);
        body.push_str(before);
        let (_, item) = item.split_once("use ").expect("it was found by this");
        let (tree, after) = item.split_once(';').unwrap_or((item, ""));
        leaves(tree, &[], &mut named);
        rest = after;
    }
    body.push_str(rest);
    named.extend(inline_paths(&body));
    named.iter().filter_map(|path| resolve(path, module, files)).filter(|found| found != module).collect()
}

/// Where the next line that is a `use` item begins.
fn next_use(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let item = line.trim_start();
        let item = item.strip_prefix("pub").map_or(item, |rest| {
            let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
            rest.trim_start()
        });
        if item.starts_with("use ") {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// The paths of a use tree: `a::{b, c::{D, E}}` is `a::b`, `a::c::D`, `a::c::E`.
pub fn leaves(tree: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let segments = |text: &str| -> Vec<String> {
        let plain = text.split(" as ").next().unwrap_or_default();
        plain.split("::").map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let Some((prefix, group)) = tree.split_once('{') else {
        found.push([before, &segments(tree)].concat());
        return;
    };
    let before = [before, &segments(prefix)].concat();
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    leaves(&group[start..at], &before, found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Paths of two and more segments outside `use` items.
fn inline_paths(body: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    body.split(|c: char| !is_word(c) && c != ':')
        .filter(|text| text.contains("::"))
        .map(|text| text.split("::").map(|part| part.trim_matches(':').to_owned()).collect::<Vec<_>>())
        .filter(|path| path.len() > 1 && path.iter().take(2).all(|part| !part.is_empty()))
        .collect()
}

/// The module of this crate whose file `path` leads to, where it leads to one.
fn resolve(path: &[String], module: &Module, files: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let (first, rest) = path.split_first()?;
    let mut absolute = match first.as_str() {
        "crate" => rest.to_vec(),
        "self" => [module, rest].concat(),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let kept = module.len().checked_sub(ups)?;
            [&module[..kept], &path[ups..]].concat()
        }
        child => {
            let child = [module.as_slice(), &[child.to_owned()]].concat();
            if !files.contains_key(&child) {
                return None;
            }
            [child.as_slice(), rest].concat()
        }
    };
    while !files.contains_key(&absolute) {
        absolute.pop()?;
    }
    Some(absolute)
}

#[test]
fn a_use_tree_is_taken_apart() {
    let mut found = Vec::new();
    leaves("crate::{a::B, c::{self, D as E}}", &[], &mut found);
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["crate::a::B", "crate::c::self", "crate::c::D"]);
}

#[test]
fn a_circle_is_found_also_through_the_face() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let circles = || {
        Crate::read(folder.path(), super::rust_files(folder.path())).circles().iter().map(Vec::len).collect::<Vec<_>>()
    };
    write("lib.rs", "mod a;\nmod b;\n\npub use a::A;\n");
    write("a.rs", "use crate::b::B;\n");
    write("b.rs", "pub struct B;\n");
    assert_eq!(circles(), [] as [usize; 0]);
    write("b.rs", "fn f() { super::a::g() }\n");
    assert_eq!(circles(), [2]);
    // What the face re-exports ties it to its children.
    write("b.rs", "use super::A;\n");
    assert_eq!(circles(), [3]);
}
