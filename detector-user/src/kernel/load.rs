//! Loading the program: sizes, clock and seed are fixed here.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapError, ProgramArray},
    programs::{ProgramError, ProgramFd, Xdp},
};
use detector_common::{
    hash::Seed,
    limits::WAYS,
    table::Set,
    table_size::{sets_for_client_budgets, sets_for_clients, sets_for_parents, sets_for_sources},
};
use thiserror::Error;

use super::maps::{Maps, MapsError, NAMES};

/// Name of the program in the object.
pub const PROGRAM: &str = "detector";

/// Name of the program that it hands packets of handshakes to.
pub const HANDSHAKES: &str = "handshakes";

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
    /// Whether handshakes are followed. Without: to measure what that costs the packets outside of them.
    pub follows_handshakes: bool,
}

impl LoadOptions {
    /// A program of its own, under the virtual clock: for replay and tests.
    pub fn isolated(sources: u32) -> Self {
        Self {
            sources,
            clock: Clock::Virtual,
            seed: Seed::new(FIXED_SEED),
            pins: None,
            log_level: 0,
            follows_handshakes: true,
        }
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
    /// The tables whose size was asked for.
    #[error(
        "cannot make the map {map} for --sources {sources}, {megabytes} MB: {}; ask for fewer sources, or free memory",
        .source
    )]
    Table {
        /// The map.
        map: String,
        /// What was asked for.
        sources: u32,
        /// Memory of the map.
        megabytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
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
        xdp(&mut self.ebpf, PROGRAM)
    }

    /// One of the two programs: [`PROGRAM`] or [`HANDSHAKES`].
    pub fn named(&mut self, name: &str) -> Result<&mut Xdp, ProgramError> {
        xdp(&mut self.ebpf, name)
    }
}

/// Puts the program that follows handshakes where the main one calls it. The map stays open with the object: the kernel
/// empties it when it is neither open nor pinned.
fn set_handshakes(ebpf: &mut Ebpf, program: &ProgramFd) -> Result<(), LoadError> {
    const NAME: &str = "PROGRAMS";
    let map = ebpf.map_mut(NAME).ok_or(MapsError::Missing { name: NAME })?;
    let set = |map| -> Result<(), MapError> { ProgramArray::try_from(map)?.set(0, program, 0) };
    set(map).map_err(|source| MapsError::Type { name: NAME, source }.into())
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    match ebpf.program_mut(name) {
        Some(program) => program.try_into(),
        None => Err(ProgramError::NotLoaded),
    }
}

/// Names the option that a map owes its size to, where one is refused.
fn not_loaded(error: EbpfError, sources: u32) -> LoadError {
    let sets_of = |map: &str| match map {
        "SOURCES" => Some(sets_for_sources(sources)),
        "PARENTS" => Some(sets_for_parents(sources)),
        "CLIENTS" => Some(sets_for_clients(sources)),
        "CLIENT_BUDGETS" => Some(sets_for_client_budgets(sources)),
        _ => None,
    };
    let EbpfError::MapError(MapError::CreateError { name, io_error }) = error else { return error.into() };
    let Some(sets) = sets_of(&name) else {
        return EbpfError::MapError(MapError::CreateError { name, io_error }).into();
    };
    let megabytes = (u64::from(sets) * size_of::<Set>() as u64).div_ceil(1_000_000);
    LoadError::Table { map: name, sources, megabytes, source: io_error }
}

/// Loads the program and creates its maps, or adopts those that are pinned.
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let source_sets = sets_for_sources(options.sources);
    let parent_sets = sets_for_parents(options.sources);
    let client_sets = sets_for_clients(options.sources);
    let client_budget_sets = sets_for_client_budgets(options.sources);
    let is_clock_virtual = u32::from(options.clock == Clock::Virtual);
    let follows_handshakes = u32::from(options.follows_handshakes);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("IS_CLOCK_VIRTUAL", &is_clock_virtual, true)
        .override_global("SEED_OFFSET_0", &options.seed.offsets[0], true)
        .override_global("SEED_OFFSET_1", &options.seed.offsets[1], true)
        .override_global("SEED_MULTIPLIER_0", &options.seed.multipliers[0], true)
        .override_global("SEED_MULTIPLIER_1", &options.seed.multipliers[1], true)
        .override_global("SOURCE_SETS", &source_sets, true)
        .override_global("PARENT_SETS", &parent_sets, true)
        .override_global("CLIENT_SETS", &client_sets, true)
        .override_global("CLIENT_BUDGET_SETS", &client_budget_sets, true)
        .override_global("AYA_LOG_LEVEL", &options.log_level, true)
        .override_global("FOLLOWS_HANDSHAKES", &follows_handshakes, true)
        .map_max_entries("SOURCES", source_sets)
        .map_max_entries("PARENTS", parent_sets)
        .map_max_entries("CLIENT_BUDGETS", client_budget_sets)
        .map_max_entries("CLIENTS", client_sets)
        .map_max_entries("CLIENT_COUNTS", client_sets * WAYS as u32);
    for (name, path) in options.pins.iter().flatten() {
        loader.map_pin_path(name, path.clone());
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| not_loaded(error, options.sources))?;
    // Before the maps are taken: those that are only mapped close their descriptors, which the program names.
    xdp(&mut ebpf, PROGRAM)?.load()?;
    xdp(&mut ebpf, HANDSHAKES)?.load()?;
    let handshakes = xdp(&mut ebpf, HANDSHAKES)?.fd()?.try_clone().map_err(ProgramError::IOError)?;
    set_handshakes(&mut ebpf, &handshakes)?;
    let maps = Maps::of(&mut ebpf)?;
    Ok(Loaded { ebpf, maps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_large_names_the_option_and_others_do_not() {
        let refused = |map: &str| {
            let io_error = io::Error::from_raw_os_error(libc::ENOMEM);
            let error = MapError::CreateError { name: map.to_owned(), io_error };
            not_loaded(EbpfError::MapError(error), 50_000_000).to_string()
        };
        assert_eq!(
            refused("SOURCES"),
            "cannot make the map SOURCES for --sources 50000000, 6244 MB: Cannot allocate memory (os error 12); ask for \
             fewer sources, or free memory"
        );
        assert!(refused("PARENTS").contains("--sources 50000000"), "{}", refused("PARENTS"));
        let other = refused("EVENTS");
        assert!(other.contains("EVENTS") && !other.contains("--sources"), "{other}");
    }
}
