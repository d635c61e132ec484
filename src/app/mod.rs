//! The command line, and the composition root of each role.
//!
//! Exit codes: 0 done (also after a drain by signal), 2 usage, configuration or a missing input file, 1 anything else.

mod roles;
mod tools;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use lyceum_core::config::ConfigError;
use lyceum_core::telemetry::logs::{self, LogFormat};
use lyceum_core::units::Span;

/// A media delivery system for paid video courses.
#[derive(Debug, Parser)]
#[command(name = "lyceum", version)]
struct Cli {
    /// The form of log lines, which go to standard error; LYCEUM_LOG filters them.
    #[arg(long, value_enum, default_value_t, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A whole system on this machine: two origins, two edges, a worker, one sample course.
    Demo(Demo),
    /// Takes uploads, has them transcoded, keeps the catalogue, signs tokens, delivers to edges.
    Origin(Role),
    /// Verifies tokens and serves media from memory, balanced over origins.
    Edge(Role),
    /// Uploads a recording to a lesson; goes on where an earlier run stopped.
    Upload(Upload),
    /// Makes signing keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Prints a signed playback token.
    Token(Token),
    /// Looks at configuration files.
    #[command(subcommand)]
    Config(Config),
}

#[derive(Debug, Args)]
struct Demo {
    /// Where everything is kept; over the same directory it goes on where it stopped.
    #[arg(long, default_value = "data/demo")]
    data: PathBuf,
    /// The first origin, with the studio and the player; port 0 takes a free one, once.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A recording of yours to add as a lesson.
    #[arg(long)]
    media: Vec<PathBuf>,
    /// End when standard input does.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Args)]
struct Role {
    /// The role's TOML file.
    #[arg(long)]
    config: PathBuf,
    /// End when standard input does: a supervisor's pipe.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Args)]
struct Upload {
    /// The recording.
    file: PathBuf,
    /// The origin's URL.
    #[arg(long)]
    origin: String,
    /// The lesson's id.
    #[arg(long)]
    lesson: String,
    /// An API key of role creator or admin.
    #[arg(long, env = "LYCEUM_API_KEY", hide_env_values = true)]
    api_key: String,
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Makes a key pair: DIR/<kid>.pem (PKCS#8, mode 600) and DIR/<kid>.jwk (public).
    New {
        /// EdDSA or ES256.
        #[arg(long, default_value = "EdDSA")]
        alg: String,
        /// The directory.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Token {
    /// The private key, <kid>.pem.
    #[arg(long)]
    key: PathBuf,
    /// The user.
    #[arg(long)]
    sub: String,
    /// A path prefix that ends in "/"; several are allowed.
    #[arg(long, required = true)]
    path: Vec<String>,
    /// How long the token lives.
    #[arg(long, default_value = "6h")]
    ttl: Span,
    /// The `iss` claim.
    #[arg(long, default_value = "lyceum")]
    issuer: String,
    /// The `aud` claim.
    #[arg(long, default_value = "lyceum-edge")]
    audience: String,
    /// A further claim; the value is JSON where it parses as such, else text.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Config {
    /// Says what is wrong with a configuration file: key, line, what would be right.
    Check {
        /// edge.toml, origin.toml, worker.toml or ladder.toml; told apart by its keys.
        file: PathBuf,
    },
}

/// Why a command ended badly, as its exit code has it.
#[derive(Debug)]
pub enum Failure {
    /// Usage, configuration, a missing input file: 2.
    Usage(String),
    /// Anything else: 1.
    Other(String),
}

impl Failure {
    /// Anything but usage.
    pub fn other(error: impl Display) -> Self {
        Self::Other(error.to_string())
    }

    /// Usage, configuration or a missing input file.
    pub fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::init(cli.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return end(Err(Failure::other(format!("no runtime can be started: {cause}")))),
    };
    let outcome = runtime.block_on(run(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    end(outcome)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(demo) => tools::demo(demo).await,
        Command::Origin(role) => roles::origin(&role.config, role.exit_with_stdin).await,
        Command::Edge(role) => roles::edge(&role.config, role.exit_with_stdin).await,
        Command::Upload(upload) => tools::upload(upload).await,
        Command::Keys(Keys::New { alg, out }) => tools::new_key(&alg, &out),
        Command::Token(token) => tools::token(token),
        Command::Config(Config::Check { file }) => tools::check(&file).await,
    }
}

fn end(outcome: Result<(), Failure>) -> ExitCode {
    let (code, message) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => (2, message),
        Err(Failure::Other(message)) => (1, message),
    };
    eprintln!("lyceum: {message}");
    ExitCode::from(code)
}
