//! What the loaded object is to the kernel: its maps, their memory, its licence, its flags.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    maps::{MapInfo, MapType},
    util::KernelVersion,
};
use detector_common::limits::SOURCES_DEFAULT;
use detector_tests::rows::{MapBytes, Rig};
use detector_user::kernel::{load::OBJECT, maps::NAMES};

/// `BPF_F_NO_PREALLOC` of linux/bpf.h.
const NO_PREALLOC: u32 = 1 << 0;
/// `BPF_F_RDONLY_PROG` of linux/bpf.h.
const RDONLY_PROG: u32 = 1 << 7;
/// `BPF_F_MMAPABLE` of linux/bpf.h.
const MMAPABLE: u32 = 1 << 10;

/// Memory that all maps may take together at the default size, bytes, on a machine of [`CPUS`].
const BYTES_MAX: u64 = 100_000_000;

/// CPUs of a small edge node. Each one more takes a copy of the per-CPU counters, see [`CPU_BYTES_MAX`].
const CPUS: u64 = 4;

/// Memory that the counters of one CPU may take, bytes.
const CPU_BYTES_MAX: u64 = 210_000;

/// A number of a map from its descriptor's `fdinfo`, for what the kernel tells nowhere else.
fn fdinfo(map: &MapInfo, field: &str) -> Option<u64> {
    let fd = map.fd().expect("a descriptor");
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).expect("procfs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let digits = line.trim();
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Type and flags of every map that is pinned.
fn expected(name: &str) -> (MapType, u32) {
    match name {
        // The program's own, read by nobody else.
        "OVERFLOW" | "FLOW_STATES" | "GATHERED_HELLOS" => (MapType::Array, 0),
        "CLIENT_RULES" | "FLEET_MEMBERS" | "FLEET_KEYS" => (MapType::Hash, NO_PREALLOC),
        "PROGRAMS" => (MapType::ProgramArray, 0),
        "RULES_V4" | "RULES_V6" => (MapType::ArrayOfMaps, 0),
        "VERDICTS" | "RULE_DROPS" | "COUNTERS" | "SCRATCH" => (MapType::PerCpuArray, 0),
        "EVENTS" | "EXEMPLARS" => (MapType::RingBuf, 0),
        // All others are read through a mapping.
        _ => (MapType::Array, MMAPABLE),
    }
}

#[test]
fn every_pinned_map_is_in_the_object_with_its_type_and_flags() {
    let mut rig = Rig::bare();
    let mut maps = rig.kernel_maps();
    for &name in NAMES {
        // The program does not use these, so the kernel does not count them among its maps.
        if matches!(name, "MANIFEST" | "INCIDENTS" | "CLIENT_NAMES") {
            assert!(!maps.contains_key(name), "the program uses {name}: mend its card");
            continue;
        }
        let map = maps.remove(name).unwrap_or_else(|| panic!("the program has no map {name}"));
        let flags = fdinfo(&map, "map_flags").expect("flags") as u32;
        assert_eq!((map.map_type().expect("a type"), flags), expected(name), "type and flags of {name}");
    }
    // What is left is not pinned: constants of this one load, and the program's own log.
    for (name, map) in maps {
        let flags = fdinfo(&map, "map_flags").expect("flags") as u32;
        let is_constants = name.starts_with(".rodata") && flags & (RDONLY_PROG | NO_PREALLOC) == RDONLY_PROG;
        let is_log = name == "AYA_LOGS" && map.map_type().expect("a type") == MapType::RingBuf;
        assert!(is_constants || is_log, "map {name} is neither pinned nor known");
    }
}

#[test]
fn all_maps_at_the_default_size_fit_their_budget() {
    let mut rig = Rig::new(SOURCES_DEFAULT);
    let MapBytes { fixed, each_cpu } = rig.map_bytes();
    let is_of_each_cpu = |map: &MapInfo| map.map_type().expect("a type") == MapType::PerCpuArray;
    let maps = rig.kernel_maps();
    let charged = maps.values().filter(|map| !is_of_each_cpu(map));
    let charged: u64 = charged.map(|map| fdinfo(map, "memlock").expect("the kernel's own count")).sum();
    let computed = fixed + CPUS * each_cpu;
    println!("all maps: {fixed} bytes, {charged} as the kernel counts, and {each_cpu} for each CPU");
    assert!(fixed > 60_000_000, "{fixed} bytes are too few: a map is missing from the sum");
    assert!(each_cpu <= CPU_BYTES_MAX, "{each_cpu} bytes for each CPU, {CPU_BYTES_MAX} at most");
    assert!(computed <= BYTES_MAX, "all maps take {computed} bytes on {CPUS} CPUs, {BYTES_MAX} at most");
    // An older kernel estimates: it adds a key to every element, though an array keeps none.
    let counts_exactly =
        KernelVersion::current().expect("the kernel's version") >= KernelVersion::new(6, 4, 0);
    let charged = charged + CPUS * each_cpu;
    assert!(
        !counts_exactly || charged <= BYTES_MAX,
        "the kernel counts {charged} bytes on {CPUS} CPUs, {BYTES_MAX} at most"
    );
}

/// The licence that GPL-only helpers ask for, and the words that promise it.
#[test]
fn the_licence_is_dual() {
    let mut rig = Rig::bare();
    let info = rig.bench_mut().loaded.program().expect("the program").info().expect("its info");
    assert_eq!(info.gpl_compatible(), Some(true));
    let licence = b"Dual MIT/GPL\0";
    assert!(OBJECT.windows(licence.len()).any(|bytes| bytes == licence), "the object says Dual MIT/GPL");
    assert_eq!(info.name_as_str(), Some("detector"));
}

/// A driver hands frames in several buffers to programs that are marked for them, and generic mode takes over for
/// those that are not. The kernel tells the mark to nobody, so the object is asked.
#[test]
fn the_program_is_marked_for_frames_in_several_buffers() {
    let section = b"xdp.frags";
    assert!(
        OBJECT.windows(section.len()).any(|bytes| bytes == section),
        "the section that asks for fragments"
    );
}
