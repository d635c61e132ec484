//! `lyceum demo` for the stories: one that many share, or one of a story's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, sweep_at_end};
use super::{heavy, program, until};

/// A running demo.
pub struct Demo {
    /// The process of the supervisor.
    pub process: Process,
    directory: PathBuf,
}

/// Long enough to transcode the sample on two busy cores.
const READY: Duration = Duration::from_secs(600);

/// The demo that stories share which only watch, play, or kill a part that comes back.
pub fn shared() -> &'static Demo {
    static SHARED: OnceLock<Demo> = OnceLock::new();
    SHARED.get_or_init(|| {
        let _alone = heavy();
        let folder = tempfile::tempdir().expect("a temporary directory").keep();
        sweep_at_end(&folder);
        Demo::start(&folder, &[])
    })
}

impl Demo {
    /// Starts a demo over `directory` and waits until the sample lesson can be played.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let demo = Self::launch(directory, arguments);
        let told = until("the demo to be ready", READY, || match demo.process.line(READY) {
            Some(line) if line.starts_with("Ready.") => Some(true),
            Some(_) => None,
            None => Some(false),
        });
        assert!(told, "the demo ended before it was ready: {}", demo.words());
        until("demo.json", Duration::from_secs(10), || demo.file().exists().then_some(()));
        demo
    }

    /// Starts a demo and returns at once.
    pub fn launch(directory: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(directory).expect("the demo's directory");
        let words = std::fs::File::create(directory.join("stderr.txt")).expect("a file for its words");
        let mut command = Command::new(program("lyceum"));
        command
            .args(["demo", "--exit-with-stdin", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory)
            .args(arguments)
            .stderr(Stdio::from(words));
        Self { process: Process::start(&mut command), directory: directory.to_owned() }
    }

    /// What it said on standard error.
    pub fn words(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr.txt")).unwrap_or_default()
    }

    /// Where it keeps everything.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn file(&self) -> PathBuf {
        self.directory.join("demo.json")
    }

    /// `demo.json` as it is now.
    pub fn json(&self) -> Value {
        let text = std::fs::read(self.file()).expect("demo.json is there");
        serde_json::from_slice(&text).expect("demo.json is JSON")
    }

    /// A string of `demo.json` by JSON pointer, such as `/playback/url`.
    pub fn text(&self, pointer: &str) -> String {
        let json = self.json();
        let value = json.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("demo.json has no {pointer}: {json}")).to_owned()
    }

    /// The pids of `origins`, `edges` or `workers`.
    pub fn pids(&self, kind: &str) -> Vec<u32> {
        let json = self.json();
        let pids = json["pids"][kind].as_array().cloned().unwrap_or_default();
        pids.iter().filter_map(|pid| u32::try_from(pid.as_u64()?).ok()).collect()
    }

    /// Every pid that it names.
    pub fn all_pids(&self) -> Vec<u32> {
        ["origins", "edges", "workers"].iter().flat_map(|kind| self.pids(kind)).collect()
    }
}
