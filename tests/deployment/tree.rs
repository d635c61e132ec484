//! The files of `deploy/`, as the checks see them: configurations, units, manifests, and what they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::repository;

/// A repository: ours, or a copy of its `deploy/` with a mistake in it.
pub struct Tree {
    pub root: PathBuf,
    /// YAML and TOML files by their path in the repository.
    pub parsed: BTreeMap<String, Parsed>,
}

/// A YAML or TOML file.
#[derive(Clone)]
pub struct Parsed {
    pub documents: Vec<Value>,
    /// What is wrong with it by its schema.
    pub errors: Vec<String>,
}

impl Tree {
    pub fn read(root: &Path) -> Self {
        let all = ["deploy", "edge-config", "dashboards/prometheus"].map(|folder| files(root, folder));
        let is_parsed = |file: &String| [".yaml", ".yml", ".toml"].iter().any(|end| file.ends_with(end));
        let files: Vec<String> = all.into_iter().flatten().filter(is_parsed).collect();
        Self { root: root.to_owned(), parsed: parse(root, &files) }
    }

    /// A copy in `folder` that has `wrong` in place of `right` in one of its files.
    pub fn with_mistake(&self, folder: &Path, file: &str, right: &str, wrong: &str) -> Self {
        for name in files(&self.root, "deploy") {
            let to = folder.join(&name);
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a temporary folder");
            std::fs::copy(self.root.join(&name), to).expect("a copy");
        }
        for name in ["dashboards", "edge-config", "web"] {
            std::os::unix::fs::symlink(self.root.join(name), folder.join(name)).expect("a link");
        }
        let text = self.text(file);
        assert!(text.contains(right), "{file} no longer has {right}");
        std::fs::write(folder.join(file), text.replacen(right, wrong, 1)).expect("a temporary file");
        let mut parsed = self.parsed.clone();
        if parsed.contains_key(file) {
            parsed.extend(parse(folder, &[file.to_owned()]));
        }
        Self { root: folder.to_owned(), parsed }
    }

    /// The files of `deploy/` that end in `.end`.
    pub fn files(&self, end: &str) -> Vec<String> {
        files(&self.root, "deploy").into_iter().filter(|file| file.ends_with(&format!(".{end}"))).collect()
    }

    pub fn text(&self, file: &str) -> String {
        let read = std::fs::read_to_string(self.root.join(file));
        read.unwrap_or_else(|cause| panic!("{file}: {cause}"))
    }

    pub fn exists(&self, file: &str) -> bool {
        self.root.join(file).exists()
    }

    pub fn configuration(&self, file: &str) -> Configuration<'_> {
        Configuration(self.document(file))
    }

    /// The first document of a file.
    pub fn document(&self, file: &str) -> &Value {
        let parsed = self.parsed.get(file).unwrap_or_else(|| panic!("{file} is not there"));
        parsed.documents.first().unwrap_or_else(|| panic!("{file}: {:?}", parsed.errors))
    }

    /// Kubernetes' objects of a kind, by the file and the name.
    pub fn objects(&self, kind: &str) -> Vec<(&str, &Value)> {
        let documents =
            self.parsed.iter().flat_map(|(file, parsed)| parsed.documents.iter().map(move |one| (file, one)));
        documents.filter(|(_, one)| one["kind"] == kind).map(|(file, one)| (file.as_str(), one)).collect()
    }

    pub fn unit(&self, file: &str) -> Unit {
        let text = self.text(file);
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        Unit { entries: lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }
}

/// Reads YAML and TOML, and judges YAML by its schema.
fn parse(root: &Path, files: &[String]) -> BTreeMap<String, Parsed> {
    let python = repository(".cache/python/bin/python3");
    assert!(python.is_file(), "{} is not there: run scripts/setup test, or make test", python.display());
    let script = repository("tests/deployment/check.py");
    let output = Command::new(python).arg(script).args(files).current_dir(root).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let judged: Vec<Value> = serde_json::from_slice(&output.stdout).expect("its answer is JSON");
    let parsed = judged.iter().map(|file| {
        let errors = list(&file["errors"]).iter().map(text).collect();
        (text(&file["file"]), Parsed { documents: list(&file["documents"]).to_vec(), errors })
    });
    parsed.collect()
}

/// Files below `folder` of `root`, as paths in `root`; none of a package manager's.
fn files(root: &Path, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join(folder)).unwrap_or_else(|cause| panic!("{folder}: {cause}")) {
        let entry = entry.expect("an entry");
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("its type").is_dir() {
            found.extend(files(root, &name));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// An `origin.toml`, `edge.toml` or `worker.toml`.
pub struct Configuration<'a>(&'a Value);

impl Configuration<'_> {
    pub fn admin_port(&self) -> Option<u16> {
        port(self.0["admin"]["listen"].as_str()?)
    }

    pub fn media_ports(&self) -> BTreeSet<u16> {
        list(&self.0["listen"]).iter().filter_map(|listen| port(listen["address"].as_str()?)).collect()
    }

    /// In seconds; the programs' default where it is not said.
    pub fn drain_timeout(&self) -> u64 {
        let said = self.0["limits"]["drain_timeout"].as_str().or(self.0["drain_timeout"].as_str());
        said.map_or(30, seconds)
    }

    /// Every string in it.
    pub fn strings(&self) -> Vec<String> {
        fn collect(value: &Value, into: &mut Vec<String>) {
            match value {
                Value::String(text) => into.push(text.clone()),
                Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
                Value::Object(values) => values.values().for_each(|value| collect(value, into)),
                _ => {}
            }
        }
        let mut strings = Vec::new();
        collect(self.0, &mut strings);
        strings
    }

    /// The variables that it names.
    pub fn variables(&self) -> BTreeSet<String> {
        let strings = self.strings();
        let named = strings.iter().flat_map(|text| text.split("${").skip(1)).filter_map(|rest| rest.split_once('}'));
        named.map(|(name, _)| name.to_owned()).collect()
    }

    /// Files and folders that it names.
    pub fn paths(&self) -> Vec<String> {
        let strings = self.strings().into_iter();
        strings.map(|text| text.trim_start_matches("sqlite:").to_owned()).filter(|text| is_path(text)).collect()
    }

    /// Host and port of the plain and encrypted HTTP URLs that it names.
    pub fn authorities(&self) -> Vec<(String, u16)> {
        let authority = |text: &String| {
            let (scheme, rest) = text.split_once("://")?;
            let default = match scheme {
                "http" => 80,
                "https" => 443,
                _ => return None,
            };
            let authority = rest.split('/').next()?;
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            Some((host.to_owned(), if port.is_empty() { default } else { port.parse().ok()? }))
        };
        self.strings().iter().filter_map(authority).collect()
    }
}

/// Routes' prefixes and health checks' paths begin otherwise.
fn is_path(text: &str) -> bool {
    text.starts_with("/etc/") || text.starts_with("/var/") || text.starts_with("/run/")
}

fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

/// "45", "30s", "2m".
pub fn seconds(text: &str) -> u64 {
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no time"));
    match text.strip_suffix('m') {
        Some(minutes) => number(minutes) * 60,
        None => number(text.trim_end_matches('s')),
    }
}

/// A systemd unit's entries; a key may stand more than once.
pub struct Unit {
    entries: Vec<(String, String)>,
}

impl Unit {
    pub fn all(&self, key: &str) -> Vec<&str> {
        self.entries.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    }

    pub fn one(&self, key: &str) -> &str {
        self.all(key).first().copied().unwrap_or_else(|| panic!("the unit has no {key}"))
    }
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The keys and values of a mapping.
pub fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
