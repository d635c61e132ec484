//! The parts as child processes: started, watched, started again at the same address, ended.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};

use super::error::Error;
use super::layout::Layout;
use lyceum_core::time::monotonic;

/// How long a part may take from its start to its ready line.
const READY: Duration = Duration::from_secs(60);
/// The first pause before a part is started again; it doubles up to [`PAUSE_MOST`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// A part that ran this long begins with the first pause again.
const STEADY: Duration = Duration::from_secs(10);
/// A log beyond this is moved aside, over the one before.
const LOG_BYTES: u64 = 8 << 20;

/// What starts a part.
#[derive(Clone, Debug)]
pub(super) struct Part {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
}

impl Part {
    pub(super) fn role(name: &str, program: &Path, role: &str, config: &Path, layout: &Layout) -> Self {
        let state = layout.state();
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: vec![
                role.to_owned(),
                "--config".to_owned(),
                config.display().to_string(),
                "--exit-with-stdin".to_owned(),
            ],
            environment: vec![("LYCEUM_ADMIN_KEY", state.admin_key), ("LYCEUM_EDGE_SECRET", state.edge_secret)],
            log: layout.log(name),
        }
    }

    pub(super) fn worker(name: &str, program: &Path, config: &Path, layout: &Layout) -> Self {
        Self { environment: Vec::new(), ..Self::role(name, program, "worker", config, layout) }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal reaches the supervisor alone, which ends the parts in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// All parts that were started, in that order.
#[derive(Default)]
pub(super) struct Family {
    members: Mutex<Vec<Member>>,
    changed: watch::Sender<u64>,
}

struct Member {
    name: String,
    pid: Arc<Mutex<Option<u32>>>,
    end: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Family {
    /// Ticks whenever a part was started anew.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The pids of the parts whose names begin so, where they run.
    pub(super) fn pids(&self, prefix: &str) -> Vec<u32> {
        let members = self.lock();
        let ours = members.iter().filter(|member| member.name.starts_with(prefix));
        ours.filter_map(|member| *lock(&member.pid)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Member>> {
        lock(&self.members)
    }

    /// Starts a part and waits until it serves; from then on it is started again whenever it dies.
    pub(super) async fn start(&self, part: Part) -> Result<(), Error> {
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let pid = Arc::new(Mutex::new(None));
        let keeper = Keeper { part: part.clone(), pid: Arc::clone(&pid), changed: self.changed.clone() };
        let task = tokio::spawn(keeper.keep(ready, ended));
        self.lock().push(Member { name: part.name.clone(), pid, end: Some(end), task });
        let refused = |why: String| Error::Part { name: part.name.clone(), why, log: part.log.clone() };
        match tokio::time::timeout(READY, is_ready).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(why))) => Err(refused(why)),
            Ok(Err(_)) => Err(refused("its keeper ended".to_owned())),
            Err(_) => Err(refused(format!("no ready line within {} s", READY.as_secs()))),
        }
    }

    /// Ends all parts, the last started first, and waits for them at most `limit`.
    pub(super) async fn end(&self, limit: Duration) {
        let members: Vec<Member> = self.lock().drain(..).rev().collect();
        let mut tasks = Vec::new();
        for mut member in members {
            if let Some(end) = member.end.take() {
                let _ = end.send(());
            }
            tasks.push(member.task);
        }
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Keeps one part running.
struct Keeper {
    part: Part,
    pid: Arc<Mutex<Option<u32>>>,
    changed: watch::Sender<u64>,
}

type Ready = oneshot::Sender<Result<(), String>>;

/// How one life of a part ended.
enum Life {
    /// It was told to.
    Told,
    /// By itself.
    Died { told_ready: bool, why: String },
}

impl Keeper {
    async fn keep(self, ready: Ready, mut ended: oneshot::Receiver<()>) {
        let mut ready = Some(ready);
        let mut pause = PAUSE_FIRST;
        loop {
            let born = monotonic();
            match self.live(&mut ready, &mut ended).await {
                Life::Told => return,
                Life::Died { told_ready: false, why } if ready.is_some() => {
                    // It never served: starting it again would only repeat the sentence.
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(Err(why));
                    }
                    return;
                }
                Life::Died { why, .. } => {
                    tracing::warn!(part = %self.part.name, why, "died; it is started again");
                    pause = if born.elapsed() > STEADY { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MOST) };
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = &mut ended => return,
                    }
                }
            }
        }
    }

    async fn live(&self, ready: &mut Option<Ready>, ended: &mut oneshot::Receiver<()>) -> Life {
        let mut child = match self.part.spawn() {
            Ok(child) => child,
            Err(cause) => return Life::Died { told_ready: false, why: cause.to_string() },
        };
        // The pipe stays open for as long as this life is watched, so the part never outlives its supervisor.
        let pipe = child.stdin.take();
        let last_words = child.stderr.take().map(|err| tokio::spawn(copy_log(err, self.part.log.clone())));
        let mut out = child.stdout.take().map(|out| BufReader::new(out).lines());
        *lock(&self.pid) = child.id();
        let mut told_ready = false;
        let status = loop {
            let line = async {
                match out.as_mut() {
                    Some(lines) => lines.next_line().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                line = line => match line {
                    Ok(Some(line)) if !told_ready && line.starts_with("{\"ready\"") => {
                        told_ready = true;
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(Ok(()));
                        }
                        self.changed.send_modify(|n| *n += 1);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => out = None,
                },
                status = child.wait() => break status,
                _ = &mut *ended => {
                    end_child(child, pipe).await;
                    *lock(&self.pid) = None;
                    return Life::Told;
                }
            }
        };
        *lock(&self.pid) = None;
        let said = match last_words {
            Some(task) => task.await.unwrap_or_default(),
            None => String::new(),
        };
        Life::Died { told_ready, why: if said.is_empty() { describe(status) } else { said } }
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(cause) => cause.to_string(),
    }
}

/// SIGTERM, then patience; whoever waits for the whole family sets the limit, and the drop kills.
async fn end_child(mut child: Child, pipe: Option<ChildStdin>) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    let _ = child.wait().await;
    drop(pipe);
}

/// Copies a part's standard error to its log and returns the last line, where a refusal to start stands.
async fn copy_log(from: impl AsyncRead + Unpin, path: PathBuf) -> String {
    let mut lines = BufReader::new(from).lines();
    let mut log = open_log(&path).await;
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((file, length)) = &mut log {
            let _ = file.write_all(format!("{line}\n").as_bytes()).await;
            *length += line.len() as u64 + 1;
            if *length > LOG_BYTES {
                let _ = tokio::fs::rename(&path, path.with_extension("log.old")).await;
                log = open_log(&path).await;
            }
        }
        last = line;
    }
    last
}

async fn open_log(path: &Path) -> Option<(tokio::fs::File, u64)> {
    let file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await.ok()?;
    let length = file.metadata().await.ok()?.len();
    Some((file, length))
}
