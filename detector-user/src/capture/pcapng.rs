//! The pcapng format: sections of blocks, interfaces with their own link types and clocks.
//!
//! The specification is draft-ietf-opsawg-pcapng. Only blocks that describe interfaces or carry packets are
//! parsed; all others are passed over.

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{
    BOM_MAGIC, Block, EPB_MAGIC, IDB_MAGIC, InterfaceDescriptionBlock, OptionCode, SHB_MAGIC, SPB_MAGIC,
};

use super::input::Input;
use super::reader::{check_captured, supported_link};
use super::{CaptureError, Frame, MAX_BLOCK_BYTES, MAX_INTERFACES};

/// The Packet Block, which the Enhanced Packet Block made obsolete and old files have.
const PB_MAGIC: u32 = 2;
/// Type and total length before a block's body; the total length again after it.
const HEAD_BYTES: usize = 8;
const TAIL_BYTES: usize = 4;

/// What was read so far that later blocks need.
#[derive(Default)]
pub(super) struct Pcapng {
    big_endian: bool,
    /// Of the current section.
    interfaces: Vec<Interface>,
    /// The time of the packet before, in nanoseconds: Simple Packet Blocks have none of their own.
    last_time_ns: u64,
}

/// What an Interface Description Block says about the packets of its interface.
struct Interface {
    link_number: u32,
    /// The most bytes of a packet that were captured. Zero is no limit.
    snap_len: u32,
    resolution: u8,
    offset_s: i64,
}

/// A packet as its block has it.
struct Packet<'a> {
    interface: u32,
    /// In units of the interface. None for the time of the packet before.
    ticks: Option<u64>,
    captured: &'a [u8],
    wire_len: u32,
}

impl Pcapng {
    pub(super) fn next_frame(&mut self, input: &mut Input) -> Result<Option<Frame>, CaptureError> {
        while let Some(block_type) = self.read_block(input)? {
            let parse =
                if self.big_endian { pcap_parser::parse_block_be } else { pcap_parser::parse_block_le };
            if !is_of_interest(block_type) {
                continue;
            }
            let Ok((_, block)) = parse(input.record()) else {
                let what = format!("the fields of a block of type {block_type} do not fit its length");
                return Err(input.malformed(what));
            };
            let packet = match block {
                Block::SectionHeader(section) if section.major_version != 1 => {
                    let version = format!("{}.{}", section.major_version, section.minor_version);
                    return Err(input.malformed(format!("pcapng version {version}, expected 1.0")));
                }
                Block::SectionHeader(_) => {
                    self.interfaces.clear();
                    continue;
                }
                Block::InterfaceDescription(_) if self.interfaces.len() >= MAX_INTERFACES => {
                    let what = format!("one interface more than the {MAX_INTERFACES} that are read");
                    return Err(input.malformed(what));
                }
                Block::InterfaceDescription(block) => {
                    self.interfaces.push(Interface::new(&block, self.big_endian));
                    continue;
                }
                Block::EnhancedPacket(ref block) => Some(Packet {
                    interface: block.if_id,
                    ticks: Some(join(block.ts_high, block.ts_low)),
                    captured: block.packet_data(),
                    wire_len: block.origlen,
                }),
                Block::SimplePacket(ref block) => Some(Packet {
                    interface: 0,
                    ticks: None,
                    captured: block.packet_data(),
                    wire_len: block.origlen,
                }),
                Block::Unknown(ref block) => obsolete_packet(block.data, self.big_endian),
                _ => continue,
            };
            let Some(packet) = packet else {
                return Err(input.malformed("a Packet Block shorter than its packet"));
            };
            let frame = self.frame(input, &packet)?;
            self.last_time_ns = frame.time_ns;
            return Ok(Some(frame));
        }
        Ok(None)
    }

    fn frame(&self, input: &Input, packet: &Packet<'_>) -> Result<Frame, CaptureError> {
        let Some(interface) = usize::try_from(packet.interface).ok().and_then(|id| self.interfaces.get(id))
        else {
            let (id, known) = (packet.interface, self.interfaces.len());
            return Err(input.malformed(format!("a packet of interface {id}, the section describes {known}")));
        };
        let time_ns = match packet.ticks {
            None => self.last_time_ns,
            Some(ticks) => interface.time_ns(ticks).ok_or_else(|| {
                let Interface { resolution, offset_s, .. } = interface;
                let units = format!("{ticks} units of if_tsresol {resolution} and {offset_s} s");
                input.malformed(format!("a time of {units}, expected one from the years 1970 to 2554"))
            })?,
        };
        let mut captured = packet.captured;
        // A Simple Packet Block does not tell its captured length: the block's padding must not count.
        if packet.ticks.is_none() && interface.snap_len != 0 {
            let snap_len = usize::try_from(interface.snap_len).unwrap_or(usize::MAX);
            captured = &captured[..captured.len().min(snap_len)];
        }
        check_captured(input, captured.len())?;
        let link = supported_link(input, interface.link_number)?;
        let data = link.to_ethernet(captured, packet.wire_len);
        let captured_bytes = link.captured_bytes(captured).min(data.len());
        Ok(Frame { time_ns, data, captured_bytes })
    }

    /// Reads one block. Returns its type; the block is `input.record()` if it is of interest.
    fn read_block(&mut self, input: &mut Input) -> Result<Option<u32>, CaptureError> {
        if !input.begin(HEAD_BYTES)? {
            return Ok(None);
        }
        // The type of a section header reads the same in both byte orders. What follows it tells the order.
        let is_section = self.u32_at(input.record(), 0) == SHB_MAGIC;
        if is_section {
            input.extend(4)?;
            self.big_endian = match word(input.record(), HEAD_BYTES) {
                bytes if bytes == BOM_MAGIC.to_be_bytes() => true,
                bytes if bytes == BOM_MAGIC.to_le_bytes() => false,
                bytes => return Err(input.malformed(format!("a byte-order magic of {bytes:02x?}"))),
            };
        }
        let (block_type, len) = (self.u32_at(input.record(), 0), self.u32_at(input.record(), 4));
        let kept = input.record().len();
        let Some(body) = usize::try_from(len).ok().and_then(|len| len.checked_sub(kept + TAIL_BYTES)) else {
            return Err(
                input.malformed(format!("a block of {len} bytes, expected {} at least", kept + TAIL_BYTES))
            );
        };
        if len % 4 != 0 {
            return Err(input.malformed(format!("a block of {len} bytes, expected a multiple of 4")));
        }
        if !is_of_interest(block_type) {
            input.skip(body as u64)?;
        } else if body + kept + TAIL_BYTES <= MAX_BLOCK_BYTES {
            input.extend(body)?;
        } else {
            return Err(
                input.malformed(format!("a block of {len} bytes, expected {MAX_BLOCK_BYTES} at most"))
            );
        }
        input.extend(TAIL_BYTES)?;
        let tail = self.u32_at(input.record(), input.record().len() - TAIL_BYTES);
        if tail != len {
            return Err(
                input.malformed(format!("a block that starts as {len} bytes and ends as {tail} bytes long"))
            );
        }
        Ok(Some(block_type))
    }

    fn u32_at(&self, bytes: &[u8], offset: usize) -> u32 {
        let word = word(bytes, offset);
        if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }
}

impl Interface {
    /// Options are looked up here, since `pcap-parser` reads `if_tsoffset` as little-endian in every section
    /// and goes on behind the end of the options.
    fn new(block: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        let mut interface = Self {
            link_number: block.linktype.0.cast_unsigned(),
            snap_len: block.snaplen,
            resolution: 6,
            offset_s: 0,
        };
        for option in block.options.iter().take_while(|option| option.code != OptionCode::EndOfOpt) {
            match (option.code, option.as_bytes()) {
                (OptionCode::IfTsresol, Ok(&[resolution])) => interface.resolution = resolution,
                (OptionCode::IfTsoffset, Ok(bytes)) => {
                    let Some(&bytes) = bytes.as_array() else { continue };
                    interface.offset_s =
                        if big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
                _ => {}
            }
        }
        interface
    }

    /// Nanoseconds since the Unix epoch, rounded down. None if before it or beyond 64 bits.
    ///
    /// The resolution is computed here, since `pcap-parser` refuses all negative powers of 2.
    fn time_ns(&self, ticks: u64) -> Option<u64> {
        let exponent = u32::from(self.resolution & 0x7f);
        let since_offset_ns = if self.resolution & 0x80 != 0 {
            // 64 bits times 30 bits.
            (u128::from(ticks) * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            u128::from(ticks) * 10_u128.pow(9 - exponent)
        } else {
            // More digits than 128 bits have are less than a nanosecond of any 64 bits of ticks.
            10_u128.checked_pow(exponent - 9).map_or(0, |units| u128::from(ticks) / units)
        };
        let offset_ns = i128::from(self.offset_s) * 1_000_000_000;
        u64::try_from(i128::try_from(since_offset_ns).ok()?.checked_add(offset_ns)?).ok()
    }
}

fn is_of_interest(block_type: u32) -> bool {
    matches!(block_type, SHB_MAGIC | IDB_MAGIC | EPB_MAGIC | SPB_MAGIC | PB_MAGIC)
}

/// The body of a Packet Block: interface and drop count of 16 bits each, then as an Enhanced Packet Block.
fn obsolete_packet(body: &[u8], big_endian: bool) -> Option<Packet<'_>> {
    let (head, rest) = body.split_first_chunk::<20>()?;
    let u32_at = |offset| {
        let word = word(head, offset);
        if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    let interface = [head[0], head[1]];
    let interface = if big_endian { u16::from_be_bytes(interface) } else { u16::from_le_bytes(interface) };
    Some(Packet {
        interface: u32::from(interface),
        ticks: Some(join(u32_at(4), u32_at(8))),
        captured: rest.get(..usize::try_from(u32_at(12)).ok()?)?,
        wire_len: u32_at(16),
    })
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Four bytes; the callers read that many before.
fn word(bytes: &[u8], offset: usize) -> [u8; 4] {
    bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "pcapng_tests.rs"]
mod tests;
