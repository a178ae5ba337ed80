//! `detector completions`: what a shell completes, from the same definitions as `--help`.

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use clap_complete::{Generator, Shell as Known};

use super::{EXIT_DONE, Failure};
use crate::cli::{Cli, CompletionsArgs, Shell};

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut cli = Cli::command();
    cli.build();
    cli.set_bin_name("detector");
    let shell = match args.shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut text = Vec::new();
    let cannot = |error: io::Error| Failure::failed(format_args!("cannot print the completions: {error}"));
    shell.try_generate(&cli, &mut text).map_err(cannot)?;
    io::stdout().write_all(&text).map_err(cannot)?;
    Ok(EXIT_DONE)
}
