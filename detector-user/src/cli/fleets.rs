//! `fleets`.

use clap::Args;

use super::WriteArgs;
use crate::policy::incident::reason;

pub(super) const FLEETS_NOTES: &str = "\
A fleet is one actor behind many sources, each of them below every limit. The daemon looks for fleets unless the policy \
says `[fleets] mode = \"off\"`, and acts on none unless the policy says \"throttle\" or somebody orders it.
Nothing is reported before it has learned what is usual at a service: that takes two and a half days for windows of an \
hour, three and a half for windows of a day (with epochs of a minute, see `run --fleet-epoch`). A fleet is found by what \
new sources have in common: how much each does, the way to it, sizes; never by one of these alone.
With an ID, one screen: what speaks for it, in numbers, what innocent thing it could be, what acting on it would cost, \
what is done about it and what every guard says.
Works with the daemon dead, by what it told last; a fleet that was forgotten since is in the history, with some of its \
members.
Exit codes: 0 told or done, also where there are no fleets, 2 no such fleet, or what was told is damaged, 1 it cannot \
be read, or the switch cannot be turned.

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
    /// The number of one of them: all that is known of it, and why it is or is not acted on.
    pub id: Option<u64>,
    /// End all actions on fleets, at once and until `--resume`, also over restarts; needs no daemon, but --reason.
    #[arg(long, requires = "reason", conflicts_with_all = ["id", "resume"])]
    pub stop: bool,
    /// Let the daemon act on fleets again.
    #[arg(long, conflicts_with = "id")]
    pub resume: bool,
    /// Why, for the colleagues who find it.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Whose, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}
