//! The epochs since a memory was saved, one after the other. What a crash cut off at the end is not read.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    limits::EPOCH_BYTES_MAX,
    memory::Epoch,
    saved::{Digest, FORMAT, ZSTD_LEVEL, unpacked},
    store::StoreError,
};

/// How such a file begins; then come its format and the digest of the memory that its epochs follow.
const MAGIC: &[u8; 16] = b"detector epochs\n";

const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>() + size_of::<Digest>();

/// Before each epoch stand its bytes, and so many bytes of its SHA-256.
const CHECK_BYTES: usize = 8;

/// A journal that is written to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Whether an epoch was not written to its end: nothing behind it would be read.
    is_torn: bool,
}

fn head(follows: &Digest) -> Vec<u8> {
    [MAGIC.as_slice(), &FORMAT.to_le_bytes(), follows].concat()
}

impl Journal {
    /// Begins one that follows a memory, in the place of the one before.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn begin(path: &Path, follows: &Digest) -> Result<Self, StoreError> {
        let new = path.with_extension("new");
        let failed = |source| StoreError::Io { what: "write", path: new.clone(), source };
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        file.write_all(&head(follows)).and_then(|()| file.sync_data()).map_err(failed)?;
        fs::rename(&new, path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes: 0, is_torn: false })
    }

    /// Adds an epoch: when this returns, no crash loses it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn add(&mut self, epoch: &Epoch) -> Result<(), StoreError> {
        let written = (|| {
            let plain = postcard::to_stdvec(epoch).map_err(io::Error::other)?;
            let packed = zstd::encode_all(plain.as_slice(), ZSTD_LEVEL)?;
            let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
            let frame = [&length.to_le_bytes(), &check(&packed)[..], &packed].concat();
            let end = HEAD_BYTES as u64 + self.bytes;
            if self.is_torn {
                self.file.set_len(end)?;
            }
            self.is_torn = true;
            self.file.write_all_at(&frame, end)?;
            self.file.sync_data()?;
            self.is_torn = false;
            Ok(frame.len() as u64)
        })();
        self.bytes +=
            written.map_err(|source| StoreError::Io { what: "write", path: self.path.clone(), source })?;
        Ok(())
    }

    /// Bytes of the epochs in it.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn check(packed: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: Digest = Sha256::digest(packed).into();
    std::array::from_fn(|place| digest[place])
}

/// The epochs that follow a memory, and what is wrong with those that cannot be read: nothing after them is. None where there is no
/// journal, or one that follows another memory: its epochs are in this one.
///
/// # Errors
///
/// It cannot be read.
pub fn read(path: &Path, follows: &Digest) -> Result<(Vec<Epoch>, Option<String>), StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
        Err(source) => return Err(StoreError::Io { what: "read", path: path.to_owned(), source }),
    };
    let head = head(follows);
    debug_assert_eq!(head.len(), HEAD_BYTES);
    let Some(mut rest) = bytes.strip_prefix(head.as_slice()) else {
        let is_older = bytes.len() >= HEAD_BYTES && bytes.starts_with(MAGIC);
        let found = (!is_older).then(|| "it does not begin as one".to_owned());
        return Ok((Vec::new(), found));
    };
    let mut epochs = Vec::new();
    while !rest.is_empty() {
        match next(rest) {
            Ok((epoch, after)) => {
                epochs.push(epoch);
                rest = after;
            }
            Err(found) => return Ok((epochs, Some(found))),
        }
    }
    Ok((epochs, None))
}

/// The first epoch, and what follows it.
fn next(bytes: &[u8]) -> Result<(Epoch, &[u8]), String> {
    let cut_off = || "it ends in an epoch".to_owned();
    let (length, bytes) = bytes.split_first_chunk().ok_or_else(cut_off)?;
    let (told, bytes) = bytes.split_first_chunk::<CHECK_BYTES>().ok_or_else(cut_off)?;
    let (packed, rest) = bytes.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut_off)?;
    if check(packed) != *told {
        return Err("the checksum of an epoch is wrong".to_owned());
    }
    let plain = unpacked(packed, EPOCH_BYTES_MAX).map_err(|error| error.to_string())?;
    Ok((postcard::from_bytes(&plain).map_err(|error| error.to_string())?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleets::fixtures;

    /// As a full disk leaves it: more of a frame than the next one has.
    #[test]
    fn an_epoch_that_was_not_written_hides_none_that_follow() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("epochs");
        let follows = Digest::default();
        let mut journal = Journal::begin(&path, &follows).expect("a journal");
        let epochs = [0, 1].map(fixtures::epoch);
        journal.add(&epochs[0]).expect("it is written");
        let end = HEAD_BYTES as u64 + journal.bytes;
        let file = std::mem::replace(&mut journal.file, File::open(&path).expect("to be read"));
        assert!(journal.add(&epochs[1]).is_err(), "it cannot be written to");
        file.write_all_at(&[7; 1 << 16], end).expect("it is written");
        journal.file = file;
        journal.add(&epochs[1]).expect("it is written");
        let (found, damage) = read(&path, &follows).expect("it is read");
        assert_eq!((found.len(), damage), (2, None));
        assert_eq!(found[1].start_s, epochs[1].start_s);
    }
}
