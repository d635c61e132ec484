//! Reads configuration: TOML with `${NAME}` inside values, turned into a role's own configuration type.
//!
//! Every refusal is one sentence with the file, the line and the key. Modules own their part of the
//! configuration and its bounds; this module knows none of them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml_edit::{Document, Item, Value};

/// The largest configuration file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What is wrong with a configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: can't be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// A key, a value or the syntax.
    #[error("{}:{line}: {}{what}", path.display(), key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The dotted key, where one is to blame.
        key: Option<String>,
        /// One sentence.
        what: String,
    },
}

/// A configuration as it was loaded, and what it said.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// What the file said, variables taken in.
    said: toml::Table,
}

impl<T> Loaded<T> {
    /// The keys of the first level whose values differ from those of `former`, in alphabetical order.
    pub fn changed_since<U>(&self, former: &Loaded<U>) -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> = self.said.keys().chain(former.said.keys()).collect();
        keys.into_iter().filter(|key| self.said.get(*key) != former.said.get(*key)).cloned().collect()
    }
}

/// Loads `path` as a `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    load_said(path).map(|loaded| loaded.value)
}

/// Loads `path` as a `T`, and keeps what it said, so that a later load can be compared.
pub fn load_said<T: DeserializeOwned>(path: &Path) -> Result<Loaded<T>, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(unreadable(std::io::Error::other("it is larger than 1 MiB")));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse_said(&text, path, &|name| std::env::var(name).ok())
}

/// Parses `text`, which stands in `path`, with variables from `environment`.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    parse_said(text, path, environment).map(|loaded| loaded.value)
}

fn parse_said<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded<T>, ConfigError> {
    let at = |offset: Option<usize>, key: Option<String>, what: String| ConfigError::Invalid {
        path: path.to_owned(),
        line: line_of(text, offset.unwrap_or(0)),
        key,
        what,
    };
    let document =
        Document::parse(text).map_err(|error| at(error.span().map(|s| s.start), None, sentence(error.message())))?;
    let expanded = substitute(text, document.as_item(), environment)
        .map_err(|(offset, what)| at(Some(offset), key_at(document.as_item(), offset), what))?;
    let read = toml::from_str(&expanded).and_then(|value| Ok(Loaded { value, said: toml::from_str(&expanded)? }));
    read.map_err(|error| {
        // Substitution keeps lines, not columns: the key is looked up in the text that the error speaks of.
        let offset = error.span().map_or(0, |s| s.start);
        let key = Document::parse(expanded.as_str()).ok().and_then(|d| key_at(d.as_item(), offset));
        ConfigError::Invalid {
            path: path.to_owned(),
            line: line_of(&expanded, offset),
            key,
            what: sentence(error.message()),
        }
    })
}

fn sentence(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// Replaces `${NAME}` inside string values, each rewritten on one line so that line numbers stay true.
fn substitute(
    text: &str,
    root: &Item,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, (usize, String)> {
    let mut replacements = Vec::new();
    walk(root, &mut |value| {
        if let (Value::String(string), Some(span)) = (value, value.span())
            && string.value().contains("${")
            && !text.get(span.clone()).is_some_and(|raw| raw.contains('\n'))
        {
            let expanded = expand(string.value(), environment).map_err(|what| (span.start, what))?;
            replacements.push((span, basic_string(&expanded)));
        }
        Ok(())
    })?;
    replacements.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut out = text.to_owned();
    for (span, replacement) in replacements {
        out.replace_range(span, &replacement);
    }
    Ok(out)
}

/// `value` as a TOML basic string on one line.
fn basic_string(value: &str) -> String {
    let mut out = String::from('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or("a `${` has no closing `}`")?;
        let value = environment(name).ok_or_else(|| {
            format!("the environment variable {name} is not set; export {name}=… or write the value here")
        })?;
        out.push_str(before);
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

type Visit<'a> = &'a mut dyn FnMut(&Value) -> Result<(), (usize, String)>;

fn walk(item: &Item, visit: Visit<'_>) -> Result<(), (usize, String)> {
    match item {
        Item::None => Ok(()),
        Item::Value(value) => walk_value(value, visit),
        Item::Table(table) => table.iter().try_for_each(|(_, item)| walk(item, visit)),
        Item::ArrayOfTables(tables) => {
            tables.iter().flat_map(|table| table.iter()).try_for_each(|(_, item)| walk(item, visit))
        }
    }
}

fn walk_value(value: &Value, visit: Visit<'_>) -> Result<(), (usize, String)> {
    match value {
        Value::Array(array) => array.iter().try_for_each(|value| walk_value(value, visit)),
        Value::InlineTable(table) => table.iter().try_for_each(|(_, value)| walk_value(value, visit)),
        other => visit(other),
    }
}

/// The dotted key whose key or value covers `offset`; the narrowest one wins.
fn key_at(root: &Item, offset: usize) -> Option<String> {
    fn covers(span: Option<std::ops::Range<usize>>, offset: usize) -> bool {
        span.is_some_and(|s| s.contains(&offset))
    }
    fn in_table(table: &dyn toml_edit::TableLike, offset: usize, prefix: &str) -> Option<String> {
        for (name, item) in table.iter() {
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            if table.key(name).is_some_and(|key| covers(key.span(), offset)) {
                return Some(path);
            }
            if let Some(found) = in_item(item, offset, &path) {
                return Some(found);
            }
        }
        None
    }
    fn in_item(item: &Item, offset: usize, path: &str) -> Option<String> {
        match item {
            Item::None => None,
            Item::Value(value) => in_value(value, offset, path),
            Item::Table(table) => {
                in_table(table, offset, path).or_else(|| covers(table.span(), offset).then(|| path.to_owned()))
            }
            Item::ArrayOfTables(tables) => tables.iter().find_map(|table| {
                in_table(table, offset, path).or_else(|| covers(table.span(), offset).then(|| path.to_owned()))
            }),
        }
    }
    fn in_value(value: &Value, offset: usize, path: &str) -> Option<String> {
        let inner = match value {
            Value::InlineTable(table) => in_table(table, offset, path),
            Value::Array(array) => array.iter().find_map(|value| match value {
                Value::InlineTable(table) => in_table(table, offset, path),
                _ => None,
            }),
            _ => None,
        };
        inner.or_else(|| covers(value.span(), offset).then(|| path.to_owned()))
    }
    in_item(root, offset, "")
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
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cache {
        memory: Option<ByteSize>,
        #[serde(default, deserialize_with = "wait")]
        wait: Option<Span>,
    }

    fn wait<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Span>, D::Error> {
        crate::units::span::<_, 1, 1000>(from).map(Some)
    }

    fn read(text: &str) -> Result<Sample, String> {
        let environment = |name: &str| match name {
            "SECRET" => Some("quo\"te\\ and\nnewline".to_owned()),
            _ => None,
        };
        parse(text, Path::new("x.toml"), &environment).map_err(|e| e.to_string())
    }

    #[test]
    fn variables_stand_inside_values_whatever_they_hold() {
        let sample = read("name = \"a ${SECRET} b\"  # ${NOT_READ}").unwrap();
        assert_eq!(sample.name.as_deref(), Some("a quo\"te\\ and\nnewline b"));
        let cache = read("cache = { memory = \"1MiB\", wait = \"1s\" }").unwrap().cache.unwrap();
        assert_eq!((cache.memory, cache.wait), (Some(ByteSize::mib(1)), Some(Span::secs(1))));
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        let unset = read("# head\nname = \"${MISSING}\"").unwrap_err();
        assert!(unset.starts_with("x.toml:2: `name`: ") && unset.contains("MISSING"), "{unset}");
        let unknown = read("[cache]\nmemory = \"1MiB\"\nmemroy = \"1MiB\"").unwrap_err();
        assert!(unknown.starts_with("x.toml:3: `cache.memroy`: unknown field"), "{unknown}");
        let unit = read("name = \"${SECRET}\"\n[cache]\nmemory = \"5MB\"").unwrap_err();
        assert!(unit.starts_with("x.toml:3: `cache.memory`: ") && unit.contains("512MiB"), "{unit}");
        let bound = read("cache = { wait = \"5s\" }").unwrap_err();
        assert!(bound.contains("`cache.wait`") && bound.contains("from 1ms to 1s"), "{bound}");
        let syntax = read("name = \n").unwrap_err();
        assert!(syntax.starts_with("x.toml:1: "), "{syntax}");
    }
}
