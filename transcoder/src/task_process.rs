//! Parent side of a task process: starts it, serves its source, receives its output and determines how it ended.
//! Messages of a task are not trusted: lengths are bounded, and a task that ends without a final message has crashed.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use lyceum_packaging::info::{Refusal, RefusalCode};
use lyceum_packaging::{DeliveredObject, MediaInfo, TaskSpec};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::ipc::{Failure, Job, Message, ReadRequest, SOURCE_FAILED, decode_lengths};

/// The source of a task: bytes by offset.
pub(crate) trait TaskSource: Send + Sync + 'static {
    /// The size of the source, in bytes.
    fn size(&self) -> u64;
    /// Up to `length` bytes from `offset`; fewer only at the end.
    fn read(&self, offset: u64, length: u32) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// An event of a running task.
#[derive(Debug)]
pub(crate) enum TaskEvent {
    /// An output object and its bytes.
    Object(DeliveredObject, Bytes),
    /// Progress, from 0 to 1.
    Progress(f64),
    /// The result of a probe.
    Report(Box<MediaInfo>),
}

/// Characters kept of one line of a task's log.
const MAX_LOG_LINE_CHARS: usize = 400;
/// Lines of a task's log that are forwarded.
const MAX_LOG_LINES: usize = 50;

/// Runs `job` on `source`. Dropping the future kills the process.
pub(crate) async fn run<S: TaskSource>(
    job: &Job,
    source: Arc<S>,
    events: mpsc::Sender<TaskEvent>,
) -> Result<(), Failure> {
    let limit = match job.spec {
        TaskSpec::Probe => job.limits.probe_time,
        _ => job.limits.wall_time,
    };
    match tokio::time::timeout(limit.get(), run_unbounded(job, source, events)).await {
        Ok(ended) => ended,
        Err(_) => {
            let detail = format!("The recording took longer than the {limit} that one task may take.");
            Err(Refusal::new(RefusalCode::LimitExceeded, detail).into())
        }
    }
}

async fn run_unbounded<S: TaskSource>(
    job: &Job,
    source: Arc<S>,
    events: mpsc::Sender<TaskEvent>,
) -> Result<(), Failure> {
    let started =
        start().map_err(|cause| Failure::machinery("task_not_started", format!("a task can't be started: {cause}")))?;
    let ChildTask { mut child, socket } = started;
    let serve = serve(job, socket, source);
    let listen = async {
        match child.stdout.take() {
            Some(stdout) => listen(stdout, &events).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    let log = child.stderr.take().map(|stderr| tokio::spawn(forward_log(stderr)));
    // The final message ends the task; pending read requests are dropped.
    let said = tokio::select! {
        said = listen => said,
        Err(cause) = serve => Err(cause),
    };
    if said.is_err() {
        // It may be busy in a codec, or blocked writing to a full pipe.
        let _ = child.start_kill();
    }
    let status = child.wait().await;
    if let Some(log) = log {
        let _ = log.await;
    }
    match said {
        Ok(Some(Message::Done)) => Ok(()),
        Ok(Some(Message::Failed(failure))) => Err(failure),
        Ok(_) => Err(crashed(status.ok())),
        Err(cause) => Err(Failure::machinery("task_failed", format!("a task's pipes failed: {cause}"))),
    }
}

struct ChildTask {
    child: Child,
    socket: UnixStream,
}

/// This program's executable, which also runs the task.
fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

fn start() -> io::Result<ChildTask> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(program()?)
        .arg("task")
        .env_clear()
        .envs(std::env::var("LYCEUM_LOG").map(|filter| ("LYCEUM_LOG", filter)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(ChildTask { child, socket: UnixStream::from_std(ours)? })
}

/// Sends the job, then answers read requests. Returns only on errors: a task that closes its socket is judged by its
/// messages.
async fn serve<S: TaskSource>(job: &Job, mut socket: UnixStream, source: Arc<S>) -> io::Result<()> {
    let mut line = serde_json::to_vec(job).map_err(io::Error::other)?;
    line.push(b'\n');
    if socket.write_all(&line).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        let mut request = [0; 12];
        if socket.read_exact(&mut request).await.is_err() {
            return std::future::pending().await;
        }
        let ReadRequest { offset, length } = ReadRequest::decode(request)?;
        let answer = match source.read(offset, length).await {
            Ok(bytes) => bytes,
            Err(cause) => {
                tracing::warn!(%cause, offset, "the source can't be read");
                let _ = socket.write_all(&SOURCE_FAILED.to_be_bytes()).await;
                continue;
            }
        };
        let size = u32::try_from(answer.len()).unwrap_or(SOURCE_FAILED);
        if socket.write_all(&size.to_be_bytes()).await.is_err() || socket.write_all(&answer).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Receives messages until the final one, or until the pipe closes (`None`).
async fn listen(pipe: impl AsyncRead + Unpin, events: &mpsc::Sender<TaskEvent>) -> io::Result<Option<Message>> {
    let mut pipe = BufReader::with_capacity(256 << 10, pipe);
    loop {
        let mut lengths = [0; 8];
        if pipe.read_exact(&mut lengths).await.is_err() {
            return Ok(None);
        }
        let (head, payload) = decode_lengths(lengths)?;
        let mut bytes = vec![0; head];
        let mut body = vec![0; payload];
        if pipe.read_exact(&mut bytes).await.is_err() || pipe.read_exact(&mut body).await.is_err() {
            return Ok(None);
        }
        let event = match serde_json::from_slice(&bytes).map_err(io::Error::other)? {
            Message::Object { handover } if handover.bytes == body.len() as u64 => {
                TaskEvent::Object(handover, Bytes::from(body))
            }
            Message::Object { .. } => return Err(io::Error::other("an object's size differs from its description")),
            Message::Progress { fraction } => TaskEvent::Progress(fraction.clamp(0.0, 1.0)),
            Message::Report { info } => TaskEvent::Report(Box::new(info)),
            last @ (Message::Failed(_) | Message::Done) => return Ok(Some(last)),
        };
        if events.send(event).await.is_err() {
            return Err(io::Error::other("the receiver of the task's output is gone"));
        }
    }
}

async fn forward_log(pipe: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(pipe.take(1 << 20)).split(b'\n');
    let mut count = 0;
    while let Ok(Some(line)) = lines.next_segment().await {
        count += 1;
        if count <= MAX_LOG_LINES {
            let text: String =
                String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).take(MAX_LOG_LINE_CHARS).collect();
            tracing::debug!(line = text, "task");
        }
    }
}

/// The failure of a task that ended without a final message.
fn crashed(status: Option<ExitStatus>) -> Failure {
    if status.and_then(|s| s.signal()) == Some(libc::SIGXCPU) {
        let detail = "The recording took more processor time than one task may use.";
        return Refusal::new(RefusalCode::LimitExceeded, detail).into();
    }
    let how = status.map_or_else(|| "in an unknown way".to_owned(), |s| s.to_string());
    Failure {
        code: RefusalCode::Crashed.as_str().to_owned(),
        detail: format!("The process that worked on the recording ended without a result ({how})."),
        retry: true,
    }
}
