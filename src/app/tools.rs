//! The commands that are no role: demo, upload, keys, token, config check.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Demo, Failure, Token, Upload};
use crate::demo;
use lyceum_client::{self as client, tus};
use lyceum_core::config;
use lyceum_core::time::Clock;
use lyceum_edge as edge;
use lyceum_origin as origin;
use lyceum_packaging as packaging;
use lyceum_token as token;

pub(super) async fn demo(demo: Demo) -> Result<(), Failure> {
    for file in &demo.media {
        readable(file)?;
    }
    let options = demo::Options {
        data: demo.data,
        listen: demo.listen,
        media: demo.media,
        exit_with_stdin: demo.exit_with_stdin,
    };
    demo::run(options).await.map_err(Failure::other)
}

fn readable(file: &Path) -> Result<(), Failure> {
    let opened = std::fs::File::open(file).and_then(|opened| opened.metadata());
    match opened {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{}: is no file", file.display()))),
        Err(cause) => Err(Failure::usage(format!("{}: can't be read: {cause}", file.display()))),
    }
}

pub(super) async fn upload(upload: Upload) -> Result<(), Failure> {
    readable(&upload.file)?;
    let limits = client::Limits { response: lyceum_core::units::Span::secs(86_400), ..client::Limits::default() };
    let http = client::Http::new(limits);
    let job = tus::Upload {
        file: upload.file.clone(),
        origin: upload.origin.trim_end_matches('/').to_owned(),
        lesson: upload.lesson,
        api_key: upload.api_key,
        memory: tus::default_memory(),
    };
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    let sending = job.run(&http, |sent, length| {
        bar.set_length(length);
        bar.set_position(sent);
    });
    tokio::select! {
        done = sending => {
            done.map_err(Failure::other)?;
            bar.finish();
            println!("{} is uploaded; the origin goes on from here", upload.file.display());
            Ok(())
        }
        _ = tokio::signal::ctrl_c() => {
            bar.abandon();
            Err(Failure::other("interrupted; the same command goes on where this one stopped"))
        }
    }
}

pub(super) fn new_key(alg: &str, out: &Path) -> Result<(), Failure> {
    let algorithm = alg.parse::<token::Algorithm>().map_err(Failure::usage)?;
    let kid = token::key_files::generate(algorithm, out).map_err(Failure::other)?;
    println!("{kid}");
    Ok(())
}

pub(super) fn token(arguments: Token) -> Result<(), Failure> {
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

/// What a configuration file is for, told by the keys that only it has.
fn kind(text: &str) -> &'static str {
    let table = text.parse::<toml_edit::DocumentMut>().unwrap_or_default();
    let has = |names: &[&str]| names.iter().any(|name| table.contains_key(name));
    match () {
        () if has(&["pool", "route", "cache", "control"]) => "edge",
        () if has(&["database", "public_url", "store", "edge_bearer"]) => "origin",
        () if has(&["video", "segment", "audio"]) => "ladder",
        () if has(&["slots", "api_key", "origins"]) => "worker",
        () => "edge",
    }
}

pub(super) async fn check(file: &Path) -> Result<(), Failure> {
    readable(file)?;
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let kind = kind(&text);
    let across = |what: &dyn std::fmt::Display| Failure::usage(format!("{}: {what}", file.display()));
    match kind {
        "origin" => config::load::<origin::Config>(file)?.check().map_err(|e| across(&e))?,
        "ladder" => drop(config::load::<packaging::Ladder>(file)?),
        "worker" => return check_worker(file).await,
        _ => config::load::<edge::Config>(file)?.check().map_err(|e| across(&e))?,
    }
    println!("{}: a good {kind} configuration", file.display());
    Ok(())
}

/// The transcoder knows its own configuration.
async fn check_worker(file: &Path) -> Result<(), Failure> {
    let program = demo::sibling("lyceum-transcoder").map_err(Failure::other)?;
    let status =
        tokio::process::Command::new(&program).args(["worker", "--check", "--config"]).arg(file).status().await;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{}: not a good worker configuration", file.display()))),
        Err(cause) => Err(Failure::other(format!("{}: {cause}", program.display()))),
    }
}
