//! `${NAME}` inside values.

use std::collections::BTreeMap;

use toml::Value;

use super::error::Fault;
use super::key_path::KeyPath;

/// Where variables come from.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// What stands for a variable that is not set: it is long enough for a secret.
const PLACEHOLDER: &str = "a-placeholder-for-an-unset-variable";

/// What was found in the place of variables.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    /// Variables that are not set, by the keys that name them; a placeholder stands there.
    pub(super) unset: BTreeMap<KeyPath, String>,
    /// References without an end.
    pub(super) faults: Vec<Fault>,
}

/// Replaces each `${NAME}` inside the strings of `value`.
pub(super) fn expand(value: &mut Value, environment: Environment<'_>) -> Expanded {
    let mut expanded = Expanded::default();
    walk(value, &KeyPath::default(), environment, &mut expanded);
    expanded
}

fn walk(value: &mut Value, path: &KeyPath, environment: Environment<'_>, expanded: &mut Expanded) {
    match value {
        Value::String(text) if text.contains("${") => match replaced(text, environment) {
            Ok((replaced, unset)) => {
                *text = replaced;
                expanded.unset.extend(unset.map(|name| (path.clone(), name)));
            }
            Err(what) => expanded.faults.push(Fault { key: path.clone(), what: what.to_owned() }),
        },
        Value::Array(array) => {
            array.iter_mut().enumerate().for_each(|(n, value)| walk(value, &path.index(n), environment, expanded));
        }
        Value::Table(table) => {
            table.iter_mut().for_each(|(name, value)| walk(value, &path.key(name), environment, expanded));
        }
        _ => {}
    }
}

/// The text with its variables replaced, and the first of them that is not set.
fn replaced(text: &str, environment: Environment<'_>) -> Result<(String, Option<String>), &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut unset = None;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').ok_or("a `${` has no closing `}`")?;
        out.push_str(before);
        match environment(name) {
            Some(value) => out.push_str(&value),
            None => {
                out.push_str(PLACEHOLDER);
                unset.get_or_insert_with(|| name.to_owned());
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    Ok((out, unset))
}
