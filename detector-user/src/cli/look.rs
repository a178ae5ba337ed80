//! What only looks: `status`, `explain`, `top`, `replay`, `fingerprint`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use detector_common::limits::{FINGERPRINTS, SOURCES_DEFAULT, SOURCES_MAX};

use super::{ReadArgs, WriteArgs};
use crate::commands::top::fingerprints::Of;

pub(super) const STATUS_NOTES: &str = "\
The line `fleets:` is about looking for fleets: what it does, how many there are and are throttled, and what is wrong \
with it, which is a reason for 11.
Exit codes: 0 enforcing, 10 not enforcing (shadow, limits nothing, not loaded), 11 degraded (needs a hand), \
1 could not tell.";

pub(super) const EXPLAIN_NOTES: &str = "\
What was seen of a source is counted from its entry on, modulo 2^32: bytes start again every 4 GiB.
It names the fleets that the source belongs to, or may, and the fleet that it or one of its clients is charged as now. \
Works with the daemon dead; whether it belongs to a fleet is then what one told last, and whether it is charged what the \
kernel does.
Exit codes: 0 told, 2 no address, 1 nothing is loaded, or the maps cannot be read.

Examples:
  detector explain 198.51.100.7
  detector explain 2001:db8::1 --json     # an IPv6 address is counted with its /64";

pub(super) const TOP_NOTES: &str = "\
Packets, bytes and connections are counted modulo 2^32: bytes start again every 4 GiB. Rates are not
affected.

Examples:
  detector top                            # a table every second, until Ctrl-C
  detector top --once --rows 5 --json
  detector top fingerprints               # clients by their software";

const TOP_FINGERPRINTS_NOTES: &str = "\
A fingerprint is counted at each service from its first whole ClientHello on. Times are medians of
histograms whose parts double. The daemon gives the names: a fingerprint has none until an exemplar
of it came, and those that were given stay without a daemon.

Over QUIC the ClientHello is encrypted. There a connection is counted by the shape of its first
packet, kind `initial`: version:length of the connection ids of server and client:token:size of the
datagram. The daemon opens what the program sends it of new shapes and of one connection in 1,024:
the JA4 is that of the client which was opened last, and other clients may have the same shape.

Examples:
  detector top fingerprints --kind tls
  detector top fingerprints --service api --json | jq -r '.top[] | .stable_ja4'";

pub(super) const REPLAY_NOTES: &str = "\
Needs root for the kernel program, and touches no interface and nothing that is loaded.
A source is an IPv4 address or an IPv6 /64: with --expect-pass, a longer prefix stands for its /64.
WOULD DROP counts packets that mode `shadow` alone let pass: to --expect-pass they are limited.
Exit codes: 0 replayed, 2 invalid, 3 something of --expect-pass is limited or nothing of it seen,
1 could not be done.

Examples:
  detector replay before.pcap during.pcapng --policy new.toml
  detector replay before.pcap --policy new.toml --expect-pass customers.txt";

pub(super) const FINGERPRINT_NOTES: &str = "\
Each capture is taken by itself; it may begin in the midst of connections. As root every frame
also goes through the program in the kernel; without, its keys are computed here alone.
A flow is listed where its first ClientHello is whole: over TCP, also after a dialogue with a
proxy or STARTTLS, or in the Initials of QUIC.

With --json, an object a line for each flow. What is not known is null. `ja4_raw` has the lists
that `ja4` has the hashes of (JA4_r); `syn` is the SYN's signature in the form of p0f; `syn_key`
and `tls_key` are what the program counts by; `in_kernel` says that it came to `tls_key` itself;
`label` is software that is known to have that JA4: others may use the same library, or
imitate it.

Examples:
  detector fingerprint edge.pcap
  detector fingerprint edge.pcap --json | jq -r .ja4 | sort | uniq -c
  detector fingerprint monday.pcap tuesday.pcapng --all";

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An IPv4 or IPv6 address.
    pub address: std::net::IpAddr,
    /// Where the maps are, where fleets are told of, and how to answer.
    #[command(flatten)]
    pub write: WriteArgs,
}

/// `top`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct TopArgs {
    /// What instead of sources.
    #[command(subcommand)]
    pub of: Option<TopOf>,
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

/// What `top` shows instead of sources.
#[derive(Debug, Subcommand)]
pub enum TopOf {
    /// Show the fingerprints of clients with the most handshakes.
    #[command(after_help = TOP_FINGERPRINTS_NOTES)]
    Fingerprints(TopFingerprintsArgs),
}

/// `top fingerprints`.
#[derive(Debug, Args)]
pub struct TopFingerprintsArgs {
    /// Only those of this service.
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only those taken from this.
    #[arg(long)]
    pub kind: Option<Of>,
    /// Rows.
    #[arg(long, value_name = "N", default_value_t = FINGERPRINTS)]
    pub rows: usize,
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
    /// Fail when a source of these addresses or prefixes is limited: a file with one a line, `#` before comments.
    #[arg(long, value_name = "FILE")]
    pub expect_pass: Option<PathBuf>,
    /// Active sources that the table is sized for.
    #[arg(long, value_name = "N", default_value_t = SOURCES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(SOURCES_MAX)))]
    pub sources: u32,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `fingerprint`.
#[derive(Debug, Args)]
pub struct FingerprintArgs {
    /// pcap or pcapng files.
    #[arg(required = true, value_name = "CAPTURE")]
    pub captures: Vec<PathBuf>,
    /// List TCP flows without a ClientHello too.
    #[arg(long)]
    pub all: bool,
    /// Answer as JSON, an object a line.
    #[arg(long)]
    pub json: bool,
}
