//! What is about the policy and its versions: `check`, `apply`, `confirm`, `rollback`, `history`, `show`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{ChangeArgs, WriteArgs, time_within};
use crate::{change::CONFIRM_TIME_MAX, policy::incident::reason};

pub(super) const CHECK_NOTES: &str = "\
Exit codes: 0 valid, warnings or not; 2 invalid, with every error at its line and column.

Example:
  detector check policy.toml --json | jq '.warnings'";

pub(super) const SCHEMA_NOTES: &str = "\
For editors and for programs that write policies. It takes every policy that check takes, and knows less: not \
whether a name refers to something, for one. Dates and times are texts to it.

Example:
  detector schema > policy.schema.json";

pub(super) const APPLY_NOTES: &str = "\
The whole policy takes effect at once, or nothing changes.
Without --force it is refused (2) if it would lock out your SSH peer, by its address or by the SYN that it sends or may \
send, the default gateway, a DNS resolver in use or what `defaults.allow` names so far, or newly drop too much of the \
traffic. `detector plan` says so before.
Exit codes: 0 applied, 2 invalid or refused, 1 nothing is loaded or the kernel refuses.
The file of a running daemon stays as it is, and its next SIGHUP applies that one again.
With --confirm the kernel goes back by itself when the time is over, also when no daemon lives then.
Each different policy is a version in the history, with its source files; what cannot be recorded is applied \
nevertheless, with a warning.

Examples:
  detector check new.toml && detector apply new.toml --reason 'CHG-12: twice the rate'
  detector apply new.toml --confirm 60s   # look whether all is well, then
  detector confirm";

pub(super) const CONFIRM_NOTES: &str = "\
Exit codes: 0 kept, 1 nothing waits to be confirmed (any more).";

pub(super) const ROLLBACK_NOTES: &str = "\
Without VERSION: from a policy on trial to the one before, without waiting for its time; else from the active \
version to the one before it. That of a version that is another one again is the one before that other: each \
rollback goes further back.
With VERSION: that one's text and source files, as they were, become a new version.
The file of a running daemon stays as it is, and its next SIGHUP applies that one again.
Exit codes: 0 done, 1 there is nothing to go back to, or the kernel refuses, 2 no such version, or it needs --force.

Examples:
  detector rollback --reason 'INC-4711: clients of the partner are limited'
  detector rollback 12 --confirm 60s";

pub(super) const HISTORY_NOTES: &str = "\
CHANGES counts lines of the policy and of its source files, held against the version before.
The last 1,000 versions are kept, of 512 MiB of texts and source files (each distinct one counted once) at most, \
and the last 100,000 audit entries; the active version stays in any case.
Several instances may share a state directory: each has its own versions, by the directory of its pins.

Examples:
  detector history
  detector history 12                     # what version 12 changed, by whom and why
  detector history --audit --limit 100    # every change, also refused ones";

pub(super) const SHOW_NOTES: &str = "\
--effective reads the pinned maps alone: it needs neither the daemon nor the history.

Examples:
  detector show > as-applied.toml
  detector show 12
  detector show --effective --json | jq '.services[].budgets'";

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
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// How it is done, and recorded.
    #[command(flatten)]
    pub change: ChangeArgs,
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
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// How it is done, and recorded.
    #[command(flatten)]
    pub change: ChangeArgs,
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

/// The shortest time that a policy may wait to be confirmed.
const CONFIRM_MIN: Duration = Duration::from_secs(1);

fn confirm_time(text: &str) -> Result<Duration, String> {
    time_within(CONFIRM_MIN, CONFIRM_TIME_MAX, text)
        .ok_or_else(|| "expected a number and `s`, `min` or `h`, from 1s to 24h, like 60s".to_owned())
}
