//! The most memory that the origin has resident while many large uploads come in at once.

use futures_util::future::try_join_all;
use lyceum::time::monotonic;
use serde_json::json;

use super::setting::{Setting, noise};
use super::{Args, Figure, LoadError};

/// The configured budget of buffers and what may come beside it, in MiB.
const BOUND: f64 = 64.0 + 64.0;

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(args: &Args) -> Result<Figure, LoadError> {
    let setting = Setting::start(args.folder.as_deref(), args.store.as_deref(), None).await?;
    let idle = setting.origin.peak()?;
    let piece = noise();
    let mut uploads = Vec::new();
    for _ in 0..args.parallel {
        let (_, lesson) = setting.lesson().await?;
        uploads.push(setting.begin(&lesson, args.each << 20).await?);
    }
    let began = monotonic();
    try_join_all(uploads.iter().map(|upload| setting.send(upload, &piece, args.each << 20))).await?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = (args.parallel as f64 * (args.each << 20) as f64) / seconds / 1e6;
    let details = json!({ "idle_mebibytes": idle, "uploads": args.parallel, "mebibytes_each": args.each,
        "megabytes_per_second": rate, "store": if args.store.is_some() { "s3" } else { "directory" } });
    Ok(Figure::at_most("memory of parallel uploads", setting.origin.peak()?, "MiB", BOUND, details))
}
