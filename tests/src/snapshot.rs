//! Everything that the program counts, and what changed between two looks.

use std::{collections::BTreeMap, fmt::Write as _};

use detector_common::{
    counters::{COUNTERS, FRAME_KINDS, HANDSHAKE_EVENTS, TABLE_EVENTS},
    limits::SERVICES_MAX,
    table::{Set, Unit},
    verdict::{COUNTER_SLOTS, Counter, slot_reason},
};
use detector_user::{
    kernel::{mapped::Mapped, maps::Maps, read},
    replay::source_prefix,
};

/// Everything there is to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// By service and slot.
    pub verdicts: BTreeMap<(u16, usize), Counter>,
    counters: [u64; COUNTERS],
    entries: BTreeMap<EntryKey, Entry>,
}

impl Snapshot {
    /// What stands in the maps.
    ///
    /// # Panics
    ///
    /// They cannot be read, or a source has two entries.
    pub fn of(maps: &Maps) -> Self {
        let counters = read::counters(maps).expect("counters");
        let mut snapshot = Self { verdicts: BTreeMap::new(), counters, entries: BTreeMap::new() };
        for service in 0..SERVICES_MAX as u16 {
            let counters = read::verdicts(maps, service).expect("counters");
            for slot in 0..COUNTER_SLOTS {
                if counters.slots[slot] != Counter::default() {
                    snapshot.verdicts.insert((service, slot), counters.slots[slot]);
                }
            }
        }
        for table in [&maps.sources, &maps.parents] {
            snapshot.add_entries(table);
        }
        snapshot
    }

    /// What moved since an earlier look: one line each. `name` gives the names of services.
    pub fn moved_since(&self, before: &Self, name: impl Fn(u16) -> String, frame_bytes: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for (&(service, slot), counter) in &self.verdicts {
            let old = before.verdicts.get(&(service, slot)).copied().unwrap_or_default();
            let (packets, bytes) = (counter.packets - old.packets, counter.bytes - old.bytes);
            if (packets, bytes) != (0, 0) {
                let (reason, shadow) = slot_reason(slot).expect("a slot in use");
                let shadow = if shadow { ".shadow" } else { "" };
                let odd = odd_bytes(packets, bytes, frame_bytes);
                lines.push(format!("{}.{}{shadow} {packets}{odd}", name(service), reason.name()));
            }
        }
        for (slot, counter) in counter_names().enumerate() {
            let moved = self.counters[slot] - before.counters[slot];
            if moved != 0 {
                lines.push(format!("{counter} {moved}"));
            }
        }
        for (key, entry) in &self.entries {
            let old = before.entries.get(key);
            if old == Some(entry) {
                continue;
            }
            let moved = entry.since(old, frame_bytes);
            let text = if moved.is_empty() { " new" } else { &moved };
            lines.push(format!("{}@{}{text}", key.text(), name(key.service)));
        }
        for key in before.entries.keys().filter(|key| !self.entries.contains_key(key)) {
            lines.push(format!("{}@{} gone", key.text(), name(key.service)));
        }
        lines
    }

    fn add_entries(&mut self, table: &Mapped<Set>) {
        for way in read::entries(table) {
            let Some((owner, unit)) = way.owner() else { continue };
            let lineage = way.prefix ^ owner.high;
            let key = EntryKey { service: way.meta().service(), unit, prefix: owner.high, lineage };
            let entry = Entry {
                packets: way.packets(),
                bytes: way.bytes(),
                refused: way.refused(),
                connections: way.connections(),
            };
            let twice = self.entries.insert(key, entry);
            assert!(twice.is_none(), "{} has two entries", key.text());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct EntryKey {
    service: u16,
    unit: Unit,
    prefix: u64,
    /// Of a parent; see `Lineage`.
    lineage: u64,
}

impl EntryKey {
    fn text(&self) -> String {
        source_prefix(self.unit, self.prefix).to_string()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Entry {
    packets: u32,
    bytes: u32,
    refused: u32,
    connections: u32,
}

impl Entry {
    fn since(&self, old: Option<&Self>, frame_bytes: u64) -> String {
        let old = old.copied().unwrap_or_default();
        let packets = self.packets - old.packets;
        let mut text = String::new();
        for (name, count) in [
            ("packets", packets),
            ("refused", self.refused - old.refused),
            ("connections", self.connections - old.connections),
        ] {
            if count != 0 {
                let _ = write!(text, " {name} {count}");
            }
        }
        text + &odd_bytes(packets.into(), (self.bytes - old.bytes).into(), frame_bytes)
    }
}

/// Names of the counters that are no verdicts, in the order of their numbers.
pub(crate) fn counter_names() -> impl Iterator<Item = &'static str> {
    let events = TABLE_EVENTS.iter().map(|event| event.1).chain(HANDSHAKE_EVENTS.iter().map(|event| event.1));
    FRAME_KINDS.iter().map(|kind| kind.1).chain(events)
}

fn odd_bytes(packets: u64, bytes: u64, frame_bytes: u64) -> String {
    if bytes == packets * frame_bytes { String::new() } else { format!(" ({bytes} bytes)") }
}
