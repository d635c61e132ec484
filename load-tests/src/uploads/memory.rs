//! Peak resident memory of the origin during many large concurrent uploads.

use futures_util::future::try_join_all;
use lyceum_core::time::monotonic;
use serde_json::json;

use super::args::Args;
use super::bucket::Bucket;
use super::error::LoadError;
use super::figure::Figure;
use super::process;
use super::setting::{TestOrigin, noise};

/// The configured buffer budget plus the allowance for everything else.
const MAX_MEMORY_MIB: f64 = 64.0 + 64.0;

/// Into a directory, or the store that was named.
pub(super) async fn measure(args: &Args) -> Result<Figure, LoadError> {
    sent_to("memory of parallel uploads", args.store.as_deref(), args).await
}

/// Into a bucket of a real S3 server.
pub(super) async fn measure_s3(args: &Args) -> Result<Figure, LoadError> {
    let bucket = Bucket::start(&args.weed, args.folder.as_deref()).await?;
    sent_to("memory of parallel uploads into a bucket", Some(&bucket.store()), args).await
}

#[allow(clippy::cast_precision_loss)]
async fn sent_to(name: &'static str, store: Option<&str>, args: &Args) -> Result<Figure, LoadError> {
    let setting = TestOrigin::start(args.folder.as_deref(), store, None).await?;
    let idle = process::peak_of(&setting.origin)?;
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
        "megabytes_per_second": rate });
    Ok(Figure::at_most(name, process::peak_of(&setting.origin)?, "MiB", MAX_MEMORY_MIB, details))
}
