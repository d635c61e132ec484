//! `lyceum-load cache`: hit ratio, request collapsing, memory bound, and the cost of a hit with few and with many objects.

mod origin;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::Method;
use http_body_util::BodyExt as _;
use lyceum_core::time::monotonic;
use serde::Serialize;

use crate::report::{self, Quantiles, Table, show_bytes, show_time};
use crate::world::{Dice, Http, World, WorldError, ask, client, field, request, resident};
use origin::Origin;

/// Measure hit ratio, collapse, memory and cost of the edge's cache
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Askers of one cold object at once
    #[arg(long, default_value_t = 10_000)]
    askers: usize,
    /// Requests for the hit ratio
    #[arg(long, default_value_t = 40_000)]
    requests: usize,
    /// Numbers of stored objects for the cost of a hit
    #[arg(long, value_delimiter = ',', default_values_t = [100, 10_000, 1_000_000])]
    objects: Vec<usize>,
    /// Hits for each of these, in each of five rounds
    #[arg(long, default_value_t = 10_000)]
    hits: usize,
    /// Write the figures as JSON here
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table as Markdown here
    #[arg(long)]
    markdown: Option<PathBuf>,
}

/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(110);
/// Streams on each connection of the many askers.
const STREAMS_PER_CONNECTION: usize = 100;

const LIMITS: &str = "[limits]\nrequests_per_client = 1000000\nrequests_burst = 10000000\nconnections_per_client = 100000\nthroughput = \"0B\"\n";

#[derive(Debug, Default, Serialize)]
struct Report {
    ratio: Ratio,
    collapse: Collapse,
    memory: Memory,
    cost: Vec<Cost>,
}

#[derive(Debug, Default, Serialize)]
struct Ratio {
    objects: usize,
    object_bytes: usize,
    memory_bytes: usize,
    requests: usize,
    hits: usize,
    ratio: f64,
    /// With the objects that are asked for most always in memory, known beforehand.
    ideal: f64,
}

#[derive(Debug, Default, Serialize)]
struct Collapse {
    askers: usize,
    origin_requests: usize,
    whole: usize,
    seconds: f64,
    late_first_byte: Quantiles,
    hit_first_byte: Quantiles,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    limit: usize,
    stored_through: usize,
    cache_bytes: f64,
    resident_growth: u64,
}

#[derive(Debug, Serialize)]
struct Cost {
    objects: usize,
    stored: f64,
    /// Of this whole process: the client's side is in it, the same for each row. Median of five rounds.
    cpu_us_per_hit: f64,
    lowest: f64,
    highest: f64,
    /// What the cache says it takes, and what this process takes.
    cache_bytes: f64,
    resident: u64,
}

/// Runs the measurements.
pub async fn run(args: Args) -> ExitCode {
    match measure(&args).await {
        Ok(report) => {
            print!("{}", table(&report).render());
            let json = args.json.iter().try_for_each(|path| report::write_json(path, &report));
            let markdown = args
                .markdown
                .iter()
                .try_for_each(|path| std::fs::write(path, markdown(&report)).map_err(|error| error.to_string()));
            let sound = report.collapse.origin_requests == 1 && report.collapse.whole == report.collapse.askers;
            match json.and(markdown) {
                Err(error) => eprintln!("lyceum-load: {error}"),
                Ok(()) if !sound => eprintln!("lyceum-load: {} askers were not served by one fetch", args.askers),
                Ok(()) => return ExitCode::SUCCESS,
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("lyceum-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> Result<Report, WorldError> {
    Ok(Report {
        collapse: collapse(args.askers).await?,
        ratio: ratio(args.requests).await?,
        memory: memory().await?,
        cost: cost(args).await?,
    })
}

async fn world(origin: &Origin, cache: &str) -> Result<Arc<World>, WorldError> {
    Ok(Arc::new(World::start(&[origin.url()], "idle = \"2m\"", &format!("{cache}\n{LIMITS}")).await?))
}

/// Asks and reads to the end; how it was answered, and how many bytes came.
async fn get(http: &Http, url: &str) -> Result<(String, usize), WorldError> {
    let answer = ask(http, request(Method::GET, url, &[])?, ANSWER_TIMEOUT).await?;
    let status = field(answer.headers(), "cache-status").to_owned();
    let (mut body, mut length) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.map_err(WorldError::new)?.data_ref().map_or(0, |piece| piece.len());
    }
    Ok((status, length))
}

/// Asks for many, some at once; how many were hits.
async fn get_all(world: &Arc<World>, names: impl Iterator<Item = String>) -> Result<usize, WorldError> {
    let http = client(true);
    let hits = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    futures_util::stream::iter(names)
        .for_each_concurrent(32, |name| {
            let (http, hits, failed, world) = (&http, &hits, &failed, world);
            async move {
                match get(http, &world.media(&name)).await {
                    Ok((status, _)) if status.starts_with("lyceum; hit") => drop(hits.fetch_add(1, Ordering::Relaxed)),
                    Ok(_) => {}
                    Err(error) => {
                        eprintln!("lyceum-load: {name}: {error}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
        .await;
    match failed.into_inner() {
        0 => Ok(hits.into_inner()),
        failed => Err(WorldError::new(format!("{failed} requests failed"))),
    }
}

/// Popularity falls with the rank (Zipf, exponent 0.9); memory holds a fifth.
async fn ratio(requests: usize) -> Result<Ratio, WorldError> {
    let (objects, object_bytes, memory_bytes) = (4_000, 16 << 10, 16 << 20);
    let origin = Origin::start().await?;
    let world = world(&origin, &format!("[cache]\nmemory = \"{memory_bytes}B\"\n")).await?;
    let mut sums = Vec::with_capacity(objects);
    let mut sum = 0.0;
    for rank in 1..=objects {
        sum += (rank as f64).powf(-0.9);
        sums.push(sum);
    }
    let mut dice = Dice::new(1, 0);
    let mut names = || {
        let at = dice.share() * sum;
        format!("{object_bytes}/{}.m4s", sums.partition_point(|sum| *sum < at))
    };
    // The first round fills it.
    let warm: Vec<String> = (0..requests / 2).map(|_| names()).collect();
    get_all(&world, warm.into_iter()).await?;
    let asked: Vec<String> = (0..requests).map(|_| names()).collect();
    let hits = get_all(&world, asked.into_iter()).await?;
    let fit = (memory_bytes / (object_bytes + 1200)).min(objects);
    let ideal = sums.get(fit.saturating_sub(1)).copied().unwrap_or(0.0) / sum;
    let ratio = hits as f64 / requests.max(1) as f64;
    Ok(Ratio { objects, object_bytes, memory_bytes, requests, hits, ratio, ideal })
}

/// Many askers of one object that is not there: the origin holds the second half until all have been answered.
async fn collapse(askers: usize) -> Result<Collapse, WorldError> {
    let origin = Origin::start().await?;
    let world = world(&origin, "").await?;
    let body = 64 << 10;
    let url = world.media(&format!("hold/{body}/cold.m4s"));
    let connections: Vec<Http> = (0..askers.div_ceil(STREAMS_PER_CONNECTION)).map(|_| client(true)).collect();
    let start = monotonic();
    let tasks: Vec<_> = (0..askers)
        .filter_map(|n| connections.get(n / STREAMS_PER_CONNECTION).cloned())
        .map(|http| {
            let url = url.clone();
            tokio::spawn(async move { get(&http, &url).await.is_ok_and(|(_, length)| length == body) })
        })
        .collect();
    let all =
        world.until(ANSWER_TIMEOUT, |world| world.metric("lyceum_edge_requests_total", &[]) >= askers as f64).await;
    if !all {
        return Err(WorldError::new("not all askers were answered from the first half"));
    }
    let half = (askers * body / 2) as f64;
    world.until(ANSWER_TIMEOUT, |world| world.metric("lyceum_edge_response_bytes_total", &[]) >= half).await;
    // Late readers, while the rest is held and no one else is served; then hits, in the same way.
    let late_first_byte = first_bytes(&url).await?;
    origin.go_on();
    let mut whole = 0;
    for task in tasks {
        whole += usize::from(task.await.unwrap_or(false));
    }
    let seconds = start.elapsed().as_secs_f64();
    let hit_first_byte = first_bytes(&url).await?;
    Ok(Collapse { askers, origin_requests: origin.count("cold"), whole, seconds, late_first_byte, hit_first_byte })
}

/// The time to the first byte of the body, of two hundred one after the other.
async fn first_bytes(url: &str) -> Result<Quantiles, WorldError> {
    let mut times = Quantiles::default();
    let http = client(true);
    for n in 0..210 {
        let start = monotonic();
        let answer = ask(&http, request(Method::GET, url, &[])?, ANSWER_TIMEOUT).await?;
        let mut body = answer.into_body();
        body.frame().await.ok_or_else(|| WorldError::new("no first byte"))?.map_err(WorldError::new)?;
        // The first ones open the connection.
        if n >= 10 {
            times.time(start.elapsed());
        }
    }
    Ok(times)
}

/// Four times as much as memory holds goes through it.
async fn memory() -> Result<Memory, WorldError> {
    let (limit, object) = (64 << 20, 64 << 10);
    let origin = Origin::start().await?;
    let world = world(&origin, &format!("[cache]\nmemory = \"{limit}B\"\n")).await?;
    get_all(&world, (0..16).map(|n| format!("{object}/warm-{n}.m4s"))).await?;
    let before = resident();
    let count = 4 * limit / object;
    get_all(&world, (0..count).map(|n| format!("{object}/{n}.m4s"))).await?;
    // Housekeeping sets the gauges every two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(Memory {
        limit,
        stored_through: count * object,
        cache_bytes: world.metric("lyceum_edge_cache_bytes", &[]),
        resident_growth: resident().saturating_sub(before),
    })
}

/// Hits on objects by chance, with few and with many of them stored.
async fn cost(args: &Args) -> Result<Vec<Cost>, WorldError> {
    let origin = Origin::start().await?;
    let world = world(&origin, "[cache]\nmemory = \"8GiB\"\n").await?;
    let mut stored = 0;
    let mut costs = Vec::new();
    let mut counts = args.objects.clone();
    counts.sort_unstable();
    for objects in counts {
        get_all(&world, (stored..objects).map(|n| format!("64/{n}.m4s"))).await?;
        stored = stored.max(objects);
        let mut rounds = Vec::new();
        for round in 0..5 {
            let mut dice = Dice::new(2, round);
            let names: Vec<String> = (0..args.hits).map(|_| format!("64/{}.m4s", dice.below(objects as u64))).collect();
            let before = cpu();
            let hits = get_all(&world, names.into_iter()).await?;
            if hits < args.hits * 99 / 100 {
                return Err(WorldError::new(format!("{hits} hits of {} with {objects} objects", args.hits)));
            }
            rounds.push(cpu().saturating_sub(before).as_secs_f64() * 1e6 / args.hits.max(1) as f64);
        }
        rounds.sort_by(f64::total_cmp);
        let of = |at: usize| rounds.get(at).copied().unwrap_or(0.0);
        tokio::time::sleep(Duration::from_secs(3)).await;
        costs.push(Cost {
            objects,
            stored: world.metric("lyceum_edge_cache_objects", &[]),
            cpu_us_per_hit: of(rounds.len() / 2),
            lowest: of(0),
            highest: of(rounds.len().saturating_sub(1)),
            cache_bytes: world.metric("lyceum_edge_cache_bytes", &[]),
            resident: resident(),
        });
    }
    Ok(costs)
}

/// User and system time of this process, in the kernel's ticks of 10 ms.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn rows(report: &Report) -> Vec<(String, String)> {
    let Report { ratio, collapse, memory, cost } = report;
    let bytes = |n: usize| show_bytes(n as u64);
    let mut rows = vec![
        (
            format!(
                "hit ratio, {} objects of {} by Zipf (0.9), {} of memory",
                ratio.objects,
                bytes(ratio.object_bytes),
                bytes(ratio.memory_bytes)
            ),
            format!("{:.1} % (ideal: {:.1} %)", ratio.ratio * 100.0, ratio.ideal * 100.0),
        ),
        (format!("fetches for {} askers of one cold object", collapse.askers), collapse.origin_requests.to_string()),
        ("all answered and served in".to_owned(), show_time(Some(collapse.seconds))),
        ("of them served whole".to_owned(), collapse.whole.to_string()),
        ("first byte of a late reader (median)".to_owned(), show_time(collapse.late_first_byte.figures().p50)),
        ("first byte of a hit (median)".to_owned(), show_time(collapse.hit_first_byte.figures().p50)),
        (
            format!("cache after {} went through {}", bytes(memory.stored_through), bytes(memory.limit)),
            show_bytes(memory.cache_bytes as u64),
        ),
        ("resident memory grew by".to_owned(), show_bytes(memory.resident_growth)),
    ];
    rows.extend(cost.iter().map(|cost| {
        let what = format!("CPU for a hit and its client, {} objects stored", cost.objects);
        (what, format!("{:.0} µs ({:.0} to {:.0})", cost.cpu_us_per_hit, cost.lowest, cost.highest))
    }));
    rows.extend(cost.iter().map(|cost| {
        let what = format!("memory with {} of them: the cache's own count, the process", cost.objects);
        (what, format!("{}, {}", show_bytes(cost.cache_bytes as u64), show_bytes(cost.resident)))
    }));
    rows
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(&["what", ""]);
    for (what, found) in rows(report) {
        table.row([what, found]);
    }
    table
}

fn markdown(report: &Report) -> String {
    let head =
        "# The cache\n\n`lyceum-load cache`: edge, origin and clients in one process.\n\n| what | |\n|---|--:|\n"
            .to_owned();
    rows(report).iter().fold(head, |text, (what, found)| format!("{text}| {what} | {found} |\n"))
}
