//! Throughput of one durable upload, against nginx's WebDAV `PUT` and a sync.

use lyceum_core::time::monotonic;
use serde_json::json;

use super::args::Args;
use super::error::LoadError;
use super::figure::Figure;
use super::nginx::Nginx;
use super::process;
use super::setting::{TestOrigin, noise};
use crate::report::median;

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(args: &Args) -> Result<Figure, LoadError> {
    crate::programs::have("uploads", &[("nginx", "nginx-light")]).map_err(LoadError::new)?;
    let within = args.folder.as_deref();
    let setting = TestOrigin::start(within, None, None).await?;
    let nginx = Nginx::start(within).await?;
    let (_, lesson) = setting.lesson().await?;
    let (piece, length) = (noise(), args.size << 20);
    let (mut ours, mut theirs, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds.max(1) + 1 {
        let rate = |seconds: f64| length as f64 / seconds / 1e6;
        let mut pair = [0.0, 0.0];
        // The order alternates, as a disk is affected by what was written just before.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let upload = setting.begin(&lesson, length).await?;
                let (began, before) = (monotonic(), process::cpu_of(&setting.origin)?);
                setting.send(&upload, &piece, length).await?;
                pair[0] = rate(began.elapsed().as_secs_f64());
                cpu.push((process::cpu_of(&setting.origin)? - before) * 1e9 / length as f64);
            } else {
                let began = monotonic();
                nginx.put(&setting.http, &piece, length).await?;
                pair[1] = rate(began.elapsed().as_secs_f64());
                nginx.forget();
            }
        }
        let [own, other] = pair;
        eprintln!("round {round}: origin {own:.0} MB/s, nginx {other:.0} MB/s");
        // The first round warms both up.
        if round > 0 {
            ours.push(own);
            theirs.push(other);
            ratios.push(own / other);
        }
        // The lesson's older recordings are kept; a fresh one each round would fill the disk.
        for kept in std::fs::read_dir(setting.objects().join("uploads")).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(kept.path());
        }
    }
    let details = json!({ "origin_megabytes_per_second": median(&mut ours), "nginx_megabytes_per_second": median(&mut theirs),
        "origin_cpu_seconds_per_gigabyte": median(&mut cpu), "rounds": ratios.len(), "mebibytes": args.size, "least": ratios.iter().copied().fold(f64::INFINITY, f64::min) });
    Ok(Figure::at_least("upload throughput ÷ nginx PUT and sync", median(&mut ratios), "", 0.9, details))
}
