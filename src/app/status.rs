//! `lyceum status`: whether the programs of a system are well, and what they are doing.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::scrape::{self, Metrics};
use super::table;
use lyceum_client::Http;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// The operators' listeners of origins, edges and workers; may be given several times
    #[arg(long = "admin", value_name = "URL", required_unless_present = "demo")]
    admins: Vec<String>,
    /// The directory of a running demo, whose listeners are asked
    #[arg(long, value_name = "DIR")]
    demo: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Exit code 1 when a program is not ready.

Examples:
  lyceum status --demo data/demo
  lyceum status --admin http://127.0.0.1:9900 --admin http://127.0.0.1:9901";

/// What one program tells.
#[derive(Debug, Default, Serialize)]
struct Program {
    admin: String,
    role: &'static str,
    healthy: bool,
    ready: bool,
    /// Why it isn't.
    problem: Option<String>,
    connections: Option<f64>,
    requests: Option<f64>,
    sent_bytes: Option<f64>,
    /// Requests that the cache answered, from 0 to 1.
    hit_ratio: Option<f64>,
    cache_bytes: Option<f64>,
    cache_objects: Option<f64>,
    origins_up: Option<usize>,
    origins: Option<usize>,
}

pub(super) async fn run(status: Status) -> Result<(), Failure> {
    let mut admins = status.admins.clone();
    if let Some(directory) = &status.demo {
        admins.extend(demo_admins(directory)?);
    }
    let http = scrape::quick();
    let mut programs = Vec::new();
    for admin in &admins {
        programs.push(ask(&http, admin.trim_end_matches('/')).await);
    }
    if status.json {
        println!("{}", serde_json::to_string_pretty(&programs).map_err(Failure::other)?);
    } else {
        show(&programs);
    }
    match programs.iter().filter(|program| !program.ready).count() {
        0 => Ok(()),
        count => Err(Failure::other(format!("{count} of {} programs are not ready", programs.len()))),
    }
}

/// The operators' listeners that `demo.json` names.
fn demo_admins(directory: &Path) -> Result<Vec<String>, Failure> {
    let document = demo_document(directory)?;
    let lists = ["origin_admins", "edge_admins", "worker_admins"].map(|name| document.get(name));
    let urls = lists.into_iter().flatten().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    Ok(urls.map(str::to_owned).collect())
}

/// What a running demo says of itself.
pub(super) fn demo_document(directory: &Path) -> Result<Value, Failure> {
    let path = directory.join("demo.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|cause| Failure::usage(format!("{}: {cause}; does a demo run there?", path.display())))?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

async fn ask(http: &Http, admin: &str) -> Program {
    let mut program = Program { admin: admin.to_owned(), role: "?", ..Program::default() };
    match scrape::get(http, &format!("{admin}/healthz")).await {
        Ok((200, _)) => program.healthy = true,
        Ok((status, _)) => program.problem = Some(format!("/healthz answers {status}")),
        Err(error) => {
            program.problem = Some(error.to_string());
            return program;
        }
    }
    match scrape::get(http, &format!("{admin}/readyz")).await {
        Ok((200, _)) => program.ready = program.healthy,
        Ok((status, why)) => program.problem = Some(format!("/readyz answers {status}: {}", why.trim())),
        Err(error) => program.problem = Some(error.to_string()),
    }
    if let Ok((200, text)) = scrape::get(http, &format!("{admin}/metrics")).await {
        program.read(&Metrics::parse(&text));
    }
    program
}

impl Program {
    fn read(&mut self, metrics: &Metrics) {
        let roles = [("lyceum_edge_", "edge"), ("lyceum_origin_", "origin"), ("lyceum_worker_", "worker")];
        self.role = roles.iter().find(|(prefix, _)| metrics.any(prefix)).map_or("?", |(_, role)| role);
        let sum = |name: &str| metrics.sum(name, &[]);
        self.connections = sum("lyceum_front_connections");
        self.requests = sum("lyceum_edge_requests_total").or_else(|| sum("lyceum_origin_requests_total"));
        self.sent_bytes =
            sum("lyceum_edge_response_bytes_total").or_else(|| sum("lyceum_origin_delivered_bytes_total"));
        if self.role == "edge" {
            let hits = metrics.sum("lyceum_edge_requests_total", &["outcome=\"hit\""]).unwrap_or(0.0);
            self.hit_ratio = self.requests.filter(|all| *all > 0.0).map(|all| hits / all);
            self.cache_bytes = sum("lyceum_edge_cache_bytes");
            self.cache_objects = sum("lyceum_edge_cache_objects");
            let up = || metrics.by_label("lyceum_upstream_origin_up", "origin");
            self.origins = Some(up().count());
            self.origins_up = Some(up().filter(|(_, up)| *up > 0.0).count());
        }
    }
}

fn show(programs: &[Program]) {
    let names = ["role", "admin", "health", "ready", "connections", "requests", "sent", "hits", "cache", "origins up"];
    let yes = |yes: bool| if yes { "yes" } else { "NO" }.to_owned();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |program: &Program| {
        let up = program.origins_up.zip(program.origins).map(|(up, all)| format!("{up}/{all}"));
        let cache = program.cache_bytes.zip(program.cache_objects);
        vec![
            program.role.to_owned(),
            program.admin.clone(),
            yes(program.healthy),
            yes(program.ready),
            or_dash(program.connections.map(|n| format!("{n:.0}"))),
            or_dash(program.requests.map(|n| format!("{n:.0}"))),
            or_dash(program.sent_bytes.map(bytes)),
            or_dash(program.hit_ratio.map(|ratio| format!("{:.0} %", ratio * 100.0))),
            or_dash(cache.map(|(size, objects)| format!("{} in {objects:.0}", bytes(size)))),
            or_dash(up),
        ]
    };
    table::print(&names, &programs.iter().map(row).collect::<Vec<_>>());
    for program in programs {
        if let Some(problem) = &program.problem {
            println!("{}: {problem}", program.admin);
        }
    }
}

/// A number of bytes with three figures.
fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1024.0 && unit + 1 < units.len() {
        count /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || count >= 100.0 { 0 } else { 1 };
    format!("{count:.digits$} {}", units.get(unit).unwrap_or(&"B"))
}
