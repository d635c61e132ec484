//! `lyceum completions` and `lyceum man`.

use clap::Command;

use super::failure::Failure;
use lyceum_core::shell::{self, Man};

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  lyceum completions bash > ~/.local/share/bash-completion/completions/lyceum
  lyceum completions zsh > ~/.zfunc/_lyceum
  lyceum completions fish > ~/.config/fish/completions/lyceum.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Example:
  lyceum man --out /usr/local/share/man/man1 && man lyceum-config-check";

/// Writes a manual page for each command.
pub(super) fn man(arguments: &Man, command: Command) -> Result<(), Failure> {
    let out = arguments.out.display();
    shell::write_manual_pages(&arguments.out, command).map_err(|cause| Failure::other(format!("{out}: {cause}")))?;
    println!("{out}: manual pages are written");
    Ok(())
}
