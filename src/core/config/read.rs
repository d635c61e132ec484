//! From a file to a role's configuration.

use std::collections::BTreeSet;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Value;

use super::document::Document;
use super::environment::{self, Environment};
use super::error::{ConfigError, Fault, Finding};
use super::repair::{Outcome, Repair};

/// The largest configuration file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration as it was loaded, and what it said.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// What the file said, with variables replaced.
    said: toml::Table,
}

impl<T> Loaded<T> {
    /// The keys of the first level whose values differ from those of `former`, in alphabetical order.
    pub fn changed_since<U>(&self, former: &Loaded<U>) -> Vec<String> {
        let keys: BTreeSet<&String> = self.said.keys().chain(former.said.keys()).collect();
        keys.into_iter().filter(|key| self.said.get(*key) != former.said.get(*key)).cloned().collect()
    }
}

/// Loads `path` as a `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    load_checked(path, &|_| Vec::new()).map(|loaded| loaded.value)
}

/// Loads `path` as a `T` that passes `across`, the checks that no single key can make, and keeps what the file said, so that
/// a later load can be compared. A variable that is not set is an error.
pub fn load_checked<T: DeserializeOwned>(path: &Path, across: Across<'_, T>) -> Result<Loaded<T>, ConfigError> {
    read(&text_of(path)?, path, &variable, Unset::Refused, across).map(|(loaded, _)| loaded)
}

/// Checks `path` as a `T` without the machine that it is for: a placeholder stands for each variable that is not set.
/// Returns the names of those variables, in alphabetical order: a role would not start without them.
pub fn check<T: DeserializeOwned>(path: &Path, across: Across<'_, T>) -> Result<Vec<String>, ConfigError> {
    read(&text_of(path)?, path, &variable, Unset::Allowed, across).map(|(_, unset)| unset)
}

/// Parses `text`, which stands in `path`, with variables from `environment`.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    read(text, path, environment, Unset::Refused, &|_| Vec::new()).map(|(loaded, _)| loaded.value)
}

/// Checks that no single key can make: whether the parts of a configuration fit together.
pub type Across<'a, T> = &'a dyn Fn(&T) -> Vec<Fault>;

/// What becomes of variables that are not set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unset {
    Refused,
    Allowed,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(unreadable(std::io::Error::other("it is larger than 1 MiB")));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn read<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: Environment<'_>,
    when_unset: Unset,
    across: Across<'_, T>,
) -> Result<(Loaded<T>, Vec<String>), ConfigError> {
    let invalid = |findings| ConfigError::Invalid { path: path.to_owned(), findings };
    let (document, table) = Document::parse(text).map_err(invalid)?;
    let mut root = Value::Table(table);
    let expanded = environment::expand(&mut root, environment);
    let mut faults = expanded.faults;
    if when_unset == Unset::Refused {
        faults.extend(expanded.unset.iter().map(|(key, name)| Fault {
            key: key.clone(),
            what: format!("the environment variable {name} is not set; export {name}=… or write the value here"),
        }));
    }
    let mut repair = Repair::new(root.clone(), &expanded.unset);
    let outcome = repair.run::<T>();
    if let Outcome::Value(value) = &outcome {
        repair.note_across(across(value));
    }
    faults.extend(repair.into_faults());
    match (outcome, root) {
        (Outcome::Value(value), Value::Table(said)) if faults.is_empty() => {
            let unset: BTreeSet<String> = expanded.unset.into_values().collect();
            Ok((Loaded { value, said }, unset.into_iter().collect()))
        }
        _ => Err(invalid(located(&document, faults))),
    }
}

/// The faults with their lines, in the order of the file.
fn located(document: &Document<'_>, faults: Vec<Fault>) -> Vec<Finding> {
    let finding = |fault: Fault| Finding {
        line: document.line(&fault.key),
        key: Some(fault.key.to_string()).filter(|key| !key.is_empty()),
        what: fault.what,
    };
    let mut findings: Vec<Finding> = faults.into_iter().map(finding).collect();
    findings.sort_by_key(|finding| finding.line);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ByteSize, Span};

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: Option<String>,
        cache: Option<Cache>,
        #[serde(default)]
        pool: Vec<Pool>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cache {
        memory: Option<ByteSize>,
        #[serde(default, deserialize_with = "wait")]
        wait: Option<Span>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pool {
        name: String,
        balance: Balance,
        #[serde(deserialize_with = "crate::units::number::<_, 5, 9>")]
        weight: u64,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Balance {
        RoundRobin,
        LeastLoaded,
    }

    fn wait<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Span>, D::Error> {
        crate::units::span::<_, 1, 1000>(from).map(Some)
    }

    fn environment(name: &str) -> Option<String> {
        (name == "SECRET").then(|| "quo\"te\\ and\nnewline".to_owned())
    }

    fn read_sample(text: &str) -> Result<Sample, String> {
        parse(text, Path::new("x.toml"), &environment).map_err(|e| e.to_string())
    }

    /// The faults of a file that is looked at with no variable set.
    fn faults(text: &str, across: Across<'_, Sample>) -> Vec<String> {
        match read(text, Path::new("x.toml"), &|_| None, Unset::Allowed, across) {
            Ok(_) => Vec::new(),
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn variables_stand_inside_values_whatever_they_hold() {
        let sample = read_sample("name = \"a ${SECRET} b\"  # ${NOT_READ}").unwrap();
        assert_eq!(sample.name.as_deref(), Some("a quo\"te\\ and\nnewline b"));
        let cache = read_sample("cache = { memory = \"1MiB\", wait = \"1s\" }").unwrap().cache.unwrap();
        assert_eq!((cache.memory, cache.wait), (Some(ByteSize::mib(1)), Some(Span::secs(1))));
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let unset = read_sample("# head\nname = \"${MISSING}\"").unwrap_err();
        assert!(unset.starts_with("x.toml:2: `name`: ") && unset.contains("MISSING"), "{unset}");
        let unknown = read_sample("[cache]\nmemory = \"1MiB\"\nmemroy = \"1MiB\"").unwrap_err();
        assert!(unknown.starts_with("x.toml:3: `cache.memroy`: unknown field"), "{unknown}");
        let unit = read_sample("name = \"${SECRET}\"\n[cache]\nmemory = \"5MB\"").unwrap_err();
        assert!(unit.starts_with("x.toml:3: `cache.memory`: ") && unit.contains("512MiB"), "{unit}");
        let bound = read_sample("cache = { wait = \"5s\" }").unwrap_err();
        assert!(bound.contains("`cache.wait`") && bound.contains("from 1ms to 1s"), "{bound}");
        let syntax = read_sample("name = \n").unwrap_err();
        assert!(syntax.starts_with("x.toml:1: "), "{syntax}");
    }

    #[test]
    fn all_faults_of_a_file_are_named_at_once() {
        let text = "nmae = 5\n[cache]\nmemroy = \"5MB\"\nwait = \"5s\"\n\
                    [[pool]]\nname = \"a\"\nbalance = \"round-robbin\"\nweight = 6\n\
                    [[pool]]\nweight = 1\nbalance = \"least-loaded\"\n\
                    [[pool]]\nname = \"c\"\nbalance = \"least-loaded\"\nweight = 7\ncolour = 1\n";
        let across = |sample: &Sample| {
            assert!(sample.name.is_none() && sample.cache.is_some());
            // What it is given is whole: the faulty keys have stand-ins.
            let shown: Vec<(&str, u64)> = sample.pool.iter().map(|pool| (pool.name.as_str(), pool.weight)).collect();
            assert_eq!(shown, [("a", 6), ("a-stand-in", 5), ("c", 7)]);
            assert!(matches!(sample.pool.first().map(|pool| &pool.balance), Some(Balance::RoundRobin)));
            vec![
                Fault::at("pool[2].name", "no route leads there"),
                Fault::at("pool[1].name", "a stand-in is not the file's fault"),
            ]
        };
        let expected = [
            "x.toml:1: `nmae`: unknown field; did you mean `name`?",
            "x.toml:1: `nmae`: invalid type: integer `5`, expected a string",
            "x.toml:3: `cache.memroy`: unknown field; did you mean `memory`?",
            "x.toml:3: `cache.memroy`: \"5MB\" is no size: write a whole number and one of TiB, GiB, MiB, KiB, B, such as \
             \"512MiB\"",
            "x.toml:4: `cache.wait`: 5s is out of bounds: from 1ms to 1s",
            "x.toml:7: `pool.balance`: unknown value \"round-robbin\"; did you mean `round-robin`?",
            "x.toml:9: `pool`: `name` is missing",
            "x.toml:10: `pool.weight`: 1 is out of bounds: from 5 to 9",
            "x.toml:13: `pool.name`: no route leads there",
            "x.toml:16: `pool.colour`: unknown field; known here: `name`, `balance`, `weight`",
        ];
        assert_eq!(faults(text, &across), expected);
    }

    #[test]
    fn what_is_not_set_here_is_not_the_files_fault() {
        let text = "name = \"${A}\"\n[[pool]]\nname = \"${B}\"\nbalance = \"${C}\"\nweight = 5\n";
        let read = read::<Sample>(text, Path::new("x.toml"), &|_| None, Unset::Allowed, &|_| Vec::new());
        assert_eq!(read.unwrap().1, ["A", "B", "C"]);
        let faults = faults(&text.replace("weight = 5", "weight = 4"), &|_| Vec::new());
        assert_eq!(faults, ["x.toml:5: `pool.weight`: 4 is out of bounds: from 5 to 9"]);
        let strict = read_sample(text).unwrap_err();
        assert_eq!(strict.lines().count(), 3, "{strict}");
    }

    #[test]
    fn all_slips_of_syntax_are_named() {
        let found = faults("name = \n[cache\nmemory = \"1MiB\"\n", &|_| Vec::new());
        assert!(found.len() >= 2, "{found:?}");
        assert!(found[0].starts_with("x.toml:1: ") && found[1].starts_with("x.toml:2: "), "{found:?}");
    }
}
