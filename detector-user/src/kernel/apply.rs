//! A policy gets into the kernel: the slot that is not active is filled, then one word changes.

use std::{io, mem::offset_of};

use aya::maps::{ArrayOfMaps, MapData, MapError};
use aya_obj::generated::{BPF_F_INNER_MAP, BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use detector_common::{
    budget::{TICKS_PER_NS_LOG2, ticks},
    generation::{Generation, Settings},
    limits::{
        CELLS_MAX, CLASSES_MAX, CLIENT_RULES_MAX, DESTINATION_SLOTS, MANIFEST_BYTES, PARENT_CLASSES_MAX,
        POLICY_SLOTS, PORT_SLOTS, RULE_COUNTERS, SERVICES_MAX,
    },
    policy::{Class, PolicyHeader, RuleDrops, slot_place},
    ranges::{NodeV4, NodeV6},
    verdict::ServiceCounters,
    way::next_epoch,
};
use thiserror::Error;

use super::incidents;
use super::{
    client_rules::{self, Tree},
    mapped::{Access, Mapped},
    maps::Maps,
    read::{self, ReadError},
};
use crate::policy::compile::{Beside, Clocks, CompileError, Manifest, Standard, Tables};

/// A policy that could not be put into the kernel. The active one is untouched.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// A tree of source prefixes.
    #[error("cannot load {bytes} bytes of source prefixes into the kernel: {}", super::load::chain(.source))]
    Rules {
        /// How large the tree is.
        bytes: usize,
        /// What the kernel said.
        source: MapError,
    },
    /// The manifest.
    #[error(
        "the names of the policy take {bytes} bytes, at most {MANIFEST_BYTES} fit: shorten reasons and names"
    )]
    Manifest {
        /// How many they take.
        bytes: usize,
    },
    /// Fingerprints that rules are about.
    #[error(
        "the rules about fingerprints are about {count} of them, counted for each service, and at most {CLIENT_RULES_MAX} fit: {}; name \
         the service that a rule is about, or narrow its patterns",
        super::load::chain(.source)
    )]
    ClientRules {
        /// How many there are.
        count: usize,
        /// What the kernel said.
        source: MapError,
    },
    /// Incident rules beside the policy.
    #[error("the incident rules do not fit beside the policy: {0}")]
    Incidents(#[from] CompileError),
    /// Incident rules without a policy.
    #[error("no policy is applied, beside which an incident rule could stand: `detector apply FILE`")]
    NoPolicy,
    /// Incident rules beside a first policy that is on trial: there is nothing that they could stand beside when it is taken back.
    #[error("the first policy is on trial: keep it with `detector confirm` before an incident rule is added")]
    FirstTrial,
    /// A policy that is to be confirmed holds the slot.
    #[error(
        "a policy waits to be confirmed for {seconds} s more: keep it with `detector confirm`, or go back with \
         `detector rollback`"
    )]
    Pending {
        /// Until it is taken back.
        seconds: u64,
    },
    /// Packets of an earlier policy.
    #[error("cannot wait for packets of an earlier policy: {}", super::load::chain(.0))]
    Wait(#[source] MapError),
    /// The counters of a service number that another name had before.
    #[error("cannot reset the counters of a service: {}", super::load::chain(.0))]
    Counters(#[source] MapError),
    /// The policy that is active now.
    #[error(transparent)]
    Active(#[from] ReadError),
    /// Something else.
    #[error("cannot apply the policy: {0}")]
    Io(#[from] io::Error),
}

/// Puts a compiled policy in place of the active one, beside the same incident rules, and returns its epoch. Sources keep their entries, and with them
/// the state of every budget.
///
/// The slot that is filled is read by nobody until the last line: `wait_for_packets` sees to it.
///
/// # Errors
///
/// The kernel refuses a map, the active policy cannot be read, or one waits to be confirmed. Nothing changes.
pub fn apply(maps: &mut Maps, tables: &Tables) -> Result<u32, ApplyError> {
    put(maps, tables, None)
}

/// As [`apply`], and takes the policy back after `confirm_ns`, unless [`confirm`] comes first: the program itself does, by
/// its clock.
///
/// # Errors
///
/// As [`apply`].
pub fn apply_until_confirmed(maps: &mut Maps, tables: &Tables, confirm_ns: u64) -> Result<u32, ApplyError> {
    put(maps, tables, Some(confirm_ns))
}

/// Keeps a policy that was to be confirmed. Whether there was one.
pub fn confirm(maps: &Maps) -> bool {
    settle(maps);
    let was_pending = maps.settings.read(0).deadline != 0;
    maps.settings.write_word(0, DEADLINE, 0);
    was_pending
}

/// Goes back at once to the policy before the one that is to be confirmed. Whether there was one.
pub fn take_back(maps: &Maps) -> bool {
    settle(maps);
    let settings = maps.settings.read(0);
    if settings.deadline == 0 {
        return false;
    }
    maps.settings.write_word(0, ACTIVE, settings.fallback);
    maps.settings.write_word(0, DEADLINE, 0);
    true
}

/// Writes down what the program does by itself since the deadline of a policy that was not confirmed. Whether one had
/// passed.
pub fn settle(maps: &Maps) -> bool {
    let is_over = is_trial_over(maps);
    if is_over {
        // In this order every packet finds the policy before.
        maps.settings.write_word(0, ACTIVE, maps.settings.read(0).fallback);
        maps.settings.write_word(0, DEADLINE, 0);
    }
    is_over
}

/// Whether the program went back by itself from a policy that was not confirmed, and nobody has written it down yet.
pub fn is_trial_over(maps: &Maps) -> bool {
    let deadline = maps.settings.read(0).deadline;
    deadline != 0 && read::now(maps) >= deadline
}

/// What the two clocks may drift apart, or be read apart, before ends are moved, ticks: a second.
const DRIFT_MAX: u64 = ticks(1_000_000_000);

/// Moves the ends of the active policy's rules to where they are by `clocks`, if the clock of the wall was set since they
/// were written. How many classes were moved. The caller keeps other writers of policies away.
///
/// # Errors
///
/// The active policy cannot be read.
pub fn retime(maps: &Maps, clocks: Clocks) -> Result<usize, ReadError> {
    let (generation, ends) = read::consistently(maps, |active| -> Result<_, ReadError> {
        let rules = active.rules()?;
        let ends: Vec<_> = active
            .classes()
            .filter(|(_, class)| class.until != 0)
            .filter_map(|(number, class)| {
                Some((number, class.until, rules.of_class(number, &class)?.until_s()?))
            })
            .collect();
        Ok((active.generation(), ends))
    })?;
    let mut moved = 0;
    for (number, end, until_s) in ends {
        // An end that is past by the wall: the first tick after boot.
        let right = clocks.ticks_at(until_s).unwrap_or(1);
        // What has ended stays so until a policy is applied: known sources have another class by now.
        if right.abs_diff(end) > DRIFT_MAX && end > read::now(maps) {
            let place = generation.class_place(number) as usize;
            maps.classes.write_word(place, offset_of!(Class, until) / size_of::<u64>(), right);
            moved += 1;
        }
    }
    Ok(moved)
}

/// Words of the settings.
pub(super) const ACTIVE: usize = offset_of!(Settings, active) / size_of::<u64>();
const DEADLINE: usize = offset_of!(Settings, deadline) / size_of::<u64>();
pub(super) const FALLBACK: usize = offset_of!(Settings, fallback) / size_of::<u64>();
pub(super) const LAST_EPOCH: usize = offset_of!(Settings, last_epoch) / size_of::<u64>();

/// Whether a policy can be applied now.
///
/// # Errors
///
/// One waits to be confirmed.
pub fn check_no_trial(maps: &Maps) -> Result<(), ApplyError> {
    settle(maps);
    let deadline = maps.settings.read(0).deadline;
    if deadline == 0 {
        return Ok(());
    }
    let left = deadline.saturating_sub(read::now(maps)) >> TICKS_PER_NS_LOG2;
    Err(ApplyError::Pending { seconds: left.div_ceil(1_000_000_000) })
}

fn put(maps: &mut Maps, tables: &Tables, confirm_ns: Option<u64>) -> Result<u32, ApplyError> {
    check_no_trial(maps)?;
    let settings = maps.settings.read(0);
    let active = Generation(settings.active);
    let epoch = next_epoch(settings.last_epoch as u32);
    let slot = (active.slot() + 1) % POLICY_SLOTS as u32;
    let manifest = encode(&tables.manifest)?;
    let beside = Beside::new(read::incidents(maps)?, &Standard::of(tables), tables.clocks)?;
    wait_for_packets(maps)?;
    set_trees(maps, slot, &tables.rules_v4, &tables.rules_v6)?;
    let incident_set = match &beside {
        None => None,
        Some(beside) => Some(incidents::fill(maps, beside, &[active])?),
    };
    let services = tables.manifest.services.values().copied().collect();
    let rules = &tables.manifest.fingerprint_rules;
    let tree = Tree::at(read::now(maps), slot, rules, (0, &tables.classes), services);
    client_rules::fill(maps, &tree)?;
    reset_reused_counters(maps, tables)?;
    fill(&maps.destinations, slot, DESTINATION_SLOTS, &tables.destinations);
    fill(&maps.ports, slot, PORT_SLOTS, &tables.ports);
    fill(&maps.cells, slot, CELLS_MAX, &tables.cells);
    // To the end: readers walk the classes, and should find none of an earlier policy.
    let none = std::iter::repeat_n(Class::default(), CLASSES_MAX - tables.classes.len());
    let classes: Vec<_> = tables.classes.iter().copied().chain(none).collect();
    fill(&maps.classes, slot, CLASSES_MAX, &classes);
    fill(&maps.parent_classes, slot, PARENT_CLASSES_MAX, &tables.parent_classes);
    fill(&maps.manifest, slot, MANIFEST_BYTES / 4096, &manifest);
    maps.policies.write(slot as usize, &PolicyHeader { epoch: epoch.into(), ..tables.header });
    maps.settings.write_word(0, LAST_EPOCH, epoch.into());
    if let Some(confirm_ns) = confirm_ns {
        maps.settings.write_word(0, FALLBACK, active.0);
        maps.settings.write_word(0, DEADLINE, read::now(maps).saturating_add(ticks(confirm_ns)));
    }
    // x86 keeps stores in order; other machines need the fence.
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    maps.settings.write_word(0, ACTIVE, Generation::new(epoch, slot, incident_set).0);
    Ok(epoch)
}

/// Puts the trees of one policy, or of one set of incident rules, into their places.
pub(super) fn set_trees(
    maps: &mut Maps,
    number: u32,
    v4: &[NodeV4],
    v6: &[NodeV6],
) -> Result<(), ApplyError> {
    set_tree(&mut maps.rules_v4, number, v4)?;
    set_tree(&mut maps.rules_v6, number, v6)
}

/// Puts a tree into its place. Each takes the kernel as long as every program needs that runs (see [`wait_for_packets`]), so that of
/// a family that no rule names is left as it is.
fn set_tree<N: aya::Pod + PartialEq>(
    rules: &mut ArrayOfMaps<MapData>,
    number: u32,
    nodes: &[N],
) -> Result<(), ApplyError> {
    let bytes = size_of_val(nodes);
    let refused = |source| ApplyError::Rules { bytes, source };
    let is_there = match rules.get(&number, 0) {
        Ok(_) if nodes.len() > 1 => false,
        Ok(present) => {
            let present = Mapped::<N>::new(&present, Access::Read)?;
            present.len() == 1 && nodes.first() == Some(&present.read(0))
        }
        Err(MapError::KeyNotFound) => false,
        Err(error) => return Err(refused(error)),
    };
    if is_there {
        return Ok(());
    }
    rules.set(number, &sized(nodes)?, 0).map_err(refused)
}

fn fill<T: aya::Pod>(map: &Mapped<T>, slot: u32, size: usize, elements: &[T]) {
    for (index, element) in elements.iter().enumerate() {
        map.write(slot_place(slot, size, index as u32) as usize, element);
    }
}

/// Waits until every packet has left that may still read a slot: packets of a generation before the active one. The kernel
/// waits for all programs that run when a map in an array of maps is replaced, though it be by itself
/// (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).
pub(super) fn wait_for_packets(maps: &mut Maps) -> Result<(), ApplyError> {
    for slot in 0..POLICY_SLOTS as u32 {
        match maps.rules_v4.get(&slot, 0) {
            Ok(present) => return maps.rules_v4.set(slot, &present, 0).map_err(ApplyError::Wait),
            // No policy was there yet, and no packet.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(ApplyError::Wait(error)),
        }
    }
    Ok(())
}

/// A map of so many elements, to be put into an array of maps.
pub(super) fn sized<T: aya::Pod>(elements: &[T]) -> Result<MapData, ApplyError> {
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        size_of::<T>() as u32,
        // The kernel makes no map without elements.
        elements.len().max(1) as u32,
        BPF_F_INNER_MAP | BPF_F_MMAPABLE,
    );
    let bytes = size_of_val(elements);
    let map = MapData::create(map, "rules", None).map_err(|source| ApplyError::Rules { bytes, source })?;
    let mapped = Mapped::new(&map, Access::Write)?;
    elements.iter().enumerate().for_each(|(number, element)| mapped.write(number, element));
    Ok(map)
}

/// A number that another service had starts from zero, so that no counter of metrics is credited to the wrong name.
///
/// The budgets behind a number stay, also behind that of a lineage: a source that was seen under the name before starts
/// under the new one with what it has spent, at most a burst. The program brings every state down to the bound of the
/// budget it is used for.
fn reset_reused_counters(maps: &mut Maps, tables: &Tables) -> Result<(), ApplyError> {
    let before = read::consistently(maps, |active| active.manifest())?.unwrap_or_default();
    for (name, &number) in &tables.manifest.services {
        // A number without an owner may be that of a name that was forgotten.
        let is_its_own = [&before.services, &before.retired].iter().any(|had| had.get(name) == Some(&number));
        if is_its_own || usize::from(number) >= SERVICES_MAX {
            continue;
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeros = aya::maps::PerCpuValues::try_from(vec![ServiceCounters::default(); cpus])?;
        maps.verdicts.set(number.into(), zeros, 0).map_err(ApplyError::Counters)?;
    }
    let had = [&before.rule_counters(), &before.retired_rules];
    for (name, number) in tables.manifest.rule_counters() {
        if had.iter().any(|had| had.get(&name) == Some(&number)) || usize::from(number) >= RULE_COUNTERS {
            continue;
        }
        reset_rule_counter(maps, number)?;
    }
    Ok(())
}

/// Lets the counter of a rule start from zero.
pub(super) fn reset_rule_counter(maps: &mut Maps, number: u16) -> Result<(), ApplyError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let zeros = aya::maps::PerCpuValues::try_from(vec![RuleDrops::default(); cpus])?;
    maps.rule_budgets.write(number.into(), &0);
    maps.rule_drops.set(number.into(), zeros, 0).map_err(ApplyError::Counters)
}

/// A manifest as elements of its map.
fn encode(manifest: &Manifest) -> Result<Vec<[u64; 512]>, ApplyError> {
    let json = serde_json::to_vec(manifest).map_err(io::Error::other)?;
    let bytes = json.len() + size_of::<u64>();
    if bytes > MANIFEST_BYTES {
        return Err(ApplyError::Manifest { bytes });
    }
    Ok(chunks(json))
}

/// A JSON text as elements of a map: its length in bytes, then the text.
pub(super) fn chunks(json: Vec<u8>) -> Vec<[u64; 512]> {
    let all: Vec<u8> = (json.len() as u64).to_ne_bytes().into_iter().chain(json).collect();
    let chunk = |chunk: &[u8]| {
        let mut words = [0_u64; 512];
        for (word, bytes) in words.iter_mut().zip(chunk.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(padded);
        }
        words
    };
    all.chunks(4096).map(chunk).collect()
}
