//! What a shell and `man` know of a program's commands: completion scripts and manual pages, made from its `clap`
//! command.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The directory, such as /usr/local/share/man/man1; it is made where it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Prints a completion script.
pub fn print_completions(arguments: &Completions, mut command: Command) {
    let name = command.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut command, name, &mut io::stdout());
}

/// Writes a manual page for each command into a directory, which is made where it is not there.
pub fn write_manual_pages(out: &Path, command: Command) -> io::Result<()> {
    std::fs::create_dir_all(out)?;
    clap_mangen::generate_to(command, out)
}
