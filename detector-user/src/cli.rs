//! The command line.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use detector_common::limits::{SOURCES_DEFAULT, SOURCES_MAX};

use crate::kernel::pins::DEFAULT_ROOT;

/// Exit codes, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 done or enforcing, 10 not enforcing, 11 degraded (needs a hand), \
1 could not tell or could not be done, 2 usage or invalid input.";

/// An edge rate limiter for Linux: per-source limits at the driver.
#[derive(Debug, Parser)]
#[command(name = "detector", version, about = "An edge rate limiter for Linux: per-source limits at the driver", after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the program, apply a policy, attach to interfaces, and stay in the foreground.
    Run(RunArgs),
    /// Check a policy. Needs no root and no kernel.
    Check(CheckArgs),
    /// Apply a policy to the loaded program. Every budget keeps its state.
    Apply(ApplyArgs),
    /// Say what is enforced, where, and how full the tables are. Works with the daemon dead.
    Status(ReadArgs),
    /// Say how an address stands: class, rule, every budget and what is left of it. Works with the daemon dead.
    Explain(ExplainArgs),
    /// Show the sources with the most packets. Works with the daemon dead.
    Top(TopArgs),
    /// Run captures through the kernel program, with their own clock, and say what a policy would have done.
    Replay(ReplayArgs),
    /// Detach from all interfaces and remove every pin.
    Unload(UnloadArgs),
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
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogForm::Human)]
    pub log: LogForm,
    /// Sampled drops sent to the daemon, at most so many a second; 0: none.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub events: u32,
    /// Log of the kernel program itself: 0 (off, costs nothing), 1 (error) to 5 (trace).
    #[arg(long, value_name = "LEVEL", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub kernel_log: u8,
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

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// A line for people.
    Human,
    /// An object a line.
    Json,
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
