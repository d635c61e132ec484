//! Cost of running a program: CPU time including children, wall time, and peak memory of its process tree (proportional
//! set size, so that shared pages count once).

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lyceum_core::time::monotonic;

use super::error::{Result, TranscodeError, failed};
use crate::report::median;

/// How often memory is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// Seconds and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) cpu: f64,
    pub(super) wall: f64,
    pub(super) memory: f64,
}

impl Cost {
    /// The medians, each by itself.
    pub(super) fn median(costs: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| median(&mut costs.iter().map(part).collect::<Vec<_>>());
        Self { cpu: of(|c| c.cpu), wall: of(|c| c.wall), memory: of(|c| c.memory) }
    }
}

/// Runs a command and measures it. Fails if the command fails.
pub(super) fn measured(command: &[&str]) -> Result<Cost> {
    let Some(name) = command.first() else { return Err(TranscodeError("nothing to run".to_owned())) };
    let log = tempfile::NamedTempFile::new().map_err(failed("a log"))?;
    // The shell's own clock counts children that were waited for, however deep.
    let script = "TIMEFORMAT='times %U %S'; { time \"$@\" 2>&3; } 3>&2 2>\"$LYCEUM_TIMES\"";
    let times = tempfile::NamedTempFile::new().map_err(failed("a file"))?;
    let start = monotonic();
    let mut child = Command::new("bash")
        .args(["-c", script, "bash"])
        .args(command)
        .env("LYCEUM_TIMES", times.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.reopen().map_err(failed("a log"))?)
        .spawn()
        .map_err(failed(name))?;
    let memory = watch(&mut child)?;
    let wall = (monotonic() - start).as_secs_f64();
    let status = child.wait().map_err(failed(name))?;
    if !status.success() {
        let said = std::fs::read_to_string(log.path()).unwrap_or_default();
        let last: String = said.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
        return Err(TranscodeError(format!("{name} {status}: {last}")));
    }
    let text = std::fs::read_to_string(times.path()).map_err(failed("its times"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("times ")).unwrap_or_default();
    let cpu: f64 = line.split_whitespace().filter_map(|part| part.parse::<f64>().ok()).sum();
    Ok(Cost { cpu, wall, memory })
}

/// The most memory that the tree below `child` held until it ended.
fn watch(child: &mut Child) -> Result<f64> {
    let mut most = 0;
    loop {
        if child.try_wait().map_err(failed("waiting"))?.is_some() {
            return Ok(most as f64);
        }
        most = most.max(descendants(child.id()).into_iter().map(proportional).sum::<u64>());
        std::thread::sleep(SAMPLE_INTERVAL);
    }
}

/// All processes below `pid`.
pub(super) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut waiting = vec![pid];
    while let Some(next) = waiting.pop() {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{next}/task")) else { continue };
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            children.for_each(|child| waiting.push(child));
        }
        if next != pid {
            found.push(next);
        }
    }
    found
}

fn proportional(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
