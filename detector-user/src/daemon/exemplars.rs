//! Exemplars, that is bytes of fingerprints that the program has not met before: they are given names, which go beside the
//! fingerprints into the maps.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use detector_common::{
    fingerprint::{Kind, Name, ja4_bytes, ja4_text},
    hello::Transport,
    limits::FINGERPRINTS,
};
use lru::LruCache;
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
        exemplar::Exemplar,
        maps::Maps,
        names::{self, Unnamed},
    },
};

/// Keys that are remembered; the one that was not seen for longest goes.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(FINGERPRINTS).expect("some");

/// JA4s of one key that are remembered.
const VARIANTS_MAX: usize = 8;

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
    let mut namer = Namer::new(&running.maps);
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

/// Gives names.
struct Namer {
    known: Known,
    initials: Initials,
    shapes: Shapes,
    services: events::Names,
    rate: Rate,
}

impl Namer {
    /// Knows what the daemon before has named.
    fn new(maps: &Maps) -> Self {
        let mut known = Known::new();
        for name in names::all(maps).filter(|name| name.kind == Kind::Tls as u8) {
            let Some(stable) = ja4_text(&name.stable_ja4) else { continue };
            let latest = [name.ja4].into_iter().chain(name.earlier_ja4);
            let latest: Vec<_> = latest.filter(|ja4| ja4_text(ja4).is_some()).collect();
            for ja4 in latest.iter().rev().filter_map(ja4_text) {
                known.note(name.key, stable, ja4).conflicts = name.conflicts;
            }
        }
        Self {
            known,
            initials: Initials::new(),
            shapes: Shapes::new(),
            services: events::Names::default(),
            rate: Rate::default(),
        }
    }

    fn take(&mut self, record: &[u8], running: &Shared) {
        let name = Exemplar::of(record).and_then(|exemplar| {
            let name = match Kind::from_number(exemplar.header.kind)? {
                Kind::Tls => Some(self.of_hello(&exemplar, running)?),
                Kind::Syn => Some(exemplar.name()?),
                // One datagram of several: what became of it is counted with its connection.
                Kind::Initial => {
                    self.take_initial(&exemplar, running);
                    None
                }
            };
            Some((name, exemplar.header.service))
        });
        let counts = &running.exemplars;
        match name {
            Some((Some(name), service)) => {
                counts.named.fetch_add(1, Ordering::Relaxed);
                self.give(&name, service, running);
            }
            Some((None, _)) => {}
            None => {
                counts.torn.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("an exemplar is not what it says it is, or was cut");
            }
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

    /// The name of a ClientHello; `None`: the bytes do not have the key that is said of them.
    fn of_hello(&mut self, exemplar: &Exemplar, running: &Shared) -> Option<Name> {
        let key = exemplar.header.key;
        let ja4 = exemplar.ja4()?;
        let (stable, full) = (ja4.stable().to_string(), ja4.to_string());
        let client = self.known.note(key, &stable, &full);
        match client.news {
            News::Nothing => {}
            News::Variant => tracing::debug!(
                key = %hexadecimal(key), stable_ja4 = %stable, ja4 = %full, raw = %ja4.raw(), "a JA4 of a fingerprint"
            ),
            News::Conflict { is_first } => {
                running.exemplars.conflicts.fetch_add(1, Ordering::Relaxed);
                if is_first {
                    tracing::warn!(
                        key = %hexadecimal(key), stable_ja4 = %client.stable, other = %stable, raw = %ja4.raw(),
                        "two clients have one key: what is counted under it is of both; please report this as a defect of detector"
                    );
                }
            }
        }
        Some(client.name(key))
    }

    /// Puts a name beside its fingerprint, and tells of one that is new at its service.
    fn give(&mut self, name: &Name, service: u16, running: &Shared) {
        let Some(kind) = Kind::from_number(name.kind) else { return };
        // It may have gone meanwhile.
        let Some(number) = names::number_of(&running.maps, kind, name.key, service) else { return };
        let before = names::read(&running.maps, number, kind, name.key);
        if before.as_ref() != Some(name) {
            names::write(&running.maps, number, name);
            running.exemplars.given.fetch_add(1, Ordering::Relaxed);
        }
        if before.is_none() && kind == Kind::Tls {
            self.tell(name, Transport::Tcp, service, running);
        }
    }

    fn tell(&mut self, name: &Name, transport: Transport, service: u16, running: &Shared) {
        if !self.rate.may_tell(clock::kernel_ns()) {
            running.exemplars.held.fetch_add(1, Ordering::Relaxed);
            return;
        }
        running.exemplars.told.fetch_add(1, Ordering::Relaxed);
        self.services.refresh(&running.maps);
        let text = |bytes| ja4_text(bytes).unwrap_or_default().to_owned();
        let stable_ja4 = text(&name.stable_ja4);
        running.feed.tell(Event::Fingerprint {
            service: self.services.service_name(service).to_owned(),
            key: hexadecimal(name.key),
            label: labels::label(&stable_ja4).map(str::to_owned),
            stable_ja4,
            ja4: text(&name.ja4),
            transport: transport.name().to_owned(),
        });
    }

    /// Ends connections that are not whole. Names what has no name and is known from another service; has the program send
    /// exemplars of the rest again.
    fn look(&mut self, running: &Shared) {
        self.initials.end_idle(clock::kernel_ns(), &running.exemplars.initials);
        for Unnamed { number, kind, key, service } in names::unnamed(&running.maps) {
            match self.known.find(key).filter(|_| kind == Kind::Tls).map(|client| client.name(key)) {
                Some(name) => self.give(&name, service, running),
                None => names::ask_again(&running.maps, number),
            }
        }
    }
}

fn hexadecimal(key: u64) -> String {
    format!("{key:016x}")
}

/// A client, as its ClientHellos tell it.
#[derive(Debug, Default)]
struct Client {
    stable: String,
    /// Its JA4s, the latest one last.
    variants: Vec<String>,
    conflicts: u32,
    /// What the last ClientHello told.
    news: News,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum News {
    #[default]
    Nothing,
    /// A JA4 that is not remembered.
    Variant,
    /// Another stable JA4 than the key has.
    Conflict {
        /// Whether it is the first one of the key.
        is_first: bool,
    },
}

impl Client {
    fn name(&self, key: u64) -> Name {
        let mut latest = self.variants.iter().rev().map(|variant| ja4_bytes(variant));
        Name {
            key,
            stable_ja4: ja4_bytes(&self.stable),
            ja4: latest.next().unwrap_or([0; 40]),
            earlier_ja4: std::array::from_fn(|_| latest.next().unwrap_or([0; 40])),
            conflicts: self.conflicts,
            kind: Kind::Tls as u8,
            ..Name::NONE
        }
    }
}

/// Clients by key.
struct Known {
    clients: LruCache<u64, Client>,
}

impl Known {
    fn new() -> Self {
        Self { clients: LruCache::new(KEYS_MAX) }
    }

    fn find(&self, key: u64) -> Option<&Client> {
        self.clients.peek(&key)
    }

    /// Notes a ClientHello. The first one of a key says what its stable JA4 is.
    fn note(&mut self, key: u64, stable: &str, ja4: &str) -> &mut Client {
        let client = self.clients.get_or_insert_mut(key, Client::default);
        if client.stable.is_empty() {
            stable.clone_into(&mut client.stable);
        }
        if client.stable != stable {
            client.news = News::Conflict { is_first: client.conflicts == 0 };
            client.conflicts = client.conflicts.saturating_add(1);
            return client;
        }
        let known = client.variants.iter().position(|variant| variant == ja4);
        client.news = if known.is_some() { News::Nothing } else { News::Variant };
        let variant = known.map_or_else(|| ja4.to_owned(), |place| client.variants.remove(place));
        if client.variants.len() == VARIANTS_MAX {
            client.variants.remove(0);
        }
        client.variants.push(variant);
        client
    }
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
    fn a_key_has_the_stable_ja4_that_it_had_first_and_conflicts_are_counted() {
        let mut known = Known::new();
        assert_eq!(known.note(7, "stable", "a").news, News::Variant);
        assert_eq!(known.note(7, "stable", "b").news, News::Variant);
        assert_eq!(known.note(7, "stable", "a").news, News::Nothing);
        assert_eq!(known.note(7, "other", "c").news, News::Conflict { is_first: true });
        assert_eq!(known.note(7, "other", "c").news, News::Conflict { is_first: false });
        let client = known.note(8, "other", "c");
        assert_eq!((client.news, client.conflicts), (News::Variant, 0));
        let name = known.find(7).expect("known").name(7);
        assert_eq!((ja4_text(&name.stable_ja4), ja4_text(&name.ja4)), (Some("stable"), Some("a")));
        assert_eq!(name.earlier_ja4.each_ref().map(ja4_text), [Some("b"), None, None]);
        assert_eq!((name.conflicts, name.key), (2, 7));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut known = Known::new();
        let keys = KEYS_MAX.get() as u64 + 10;
        for key in 0..keys {
            known.note(key, "stable", "a");
        }
        assert_eq!(known.clients.len(), KEYS_MAX.get());
        assert!(known.find(9).is_none() && known.find(10).is_some(), "the longest unseen went");
        for variant in 0..2 * VARIANTS_MAX {
            known.note(10, "stable", &variant.to_string());
        }
        assert_eq!(known.find(10).expect("known").variants.len(), VARIANTS_MAX);
        assert_eq!(known.note(10, "stable", "15").news, News::Nothing);
        assert_eq!(known.note(10, "stable", "7").news, News::Variant, "forgotten");
    }

    #[test]
    fn so_many_events_are_told_in_a_second() {
        let mut rate = Rate::default();
        let told = |rate: &mut Rate, ns: u64| (0..50).filter(|_| rate.may_tell(ns)).count();
        assert_eq!(told(&mut rate, 5_000_000_000), 10);
        assert_eq!(told(&mut rate, 5_999_999_999), 0);
        assert_eq!(told(&mut rate, 6_000_000_000), 10);
    }
}
