//! Loading the program: sizes, clock and seed are fixed here.

use std::path::{Path, PathBuf};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{ProgramError, Xdp},
};
use detector_common::{
    hash::Seed,
    table::{sets_for_parents, sets_for_sources},
};
use thiserror::Error;

use super::maps::{Maps, MapsError, NAMES};

/// Name of the program in the object.
pub const PROGRAM: &str = "detector";

/// The eBPF object that was built with this binary.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/detector-ebpf"));

/// The clock of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's coarse monotonic clock.
    Kernel,
    /// The word in the map `VIRTUAL_CLOCK`, ns; every decision goes to the map `TRACE`.
    Virtual,
}

/// How to load the program.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Active sources that the table is sized for.
    pub sources: u32,
    /// The clock.
    pub clock: Clock,
    /// The secret of the source tables. Where maps are adopted, theirs.
    pub seed: Seed,
    /// Where the maps are pinned, or adopted from; `None`: nowhere.
    pub pins: Option<Vec<(&'static str, PathBuf)>>,
    /// Verbosity of the program's own log, 0 (off) to 5 (trace).
    pub log_level: u8,
}

impl LoadOptions {
    /// A program of its own, under the virtual clock: for replay and tests.
    pub fn isolated(sources: u32) -> Self {
        Self { sources, clock: Clock::Virtual, seed: Seed::new(FIXED_SEED), pins: None, log_level: 0 }
    }

    /// Pins of all maps in a directory.
    pub fn pins_in(directory: &Path) -> Vec<(&'static str, PathBuf)> {
        NAMES.iter().map(|&name| (name, directory.join(name))).collect()
    }
}

/// The seed of replays: the same capture gives the same output.
const FIXED_SEED: [u64; 4] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89];

/// A program that cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object, its maps or its pins.
    #[error("cannot load the eBPF object: {}", chain(.0))]
    Object(#[from] EbpfError),
    /// The verifier.
    #[error("the kernel refuses the XDP program: {}", chain(.0))]
    Program(#[from] ProgramError),
    /// A map.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// An error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// A loaded program and its maps.
pub struct Loaded {
    /// The program, and the maps that are not in `maps`.
    pub ebpf: Ebpf,
    /// The maps.
    pub maps: Maps,
}

impl Loaded {
    /// The XDP program.
    pub fn program(&mut self) -> Result<&mut Xdp, ProgramError> {
        xdp(&mut self.ebpf)
    }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    match ebpf.program_mut(PROGRAM) {
        Some(program) => program.try_into(),
        None => Err(ProgramError::NotLoaded),
    }
}

/// Loads the program and creates its maps, or adopts those that are pinned.
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let source_sets = sets_for_sources(options.sources);
    let parent_sets = sets_for_parents(options.sources);
    let is_clock_virtual = u32::from(options.clock == Clock::Virtual);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("IS_CLOCK_VIRTUAL", &is_clock_virtual, true)
        .override_global("SEED_OFFSET_0", &options.seed.offsets[0], true)
        .override_global("SEED_OFFSET_1", &options.seed.offsets[1], true)
        .override_global("SEED_MULTIPLIER_0", &options.seed.multipliers[0], true)
        .override_global("SEED_MULTIPLIER_1", &options.seed.multipliers[1], true)
        .override_global("SOURCE_SETS", &source_sets, true)
        .override_global("PARENT_SETS", &parent_sets, true)
        .override_global("AYA_LOG_LEVEL", &options.log_level, true)
        .map_max_entries("SOURCES", source_sets)
        .map_max_entries("PARENTS", parent_sets);
    for (name, path) in options.pins.iter().flatten() {
        loader.map_pin_path(name, path.clone());
    }
    let mut ebpf = loader.load(OBJECT)?;
    // Before the maps are taken: those that are only mapped close their descriptors, which the program names.
    xdp(&mut ebpf)?.load()?;
    let maps = Maps::of(&mut ebpf)?;
    Ok(Loaded { ebpf, maps })
}
