//! What is counted of each fingerprint.

use detector_common::{
    branchless::bounded,
    counters::HandshakeEvent,
    fingerprint::{Kind, REGISTERS, Sightings, TIME_BINS, register_of, time_bin},
    table::{Key, Way, outcomes_of},
};

use crate::{
    account,
    atomic::{self, word},
    charge,
    maps::SIGHTINGS,
    source::{self, Table},
};

/// What one packet tells of a fingerprint: times in bins, and the set of extensions that come and go.
#[derive(Clone, Copy)]
pub(crate) struct Sighting {
    /// A [`time_bin`] of [`Sightings::round_trip`], or [`NOT_KNOWN`].
    pub(crate) round_trip: u8,
    /// … of [`Sightings::hello_delay`].
    pub(crate) hello_delay: u8,
    /// … of [`Sightings::finish_delay`].
    pub(crate) finish_delay: u8,
    /// [`detector_common::hello::Hello::variant`], or [`NOT_KNOWN`].
    pub(crate) variant: u8,
    /// A [`detector_common::client::size_bin`] of a request, or [`NOT_KNOWN`]: there was no exchange.
    pub(crate) request_size: u8,
    /// … of its response.
    pub(crate) response_size: u8,
    /// Segments of a connection that is followed no longer.
    pub(crate) segments: u8,
    /// [`CONNECTION`] or [`HANDSHAKE`] where it is another one, else 0: it is more of one that was counted.
    pub(crate) counts: u8,
}

/// Values of [`Sighting::counts`]; the last one: a connection is followed beyond its handshake.
pub(crate) const CONNECTION: u8 = 1;
pub(crate) const HANDSHAKE: u8 = 2;
pub(crate) const FOLLOWED: u8 = 3;

/// Stands in a [`Sighting`] for what it does not tell.
pub(crate) const NOT_KNOWN: u8 = 0xff;

impl Sighting {
    /// What tells nothing.
    pub(crate) const EMPTY: Self = Self {
        round_trip: NOT_KNOWN,
        hello_delay: NOT_KNOWN,
        finish_delay: NOT_KNOWN,
        variant: NOT_KNOWN,
        request_size: NOT_KNOWN,
        response_size: NOT_KNOWN,
        segments: 0,
        counts: 0,
    };

    /// Whether it is of another connection or handshake, and not more of one that was counted.
    #[inline(always)]
    pub(crate) const fn is_first(&self) -> bool {
        self.counts == CONNECTION || self.counts == HANDSHAKE
    }

    #[inline(always)]
    pub(crate) const fn pack(self) -> u64 {
        self.round_trip as u64
            | (self.hello_delay as u64) << 8
            | (self.finish_delay as u64) << 16
            | (self.variant as u64) << 24
            | (self.counts as u64) << 32
            | (self.request_size as u64) << 40
            | (self.response_size as u64) << 48
            | (self.segments as u64) << 56
    }

    #[inline(always)]
    pub(crate) const fn unpack(word: u64) -> Self {
        Self {
            round_trip: word as u8,
            hello_delay: (word >> 8) as u8,
            finish_delay: (word >> 16) as u8,
            variant: (word >> 24) as u8,
            counts: (word >> 32) as u8,
            request_size: (word >> 40) as u8,
            response_size: (word >> 48) as u8,
            segments: (word >> 56) as u8,
        }
    }
}

/// The bin of the time between two moments; [`NOT_KNOWN`] where one of them is not known.
#[inline(always)]
pub(crate) fn bin_between(start_ns: u64, end_ns: u64) -> u8 {
    if start_ns == 0 || end_ns < start_ns { NOT_KNOWN } else { time_bin(end_ns - start_ns) as u8 }
}

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
    let attempt = if sighting.is_first() {
        source::enter(Table::Fingerprints, &key, now)
    } else {
        source::attempt_in(Table::Fingerprints, &key)
    };
    let Some(attempt) = attempt else {
        // More of a handshake may be of a fingerprint that has given way.
        if sighting.is_first() {
            account::handshake_event(HandshakeEvent::FingerprintsFull);
        }
        return 0;
    };
    let Some(profile) = SIGHTINGS.get_ptr_mut(source::number_of(&place, attempt)) else {
        return 0;
    };
    let entry = source::way(&place, attempt);
    // SAFETY: an element of the map; two CPUs that count at once may lose one of both.
    let profile = unsafe { &mut *profile };
    let is_new = profile.key != prefix || entry_is_empty(entry);
    if is_new {
        clear(profile);
        profile.key = prefix;
    }
    charge::stamp(entry, now);
    if sighting.counts == HANDSHAKE {
        atomic::add(word!(entry, traffic), 1);
    }
    if sighting.counts == CONNECTION {
        atomic::add(word!(entry, outcomes), outcomes_of(false, true));
    }
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

/// Whether nothing has been counted in an entry.
#[inline(always)]
fn entry_is_empty(entry: *mut Way) -> bool {
    atomic::load(word!(entry, traffic)) | atomic::load(word!(entry, outcomes)) == 0
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
