//! What goes with a shell: `completions`, `man`.

use std::path::PathBuf;

use clap::Args;

pub(super) const COMPLETIONS_NOTES: &str = "\
Examples:
  detector completions bash > /etc/bash_completion.d/detector
  detector completions zsh > /usr/local/share/zsh/site-functions/_detector
  detector completions fish > /etc/fish/completions/detector.fish";

pub(super) const MAN_NOTES: &str = "\
Without a directory the page of detector itself is printed; those of the commands are printed with their name.

Examples:
  detector man --command apply | man -l -
  detector man /usr/local/share/man/man1";

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// A shell that has completions.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[expect(missing_docs, reason = "each is the shell of that name")]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write a page for detector and for each command.
    #[arg(value_name = "DIR", conflicts_with = "command")]
    pub directory: Option<PathBuf>,
    /// Print the page of this command.
    #[arg(long, value_name = "NAME")]
    pub command: Option<String>,
}
