//! `fleets`.

use clap::Args;

use super::WriteArgs;

pub(super) const FLEETS_NOTES: &str = "\
A fleet is one actor behind many sources, each of them below every limit. The daemon learns what is
usual at a service first: of windows of an hour two days, of a day five (`run --fleet-epoch`). It is
found by what new sources have in common: how much each does, the way to it, sizes; never by one of
these alone. With an id, one screen: what speaks for it, in numbers, what innocent thing it could be,
and what acting on it would cost.
Works with the daemon dead, by what it told last; a fleet that was forgotten since is in the history,
with some of its members.

Examples:
  detector fleets
  detector fleets 3
  detector fleets --json | jq -r '.fleets[] | select(.state == \"active\") | .members[]'";

/// `fleets`.
#[derive(Debug, Args)]
pub struct FleetsArgs {
    /// The number of one of them.
    pub id: Option<u64>,
    /// Whose, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}
