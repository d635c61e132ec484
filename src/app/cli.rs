//! The commands: what the arguments are, and which function runs each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::catalog::{self, Course, Key, Lesson};
use super::config::{self, Config};
use super::doctor::{self, Doctor};
use super::failure::{Failure, readable};
use super::roles;
use super::shell;
use super::status::{self, Status};
use super::tokens::{self, Keys, Token};
use super::upload::{self, Upload};
use crate::demo;
use lyceum_core::shell::{Completions, Man, print_completions};
use lyceum_core::telemetry::logs::{self, LogOptions};

/// A media delivery system for paid video courses
#[derive(Debug, Parser)]
#[command(name = "lyceum", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    log: LogOptions,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Start with:
  lyceum demo                                  a whole system on this machine, with a sample course
  lyceum config init origin --out origin.toml  a configuration to start from

Exit codes: 0 done, 2 usage, configuration or a missing input file, 1 anything else.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole system on this machine: two origins, two edges, a worker, one sample course
    #[command(
        after_help = "Examples:\n  lyceum demo\n  lyceum demo --data /tmp/demo --listen 127.0.0.1:0 --media talk.mp4"
    )]
    Demo(Demo),
    /// Run an origin: takes uploads, has them transcoded, keeps the catalogue, signs tokens, delivers to edges
    #[command(
        after_help = "Examples:\n  lyceum config init origin --out origin.toml\n  lyceum origin --config origin.toml"
    )]
    Origin(Role),
    /// Run an edge: verifies tokens and serves media from its cache, balanced over origins
    #[command(after_help = "Examples:\n  lyceum config init edge --out edge.toml\n  lyceum edge --config edge.toml")]
    Edge(Role),
    /// Upload recordings to lessons; goes on where an earlier run stopped
    #[command(after_help = upload::EXAMPLES)]
    Upload(Upload),
    /// Add, list or remove courses of a running origin
    #[command(subcommand)]
    Course(Course),
    /// Add, list or remove lessons of a running origin
    #[command(subcommand)]
    Lesson(Lesson),
    /// Add, list or remove API keys of a running origin
    #[command(subcommand)]
    Key(Key),
    /// Make signing keys
    #[command(subcommand)]
    Keys(Keys),
    /// Print a signed playback token
    #[command(after_help = tokens::TOKEN_EXAMPLES)]
    Token(Token),
    /// Check configuration files, or write one to start from
    #[command(subcommand)]
    Config(Config),
    /// Show whether origins, edges and workers are well, and what they are doing
    #[command(after_help = status::EXAMPLES)]
    Status(Status),
    /// Look for what commonly goes wrong between an origin, its edges and a player
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Doctor),
    /// Print a completion script for a shell
    #[command(after_help = shell::COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Write manual pages
    #[command(after_help = shell::MAN_EXAMPLES)]
    Man(Man),
}

#[derive(Debug, Args)]
struct Demo {
    /// Where everything is kept; over the same directory it goes on where it stopped
    #[arg(long, default_value = "data/demo", value_name = "DIR")]
    data: PathBuf,
    /// The first origin, with the studio and the player; port 0 takes a free one, once
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// A recording of yours to add as a lesson; may be given several times
    #[arg(long, value_name = "FILE")]
    media: Vec<PathBuf>,
    /// End when standard input does
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Args)]
struct Role {
    /// The role's TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when standard input does: a supervisor's pipe
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let _log = logs::init(&cli.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return end(Err(Failure::other(format!("the program can't start its threads: {cause}")))),
    };
    let outcome = runtime.block_on(run(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    end(outcome)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => run_demo(arguments).await,
        Command::Origin(role) => roles::origin(&role.config, role.exit_with_stdin).await,
        Command::Edge(role) => roles::edge(&role.config, role.exit_with_stdin).await,
        Command::Upload(arguments) => upload::run(arguments).await,
        Command::Course(arguments) => catalog::course(arguments).await,
        Command::Lesson(arguments) => catalog::lesson(arguments).await,
        Command::Key(arguments) => catalog::key(arguments).await,
        Command::Keys(arguments) => tokens::keys(arguments),
        Command::Token(arguments) => tokens::print_token(arguments),
        Command::Config(arguments) => config::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Completions(arguments) => {
            print_completions(&arguments, Cli::command());
            Ok(())
        }
        Command::Man(arguments) => shell::man(&arguments, Cli::command()),
    }
}

async fn run_demo(arguments: Demo) -> Result<(), Failure> {
    arguments.media.iter().try_for_each(|file| readable(file))?;
    let options = demo::Options {
        data: arguments.data,
        listen: arguments.listen,
        media: arguments.media,
        exit_with_stdin: arguments.exit_with_stdin,
    };
    demo::run(options).await.map_err(Failure::other)
}

fn end(outcome: Result<(), Failure>) -> ExitCode {
    let (code, message) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Other(message)) => (1, message),
    };
    logs::say(&format!("lyceum: {message}"));
    ExitCode::from(code)
}
