//! What is counted of each client: a source at a service under a pair of fingerprints.

use detector_common::{
    branchless::bounded,
    client::{Client, DELAY_BINS, SIZE_BINS, delay_bin},
    counters::TableEvent,
    table::{Key, Unit},
};

use crate::{
    account, atomic,
    judge::Packed,
    maps::{CLIENT_COUNTS, SCRATCH},
    sighting::{self, FOLLOWED, NOT_KNOWN, Sighting},
    source::{self, Table},
};

/// Counts a sighting of the client that the packet in the scratch is from.
#[inline(always)]
pub(crate) fn note(syn_key: u64, tls_key: u64, sighting: Sighting) {
    note_client(syn_key, tls_key, sighting.pack());
}

/// A function of numbers with external linkage, so that the verifier walks it once. The result says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_client(syn_key: u64, tls_key: u64, sighting: u64) -> u64 {
    let sighting = Sighting::unpack(sighting);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: see `handshake::hand_over`.
    let handed = unsafe { &*scratch };
    let (packet, now) = (&handed.packet, handed.now);
    let service = Packed::unpack(handed.decision).service;
    let key = Key::of_client(&source::seed(), handed.source_hash, syn_key, tls_key);
    let Some(place) = source::place_in(Table::Clients, &key) else { return 0 };
    let Some((number, entry)) = sighting.enter(Table::Clients, &place, &key, now) else {
        // More of a handshake may be of a client that has given way.
        if sighting.is_first() {
            account::table_event(TableEvent::ClientsFull);
        }
        return 0;
    };
    let Some(counts) = CLIENT_COUNTS.get_ptr_mut(number) else { return 0 };
    // SAFETY: an element of the map; two CPUs that count at once may lose one of both.
    let client = unsafe { &mut *counts };
    if client.key != key.prefix || sighting::is_empty(entry) {
        clear(client);
        let source = Key::new(packet.source, Unit::of_source(packet.source.family), service);
        client.key = key.prefix;
        client.source = source.prefix;
        client.tag = source.tag;
        client.syn_key = syn_key;
        client.tls_key = tls_key;
    }
    sighting.count_in(entry, now);
    if sighting.counts == FOLLOWED {
        client.followed = client.followed.wrapping_add(1);
    }
    if sighting.request_size != NOT_KNOWN {
        client.exchanges = client.exchanges.wrapping_add(1);
        count_size(&mut client.request_sizes, sighting.request_size);
        count_size(&mut client.response_sizes, sighting.response_size);
    }
    client.segments = client.segments.wrapping_add(sighting.segments as u32);
    count(&mut client.round_trip, sighting.round_trip);
    count(&mut client.hello_delay, sighting.hello_delay);
    count(&mut client.finish_delay, sighting.finish_delay);
    0
}

#[inline(always)]
fn count(bins: &mut [u16; DELAY_BINS], time_bin: u8) {
    if time_bin == NOT_KNOWN {
        return;
    }
    let bin = bounded::<15>(delay_bin(time_bin as u32) as u64);
    if let Some(count) = bins.get_mut(bin) {
        *count = count.wrapping_add(1);
    }
}

#[inline(always)]
fn count_size(bins: &mut [u16; SIZE_BINS], bin: u8) {
    let count = &mut bins[bounded::<{ SIZE_BINS - 1 }>(bin as u64)];
    *count = count.wrapping_add(1);
}

/// Fills an element with 0, word by word: the compiler would call a loop over bytes.
#[inline(always)]
fn clear(client: &mut Client) {
    const WORDS: usize = size_of::<Client>() / size_of::<u64>();
    let words = core::ptr::from_mut(client).cast::<u64>();
    for word in 0..WORDS {
        // SAFETY: one of the words.
        atomic::store(unsafe { words.add(word) }, 0);
    }
}
