//! `lyceum completions` and `lyceum man`: what a shell and `man` know of the commands.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::failure::Failure;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory, such as /usr/local/share/man/man1; it is made where it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  lyceum completions bash > ~/.local/share/bash-completion/completions/lyceum
  lyceum completions zsh > ~/.zfunc/_lyceum
  lyceum completions fish > ~/.config/fish/completions/lyceum.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Example:
  lyceum man --out /usr/local/share/man/man1 && man lyceum-config-check";

/// Prints a completion script.
pub(super) fn completions(arguments: &Completions, mut command: Command) {
    let name = command.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut command, name, &mut std::io::stdout());
}

/// Writes a manual page for each command.
pub(super) fn man(arguments: &Man, command: Command) -> Result<(), Failure> {
    let failed = |cause: std::io::Error| Failure::other(format!("{}: {cause}", arguments.out.display()));
    std::fs::create_dir_all(&arguments.out).map_err(failed)?;
    clap_mangen::generate_to(command, &arguments.out).map_err(failed)?;
    println!("{}: manual pages are written", arguments.out.display());
    Ok(())
}
