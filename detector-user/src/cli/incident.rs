//! The responder's rules: `throttle`, `block`, `allow`, `undo`, and the list of all rules.

use std::{path::PathBuf, time::Duration};

use super::{ChangeArgs, time_within};
use crate::{
    change::INCIDENT_TIME_MAX,
    policy::{
        incident::reason,
        target::{Target, Undone, target, undone},
    },
};
use clap::Args;

pub(super) const RULES_NOTES: &str = "\
DROPPED and WOULD DROP count the packets that a rule refused since it came, by its name.

Example:
  detector rules --json | jq '.rules[] | select(.would_drop > 0)'";

/// What `throttle` and `allow` take beside what [`IncidentArgs`] says of its targets.
pub(super) const FLEET_TARGETS: &str = "Addresses or prefixes; or ja4:PATTERN, syn:PATTERN, or ja4:PATTERN+syn:PATTERN of \
clients that match both; or fleet:ID, by the number that `detector fleets` shows";

pub(super) const INCIDENT_NOTES: &str = "\
It takes effect at once, before the rules of the policy, and stays through `apply`, SIGHUP and restarts of the daemon, \
until its time is over (the kernel sees to that) or `detector undo` takes it back.
Only defaults.allow of the policy comes before it. Of equal targets the rule that came last decides, else the most \
specific.
Without --force it is refused if it would lock out your SSH peer, by its address or by the SYN that it sends or may \
send, the gateway or a resolver, if a prefix of it newly drops too much of the traffic, or if more than 0.1 % of a \
service's known-good sources have its fingerprint; addresses named one by one are meant.
Exit codes: 0 done, 2 invalid or refused, 1 nothing is loaded or the kernel refuses.";

pub(super) const THROTTLE_NOTES: &str = "\
Each source of TARGET is limited by itself. What the policy limits besides goes on, and where it is stricter already it \
stays so.
Clients with a fingerprint are limited where their handshakes are: ja4:PATTERN, parts with `*`, by --handshakes at the \
ClientHello, syn:PATTERN, fields with `*`, by --connections at the SYN. `detector top fingerprints` shows those of the \
clients there are.

fleet:ID is an order to the running daemon, not a rule: the members that are acted on share one budget. Without rates \
it is the one that `[fleets]` of the policy gives; --rate and --connections replace it, for all of them together.
An order needs --for; --service, --permanent, --bytes and --handshakes are refused; --shared, --max-drop, --sample and \
--run-dir say nothing of a fleet. --force overrides the guards that would leave it a suggestion, and no others; \
`detector fleets ID` shows what each says. One of them that does not pass any more ends the throttle \
before its time, and it goes on when that passes again.
Other than a rule it goes by the mode of the policy: where that is \"shadow\" it is counted and drops nothing.
`detector undo fleet:ID` takes an order back. A throttle that the daemon began itself ends by `detector allow fleet:ID \
--for 24h --reason TEXT`.
Exit codes of an order: 0 it is in force, 2 no such fleet, or a guard stops it (the order stands until its end), 1 no \
daemon runs, or it has not heard it within 10 s (the order stands).

Examples:
  detector throttle 198.51.100.0/24 --rate 100/s --for 30min --reason 'INC-4711: scraper'
  detector throttle 'ja4:t13d*_8daaf615*_*' --handshakes 20/s --shared --for 1h --reason x
  detector throttle fleet:3 --for 1h --reason 'INC-4711: copies our catalogue'";

pub(super) const BLOCK_NOTES: &str = "\
Examples:
  detector block 198.51.100.7 2001:db8:1::/48 --for 1h --reason 'INC-4711: stolen passwords'
  detector block 'syn:4:128:0:1460:*:*:*:0' --service api --for 1h --reason INC-4711";

pub(super) const ALLOW_NOTES: &str = "\
fleet:ID is an order to whichever daemon runs, not a rule: to leave that fleet alone, whatever the policy says, also \
when it becomes part of another one. A throttle that is in force ends at once, also without a daemon.
An order needs --for; --service and --permanent are refused. `detector undo fleet:ID` takes it back. To leave one \
member alone, allow its address: no limit and no rule holds for that then. An application can have it left out of \
fleets only, with a hint over the API.
Exit codes of an order: 0 it is left alone, 2 no such fleet, 1 the daemon has not heard it within 10 s (the order \
stands), or it could not be written, or not be done at once; the message says which.

Examples:
  detector allow 198.51.100.7 --for 2h --reason 'INC-4711: partner is hit by our limit'
  detector allow fleet:3 --for 24h --reason 'INC-4711: a partner'";

pub(super) const UNDO_NOTES: &str = "\
`detector rules` lists the numbers. Without --force it is refused if the rest would lock out your SSH peer, the gateway \
or a resolver, or newly drop too much of the traffic.
fleet:ID takes back what `throttle` or `allow` ordered about a fleet: the daemon decides by itself again, as the policy \
says; where none runs, what is in force ends at once. A throttle that it began itself is no order: it ends by `detector \
allow fleet:ID --for 24h --reason TEXT`.
Exit codes: 0 done, 2 there is no such rule or order, or refused, 1 nothing is loaded, the kernel refuses, or the \
daemon has not heard it within 10 s.

Examples:
  detector undo 3
  detector undo fleet:7";

/// `block`, `allow`, and what `throttle` has in common with them.
#[derive(Debug, Args)]
pub struct IncidentArgs {
    /// Addresses or prefixes; or ja4:PATTERN, syn:PATTERN, or ja4:PATTERN+syn:PATTERN of clients that match both.
    #[arg(value_name = "TARGET", required_unless_present = "targets_file", value_parser = target)]
    pub targets: Vec<Target>,
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
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
    /// How it is done, and recorded.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `throttle`.
#[derive(Debug, Args)]
pub struct ThrottleArgs {
    /// Packets of each source, like 100/s or 600/min; of a fleet, of all members together.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Packets that a source may send at once after a pause; without it, those of a second. Where packets are not limited:
    /// handshakes or connections.
    #[arg(long, value_name = "N")]
    pub burst: Option<u64>,
    /// Bytes of each source, like 1MB/s or 10Mbit/s; not of a fleet.
    #[arg(long, value_name = "RATE")]
    pub bytes: Option<String>,
    /// New connections of each source, like 5/s; what syn:PATTERN is limited by; of a fleet, of all members together.
    #[arg(long, value_name = "RATE")]
    pub connections: Option<String>,
    /// TLS handshakes of each source, like 2/s; what ja4:PATTERN is limited by; not of a fleet.
    #[arg(long, value_name = "RATE")]
    pub handshakes: Option<String>,
    /// One budget for all clients that match the fingerprints, instead of one for each source.
    #[arg(long)]
    pub shared: bool,
    /// Whom, for how long, and why.
    #[command(flatten)]
    pub incident: IncidentArgs,
}

/// `undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// Numbers of incident rules; or fleet:ID for what is ordered about a fleet.
    #[arg(value_name = "ID", required = true, value_parser = undone)]
    pub ids: Vec<Undone>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// How it is done, and recorded.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The shortest time of an incident rule that ends.
const INCIDENT_MIN: Duration = Duration::from_secs(1);

fn incident_time(text: &str) -> Result<Duration, String> {
    time_within(INCIDENT_MIN, INCIDENT_TIME_MAX, text)
        .ok_or_else(|| "expected a number and `s`, `min`, `h` or `d`, from 1s to 366d, like 30min".to_owned())
}
