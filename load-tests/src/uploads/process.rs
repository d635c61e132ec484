//! A process under measurement: its end, its CPU time, its memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::error::{LoadError, failed};
use crate::programs::ChildProcess;

/// Starts a program whose output nobody reads.
pub(super) fn start(command: &mut Command) -> Result<ChildProcess, LoadError> {
    let what = format!("{:?}", command.get_program());
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map(ChildProcess).map_err(failed(&what))
}

/// User and system time of all threads, in seconds, of this process.
pub(super) fn cpu_of(child: &ChildProcess) -> Result<f64, LoadError> {
    cpu(&format!("/proc/{}/stat", child.0.id()))
}

/// The most memory that was resident at once, in MiB.
pub(super) fn peak_of(child: &ChildProcess) -> Result<f64, LoadError> {
    let path = format!("/proc/{}/status", child.0.id());
    let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| LoadError::new(format!("{path} does not read as expected")))
}

/// CPU seconds of a `stat` file of `/proc`.
pub(super) fn cpu(path: &str) -> Result<f64, LoadError> {
    let text = std::fs::read_to_string(path).map_err(failed(path))?;
    // The name stands in parentheses and may hold spaces; user and system time are fields 14 and 15 of all.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        _ => Err(LoadError::new(format!("{path} does not read as expected"))),
    }
}

/// A free address of this machine.
pub(super) fn free_address() -> Result<SocketAddr, LoadError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("no free port"))?;
    listener.local_addr().map_err(failed("no free port"))
}

/// Waits until someone accepts at `address`.
pub(super) async fn wait(address: SocketAddr) -> Result<(), LoadError> {
    for _ in 0..400 {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(LoadError::new(format!("nothing answers at {address}")))
}
