//! `lyceum keys` and `lyceum token`: signing keys, and tokens made without an origin.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::failure::Failure;
use lyceum_core::time::Clock;
use lyceum_core::units::Span;
use lyceum_token as token;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key pair: DIR/<kid>.pem (PKCS#8, mode 600) and DIR/<kid>.jwk (public)
    #[command(after_help = "Example:\n  lyceum keys new --alg ES256 --out data/keys")]
    New {
        /// EdDSA or ES256
        #[arg(long, default_value = "EdDSA")]
        alg: String,
        /// The directory
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Token {
    /// The private key, <kid>.pem
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The user
    #[arg(long, value_name = "USER")]
    sub: String,
    /// A path prefix that begins and ends with "/"; may be given several times
    #[arg(long, required = true, value_name = "PREFIX")]
    path: Vec<String>,
    /// How long the token lives
    #[arg(long, default_value = "6h")]
    ttl: Span,
    /// The `iss` claim
    #[arg(long, default_value = "lyceum")]
    issuer: String,
    /// The `aud` claim
    #[arg(long, default_value = "lyceum-edge")]
    audience: String,
    /// A further claim; the value is JSON where it parses as such, else text
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
}

pub(super) const TOKEN_EXAMPLES: &str = "\
Examples:
  lyceum token --key data/keys/KID.pem --sub ada --path /v/LESSON/ --ttl 2h
  lyceum token --key data/keys/KID.pem --sub ada --path /v/LESSON/ --claim max_height=480";

pub(super) fn keys(keys: Keys) -> Result<(), Failure> {
    let Keys::New { alg, out } = keys;
    new_key(&alg, &out)
}

fn new_key(alg: &str, out: &Path) -> Result<(), Failure> {
    let algorithm = alg.parse::<token::Algorithm>().map_err(Failure::usage)?;
    let kid = token::key_files::generate(algorithm, out).map_err(Failure::other)?;
    println!("{kid}");
    Ok(())
}

/// Prints a signed playback token.
pub(super) fn print_token(arguments: Token) -> Result<(), Failure> {
    if let Some(path) = arguments.path.iter().find(|path| !path.starts_with('/') || !path.ends_with('/')) {
        return Err(Failure::usage(format!("--path {path}: a path prefix begins and ends with \"/\"")));
    }
    let now = Clock::system().unix_seconds();
    let ttl = i64::try_from(arguments.ttl.get().as_secs()).unwrap_or(i64::MAX);
    let mut extra = serde_json::Map::new();
    for claim in &arguments.claims {
        let (name, value) =
            claim.split_once('=').ok_or_else(|| Failure::usage(format!("--claim {claim}: write it as name=value")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        extra.insert(name.to_owned(), value);
    }
    let claims = token::Claims {
        sub: arguments.sub,
        exp: now.saturating_add(ttl),
        iat: Some(now),
        jti: Some(lyceum_core::ids::Id::random().to_string()),
        paths: arguments.path,
        extra,
        ..token::Claims::default()
    };
    let signer = token::Signer::from_key_file(&arguments.key, &arguments.issuer, &arguments.audience);
    let text = signer.and_then(|signer| signer.sign(&claims)).map_err(Failure::usage)?;
    println!("{text}");
    Ok(())
}
