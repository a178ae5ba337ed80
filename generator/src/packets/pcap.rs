//! Frames in a file (draft-ietf-opsawg-pcap): times in ns, Ethernet.

use std::io::{self, Write};

/// Magic number of times in ns, version 2.4, time zone, accuracy, longest packet, link type.
const HEADER: [u32; 6] = [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, 1 << 16, 1];

/// Writes frames, one after the other.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn new(mut out: W) -> io::Result<Self> {
        for word in HEADER {
            out.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { out })
    }

    /// Adds a frame that came at a time, ns since 1970.
    pub fn write(&mut self, time_ns: u64, frame: &[u8]) -> io::Result<()> {
        let length = frame.len() as u32;
        let head = [(time_ns / 1_000_000_000) as u32, (time_ns % 1_000_000_000) as u32, length, length];
        for word in head {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(frame)
    }

    /// What it was written to, with all frames in it.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
