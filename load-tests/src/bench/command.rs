//! The parts of the benchmark, one after the other.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Args, BenchPart};
use super::error::BenchError;
use super::load::Protocol;
use super::servers::{Server, TestServers};
use super::{account, goals, idle, latency, load, report, scale};

/// Runs the benchmark.
pub fn run(args: &Args) -> ExitCode {
    match figures(args) {
        Ok((json, markdown)) => {
            println!("{markdown}");
            let written = args
                .json
                .iter()
                .map(|path| (path, &json))
                .chain(args.markdown.iter().map(|path| (path, &markdown)))
                .try_for_each(|(path, text)| {
                    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
                });
            match written {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("lyceum-load bench: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("lyceum-load bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The figures of the parts that are asked for, as JSON and as Markdown.
fn figures(args: &Args) -> Result<(String, String), BenchError> {
    let goals = measure_goals(args)?;
    if !args.parts.contains(&BenchPart::Hits) {
        return Ok((format!("{:#}\n", serde_json::json!({ "goals": goals })), goals::markdown(&goals)));
    }
    let report = measure(args)?;
    match goals.is_empty() {
        true => Ok((report.json(), report.markdown())),
        false => {
            let mut json = report.value();
            if let Some(json) = json.as_object_mut() {
                json.insert("goals".to_owned(), serde_json::to_value(&goals).map_err(BenchError::new)?);
            }
            Ok((format!("{json:#}\n"), format!("{}\n{}", report.markdown(), goals::markdown(&goals))))
        }
    }
}

fn measure_goals(args: &Args) -> Result<Vec<goals::Goal>, BenchError> {
    let mut goals = Vec::new();
    for part in &args.parts {
        match part {
            BenchPart::Hits => {}
            BenchPart::Latency => goals.extend(latency::measure(args)?),
            BenchPart::Idle => goals.extend(idle::measure()?),
            BenchPart::Connections => goals.push(scale::connections(args)?),
            BenchPart::Objects => goals.push(scale::objects(args)?),
        }
    }
    Ok(goals)
}

fn measure(args: &Args) -> Result<report::Report, BenchError> {
    load::have_programs(&args.servers)?;
    let setting = TestServers::new(&args.sizes)?;
    let servers: Vec<Server> = args.servers.iter().map(|name| setting.start(name)).collect::<Result<_, _>>()?;
    let mut report = report::Report::default();
    let span = Duration::from_secs(args.seconds.max(1));
    for round in 0..args.rounds.max(1) {
        for protocol in Protocol::ALL {
            for size in &args.sizes {
                for server in &servers {
                    let Some(url) = server.url(protocol, *size) else { continue };
                    load::check_answer(protocol, &url, *size)?;
                    load::run(protocol, &url, args.connections, Duration::from_millis(300))?;
                    let before = account::cpu(server.pids())?;
                    let requests = load::run(protocol, &url, args.connections, span)?;
                    let spent = account::cpu(server.pids())?.saturating_sub(before);
                    eprintln!("round {}: {} {protocol} {size}: {requests} requests", round + 1, server.name());
                    report.add(server.name(), protocol, *size, requests, spent);
                }
            }
        }
    }
    Ok(report)
}
