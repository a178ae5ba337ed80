//! The command line.

mod api;
mod guard;

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use detector_common::limits::{SOURCES_DEFAULT, SOURCES_MAX};
use ipnet::IpNet;

use crate::{
    guard::Share,
    history::{DEFAULT_STATE, History},
    kernel::pins::{DEFAULT_ROOT, Pins},
    policy::incident::{self, reason},
    traffic::DEFAULT_RUN_DIRECTORY,
};
pub use api::{ApiArgs, ApiPath, DEFAULT_SOCKET, EventsArgs, NoticeArgs, TcpArgs, TokenArgs, WebhookUrl};
pub use guard::{GuardArgs, PlanArgs, TrafficArgs, VictimsArgs};

/// Exit codes, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done or enforcing, 10 not enforcing, 11 degraded (needs a hand), \
1 could not tell or could not be done, 2 usage or invalid input.";

/// Examples, for `--help`: a first session.
const EXAMPLES: &str = "Examples:
  detector check policy.toml                              # before anything else; needs no root
  detector run --iface eth0 --policy policy.toml          # filters until SIGTERM or Ctrl-C
  detector status                                         # what is enforced, and is it healthy
  detector explain 198.51.100.7                           # why is this address limited
  detector apply policy.toml                              # a changed policy, in one step
  detector history                                        # who changed what, when and why
  detector rollback                                       # the version before, again";

const RUN_NOTES: &str = "\
SIGHUP reads the policy again; a bad one is logged and changes nothing.
SIGTERM and Ctrl-C detach and remove everything, unless --keep.
After SIGKILL the kernel goes on filtering: run it again, or unload.
What `apply` wants to be forced is refused here too, at the start and on SIGHUP, unless it was applied with
--force before.
The variable DETECTOR_LOG chooses levels, like `debug`; without it `info`.

Examples:
  detector run --iface eth0 --iface eth1 --policy /etc/detector/policy.toml
  detector run --iface eth0 --policy policy.toml --sources 2000000 --json 2>>detector.log";

const CHECK_NOTES: &str = "\
Exit codes: 0 valid, warnings or not; 2 invalid, with every error at its line and column.

Example:
  detector check policy.toml --json | jq '.warnings'";

const SCHEMA_NOTES: &str = "\
For editors and for programs that write policies. It takes every policy that check takes, and knows less: not
whether a name refers to something, for one. Dates and times are texts to it.

Example:
  detector schema > policy.schema.json";

const PLAN_NOTES: &str = "\
Packets dropped are estimated: the traffic that was seen is stretched to a minute, in which every budget starts
full. Packets without an entry in the table, and those of no service so far, are not seen.
Exit codes: 0 compared, whatever came out, 2 invalid, 1 nothing is loaded.

Examples:
  detector plan new.toml
  detector plan new.toml --json | jq '.impact.victims[].source'";

const VICTIMS_NOTES: &str = "\
Both are counted. A source is shown with the class that it has now: for a minute after a rule left mode `shadow`,
DROPPED/S has what would have been dropped before.

Examples:
  detector victims                        # who is dropped, or would be without shadow
  detector victims --rule INC-4711 --json";

const APPLY_NOTES: &str = "\
The whole policy takes effect at once, or nothing changes.
Without --force it is refused (2) if it would lock out your SSH peer, the default gateway, a DNS resolver in use
or what `defaults.allow` names so far, or newly drop too much of the traffic. `detector plan` says so before.
Exit codes: 0 applied, 2 invalid or refused, 1 nothing is loaded or the kernel refuses.
The file of a running daemon stays as it is, and its next SIGHUP applies that one again.
With --confirm the kernel goes back by itself when the time is over, also when no daemon lives then.
Each different policy is a version in the history, with its source files; what cannot be recorded is applied
nevertheless, with a warning.

Examples:
  detector check new.toml && detector apply new.toml --reason 'CHG-12: twice the rate for partners'
  detector apply new.toml --confirm 60s   # look whether all is well, then
  detector confirm";

const CONFIRM_NOTES: &str = "\
Exit codes: 0 kept, 1 nothing waits to be confirmed (any more).";

const ROLLBACK_NOTES: &str = "\
Without VERSION: from a policy on trial to the one before, without waiting for its time; else from the active
version to the one before it. That of a version that is another one again is the one before that other: each
rollback goes further back.
With VERSION: that one's text and source files, as they were, become a new version.
The file of a running daemon stays as it is, and its next SIGHUP applies that one again.
Exit codes: 0 done, 1 there is nothing to go back to, or the kernel refuses, 2 no such version, or it needs --force.

Examples:
  detector rollback --reason 'INC-4711: clients of the partner are limited'
  detector rollback 12 --confirm 60s";

const HISTORY_NOTES: &str = "\
CHANGES counts lines of the policy and of its source files, held against the version before.
The last 1,000 versions are kept, of 512 MiB of texts and source files (each distinct one counted once) at most,
and the last 100,000 audit entries; the active version stays in any case.
Several instances may share a state directory: each has its own versions, by the directory of its pins.

Examples:
  detector history
  detector history 12                     # what version 12 changed, by whom and why
  detector history --audit --limit 100    # every change, also refused ones";

const SHOW_NOTES: &str = "\
--effective reads the pinned maps alone: it needs neither the daemon nor the history.

Examples:
  detector show > as-applied.toml
  detector show 12
  detector show --effective --json | jq '.services[].budgets'";

const RULES_NOTES: &str = "\
DROPPED and WOULD DROP count the packets that a rule refused since it came, by its name.

Example:
  detector rules --json | jq '.rules[] | select(.would_drop > 0)'";

const INCIDENT_NOTES: &str = "\
It takes effect at once, before the rules of the policy, and stays through `apply`, SIGHUP and restarts of the
daemon, until its time is over (the kernel sees to that) or `detector undo` takes it back.
Only defaults.allow of the policy comes before it. Of equal targets the rule that came last decides, else the most
specific. Without --force it is refused if it would lock out your SSH peer, the gateway or a resolver, or if a prefix of
it newly drops too much of the traffic; addresses named one by one are meant. Exit codes: 0 done, 2 invalid or refused, 1 nothing is loaded or the kernel refuses.";

const THROTTLE_NOTES: &str = "\
Each source of TARGET is limited by itself. What the policy limits besides goes on, and where it is stricter
already it stays so.

Example:
  detector throttle 198.51.100.0/24 --rate 100/s --for 30min --reason 'INC-4711: scraper'";

const BLOCK_NOTES: &str = "\
Example:
  detector block 198.51.100.7 2001:db8:1::/48 --for 1h --reason 'INC-4711: credential stuffing'";

const ALLOW_NOTES: &str = "\
Example:
  detector allow 198.51.100.7 --for 2h --reason 'INC-4711: partner is hit by our limit'";

const UNDO_NOTES: &str = "\
`detector rules` lists the numbers.
Exit codes: 0 done, 2 there is no such rule, 1 nothing is loaded or the kernel refuses.

Example:
  detector undo 3";

const STATUS_NOTES: &str = "\
Exit codes: 0 enforcing, 10 not enforcing (shadow, limits nothing, not loaded), 11 degraded (needs a hand),
1 could not tell.";

const EXPLAIN_NOTES: &str = "\
What was seen of a source is counted from its entry on, modulo 2^32: bytes start again every 4 GiB.

Examples:
  detector explain 198.51.100.7
  detector explain 2001:db8::1 --json     # an IPv6 address is counted with its /64";

const TOP_NOTES: &str = "\
Packets, bytes and connections are counted modulo 2^32: bytes start again every 4 GiB. Rates are not
affected.

Examples:
  detector top                            # a table every second, until Ctrl-C
  detector top --once --rows 5 --json";

const REPLAY_NOTES: &str = "\
Needs root for the kernel program, and touches no interface and nothing that is loaded.

Example:
  detector replay before.pcap during.pcapng --policy new.toml";

const COMPLETIONS_NOTES: &str = "\
Examples:
  detector completions bash > /etc/bash_completion.d/detector
  detector completions zsh > /usr/local/share/zsh/site-functions/_detector
  detector completions fish > /etc/fish/completions/detector.fish";

const MAN_NOTES: &str = "\
Without a directory the page of detector itself is printed; those of the commands are printed with their name.

Examples:
  detector man --command apply | man -l -
  detector man /usr/local/share/man/man1";

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
    #[command(after_help = RUN_NOTES)]
    Run(Box<RunArgs>),
    /// Check a policy. Needs no root and no kernel.
    #[command(after_help = CHECK_NOTES)]
    Check(CheckArgs),
    /// Print the policy language as a JSON Schema.
    #[command(after_help = SCHEMA_NOTES)]
    Schema,
    /// Say what a policy would change: services, rules, budgets, and for which sources of the live table.
    #[command(after_help = PLAN_NOTES)]
    Plan(PlanArgs),
    /// Apply a policy to the loaded program. Every budget keeps its state.
    #[command(after_help = APPLY_NOTES)]
    Apply(ApplyArgs),
    /// Keep the policy that was applied with --confirm.
    #[command(after_help = CONFIRM_NOTES)]
    Confirm(WriteArgs),
    /// Go back: from the policy on trial, to the version before, or to a version by number.
    #[command(after_help = ROLLBACK_NOTES)]
    Rollback(RollbackArgs),
    /// List the versions of the policy, what one of them changed, or every change ever asked for.
    #[command(after_help = HISTORY_NOTES)]
    History(HistoryArgs),
    /// Print the active policy or another version as it was applied, or what the kernel makes of it.
    #[command(after_help = SHOW_NOTES)]
    Show(ShowArgs),
    /// Limit addresses now, beside the policy.
    #[command(after_help = format!("{INCIDENT_NOTES}\n{THROTTLE_NOTES}"))]
    Throttle(ThrottleArgs),
    /// Drop everything from addresses now, beside the policy.
    #[command(after_help = format!("{INCIDENT_NOTES}\n\n{BLOCK_NOTES}"))]
    Block(IncidentArgs),
    /// Let everything from addresses pass now, beside the policy.
    #[command(after_help = format!("{INCIDENT_NOTES}\n\n{ALLOW_NOTES}"))]
    Allow(IncidentArgs),
    /// Take back what throttle, block or allow added.
    #[command(after_help = UNDO_NOTES)]
    Undo(UndoArgs),
    /// List the rules: what they do, what they refused so far, when they end. Works with the daemon dead.
    #[command(after_help = RULES_NOTES)]
    Rules(ReadArgs),
    /// Say what is enforced, where, and how full the tables are. Works with the daemon dead.
    #[command(after_help = STATUS_NOTES)]
    Status(ReadArgs),
    /// Say how an address stands: class, rule, every budget and what is left of it. Works with the daemon dead.
    #[command(after_help = EXPLAIN_NOTES)]
    Explain(ExplainArgs),
    /// Show the sources with the most packets. Works with the daemon dead.
    #[command(after_help = TOP_NOTES)]
    Top(TopArgs),
    /// Show the sources that are dropped, or would be in mode enforce: whom a rule hurts. Works with the daemon dead.
    #[command(after_help = VICTIMS_NOTES)]
    Victims(VictimsArgs),
    /// Follow what happens: sampled drops, reloads, trials and rules that end. Asks the running daemon.
    #[command(after_help = api::EVENTS_NOTES)]
    Events(EventsArgs),
    /// Make a token for the API over TCP, and the line that admits it.
    #[command(after_help = api::TOKEN_NOTES)]
    Token(TokenArgs),
    /// Print the completions of a shell.
    #[command(after_help = COMPLETIONS_NOTES)]
    Completions(CompletionsArgs),
    /// Print the manual, or write a page for each command.
    #[command(after_help = MAN_NOTES)]
    Man(ManArgs),
    /// Run captures through the kernel program, with their own clock, and say what a policy would have done.
    #[command(after_help = REPLAY_NOTES)]
    Replay(ReplayArgs),
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
            Self::Apply(args) => args.write.read.json,
            Self::Confirm(args) => args.read.json,
            Self::Rollback(args) => args.write.read.json,
            Self::History(args) => args.write.read.json,
            Self::Show(args) => args.write.read.json,
            Self::Throttle(args) => args.incident.write.read.json,
            Self::Block(args) | Self::Allow(args) => args.write.read.json,
            Self::Undo(args) => args.write.read.json,
            Self::Rules(args) => args.json,
            Self::Status(args) => args.json,
            Self::Explain(args) => args.read.json,
            Self::Top(args) => args.read.json,
            Self::Events(args) => args.json,
            Self::Token(args) => args.json,
            Self::Replay(args) => args.json,
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

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Interface to attach to; may be given several times.
    #[arg(long = "iface", value_name = "IF", required = true)]
    pub interfaces: Vec<String>,
    /// The policy; read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Active sources that the table is sized for, about 190 bytes each.
    #[arg(long, value_name = "N", default_value_t = SOURCES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(SOURCES_MAX)))]
    pub sources: u32,
    /// Directory of the pins, on a BPF file system.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    pub pins: PathBuf,
    /// Where changes are recorded.
    #[command(flatten)]
    pub state: StateArgs,
    /// Apply also what `check` says needs to be forced: rules about nearly everyone.
    #[arg(long)]
    pub force: bool,
    /// Where to serve OpenMetrics at /metrics, or `off`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9477")]
    pub metrics: MetricsAddress,
    /// Where to keep what was seen of the last minute, for `plan` and `apply`: 24 bytes for each source, twice.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIRECTORY)]
    pub run_dir: PathBuf,
    /// Share of the packets of the last minute that a reload on SIGHUP may newly drop.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    pub max_drop: Share,
    /// Keep filtering after SIGTERM: leave program, links and maps in the kernel.
    #[arg(long)]
    pub keep: bool,
    /// Log as JSON, an object a line on standard error.
    #[arg(long)]
    pub json: bool,
    /// Sampled drops sent to the daemon, at most so many a second; 0: none.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub events: u32,
    /// Log of the kernel program itself: 0 (off, costs nothing), 1 (error) to 5 (trace).
    #[arg(long, value_name = "LEVEL", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub kernel_log: u8,
    /// The API.
    #[command(flatten)]
    pub api: ApiArgs,
    /// Who is told.
    #[command(flatten)]
    pub notices: NoticeArgs,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The policy.
    pub file: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The policy.
    pub file: PathBuf,
    /// Go back after this time, like 60s, 5min or 1h, unless `detector confirm` comes first.
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    pub confirm: Option<Duration>,
    /// Apply also what is refused else: rules about nearly everyone, who would be locked out, too many packets newly dropped.
    #[arg(long)]
    pub force: bool,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// How much a change may drop.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The version to go back to.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// Come back after this time, like 60s, 5min or 1h, unless `detector confirm` comes first.
    #[arg(long, value_name = "TIME", value_parser = confirm_time)]
    pub confirm: Option<Duration>,
    /// Go back also to what is refused else: not forced then, who would be locked out, too many packets newly dropped.
    #[arg(long)]
    pub force: bool,
    /// How much the version may drop.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Say what this version changed.
    #[arg(conflicts_with = "audit", value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// List audit entries: every change, also those of the daemon and those that were refused.
    #[arg(long)]
    pub audit: bool,
    /// Lines, the newest first.
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "version")]
    pub limit: usize,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The version; the active one without.
    #[arg(conflicts_with = "effective", value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,
    /// What the kernel does now: services with their budgets, rules with what they refused.
    #[arg(long)]
    pub effective: bool,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `block`, `allow`, and what `throttle` has in common with them.
#[derive(Debug, Args)]
pub struct IncidentArgs {
    /// Addresses or prefixes.
    #[arg(value_name = "TARGET", required_unless_present = "targets_file", value_parser = incident::target)]
    pub targets: Vec<IpNet>,
    /// A file with more of them, one a line, `#` before comments.
    #[arg(long = "targets", value_name = "FILE")]
    pub targets_file: Option<PathBuf>,
    /// Only at this service of the policy.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// When it ends by itself, like 90s, 30min, 12h or 7d from now.
    #[arg(long = "for", value_name = "TIME", required_unless_present = "permanent", conflicts_with = "permanent", value_parser = incident_time)]
    pub time: Option<Duration>,
    /// It stays until it is undone.
    #[arg(long)]
    pub permanent: bool,
    /// Why: for the colleagues who find it.
    #[arg(long, value_name = "TEXT", value_parser = incident::reason)]
    pub reason: String,
    /// Add also what is refused else: about nearly everyone, without effect, who would be locked out, too many packets dropped.
    #[arg(long)]
    pub force: bool,
    /// How much a rule about prefixes may drop.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `throttle`.
#[derive(Debug, Args)]
pub struct ThrottleArgs {
    /// Packets of each source, like 100/s or 600/min.
    #[arg(long, value_name = "RATE", required_unless_present_any = ["bytes", "connections"])]
    pub rate: Option<String>,
    /// Packets that a source may send at once after a pause; without it, those of a second.
    #[arg(long, value_name = "N", requires = "rate")]
    pub burst: Option<u64>,
    /// Bytes of each source, like 1MB/s or 10Mbit/s.
    #[arg(long, value_name = "RATE")]
    pub bytes: Option<String>,
    /// New connections of each source, like 5/s.
    #[arg(long, value_name = "RATE")]
    pub connections: Option<String>,
    /// Whom, for how long, and why.
    #[command(flatten)]
    pub incident: IncidentArgs,
}

/// `undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// Numbers of incident rules.
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<u64>,
    /// Undo also what locks somebody out or drops too many packets then.
    #[arg(long)]
    pub force: bool,
    /// How much may be dropped without the rules.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Where the maps are, where changes are recorded, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An IPv4 or IPv6 address.
    pub address: std::net::IpAddr,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one table and end.
    #[arg(long)]
    pub once: bool,
    /// Rows.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,
    /// Seconds between two looks, for rates; with `--once`, 0 shows totals only.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub interval: u64,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
}

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

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// pcap or pcapng files; several are merged by time.
    #[arg(required = true)]
    pub captures: Vec<PathBuf>,
    /// The policy.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Active sources that the table is sized for.
    #[arg(long, value_name = "N", default_value_t = SOURCES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(SOURCES_MAX)))]
    pub sources: u32,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
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

/// How long a policy may wait to be confirmed.
const CONFIRM_MIN: Duration = Duration::from_secs(1);
const CONFIRM_MAX: Duration = Duration::from_secs(86_400);

fn confirm_time(text: &str) -> Result<Duration, String> {
    time_within(CONFIRM_MIN, CONFIRM_MAX, text)
        .ok_or_else(|| "expected a number and `s`, `min` or `h`, from 1s to 24h, like 60s".to_owned())
}

/// How long an incident rule may last; what lasts longer belongs into the policy.
const INCIDENT_MIN: Duration = Duration::from_secs(1);
const INCIDENT_MAX: Duration = Duration::from_secs(366 * 86_400);

fn incident_time(text: &str) -> Result<Duration, String> {
    time_within(INCIDENT_MIN, INCIDENT_MAX, text)
        .ok_or_else(|| "expected a number and `s`, `min`, `h` or `d`, from 1s to 366d, like 30min".to_owned())
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

/// Where metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsAddress {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "expected an address and port like 127.0.0.1:9477, or `off`".to_owned())?;
        if !address.ip().is_loopback() {
            return Err("metrics are served on loopback only: use 127.0.0.1 or [::1] and a proxy".to_owned());
        }
        Ok(Self::At(address))
    }
}
