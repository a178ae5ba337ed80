//! One capture: what kind of file it is, and its frames one after the other.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use pcap_parser::nom::{self, IResult, Needed};
use pcap_parser::{LegacyPcapBlock, PcapError, PcapHeader};

use super::input::{Input, read_up_to};
use super::link::{self, Link};
use super::pcapng::Pcapng;
use super::{CaptureError, Frame, MAX_CAPTURED_BYTES};

const PCAPNG_MAGIC: [u8; 4] = pcap_parser::SHB_MAGIC.to_be_bytes();
const PCAP_HEADER_BYTES: usize = 24;
const PCAP_RECORD_HEADER_BYTES: usize = 16;

/// First bytes, name and way out of the compressions that captures come in.
const COMPRESSIONS: &[(&[u8], &str, &str)] = &[
    (&[0x1f, 0x8b], "gzip", "`gzip -dc IN > OUT`"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "`zstd -dc IN > OUT`"),
    (&[0xfd, b'7', b'z', b'X'], "xz", "`xz -dc IN > OUT`"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", "`lz4 -dc IN > OUT`"),
    (b"BZh", "bzip2", "`bzip2 -dc IN > OUT`"),
];

/// The frames of one pcap or pcapng file, in the order of the file.
///
/// Reads forward only, so pipes do as well as files. Memory does not grow with the file.
pub struct Reader {
    input: Input,
    format: Format,
    ended: bool,
}

enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

impl Reader {
    /// Opens a capture and reads its header.
    ///
    /// # Errors
    /// If the file cannot be opened, is no capture, or is a pcap file of a link type that is not supported.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let owned = || path.to_owned();
        let error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CaptureError::NotFound { path: owned() },
            io::ErrorKind::PermissionDenied => CaptureError::Permission { path: owned() },
            _ => CaptureError::Io { path: owned(), offset: 0, source },
        };
        let file = File::open(path).map_err(error)?;
        if file.metadata().map_err(error)?.is_dir() {
            return Err(CaptureError::Directory { path: owned() });
        }
        Self::new(path, file)
    }

    /// Reads a capture from a source that is open; errors call it `path`.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(path: &Path, mut source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let mut magic = [0; 4];
        let found = read_up_to(&mut source, &mut magic).map_err(|source| CaptureError::Io {
            path: path.to_owned(),
            offset: 0,
            source,
        })?;
        let first = &magic[..found];
        if first.is_empty() {
            return Err(CaptureError::Empty { path: path.to_owned() });
        }
        if let Some((_, format, command)) = COMPRESSIONS.iter().find(|(start, ..)| first.starts_with(start)) {
            return Err(CaptureError::Compressed { path: path.to_owned(), format, command });
        }
        let mut input = Input::new(path, Box::new(Cursor::new(magic).take(found as u64).chain(source)));
        let format = if first == PCAPNG_MAGIC {
            Format::Pcapng(Pcapng::default())
        } else if is_pcap(first) {
            Format::Pcap(Pcap::open(&mut input)?)
        } else {
            let found = first.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            return Err(CaptureError::NotACapture { path: path.to_owned(), found });
        };
        Ok(Self { input, format, ended: false })
    }

    /// The capture, and the number of the last frame, from 1.
    pub(super) fn place(&self) -> (&Path, u64) {
        (self.input.path(), self.input.packets)
    }

    /// The next frame. None at the end of the capture, and ever after an end or an error.
    ///
    /// # Errors
    /// If the file cannot be read, is cut off or malformed, or has a packet of a link type that is not
    /// supported.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        let next = match &mut self.format {
            Format::Pcap(pcap) => pcap.next_frame(&mut self.input),
            Format::Pcapng(pcapng) => pcapng.next_frame(&mut self.input),
        };
        self.ended = !matches!(next, Ok(Some(_)));
        self.input.packets += u64::from(!self.ended);
        next
    }
}

/// The link type of a number, or the error that there is no support for it.
pub(super) fn supported_link(input: &Input, number: u32) -> Result<Link, CaptureError> {
    let unsupported =
        || CaptureError::UnsupportedLink { path: input.path().to_owned(), number, name: link::name(number) };
    Link::from_number(number).ok_or_else(unsupported)
}

/// Refuses a packet that captured more than is read.
pub(super) fn check_captured(input: &Input, captured_bytes: usize) -> Result<(), CaptureError> {
    if captured_bytes <= MAX_CAPTURED_BYTES {
        return Ok(());
    }
    let what = format!("a packet of {captured_bytes} captured bytes, expected {MAX_CAPTURED_BYTES} at most");
    Err(input.malformed(what))
}

type ParseRecord = fn(&[u8]) -> IResult<&[u8], LegacyPcapBlock<'_>, PcapError<&[u8]>>;

/// The pcap format: one header, then records of one link type and one resolution of time.
struct Pcap {
    link: Link,
    fraction_ns: u64,
    parse_record: ParseRecord,
}

/// The parser knows all magic numbers; of a known one alone it asks for the rest of the header.
fn is_pcap(magic: &[u8]) -> bool {
    matches!(pcap_parser::parse_pcap_header(magic), Err(nom::Err::Incomplete(_))) && magic.len() == 4
}

impl Pcap {
    fn open(input: &mut Input) -> Result<Self, CaptureError> {
        input.begin(PCAP_HEADER_BYTES)?;
        let Ok((_, header)) = pcap_parser::parse_pcap_header(input.record()) else {
            return Err(input.malformed("expected the header of a pcap file"));
        };
        if header.version_major != 2 {
            let PcapHeader { version_major, version_minor, .. } = header;
            return Err(
                input.malformed(format!("pcap version {version_major}.{version_minor}, expected 2.4"))
            );
        }
        // The upper six bits tell about frame check sequences; libpcap's LT_LINKTYPE masks them too.
        let link = supported_link(input, header.network.0.cast_unsigned() & 0x03ff_ffff)?;
        let parse_record: ParseRecord = match (header.is_modified_format(), header.is_bigendian()) {
            (true, _) => pcap_parser::parse_pcap_frame_modified,
            (false, true) => pcap_parser::parse_pcap_frame_be,
            (false, false) => pcap_parser::parse_pcap_frame,
        };
        let fraction_ns = if header.is_nanosecond_precision() { 1 } else { 1_000 };
        Ok(Self { link, fraction_ns, parse_record })
    }

    fn next_frame(&self, input: &mut Input) -> Result<Option<Frame>, CaptureError> {
        if !input.begin(PCAP_RECORD_HEADER_BYTES)? {
            return Ok(None);
        }
        loop {
            let missing = match (self.parse_record)(input.record()) {
                Ok((_, record)) => {
                    check_captured(input, record.data.len())?;
                    // At most 2^32 * (10^9 + 10^3): no overflow.
                    let time_ns = u64::from(record.ts_sec) * 1_000_000_000
                        + u64::from(record.ts_usec) * self.fraction_ns;
                    let data = self.link.to_ethernet(record.data, record.origlen);
                    let captured_bytes = self.link.captured_bytes(record.data).min(data.len());
                    return Ok(Some(Frame { time_ns, data, captured_bytes }));
                }
                Err(nom::Err::Incomplete(Needed::Size(missing))) => missing.get(),
                Err(_) => return Err(input.malformed("expected the record of a packet")),
            };
            check_captured(input, missing)?;
            input.extend(missing)?;
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
