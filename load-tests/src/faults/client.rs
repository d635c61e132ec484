//! Clients that check every byte: some request ranges, some are slow, some disconnect in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use lyceum_core::time::{Instant, monotonic};

use super::origin::object;
use crate::world::{Content, Dice, Http, World, ask, client, field, request};

/// How long a response or a piece of its body may take before it counts as stuck.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the clients saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) sent: AtomicU64,
    /// No answer: the connection broke.
    pub(super) unanswered: AtomicU64,
    pub(super) answered: AtomicU64,
    /// Bodies read to their end, every byte right.
    pub(super) whole: AtomicU64,
    /// Bodies that broke off, as they must where an origin's did.
    pub(super) broken: AtomicU64,
    /// Bodies left in the midst.
    pub(super) left: AtomicU64,
    /// Answers of 4xx and 5xx.
    pub(super) refused: AtomicU64,
    /// Bytes of all bodies.
    pub(super) bytes: AtomicU64,
    /// Bytes announced and not taken, of bodies that broke off or were left.
    pub(super) missing: AtomicU64,
    /// A wrong byte, a body passed off as whole that is short, a part of something else: must be none.
    pub(super) wrong: AtomicU64,
    /// Nothing came for longer than anyone waits: must be none.
    pub(super) stuck: AtomicU64,
    pub(super) hits: AtomicU64,
}

/// How many names there are of a kind, and how often it is asked for, in percent.
const KINDS: [(&str, u64, u64); 5] =
    [("segment", 400, 62), ("large", 3, 8), ("live", 20, 20), ("private", 20, 8), ("missing", 5, 2)];

fn name(dice: &mut Dice) -> String {
    let mut chance = dice.below(100);
    for (kind, count, percent) in KINDS {
        if chance < percent {
            // The low numbers are asked for more often.
            let number = (dice.share() * dice.share() * count as f64) as u64;
            return format!("{kind}-{number}.m4s");
        }
        chance -= percent;
    }
    "missing-0.m4s".to_owned()
}

/// One client, until `end`.
pub(super) async fn run(world: Arc<World>, seen: Arc<Seen>, seed: u64, place: u64, end: Instant) {
    let mut dice = Dice::new(seed, place);
    let mut http = client(place % 4 == 3);
    while monotonic() < end {
        let name = name(&mut dice);
        seen.sent.fetch_add(1, Ordering::Relaxed);
        if !one(&world, &seen, &http, &name, &mut dice).await {
            // Left in the midst: as if the program had ended.
            http = client(place % 4 == 3);
        }
        if dice.percent(2) {
            tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
        }
    }
}

/// One request; whether its connection goes on.
async fn one(world: &World, seen: &Seen, http: &Http, name: &str, dice: &mut Dice) -> bool {
    let method = if dice.percent(5) { Method::HEAD } else { Method::GET };
    let mut fields = Vec::new();
    if dice.percent(20)
        && let Some(object) = object(name)
    {
        let first = dice.below(object.length);
        let last = first + dice.below(object.length.min(3 << 20));
        let range = match dice.below(4) {
            0 => format!("bytes={first}-"),
            1 => format!("bytes=-{}", 1 + dice.below(object.length)),
            _ => format!("bytes={first}-{last}"),
        };
        fields.push(("range", range));
    }
    let Ok(request) = request(method.clone(), &world.media(name), &fields) else { return true };
    let start = monotonic();
    let answer = match ask(http, request, STALL_TIMEOUT).await {
        Ok(answer) => answer,
        Err(_) if start.elapsed() >= STALL_TIMEOUT => {
            seen.stuck.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        Err(_) => {
            seen.unanswered.fetch_add(1, Ordering::Relaxed);
            return false;
        }
    };
    seen.answered.fetch_add(1, Ordering::Relaxed);
    let (head, body) = answer.into_parts();
    if field(&head.headers, "cache-status").contains("; hit") {
        seen.hits.fetch_add(1, Ordering::Relaxed);
    }
    if method == Method::HEAD {
        return true;
    }
    let (place, checked) = match head.status {
        StatusCode::OK => (Some(0), true),
        StatusCode::PARTIAL_CONTENT => (first_of(field(&head.headers, "content-range")), true),
        _ => {
            seen.refused.fetch_add(1, Ordering::Relaxed);
            (Some(0), false)
        }
    };
    let version = field(&head.headers, "etag").trim_matches('"').parse::<u64>().ok();
    let announced = field(&head.headers, "content-length").parse::<u64>().ok();
    let sound = field(&head.headers, "x-object") == name && field(&head.headers, "content-encoding").is_empty();
    let content = match (place, version, checked) {
        (Some(first), Some(version), true) if sound => Some((Content::of(name, version), first)),
        (_, _, false) => None,
        // What an origin codes unasked is passed on to those who take anything, and it says so.
        (Some(first), Some(version), true) if !field(&head.headers, "content-encoding").is_empty() => {
            Some((Content::of(name, version), first))
        }
        _ => {
            wrong(seen, name, "the head does not fit");
            None
        }
    };
    read(seen, name, body, content, announced, dice).await
}

fn wrong(seen: &Seen, name: &str, what: &str) {
    seen.wrong.fetch_add(1, Ordering::Relaxed);
    eprintln!("lyceum-load: {name}: {what}");
}

fn first_of(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

async fn read(
    seen: &Seen,
    name: &str,
    mut body: Incoming,
    content: Option<(Content, u64)>,
    announced: Option<u64>,
    dice: &mut Dice,
) -> bool {
    let leaves_at = dice.percent(5).then(|| dice.below(announced.unwrap_or(1).max(1)));
    let is_slow = dice.percent(4);
    let mut came = 0;
    let ended = loop {
        if leaves_at.is_some_and(|at| came >= at) {
            seen.left.fetch_add(1, Ordering::Relaxed);
            break false;
        }
        let frame = match tokio::time::timeout(STALL_TIMEOUT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                seen.broken.fetch_add(1, Ordering::Relaxed);
                break false;
            }
            Ok(None) => {
                seen.whole.fetch_add(1, Ordering::Relaxed);
                if announced.is_some_and(|announced| announced != came) {
                    wrong(seen, name, "short, and passed off as whole");
                }
                break true;
            }
            Err(_) => {
                seen.stuck.fetch_add(1, Ordering::Relaxed);
                eprintln!("lyceum-load: {name}: nothing came for {STALL_TIMEOUT:?}");
                break false;
            }
        };
        let Ok(piece) = frame.into_data() else { continue };
        if let Some((content, first)) = content
            && content.bytes(first + came, piece.len() as u64) != piece
        {
            wrong(seen, name, "a wrong byte");
        }
        came += piece.len() as u64;
        if is_slow {
            tokio::time::sleep(Duration::from_millis(dice.below(30))).await;
        }
    };
    seen.bytes.fetch_add(came, Ordering::Relaxed);
    if !ended {
        // Without a length nothing bounds what may have been on its way.
        seen.missing.fetch_add(announced.unwrap_or(64 << 20).saturating_sub(came), Ordering::Relaxed);
    }
    ended
}
