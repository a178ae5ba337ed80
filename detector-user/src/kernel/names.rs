//! Names of fingerprints, beside the ways of their table: written by the daemon, read by whoever opens the maps.

use std::{
    collections::HashSet,
    mem::offset_of,
    sync::atomic::{Ordering, fence},
};

use detector_common::{
    fingerprint::{Kind, Name, Sightings},
    limits::WAYS,
    table::{Key, set_of},
};

use super::{maps::Maps, read};

const KEY_WORD: usize = offset_of!(Name, key) / size_of::<u64>();

/// The number of the way of a fingerprint at a service; `None`: it has none.
pub fn number_of(maps: &Maps, kind: Kind, key: u64, service: u16) -> Option<u32> {
    let key = Key::of_fingerprint(kind, key, service);
    let (set, hash) = read::set(maps, &maps.fingerprints, &key);
    let way = set.ways.iter().position(|way| way.prefix == key.prefix && way.meta().has_tag(key.tag))?;
    let set_number = set_of(hash, maps.fingerprints.len() as u32) as usize;
    Some((set_number * WAYS + way) as u32)
}

/// A fingerprint without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unnamed {
    /// The number of its way.
    pub number: u32,
    /// What it is taken from.
    pub kind: Kind,
    /// Its key.
    pub key: u64,
    /// Number of the service.
    pub service: u16,
}

/// Every fingerprint of the table that has no name.
pub fn unnamed(maps: &Maps) -> impl Iterator<Item = Unnamed> {
    read::numbered_entries(&maps.fingerprints).filter_map(|(number, way)| {
        let (kind, key, service) = (way.meta().kind()?, way.prefix, way.meta().service());
        read(maps, number, kind, key).is_none().then_some(Unnamed { number, kind, key, service })
    })
}

/// Every name, also of fingerprints that have gone.
pub fn all(maps: &Maps) -> impl Iterator<Item = Name> {
    let names = &maps.client_names;
    let key_at = |number| names.read_part::<u64>(number, KEY_WORD);
    let whole = move |number: usize| {
        let key = key_at(number);
        fence(Ordering::SeqCst);
        let name = (key != 0).then(|| names.read(number))?;
        fence(Ordering::SeqCst);
        // Another fingerprint may have come meanwhile.
        (name.key == key && key_at(number) == key).then_some(name)
    };
    (0..names.len()).filter_map(whole)
}

/// The name of each fingerprint that is in the table and has one, with the number of its way and its service.
pub fn standing(maps: &Maps) -> impl Iterator<Item = Standing> {
    read::numbered_entries(&maps.fingerprints).filter_map(|(number, way)| {
        let meta = way.meta();
        let name = read(maps, number, meta.kind()?, way.prefix)?;
        Some(Standing { number, name, service: meta.service() })
    })
}

/// A fingerprint that is in the table, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The number of its way.
    pub number: u32,
    /// What it is called.
    pub name: Name,
    /// Number of the service.
    pub service: u16,
}

/// A name that a fingerprint was given at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// What it is called from now on.
    pub name: Name,
    /// What it was called there before.
    pub before: Option<Name>,
    /// What its key was called, there or else at another service.
    pub known: Option<Name>,
}

impl Given {
    /// Whether the exemplar was of another client than the one that the key is named after.
    pub fn is_conflict(&self) -> bool {
        self.known.is_some_and(|known| known.conflicts != self.name.conflicts)
    }

    /// Whether it is the first one of that kind.
    pub fn is_first_conflict(&self) -> bool {
        self.is_conflict() && self.known.is_some_and(|known| known.conflicts == 0)
    }
}

/// Puts what an exemplar is called beside its fingerprint at a service. What the key is called already, there or at another service,
/// stays: another client's name is a conflict, which is counted at every service. `None`: the fingerprint has gone meanwhile.
pub fn give(maps: &Maps, told: &Name, service: u16) -> Option<Given> {
    let kind = Kind::from_number(told.kind)?;
    let number = number_of(maps, kind, told.key, service)?;
    let before = read(maps, number, kind, told.key);
    let others = || {
        standing(maps).filter(|other| {
            other.number != number && (other.name.kind, other.name.key) == (told.kind, told.key)
        })
    };
    let known = before.or_else(|| others().map(|other| other.name).next());
    let given = Given { name: known.map_or(*told, |known| told.after(&known)), before, known };
    if given.is_conflict() {
        for other in others() {
            write(maps, other.number, &Name { conflicts: given.name.conflicts, ..other.name });
        }
    }
    if before != Some(given.name) {
        write(maps, number, &given.name);
    }
    Some(given)
}

/// Forgets the conflicts of fingerprints that have left the table, with what they were called: who comes next names them anew.
pub fn end_conflicts(maps: &Maps) {
    let standing: HashSet<u32> = standing(maps).map(|standing| standing.number).collect();
    let names = &maps.client_names;
    for number in 0..names.len() {
        let has_gone = !standing.contains(&(number as u32));
        if has_gone && names.read(number).conflicts > 0 {
            write(maps, number as u32, &Name::NONE);
        }
    }
}

/// Gives a name to the fingerprint of a way.
pub fn write(maps: &Maps, number: u32, name: &Name) {
    let names = &maps.client_names;
    // A reader that meets a key before and after it has read sees none but whole names.
    names.write_word(number as usize, KEY_WORD, 0);
    fence(Ordering::SeqCst);
    let words = Name { key: 0, ..*name };
    names.write(number as usize, &words);
    fence(Ordering::SeqCst);
    names.write_word(number as usize, KEY_WORD, name.key);
}

/// The name of the fingerprint of a way, if it is of this kind and key.
pub fn read(maps: &Maps, number: u32, kind: Kind, key: u64) -> Option<Name> {
    let names = &maps.client_names;
    let is_named = || names.read_part::<u64>(number as usize, KEY_WORD) == key;
    if !is_named() {
        return None;
    }
    fence(Ordering::SeqCst);
    let name = names.read(number as usize);
    fence(Ordering::SeqCst);
    (is_named() && name.key == key && name.kind == kind as u8).then_some(name)
}

/// Has the program send exemplars of the fingerprint of a way again, when it is seen again.
pub fn ask_again(maps: &Maps, number: u32) {
    let word = offset_of!(Sightings, variants) / size_of::<u64>();
    maps.sightings.write_word(number as usize, word, 0);
}
