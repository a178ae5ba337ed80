//! Where a memory is kept over restarts: a file with all of it, written anew now and then, and the epochs since in a journal.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use super::{
    journal::{self, Journal},
    limits::{JOURNAL_BYTES_MAX, SAVE_EVERY_S},
    memory::{Epoch, Memory},
    saved::{self, Digest, FORMAT},
    scale::Scale,
};

/// The directory of memories in the state directory; in it each instance has its own.
const DIRECTORY: &str = "fleets";

/// Why a memory cannot be saved or restored.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file or its directory.
    #[error(
        "cannot {what} {path} of the memory of fleets: {source}; make it writable, or name another directory with --state"
    )]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is none of ours, or damaged.
    #[error(
        "{path} is no memory of fleets, or a damaged one: {found}; restore it from a backup, or move it away to begin anew"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// Another version wrote it.
    #[error(
        "{path} was written by another version of detector (format {found}, this one reads {FORMAT}): use that one, or begin anew"
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its windows are of other lengths.
    #[error("{path} is of epochs of {found}, and these are of {expected}: its windows are of other lengths")]
    OtherScale {
        /// The file.
        path: PathBuf,
        /// Its length of an epoch.
        found: Scale,
        /// The one that is asked for.
        expected: Scale,
    },
}

/// What was found when a memory was opened.
#[derive(Debug)]
pub enum Restored {
    /// Nothing: it is a new one.
    New,
    /// A memory, and so many epochs after it.
    Memory {
        /// Epochs that were not in it yet.
        epochs: usize,
        /// What is wrong with the epochs after those, which are lost.
        damage: Option<String>,
    },
    /// One that cannot be used, and lies beside the new one.
    Refused {
        /// Why.
        why: StoreError,
        /// Where it is now.
        kept: PathBuf,
    },
}

/// The place of one instance's memory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// What epochs are added to; `None`: the memory was saved, and no journal that follows it could be begun.
    journal: Option<Journal>,
    /// The digest of the memory that was saved last, or why it could not be saved since it was opened: then no epoch can follow it.
    follows: Result<Digest, StoreError>,
    saved_at_s: u64,
}

impl Store {
    /// The directory of an instance, which its pins name, in a state directory.
    pub fn directory(state: &Path, pins: &Path) -> PathBuf {
        let names = pins.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy()),
            _ => None,
        });
        state.join(DIRECTORY).join(names.collect::<Vec<_>>().join("-"))
    }

    /// Opens the memory in a directory, or a new one where there is none or none that can be used; the latter is kept aside.
    ///
    /// `now_s`: seconds since the Unix epoch. `new`: a new one.
    ///
    /// # Errors
    ///
    /// Files cannot be read, or one that cannot be used not be put aside. Where the memory cannot be saved again it is there all the same, see
    /// [`unsaved`](Self::unsaved).
    pub fn open(
        directory: &Path,
        scale: Scale,
        now_s: u64,
        new: impl FnOnce() -> Memory,
    ) -> Result<(Self, Memory, Restored), StoreError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| StoreError::Io { what: "make", path: directory.to_owned(), source })?;
        let (memory, restored) = match restore(directory, scale) {
            Ok(Some((memory, epochs, damage))) => (memory, Restored::Memory { epochs, damage }),
            Ok(None) => (new(), Restored::New),
            Err(error @ StoreError::Io { .. }) => return Err(error),
            Err(why) => {
                let kept = put_aside(directory)?;
                (new(), Restored::Refused { why, kept })
            }
        };
        let (follows, journal) = match save(directory, &memory) {
            Ok((follows, journal)) => (Ok(follows), Some(journal)),
            // What is on disk stays as it is: it is what this one was restored from.
            Err(error) => (Err(error), None),
        };
        let saved_at_s = if follows.is_ok() { now_s } else { 0 };
        Ok((Self { directory: directory.to_owned(), journal, follows, saved_at_s }, memory, restored))
    }

    /// Why the memory could not be saved since it was opened: what comes is not kept before it is. `None`: it is.
    pub fn unsaved(&self) -> Option<&StoreError> {
        self.follows.as_ref().err()
    }

    /// Keeps an epoch that the memory is about to take: when this returns, no crash loses it.
    ///
    /// # Errors
    ///
    /// It cannot be written. While the memory itself is [unsaved](Self::unsaved) nothing is kept, and that is no error of this one.
    pub fn keep(&mut self, epoch: &Epoch) -> Result<(), StoreError> {
        let Ok(follows) = &self.follows else { return Ok(()) };
        if self.journal.is_none() {
            self.journal = Some(Journal::begin(&journal_in(&self.directory), follows)?);
        }
        self.journal.as_mut().map_or(Ok(()), |journal| journal.add(epoch))
    }

    /// Whether the memory is to be saved as a whole again.
    pub fn is_due(&self, now_s: u64) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.bytes() > JOURNAL_BYTES_MAX)
            || now_s >= self.saved_at_s + SAVE_EVERY_S
    }

    /// Saves all of a memory.
    ///
    /// # Errors
    ///
    /// It cannot be written; what was saved before stays, with the epochs since.
    pub fn save(&mut self, memory: &Memory, now_s: u64) -> Result<(), StoreError> {
        // Also after one that fails: the next attempt has its time.
        self.saved_at_s = now_s;
        let follows = saved::write(&memory_in(&self.directory), memory)?;
        self.follows = Ok(follows);
        // Between these two a crash leaves a journal of the memory before, whose epochs are in this one: it is passed over. So no epoch may follow
        // there, also if another journal cannot be begun.
        self.journal = None;
        self.journal = Some(Journal::begin(&journal_in(&self.directory), &follows)?);
        Ok(())
    }
}

fn save(directory: &Path, memory: &Memory) -> Result<(Digest, Journal), StoreError> {
    let follows = saved::write(&memory_in(directory), memory)?;
    let journal = Journal::begin(&journal_in(directory), &follows)?;
    Ok((follows, journal))
}

fn memory_in(directory: &Path) -> PathBuf {
    directory.join("memory")
}

fn journal_in(directory: &Path) -> PathBuf {
    directory.join("epochs")
}

type Found = (Memory, usize, Option<String>);

fn restore(directory: &Path, scale: Scale) -> Result<Option<Found>, StoreError> {
    let path = memory_in(directory);
    let Some((mut memory, digest)) = saved::read(&path)? else { return Ok(None) };
    if memory.scale() != scale {
        return Err(StoreError::OtherScale { path, found: memory.scale(), expected: scale });
    }
    let (epochs, damage) = journal::read(&journal_in(directory), &digest)?;
    for epoch in &epochs {
        // What was found then is in the fleets.
        let _ = memory.take(epoch);
    }
    Ok(Some((memory, epochs.len(), damage)))
}

/// Moves a memory that cannot be used, and its epochs, out of the way of a new one; one that was kept so before gives way.
fn put_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    let kept = memory_in(directory).with_extension("refused");
    for (path, to) in [
        (memory_in(directory), kept.clone()),
        (journal_in(directory), journal_in(directory).with_extension("refused")),
    ] {
        match fs::rename(&path, to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { what: "move", path, source }),
        }
    }
    Ok(kept)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
