//! A look as a file: little-endian words, replaced whole by a rename.

use std::{
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Count, Head, Look};

/// The first bytes: what it is, and its version.
const MAGIC: [u8; 8] = *b"detlook1";
/// Bytes before the counts: magic, clock, identity, ways, number of counts.
const HEAD_BYTES: usize = 5 * 8;
/// Bytes of a count.
const COUNT_BYTES: usize = 24;

/// A file that is there and is of no use.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot {verb} {path}: {source}; give another directory with --run-dir")]
    Io {
        /// What was being done.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is not what a daemon of this version keeps of the traffic ({found}): remove it")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
}

/// The looks of a directory, the older one first.
pub(super) fn paths(directory: &Path) -> [PathBuf; 2] {
    [directory.join("traffic.before"), directory.join("traffic")]
}

/// Keeps a look as the newest of a directory, and the one that was as the older. Counts are written as they come: those of
/// a large table need no memory beside the file's.
pub(super) fn keep(
    head: Head,
    counts: impl Iterator<Item = Count>,
    directory: &Path,
) -> Result<(), FileError> {
    let error = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Io { verb, path, source }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(error("make the directory", directory))?;
    let next = directory.join("traffic.next");
    write(head, counts, &next).map_err(error("write", &next))?;
    let [before, newest] = paths(directory);
    for (from, to) in [(&newest, &before), (&next, &newest)] {
        match fs::rename(from, to) {
            // The first look has none before it.
            Err(missing) if missing.kind() == io::ErrorKind::NotFound && from == &newest => {}
            result => result.map_err(error("rename", from))?,
        }
    }
    Ok(())
}

/// Removes what is kept in a directory.
pub(super) fn remove(directory: &Path) {
    for path in paths(directory) {
        // A look of the past is of no use and does no harm.
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_dir(directory);
}

fn write(head: Head, counts: impl Iterator<Item = Count>, path: &Path) -> io::Result<()> {
    // Addresses are not in it, but counters are nobody else's business.
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut file = io::BufWriter::with_capacity(1 << 16, file);
    file.write_all(&[0; HEAD_BYTES])?;
    let mut length = 0_u64;
    for count in counts {
        file.write_all(&count.way.to_le_bytes())?;
        file.write_all(&count.owner.to_le_bytes())?;
        file.write_all(&count.traffic.to_le_bytes())?;
        file.write_all(&count.outcomes.to_le_bytes())?;
        length += 1;
    }
    file.rewind()?;
    file.write_all(&MAGIC)?;
    for word in [head.at_ns, head.identity, head.ways, length] {
        file.write_all(&word.to_le_bytes())?;
    }
    file.flush()
}

/// Reads a look; `None`: there is no such file.
pub(super) fn load(path: &Path) -> Result<Option<Look>, FileError> {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Io { verb: "read", path: path.to_owned(), source }),
    }
    parse(&bytes).map(Some).map_err(|found| FileError::Foreign { path: path.to_owned(), found })
}

fn parse(bytes: &[u8]) -> Result<Look, String> {
    let Some((head, counts)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Err(format!("{} bytes, at least {HEAD_BYTES} expected", bytes.len()));
    };
    let (magic, head) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err("it begins otherwise".to_owned());
    }
    let mut words = head.chunks_exact(8).map(word);
    let mut next = || words.next().unwrap_or_default();
    let (at_ns, identity, ways, length) = (next(), next(), next(), next());
    if counts.len() as u64 != length.saturating_mul(COUNT_BYTES as u64) {
        return Err(format!("{} bytes of counts, {length} times {COUNT_BYTES} expected", counts.len()));
    }
    let counts = counts.chunks_exact(COUNT_BYTES).map(|bytes| Count {
        way: word(&bytes[..4]) as u32,
        owner: word(&bytes[4..8]) as u32,
        traffic: word(&bytes[8..16]),
        outcomes: word(&bytes[16..]),
    });
    Ok(Look { head: Head { at_ns, identity, ways }, counts: counts.collect() })
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_ns: u64, ways: u32) -> Look {
        let count =
            |way| Count { way, owner: !way, traffic: u64::from(way) << 33 | 7, outcomes: 1 << 63 | 9 };
        let head = Head { at_ns, identity: 0xfeed_0123_4567_89ab, ways: 80 };
        Look { head, counts: (0..ways).map(count).collect() }
    }

    #[test]
    fn the_last_two_looks_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("run");
        let [before, newest] = paths(&directory);
        assert_eq!(load(&newest).unwrap(), None);
        for at in 1..=3 {
            let Look { head, counts } = look(at, 5 * at as u32);
            keep(head, counts.into_iter(), &directory).unwrap();
        }
        assert_eq!(load(&newest).unwrap(), Some(look(3, 15)));
        assert_eq!(load(&before).unwrap(), Some(look(2, 10)));
        remove(&directory);
        assert!(!directory.exists());
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let Look { head, counts } = look(1, 3);
        keep(head, counts.into_iter(), directory.path()).unwrap();
        let bytes = fs::read(directory.path().join("traffic")).unwrap();
        assert!(parse(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        let mut other = bytes;
        other[7] = b'2';
        assert!(parse(&other).is_err());
    }
}
