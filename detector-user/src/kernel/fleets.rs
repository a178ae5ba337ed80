//! Fleets get into the kernel: the budget that the members of each share, who they are, and the keys that it is known by.
//!
//! A fleet has one of the slots of `FLEETS` for as long as it is acted on. What changes is written in an order in which no packet is charged
//! to a fleet that is not its own: a slot is given again only after no table and no entry names it any more. All of it is for who holds the
//! policy's lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::offset_of,
    sync::atomic::{Ordering, fence},
};

use aya::maps::{HashMap, MapData, MapError};
use detector_common::{
    address::{Address, Family},
    budget::Budget,
    fleet::{FleetKey, FleetMember, FleetSlot, HAS_KEYS, acts_bit, rule_counter},
    generation::Settings,
    limits::{FLEET_KEYS_MAX, FLEET_MEMBERS_MAX, FLEET_SLOTS, WAYS},
    policy::is_enforced,
    table::{Key, Unit, set_of, way_of},
    way::{Meta, Way},
};
use detector_fleets::{source::Source, traits};
use thiserror::Error;

use crate::{actions::standing::Action, policy};

use super::{
    apply::{ApplyError, reset_rule_counter, wait_for_packets},
    maps::Maps,
    read,
};

/// What is done to a fleet.
#[derive(Debug, Clone)]
pub struct Throttle<'a> {
    /// Its number, not 0.
    pub id: u64,
    /// The number of the service.
    pub service: u16,
    /// What all its members may send together, as the program takes it.
    pub packets: Budget,
    /// How many connections they may ask for, and clients with its keys handshakes.
    pub connections: Budget,
    /// Of so many sources in a hundred, by their keyed hash, nothing is charged: by them is seen what the budget does.
    pub held_out_percent: u8,
    /// When it ends, ticks of the program's clock.
    pub until: u64,
    /// Those whose every packet is charged.
    pub members: &'a BTreeSet<Source>,
    /// Clients with these are charged at their ClientHello, whoever their source is.
    pub keys: &'a [traits::Key],
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttled {
    /// Its slot.
    pub slot: u32,
    /// Members that are charged.
    pub members: usize,
    /// Those of them that were not before.
    pub joined: usize,
    /// Those that were and are not any more.
    pub left: usize,
    /// Members that are held out.
    pub held_out: usize,
    /// Members that found no room, or are another fleet's.
    pub without_room: BTreeSet<FleetMember>,
    /// Keys whose clients are charged.
    pub keys: usize,
    /// Keys that found no room, or are another fleet's.
    pub keys_without_room: usize,
}

/// A fleet that is acted on, as the maps tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its slot.
    pub slot: u32,
    /// The slot's content; times of budgets are those of the program.
    pub fleet: FleetSlot,
    /// Whether it is acted on now: neither over nor switched off.
    pub acts: bool,
}

/// What cannot be done.
#[derive(Debug, Error)]
pub enum FleetsError {
    /// All slots are taken.
    #[error(
        "{} fleets are acted on already: end one with `detector allow fleet:ID`, or wait for one to end",
        FLEET_SLOTS - 1
    )]
    Full,
    /// The switch is turned.
    #[error("all actions on fleets are stopped: `detector fleets --resume` lets them be again")]
    Stopped,
    /// A map.
    #[error("the kernel refuses to change the members or keys of a fleet: {0}")]
    Map(#[from] MapError),
    /// The counters, or the wait for packets.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

const FLEETS: usize = offset_of!(Settings, fleets) / size_of::<u64>();
const ID: usize = offset_of!(FleetSlot, id) / size_of::<u64>();
const META: usize = offset_of!(Way, meta) / size_of::<u64>();
const WAY_WORDS: usize = size_of::<Way>() / size_of::<u64>();

impl<'a> Throttle<'a> {
    /// What an action asks for: its members in a set, its end in ticks of the program's clock, and its budgets as that counts them.
    pub fn of(
        action: &'a Action,
        members: &'a BTreeSet<Source>,
        until: u64,
        counted: impl Fn(policy::Budget) -> Budget,
    ) -> Self {
        Self {
            id: action.fleet.0,
            service: action.service,
            packets: counted(action.budgets.packets),
            connections: counted(action.budgets.connections),
            held_out_percent: 100_u8.saturating_sub(action.enforced_percent),
            until,
            members,
            keys: &action.keys,
        }
    }
}

impl Throttled {
    /// Whether something of it found no room.
    pub fn lacks_room(&self) -> bool {
        !self.without_room.is_empty() || self.keys_without_room > 0
    }
}

/// The key of a source's entry at a service.
pub fn entry_key(source: Source, service: u16) -> Key {
    let (family, high) =
        if source.is_v4() { (Family::V4, source.number() << 32) } else { (Family::V6, source.number()) };
    Key::new(Address { family, high, low: 0 }, Unit::of_source(family), service)
}

/// All fleets that have a slot.
pub fn standing(maps: &Maps) -> Vec<Standing> {
    let (acting, now) = (maps.settings.read(0).fleets, read::now(maps));
    let slots = (1..FLEET_SLOTS as u32).map(|slot| (slot, maps.fleets.read(slot as usize)));
    slots
        .filter(|(_, fleet)| fleet.id != 0)
        .map(|(slot, fleet)| {
            let acts = acting & acts_bit(slot) != 0 && now < fleet.until;
            Standing { slot, fleet, acts }
        })
        .collect()
}

/// The fleet whose budgets a source's packets are charged to at a service now; `None`: they are charged to none.
///
/// # Errors
///
/// The kernel refuses to tell.
pub fn charged(maps: &Maps, key: Key) -> Result<Option<Standing>, FleetsError> {
    acting_in(maps, maps.fleet_members.get(&FleetMember::from(key), 0))
}

/// The fleet whose budget of connections the handshakes of a client are charged to now, by its fingerprints and whoever its source is; `None`: they are
/// charged to none, since they are none's or the source is held out. `source_hash`: the keyed hash of the source at the service.
///
/// # Errors
///
/// The kernel refuses to tell.
pub fn charged_by_keys(
    maps: &Maps,
    keys: &FleetKey,
    source_hash: u64,
) -> Result<Option<Standing>, FleetsError> {
    let acting = acting_in(maps, maps.fleet_keys.get(keys, 0))?;
    Ok(acting.filter(|standing| standing.fleet.is_charged(source_hash, read::now(maps))))
}

/// The fleet in the slot that a table told, if it is acted on.
fn acting_in(maps: &Maps, slot: Result<u64, MapError>) -> Result<Option<Standing>, FleetsError> {
    match slot {
        Ok(slot) => Ok(standing(maps).into_iter().find(|one| one.acts && u64::from(one.slot) == slot)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Acts on a fleet, or changes how: from the next packet on its members share these budgets. What the budgets have been charged so far
/// stays, as with those of a policy.
///
/// # Errors
///
/// Actions are stopped, every slot is taken, or the kernel refuses; then the fleet is acted on as it was before, or by a part of its new members.
pub fn throttle(maps: &mut Maps, throttle: &Throttle<'_>) -> Result<Throttled, FleetsError> {
    if is_stopped(maps) {
        return Err(FleetsError::Stopped);
    }
    let known = standing(maps);
    let before = known.iter().find(|standing| standing.fleet.id == throttle.id);
    let is_taken = |slot: &u32| known.iter().any(|standing| standing.slot == *slot);
    let slot = match before {
        Some(standing) => standing.slot,
        None => (1..FLEET_SLOTS as u32).find(|slot| !is_taken(slot)).ok_or(FleetsError::Full)?,
    };
    if before.is_none() {
        reset_rule_counter(maps, rule_counter(slot))?;
    }
    let fleet = FleetSlot {
        id: throttle.id,
        until: throttle.until,
        packets: throttle.packets,
        connections: throttle.connections,
        service: throttle.service.into(),
        enforced_percent: 100_u8.saturating_sub(throttle.held_out_percent).into(),
        ..FleetSlot::default()
    };
    write(maps, slot, &fleet, before.is_some());
    let seed = maps.settings.read(0).seed;
    let enforced = 100_u8.saturating_sub(throttle.held_out_percent);
    let all = throttle.members.iter().map(|&source| entry_key(source, throttle.service));
    let wanted: BTreeSet<FleetMember> =
        all.filter(|key| is_enforced(key.hash(&seed), enforced)).map(FleetMember::from).collect();
    let mut members = Exchanged::default();
    let exchanged = exchange(&mut maps.fleet_members, slot, &wanted, FLEET_MEMBERS_MAX, &mut members);
    if exchanged.is_err() {
        // Those who left are nobody's to be charged, whatever becomes of the others.
        let_go(maps, slot, &members.left)?;
    }
    exchanged?;
    let keys = throttle.keys.iter().map(|key| FleetKey {
        syn_key: key.syn_key,
        tls_key: key.tls_key,
        service: throttle.service.into(),
    });
    let wanted_keys: BTreeSet<FleetKey> = keys.collect();
    let mut keys = Exchanged::default();
    let exchanged = exchange(&mut maps.fleet_keys, slot, &wanted_keys, FLEET_KEYS_MAX, &mut keys);
    let_go(maps, slot, &members.left)?;
    exchanged?;
    set_acting(maps, |acting| acting | acts_bit(slot))?;
    // Who got an entry while the table of members changed may have been asked for before: it is told now.
    wait_for_packets(maps)?;
    wanted.difference(&members.left_out).for_each(|member| set_entry(maps, member, 0, slot));
    Ok(Throttled {
        slot,
        members: wanted.len() - members.left_out.len(),
        joined: members.joined,
        left: members.left.len(),
        held_out: throttle.members.len() - wanted.len(),
        without_room: members.left_out,
        keys: wanted_keys.len() - keys.left_out.len(),
        keys_without_room: keys.left_out.len(),
    })
}

/// Takes the entries of members that the table has no more out of their slot.
fn let_go(maps: &mut Maps, slot: u32, left: &[FleetMember]) -> Result<(), FleetsError> {
    if left.is_empty() {
        return Ok(());
    }
    left.iter().for_each(|member| set_entry(maps, member, slot, 0));
    // One that was being made, or given back to its owner, meanwhile has what the table said before.
    wait_for_packets(maps)?;
    left.iter().for_each(|member| set_entry(maps, member, slot, 0));
    Ok(())
}

/// Writes what a fleet may do. `is_known`: what its budgets have been charged stays, and is the program's to change.
fn write(maps: &Maps, slot: u32, fleet: &FleetSlot, is_known: bool) {
    if !is_known {
        return maps.fleets.write(slot as usize, fleet);
    }
    let words = [
        (offset_of!(FleetSlot, packets), fleet.packets.interval),
        (offset_of!(FleetSlot, packets) + size_of::<u64>(), fleet.packets.burst_ticks),
        (offset_of!(FleetSlot, connections), fleet.connections.interval),
        (offset_of!(FleetSlot, connections) + size_of::<u64>(), fleet.connections.burst_ticks),
        (offset_of!(FleetSlot, service), u64::from(fleet.service) | u64::from(fleet.enforced_percent) << 32),
        (offset_of!(FleetSlot, until), fleet.until),
    ];
    for (offset, word) in words {
        maps.fleets.write_word(slot as usize, offset / size_of::<u64>(), word);
    }
}

const _: () = assert!(
    offset_of!(FleetSlot, enforced_percent) == offset_of!(FleetSlot, service) + 4
        && offset_of!(FleetSlot, service).is_multiple_of(size_of::<u64>())
        && cfg!(target_endian = "little"),
    "service and percent are the halves of one word"
);

/// Acts on a fleet no more. Whether it was acted on.
///
/// # Errors
///
/// The kernel refuses. The fleet is not acted on any more all the same, and its slot stays taken until [`settle`] succeeds.
pub fn end(maps: &mut Maps, id: u64) -> Result<bool, FleetsError> {
    let Some(standing) = standing(maps).into_iter().find(|standing| standing.fleet.id == id) else {
        return Ok(false);
    };
    clear(maps, standing.slot)?;
    Ok(true)
}

/// Whether all actions on fleets are stopped.
pub fn is_stopped(maps: &Maps) -> bool {
    maps.fleets.read(0).id != 0
}

/// Acts on no fleet any more, at once and until [`resume`]. It needs no lock: who is about to act on a fleet finds it stopped, before or after.
/// Slots are given back by [`settle`].
pub fn stop(maps: &Maps) {
    maps.fleets.write_word(0, ID, 1);
    fence(Ordering::SeqCst);
    maps.settings.write_word(0, FLEETS, 0);
}

/// Lets fleets be acted on again.
pub fn resume(maps: &Maps) {
    maps.fleets.write_word(0, ID, 0);
}

/// Gives back the slots of fleets that are over, by their time or since who ended them did not come to the end of it. Their numbers.
///
/// # Errors
///
/// As of [`end`].
pub fn settle(maps: &mut Maps) -> Result<Vec<u64>, FleetsError> {
    let over: Vec<_> = standing(maps).into_iter().filter(|standing| !standing.acts).collect();
    for standing in &over {
        clear(maps, standing.slot)?;
    }
    Ok(over.into_iter().map(|standing| standing.fleet.id).collect())
}

/// The members of a fleet that are charged, as keys of their entries.
///
/// # Errors
///
/// The kernel refuses to tell.
pub fn members(maps: &Maps, slot: u32) -> Result<BTreeSet<FleetMember>, FleetsError> {
    Ok(of_slot(&maps.fleet_members, slot)?)
}

fn clear(maps: &mut Maps, slot: u32) -> Result<(), FleetsError> {
    set_acting(maps, |acting| acting & !acts_bit(slot))?;
    let none = BTreeSet::new();
    exchange(&mut maps.fleet_members, slot, &none, FLEET_MEMBERS_MAX, &mut Exchanged::default())?;
    let none = BTreeSet::new();
    exchange(&mut maps.fleet_keys, slot, &none, FLEET_KEYS_MAX, &mut Exchanged::default())?;
    set_acting(maps, |acting| acting)?;
    // Nobody who read the members before makes an entry after this.
    wait_for_packets(maps)?;
    sweep(maps, slot);
    // A way that was changing hands may have been given back to its owner since, with the slot that it had.
    wait_for_packets(maps)?;
    sweep(maps, slot);
    maps.fleets.write(slot as usize, &FleetSlot::default());
    Ok(())
}

/// Changes which fleets are acted on, and notes whether any has keys.
fn set_acting(maps: &Maps, change: impl Fn(u64) -> u64) -> Result<(), FleetsError> {
    let has_keys = match maps.fleet_keys.keys().next() {
        None => 0,
        Some(Ok(_)) => HAS_KEYS,
        Some(Err(error)) => return Err(error.into()),
    };
    let acting = change(maps.settings.read(0).fleets) & !HAS_KEYS;
    // Keys without a fleet that is acted on say nothing.
    maps.settings.write_word(0, FLEETS, if acting == 0 { 0 } else { acting | has_keys });
    // Who stopped all before this word was written is seen here, and who does after it writes it after.
    fence(Ordering::SeqCst);
    if is_stopped(maps) {
        maps.settings.write_word(0, FLEETS, 0);
    }
    Ok(())
}

/// What changed in a table of members or keys.
struct Exchanged<K> {
    joined: usize,
    left: Vec<K>,
    left_out: BTreeSet<K>,
}

impl<K> Default for Exchanged<K> {
    fn default() -> Self {
        Self { joined: 0, left: Vec::new(), left_out: BTreeSet::new() }
    }
}

/// What of a table is said of a slot.
fn of_slot<K: aya::Pod + Ord>(map: &HashMap<MapData, K, u64>, slot: u32) -> Result<BTreeSet<K>, MapError> {
    let mut keys = BTreeSet::new();
    for entry in map.iter() {
        let (key, of) = entry?;
        if of == u64::from(slot) {
            keys.insert(key);
        }
    }
    Ok(keys)
}

/// Makes a table say of a slot what is wanted: first goes what goes, so that there is room for what comes. `done`: how far that came, also where it
/// fails.
fn exchange<K: aya::Pod + Ord>(
    map: &mut HashMap<MapData, K, u64>,
    slot: u32,
    wanted: &BTreeSet<K>,
    most: usize,
    done: &mut Exchanged<K>,
) -> Result<(), MapError> {
    let mut there: BTreeMap<K, u64> = BTreeMap::new();
    for entry in map.iter() {
        let (key, of) = entry?;
        there.insert(key, of);
    }
    let is_of_slot = |of: &u64| *of == u64::from(slot);
    for key in there.iter().filter(|(key, of)| is_of_slot(of) && !wanted.contains(key)).map(|(key, _)| key) {
        match map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => done.left.push(*key),
            Err(error) => return Err(error),
        }
    }
    let mut room = most.saturating_sub(there.len() - done.left.len());
    for key in wanted {
        match there.get(key) {
            Some(of) if is_of_slot(of) => continue,
            // Of two fleets that name it the first one keeps it.
            Some(_) => _ = done.left_out.insert(*key),
            None if room == 0 => _ = done.left_out.insert(*key),
            None => {
                map.insert(key, u64::from(slot), 0)?;
                room -= 1;
                done.joined += 1;
            }
        }
    }
    Ok(())
}

/// Moves the entry of a member, if it has one, from one slot to another; 0 is none.
fn set_entry(maps: &Maps, member: &FleetMember, from: u32, to: u32) {
    let key = Key { prefix: member.prefix, tag: member.tag };
    let hash = key.hash(&maps.settings.read(0).seed);
    let set = set_of(hash, maps.sources.len() as u32) as usize;
    for attempt in 0..WAYS {
        let way = way_of(hash, attempt);
        // In this order, as the program does: a prefix that is read after the word of its owner, or of an earlier one, and a swap from
        // that word fails once the way has changed hands.
        let meta = Meta(maps.sources.read_part(set, way * WAY_WORDS + META));
        let prefix: u64 = maps.sources.read_part(set, way * WAY_WORDS);
        if prefix == key.prefix && meta.has_tag(key.tag) {
            set_fleet(maps, set, way, meta, from, to);
            return;
        }
    }
}

/// Takes every way out of a slot, whoever its owner is: none has a right to be in it.
fn sweep(maps: &Maps, slot: u32) {
    for set in 0..maps.sources.len() {
        for way in 0..WAYS {
            let meta = Meta(maps.sources.read_part(set, way * WAY_WORDS + META));
            set_fleet(maps, set, way, meta, slot, 0);
        }
    }
}

/// Moves a way, whose word was seen, from one slot to another. A word that the program changes meanwhile is read again, as long as the owner
/// is the same: another one got its fleet from the table of members.
fn set_fleet(maps: &Maps, set: usize, way: usize, seen: Meta, from: u32, to: u32) {
    let mut meta = seen;
    while meta.is_occupied() && meta.generation() == seen.generation() && meta.fleet() == from && from != to {
        match maps.sources.swap_word(set, way * WAY_WORDS + META, meta.0, meta.with_fleet(to).0) {
            Ok(()) => return,
            Err(now) => meta = Meta(now),
        }
    }
}
