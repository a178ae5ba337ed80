//! Large pieces of memory are asked for in huge pages, where the kernel gives them to who asks (`madvise` in
//! `/sys/kernel/mm/transparent_hugepage/enabled`). What fleets are found in is hundreds of megabytes that are read here
//! and there: in pages of 4 KiB nearly each such read waits for the page's place, too, and each page is a fault when it is
//! first written (`docs/decisions.md`, "What detection costs, with everything learned").

use std::alloc::{GlobalAlloc, Layout, System};

use rustix::{
    mm::{Advice, madvise},
    param::page_size,
};

/// Two huge pages of most architectures: at least one is whole in a piece of so many bytes, wherever it begins. With pages
/// of 16 or 64 KiB (aarch64) a huge one is 32 or 512 MiB, and few pieces have one.
pub const LARGE_BYTES: usize = 4 << 20;

/// The system's allocator, with advice to the kernel about what is large (`MADV_HUGEPAGE` in madvise(2)). Its test is the
/// program's, whose allocator it is: among the tests of this crate large pieces of others come and go.
pub struct HugePages;

// SAFETY: all memory comes from the system's allocator, as it was asked for.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promises is what is asked for.
        let pointer = unsafe { System.alloc(layout) };
        advise(pointer, layout.size());
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        advise(pointer, layout.size());
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; it was allocated by the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; it was allocated by the system's.
        let pointer = unsafe { System.realloc(pointer, layout, size) };
        advise(pointer, size);
        pointer
    }
}

/// Gives large pieces back to the kernel when they are freed: glibc then has a mapping for each that no hole fits. Else it
/// raises the size from which on it does so to that of what is freed, up to 32 MiB (`M_MMAP_THRESHOLD` in mallopt(3)). Where it
/// refuses, memory is only less well used. To be called before other threads are there.
pub fn give_back_large_pieces() {
    // SAFETY: there is no other thread, says the caller, which might read the number meanwhile; nothing but speed depends on it.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES as libc::c_int) };
}

/// Gives the advice for a piece that was just allocated. Where the kernel has no huge pages it refuses, and nothing is lost.
fn advise(pointer: *mut u8, size: usize) {
    if size < LARGE_BYTES || pointer.is_null() {
        return;
    }
    // From the page on that the allocator's own header is in: a mapping that is advised in parts is several, and cannot grow
    // where it is (mremap(2)).
    let header = pointer.addr() % page_size();
    // SAFETY: the pages are those of the piece and of what stands before it in its first one, and this advice changes nothing of what is in them.
    let _ = unsafe { madvise(pointer.wrapping_sub(header).cast(), header + size, Advice::LinuxHugepage) };
}
