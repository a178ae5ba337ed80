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

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, hint::black_box, path::Path};

    use detector_user::huge_pages::LARGE_BYTES;

    use super::*;

    /// The mapping that an address is in (proc_pid_smaps(5)): where it is, and its fields.
    fn mapping(address: usize) -> Option<(String, HashMap<String, String>)> {
        let smaps = fs::read_to_string("/proc/self/smaps").expect("mappings are told");
        let mut found = None;
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let range = range.and_then(|(from, to)| {
                Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
            });
            match (range, &mut found, line.split_once(':')) {
                (Some(range), found, _) if range.contains(&address) => {
                    *found = Some((line.to_owned(), HashMap::new()));
                }
                (Some(_), Some(_), _) => return found,
                (None, Some((_, fields)), Some((name, value))) => {
                    _ = fields.insert(name.to_owned(), value.trim().to_owned());
                }
                _ => {}
            }
        }
        found
    }

    fn middle(bytes: &[u8]) -> usize {
        bytes[bytes.len() / 2..].as_ptr().addr()
    }

    /// Huge pages were asked for, and for all of the mapping, since the piece's ends are in one.
    fn assert_advised(bytes: &[u8]) {
        let (range, fields) = mapping(middle(bytes)).expect("it is somewhere");
        assert!(fields["VmFlags"].split(' ').any(|flag| flag == "hg"), "{range} {fields:?}");
        let ends = [bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len() - 1];
        for end in ends {
            assert_eq!(mapping(end).expect("it is there").0, range, "one mapping has all of it");
        }
    }

    #[test]
    fn what_is_large_is_asked_for_in_huge_pages_and_goes_back_when_it_is_freed() {
        give_back_large_pieces();
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            println!("skipped: this kernel has no huge pages");
            return;
        }
        let zeroed = black_box(vec![0_u8; LARGE_BYTES + 1]);
        assert_advised(&zeroed);
        assert!(zeroed.iter().all(|byte| *byte == 0));
        let mut grown: Vec<u8> = black_box(Vec::with_capacity(1 << 20));
        grown.extend((0..1 << 20).map(|number: usize| number as u8));
        for size in [8 << 20, 64 << 20] {
            grown.reserve_exact(size);
            assert_advised(&grown);
        }
        assert!(grown.iter().zip(0..).all(|(byte, number): (_, usize)| *byte == number as u8));
        drop(grown);
        // After a piece of 16 MiB was freed, glibc would keep one of 8 by itself.
        drop(black_box(vec![1_u8; 16 << 20]));
        let freed = black_box(vec![1_u8; 8 << 20]);
        let address = middle(&freed);
        let before = mapping(address).expect("it is there").0;
        drop(freed);
        assert!(mapping(address).is_none_or(|(after, _)| after != before), "{before}");
    }
}
