//! `detector`: see `detector --help`.

use std::process::ExitCode;

use clap::Parser as _;
use detector_user::{
    cli::{Cli, Command},
    commands::{self, Failure},
    daemon,
    huge_pages::{HugePages, give_back_large_pieces},
};

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

fn main() -> ExitCode {
    give_back_large_pieces();
    let cli = Cli::parse();
    match execute(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            tell(&cli.command, &failure);
            ExitCode::from(failure.code)
        }
    }
}

/// Says what went wrong where the command's answers go: with `--json` as JSON on standard output, in the log of `run`.
fn tell(command: &Command, failure: &Failure) {
    if !command.json() && !failure.diagnostics.is_empty() {
        // Each says itself that it is an error, after its place.
        anstream::eprintln!("{}", failure.message);
    } else if !command.json() {
        let error = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
        anstream::eprintln!("{error}error{error:#}: {}", failure.message);
    } else if let Command::Run(_) = command {
        tracing::error!(exit_code = failure.code, "{}", failure.message);
    } else if let Err(unwritten) = commands::print_json(failure) {
        anstream::eprintln!("{}; {}", failure.message, unwritten.message);
    }
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    match &cli.command {
        Command::Run(args) => daemon::run(args),
        Command::Check(args) => commands::check::check(args),
        Command::Schema => commands::schema::schema(),
        Command::Plan(args) => commands::plan::plan(args),
        Command::Apply(args) => commands::apply::apply(args),
        Command::Confirm(args) => commands::confirm::confirm(args),
        Command::Rollback(args) => commands::rollback::rollback(args),
        Command::History(args) => commands::history::history(args),
        Command::Show(args) => commands::show::show(args),
        Command::Throttle(args) => commands::incident::throttle(args),
        Command::Block(args) => commands::incident::block(args),
        Command::Allow(args) => commands::incident::allow(args),
        Command::Undo(args) => commands::incident::undo(args),
        Command::Rules(args) => commands::rules::rules(args),
        Command::Status(args) => commands::status::status(args),
        Command::Explain(args) => commands::explain::explain(args),
        Command::Top(args) => commands::top::top(args),
        Command::Fleets(args) => commands::fleets::fleets(args),
        Command::Events(args) => commands::events::events(args),
        Command::Token(args) => commands::token::token(args),
        Command::Completions(args) => commands::completions::completions(args),
        Command::Man(args) => commands::man::man(args),
        Command::Victims(args) => commands::victims::victims(args),
        Command::Record(args) => commands::record::record(args),
        Command::Hunt(args) => commands::hunt::hunt(args),
        Command::Replay(args) => commands::replay::replay(args),
        Command::Fingerprint(args) => commands::fingerprint::fingerprint(args),
        Command::Unload(args) => commands::unload::unload(args),
    }
}
