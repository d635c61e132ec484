//! An origin that misbehaves randomly: it refuses, resets, truncates, stalls, trickles, and sends wrong headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyceum_core::time::{Instant, monotonic};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::origin::Answer;
use crate::world::{Content, Dice};

/// The ways to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Refuse,
    Reset,
    Short,
    Unavailable,
    StandStill,
    Trickle,
    Coded,
    UnaskedPart,
    OtherVersion,
    Longer,
    Garbage,
}

impl Fault {
    pub(super) const ALL: [(Self, &'static str); 11] = [
        (Self::Refuse, "refuse"),
        (Self::Reset, "reset"),
        (Self::Short, "short"),
        (Self::Unavailable, "503"),
        (Self::StandStill, "stand still"),
        (Self::Trickle, "trickle"),
        (Self::Coded, "coded unasked"),
        (Self::UnaskedPart, "206 unasked"),
        (Self::OtherVersion, "another version"),
        (Self::Longer, "longer than said"),
        (Self::Garbage, "no HTTP"),
    ];
}

/// What lies under a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub(super) length: u64,
    /// Whether its versions change as time goes on.
    changes: Option<Duration>,
    control: &'static str,
}

/// The object of a name: the kind before the dash says what, the number behind it how long.
pub(super) fn object(name: &str) -> Option<Object> {
    let (kind, number) = name.split_once('-')?;
    let number: u64 = number.split('.').next()?.parse().ok()?;
    let sized = |least: u64, most: u64| least + Dice::new(7, number).below(most - least);
    Some(match kind {
        "segment" => {
            Object { length: sized(2 << 10, 300 << 10), changes: None, control: "public, max-age=31536000, immutable" }
        }
        "large" => Object {
            length: sized(9 << 20, 14 << 20),
            changes: Some(Duration::from_secs(20)),
            control: "public, max-age=5",
        },
        "live" => Object {
            length: sized(200, 20 << 10),
            changes: Some(Duration::from_secs(3)),
            control: "public, max-age=1, stale-while-revalidate=1, stale-if-error=10",
        },
        "private" => Object { length: sized(200, 64 << 10), changes: None, control: "no-store" },
        _ => return None,
    })
}

/// What the origins have done.
#[derive(Debug)]
pub(super) struct Deeds {
    start: Instant,
    seed: u64,
    percent: u64,
    /// How long a body may stand still for the edge.
    idle: Duration,
    pub(super) requests: AtomicU64,
    pub(super) faults: [AtomicU64; Fault::ALL.len()],
    connections: AtomicU64,
    /// Once the run is over they behave.
    pub(super) calm: std::sync::atomic::AtomicBool,
}

impl Deeds {
    pub(super) fn new(seed: u64, percent: u64, idle: Duration) -> Arc<Self> {
        Arc::new(Self {
            start: monotonic(),
            seed,
            percent,
            idle,
            requests: AtomicU64::new(0),
            faults: Default::default(),
            connections: AtomicU64::new(0),
            calm: Default::default(),
        })
    }

    fn version(&self, object: &Object) -> u64 {
        object.changes.map_or(1, |every| 1 + self.start.elapsed().as_millis() as u64 / every.as_millis().max(1) as u64)
    }

    fn fault(&self, dice: &mut Dice) -> Option<Fault> {
        if self.calm.load(Ordering::Relaxed) || !dice.percent(self.percent) {
            return None;
        }
        let at = dice.below(Fault::ALL.len() as u64) as usize;
        let (fault, _) = Fault::ALL.get(at)?;
        self.faults.get(at)?.fetch_add(1, Ordering::Relaxed);
        Some(*fault)
    }
}

impl Answer for Deeds {
    type Connection = Dice;

    fn connected(&self) -> Dice {
        Dice::new(self.seed, self.connections.fetch_add(1, Ordering::Relaxed))
    }

    async fn answer(&self, stream: &mut TcpStream, dice: &mut Dice, head: &str) -> std::io::Result<bool> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        answer(stream, self, &parse(head), dice).await
    }
}

struct Asked {
    name: String,
    range: Option<(u64, Option<u64>)>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

fn parse(head: &str) -> Asked {
    let target = head.split(' ').nth(1).unwrap_or("");
    let field = |wanted: &str| {
        head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let range = field("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()))
    });
    let name = target.strip_prefix("/v/a/").unwrap_or("").to_owned();
    Asked { name, range, if_match: field("if-match"), if_none_match: field("if-none-match") }
}

/// Answers one request; whether the connection goes on.
async fn answer(stream: &mut TcpStream, deeds: &Deeds, asked: &Asked, dice: &mut Dice) -> std::io::Result<bool> {
    let Some(object) = object(&asked.name) else {
        stream.write_all(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\ncache-control: max-age=1\r\n\r\n").await?;
        return Ok(true);
    };
    let fault = deeds.fault(dice);
    let mut version = deeds.version(&object);
    if fault == Some(Fault::OtherVersion) && object.changes.is_some() {
        version += 1000;
    }
    let etag = format!("\"{version}\"");
    let common = format!(
        "cache-control: {}\r\netag: {etag}\r\naccept-ranges: bytes\r\nx-object: {}\r\n",
        object.control, asked.name
    );
    match fault {
        Some(Fault::Refuse) => return Ok(false),
        Some(Fault::Garbage) => {
            stream.write_all(b"\x16\x03\x01 no HTTP at all\r\n\r\n").await?;
            return Ok(false);
        }
        Some(Fault::Unavailable) => {
            stream.write_all(b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy").await?;
            return Ok(true);
        }
        _ => {}
    }
    if asked.if_match.as_ref().is_some_and(|wanted| *wanted != etag) {
        stream.write_all(b"HTTP/1.1 412 X\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(true);
    }
    if asked.if_none_match.as_ref() == Some(&etag) {
        stream.write_all(format!("HTTP/1.1 304 X\r\n{common}\r\n").as_bytes()).await?;
        return Ok(true);
    }
    let (mut first, mut last, mut status) = (0, object.length - 1, 200);
    if let Some((from, to)) = asked.range {
        if from >= object.length {
            let head =
                format!("HTTP/1.1 416 X\r\ncontent-range: bytes */{}\r\ncontent-length: 0\r\n\r\n", object.length);
            stream.write_all(head.as_bytes()).await?;
            return Ok(true);
        }
        (first, last, status) = (from, to.unwrap_or(u64::MAX).min(object.length - 1), 206);
    }
    if fault == Some(Fault::UnaskedPart) {
        (last, status) = (first + (last - first) / 2, 206);
    }
    let length = last - first + 1;
    let mut head = format!("HTTP/1.1 {status} X\r\n{common}content-length: {length}\r\n");
    if status == 206 {
        head.push_str(&format!("content-range: bytes {first}-{last}/{}\r\n", object.length));
    }
    if fault == Some(Fault::Coded) {
        head.push_str("content-encoding: gzip\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    send(stream, deeds, Content::of(&asked.name, version), (first, length), fault, dice).await
}

async fn send(
    stream: &mut TcpStream,
    deeds: &Deeds,
    content: Content,
    (first, length): (u64, u64),
    fault: Option<Fault>,
    dice: &mut Dice,
) -> std::io::Result<bool> {
    let breaks = dice.below(length);
    let mut sent = 0;
    while sent < length {
        let mut piece = (length - sent).min(64 << 10);
        if matches!(fault, Some(Fault::Reset | Fault::Short | Fault::StandStill)) {
            piece = piece.min(breaks - sent);
        }
        stream.write_all(&content.bytes(first + sent, piece)).await?;
        sent += piece;
        if sent == breaks {
            match fault {
                Some(Fault::Reset) => {
                    // Unread or not, the other side is told nothing more.
                    socket_reset(stream);
                    return Ok(false);
                }
                Some(Fault::Short) => return Ok(false),
                Some(Fault::StandStill) => {
                    tokio::time::sleep(deeds.idle * 2).await;
                    return Ok(false);
                }
                _ => {}
            }
        }
        if fault == Some(Fault::Trickle) && sent == piece {
            for _ in 0..10.min(length - sent) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.write_all(&content.bytes(first + sent, 1)).await?;
                sent += 1;
            }
        }
    }
    if fault == Some(Fault::Longer) {
        stream.write_all(b"and more than was said").await?;
        return Ok(false);
    }
    Ok(true)
}

fn socket_reset(stream: &TcpStream) {
    // With no time to linger, closing is a reset.
    let _ = stream.set_zero_linger();
}
