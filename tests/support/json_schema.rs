//! JSON Schema as OpenAPI 3.1 uses it (draft 2020-12): the keywords that the description has, and a panic at others, so
//! that none goes unchecked.

use serde_json::Value;

/// Keywords that only describe.
const ANNOTATIONS: &[&str] = &["description", "title", "format", "example", "examples", "default", "$ref"];

/// What is wrong with a value by a schema of the document.
pub fn fault(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let path = name.strip_prefix('#').expect("a reference into the document");
        let target = document.pointer(path).unwrap_or_else(|| panic!("{name} is nowhere"));
        return fault(document, target, value);
    }
    let keywords = schema.as_object().unwrap_or_else(|| panic!("no schema: {schema}"));
    keywords.iter().find_map(|(keyword, said)| breaks(document, keyword, said, schema, value))
}

/// How a value breaks one keyword.
fn breaks(document: &Value, keyword: &str, said: &Value, schema: &Value, value: &Value) -> Option<String> {
    let fits = |inner: &Value| fault(document, inner, value).is_none();
    let broken = |wrong: bool| wrong.then(|| format!("{value} breaks {keyword}: {said}"));
    match keyword {
        "type" => {
            let kinds = said.as_array().cloned().unwrap_or_else(|| vec![said.clone()]);
            broken(!kinds.iter().any(|kind| is(value, kind.as_str().expect("a type"))))
        }
        "enum" => broken(!said.as_array().expect("a list").contains(value)),
        "const" => broken(said != value),
        "oneOf" => broken(said.as_array().expect("a list").iter().filter(|inner| fits(inner)).count() != 1),
        "anyOf" => broken(!said.as_array().expect("a list").iter().any(fits)),
        "allOf" => {
            // Each part closes itself against members that it does not name, which those of the others are.
            said.as_array().expect("a list").iter().find_map(|inner| {
                let open = open(document, inner);
                fault(document, &open, value)
            })
        }
        "minimum" => broken(value.as_f64().is_some_and(|number| number < said.as_f64().expect("a number"))),
        "maximum" => broken(value.as_f64().is_some_and(|number| number > said.as_f64().expect("a number"))),
        "minLength" => broken(characters(value).is_some_and(|count| count < said.as_u64().expect("a length"))),
        "maxLength" => broken(characters(value).is_some_and(|count| count > said.as_u64().expect("a length"))),
        "pattern" => {
            let pattern = regex::Regex::new(said.as_str().expect("a pattern")).expect("a pattern");
            broken(value.as_str().is_some_and(|text| !pattern.is_match(text)))
        }
        "items" => value.as_array().into_iter().flatten().find_map(|item| fault(document, said, item)),
        "required" => {
            let object = value.as_object()?;
            let names = said.as_array().expect("a list").iter();
            let mut missing = names.filter(|name| !object.contains_key(name.as_str().expect("a name")));
            missing.next().map(|name| format!("{name} is missing in {value}"))
        }
        "properties" => value.as_object()?.iter().find_map(|(name, inner)| match said.get(name) {
            Some(described) => fault(document, described, inner).map(|fault| format!("{name}: {fault}")),
            // Stricter than the standard: what an answer holds is described.
            None => (schema["additionalProperties"] != true).then(|| format!("{name} is not described")),
        }),
        "additionalProperties" => None,
        annotation if ANNOTATIONS.contains(&annotation) || annotation.starts_with("x-") => None,
        other => panic!("this keyword is not checked: {other}"),
    }
}

/// A schema, its reference followed, that allows members it does not name.
fn open(document: &Value, schema: &Value) -> Value {
    let mut schema = match schema["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).expect("it is in the document").clone(),
        None => schema.clone(),
    };
    schema["additionalProperties"] = Value::Bool(true);
    schema
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type: {other}"),
    }
}

fn characters(value: &Value) -> Option<u64> {
    Some(value.as_str()?.chars().count() as u64)
}
