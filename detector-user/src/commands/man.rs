//! `detector man`: the manual, from the same definitions as `--help`.

use std::{
    fs,
    io::{self, Write as _},
    iter,
    path::Path,
};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{EXIT_DONE, Failure, print_line};
use crate::cli::{Cli, ManArgs};

/// Prints a page, or writes all of them.
pub fn man(args: &ManArgs) -> Result<u8, Failure> {
    let pages = pages()?;
    if let Some(directory) = &args.directory {
        write(directory, &pages)?;
        print_line(&format!("{} pages in {}", pages.len(), directory.display()));
        return Ok(EXIT_DONE);
    }
    let name = args.command.as_ref().map_or_else(|| "detector".to_owned(), |name| format!("detector-{name}"));
    let Some(page) = pages.iter().find(|page| page.name == name) else {
        let names: Vec<_> = pages.iter().filter_map(|page| page.name.strip_prefix("detector-")).collect();
        return Err(Failure::invalid(format_args!(
            "{name:?} is no page: expected a command, one of {}",
            names.join(", ")
        )));
    };
    io::stdout()
        .write_all(&page.text)
        .map_err(|error| Failure::failed(format_args!("cannot print the page: {error}")))?;
    Ok(EXIT_DONE)
}

/// A page of section 1.
struct Page {
    name: String,
    text: Vec<u8>,
}

fn pages() -> Result<Vec<Page>, Failure> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    // Gives each command the name of both, for its page, and what is typed, for its synopsis.
    cli.build();
    let of_command = |command| iter::once(command).chain(Command::get_subcommands(command));
    let commands = iter::once(&cli).chain(cli.get_subcommands().flat_map(of_command));
    commands
        .map(page)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::failed(format_args!("cannot make the manual: {error}")))
}

fn page(command: &Command) -> io::Result<Page> {
    let mut text = Vec::new();
    Man::new(command.clone()).manual("detector").render(&mut text)?;
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    Ok(Page { name, text })
}

fn write(directory: &Path, pages: &[Page]) -> Result<(), Failure> {
    let cannot = |path: &Path, error: io::Error| {
        Failure::failed(format_args!(
            "cannot write {}: {error}; name a directory that you may write to",
            path.display()
        ))
    };
    fs::create_dir_all(directory).map_err(|error| cannot(directory, error))?;
    pages.iter().try_for_each(|page| {
        let path = directory.join(format!("{}.1", page.name));
        fs::write(&path, &page.text).map_err(|error| cannot(&path, error))
    })
}
