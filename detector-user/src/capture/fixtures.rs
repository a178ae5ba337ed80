//! Capture files built by hand, for tests.

use std::io::Cursor;
use std::path::Path;

use super::{CaptureError, Frame, Reader};

/// Reads these bytes as the capture `test.pcap`.
pub(super) fn reader(bytes: &[u8]) -> Result<Reader, CaptureError> {
    Reader::new(Path::new("test.pcap"), Cursor::new(bytes.to_vec()))
}

/// All frames of these bytes, and the error that ended them if any. Checks what holds for every frame.
pub(super) fn read(bytes: &[u8]) -> (Vec<Frame>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut reader = match reader(bytes) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error)),
    };
    let error = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(reader.next_frame().unwrap(), None, "after the end there is nothing");
    assert!(frames.iter().all(|frame| (14..=65_549).contains(&frame.data.len())));
    (frames, error)
}

/// All frames of a capture that is whole.
pub(super) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let (frames, error) = read(bytes);
    assert!(error.is_none(), "{}", error.unwrap());
    frames
}

/// An Ethernet header whose EtherType is 0x88 and `tag`.
pub(super) fn frame_of(tag: u8) -> [u8; 14] {
    [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, tag]
}

/// A pcap file.
#[derive(Clone)]
pub(super) struct Pcap {
    pub(super) big_endian: bool,
    pub(super) nanoseconds: bool,
    pub(super) link: u32,
    /// Time in nanoseconds, what was captured, length on the wire.
    pub(super) packets: Vec<(u64, Vec<u8>, u32)>,
}

impl Default for Pcap {
    fn default() -> Self {
        Self { big_endian: false, nanoseconds: false, link: 1, packets: Vec::new() }
    }
}

impl Pcap {
    pub(super) fn packet(mut self, time_ns: u64, captured: &[u8], wire_len: u32) -> Self {
        self.packets.push((time_ns, captured.to_vec(), wire_len));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Words { big_endian: self.big_endian, bytes: Vec::new() };
        out.u32(if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
        out.u16(2).u16(4).u32(0).u32(0).u32(65_535).u32(self.link);
        let unit_ns = if self.nanoseconds { 1 } else { 1_000 };
        for (time_ns, captured, wire_len) in &self.packets {
            out.u32((time_ns / 1_000_000_000) as u32).u32((time_ns % 1_000_000_000 / unit_ns) as u32);
            out.u32(captured.len() as u32).u32(*wire_len).raw(captured);
        }
        out.bytes
    }
}

/// A pcapng file, or a section of one.
#[derive(Clone)]
pub(super) struct Ng(Words);

impl Ng {
    /// Starts a file with a section header.
    pub(super) fn new(big_endian: bool) -> Self {
        let ng = Self(Words { big_endian, bytes: Vec::new() });
        ng.block(0x0a0d_0d0a, |body| body.u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX))
    }

    /// Options are code and value.
    pub(super) fn interface(self, link: u16, snap_len: u32, options: &[(u16, &[u8])]) -> Self {
        self.block(1, |body| body.u16(link).u16(0).u32(snap_len).options(options))
    }

    pub(super) fn enhanced(self, interface: u32, ticks: u64, captured: &[u8], wire_len: u32) -> Self {
        self.block(6, |body| {
            body.u32(interface).u32((ticks >> 32) as u32).u32(ticks as u32);
            body.u32(captured.len() as u32).u32(wire_len).raw(captured).pad().options(&[(1, b"a comment")])
        })
    }

    pub(super) fn simple(self, captured: &[u8], wire_len: u32) -> Self {
        self.block(3, |body| body.u32(wire_len).raw(captured).pad())
    }

    pub(super) fn obsolete(self, interface: u16, ticks: u64, captured: &[u8], wire_len: u32) -> Self {
        self.block(2, |body| {
            body.u16(interface).u16(7).u32((ticks >> 32) as u32).u32(ticks as u32);
            body.u32(captured.len() as u32).u32(wire_len).raw(captured).pad()
        })
    }

    pub(super) fn block(mut self, block_type: u32, fill: impl FnOnce(&mut Words) -> &mut Words) -> Self {
        let mut body = Words { big_endian: self.0.big_endian, bytes: Vec::new() };
        fill(&mut body);
        let len = body.bytes.len() as u32 + 12;
        self.0.u32(block_type).u32(len).raw(&body.bytes).u32(len);
        self
    }

    /// Another section after this one.
    pub(super) fn then(mut self, next: &Self) -> Self {
        self.0.raw(&next.0.bytes);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.bytes.clone()
    }
}

/// Bytes with a byte order.
#[derive(Clone)]
pub(super) struct Words {
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Words {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() })
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() })
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(super) fn pad(&mut self) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0xee);
        self
    }

    pub(super) fn options(&mut self, options: &[(u16, &[u8])]) -> &mut Self {
        for (code, value) in options {
            self.u16(*code).u16(value.len() as u16).raw(value).pad();
        }
        if options.is_empty() { self } else { self.u32(0) }
    }
}
