//! Large pieces of memory are asked for in huge pages, where the kernel gives them to who asks (`madvise` in `/sys/kernel/mm/transparent_hugepage/enabled`,
//! which is usual), and are given back to it at once. What fleets are found in is hundreds of megabytes that are read here and there: in pages of 4 KiB
//! nearly each such read waits for the page's place, too, and each page is a fault when it is first written (`docs/decisions.md`, "Where reading is slow").

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::mm::{Advice, madvise};

/// A huge page of most architectures, bytes. Where it is another size, the advice is for what is whole of these.
const HUGE_PAGE: usize = 2 << 20;

/// From here on at least one huge page is whole in it wherever it begins, bytes.
const LARGE: usize = 2 * HUGE_PAGE;

/// The system's allocator, with advice to the kernel about what is large (`MADV_HUGEPAGE` in madvise(2)).
#[derive(Clone, Copy, Debug)]
pub struct HugePages;

/// What is whole huge pages of `size` bytes at an address: how far after it they begin, and how many bytes they are. `None`: so few are not large.
const fn whole_pages(address: usize, size: usize) -> Option<(usize, usize)> {
    if size < LARGE {
        return None;
    }
    let before = address.wrapping_neg() % HUGE_PAGE;
    Some((before, (size - before) / HUGE_PAGE * HUGE_PAGE))
}

/// Whether [`apart`] was asked for.
static IS_APART: AtomicBool = AtomicBool::new(false);

/// Asks glibc for a mapping for each large piece. Else it raises the size from which on it does so to that of what is freed, up to 32 MiB, and holes between smaller
/// pieces stay (`M_MMAP_THRESHOLD` in mallopt(3)). Where it refuses, memory is only less well used.
fn apart() {
    if !IS_APART.swap(true, Ordering::Relaxed) {
        // SAFETY: it is a number in the allocator, which it may be asked to change at any time.
        #[cfg(target_env = "gnu")]
        let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as libc::c_int) };
    }
}

/// Gives the advice for `size` bytes that were just allocated. Where the kernel has no huge pages nothing is lost, so its answer is not looked at.
fn advise(pointer: *mut u8, size: usize) {
    let Some((before, whole)) = whole_pages(pointer.addr(), size) else { return };
    apart();
    if !pointer.is_null() {
        let pages = pointer.wrapping_add(before).cast();
        // SAFETY: the pages are within what was allocated, and this advice changes nothing of what is in them.
        let _ = unsafe { madvise(pages, whole, Advice::LinuxHugepage) };
    }
}

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

#[cfg(test)]
mod tests {
    use std::{fs, hint::black_box};

    use super::*;

    #[global_allocator]
    static ALLOCATOR: HugePages = HugePages;

    /// Whether huge pages were asked for where this is (`VmFlags` in proc_pid_smaps(5)).
    fn is_advised(bytes: &[u8]) -> bool {
        let address = bytes[bytes.len() / 2..].as_ptr().addr();
        let smaps = fs::read_to_string("/proc/self/smaps").expect("mappings are told");
        let mut is_it = false;
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let range = range.and_then(|(from, to)| {
                Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
            });
            match (range, line.strip_prefix("VmFlags:")) {
                (Some(range), _) => is_it = range.contains(&address),
                (None, Some(flags)) if is_it => return flags.split_whitespace().any(|flag| flag == "hg"),
                _ => {}
            }
        }
        panic!("{address:x} is in no mapping of\n{smaps}");
    }

    #[test]
    fn what_is_large_is_asked_for_in_huge_pages() {
        let zeroed = black_box(vec![0_u8; LARGE + 1]);
        assert!(is_advised(&zeroed) && zeroed.iter().all(|byte| *byte == 0));
        let mut grown = black_box(Vec::with_capacity(LARGE));
        grown.extend((0..LARGE).map(|number| number as u8));
        assert!(is_advised(&grown));
        grown.reserve_exact(64 << 20);
        assert!(is_advised(&grown));
        assert!(grown.iter().zip(0..).all(|(byte, number): (_, usize)| *byte == number as u8));
    }

    #[test]
    fn the_advice_is_for_whole_pages_of_what_was_allocated() {
        assert_eq!(whole_pages(HUGE_PAGE, LARGE - 1), None);
        assert_eq!(whole_pages(HUGE_PAGE, LARGE), Some((0, LARGE)));
        assert_eq!(whole_pages(HUGE_PAGE + 1, LARGE), Some((HUGE_PAGE - 1, HUGE_PAGE)));
        assert_eq!(whole_pages(2 * HUGE_PAGE - 16, LARGE + 15), Some((16, HUGE_PAGE)));
        assert_eq!(whole_pages(2 * HUGE_PAGE - 16, LARGE + 16), Some((16, LARGE)));
    }
}
