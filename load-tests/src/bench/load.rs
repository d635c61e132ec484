//! The load generators: `wrk` for HTTP/1.1 and `h2load` for HTTP/2, pinned to a core of their own.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::error::BenchError;
use crate::report::Quantiles;

/// The protocol of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// HTTP/1.1 without TLS.
    Plain,
    /// HTTP/1.1 over TLS 1.3.
    Tls,
    /// HTTP/2 over TLS 1.3.
    Http2,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Http2];

    pub(super) fn is_encrypted(self) -> bool {
        self != Self::Plain
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Tls => "TLS 1.3",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// The core that the load is pinned to; servers run on core 0.
const LOAD_CORE: &str = "1";

/// Installs the Debian packages that are missing, where that can be done, and says so.
pub(super) fn have_programs(servers: &[String]) -> Result<(), BenchError> {
    let mut wanted = vec![
        ("wrk", "wrk"),
        ("h2load", "nghttp2-client"),
        ("curl", "curl"),
        ("taskset", "util-linux"),
        ("openssl", "openssl"),
    ];
    let of_servers = [("nginx", "nginx-light"), ("varnishd", "varnish")];
    let runs = |program: &str| servers.iter().any(|name| program.starts_with(name.as_str()));
    wanted.extend(of_servers.into_iter().filter(|(program, _)| runs(program)));
    crate::programs::have("bench", &wanted).map_err(BenchError::new)
}

fn output(command: &mut Command) -> Result<String, BenchError> {
    let output = command.output().map_err(|e| BenchError::new(format!("{command:?}: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(BenchError::new(format!("{command:?} failed: {text}{}", String::from_utf8_lossy(&output.stderr))))
}

/// One request whose status, length and protocol have to be right: a fast refusal must not win.
pub(super) fn check_answer(protocol: Protocol, url: &str, size: usize) -> Result<(), BenchError> {
    let version = if protocol == Protocol::Http2 { "--http2" } else { "--http1.1" };
    let told = "%{http_code} %{size_download} %{http_version}";
    let text = output(Command::new("curl").args(["-sSk", version, "-o", "/dev/null", "-w", told, url]))?;
    let expected = format!("200 {size} {}", if protocol == Protocol::Http2 { "2" } else { "1.1" });
    if text == expected {
        Ok(())
    } else {
        Err(BenchError::new(format!("{url}: \"{text}\" in place of \"{expected}\"")))
    }
}

/// Asks for `span`; says how many whole answers came.
pub(super) fn run(protocol: Protocol, url: &str, connections: usize, span: Duration) -> Result<u64, BenchError> {
    let seconds = span.as_secs().max(1).to_string();
    let connections = connections.to_string();
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE]);
    if protocol == Protocol::Http2 {
        let text = output(command.args(["h2load", "-t1", "-m8", "-D", &seconds, "-c", &connections, url]))?;
        return h2load(&text);
    }
    let text = output(command.args(["wrk", "-t1", "-d", &seconds, "-c", &connections, url]))?;
    wrk(&text)
}

/// Asks with `wrk` in the clear, by a script of its where one is given; how many whole answers came.
pub(super) fn wrk_with(
    url: &str,
    connections: usize,
    script: Option<&Path>,
    span: Duration,
) -> Result<u64, BenchError> {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "wrk", "-t1", "-d", &span.as_secs().max(1).to_string()]);
    command.args(["--timeout", "10s", "-c", &connections.to_string()]);
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    wrk(&output(command.arg(url))?)
}

/// Asks with `h2load` for `span`, as fast as it goes or `rate` times a second in all; how many answers came, and how
/// long each took.
pub(super) fn timed(
    protocol: Protocol,
    url: &str,
    connections: usize,
    rate: Option<f64>,
    span: Duration,
) -> Result<(u64, Quantiles), BenchError> {
    let log = tempfile::NamedTempFile::new().map_err(BenchError::new)?;
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "h2load", "-t1", "-D", &span.as_secs().max(1).to_string()]);
    command.args(["-c", &connections.to_string()]);
    // A request that waits behind another on the client's side would be the client's time.
    command.args(if protocol == Protocol::Http2 { ["-m", "8"].as_slice() } else { ["-m", "1", "--h1"].as_slice() });
    if let Some(rate) = rate {
        let each = (rate / connections.max(1) as f64).max(1.0);
        command.arg(format!("--rps={each:.0}")).arg("--log-file").arg(log.path());
    }
    let count = h2load(&output(command.arg(url))?)?;
    let mut times = Quantiles::default();
    let lines = std::fs::read_to_string(log.path()).map_err(BenchError::new)?;
    for line in lines.lines() {
        // Start, status, and microseconds until the end.
        match line.split('\t').nth(2).and_then(|micros| micros.parse().ok()) {
            Some(micros) => times.time(Duration::from_micros(micros)),
            None => return Err(BenchError::new(format!("h2load's log says something new: {line}"))),
        }
    }
    Ok((count, times))
}

/// `  123456 requests in 3.00s, …`, and no line of errors.
fn wrk(text: &str) -> Result<u64, BenchError> {
    let wrong = || BenchError::new(format!("wrk met errors or said something new:\n{text}"));
    if text.contains("Non-2xx") {
        return Err(wrong());
    }
    let line = text.lines().find(|line| line.contains(" requests in ")).ok_or_else(wrong)?;
    line.split_whitespace().next().and_then(|n| n.parse().ok()).ok_or_else(wrong)
}

/// `status codes: 123 2xx, 0 3xx, 0 4xx, 0 5xx`
fn h2load(text: &str) -> Result<u64, BenchError> {
    let wrong = || BenchError::new(format!("h2load met errors or said something new:\n{text}"));
    let line = text.lines().find_map(|line| line.strip_prefix("status codes: ")).ok_or_else(wrong)?;
    let mut counts = line.split(", ").map(|part| part.split(' ').next().and_then(|n| n.parse::<u64>().ok()));
    let good = counts.next().flatten().ok_or_else(wrong)?;
    if counts.any(|count| count != Some(0)) {
        return Err(wrong());
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_errors_seen() {
        let text = "Running 3s test\n  1 threads\n  27015 requests in 3.00s, 60MB read\nRequests/sec: 9000\n";
        assert_eq!(wrk(text).unwrap(), 27_015);
        assert!(wrk(&format!("{text}  Non-2xx or 3xx responses: 3\n")).is_err());
        assert!(wrk("nothing").is_err());
        assert_eq!(h2load("x\nstatus codes: 99 2xx, 0 3xx, 0 4xx, 0 5xx\n").unwrap(), 99);
        assert!(h2load("status codes: 99 2xx, 0 3xx, 1 4xx, 0 5xx\n").is_err());
    }
}
