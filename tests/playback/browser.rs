//! Runs the scripts of `tests/browser/`: each drives a page in Chromium and ends with one line of JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::support::repository;

/// A script that runs. Dropped, it ends, and Chromium with it.
pub(super) struct Script {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    words: Option<std::thread::JoinHandle<String>>,
    name: String,
}

impl Script {
    /// Starts `node NAME.mjs ARGUMENTS`.
    pub(super) fn start(name: &str, arguments: &[&str]) -> Self {
        let directory = repository("tests/browser");
        assert!(directory.join("node_modules").is_dir(), "tests/browser has no packages: run scripts/setup test");
        let mut child = Command::new("node")
            .arg(format!("{name}.mjs"))
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node runs");
        let (stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let words = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { stdin: child.stdin.take(), child, lines, words: Some(words), name: name.to_owned() }
    }

    /// The script's next line.
    pub(super) fn line(&mut self, limit: Duration) -> Value {
        match self.lines.recv_timeout(limit) {
            Ok(line) => serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} said: {line}", self.name)),
            Err(_) => {
                let _ = self.child.kill();
                let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
                panic!("{} gave no answer within {limit:?}: {words}", self.name);
            }
        }
    }

    /// Lets a script that waits go on.
    pub(super) fn go_on(&mut self) {
        let stdin = self.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(b"go on\n").expect("the script listens");
    }

    /// Runs a script to its end.
    pub(super) fn result(name: &str, arguments: &[&str], limit: Duration) -> Value {
        Self::start(name, arguments).line(limit)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Chromium ends by itself when the pipe to the script closes; a script that is done is given time to see to it.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number of the answer.
pub(super) fn number(of: &Value, name: &str) -> f64 {
    of[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {of}"))
}
