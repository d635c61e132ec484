//! The dashboards as the tests see them: panels, queries, variables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::repository;

/// One dashboard.
pub struct Dashboard {
    pub path: PathBuf,
    pub json: Value,
}

/// One query of one panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// Dashboard and panel, for people.
    pub panel: String,
    pub expr: String,
    pub legend: String,
}

impl Dashboard {
    /// All of them, sorted by name.
    pub fn all() -> Vec<Self> {
        let entries = std::fs::read_dir(repository("dashboards")).expect("dashboards/ is there");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
        paths.sort();
        let read = |path: PathBuf| {
            let text = std::fs::read(&path).expect("a dashboard can be read");
            let json = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            Self { path, json }
        };
        paths.into_iter().map(read).collect()
    }

    /// The file's name without its ending.
    pub fn name(&self) -> String {
        self.path.file_stem().expect("a name").to_string_lossy().into_owned()
    }

    /// The queries of all panels.
    pub fn queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        for panel in self.json["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = |key: &str| target[key].as_str().unwrap_or_else(|| panic!("{title}: no {key}")).to_owned();
                let panel = format!("{} / {title}", self.name());
                queries.push(Query { panel, expr: text("expr"), legend: text("legendFormat") });
            }
        }
        queries
    }

    /// Variables that are filled by a query, in order: name and query.
    pub fn variables(&self) -> Vec<(String, String)> {
        let list = self.json["templating"]["list"].as_array().expect("variables");
        let queried = list.iter().filter(|variable| variable["type"] == "query");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        queried.map(|variable| (text(&variable["name"]), text(&variable["query"]["query"]))).collect()
    }
}

/// Puts variables in place as Grafana does: `$name`, `${name}`. A name that nobody knows is a mistake.
pub fn resolved(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let (name, behind) = match after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        out += variables.get(name).unwrap_or_else(|| panic!("{text}: nobody knows ${name}"));
        rest = behind;
    }
    out + rest
}

/// The labels that a legend names: `{{label}}`.
pub fn legend_labels(legend: &str) -> Vec<String> {
    let parts = legend.split("{{").skip(1);
    parts.map(|part| part.split("}}").next().unwrap_or_default().trim().to_owned()).collect()
}

/// `label_values(metric, label)`, as a matcher and a label.
pub fn label_values(query: &str) -> (String, String) {
    let inside = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
    let (metric, label) =
        inside.and_then(|q| q.rsplit_once(',')).unwrap_or_else(|| panic!("{query} asks for no label"));
    (metric.trim().to_owned(), label.trim().to_owned())
}

#[test]
fn variables_are_put_in_place() {
    let variables =
        BTreeMap::from([("job".to_owned(), "a|b".to_owned()), ("__rate_interval".to_owned(), "10s".to_owned())]);
    assert_eq!(
        resolved("rate(x{job=~\"$job\"}[$__rate_interval]) > ${job}s", &variables),
        "rate(x{job=~\"a|b\"}[10s]) > a|bs"
    );
    assert_eq!(legend_labels("{{instance}} of {{ job }}"), ["instance", "job"]);
    assert_eq!(
        label_values("label_values(up{job=~\"x,y\"}, instance)"),
        ("up{job=~\"x,y\"}".into(), "instance".into())
    );
}
