//! A recording that is being written: where no more can be, it still ends well.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use parquet::errors::ParquetError;

use super::error::{Loss, RecordingError};

/// Ends the name of a recording that is being written.
pub(super) const PART: &str = ".part";

/// The file of a recording that is being written. A footer stands after its row groups, which the next ones are written over: where those
/// find no room, that of the footer is still there, and it is written anew.
pub(super) struct Part {
    file: File,
    name: PathBuf,
    /// Its name when it is finished.
    path: PathBuf,
    /// Where its row groups end.
    end: u64,
    footer: Vec<u8>,
    /// Rows that can be read.
    kept: u64,
}

impl Part {
    /// Begins one that will have a name.
    pub(super) fn create(path: PathBuf) -> Result<Self, RecordingError> {
        let mut name = path.clone().into_os_string();
        name.push(PART);
        let name = PathBuf::from(name);
        let file = File::create_new(&name).map_err(|error| unwritten(&name, error))?;
        Ok(Self { file, name, path, end: 0, footer: Vec::new(), kept: 0 })
    }

    /// Rows that can be read.
    pub(super) const fn kept(&self) -> u64 {
        self.kept
    }

    /// Appends row groups and a footer, with which it has so many rows. Where that fails, it is as it was before.
    pub(super) fn append(&mut self, groups: &[u8], footer: Vec<u8>, rows: u64) -> io::Result<()> {
        if let Err(error) = self.end_with(groups, &footer) {
            let shorter = self.file.set_len(self.end + self.footer.len() as u64);
            if shorter.and_then(|()| self.end_with(&[], &self.footer)).is_err() {
                self.kept = 0;
            }
            return Err(error);
        }
        self.end += groups.len() as u64;
        (self.footer, self.kept) = (footer, rows);
        Ok(())
    }

    fn end_with(&self, groups: &[u8], footer: &[u8]) -> io::Result<()> {
        let end = self.end + groups.len() as u64;
        self.file.write_all_at(groups, self.end)?;
        self.file.write_all_at(footer, end)?;
        self.file.set_len(end + footer.len() as u64)
    }

    /// Gives it its name, for good.
    pub(super) fn finish(self) -> Result<PathBuf, RecordingError> {
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.name, &self.path));
        done.map_err(|error| unwritten(&self.path, error).and_lost(self.kept))?;
        Ok(self.path)
    }

    /// Finishes it as far as it could be written, and makes the error of what it could not: of so many rows, it has some.
    pub(super) fn cut(self, rows: u64, source: ParquetError) -> RecordingError {
        let (path, kept) = (self.path.clone(), self.kept);
        let kept = if kept > 0 && self.finish().is_ok() { kept } else { 0 };
        RecordingError::Write { path, source, loss: Loss { kept, lost: rows - kept } }
    }
}

/// The error of a file of which no row is told.
pub(super) fn unwritten(path: &Path, error: io::Error) -> RecordingError {
    RecordingError::Write { path: path.to_owned(), source: error.into(), loss: Loss::default() }
}

#[cfg(test)]
impl Part {
    /// Its disk is full from now on: of the file there is a copy, which is given. Only its last page is its to fill.
    pub(super) fn fill_disk(&mut self) -> File {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

        self.file = memfd_create("full", MemfdFlags::ALLOW_SEALING).expect("a file in memory").into();
        let bytes = fs::read(&self.name).expect("bytes");
        self.file.write_all_at(&bytes, 0).expect("a copy");
        self.file.set_len(bytes.len().next_multiple_of(4096) as u64).expect("whole pages");
        fcntl_add_seals(&self.file, SealFlags::GROW).expect("a seal");
        self.file.try_clone().expect("the copy")
    }
}
