//! CPU time as the kernel accounts it.

use std::time::Duration;

use super::error::BenchError;

/// User and system time of processes with all their threads, from `/proc/<pid>/stat` (ticks of 10 ms).
pub(super) fn cpu(pids: &[u32]) -> Result<Duration, BenchError> {
    pids.iter().map(|pid| of_process(*pid)).sum::<Result<Duration, BenchError>>()
}

fn of_process(pid: u32) -> Result<Duration, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| BenchError::new(format!("{path}: {e}")))?;
    // The name stands in parentheses and may hold spaces; user and system time are fields 14 and 15 of all.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        // Linux shows ticks of a hundredth of a second on every architecture (USER_HZ).
        (Some(user), Some(system)) => Ok(Duration::from_millis((user + system) * 10)),
        _ => Err(BenchError::new(format!("{path} does not read as expected"))),
    }
}

/// Resident memory of processes, in bytes, shared pages counted once for each.
pub(super) fn resident(pids: &[u32]) -> Result<u64, BenchError> {
    let of_process = |pid: &u32| {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).map_err(|e| BenchError::new(format!("{path}: {e}")))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("");
        let kibibytes = line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
        kibibytes.map(|kib| kib * 1024).ok_or_else(|| BenchError::new(format!("{path} does not read as expected")))
    };
    pids.iter().map(of_process).sum()
}

fn title(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn all_children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Whether a process has children and each has a title of its own.
pub(super) fn children_are_titled(pid: u32) -> bool {
    let (own, children) = (title(pid), all_children(pid));
    !children.is_empty() && children.iter().all(|child| title(*child) != own)
}

/// The children of a process that serve. nginx's cache loader reads the cache's folder and ends after a minute.
pub(super) fn children(pid: u32) -> Vec<u32> {
    all_children(pid).into_iter().filter(|child| !title(*child).contains("cache loader")).collect()
}
