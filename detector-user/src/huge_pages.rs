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
const LARGE_BYTES: usize = 4 << 20;

/// The system's allocator, with advice to the kernel about what is large (`MADV_HUGEPAGE` in madvise(2)).
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
    // From the page on that the allocator's own header is in: a mapping that is advised in parts is several, and cannot grow where it is (mremap(2)).
    let header = pointer.addr() % page_size();
    // SAFETY: the pages are those of the piece and of what stands before it in its first one, and this advice changes nothing of what is in them.
    let _ = unsafe { madvise(pointer.wrapping_sub(header).cast(), header + size, Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, hint::black_box, path::Path};

    use super::*;

    #[global_allocator]
    static ALLOCATOR: HugePages = HugePages;

    /// The mapping that an address is in (proc_pid_smaps(5)): where it is, and its fields.
    fn mapping(address: usize) -> Option<(String, HashMap<String, String>)> {
        let smaps = fs::read_to_string("/proc/self/smaps").expect("mappings are told");
        let mut found = None;
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let range = range.and_then(|(from, to)| {
                Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
            });
            match (range, &mut found, line.split_once(':')) {
                (Some(range), found, _) if range.contains(&address) => {
                    *found = Some((line.to_owned(), HashMap::new()));
                }
                (Some(_), Some(_), _) => return found,
                (None, Some((_, fields)), Some((name, value))) => {
                    _ = fields.insert(name.to_owned(), value.trim().to_owned());
                }
                _ => {}
            }
        }
        found
    }

    fn middle(bytes: &[u8]) -> usize {
        bytes[bytes.len() / 2..].as_ptr().addr()
    }

    /// Huge pages were asked for, and for all of the mapping, since the piece's ends are in one.
    fn assert_advised(bytes: &[u8]) {
        let (range, fields) = mapping(middle(bytes)).expect("it is somewhere");
        assert!(fields["VmFlags"].split(' ').any(|flag| flag == "hg"), "{range} {fields:?}");
        let ends = [bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len() - 1];
        for end in ends {
            assert_eq!(mapping(end).expect("it is there").0, range, "one mapping has all of it");
        }
    }

    #[test]
    fn what_is_large_is_asked_for_in_huge_pages_and_goes_back_when_it_is_freed() {
        give_back_large_pieces();
        if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let zeroed = black_box(vec![0_u8; LARGE_BYTES + 1]);
        assert_advised(&zeroed);
        assert!(zeroed.iter().all(|byte| *byte == 0));
        let mut grown: Vec<u8> = black_box(Vec::with_capacity(1 << 20));
        grown.extend((0..1 << 20).map(|number: usize| number as u8));
        for size in [8 << 20, 64 << 20] {
            grown.reserve_exact(size);
            assert_advised(&grown);
        }
        assert!(grown.iter().zip(0..).all(|(byte, number): (_, usize)| *byte == number as u8));
        drop(grown);
        // After a piece of 16 MiB was freed, glibc would keep one of 8 by itself.
        drop(black_box(vec![1_u8; 16 << 20]));
        let freed = black_box(vec![1_u8; 8 << 20]);
        let address = middle(&freed);
        let before = mapping(address).expect("it is there").0;
        drop(freed);
        assert!(mapping(address).is_none_or(|(after, _)| after != before), "{before}");
    }
}
