//! CPU time of delivering an uncached segment to an edge, beyond that of reading its file.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use http_body_util::BodyExt;
use lyceum_client as client;
use serde_json::json;

use super::args::Args;
use super::error::{LoadError, failed};
use super::figure::Figure;
use super::process;
use super::process::cpu;
use super::setting::{EDGE_SECRET, TestOrigin, noise};

/// A segment of six seconds in 1080p.
const SEGMENT_BYTES: usize = 2 << 20;

fn write(folder: &Path, segments: usize) -> Result<Vec<PathBuf>, LoadError> {
    std::fs::create_dir_all(folder).map_err(failed("the segments' folder"))?;
    let piece = noise();
    let bytes = piece.repeat(SEGMENT_BYTES / piece.len());
    (0..segments)
        .map(|n| {
            let path = folder.join(format!("{n:05}-{}.m4s", n * 6000));
            std::fs::write(&path, &bytes).map_err(failed("a segment")).map(|()| path)
        })
        .collect()
}

/// Evicts files from the page cache.
fn cool(files: &[PathBuf]) -> Result<(), LoadError> {
    for file in files {
        let of = format!("of={}", file.display());
        let done = Command::new("dd")
            .args([&of, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"])
            .status();
        if !done.map_err(failed("dd"))?.success() {
            return Err(LoadError::new("dd could not cool a file"));
        }
    }
    Ok(())
}

/// CPU seconds of this thread for reading the files.
fn read(files: &[PathBuf]) -> Result<f64, LoadError> {
    let before = cpu("/proc/thread-self/stat")?;
    let mut buffer = vec![0; 256 << 10];
    for path in files {
        let mut file = std::fs::File::open(path).map_err(failed("a segment"))?;
        while file.read(&mut buffer).map_err(failed("a segment"))? > 0 {}
    }
    Ok(cpu("/proc/thread-self/stat")? - before)
}

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(args: &Args) -> Result<Figure, LoadError> {
    let setting = TestOrigin::start(args.folder.as_deref(), None, Some("0")).await?;
    let (_, lesson) = setting.lesson().await?;
    let version = setting.make_playable(&lesson).await?;
    let track = format!("v/{lesson}/{version}/v1080");
    let files = write(&setting.objects().join(&track), args.segments)?;
    cool(&files)?;
    let count = files.len().max(1) as f64;
    let reading = read(&files)? * 1e3 / count;
    cool(&files)?;
    let before = process::cpu_of(&setting.origin)?;
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let request = client::request(Method::GET, &format!("{}/{track}/{name}", setting.url), EDGE_SECRET)
            .map_err(LoadError::new)?;
        let answer = setting.http.send_ok(request).await.map_err(LoadError::new)?;
        let body = answer.into_body().collect().await.map_err(LoadError::new)?.to_bytes();
        if body.len() != SEGMENT_BYTES {
            return Err(LoadError::new("a segment came short"));
        }
    }
    let giving = (process::cpu_of(&setting.origin)? - before) * 1e3 / count;
    let details = json!({ "giving_milliseconds": giving, "reading_milliseconds": reading, "segments": files.len(), "bytes": SEGMENT_BYTES });
    Ok(Figure::at_most("CPU of a cold segment beyond reading it", giving - reading, "ms", 1.0, details))
}
