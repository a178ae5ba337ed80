//! `run`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;
use detector_common::limits::{SOURCES_DEFAULT, SOURCES_MAX};

use super::{ApiArgs, NoticeArgs, StateArgs};
use crate::{fleets::Scale, guard::Share, kernel::pins::DEFAULT_ROOT, traffic::DEFAULT_RUN_DIRECTORY};

pub(super) const RUN_NOTES: &str = "\
SIGHUP reads the policy again; a bad one is logged and changes nothing.
SIGTERM and Ctrl-C detach and remove everything, unless --keep.
After SIGKILL the kernel goes on filtering: run it again, or unload.
Rules about nearly everyone are refused here too, at the start and on SIGHUP, unless they were applied with --force \
before. On SIGHUP what locks somebody out or drops too much is refused, too; at the start it is a warning.
Fleets are looked for unless the policy says `[fleets] mode = \"off\"`, see `detector fleets --help`; that takes about 0.8 GB \
of memory for a million sources a day, as measured on simulated ones.
The variable DETECTOR_LOG chooses levels, like `debug`; without it `info`.

Examples:
  detector run --iface eth0 --iface eth1 --policy /etc/detector/policy.toml
  detector run --iface eth0 --policy policy.toml --sources 2000000 --json 2>>detector.log";

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
    /// Apply also rules about nearly everyone, which `check` says need to be forced; the other guards ask all the same.
    #[arg(long)]
    pub force: bool,
    /// Where to serve OpenMetrics at /metrics, or `off`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9477")]
    pub metrics: MetricsAddress,
    /// Where to keep what was seen of the last minute, for `plan` and `apply`: 24 bytes for each source, twice.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIRECTORY)]
    pub run_dir: PathBuf,
    /// Share of the packets of the last minute that a reload on SIGHUP, or a change over the API, may newly drop.
    #[arg(long, value_name = "SHARE", default_value = "5%")]
    pub max_drop: Share,
    /// Length of an epoch in which fleets are looked for, from 100ms to 1h. What is usual is learned over so many epochs: with 60s a day
    /// of it is a day, with 1s it is 24 minutes, as for a demonstration.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub fleet_epoch: Scale,
    /// Where to write who belongs to which fleet, or may, as CSV; replaced as a whole when that changed, which a look each 15 epochs finds.
    #[arg(long, value_name = "FILE")]
    pub fleet_feed: Option<PathBuf>,
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
