//! `fleets`.

use clap::Args;

use super::WriteArgs;
use crate::policy::incident::reason;

pub(super) const FLEETS_NOTES: &str = "\
A fleet is one actor behind many sources, each of them below every limit. The daemon learns what is
usual at a service first: of windows of an hour two and a half days, of a day three and a half (`run --fleet-epoch`). It is
found by what new sources have in common: how much each does, the way to it, sizes; never by one of
these alone. With an id, one screen: what speaks for it, in numbers, what innocent thing it could be,
and what acting on it would cost.
Works with the daemon dead, by what it told last; a fleet that was forgotten since is in the history,
with some of its members.

Examples:
  detector fleets
  detector fleets 3
  detector throttle fleet:3 --for 1h --reason 'INC-4711: copies our catalogue'
  detector allow fleet:3 --for 24h --reason 'INC-4711: a partner'
  detector undo fleet:3
  detector fleets --stop --reason 'INC-4712: customers call'
  detector fleets --json | jq -r '.fleets[] | select(.state == \"active\") | .members[]'";

/// `fleets`.
#[derive(Debug, Args)]
pub struct FleetsArgs {
    /// The number of one of them.
    pub id: Option<u64>,
    /// Ends all actions on fleets, at once and until `--resume`; needs no daemon.
    #[arg(long, requires = "reason", conflicts_with_all = ["id", "resume"])]
    pub stop: bool,
    /// Lets the daemon act on fleets again.
    #[arg(long, conflicts_with = "id")]
    pub resume: bool,
    /// Why, for the colleagues who find it.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Whose, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}
