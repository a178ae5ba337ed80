//! `detector`: see `detector --help`.

use std::process::ExitCode;

use clap::Parser as _;
use detector_user::{
    cli::{Cli, Command},
    commands::{self, Failure},
    daemon,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match execute(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, message }) => {
            let error = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
            anstream::eprintln!("{error}error{error:#}: {message}");
            ExitCode::from(code)
        }
    }
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    match &cli.command {
        Command::Run(args) => daemon::run(args),
        Command::Check(args) => commands::check::check(args),
        Command::Apply(args) => commands::apply::apply(args),
        Command::Status(args) => commands::status::status(args),
        Command::Explain(args) => commands::explain::explain(args),
        Command::Top(args) => commands::top::top(args),
        Command::Replay(args) => commands::replay::replay(args),
        Command::Unload(args) => commands::unload::unload(args),
    }
}
