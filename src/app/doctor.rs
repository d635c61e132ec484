//! `lyceum doctor`: looks for what commonly goes wrong between an origin, its edges and a player.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use http::{Method, Uri, header};
use serde_json::{Value, json};

use super::failure::Failure;
use super::origin_api::{Access, OriginApi, text};
use super::scrape::{self, Metrics};
use super::status;
use lyceum_client::{self as client, Http, certificate};
use lyceum_core::time::Clock;

/// A clock difference that edges forgive, in seconds.
const CLOCK_SKEW_ALLOWED: u64 = lyceum_token::CLOCK_SKEW_SECONDS.unsigned_abs();
/// A clock difference that is worth a warning, in seconds.
const CLOCK_SKEW_NOTED: u64 = 5;
/// Free space of a file system below which a warning and a failure are reported, in percent.
const FREE_PERCENT_LOW: u64 = 10;
const FREE_PERCENT_OUT: u64 = 2;
/// Days that a TLS certificate is still valid, at which a warning and a failure are reported.
const CERTIFICATE_DAYS_FEW: i64 = 14;
const CERTIFICATE_DAYS_OUT: i64 = 2;
/// How long a TLS handshake may wait for a message.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(3);
/// Lessons that are looked through for one that can be played.
const MAX_LESSONS: usize = 1_000;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The origin's URL
    #[arg(long, env = "LYCEUM_ORIGIN", value_name = "URL", required_unless_present = "demo")]
    origin: Option<String>,
    /// An API key of role creator or admin, for playing a lesson
    #[arg(long, env = "LYCEUM_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// The directory of a running demo, instead of --origin, --api-key and --worker
    #[arg(long, value_name = "DIR")]
    demo: Option<PathBuf>,
    /// The lesson to play; the first playable one where none is named
    #[arg(long, value_name = "ID")]
    lesson: Option<String>,
    /// The operators' listener of a worker; may be given several times
    #[arg(long = "worker", value_name = "URL")]
    workers: Vec<String>,
    /// A directory on this machine whose free space is looked at; may be given several times
    #[arg(long = "data", value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// Print JSON instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "\
Exit code 1 when something fails.

Examples:
  lyceum doctor --demo data/demo
  lyceum doctor --origin https://courses.example.com --api-key KEY --data /var/lib/lyceum";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was looked at, what was found, and what to do about it.
struct Check {
    verdict: Verdict,
    about: String,
    found: String,
    advice: &'static str,
}

#[derive(Default)]
struct Findings(Vec<Check>);

impl Findings {
    fn ok(&mut self, about: &str, found: impl ToString) {
        self.add(Verdict::Ok, about, found, "");
    }

    fn fail(&mut self, about: &str, found: impl ToString, advice: &'static str) {
        self.add(Verdict::Fail, about, found, advice);
    }

    fn add(&mut self, verdict: Verdict, about: &str, found: impl ToString, advice: &'static str) {
        self.0.push(Check { verdict, about: about.to_owned(), found: found.to_string(), advice });
    }
}

pub(super) async fn run(mut doctor: Doctor) -> Result<(), Failure> {
    if let Some(directory) = doctor.demo.clone() {
        let document = status::demo_document(&directory)?;
        let first = |name: &str| document.pointer(&format!("/{name}/0")).and_then(Value::as_str).map(str::to_owned);
        doctor.origin = doctor.origin.or_else(|| first("origins"));
        doctor.api_key = doctor.api_key.or_else(|| Some(text(&document, "api_key").to_owned()));
        doctor.workers.extend(first("worker_admins"));
        doctor.directories.push(directory);
    }
    let origin = doctor.origin.clone().unwrap_or_default();
    let origin = origin.trim_end_matches('/');
    let http = scrape::quick();
    let mut findings = Findings::default();
    if check_origin(&http, origin, &mut findings).await {
        check_certificate(origin, &mut findings).await;
        let kids = check_keys(&http, origin, &mut findings).await;
        match &doctor.api_key {
            Some(key) => {
                let access = Access { origin: origin.to_owned(), api_key: key.clone() };
                let api = OriginApi::new(&access);
                check_playback(&http, &api, doctor.lesson.as_deref(), &kids, &mut findings).await;
            }
            None => findings.add(
                Verdict::Warn,
                "playback",
                "no lesson was played",
                "give --api-key a key of role creator or admin",
            ),
        }
    }
    for worker in &doctor.workers {
        check_worker(&http, worker.trim_end_matches('/'), &mut findings).await;
    }
    for directory in &doctor.directories {
        check_space(directory, &mut findings);
    }
    report(&findings, doctor.json)
}

fn report(findings: &Findings, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let shown = |check: &Check| json!({ "verdict": check.verdict.name(), "about": check.about, "found": check.found, "advice": check.advice });
        println!("{}", Value::Array(findings.0.iter().map(shown).collect()));
    } else {
        for check in &findings.0 {
            println!("{:4}  {}: {}", check.verdict.name(), check.about, check.found);
            if !check.advice.is_empty() {
                println!("      → {}", check.advice);
            }
        }
    }
    match findings.0.iter().filter(|check| check.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        1 => Err(Failure::other("1 check failed")),
        count => Err(Failure::other(format!("{count} checks failed"))),
    }
}

/// Whether the origin answers; then also how its clock stands to this machine's.
async fn check_origin(http: &Http, origin: &str, findings: &mut Findings) -> bool {
    let request = client::request(Method::GET, &format!("{origin}/healthz"), "");
    let answer = match request {
        Ok(request) => http.send(request).await,
        Err(error) => Err(error),
    };
    let about = format!("origin {origin}");
    let response = match answer {
        Ok(response) if response.status().is_success() => response,
        Ok(response) => {
            findings.fail(&about, format!("/healthz answers {}", response.status()), "is this the origin's URL?");
            return false;
        }
        Err(error) => {
            findings.fail(
                &about,
                error,
                "is the origin running, its port open, its certificate known to this machine?",
            );
            return false;
        }
    };
    findings.ok(&about, "answers");
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    if let Some(there) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
        let there = there.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let here = u64::try_from(Clock::system().unix_seconds()).unwrap_or_default();
        let apart = here.abs_diff(there);
        let found = format!("{apart} s between this machine and the origin");
        if apart <= CLOCK_SKEW_NOTED {
            findings.ok("clock", found);
        } else if apart <= CLOCK_SKEW_ALLOWED {
            findings.add(Verdict::Warn, "clock", found, "let NTP set both clocks");
        } else {
            findings.fail("clock", found, "let NTP set both clocks: tokens are refused beyond 30 s");
        }
    }
    true
}

/// How many days the TLS certificate of a server has left; nothing for plain HTTP.
async fn check_certificate(server: &str, findings: &mut Findings) {
    let about = format!("certificate of {server}");
    let until = match certificate::valid_until(server, HANDSHAKE_WAIT).await {
        Ok(Some(until)) => until,
        Ok(None) => return,
        Err(error) => {
            let advice = "is it in force, for this name, with its issuers' certificates behind it in the file?";
            return findings.fail(&about, error, advice);
        }
    };
    let days = until.saturating_sub(Clock::system().unix_seconds()).div_euclid(24 * 3600);
    let (verdict, advice) = certificate_verdict(days);
    findings.add(verdict, &about, format!("valid for {days} more days"), advice);
}

fn certificate_verdict(days: i64) -> (Verdict, &'static str) {
    let advice = "renew it: the program takes new files with SIGHUP";
    match days {
        ..CERTIFICATE_DAYS_OUT => (Verdict::Fail, advice),
        CERTIFICATE_DAYS_OUT..CERTIFICATE_DAYS_FEW => (Verdict::Warn, advice),
        _ => (Verdict::Ok, ""),
    }
}

/// The ids of the keys that the origin publishes.
async fn check_keys(http: &Http, origin: &str, findings: &mut Findings) -> Vec<String> {
    let advice = "edges verify tokens with these keys: look at the origin's log and `tokens.keys`";
    let set = match scrape::get(http, &format!("{origin}/.well-known/jwks.json")).await {
        Ok((200, text)) => serde_json::from_str::<Value>(&text).unwrap_or_default(),
        Ok((status, _)) => {
            findings.fail("JWKS", format!("answers {status}"), advice);
            return Vec::new();
        }
        Err(error) => {
            findings.fail("JWKS", error, advice);
            return Vec::new();
        }
    };
    let keys = set.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let kids: Vec<String> = keys.iter().map(|key| text(key, "kid").to_owned()).filter(|kid| !kid.is_empty()).collect();
    match kids.len() {
        0 => findings.fail("JWKS", "holds no key with a `kid`", advice),
        count => findings.ok("JWKS", format!("{count} keys ({})", kids.join(", "))),
    }
    kids
}

/// Plays a lesson's first segment through each edge, with a token of the origin.
async fn check_playback(http: &Http, api: &OriginApi, lesson: Option<&str>, kids: &[String], findings: &mut Findings) {
    let lesson = match lesson {
        Some(lesson) => lesson.to_owned(),
        None => match playable(api).await {
            Ok(Some(lesson)) => lesson,
            Ok(None) => {
                let advice = "upload one with: lyceum upload FILE --course TITLE --wait";
                return findings.add(Verdict::Warn, "playback", "there is no playable lesson yet", advice);
            }
            Err(error) => return findings.fail("API", error, "is the API key right, and of role creator or admin?"),
        },
    };
    let playback = match api.post("/v1/playback", &json!({ "lesson": lesson })).await {
        Ok(playback) => playback,
        Err(error) => {
            return findings.fail(&format!("playback of {lesson}"), error, "is the lesson yours and playable?");
        }
    };
    let kid = kid_of(text(&playback, "token"));
    if let Some(kid) = kid.filter(|kid| !kids.contains(kid)) {
        let advice = "several origins over one database need the same files in `tokens.keys`";
        findings.fail("JWKS", format!("a new token is signed by {kid}, which is not in it"), advice);
    }
    let urls = playback.get("urls").and_then(Value::as_array).cloned().unwrap_or_default();
    for url in urls.iter().filter_map(Value::as_str) {
        let edge = url.split("/t/").next().unwrap_or(url);
        let about = format!("edge {edge}");
        check_certificate(edge, findings).await;
        match play(http, url).await {
            Ok(bytes) => findings.ok(&about, format!("plays lesson {lesson}: first segment of {bytes} bytes")),
            Err(Stop { found, advice }) => findings.fail(&about, found, advice),
        }
    }
}

/// The first lesson that can be played.
async fn playable(api: &OriginApi) -> Result<Option<String>, client::Error> {
    let mut seen = 0;
    for course in api.list("/v1/courses").await? {
        for lesson in api.list(&format!("/v1/courses/{}/lessons", text(&course, "id"))).await? {
            if lesson.get("playable").and_then(Value::as_bool) == Some(true) {
                return Ok(Some(text(&lesson, "id").to_owned()));
            }
            seen += 1;
        }
        if seen >= MAX_LESSONS {
            break;
        }
    }
    Ok(None)
}

/// The `kid` of a token's header.
fn kid_of(token: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    Some(text(&header, "kid").to_owned())
}

/// What stopped the playback.
struct Stop {
    found: String,
    advice: &'static str,
}

/// Fetches the multivariant playlist, a media playlist, its init segment and its first segment: the segment's length.
async fn play(http: &Http, master: &str) -> Result<usize, Stop> {
    let playlist = fetch(http, master).await?;
    let variant = uris(&playlist).next().ok_or_else(|| unusable("the multivariant playlist names no rendition"))?;
    let media_url = resolve(master, variant);
    let media = fetch(http, &media_url).await?;
    let map = media.lines().find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\"")?.split('"').next());
    if let Some(map) = map {
        fetch(http, &resolve(&media_url, map)).await?;
    }
    let segment = uris(&media).next().ok_or_else(|| unusable("the media playlist names no segment"))?;
    fetch(http, &resolve(&media_url, segment)).await.map(|body| body.len())
}

fn unusable(found: &str) -> Stop {
    Stop { found: found.to_owned(), advice: "look at the lesson in the studio and at the origin's log" }
}

fn uris(playlist: &str) -> impl Iterator<Item = &str> {
    playlist.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A URI of a playlist, which is relative or whole.
fn resolve(base: &str, uri: &str) -> String {
    if uri.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some()) {
        return uri.to_owned();
    }
    let folder = base.rsplit_once('/').map_or(base, |(folder, _)| folder);
    format!("{folder}/{uri}")
}

async fn fetch(http: &Http, url: &str) -> Result<String, Stop> {
    // The token in the path is a secret: only the file is named.
    let file = url.split('?').next().unwrap_or(url).rsplit("/v/").next().unwrap_or_default().to_owned();
    match scrape::get(http, url).await {
        Ok((200, body)) => Ok(body),
        Ok((status, body)) => {
            let problem: Value = serde_json::from_str(&body).unwrap_or_default();
            let code = text(&problem, "code");
            Err(Stop { found: format!("{file}: {status} {code}").trim_end().to_owned(), advice: advice(status, code) })
        }
        Err(error) => {
            Err(Stop { found: error.to_string(), advice: "is the edge running, and `edges` of the origin right?" })
        }
    }
}

/// What to do about a refusal of an edge.
fn advice(status: u16, code: &str) -> &'static str {
    match code {
        "token_unknown_key" | "token_bad_signature" => {
            "the edge doesn't know the origin's key: `tokens.issuers` of the edge has to name this origin's JWKS"
        }
        "token_wrong_issuer" | "token_wrong_audience" => {
            "`tokens` of the edge and of the origin differ: issuer, audience"
        }
        "token_expired" | "token_not_yet_valid" => "the edge's clock is wrong: let NTP set it",
        "token_revoked" => "the session was revoked: look at `control` of the edge",
        "too_many_streams" => "the limit of streams is reached: try again in a minute, or raise `streams.limit`",
        _ if status == 404 => "the edge's [[route]] or its pool leads elsewhere than to this origin",
        _ if status >= 500 => {
            "the edge can't reach its origins, or they refuse it: do `auth.bearer` and `edge_bearer` agree?"
        }
        _ => "look at the edge's log",
    }
}

async fn check_worker(http: &Http, worker: &str, findings: &mut Findings) {
    let about = format!("worker {worker}");
    let advice = "is the worker running, and its [admin] listener the one named here?";
    match scrape::get(http, &format!("{worker}/metrics")).await {
        Ok((200, text)) if Metrics::parse(&text).any("lyceum_worker_") => findings.ok(&about, "tells its metrics"),
        Ok((200, _)) => findings.fail(&about, "answers, and is no worker", advice),
        Ok((status, _)) => findings.fail(&about, format!("/metrics answers {status}"), advice),
        Err(error) => findings.fail(&about, error, advice),
    }
}

fn check_space(directory: &std::path::Path, findings: &mut Findings) {
    let about = format!("disk of {}", directory.display());
    let found = match rustix::fs::statvfs(directory) {
        Ok(found) => found,
        Err(cause) => return findings.fail(&about, cause, "does the directory exist, and may you read it?"),
    };
    let percent = found.f_bavail.saturating_mul(100).checked_div(found.f_blocks).unwrap_or(100);
    let gib = found.f_bavail.saturating_mul(found.f_frsize) >> 30;
    let free = format!("{percent} % free, {gib} GiB");
    let advice = "make room: uploads are refused and edges keep less when it is full";
    match percent {
        ..FREE_PERCENT_OUT => findings.fail(&about, free, advice),
        FREE_PERCENT_OUT..FREE_PERCENT_LOW => findings.add(Verdict::Warn, &about, free, advice),
        _ => findings.ok(&about, free),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_worth_a_warning_two_weeks_before_its_end() {
        let verdicts = [-1, 1, 2, 13, 14, 90].map(|days| certificate_verdict(days).0);
        use Verdict::{Fail, Ok, Warn};
        assert_eq!(verdicts, [Fail, Fail, Warn, Warn, Ok, Ok]);
    }

    #[test]
    fn a_playlists_uris_are_resolved() {
        assert_eq!(resolve("http://e/t/x/v/a/master.m3u8", "1/v240/index.m3u8"), "http://e/t/x/v/a/1/v240/index.m3u8");
        assert_eq!(resolve("http://e/a", "https://f/b"), "https://f/b");
        assert_eq!(uris("#EXTM3U\n\n#EXTINF:4,\n00001-0.m4s\n").collect::<Vec<_>>(), ["00001-0.m4s"]);
    }
}
