//! Finds every fault of a document, not the first alone.
//!
//! serde stops at the first value that it can't take, so the document is read again and again: each time the fault is noted
//! and the value to blame is taken out of a copy. An unknown key that is a slip of a known one is renamed, so that its value
//! is looked at too. A required value that is missing or wrong gets a stand-in that its type takes; where none is found, the
//! table around it is taken out. What is left at the end is what the checks across tables look at. The number of rounds is
//! bounded, and each one takes something out.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::Value;

use super::document::{sentence, value_at};
use super::error::Fault;
use super::key_path::{KeyPath, Step};
use super::suggest;

/// Faults that are listed of one file.
const MAX_FAULTS: usize = 100;
/// Reads of one file, those with stand-ins included.
const MAX_ROUNDS: usize = 4_000;
/// Stand-ins in a row that a bound or a list of names suggests.
const MAX_HINTS: usize = 4;

/// What serde makes of a document.
pub(super) enum Outcome<T> {
    /// A value. Without faults it is the document's own.
    Value(T),
    /// No value: what is wrong stands in a place that nothing can stand in for.
    Nothing,
}

/// A document that is being read.
pub(super) struct Repair<'e> {
    root: Value,
    /// Keys whose values hold a placeholder: what is said of these values is not the file's fault.
    unset: &'e BTreeMap<KeyPath, String>,
    /// Keys that were taken out or stood in for.
    replaced: Vec<KeyPath>,
    /// New paths of renamed keys, and what stands in the file.
    renamed: Vec<(KeyPath, KeyPath)>,
    faults: Vec<Fault>,
    rounds: usize,
}

/// serde's refusal.
struct Refusal {
    path: KeyPath,
    message: String,
}

impl<'e> Repair<'e> {
    pub(super) fn new(root: Value, unset: &'e BTreeMap<KeyPath, String>) -> Self {
        Self { root, unset, replaced: Vec::new(), renamed: Vec::new(), faults: Vec::new(), rounds: 0 }
    }

    /// Reads the document to its end.
    pub(super) fn run<T: DeserializeOwned>(&mut self) -> Outcome<T> {
        while self.rounds < MAX_ROUNDS && self.faults.len() < MAX_FAULTS {
            let Refusal { path, message } = match self.read::<T>() {
                Ok(value) => return Outcome::Value(value),
                Err(refusal) => refusal,
            };
            let going_on = if let Some(name) = suggest::unknown_field(&message) {
                self.unknown(&path, name, &message)
            } else if let Some(name) = suggest::missing_field(&message) {
                let key = path.key(name);
                if !self.replaced.contains(&key) {
                    self.note(path.clone(), format!("`{name}` is missing"));
                }
                self.stand_in::<T>(&key) || self.take_out(&path)
            } else {
                self.note(path.clone(), suggest::improved(&message));
                match path.0.last() {
                    // Without its element a list has other indices than the file.
                    Some(Step::Index(_)) => self.stand_in::<T>(&path) || self.take_out_list(&path),
                    _ => self.take_out(&path),
                }
            };
            if !going_on {
                break;
            }
        }
        Outcome::Nothing
    }

    /// The faults found, by their keys in the file.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    /// Notes what the checks across tables found, but for keys that were replaced.
    pub(super) fn note_across(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            if !self.replaced.iter().any(|key| fault.key.is_within(key)) {
                self.note(fault.key, fault.what);
            }
        }
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        self.rounds += 1;
        serde_path_to_error::deserialize(self.root.clone())
            .map_err(|error| Refusal { path: KeyPath::from(error.path()), message: sentence(error.inner().message()) })
    }

    fn note(&mut self, key: KeyPath, what: String) {
        let placeholder = |unset: &KeyPath| unset.is_within(&key) && !key.0.is_empty();
        if self.unset.keys().any(placeholder) {
            return;
        }
        let in_file = self.renamed.iter().find(|(new, _)| key.is_within(new));
        let key = match in_file {
            Some((new, old)) => KeyPath(old.0.iter().chain(key.0.iter().skip(new.0.len())).cloned().collect()),
            None => key,
        };
        let fault = Fault { key, what };
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn unknown(&mut self, path: &KeyPath, name: &str, message: &str) -> bool {
        self.note(path.clone(), suggest::improved(message));
        let Some(parent) = path.parent() else { return false };
        let meant = suggest::nearest(name, &suggest::expected(message)).map(str::to_owned);
        let Some(Value::Table(table)) = value_at(&mut self.root, &parent) else { return false };
        let Some(value) = table.remove(name) else { return false };
        if let Some(meant) = meant.filter(|meant| !table.contains_key(meant)) {
            table.insert(meant.clone(), value);
            self.renamed.push((parent.key(&meant), path.clone()));
        }
        true
    }

    /// Takes the value at `path` out of its table; false where there is none, or `path` is the root.
    fn take_out(&mut self, path: &KeyPath) -> bool {
        let (Some(parent), Some(Step::Key(name))) = (path.parent(), path.0.last()) else {
            return !path.0.is_empty() && self.take_out_list(path);
        };
        let Some(Value::Table(table)) = value_at(&mut self.root, &parent) else { return false };
        let was_there = table.remove(name).is_some();
        self.replaced.push(path.clone());
        was_there
    }

    /// Takes out the list that the element at `path` stands in.
    fn take_out_list(&mut self, path: &KeyPath) -> bool {
        let key = path.0.iter().rposition(|step| matches!(step, Step::Key(_)));
        key.is_some_and(|key| self.take_out(&KeyPath(path.0.iter().take(key + 1).cloned().collect())))
    }

    /// Puts a value in the place `path` that its type takes; false where none is found.
    fn stand_in<T: DeserializeOwned>(&mut self, path: &KeyPath) -> bool {
        self.replaced.push(path.clone());
        for first in stand_ins() {
            let mut candidate = first;
            for _ in 0..MAX_HINTS {
                if !self.put(path, candidate.clone()) {
                    return false;
                }
                match self.read::<T>() {
                    Err(refusal) if refusal.path.is_within(path) => match hint(&refusal.message) {
                        Some(hint) if hint != candidate => candidate = hint,
                        _ => break,
                    },
                    _ => return true,
                }
            }
        }
        self.remove(path);
        false
    }

    fn put(&mut self, path: &KeyPath, value: Value) -> bool {
        let Some(parent) = path.parent() else { return false };
        match (value_at(&mut self.root, &parent), path.0.last()) {
            (Some(Value::Table(table)), Some(Step::Key(name))) => {
                table.insert(name.clone(), value);
                true
            }
            (Some(Value::Array(array)), Some(Step::Index(index))) => {
                array.get_mut(*index).map(|place| *place = value).is_some()
            }
            _ => false,
        }
    }

    fn remove(&mut self, path: &KeyPath) {
        if let (Some(parent), Some(Step::Key(name))) = (path.parent(), path.0.last())
            && let Some(Value::Table(table)) = value_at(&mut self.root, &parent)
        {
            table.remove(name);
        }
    }
}

/// Values of the kinds that configurations hold; the first that a key takes stands in for it.
fn stand_ins() -> Vec<Value> {
    let texts =
        ["a-stand-in", "https://stand-in.invalid", "sqlite:stand-in", "127.0.0.1:1", "1s", "1MiB", "1Mbps", "/"];
    let list = |text: &str| Value::Array(vec![text.into()]);
    let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
    values.extend([Value::Integer(1), Value::Boolean(false), Value::Float(1.0)]);
    values.extend([Value::Array(Vec::new()), list("a-stand-in"), list("https://stand-in.invalid")]);
    values.push(Value::Table(toml::Table::new()));
    values
}

/// What a refusal says would be right: the first known name, or the lower bound.
fn hint(message: &str) -> Option<Value> {
    if let Some(name) = suggest::expected(message).first() {
        return Some(Value::from(*name));
    }
    let (_, bounds) = message.split_once("out of bounds: from ")?;
    let (low, _) = bounds.split_once(" to ")?;
    Some(low.parse().map_or_else(|_| Value::from(low), Value::Integer))
}
