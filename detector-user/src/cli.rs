//! The command line.

mod api;

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use detector_common::limits::{SOURCES_DEFAULT, SOURCES_MAX};
use ipnet::IpNet;

use crate::{kernel::pins::DEFAULT_ROOT, policy::incident};
pub use api::{ApiArgs, ApiPath, DEFAULT_SOCKET, EventsArgs, TcpArgs, TokenArgs};

/// Exit codes, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done or enforcing, 10 not enforcing, 11 degraded (needs a hand), \
1 could not tell or could not be done, 2 usage or invalid input.";

/// Examples, for `--help`: a first session.
const EXAMPLES: &str = "Examples:
  detector check policy.toml                              # before anything else; needs no root
  detector run --iface eth0 --policy policy.toml          # filters until SIGTERM or Ctrl-C
  detector status                                         # what is enforced, and is it healthy
  detector explain 198.51.100.7                           # why is this address limited
  detector apply policy.toml                              # a changed policy, in one step";

const RUN_NOTES: &str = "\
SIGHUP reads the policy again; a bad one is logged and changes nothing.
SIGTERM and Ctrl-C detach and remove everything, unless --keep.
After SIGKILL the kernel goes on filtering: run it again, or unload.
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

const APPLY_NOTES: &str = "\
The whole policy takes effect at once, or nothing changes.
Exit codes: 0 applied, 2 invalid, 1 nothing is loaded or the kernel refuses.
The file of a running daemon stays as it is, and its next SIGHUP applies that one again.
With --confirm the kernel goes back by itself when the time is over, also when no daemon lives then.

Examples:
  detector check new.toml && detector apply new.toml
  detector apply new.toml --confirm 60s   # look whether all is well, then
  detector confirm";

const CONFIRM_NOTES: &str = "\
Exit codes: 0 kept, 1 nothing waits to be confirmed (any more).";

const ROLLBACK_NOTES: &str = "\
Goes back to the policy before the one that `apply --confirm` put in place, without waiting for its time.
Exit codes: 0 done, 1 nothing waits to be confirmed (any more).";

const RULES_NOTES: &str = "\
DROPPED and WOULD DROP count the packets that a rule refused since it came, by its name.

Example:
  detector rules --json | jq '.rules[] | select(.would_drop > 0)'";

const INCIDENT_NOTES: &str = "\
It takes effect at once, before the rules of the policy, and stays through `apply`, SIGHUP and restarts of the
daemon, until its time is over (the kernel sees to that) or `detector undo` takes it back.
Only defaults.allow of the policy comes before it. Of equal targets the rule that came last decides, else the most
specific. Exit codes: 0 done, 2 invalid or refused, 1 nothing is loaded or the kernel refuses.";

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
    Run(RunArgs),
    /// Check a policy. Needs no root and no kernel.
    #[command(after_help = CHECK_NOTES)]
    Check(CheckArgs),
    /// Print the policy language as a JSON Schema.
    #[command(after_help = SCHEMA_NOTES)]
    Schema,
    /// Apply a policy to the loaded program. Every budget keeps its state.
    #[command(after_help = APPLY_NOTES)]
    Apply(ApplyArgs),
    /// Keep the policy that was applied with --confirm.
    #[command(after_help = CONFIRM_NOTES)]
    Confirm(ReadArgs),
    /// Go back from the policy that was applied with --confirm, at once.
    #[command(after_help = ROLLBACK_NOTES)]
    Rollback(ReadArgs),
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
            Self::Apply(args) => args.read.json,
            Self::Confirm(args) | Self::Rollback(args) | Self::Rules(args) => args.json,
            Self::Throttle(args) => args.incident.read.json,
            Self::Block(args) | Self::Allow(args) => args.read.json,
            Self::Undo(args) => args.read.json,
            Self::Status(args) => args.json,
            Self::Explain(args) => args.read.json,
            Self::Top(args) => args.read.json,
            Self::Events(args) => args.json,
            Self::Token(args) => args.json,
            Self::Replay(args) => args.json,
            Self::Unload(args) => args.read.json,
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
    /// Where to serve OpenMetrics at /metrics, or `off`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9477")]
    pub metrics: MetricsAddress,
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
    /// Apply also what `check` says needs to be forced: rules about nearly everyone.
    #[arg(long)]
    pub force: bool,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
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
    /// Add also what is refused because it is about nearly everyone or has no effect.
    #[arg(long)]
    pub force: bool,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
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
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
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
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// How long a policy may wait to be confirmed.
const CONFIRM_MIN: Duration = Duration::from_secs(1);
const CONFIRM_MAX: Duration = Duration::from_secs(86_400);

fn confirm_time(text: &str) -> Result<Duration, String> {
    time(text, CONFIRM_MIN, CONFIRM_MAX)
        .ok_or_else(|| "expected a number and `s`, `min` or `h`, from 1s to 24h, like 60s".to_owned())
}

/// How long an incident rule may last; what lasts longer belongs into the policy.
const INCIDENT_MIN: Duration = Duration::from_secs(1);
const INCIDENT_MAX: Duration = Duration::from_secs(366 * 86_400);

fn incident_time(text: &str) -> Result<Duration, String> {
    time(text, INCIDENT_MIN, INCIDENT_MAX)
        .ok_or_else(|| "expected a number and `s`, `min`, `h` or `d`, from 1s to 366d, like 30min".to_owned())
}

fn time(text: &str, least: Duration, most: Duration) -> Option<Duration> {
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
    (least..=most).contains(&time).then_some(time)
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
