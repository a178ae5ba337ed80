//! Options of what looks at the traffic: `plan`, `victims`, and the guards of `apply`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{ReadArgs, time_within};
use crate::{guard::Share, traffic::DEFAULT_RUN_DIRECTORY};

pub(super) const PLAN_NOTES: &str = "\
Packets dropped are estimated: the traffic that was seen is stretched to a minute, in which every budget starts \
full. Packets without an entry in the table, and those of no service so far, are not seen.
Exit codes: 0 compared, whatever came out, 2 invalid, 1 nothing is loaded.

Examples:
  detector plan new.toml
  detector plan new.toml --json | jq '.impact.victims[].source'";

pub(super) const VICTIMS_NOTES: &str = "\
Both are counted. A source is shown with the class that it has now: for a minute after a rule left mode `shadow`, \
DROPPED/S has what would have been dropped before.

Examples:
  detector victims                        # who is dropped, or would be without shadow
  detector victims --rule INC-4711 --json";

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The policy.
    pub file: PathBuf,
    /// Sources named that would be dropped, and that would no longer be, of each at most so many.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub victims: usize,
    /// How much a change may drop.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `victims`.
#[derive(Debug, Args)]
pub struct VictimsArgs {
    /// Only the sources of this rule.
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,
    /// Rows.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,
    /// Where the traffic is known from.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// How much a change may drop, and of which traffic.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Share of the packets of the last minute that a change may newly drop.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    pub max_drop: Share,
    /// Where the traffic is known from.
    #[command(flatten)]
    pub traffic: TrafficArgs,
}

/// Where the traffic of the last minute is known from.
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// Where the daemon keeps what it saw of the last minute.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIRECTORY)]
    pub run_dir: PathBuf,
    /// Look at the traffic for this time, like 2s or 1min, instead. Without a daemon that saw some, 2s.
    #[arg(long, value_name = "TIME", value_parser = sample_time)]
    pub sample: Option<Duration>,
}

/// How long a command may look at the traffic itself.
const SAMPLE_MIN: Duration = Duration::from_secs(1);
const SAMPLE_MAX: Duration = Duration::from_secs(600);

fn sample_time(text: &str) -> Result<Duration, String> {
    time_within(SAMPLE_MIN, SAMPLE_MAX, text)
        .ok_or_else(|| "expected a number and `s` or `min`, from 1s to 10min, like 2s".to_owned())
}
