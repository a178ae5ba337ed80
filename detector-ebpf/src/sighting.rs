//! What one packet tells of a fingerprint, and of a client that has it.

use detector_common::{
    fingerprint::time_bin,
    table::Key,
    way::{Way, outcomes_of},
};

use crate::{
    atomic::{self, word},
    charge,
    source::{self, Place, Table},
};

/// What one packet tells of a fingerprint: times in bins, and the set of extensions that come and go.
#[derive(Clone, Copy)]
pub(crate) struct Sighting {
    /// A [`time_bin`] of [`detector_common::fingerprint::Sightings::round_trip`], or [`NOT_KNOWN`].
    pub(crate) round_trip: u8,
    /// … of [`detector_common::fingerprint::Sightings::hello_delay`].
    pub(crate) hello_delay: u8,
    /// … of [`detector_common::fingerprint::Sightings::finish_delay`].
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

    /// The number of the entry that it is counted in, and the entry; where it is the first of a connection or handshake the entry is
    /// made. `None`: no way is idle, or what it is more of has given way.
    #[inline(always)]
    pub(crate) fn enter(&self, table: Table, place: &Place, key: &Key, now: u64) -> Option<(u32, *mut Way)> {
        let attempt =
            if self.is_first() { source::enter(table, key, now) } else { source::attempt_in(table, key) };
        let attempt = attempt?;
        Some((source::number_of(place, attempt), source::way(place, attempt)))
    }

    /// Counts it in its entry, which is the newest from now on.
    #[inline(always)]
    pub(crate) fn count_in(&self, entry: *mut Way, now: u64) {
        charge::stamp(entry, now);
        if self.counts == HANDSHAKE {
            atomic::add(word!(entry, traffic), 1);
        }
        if self.counts == CONNECTION {
            atomic::add(word!(entry, outcomes), outcomes_of(false, true));
        }
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

/// Whether nothing has been counted in an entry.
#[inline(always)]
pub(crate) fn is_empty(entry: *mut Way) -> bool {
    atomic::load(word!(entry, traffic)) | atomic::load(word!(entry, outcomes)) == 0
}
