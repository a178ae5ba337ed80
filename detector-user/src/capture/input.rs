//! The bytes of one capture, record by record: where the reader is, and what is wrong there.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::CaptureError;

/// The size of one read from the operating system, in bytes.
const READ_BYTES: usize = 128 * 1024;

/// A capture as a stream of records. Holds one record at a time, in a buffer that is reused.
pub(super) struct Input {
    path: PathBuf,
    source: BufReader<Box<dyn Read + Send>>,
    /// Where the current record starts, in bytes from the start of the file.
    offset: u64,
    /// How many bytes of the current record were consumed, kept or skipped.
    consumed: u64,
    /// The bytes of the current record that were kept.
    record: Vec<u8>,
    /// How many packets were handed out.
    pub(super) packets: u64,
}

impl Input {
    pub(super) fn new(path: &Path, source: Box<dyn Read + Send>) -> Self {
        Self {
            path: path.to_owned(),
            source: BufReader::with_capacity(READ_BYTES, source),
            offset: 0,
            consumed: 0,
            record: Vec::new(),
            packets: 0,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was kept of the current record.
    pub(super) fn record(&self) -> &[u8] {
        &self.record
    }

    /// Starts the next record with its first `len` bytes. False if the file ends before it.
    pub(super) fn begin(&mut self, len: usize) -> Result<bool, CaptureError> {
        self.offset = self.offset.saturating_add(self.consumed);
        self.consumed = 0;
        self.record.clear();
        match self.extend(len) {
            Err(CaptureError::Truncated { found_bytes: 0, .. }) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Keeps `len` more bytes of the current record. The caller bounds `len`.
    pub(super) fn extend(&mut self, len: usize) -> Result<(), CaptureError> {
        let start = self.record.len();
        self.record.resize(start.saturating_add(len), 0);
        let found =
            read_up_to(&mut self.source, &mut self.record[start..]).map_err(|source| self.io(source))?;
        self.advance(len as u64, found as u64)
    }

    /// Passes over `len` bytes of the current record without keeping them.
    pub(super) fn skip(&mut self, len: u64) -> Result<(), CaptureError> {
        let found = io::copy(&mut self.source.by_ref().take(len), &mut io::sink());
        let found = found.map_err(|source| self.io(source))?;
        self.advance(len, found)
    }

    /// The error that the current record is malformed. `what` says what was found and what was expected.
    pub(super) fn malformed(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Malformed {
            path: self.path.clone(),
            packets: self.packets,
            offset: self.offset,
            what: what.into(),
        }
    }

    /// The memory that the capture takes, in bytes.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.source.capacity() + self.record.capacity()
    }

    fn advance(&mut self, expected: u64, found: u64) -> Result<(), CaptureError> {
        let before = self.consumed;
        self.consumed = before.saturating_add(found);
        if found == expected {
            return Ok(());
        }
        Err(CaptureError::Truncated {
            path: self.path.clone(),
            packets: self.packets,
            offset: self.offset,
            expected_bytes: before.saturating_add(expected),
            found_bytes: self.consumed,
        })
    }

    fn io(&self, source: io::Error) -> CaptureError {
        CaptureError::Io { path: self.path.clone(), offset: self.offset, source }
    }
}

/// Fills `buffer` as far as the source reaches, through short reads of pipes and signals. Returns how far.
pub(super) fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
