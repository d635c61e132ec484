//! Processes that end with the story that started them, and with the test run, however either ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::{program, until};

/// A process with its standard output at hand.
pub struct Process {
    child: Child,
    /// Closed when the test run dies, which ends programs that watch it.
    _leash: Option<ChildStdin>,
    lines: Mutex<Receiver<String>>,
}

impl Process {
    /// Starts `command`. Its standard error goes where the tests' does, unless the command says otherwise.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("{command:?} can't be started: {cause}"));
        let leash = child.stdin.take();
        let out = child.stdout.take().expect("standard output is piped");
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, _leash: leash, lines: Mutex::new(lines) }
    }

    /// A program that doesn't watch its standard input (a database, an S3 server) under a shell that does.
    pub fn leashed(program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "\"$@\" </dev/null & child=$!; cat >/dev/null; kill -9 $child", "sh"])
            .arg(program)
            .args(arguments);
        command
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output.
    pub fn line(&self, limit: Duration) -> Option<String> {
        let lines = self.lines.lock().expect("no reader of lines panicked");
        match lines.recv_timeout(limit) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => panic!("no line within {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for the end.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        until("the process to end", limit, || child.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A shell that holds the leash of another program has to end that one first.
        drop(self._leash.take());
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes `folder` once this test run has ended, however it ends: what lives in a static is never dropped.
pub fn sweep_at_end(folder: &Path) {
    // What still writes into it ends at the same moment, so a second try may be needed.
    let script = "cat >/dev/null; for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf \"$1\" && exit; sleep 1; done";
    let broom = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell can be started");
    // Held until the process ends, which the broom waits for.
    std::mem::forget(broom);
}

/// Sends a signal to any process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "SIG{name} could not be sent to {pid}");
}

/// Whether a process is there (and no zombie).
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A role of `lyceum` as a process of its own.
pub struct Role {
    /// The process.
    pub process: Process,
    /// What its listeners answer, without a trailing slash.
    pub listen: Vec<String>,
    /// The operators' listener.
    pub admin: Option<String>,
}

impl Role {
    /// Starts `lyceum edge` or `lyceum origin` with a configuration file and waits until it serves.
    pub fn start(role: &str, config: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program("lyceum"));
        command.args([role, "--exit-with-stdin", "--config"]).arg(config).envs(environment.iter().copied());
        Self::begin(role, &mut command)
    }

    /// Starts a role that may have so many open files until it asks for more.
    pub fn with_few_files(role: &str, config: &Path, files: u32) -> Self {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:")).arg(program("lyceum"));
        command.args([role, "--exit-with-stdin", "--config"]).arg(config);
        Self::begin(role, &mut command)
    }

    /// Starts a role with a file system of its own at `folder`, which has so many MiB and no more, and its log in a file.
    pub fn on_small_disk(role: &str, config: &Path, folder: &Path, mebibytes: u32, log: Option<&Path>) -> Self {
        Self::on_file_system(role, config, folder, &format!("size={mebibytes}m"), log)
    }

    /// The same with the mount's options.
    pub fn on_file_system(role: &str, config: &Path, folder: &Path, options: &str, log: Option<&Path>) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c"]);
        command.arg(format!(
            "mount -t tmpfs -o {options} tmpfs \"$1\" && exec \"$2\" {role} --exit-with-stdin --config \"$3\""
        ));
        command.arg("sh").arg(folder).arg(program("lyceum")).arg(config);
        if let Some(log) = log {
            command.stderr(std::fs::File::create(log).expect("a log"));
        }
        Self::begin(role, &mut command)
    }

    /// What it sees as `path`, which is absolute: it may have file systems of its own.
    pub fn sees(&self, path: &Path) -> std::path::PathBuf {
        let root = Path::new("/proc").join(self.process.id().to_string()).join("root");
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Starts a role with this command and waits until it serves.
    pub fn begin(role: &str, command: &mut Command) -> Self {
        let process = Process::start(command);
        let line = process.line(Duration::from_secs(60)).unwrap_or_else(|| panic!("{role} ended before it served"));
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the ready line is JSON");
        let ready = &ready["ready"];
        let listen = ready["listen"].as_array().expect("listen is a list");
        let admin = ready["admin"].as_str().map(str::to_owned);
        Self { process, listen: listen.iter().filter_map(|url| url.as_str().map(str::to_owned)).collect(), admin }
    }

    /// The first listener.
    pub fn url(&self) -> &str {
        &self.listen[0]
    }
}
