//! Exemplars, that is bytes of fingerprints that the program has not met before: they are given names, which go beside the
//! fingerprints into the maps.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use detector_common::{
    fingerprint::{Kind, Name, ja4_text},
    hello::Transport,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::MissedTickBehavior,
};

use super::{
    Shared, events,
    feed::Event,
    initials::{self, Initials, Shapes},
};
use crate::{
    clock,
    fingerprint::{self, labels},
    kernel::{
        client_rules,
        exemplar::Exemplar,
        names::{self, Unnamed},
    },
};

/// Events a second; what is beyond is counted.
const EVENTS_PER_SECOND: u32 = 10;

/// Exemplars that are read before others have a turn.
const EXEMPLARS_A_TURN: u32 = 32;

/// Time between two looks at what has no name.
const LOOK: Duration = Duration::from_secs(10);

/// What became of exemplars, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Taken for what they say they are.
    pub(super) named: AtomicU64,
    /// Not what they say they are, or cut: dropped.
    pub(super) torn: AtomicU64,
    /// With another stable JA4 than their key has.
    pub(super) conflicts: AtomicU64,
    /// Names that were given to a fingerprint, or changed.
    pub(super) given: AtomicU64,
    /// Connections over QUIC.
    pub(super) initials: initials::Counts,
    /// Events that were told.
    pub(super) told: AtomicU64,
    /// Events that were not, since there were too many.
    pub(super) held: AtomicU64,
}

/// The ring buffer of exemplars.
pub(super) struct Exemplars {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Exemplars {
    pub(super) fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: the ring owns one descriptor for as long as it lives, and lives in the registration.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self { ring: ring.map_err(|error| std::io::Error::other(error.to_string()))? })
    }
}

/// Reads exemplars as they come, and looks every while at what has no name. At first, that is what came while there was no
/// daemon.
pub(super) async fn follow(mut exemplars: Exemplars, running: Shared) {
    let mut namer = Namer::new();
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // What waits in the ring need not be asked for.
        tokio::select! {
            biased;
            ready = exemplars.ring.readable_mut() => match ready {
                Ok(mut guard) => {
                    let mut count = 0;
                    while count < EXEMPLARS_A_TURN && let Some(record) = guard.get_inner_mut().next() {
                        count += 1;
                        namer.take(&record, &running);
                    }
                    if count < EXEMPLARS_A_TURN {
                        guard.clear_ready();
                    }
                }
                Err(error) => {
                    tracing::warn!("fingerprints are given no names any more: {error}");
                    return;
                }
            },
            _ = every.tick() => namer.look(&running),
        }
        tokio::task::yield_now().await;
    }
}

/// Gives names. What it has named stands in the maps, where the next daemon finds it.
struct Namer {
    initials: Initials,
    shapes: Shapes,
    services: events::Names,
    rate: Rate,
}

impl Namer {
    fn new() -> Self {
        Self {
            initials: Initials::new(),
            shapes: Shapes::new(),
            services: events::Names::default(),
            rate: Rate::default(),
        }
    }

    fn take(&mut self, record: &[u8], running: &Shared) {
        let counts = &running.exemplars;
        let taken = Exemplar::of(record).and_then(|exemplar| {
            match Kind::from_number(exemplar.header.kind)? {
                Kind::Tls | Kind::Syn => {
                    let name = exemplar.name()?;
                    counts.named.fetch_add(1, Ordering::Relaxed);
                    self.give(&name, &exemplar, running);
                }
                // One datagram of several: what became of it is counted with its connection.
                Kind::Initial => self.take_initial(&exemplar, running),
            }
            Some(())
        });
        if taken.is_none() {
            counts.torn.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("an exemplar is not what it says it is, or was cut");
        }
    }

    /// Takes a datagram of a connection over QUIC. With the last one that its ClientHello needs, the shape of its Initial gets a
    /// name.
    fn take_initial(&mut self, exemplar: &Exemplar, running: &Shared) {
        let Some(message) = self.initials.take(exemplar, &running.exemplars.initials) else { return };
        let header = &exemplar.header;
        let Ok(ja4) = fingerprint::ja4(&message, Transport::Quic) else { return };
        // It may have gone meanwhile.
        let Some(number) = names::number_of(&running.maps, Kind::Initial, header.key, header.service) else {
            return;
        };
        let before = names::read(&running.maps, number, Kind::Initial, header.key);
        let (name, is_new) = self.shapes.note(header, &ja4, before.as_ref());
        if before != Some(name) {
            names::write(&running.maps, number, &name);
        }
        if is_new {
            self.tell(&name, Transport::Quic, header.service, running);
        }
    }

    /// Puts a name beside its fingerprint, and tells of one that is new at its service, or another client's too.
    fn give(&mut self, name: &Name, exemplar: &Exemplar, running: &Shared) {
        let service = exemplar.header.service;
        // It may have gone meanwhile.
        let Some(given) = names::give(&running.maps, name, service) else { return };
        if given.before != Some(given.name) {
            running.exemplars.given.fetch_add(1, Ordering::Relaxed);
        }
        if name.kind != Kind::Tls as u8 {
            return;
        }
        tracing::debug!(
            key = %hexadecimal(name.key), stable_ja4 = %text(&name.stable_ja4), ja4 = %text(&name.ja4),
            raw = %exemplar.ja4().map(|ja4| ja4.raw()).unwrap_or_default(), "a JA4 of a fingerprint"
        );
        if given.is_conflict() {
            running.exemplars.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        if given.is_first_conflict() {
            self.tell_conflict(&given.name, name, service, running);
        }
        if given.before.is_none() {
            self.tell(&given.name, Transport::Tcp, service, running);
        }
    }

    /// Tells that a key is another client's too, which disarms rules.
    fn tell_conflict(&mut self, name: &Name, other: &Name, service: u16, running: &Shared) {
        let of_key = names::standing(&running.maps).filter(|standing| standing.name.key == name.key);
        let services: Vec<_> = of_key.map(|standing| standing.service).collect();
        let rules = client_rules::rules_about(&running.maps, name, &services).unwrap_or_else(|error| {
            tracing::warn!("which rules act on a fingerprint no more is not known: {error}");
            Vec::new()
        });
        let key = hexadecimal(name.key);
        let (stable_ja4, other_stable_ja4) = (text(&name.stable_ja4), text(&other.stable_ja4));
        if rules.is_empty() {
            tracing::warn!(
                key,
                stable_ja4,
                other_stable_ja4,
                "two clients have one key, which takes somebody who makes one up: what is counted under it is of both, and rules with \
                 `ja4` do not act on it until it is not counted any longer"
            );
            return;
        }
        tracing::warn!(
            key,
            stable_ja4,
            other_stable_ja4,
            rules = rules.join(", "),
            "two clients have one key, which takes somebody who makes one up: these rules act on it no more, until it is not counted \
             any longer; name its sources (`detector explain ADDRESS`) or its SYN (`syn:`) instead"
        );
        self.services.refresh(&running.maps);
        running.feed.tell(Event::FingerprintConflict {
            service: self.services.service_name(service).to_owned(),
            key,
            stable_ja4: stable_ja4.to_owned(),
            other_stable_ja4: other_stable_ja4.to_owned(),
            rules,
        });
    }

    fn tell(&mut self, name: &Name, transport: Transport, service: u16, running: &Shared) {
        if !self.rate.may_tell(clock::kernel_ns()) {
            running.exemplars.held.fetch_add(1, Ordering::Relaxed);
            return;
        }
        running.exemplars.told.fetch_add(1, Ordering::Relaxed);
        self.services.refresh(&running.maps);
        let stable_ja4 = text(&name.stable_ja4).to_owned();
        running.feed.tell(Event::Fingerprint {
            service: self.services.service_name(service).to_owned(),
            key: hexadecimal(name.key),
            label: labels::label(&stable_ja4).map(str::to_owned),
            stable_ja4,
            ja4: text(&name.ja4).to_owned(),
            transport: transport.name().to_owned(),
        });
    }

    /// Ends connections that are not whole. Names what has no name and is known from another service; has the program send
    /// exemplars of the rest again.
    fn look(&mut self, running: &Shared) {
        self.initials.end_idle(clock::kernel_ns(), &running.exemplars.initials);
        names::end_conflicts(&running.maps);
        let of_clients = names::standing(&running.maps).map(|standing| standing.name);
        let known: HashMap<_, _> =
            of_clients.filter(|name| name.kind == Kind::Tls as u8).map(|name| (name.key, name)).collect();
        for Unnamed { number, kind, key, service } in names::unnamed(&running.maps) {
            let Some(name) = known.get(&key).filter(|_| kind == Kind::Tls) else {
                names::ask_again(&running.maps, number);
                continue;
            };
            // Beside a fingerprint that has taken its place meanwhile it is nobody's.
            names::write(&running.maps, number, name);
            running.exemplars.given.fetch_add(1, Ordering::Relaxed);
            self.tell(name, Transport::Tcp, service, running);
        }
    }
}

fn text(ja4: &[u8; 40]) -> &str {
    ja4_text(ja4).unwrap_or_default()
}

fn hexadecimal(key: u64) -> String {
    format!("{key:016x}")
}

/// Events of this second.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    told: u32,
}

impl Rate {
    fn may_tell(&mut self, now_ns: u64) -> bool {
        let second = now_ns / 1_000_000_000;
        if second != self.second {
            *self = Self { second, told: 0 };
        }
        self.told += 1;
        self.told <= EVENTS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_events_are_told_in_a_second() {
        let mut rate = Rate::default();
        let told = |rate: &mut Rate, ns: u64| (0..50).filter(|_| rate.may_tell(ns)).count();
        assert_eq!(told(&mut rate, 5_000_000_000), 10);
        assert_eq!(told(&mut rate, 5_999_999_999), 0);
        assert_eq!(told(&mut rate, 6_000_000_000), 10);
    }
}
