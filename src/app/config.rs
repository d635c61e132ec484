//! `lyceum config`: checks configuration files and writes first ones.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::failure::{Failure, readable};
use crate::demo;
use lyceum_core::config::{self, ConfigError};
use lyceum_edge as edge;
use lyceum_origin as origin;
use lyceum_packaging::Ladder;

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Say everything that is wrong with configuration files: file, line, key, and what would be right
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Write a commented configuration to start from
    #[command(after_help = INIT_EXAMPLES)]
    Init(Init),
}

const CHECK_EXAMPLES: &str = "\
Environment variables need not be set: a placeholder stands for ${NAME}, and a note names it.

Examples:
  lyceum config check edge.toml
  lyceum config check /etc/lyceum/*.toml";

const INIT_EXAMPLES: &str = "\
Examples:
  lyceum config init origin --out origin.toml
  lyceum config init edge > edge.toml";

#[derive(Debug, Args)]
pub(super) struct Check {
    /// edge.toml, origin.toml, worker.toml or ladder.toml, told apart by their keys
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files are, where their keys don't tell
    #[arg(long = "as", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The program that it is for
    #[arg(value_enum)]
    role: Role,
    /// Write to this file, which must not exist yet, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Edge,
    Origin,
    Worker,
}

/// What a configuration file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Edge,
    Origin,
    Worker,
    Ladder,
}

impl Kind {
    /// The kind that knows the most of a file's first-level keys.
    fn of(text: &str) -> Self {
        let (_, tables) = toml_edit::Document::parse(text)
            .map(|document| (true, document.iter().map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>()))
            .unwrap_or_default();
        let known = |kind: &Self| kind.own_keys().iter().filter(|key| tables.contains(**key)).count();
        let kinds = [Self::Ladder, Self::Worker, Self::Origin, Self::Edge];
        kinds.into_iter().max_by_key(known).unwrap_or(Self::Edge)
    }

    /// First-level keys that no other kind has.
    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::Edge => &["pool", "route", "cache", "control", "ahead", "playback"],
            Self::Origin => &[
                "public_url",
                "edges",
                "database",
                "database_pool",
                "admin_key",
                "edge_bearer",
                "store",
                "streams",
                "workers",
                "ladder",
                "uploads",
                "queue",
                "encryption",
                "api",
                "recordings",
            ],
            Self::Worker => &["origins", "api_key", "slots", "lease_wait", "source_cache", "client"],
            Self::Ladder => &["video", "segment", "audio", "measure_quality"],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Origin => "origin",
            Self::Worker => "worker",
            Self::Ladder => "ladder",
        }
    }
}

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    match config {
        Config::Check(check) => check_files(check).await,
        Config::Init(init) => write_first(&init),
    }
}

async fn check_files(check: Check) -> Result<(), Failure> {
    let mut refused = 0;
    let mut unset = BTreeSet::new();
    for file in &check.files {
        match check_file(file, check.kind).await {
            Ok(names) => unset.extend(names),
            Err(Failure::Usage(message)) => {
                refused += 1;
                eprintln!("{message}");
            }
            Err(other) => return Err(other),
        }
    }
    if !unset.is_empty() {
        let names = unset.into_iter().collect::<Vec<_>>().join(", ");
        println!("note: not set here, and needed at the start: {names}");
    }
    match (refused, check.files.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err(Failure::usage("the configuration can't be used")),
        (refused, all) => Err(Failure::usage(format!("{refused} of {all} configurations can't be used"))),
    }
}

/// Prints that a file is good, and returns the variables that it names and that are not set.
async fn check_file(file: &Path, kind: Option<Kind>) -> Result<Vec<String>, Failure> {
    readable(file)?;
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let kind = kind.unwrap_or_else(|| Kind::of(&text));
    let unset = match kind {
        Kind::Origin => config::check(file, &origin::Config::faults),
        Kind::Edge => config::check(file, &edge::Config::faults),
        Kind::Ladder => config::check(file, &|_: &Ladder| Vec::new()),
        Kind::Worker => return check_worker(file).await,
    };
    let unset = unset.map_err(|error: ConfigError| Failure::usage(error))?;
    println!("{}: a good {} configuration", file.display(), kind.name());
    Ok(unset)
}

/// The transcoder knows its own configuration.
async fn check_worker(file: &Path) -> Result<Vec<String>, Failure> {
    const NOTE: &str = "note: not set here, and needed at the start: ";
    let program = demo::sibling("lyceum-transcoder").map_err(Failure::other)?;
    let output =
        tokio::process::Command::new(&program).args(["worker", "--check", "--config"]).arg(file).output().await;
    let output = output.map_err(|cause| Failure::other(format!("{}: {cause}", program.display())))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::usage(message.trim().trim_start_matches("lyceum-transcoder: ")));
    }
    let mut unset = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix(NOTE) {
            Some(names) => unset.extend(names.split(", ").map(str::to_owned)),
            None => println!("{line}"),
        }
    }
    Ok(unset)
}

fn write_first(init: &Init) -> Result<(), Failure> {
    let text = match init.role {
        Role::Edge => include_str!("../../edge-config/edge.toml"),
        Role::Origin => include_str!("../../edge-config/origin.toml"),
        Role::Worker => include_str!("../../edge-config/worker.toml"),
    };
    let Some(path) = &init.out else {
        return std::io::stdout().lock().write_all(text.as_bytes()).map_err(Failure::other);
    };
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let failed = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{}: is there already and is left as it is; choose another --out", path.display()))
        }
        _ => Failure::usage(format!("{}: can't be written: {cause}", path.display())),
    };
    created.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
    println!("{}: written; check it with: lyceum config check {}", path.display(), path.display());
    Ok(())
}
