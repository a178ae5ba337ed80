//! Atomic operations on words of map values, which other CPUs and the daemon read and write at the same time.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr,
};

use detector_common::budget::Word;

/// The address of a word of a map value.
macro_rules! word {
    ($value:expr, $field:ident) => {
        // SAFETY: takes an address and reads nothing; the pointer comes from a map lookup, and the verifier checks what
        // is done with it.
        unsafe { &raw mut (*$value).$field }
    };
}

pub(crate) use word;

/// A word of a map value, for the budgets of `detector-common`.
#[derive(Clone, Copy)]
pub(crate) struct MapWord(pub(crate) *mut u64);

impl Word for MapWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        load(self.0)
    }

    #[inline(always)]
    fn swap(&self, expected: u64, new: u64) -> Result<(), u64> {
        swap(self.0, expected, new)
    }

    #[inline(always)]
    fn add(&self, amount: u64) -> u64 {
        add(self.0, amount)
    }
}

/// Reads a word that other CPUs and the daemon may write. A volatile load: the BPF back end has no atomic one, and an
/// aligned load of 8 bytes is one access.
#[inline(always)]
pub(crate) fn load(word: *const u64) -> u64 {
    // SAFETY: callers pass a field of a map value that the verifier knows to be in bounds.
    unsafe { ptr::read_volatile(word) }
}

/// Writes a word that no other CPU writes at the same time, or whose last writer may win.
#[inline(always)]
pub(crate) fn store(word: *mut u64, value: u64) {
    // SAFETY: as for `load`.
    unsafe { ptr::write_volatile(word, value) }
}

/// Puts `new` in place of `expected`; the word that was there if it was another. A full barrier.
#[inline(always)]
pub(crate) fn swap(word: *mut u64, expected: u64, new: u64) -> Result<(), u64> {
    // SAFETY: as for `load`.
    let (seen, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, expected, new)
    };
    if seen == expected { Ok(()) } else { Err(seen) }
}

/// Adds, wrapping; the word that was there.
#[inline(always)]
pub(crate) fn add(word: *mut u64, amount: u64) -> u64 {
    // SAFETY: as for `load`.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) }
}
