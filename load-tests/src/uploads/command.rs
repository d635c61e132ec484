//! The measurements, one after the other.

use std::process::ExitCode;

use super::args::{Args, FIGURES};
use super::error::LoadError;
use super::figure::markdown;
use super::{delivery, memory, playback, throughput};
use crate::report::write_json;

/// Runs the measurements.
pub async fn run(args: Args) -> ExitCode {
    let mut figures = Vec::new();
    for name in &args.figures {
        let figure = match name.as_str() {
            "throughput" => throughput::measure(&args).await,
            "memory" => memory::measure(&args).await,
            "memory-s3" => memory::measure_s3(&args).await,
            "playback" => playback::measure(&args).await,
            "delivery" => delivery::measure(&args).await,
            other => Err(LoadError::new(format!("no figure is called \"{other}\": {}", FIGURES.join(", ")))),
        };
        match figure {
            Ok(figure) => figures.push(figure),
            Err(error) => {
                eprintln!("lyceum-load uploads: {name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let text = markdown(&figures);
    println!("{text}");
    let written = args.json.iter().try_for_each(|path| write_json(path, &figures)).and_then(|()| {
        args.markdown
            .iter()
            .try_for_each(|path| std::fs::write(path, &text).map_err(|e| format!("{}: {e}", path.display())))
    });
    if let Err(error) = written {
        eprintln!("lyceum-load uploads: {error}");
        return ExitCode::FAILURE;
    }
    if figures.iter().all(|figure| figure.reached) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
