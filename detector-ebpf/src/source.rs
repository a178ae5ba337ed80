//! Entries of the source tables: found, or made in a way that is idle.

use aya_ebpf::Global;
use detector_common::{
    branchless::{all_ones_if, is_before, later},
    budget::ticks,
    counters::{HandshakeEvent, TableEvent},
    hash::Seed,
    limits::{self, HISTORY_PACKETS, LONG_IDLE_NS, SEARCHES_MAX, WAYS},
    table::{Key, Set, attempt_at, set_of, way_of},
    way::{Meta, Way, traffic_packets},
};

use crate::{
    account,
    atomic::{self, word},
    charge,
    maps::{CLIENT_BUDGETS, CLIENTS, FINGERPRINTS, FLOWS, PARENTS, SOURCES},
    syn_flood,
};

/// The tables of ways.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Table {
    /// [`SOURCES`].
    Sources = 0,
    /// [`PARENTS`].
    Parents = 1,
    /// [`FLOWS`]. Their class is 0, or [`OF_QUIC`]; its ways have one time, see [`detector_common::flow::Rank`], and a mark, see [`HALF_OPEN`].
    Flows = 2,
    /// [`FINGERPRINTS`].
    Fingerprints = 3,
    /// [`CLIENT_BUDGETS`]. Its ways have one budget, in the place of that of packets.
    ClientBudgets = 4,
    /// [`CLIENTS`].
    Clients = 5,
}

impl Table {
    /// The table of a number.
    #[inline(always)]
    fn of(number: u64) -> Self {
        match number {
            0 => Self::Sources,
            1 => Self::Parents,
            2 => Self::Flows,
            3 => Self::Fingerprints,
            4 => Self::ClientBudgets,
            _ => Self::Clients,
        }
    }
}

/// The secret of the tables, see [`Seed`]. Drawn by the daemon; every program that shares the tables has the same.
/// Four words, since a struct would be copied to the stack.
#[unsafe(no_mangle)]
static SEED_OFFSET_0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SEED_OFFSET_1: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SEED_MULTIPLIER_0: Global<u64> = Global::new(1);
#[unsafe(no_mangle)]
static SEED_MULTIPLIER_1: Global<u64> = Global::new(1);

#[inline(always)]
pub(crate) fn seed() -> Seed {
    Seed {
        offsets: [SEED_OFFSET_0.load(), SEED_OFFSET_1.load()],
        multipliers: [SEED_MULTIPLIER_0.load(), SEED_MULTIPLIER_1.load()],
    }
}

/// Sets of [`SOURCES`].
#[unsafe(no_mangle)]
static SOURCE_SETS: Global<u32> = Global::new(1);

/// Sets of [`PARENTS`].
#[unsafe(no_mangle)]
static PARENT_SETS: Global<u32> = Global::new(1);

/// Sets of [`CLIENT_BUDGETS`].
#[unsafe(no_mangle)]
static CLIENT_BUDGET_SETS: Global<u32> = Global::new(1);

/// Sets of [`CLIENTS`].
#[unsafe(no_mangle)]
static CLIENT_SETS: Global<u32> = Global::new(1);

/// Sets of [`FLOWS`].
const FLOW_SETS: u32 = (limits::FLOWS / WAYS) as u32;

/// Sets of [`FINGERPRINTS`].
const FINGERPRINT_SETS: u32 = (limits::FINGERPRINTS / WAYS) as u32;

/// Class of an entry of [`FLOWS`] that is of a connection over QUIC.
pub(crate) const OF_QUIC: u16 = 1;

/// Stands in the time of connections of an entry of [`FLOWS`] as long as nothing came after the SYN. As a time it is long past.
pub(crate) const HALF_OPEN: u64 = 1;

/// The same of a connection that is followed beyond its handshake.
pub(crate) const BEYOND: u64 = 2;

/// Where an entry is, or would be.
pub(crate) struct Place {
    /// The key's hash.
    pub(crate) hash: u64,
    /// Number of the set.
    pub(crate) set_number: u32,
    /// The set.
    pub(crate) set: *mut Set,
}

/// The place of a source.
#[inline(always)]
pub(crate) fn place(key: &Key) -> Option<Place> {
    source_place_of(key.hash(&seed()))
}

/// The place of a key in a table.
#[inline(always)]
pub(crate) fn place_in(table: Table, key: &Key) -> Option<Place> {
    place_of(table, key.hash(&seed()))
}

#[inline(always)]
fn source_place_of(hash: u64) -> Option<Place> {
    let set_number = set_of(hash, SOURCE_SETS.load());
    Some(Place { hash, set_number, set: SOURCES.get_ptr_mut(set_number)? })
}

#[inline(always)]
fn place_of(table: Table, hash: u64) -> Option<Place> {
    let (set_number, set) = match table {
        Table::Sources => return source_place_of(hash),
        Table::Parents => {
            let number = set_of(hash, PARENT_SETS.load());
            (number, PARENTS.get_ptr_mut(number)?)
        }
        Table::Flows => {
            let number = set_of(hash, FLOW_SETS);
            (number, FLOWS.get_ptr_mut(number)?)
        }
        Table::Fingerprints => {
            let number = set_of(hash, FINGERPRINT_SETS);
            (number, FINGERPRINTS.get_ptr_mut(number)?)
        }
        Table::ClientBudgets => {
            let number = set_of(hash, CLIENT_BUDGET_SETS.load());
            (number, CLIENT_BUDGETS.get_ptr_mut(number)?)
        }
        Table::Clients => {
            let number = set_of(hash, CLIENT_SETS.load());
            (number, CLIENTS.get_ptr_mut(number)?)
        }
    };
    Some(Place { hash, set_number, set })
}

/// The way of a place at an attempt of the search.
#[inline(always)]
pub(crate) fn way(place: &Place, attempt: usize) -> *mut Way {
    let first = place.set.cast::<Way>();
    // SAFETY: `way_of` is below WAYS, so the way lies inside the set.
    unsafe { first.add(way_of(place.hash, attempt)) }
}

#[inline(always)]
fn meta_of(way: *mut Way) -> *mut u64 {
    word!(way, meta)
}

/// [`WAYS`], which the compiler is not to know: unrolled, the searches would spill their addresses over more stack than the
/// verifier allows.
#[inline(always)]
fn ways() -> usize {
    let ways: usize;
    // SAFETY: one operation on one register.
    unsafe {
        core::arch::asm!("{0} = {1}", out(reg) ways, const WAYS, options(pure, nomem, nostack, preserves_flags));
    }
    ways
}

/// Reads the meta word of an entry.
#[inline(always)]
pub(crate) fn meta(way: *mut Way) -> Meta {
    Meta(atomic::load(meta_of(way)))
}

/// An entry, and its meta word as it was when the entry was found.
pub(crate) struct Found {
    /// The entry.
    pub(crate) way: *mut Way,
    /// To swap from: if the way has changed hands since, the swap fails.
    pub(crate) meta: Meta,
}

/// The meta word of an entry, if it still is that of a key.
#[inline(always)]
pub(crate) fn meta_of_owner(way: *mut Way, key: &Key) -> Option<Meta> {
    let meta = meta(way);
    is_entry_of(way, meta, key).then_some(meta)
}

/// The number of the way that the search meets at an attempt, counted through the table.
#[inline(always)]
pub(crate) fn number_of(place: &Place, attempt: usize) -> u32 {
    place.set_number * WAYS as u32 + way_of(place.hash, attempt) as u32
}

/// The entry of a key. This is all that a known source costs.
#[inline(always)]
pub(crate) fn find(place: &Place, key: &Key) -> Option<Found> {
    for attempt in 0..ways() {
        let way = way(place, attempt);
        let meta = meta(way);
        if is_entry_of(way, meta, key) {
            return Some(Found { way, meta });
        }
    }
    None
}

/// The score of a way that nobody may take; see [`victim`].
const TAKEN: u64 = u64::MAX >> 1;

/// Stands in the score of an idle way for a source that has a history; above all times that a score may hold.
const WITH_HISTORY: u64 = ticks(LONG_IDLE_NS).next_power_of_two();

/// The bits of a score that hold the attempt.
const ATTEMPT_MASK: u64 = WAYS as u64 - 1;

const _: () = assert!(WAYS as u64 <= ticks(1), "an attempt takes less than a nanosecond of a score");

/// The attempt at which the search meets the way that a newcomer may take; [`NO_WAY`]: every way is limiting its source, or
/// changing hands. The first of
///
/// 1. a way without an owner,
/// 2. one that has been idle for [`LONG_IDLE_NS`], so that known sources stand where their search starts,
/// 3. one that is idle and whose source sent fewer than [`HISTORY_PACKETS`]: spoofed ones send one,
/// 4. one that is idle;
///
/// among equals the one that has been idle longest (within a nanosecond: the attempt stands in the lowest bits of the
/// score), else the one that the search meets first.
///
/// A function of numbers with external linkage, as [`create_entry`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn victim(hash: u64, now: u64, table: u64) -> u64 {
    let Some(place) = place_of(Table::of(table), hash) else { return NO_WAY };
    let long_ago = now.saturating_sub(ticks(LONG_IDLE_NS));
    let mut best = TAKEN;
    for attempt in 0..ways() {
        let way = way(&place, attempt);
        let meta = meta(way);
        let busy_until = busy_until(way);
        let taken = is_before(now, busy_until) | all_ones_if(meta.is_busy());
        let idle_since = later(busy_until, long_ago) - long_ago;
        let packets = traffic_packets(atomic::load(word!(way, traffic))) as u64;
        let has_history = is_before(0, idle_since) & is_before(HISTORY_PACKETS - 1, packets);
        let rank = ((idle_since & !ATTEMPT_MASK) + WAYS as u64) | has_history & WITH_HISTORY;
        let score = (rank & all_ones_if(meta.is_occupied()) | attempt as u64 | taken) & TAKEN;
        best ^= (best ^ score) & is_before(score, best);
    }
    if best == TAKEN { NO_WAY } else { best & ATTEMPT_MASK }
}

/// The newest of an entry's times.
#[inline(always)]
fn busy_until(way: *mut Way) -> u64 {
    let packets = atomic::load(word!(way, packets_tat));
    let bytes = atomic::load(word!(way, bytes_tat));
    let connections = atomic::load(word!(way, connections_tat));
    let special = atomic::load(word!(way, special_tat));
    later(later(packets, bytes), later(connections, special))
}

/// What became of a key that had no entry a moment ago.
pub(crate) enum Created {
    /// It has one now, which the search meets at this attempt.
    Made(usize),
    /// Another CPU made one meanwhile.
    Met(usize),
    /// No way is idle.
    Full,
}

/// What a new entry says of its owner.
#[derive(Clone, Copy, Default)]
pub(crate) struct Owner {
    /// The class, and the epoch that gave it.
    pub(crate) class: u16,
    pub(crate) epoch: u32,
    /// Slot of its fleet; 0: none.
    pub(crate) fleet: u32,
}

impl Owner {
    #[inline(always)]
    fn pack(self) -> u64 {
        self.class as u64 | (self.fleet as u64) << 16 | (self.epoch as u64) << 32
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        Self { class: word as u16, fleet: (word >> 16) as u16 as u32, epoch: (word >> 32) as u32 }
    }
}

/// Makes the entry of a key.
#[inline(always)]
pub(crate) fn create(table: Table, key: &Key, now: u64, owner: Owner) -> Created {
    let created = create_entry(key.prefix, key.tag, now, owner.pack(), table as u64);
    if created == NO_WAY {
        return Created::Full;
    }
    let attempt = created as usize & (WAYS - 1);
    if created & MADE != 0 { Created::Made(attempt) } else { Created::Met(attempt) }
}

/// Returned by [`create_entry`]: no way is idle.
const NO_WAY: u64 = WAYS as u64;

/// A bit of what [`create_entry`] returns: the entry was not there before.
const MADE: u64 = WAYS as u64 * 2;

/// Makes an entry and returns the attempt at which the search meets it, with [`MADE`] or without; or [`NO_WAY`]. `owner`: see [`Owner`].
///
/// A function of numbers with external linkage, so that the verifier walks it once and not once for every path to it.
///
/// Two CPUs that make the same entry at once publish it twice: one that finds the first choice of both claimed takes
/// another way. Both search again after they published, so at least one of them sees both: see [`settle_with_others`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn create_entry(prefix: u64, tag: u64, now: u64, owner: u64, table: u64) -> u64 {
    let key = Key { prefix, tag };
    let table = Table::of(table);
    let Some(place) = place_in(table, &key) else { return NO_WAY };
    for _ in 0..SEARCHES_MAX {
        if let Some(found) = attempt_of(&place, &key) {
            return found as u64;
        }
        let chosen = victim(place.hash, now, table as u64);
        if chosen == NO_WAY {
            return NO_WAY;
        }
        let chosen = chosen as usize & (WAYS - 1);
        let way = way(&place, chosen);
        let seen = meta(way);
        // Another CPU made it since the search and may not have charged it yet: to be shared, not to be made again.
        if is_entry_of(way, seen, &key) {
            return chosen as u64;
        }
        // Asked again after the meta word was read: the swap below fails if the way has another owner than now.
        if seen.is_busy() || busy_until(way) > now {
            account::table_event(TableEvent::CreationRaced);
            continue;
        }
        let claimed = seen.claimed();
        if atomic::swap(meta_of(way), seen.0, claimed.0).is_err() {
            account::table_event(TableEvent::CreationRaced);
            continue;
        }
        // Its owner sent on another CPU before the claim was seen: it keeps the way.
        if busy_until(way) > now {
            give_back(table, &place, way, chosen, seen, claimed);
            account::table_event(TableEvent::CreationRaced);
            continue;
        }
        let idle_since = busy_until(way);
        let mark = atomic::load(word!(way, connections_tat));
        fill(way, key.prefix);
        let Owner { class, epoch, fleet } = Owner::unpack(owner);
        let owned = claimed.owned(key.tag, class, epoch).with_fleet(fleet);
        // Nobody else changes a claimed word. By a swap since that is a full barrier: what the entry was filled with is
        // seen before it, and the search below reads after it. A plain store may linger in the store buffer, so that
        // two CPUs miss each other.
        if atomic::swap(meta_of(way), claimed.0, owned.0).is_err() {
            return NO_WAY;
        }
        count_creation(table, seen.is_occupied());
        if table == Table::Flows && seen.is_occupied() && seen.class() != OF_QUIC {
            syn_flood::note_replaced(mark, idle_since, now);
        }
        let attempt =
            settle_with_others(place.hash, prefix, tag, chosen as u64, table as u64) as usize & (WAYS - 1);
        // Dated, so that it is not the next newcomer's choice before its first packet is charged.
        charge::stamp(self::way(&place, attempt), now);
        return attempt as u64 | if attempt == chosen { MADE } else { 0 };
    }
    NO_WAY
}

/// The attempt at which the search meets the entry of a key.
#[inline(always)]
fn attempt_of(place: &Place, key: &Key) -> Option<usize> {
    for attempt in 0..ways() {
        let way = way(place, attempt);
        if is_entry_of(way, meta(way), key) {
            return Some(attempt);
        }
    }
    None
}

/// The attempt at which the search meets an entry that a packet of a handshake asks for.
#[inline(always)]
pub(crate) fn attempt_in(table: Table, key: &Key) -> Option<usize> {
    match find_entry(key.prefix, key.tag, table as u64) {
        NO_WAY => None,
        attempt => Some(attempt as usize & (WAYS - 1)),
    }
}

/// As [`attempt_in`]; where there is no such entry it is made. `None`: no way is idle.
#[inline(always)]
pub(crate) fn enter(table: Table, key: &Key, now: u64) -> Option<usize> {
    if let Some(attempt) = attempt_in(table, key) {
        return Some(attempt);
    }
    match create(table, key, now, Owner::default()) {
        Created::Made(attempt) | Created::Met(attempt) => Some(attempt),
        Created::Full => None,
    }
}

/// As [`attempt_of`]: a function of numbers with external linkage, so that the verifier walks the loop once for all tables.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_entry(prefix: u64, tag: u64, table: u64) -> u64 {
    let key = Key { prefix, tag };
    match place_in(Table::of(table), &key) {
        Some(place) => attempt_of(&place, &key).map_or(NO_WAY, |attempt| attempt as u64),
        None => NO_WAY,
    }
}

/// Whether a way, whose meta word was read before, is the entry of a key. In this order: a prefix that is read after the
/// word of its owner, or of an earlier one, and a swap from that word fails once the way has changed hands.
#[inline(always)]
fn is_entry_of(way: *mut Way, meta: Meta, key: &Key) -> bool {
    let prefix = atomic::load(word!(way, prefix));
    prefix == key.prefix && meta.has_tag(key.tag)
}

/// Empties a claimed way for its new owner.
#[inline(always)]
fn fill(way: *mut Way, prefix: u64) {
    atomic::store(word!(way, packets_tat), 0);
    atomic::store(word!(way, bytes_tat), 0);
    atomic::store(word!(way, connections_tat), 0);
    atomic::store(word!(way, special_tat), 0);
    atomic::store(word!(way, traffic), 0);
    atomic::store(word!(way, outcomes), 0);
    atomic::store(word!(way, prefix), prefix);
}

/// Gives a claimed way back to the owner it had, which may have made another entry meanwhile.
#[inline(always)]
fn give_back(table: Table, place: &Place, way: *mut Way, chosen: usize, seen: Meta, claimed: Meta) {
    if atomic::swap(meta_of(way), claimed.0, claimed.returned(seen).0).is_ok() && seen.is_occupied() {
        let owner = Key { prefix: atomic::load(word!(way, prefix)), tag: seen.tag() };
        let hash = owner.hash(&seed());
        let number = way_of(place.hash, chosen);
        settle_with_others(hash, owner.prefix, owner.tag, attempt_at(hash, number) as u64, table as u64);
    }
}

/// Settles with a CPU that published the same key, of hash `hash`, in another way: the first in the order of search stays,
/// since every reader takes that one, and the other is given back, whoever made it. With it goes what was charged to it
/// meanwhile, a packet or two. The attempt at which the search meets the one that stays, `mine` if there is none.
///
/// A function of numbers with external linkage, as [`create_entry`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle_with_others(hash: u64, prefix: u64, tag: u64, mine: u64, table: u64) -> u64 {
    let key = Key { prefix, tag };
    let Some(place) = place_of(Table::of(table), hash) else { return mine };
    let mut first = WAYS;
    for attempt in 0..ways() {
        let way = way(&place, attempt);
        let meta = meta(way);
        if !is_entry_of(way, meta, &key) {
            continue;
        }
        if first == WAYS {
            first = attempt;
        } else {
            release(way, meta);
        }
    }
    // None at all: mine has been given away again.
    if first == WAYS { mine } else { first as u64 }
}

/// Gives a way back.
#[inline(always)]
pub(crate) fn release(way: *mut Way, seen: Meta) {
    // Lost only if the way has changed hands meanwhile: then it is somebody else's.
    let _ = atomic::swap(meta_of(way), seen.0, seen.released().0);
}

#[inline(always)]
fn count_creation(table: Table, replaced: bool) {
    match table {
        Table::Sources => {}
        Table::ClientBudgets | Table::Clients => return,
        Table::Parents => return account::table_event(TableEvent::ParentCreated),
        Table::Flows => return account::handshake_event(HandshakeEvent::Followed),
        Table::Fingerprints => return account::handshake_event(HandshakeEvent::FingerprintCreated),
    }
    account::table_event(TableEvent::SourceCreated);
    if replaced {
        account::table_event(TableEvent::SourceReplaced);
    }
}

/// Keeps another class with an entry. Another CPU that does the same at the same time wins or loses, no matter.
#[inline(always)]
pub(crate) fn set_class(way: *mut Way, seen: Meta, class: u16, epoch: u32) {
    if atomic::swap(meta_of(way), seen.0, seen.with_class(class, epoch).0).is_ok() {
        account::table_event(TableEvent::SourceRefreshed);
    }
}
