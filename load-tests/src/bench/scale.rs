//! Cost of a hit with few and with many connections and stored objects. The floor is measured in the same way, since
//! much of the difference comes from the kernel and the processor's caches.

use std::time::Duration;

use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use http::Method;
use http_body_util::BodyExt as _;

use super::args::Args;
use super::error::BenchError;
use super::goals::Goal;
use super::servers::{Server, TestServers};
use super::{account, load};
use crate::report::median;
use crate::world::{ask, client, field, request};

/// How much more than the floor's the edge's cost may rise, as a ratio.
const MAX_RATIO: f64 = 1.15;
const OBJECT_BYTES: usize = 2 << 10;
/// Bytes of each of many objects.
const SMALL_OBJECT_BYTES: usize = 64;
/// Who fills the cache asks for so many at once.
const CONCURRENT_FILLS: usize = 64;

/// CPU microseconds a request by how many there are of something, floor and edge, one figure a round.
struct Costs {
    counts: Vec<usize>,
    floor: Vec<Vec<f64>>,
    edge: Vec<Vec<f64>>,
}

impl Costs {
    fn new(counts: &[usize]) -> Self {
        let none = vec![Vec::new(); counts.len()];
        Self { counts: counts.to_vec(), floor: none.clone(), edge: none }
    }

    /// How much more it costs with the most than with the fewest, in the median of the rounds.
    fn rise(rounds: &[Vec<f64>]) -> f64 {
        let (Some(few), Some(many)) = (rounds.first(), rounds.last()) else { return f64::NAN };
        median(&mut few.iter().zip(many).map(|(few, many)| many / few).collect::<Vec<_>>())
    }

    fn goal(&self, of: &str) -> Goal {
        let shown = |rounds: &[Vec<f64>]| {
            let each = rounds.iter().map(|costs| format!("{:.1}", median(&mut costs.clone())));
            each.collect::<Vec<_>>().join(", ")
        };
        let counts: Vec<String> = self.counts.iter().map(ToString::to_string).collect();
        Goal {
            what: format!(
                "cost of a hit with {} {of} by that with {}; the floor's rise, and 15 %",
                counts.last().map_or("", String::as_str),
                counts.first().map_or("", String::as_str),
            ),
            found: Self::rise(&self.edge),
            most: Self::rise(&self.floor) * MAX_RATIO,
            unit: "times",
            how: format!("CPU µs with {}: edge {}; floor {}", counts.join(", "), shown(&self.edge), shown(&self.floor)),
        }
    }
}

/// CPU microseconds a request: the difference of a long run and a short one, so that opening and closing connections,
/// which both do alike, does not count.
fn cost(
    server: &Server,
    load: impl Fn(Duration) -> Result<u64, BenchError>,
    span: Duration,
) -> Result<f64, BenchError> {
    let run = |span| -> Result<(f64, u64), BenchError> {
        let before = account::cpu(server.pids())?;
        let count = load(span)?;
        Ok((account::cpu(server.pids())?.saturating_sub(before).as_secs_f64(), count))
    };
    let (short, long) = (run(Duration::from_secs(1))?, run(span + Duration::from_secs(1))?);
    match long.1.saturating_sub(short.1) {
        0 => Err(BenchError::new("no more requests in a longer run")),
        more => Ok((long.0 - short.0) * 1e6 / more as f64),
    }
}

/// From 10 connections to 10,000.
pub(super) fn connections(args: &Args) -> Result<Goal, BenchError> {
    load::have_programs(&["edge".to_owned()])?;
    let setting = TestServers::new(&[OBJECT_BYTES])?;
    let (floor, edge) = (setting.start("floor")?, setting.start("edge")?);
    let span = Duration::from_secs(args.seconds.max(1));
    let mut costs = Costs::new(&[10, 1_000, 10_000]);
    for round in 0..args.rounds.max(1) {
        for (at, count) in costs.counts.iter().enumerate() {
            for (server, found) in [(&floor, costs.floor.get_mut(at)), (&edge, costs.edge.get_mut(at))] {
                let url = format!("{}{}", server.plain(), server.path(OBJECT_BYTES));
                let found = found.ok_or_else(|| BenchError::new("no place for a figure"))?;
                found.push(cost(server, |span| load::wrk_with(&url, *count, None, span), span)?);
                eprintln!(
                    "round {}: {} {count} connections: {:.1} µs",
                    round + 1,
                    server.name(),
                    found.last().unwrap_or(&0.0)
                );
            }
        }
    }
    Ok(costs.goal("connections"))
}

/// From 100 objects to a million, all of them in memory, asked for by chance.
pub(super) fn objects(args: &Args) -> Result<Goal, BenchError> {
    load::have_programs(&["edge".to_owned()])?;
    let setting = TestServers::new(&[SMALL_OBJECT_BYTES])?;
    let (floor, edge) = (setting.start("floor")?, setting.edge("[cache]\nmemory = \"8GiB\"")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BenchError::new)?;
    let span = Duration::from_secs(args.seconds.max(1));
    let mut costs = Costs::new(&[100, 10_000, 1_000_000]);
    let mut stored = 0;
    for (at, count) in costs.counts.iter().enumerate() {
        runtime.block_on(fill(&edge, stored, *count))?;
        stored = *count;
        // The floor and the edge are asked for the same names.
        let rounds = (0..args.rounds.max(1)).flat_map(|_| [true, false]);
        for is_floor in rounds {
            let (server, found) =
                if is_floor { (&floor, costs.floor.get_mut(at)) } else { (&edge, costs.edge.get_mut(at)) };
            let script = setting.file("objects.lua");
            std::fs::write(&script, lua(server, *count)).map_err(BenchError::new)?;
            let asked = |span| load::wrk_with(&server.plain(), args.connections, Some(&script), span);
            let found = found.ok_or_else(|| BenchError::new("no place for a figure"))?;
            found.push(cost(server, asked, span)?);
            eprintln!("{} {count} objects: {:.1} µs", server.name(), found.last().unwrap_or(&0.0));
        }
    }
    Ok(costs.goal("stored objects"))
}

/// A script for `wrk` that asks for one of so many, by chance.
fn lua(server: &Server, count: usize) -> String {
    format!(
        "request = function() return wrk.format(\"GET\", \"{}/{SMALL_OBJECT_BYTES}-\" .. math.random(0, {}) .. \".m4s\") end\n",
        server.folder(),
        count.saturating_sub(1)
    )
}

/// Has the edge fetch what is not stored yet, and sees that all of it stays.
async fn fill(edge: &Server, from: usize, to: usize) -> Result<(), BenchError> {
    let http = client(true);
    let get = async |n: usize| {
        let url = format!("{}{}/{SMALL_OBJECT_BYTES}-{n}.m4s", edge.plain(), edge.folder());
        let asking = request(Method::GET, &url, &[]).map_err(BenchError::new)?;
        let answer = ask(&http, asking, Duration::from_secs(20)).await.map_err(BenchError::new)?;
        let status = field(answer.headers(), "cache-status").to_owned();
        let body = answer.into_body().collect().await.map_err(BenchError::new)?.to_bytes();
        if body.len() == SMALL_OBJECT_BYTES {
            Ok(status)
        } else {
            Err(BenchError::new(format!("{url}: {} bytes", body.len())))
        }
    };
    let all = futures_util::stream::iter(from..to).map(|n| Ok(get(n)));
    all.try_for_each_concurrent(CONCURRENT_FILLS, async |asking| asking.await.map(drop)).await?;
    for n in (0..to).step_by((to / 100).max(1)) {
        let status = get(n).await?;
        if status != "lyceum; hit" {
            return Err(BenchError::new(format!("object {n} of {to} is not in memory: {status}")));
        }
    }
    Ok(())
}
