//! Captures, read for `detector replay` and `detector fingerprint`: pcap and pcapng files in, Ethernet frames in order of time out.
//!
//! The field decoding is `pcap-parser`'s. The framing is ours, in `input`, so that memory is bounded by
//! [`MAX_BLOCK_BYTES`] and not by what a file claims, and so that every error names a byte offset.

mod input;
mod link;
mod merge;
mod pcapng;
mod reader;

#[cfg(test)]
mod fixtures;

use std::io;
use std::path::PathBuf;

pub use merge::Merge;
pub use reader::Reader;

/// The shortest [`Frame`], in bytes: an Ethernet header. The kernel shows an XDP program no less.
pub const MIN_FRAME_BYTES: usize = 14;

/// The longest [`Frame`], in bytes: an Ethernet header and the longest IPv4 packet.
pub const MAX_FRAME_BYTES: usize = MIN_FRAME_BYTES + 65_535;

/// The most bytes that one packet may have captured. The same as libpcap's `MAXIMUM_SNAPLEN`.
pub const MAX_CAPTURED_BYTES: usize = 256 * 1024;

/// The longest pcapng block that is held in memory, in bytes: a packet and its options. Blocks of kinds that
/// carry no packet are skipped without being held, whatever their length.
pub const MAX_BLOCK_BYTES: usize = 1024 * 1024;

/// The longest time from the first packet to another, in nanoseconds: 18 years. The clock of the budgets has little more.
pub const SPAN_NS_MAX: u64 = SPAN_YEARS_MAX * YEAR_NS;

const SPAN_YEARS_MAX: u64 = 18;
const YEAR_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// The most interfaces that one section of a pcapng file may describe.
pub const MAX_INTERFACES: usize = 65_536;

const _: () = assert!(MAX_FRAME_BYTES < MAX_CAPTURED_BYTES && MAX_CAPTURED_BYTES < MAX_BLOCK_BYTES);

/// One frame as the XDP program will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When the frame was captured, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The Ethernet frame, from [`MIN_FRAME_BYTES`] to [`MAX_FRAME_BYTES`] long. As long as it was on the
    /// wire: what the capture did not keep is zeros.
    pub data: Vec<u8>,
    /// Bytes of it that the capture kept.
    pub captured_bytes: usize,
}

/// Why a capture cannot be read, or be read further.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no such file.
    #[error("open capture {}: there is no such file; check the path", path.display())]
    NotFound {
        /// The capture.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("open capture {}: it is a directory; name the capture files in it", path.display())]
    Directory {
        /// The capture.
        path: PathBuf,
    },
    /// The file may not be read by this user.
    #[error("open capture {}: permission denied; make it readable or run as its owner", path.display())]
    Permission {
        /// The capture.
        path: PathBuf,
    },
    /// The operating system failed to open or read the file.
    #[error("read capture {} at byte {offset}: {source}; check the disk or the pipe", path.display())]
    Io {
        /// The capture.
        path: PathBuf,
        /// Where the record being read starts, in bytes from the start of the file.
        offset: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file has no bytes at all.
    #[error("read capture {}: the file is empty, not even a header; capture again", path.display())]
    Empty {
        /// The capture.
        path: PathBuf,
    },
    /// The file is compressed.
    #[error("read capture {}: it is compressed with {format}; decompress it first: {command}", path.display())]
    Compressed {
        /// The capture.
        path: PathBuf,
        /// The name of the compression format.
        format: &'static str,
        /// A command that decompresses it.
        command: &'static str,
    },
    /// The file does not start as a capture does.
    #[error(
        "read capture {}: it starts with {found}, expected the magic number of pcap or pcapng; \
         name a capture, or convert it with `editcap -F pcapng`",
        path.display()
    )]
    NotACapture {
        /// The capture.
        path: PathBuf,
        /// The first bytes of the file, in hexadecimal.
        found: String,
    },
    /// The file ends in the middle of a record or of its header.
    #[error(
        "read capture {}: the file ends in the middle of the record at byte {offset} (whole packets \
         before it: {packets}): found {found_bytes} of the {expected_bytes} bytes expected so far; replay the complete file, \
         or cut it cleanly with `editcap` or `tcpdump -r IN -w OUT`",
        path.display()
    )]
    Truncated {
        /// The capture.
        path: PathBuf,
        /// How many packets were read before.
        packets: u64,
        /// Where the record starts, in bytes from the start of the file.
        offset: u64,
        /// How many bytes of the record had to be there, as far as it was read.
        expected_bytes: u64,
        /// How many bytes of the record are there.
        found_bytes: u64,
    },
    /// A record contradicts itself or goes beyond what is read.
    #[error(
        "read capture {}: the record at byte {offset} (whole packets before it: {packets}) is malformed: {what}; \
         replay an undamaged copy, or cut it before this record with `editcap`",
        path.display()
    )]
    Malformed {
        /// The capture.
        path: PathBuf,
        /// How many packets were read before.
        packets: u64,
        /// Where the record starts, in bytes from the start of the file.
        offset: u64,
        /// What was found and what was expected.
        what: String,
    },
    /// A packet comes later than the clock reaches.
    #[error(
        "read capture {}: packet {packet} is {} years after the first packet, which is of capture {}; expected at most \
         {SPAN_YEARS_MAX}: one of the two has a wrong time, or none; leave it out, the first one with `editcap IN OUT 1`",
        path.display(),
        after_ns / YEAR_NS,
        first.display()
    )]
    Span {
        /// The capture.
        path: PathBuf,
        /// The packet, from 1.
        packet: u64,
        /// The time since the first packet of all captures, in nanoseconds.
        after_ns: u64,
        /// The capture that the first packet is of.
        first: PathBuf,
    },
    /// The packets start with a header that is not turned into an Ethernet header.
    #[error(
        "read capture {}: link type {number} ({name}) cannot become Ethernet frames, expected one of {}; \
         capture on an Ethernet interface, or on the wired side of an access point",
        path.display(),
        link::SUPPORTED
    )]
    UnsupportedLink {
        /// The capture.
        path: PathBuf,
        /// The number of the link type, from the registry at <https://www.tcpdump.org/linktypes.html>.
        number: u32,
        /// The name of the link type, without `LINKTYPE_`.
        name: &'static str,
    },
}
