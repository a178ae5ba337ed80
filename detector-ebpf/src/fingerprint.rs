//! What is counted of each fingerprint.

use detector_common::{
    branchless::bounded,
    counters::HandshakeEvent,
    fingerprint::{Kind, REGISTERS, Sightings, TIME_BINS, register_of},
    table::Key,
};

use crate::{
    account, atomic,
    maps::SIGHTINGS,
    sighting::{self, NOT_KNOWN, Sighting},
    source::{self, Table},
};

/// Counts a sighting of a fingerprint. Whether it is new: the fingerprint, or its set of extensions that come and go.
#[inline(always)]
pub(crate) fn note(
    kind: Kind,
    key: u64,
    service: u16,
    source_hash: u64,
    now: u64,
    sighting: Sighting,
) -> bool {
    let key = Key::of_fingerprint(kind, key, service);
    note_fingerprint(key.prefix, key.tag, source_hash, now, sighting.pack()) != 0
}

/// A function of numbers with external linkage, so that the verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_fingerprint(prefix: u64, tag: u64, source_hash: u64, now: u64, sighting: u64) -> u64 {
    let key = Key { prefix, tag };
    let sighting = Sighting::unpack(sighting);
    let Some(place) = source::place_in(Table::Fingerprints, &key) else { return 0 };
    let Some((number, entry)) = sighting.enter(Table::Fingerprints, &place, &key, now) else {
        // More of a handshake may be of a fingerprint that has given way.
        if sighting.is_first() {
            account::handshake_event(HandshakeEvent::FingerprintsFull);
        }
        return 0;
    };
    let Some(profile) = SIGHTINGS.get_ptr_mut(number) else { return 0 };
    // SAFETY: an element of the map; two CPUs that count at once may lose one of both.
    let profile = unsafe { &mut *profile };
    let is_new = profile.key != prefix || sighting::is_empty(entry);
    if is_new {
        clear(profile);
        profile.key = prefix;
    }
    sighting.count_in(entry, now);
    if sighting.is_first() {
        let (place, raised) = register_of(source_hash);
        let register = &mut profile.sources[bounded::<{ REGISTERS - 1 }>(place as u64)];
        if *register < raised {
            *register = raised;
        }
    }
    profile.segments += sighting.segments as u64;
    count(&mut profile.round_trip, sighting.round_trip);
    count(&mut profile.hello_delay, sighting.hello_delay);
    count(&mut profile.finish_delay, sighting.finish_delay);
    let variant = if sighting.variant == NOT_KNOWN { 0 } else { 1_u64 << (sighting.variant & 63) };
    let is_new = is_new || profile.variants & variant != variant;
    profile.variants |= variant;
    is_new as u64
}

#[inline(always)]
fn count(bins: &mut [u32; TIME_BINS], bin: u8) {
    if bin != NOT_KNOWN {
        bins[bounded::<{ TIME_BINS - 1 }>(bin as u64)] += 1;
    }
}

/// Fills a profile with 0, word by word: the compiler would call a loop over bytes.
#[inline(always)]
fn clear(profile: &mut Sightings) {
    const WORDS: usize = size_of::<Sightings>() / size_of::<u64>();
    let words = core::ptr::from_mut(profile).cast::<u64>();
    for word in 0..WORDS {
        // SAFETY: one of the words.
        atomic::store(unsafe { words.add(word) }, 0);
    }
}
