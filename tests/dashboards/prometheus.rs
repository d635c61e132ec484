//! A real Prometheus for the length of a test, and what it answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::panels::{Query, legend_labels};
use crate::support::lessons::curl;
use crate::support::process::Process;
use crate::support::until;

/// The server.
pub struct Prometheus {
    _process: Process,
    url: String,
    _data: tempfile::TempDir,
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    /// Finite values alone.
    pub values: Vec<f64>,
}

impl Prometheus {
    /// Starts one with a configuration file and waits until it has taken it.
    pub fn start(config: &Path) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let said = data.path().join("stderr.txt");
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.path().join("tsdb").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = Process::leashed(Path::new("prometheus"), &arguments);
        command.stderr(Stdio::from(std::fs::File::create(&said).expect("a file for its words")));
        let process = Process::start(&mut command);
        let words = || {
            BufReader::new(std::fs::File::open(&said).expect("its words"))
                .lines()
                .map_while(Result::ok)
                .collect::<Vec<_>>()
        };
        let url = until("prometheus to be ready", Duration::from_secs(30), || {
            let words = words();
            words.iter().find(|line| line.contains("Server is ready"))?;
            let line = words.iter().find(|line| line.contains("msg=\"Listening on\""))?;
            let address = line.split("address=").nth(1)?.split_whitespace().next()?;
            Some(format!("http://{address}"))
        });
        Self { _process: process, url, _data: data }
    }

    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let mut url = url::Url::parse(&format!("{}{path}", self.url)).expect("a URL");
        url.query_pairs_mut().extend_pairs(parameters);
        let answer: Value = serde_json::from_slice(&curl(&[url.as_str()]).body).map_err(|error| error.to_string())?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer.to_string()),
        }
    }

    /// A query over the last `seconds`, a point every two.
    pub fn range(&self, expr: &str, seconds: i64) -> Result<Vec<Series>, String> {
        let end = lyceum_core::time::Clock::system().unix_seconds();
        let (start, end) = ((end - seconds).to_string(), end.to_string());
        let parameters = [("query", expr), ("start", &start), ("end", &end), ("step", "2")];
        let data = self.get("/api/v1/query_range", &parameters)?;
        data["result"].as_array().ok_or("no result")?.iter().map(series).collect()
    }

    /// A query as of now.
    pub fn now(&self, expr: &str) -> Result<Vec<Series>, String> {
        let data = self.get("/api/v1/query", &[("query", expr)])?;
        data["result"].as_array().ok_or("no result")?.iter().map(series).collect()
    }

    /// The one value of a query as of now.
    pub fn number(&self, expr: &str) -> Option<f64> {
        let found = self.now(expr).unwrap_or_else(|error| panic!("{expr}: {error}"));
        found.first().and_then(|series| series.values.first().copied())
    }

    /// The sum of a counter over all that tell of it, as of the last scrapes.
    pub fn sum(&self, metric: &str) -> f64 {
        self.number(&format!("sum({metric})")).unwrap_or_else(|| panic!("nobody tells of {metric}"))
    }

    /// The values of a label of what `matcher` matches.
    pub fn label_values(&self, matcher: &str, label: &str) -> Vec<String> {
        let data = self.get(&format!("/api/v1/label/{label}/values"), &[("match[]", matcher)]);
        let data = data.unwrap_or_else(|error| panic!("{matcher}: {error}"));
        data.as_array().expect("a list").iter().map(|value| value.as_str().expect("a string").to_owned()).collect()
    }

    /// What is wrong with rules and targets; empty when nothing is.
    pub fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        let rules = self.get("/api/v1/rules", &[]).expect("rules");
        for group in rules["groups"].as_array().expect("groups") {
            for rule in group["rules"].as_array().expect("rules") {
                if rule["health"] != "ok" {
                    found.push(format!("rule {}: {} {}", rule["name"], rule["health"], rule["lastError"]));
                }
            }
        }
        let targets = self.get("/api/v1/targets", &[("state", "active")]).expect("targets");
        for target in targets["activeTargets"].as_array().expect("targets") {
            if target["health"] != "up" {
                found.push(format!("target {}: {}", target["scrapeUrl"], target["lastError"]));
            }
        }
        found
    }
}

fn series(value: &Value) -> Result<Series, String> {
    let labels = value["metric"].as_object().ok_or("no labels")?;
    let labels =
        labels.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let points = value["values"].as_array().cloned().unwrap_or_else(|| vec![value["value"].clone()]);
    let number = |point: &Value| point[1].as_str().and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite());
    Ok(Series { labels, values: points.iter().filter_map(number).collect() })
}

/// Whether a panel would show something: a finite point in one series, and in each the labels that its legend names.
pub fn judge(query: &Query, found: &[Series]) -> Result<(), String> {
    if found.iter().all(|series| series.values.is_empty()) {
        return Err(format!("{}: {} series and no finite point: {}", query.panel, found.len(), query.expr));
    }
    for label in legend_labels(&query.legend) {
        if let Some(series) = found.iter().find(|series| series.labels.get(&label).is_none_or(String::is_empty)) {
            return Err(format!(
                "{}: the legend names {label}, and a series has only {:?}",
                query.panel, series.labels
            ));
        }
    }
    Ok(())
}

#[test]
fn an_empty_panel_and_a_missing_label_are_seen() {
    let query = Query { panel: "p".into(), expr: "x".into(), legend: "{{code}}".into() };
    let series = |label: &str, values: &[f64]| Series {
        labels: BTreeMap::from([(label.to_owned(), "v".to_owned())]),
        values: values.to_vec(),
    };
    assert_eq!(judge(&query, &[series("code", &[1.0])]), Ok(()));
    assert!(judge(&query, &[]).is_err());
    assert!(judge(&query, &[series("code", &[])]).is_err());
    assert!(judge(&query, &[series("code", &[1.0]), series("codes", &[1.0])]).is_err());
}
