//! Array maps in this process's memory: reading a million entries costs no syscall.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsRawFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Pod, maps::MapData};

/// Whether a mapping may be written through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// An array map with `BPF_F_MMAPABLE`, mapped. Elements are read and written in words of 8 bytes, each of them whole;
/// an element of several words may be seen half changed.
#[derive(Debug)]
pub struct Mapped<T> {
    base: NonNull<u64>,
    bytes: NonZeroUsize,
    elements: usize,
    access: Access,
    _element: PhantomData<T>,
}

// SAFETY: the mapping is valid in the whole process, and its words are read and written by volatile accesses only.
unsafe impl<T: Send> Send for Mapped<T> {}
// SAFETY: as above; writers take `&self` on purpose, since the kernel writes at the same time anyway.
unsafe impl<T: Sync> Sync for Mapped<T> {}

const WORD: usize = size_of::<u64>();

impl<T: Pod> Mapped<T> {
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(WORD) && size_of::<T>() > 0, "elements are whole words");
        assert!(align_of::<T>() <= WORD);
        size_of::<T>() / WORD
    };

    /// Maps an array whose elements are `T`s.
    ///
    /// # Errors
    ///
    /// The map's element size differs from `T`'s (`InvalidData`), or the kernel refuses the mapping.
    pub fn new(map: &MapData, access: Access) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<T>() {
            let expected = size_of::<T>();
            let text = format!("its elements have {} bytes, {expected} expected", info.value_size());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let elements = info.max_entries() as usize;
        let bytes = NonZeroUsize::new((elements * size_of::<T>()).next_multiple_of(page_bytes()))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no elements"))?;
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        let fd = map.fd().as_fd_raw();
        // SAFETY: a new mapping of a descriptor that is open for the time of the call.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes.get(), protection, libc::MAP_SHARED, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, bytes, elements, access, _element: PhantomData })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there are none; never so for a map that exists.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// The element at an index.
    ///
    /// # Panics
    ///
    /// The index is not below [`Self::len`].
    pub fn read(&self, index: usize) -> T {
        self.read_part(index, 0)
    }

    /// The part of an element that starts so many words into it.
    ///
    /// # Panics
    ///
    /// The index is not below [`Self::len`], or the part is not inside the element.
    pub fn read_part<U: Pod>(&self, index: usize, first_word: usize) -> U {
        let part_words = const {
            assert!(size_of::<U>().is_multiple_of(WORD) && align_of::<U>() <= WORD, "parts are whole words");
            size_of::<U>() / WORD
        };
        assert!(first_word + part_words <= Self::WORDS, "{part_words} words from {first_word}");
        let words = self.words_of(index);
        let mut part = std::mem::MaybeUninit::<U>::uninit();
        for word in 0..part_words {
            // SAFETY: `words_of` gives the start of an element of WORDS words inside the mapping.
            let from = unsafe { words.add(first_word + word) };
            // SAFETY: inside the mapping, aligned since pages and elements are.
            let value = unsafe { from.read_volatile() };
            // SAFETY: `part` has so many words.
            let to = unsafe { part.as_mut_ptr().cast::<u64>().add(word) };
            // SAFETY: inside `part`, maybe unaligned for a word.
            unsafe { to.write_unaligned(value) };
        }
        // SAFETY: all words are written and every bit pattern is a `U` (`Pod`).
        unsafe { part.assume_init() }
    }

    /// Asks the processor to have a word at hand, since it will be read soon. Beyond the end nothing happens.
    #[inline]
    pub fn prefetch(&self, index: usize, word: usize) {
        if index >= self.elements {
            return;
        }
        let at = self.words_of(index).wrapping_add(word);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which reads nothing; SSE is part of x86-64.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Replaces the element at an index.
    ///
    /// # Panics
    ///
    /// The index is not below [`Self::len`], or the mapping is read only.
    pub fn write(&self, index: usize, element: &T) {
        for word in 0..Self::WORDS {
            // SAFETY: `element` has WORDS words.
            let from = unsafe { std::ptr::from_ref(element).cast::<u64>().add(word) };
            // SAFETY: inside `element`, maybe unaligned for a word.
            let value = unsafe { from.read_unaligned() };
            self.write_word(index, word, value);
        }
    }

    /// Replaces one word of an element, at once for every reader.
    ///
    /// # Panics
    ///
    /// The word is outside the element, the index is not below [`Self::len`], or the mapping is read only.
    pub fn write_word(&self, index: usize, word: usize, value: u64) {
        assert!(word < Self::WORDS, "word {word} of an element of {}", Self::WORDS);
        assert_eq!(self.access, Access::Write, "the mapping is read only");
        // SAFETY: `words_of` gives the start of an element of WORDS words inside the mapping.
        let to = unsafe { self.words_of(index).add(word) };
        // SAFETY: inside the mapping, which is writable.
        unsafe { to.write_volatile(value) };
    }

    /// Puts `new` in place of `expected` in one word of an element, at once for every reader and for the program; the word that was there if
    /// it was another.
    ///
    /// # Errors
    ///
    /// The word was another one.
    ///
    /// # Panics
    ///
    /// As [`Self::write_word`].
    pub fn swap_word(&self, index: usize, word: usize, expected: u64, new: u64) -> Result<(), u64> {
        assert!(word < Self::WORDS, "word {word} of an element of {}", Self::WORDS);
        assert_eq!(self.access, Access::Write, "the mapping is read only");
        // SAFETY: `words_of` gives the start of an element of WORDS words inside the mapping.
        let at = unsafe { self.words_of(index).add(word) };
        // SAFETY: inside the mapping, which is writable, aligned as pages and elements are, and lives as long as `self`. The program changes the
        // word by atomic operations too.
        let at = unsafe { AtomicU64::from_ptr(at) };
        at.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }

    fn words_of(&self, index: usize) -> *mut u64 {
        assert!(index < self.elements, "element {index} of {}", self.elements);
        // SAFETY: below the number of elements, so inside the mapping.
        unsafe { self.base.as_ptr().add(index * Self::WORDS) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of the same length; no reference into it outlives `self`.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes.get()) };
        debug_assert_eq!(result, 0, "unmapping what was mapped");
    }
}

fn page_bytes() -> usize {
    // SAFETY: no precondition.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// The raw descriptor of a map, for calls that aya has no wrapper for.
trait AsFdRaw {
    fn as_fd_raw(&self) -> i32;
}

impl AsFdRaw for aya::maps::MapFd {
    fn as_fd_raw(&self) -> i32 {
        use std::os::fd::AsFd as _;
        self.as_fd().as_raw_fd()
    }
}
