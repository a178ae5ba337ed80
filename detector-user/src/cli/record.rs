//! What is about observations: `record`, `hunt`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;

use super::{ReadArgs, time_within};

pub(super) const RECORD_NOTES: &str = "\
A row for each epoch, service, source and pair of fingerprints that was active; docs/reference.md has the columns. Rows \
are counted from the second look on, so nothing that came before is in them.
A file is there under its name when it is finished: after its time, on Ctrl-C or SIGTERM.
With --json, an object a line for each epoch.
Exit codes: 0 it ended by --for, Ctrl-C or SIGTERM, 1 nothing is loaded (any more; what was recorded is kept), or the \
directory cannot be written, 2 an option is wrong.

Examples:
  detector record /var/lib/detector/observations
  detector record here --epoch 1s --for 1min      # a short look at what is going on";

/// `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Where to; it is made if it is not there.
    pub directory: PathBuf,
    /// Length of an epoch, from 1s to 1h.
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = epoch_time)]
    pub epoch: Duration,
    /// Time that a file is for, from 1min to 1d.
    #[arg(long, value_name = "TIME", default_value = "15min", value_parser = file_time)]
    pub file: Duration,
    /// Bytes of recordings to keep, like 10GB: the oldest make room.
    #[arg(long, value_name = "BYTES", default_value = "10GB")]
    pub keep: Bytes,
    /// End after this time, like 10min; without it, on Ctrl-C or SIGTERM.
    #[arg(long = "for", value_name = "TIME", value_parser = record_time)]
    pub time: Option<Duration>,
    /// Name of this node in the rows; without it, that of the machine.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the maps are, and how to answer.
    #[command(flatten)]
    pub read: ReadArgs,
}

pub(super) const HUNT_NOTES: &str = "\
Works on recordings of `detector record`, of one node or of several, and needs no root. Nothing is reported before it has \
learned what is usual at a service: that takes two and a half days for windows of an hour, three and a half for windows \
of a day; with --state it goes on where another one ended. An epoch counts as a minute of that time, however long it is: \
in recordings of one-second epochs, days last 24 minutes.
A fleet is told as it was when the recordings ended. Fleets that are found in simulated rows say nothing certain about \
real ones; there is no public set of both.
A daemon begins with what was learned if it finds the file of --save-state when it starts, as \
`fleets/sys-fs-bpf-detector/memory` in its state directory (of pins in /sys/fs/bpf/detector), and if the epochs are as \
long as its --fleet-epoch.
Exit codes: 0 searched, whether or not there are fleets, 2 a file is no recording, epochs are of several lengths or \
services too many, or --state is missing, damaged or of another version, 1 a file cannot be read or written.

Examples:
  detector hunt /var/lib/detector/observations
  detector hunt monday.parquet tuesday.parquet --json | jq -r '.fleets[].members[]'
  detector hunt january --save-state learned
  detector hunt february --state learned";

/// `hunt`.
#[derive(Debug, Args)]
pub struct HuntArgs {
    /// Recordings, or directories of such.
    #[arg(required = true, value_name = "RECORDING")]
    pub recordings: Vec<PathBuf>,
    /// Sources to remember for two weeks, each at each service: 3.6 bytes for each.
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub sources: u64,
    /// Begin with what was learned before: a file that --save-state wrote.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Keep what was learned in this file, for --state, or for a daemon to begin with (see below).
    #[arg(long, value_name = "FILE")]
    pub save_state: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn epoch_time(text: &str) -> Result<Duration, String> {
    time_within(SECOND, HOUR, text).ok_or_else(|| "expected a time from 1s to 1h, like 1min".to_owned())
}

fn file_time(text: &str) -> Result<Duration, String> {
    time_within(60 * SECOND, DAY, text)
        .ok_or_else(|| "expected a time from 1min to 1d, like 15min".to_owned())
}

fn record_time(text: &str) -> Result<Duration, String> {
    time_within(SECOND, 365 * DAY, text)
        .ok_or_else(|| "expected a time from 1s to 365d, like 10min".to_owned())
}

/// A number of bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(u64);

impl Bytes {
    /// The number.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a number and `MB`, `GB` or `TB`, like 10GB".to_owned();
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim() {
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(expected()),
        };
        let count: u64 = count.parse().map_err(|_| expected())?;
        count.checked_mul(unit).filter(|bytes| *bytes > 0).map(Self).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!("10GB".parse(), Ok(Bytes(10_000_000_000)));
        assert_eq!("5 MB".parse(), Ok(Bytes(5_000_000)));
        for wrong in ["10", "0GB", "GB", "1.5GB", "-1GB", "10GiB", "99999999999TB"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }
}
