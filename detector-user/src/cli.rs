//! The command line.

mod api;
mod fleets;
mod guard;
mod incident;
mod look;
mod policy;
mod record;
mod run;
mod shell;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    history::{DEFAULT_STATE, History},
    kernel::pins::{DEFAULT_ROOT, Pins},
};
pub use api::{ApiArgs, ApiPath, DEFAULT_SOCKET, EventsArgs, NoticeArgs, TcpArgs, TokenArgs, WebhookUrl};
pub use fleets::FleetsArgs;
pub use guard::{GuardArgs, PlanArgs, TrafficArgs, VictimsArgs};
pub use incident::{IncidentArgs, ThrottleArgs, UndoArgs};
pub use look::{ExplainArgs, FingerprintArgs, ReplayArgs, TopArgs, TopFingerprintsArgs, TopOf};
pub use policy::{ApplyArgs, CheckArgs, HistoryArgs, RollbackArgs, ShowArgs};
pub use record::{HuntArgs, RecordArgs};
pub use run::{MetricsAddress, RunArgs};
pub use shell::{CompletionsArgs, ManArgs, Shell};

/// Exit codes, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done or enforcing, 10 not enforcing, 11 degraded (needs a hand), \
1 could not tell or could not be done, 2 usage or invalid input, 3 a replay limits what should pass.";

/// Examples, for `--help`: a first session.
const EXAMPLES: &str = "Examples:
  detector check policy.toml                        # before anything else; needs no root
  detector run --iface eth0 --policy policy.toml    # filters until SIGTERM or Ctrl-C
  detector status                                   # what is enforced, and is it healthy
  detector explain 198.51.100.7                     # why is this address limited
  detector fleets                                   # is one actor behind many addresses
  detector apply policy.toml                        # a changed policy, in one step
  detector history                                  # who changed what, when and why
  detector rollback                                 # the version before, again";

const UNLOAD_NOTES: &str = "\
From then on every packet passes. Nothing loaded is no error.";

/// An edge rate limiter for Linux: per-source limits at the driver.
#[derive(Debug, Parser)]
#[command(name = "detector", version, about = "An edge rate limiter for Linux: per-source limits at the driver", after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the program, apply a policy, attach to interfaces, and stay in the foreground.
    #[command(after_help = run::RUN_NOTES)]
    Run(Box<RunArgs>),
    /// Check a policy. Needs no root and no kernel.
    #[command(after_help = policy::CHECK_NOTES)]
    Check(CheckArgs),
    /// Print the policy language as a JSON Schema.
    #[command(after_help = policy::SCHEMA_NOTES)]
    Schema,
    /// Say what a policy would change: services, rules, budgets, and for which sources of the live table.
    #[command(after_help = guard::PLAN_NOTES)]
    Plan(PlanArgs),
    /// Apply a policy to the loaded program. Every budget keeps its state.
    #[command(after_help = policy::APPLY_NOTES)]
    Apply(ApplyArgs),
    /// Keep the policy that was applied with --confirm.
    #[command(after_help = policy::CONFIRM_NOTES)]
    Confirm(WriteArgs),
    /// Go back: from the policy on trial, to the version before, or to a version by number.
    #[command(after_help = policy::ROLLBACK_NOTES)]
    Rollback(RollbackArgs),
    /// List the versions of the policy, what one of them changed, or every change ever asked for.
    #[command(after_help = policy::HISTORY_NOTES)]
    History(HistoryArgs),
    /// Print the active policy or another version as it was applied, or what the kernel makes of it.
    #[command(after_help = policy::SHOW_NOTES)]
    Show(ShowArgs),
    /// Limit addresses, fingerprints or a fleet now, beside the policy.
    #[command(after_help = format!("{}\n{}", incident::INCIDENT_NOTES, incident::THROTTLE_NOTES), mut_arg("targets", |arg| arg.help(incident::FLEET_TARGETS)))]
    Throttle(ThrottleArgs),
    /// Drop everything from addresses now, beside the policy.
    #[command(after_help = format!("{}\n\n{}", incident::INCIDENT_NOTES, incident::BLOCK_NOTES))]
    Block(IncidentArgs),
    /// Let everything from addresses pass now, or leave a fleet alone, beside the policy.
    #[command(after_help = format!("{}\n\n{}", incident::INCIDENT_NOTES, incident::ALLOW_NOTES), mut_arg("targets", |arg| arg.help(incident::FLEET_TARGETS)))]
    Allow(IncidentArgs),
    /// Take back what throttle, block or allow added, or ordered about a fleet.
    #[command(after_help = incident::UNDO_NOTES)]
    Undo(UndoArgs),
    /// List the rules: what they do, what they refused so far, when they end. Works with the daemon dead.
    #[command(after_help = incident::RULES_NOTES)]
    Rules(ReadArgs),
    /// Say what is enforced, where, and how full the tables are. Works with the daemon dead.
    #[command(after_help = look::STATUS_NOTES)]
    Status(WriteArgs),
    /// Say how an address stands: class, rule, every budget and what is left of it. Works with the daemon dead.
    #[command(after_help = look::EXPLAIN_NOTES)]
    Explain(ExplainArgs),
    /// Show the sources with the most packets. Works with the daemon dead.
    #[command(after_help = look::TOP_NOTES)]
    Top(TopArgs),
    /// Show the sources that are dropped, or would be in mode enforce: whom a rule hurts. Works with the daemon dead.
    #[command(after_help = guard::VICTIMS_NOTES)]
    Victims(VictimsArgs),
    /// Tell of fleets, one actor behind many sources: who belongs to them, and what speaks for it. Works with the daemon dead.
    #[command(after_help = fleets::FLEETS_NOTES)]
    Fleets(FleetsArgs),
    /// Follow what happens: sampled drops, reloads, trials and rules that end, fleets. Asks the running daemon.
    #[command(after_help = api::EVENTS_NOTES)]
    Events(EventsArgs),
    /// Make a token for the API over TCP, and the line that admits it.
    #[command(after_help = api::TOKEN_NOTES)]
    Token(TokenArgs),
    /// Print the completions of a shell.
    #[command(after_help = shell::COMPLETIONS_NOTES)]
    Completions(CompletionsArgs),
    /// Print the manual, or write a page for each command.
    #[command(after_help = shell::MAN_NOTES)]
    Man(ManArgs),
    /// Write what is counted of sources and clients to disk, a row for each of them and each minute. Works with the daemon dead.
    #[command(after_help = record::RECORD_NOTES)]
    Record(RecordArgs),
    /// Look for fleets in recordings: one actor behind many sources, each of them below every limit.
    #[command(after_help = record::HUNT_NOTES)]
    Hunt(HuntArgs),
    /// Run captures through the kernel program, with their own clock, and say what a policy would have done.
    #[command(after_help = look::REPLAY_NOTES)]
    Replay(ReplayArgs),
    /// Say who the clients in captures are: the JA4 of every flow that begins with a ClientHello, and software that is
    /// known to have it.
    #[command(after_help = look::FINGERPRINT_NOTES)]
    Fingerprint(FingerprintArgs),
    /// Detach from all interfaces and remove every pin.
    #[command(after_help = UNLOAD_NOTES)]
    Unload(UnloadArgs),
}

impl Command {
    /// Whether programs read what it says.
    pub fn json(&self) -> bool {
        match self {
            Self::Run(args) => args.json,
            Self::Check(args) => args.json,
            Self::Schema => true,
            Self::Completions(_) | Self::Man(_) => false,
            Self::Plan(args) => args.read.json,
            Self::Victims(args) => args.read.json,
            Self::Apply(args) => args.change.write.read.json,
            Self::Confirm(args) => args.read.json,
            Self::Rollback(args) => args.change.write.read.json,
            Self::History(args) => args.write.read.json,
            Self::Show(args) => args.write.read.json,
            Self::Throttle(args) => args.incident.change.write.read.json,
            Self::Block(args) | Self::Allow(args) => args.change.write.read.json,
            Self::Undo(args) => args.change.write.read.json,
            Self::Rules(args) => args.json,
            Self::Status(args) => args.read.json,
            Self::Explain(args) => args.write.read.json,
            Self::Top(args) => match &args.of {
                None => args.read.json,
                Some(TopOf::Fingerprints(args)) => args.read.json,
            },
            Self::Fleets(args) => args.write.read.json,
            Self::Events(args) => args.json,
            Self::Token(args) => args.json,
            Self::Record(args) => args.read.json,
            Self::Hunt(args) => args.json,
            Self::Replay(args) => args.json,
            Self::Fingerprint(args) => args.json,
            Self::Unload(args) => args.write.read.json,
        }
    }
}

/// Where the maps are, and how to answer.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Directory of the pins, on a BPF file system.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    pub pins: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where changes are recorded.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Directory of the history.
    #[arg(long, value_name = "DIR", env = "DETECTOR_STATE", hide_env_values = true, default_value = DEFAULT_STATE)]
    pub state: PathBuf,
}

/// Where the maps are, where changes are recorded, and how to answer: of commands that change something, or tell what
/// was changed.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Where changes are recorded.
    #[command(flatten)]
    pub state: StateArgs,
}

/// How a change is made: `apply`, `rollback`, `throttle`, `block`, `allow`, `undo`.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Do also what is refused else: what is about nearly everyone or has no effect, locks somebody out, or drops too much.
    #[arg(long)]
    pub force: bool,
    /// How much it may drop.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

impl WriteArgs {
    /// The pins.
    pub fn pins(&self) -> Pins {
        Pins::new(&self.read.pins)
    }

    /// The history of this instance.
    pub fn history(&self) -> History {
        History::new(&self.state.state, &self.read.pins)
    }
}

/// `unload`.
#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// Unload even while a daemon runs.
    #[arg(long)]
    pub force: bool,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

fn time_within(min: Duration, max: Duration, text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit_s = match unit {
        "s" => 1,
        "min" | "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    let time = Duration::from_secs(count.saturating_mul(unit_s));
    (min..=max).contains(&time).then_some(time)
}
