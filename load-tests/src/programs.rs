//! External programs that measurements need, installed from Debian if they are missing.

use std::process::{Child, Command, Stdio};

/// A child process that is killed when this value is dropped.
#[derive(Debug)]
pub struct ChildProcess(pub Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sees to it that each program is there, by the name of its package; says what it installs. An error is the sentence
/// for whoever started this.
pub fn have(who: &str, wanted: &[(&str, &str)]) -> Result<(), String> {
    let missing = || -> Vec<&str> {
        wanted.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("{who}: installing from Debian: {}", packages.join(" "));
    // Services of the machine's own are not wanted: a measurement starts its servers itself.
    let mut install = if is_root() { Command::new("env") } else { Command::new("sudo") };
    install.args([
        "DEBIAN_FRONTEND=noninteractive",
        "RUNLEVEL=1",
        "apt-get",
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
    ]);
    let done = install.args(&packages).stdout(Stdio::null()).status();
    if done.is_ok_and(|status| status.success()) && missing().is_empty() {
        return Ok(());
    }
    Err(format!("programs are missing: apt-get install --no-install-recommends {}", missing().join(" ")))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}
