//! A fleet: what one actor does through many sources, by level, and who they were.

use std::collections::HashMap;

use crate::conversation::{Client, Conversation, Fingerprint, Sizes};
use crate::path::Path;
use crate::random::{Key, Stream};
use crate::scenario::{Fleet, Level};
use crate::software::{Software, home_system, syn_key};
use crate::source::{Network, Source};
use crate::time::{DAY_S, HOUR_S, Rhythm, Window};
use crate::visits::{Plan, Visit};

/// Exits of a residential proxy.
const EXITS: u32 = 6_000_000;

/// Sessions of a source on a day, at the first level.
const SESSIONS: f64 = 3.5;

/// Seconds between exchanges of a session, at the first level.
const THINK_S: f64 = 20.0;

/// What a visit is: the fleet's own, or of somebody who lends an exit.
const OWN: u32 = 0;
const UNRELATED: u32 = 1;

/// What a source did for a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Beginnings of its first and last epoch, seconds since the recording began.
    pub(crate) first_s: u32,
    pub(crate) last_s: u32,
    pub(crate) exchanges: u32,
}

/// Who is behind a fleet, and what it did so far.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) key: Key,
    pub(crate) fleet: Fleet,
    /// Sources of a day.
    pub(crate) sources: u32,
    /// Index and sizes of the target, and of the later one.
    pub(crate) targets: [(u16, Sizes); 2],
    pub(crate) window: Window,
    pub(crate) members: HashMap<Source, Membership>,
    pub(crate) exchanges: u64,
    rhythm: Rhythm,
}

impl Actor {
    /// `length_s`: of the recording.
    pub(crate) fn new(
        key: Key,
        fleet: Fleet,
        sources: u32,
        targets: [(u16, Sizes); 2],
        length_s: f64,
    ) -> Self {
        let end_h = fleet.end_h.unwrap_or(length_s / f64::from(HOUR_S));
        let window = Window::hours(fleet.start_h, end_h - fleet.start_h, fleet.ramp_h);
        let rhythm = if fleet.level >= Level::L4 { Rhythm::evenings() } else { Rhythm::flat() };
        Self { key, fleet, sources, targets, window, members: HashMap::new(), exchanges: 0, rhythm }
    }

    fn pool(&self) -> u64 {
        let usual = if self.fleet.level >= Level::L3 { EXITS } else { self.sources };
        u64::from(self.fleet.pool.unwrap_or(usual).max(self.sources))
    }

    fn is_past(&self, hour: Option<f64>, time_s: u32) -> bool {
        hour.is_some_and(|hour| f64::from(time_s) >= hour * f64::from(HOUR_S))
    }

    fn second(&self, stream: &mut Stream) -> u32 {
        self.rhythm.second(stream.unit(), stream.unit(), 1)
    }

    /// Each source has some sessions.
    fn sessions(&self, day_s: u32, stream: &mut Stream, visits: &mut Vec<Visit>) {
        for who in self.sources_of(stream) {
            let count = 1 + stream.poisson(SESSIONS - 1.0);
            let mut left = stream.poisson(self.fleet.exchanges);
            for session in 0..count {
                let exchanges = stream.binomial(left, 1.0 / f64::from(count - session));
                left -= exchanges;
                let start_s = day_s + self.second(stream);
                let length_s = (f64::from(exchanges) * THINK_S * stream.exponential()).min(43_200.0) as u32;
                let place = self.key.at(who).unit();
                if exchanges > 0 && self.window.has(f64::from(start_s), place) {
                    visits.push(Visit { start_s, who: who as u32, what: OWN, exchanges, length_s });
                }
            }
        }
    }

    /// The pool's members of a day, each once: a walk over the pool in steps that meet all of it.
    fn sources_of(&self, stream: &mut Stream) -> impl Iterator<Item = u64> + use<> {
        let pool = self.pool();
        let first = stream.below(pool);
        let mut step = (pool as f64 * 0.618) as u64 | 1;
        while divisor(step, pool) != 1 {
            step += 2;
        }
        (0..u64::from(self.sources)).map(move |index| (first + index * step) % pool)
    }

    /// Each request has some source.
    fn requests(&self, day_s: u32, stream: &mut Stream, visits: &mut Vec<Visit>) {
        let requests = f64::from(self.sources) * self.fleet.exchanges;
        let count = (requests + requests.sqrt() * stream.normal()).max(0.0) as u64;
        let sources: Vec<u64> = self.sources_of(stream).collect();
        for _ in 0..count {
            let who = sources[stream.below(sources.len() as u64) as usize];
            let start_s = day_s + self.second(stream);
            if self.window.has(f64::from(start_s), self.key.at(who).unit()) {
                visits.push(Visit { start_s, who: who as u32, what: OWN, exchanges: 1, length_s: 0 });
            }
        }
    }

    /// Each exit is used for some minutes.
    fn leases(&self, day_s: u32, stream: &mut Stream, visits: &mut Vec<Visit>) {
        let Fleet { level, sticky_min, sticky_max, jitter, unrelated, .. } = self.fleet;
        let unrelated = if level >= Level::L5 { unrelated } else { 0.0 };
        let a_minute = self.fleet.exchanges * (1.0 - unrelated) / ((sticky_min + sticky_max) / 2.0);
        for who in self.sources_of(stream) {
            let minutes = stream.between(sticky_min, sticky_max);
            let factor = if level >= Level::L4 { stream.factor(jitter) } else { 1.0 };
            // Nobody pays for an exit without using it.
            let exchanges = stream.poisson(a_minute * minutes * factor).max(1);
            let start_s = day_s + self.second(stream);
            let (who, length_s) = (who as u32, (minutes * 60.0) as u32);
            if !self.window.has(f64::from(start_s), stream.unit()) {
                continue;
            }
            visits.push(Visit { start_s, who, what: OWN, exchanges, length_s });
            let others = stream.poisson(f64::from(exchanges) * unrelated / (1.0 - unrelated));
            if others > 0 {
                let within = stream.below(4 * u64::from(HOUR_S)) as u32;
                let start_s = (start_s + within).saturating_sub(2 * HOUR_S).clamp(day_s, day_s + DAY_S - 1);
                let length_s = others * 15;
                visits.push(Visit { start_s, who, what: UNRELATED, exchanges: others, length_s });
            }
        }
    }

    fn fingerprint(&self, exit: Key, visit: &Visit) -> Fingerprint {
        let level = self.fleet.level;
        let image = self.key.named("image");
        let of_exit = |software: Software| Fingerprint {
            syn_key: syn_key(home_system(exit.named("system").unit()), Network::Home, exit),
            quic_key: 0,
            ..software.fingerprint(0, Network::Home, exit)
        };
        let drawn = Software::browser(exit.named("browser").at(u64::from(visit.start_s / DAY_S)).unit());
        match level {
            _ if visit.what == UNRELATED => {
                Software::browser(exit.named("own browser").unit()).fingerprint(0, Network::Home, exit)
            }
            Level::L0 | Level::L1 => Software::sdk(0.5).fingerprint(0, Network::DataCentre, image),
            Level::L2 => Software::Mimic(0).fingerprint(0, Network::DataCentre, image),
            Level::L3 => of_exit(Software::Mimic(0)),
            Level::L4 => of_exit(drawn),
            Level::L5 => Fingerprint { quic_key: 0, ..drawn.fingerprint(0, Network::Home, exit) },
        }
    }

    fn path(&self, exit: Key, visit: &Visit) -> Path {
        let mut about = exit.named("path").stream();
        match self.fleet.level {
            Level::L0 | Level::L1 | Level::L2 => Path::straight(Network::DataCentre, &mut about),
            Level::L3 | Level::L4 if visit.what == OWN => {
                let leg_ms = about.lognormal(self.fleet.leg_ms, 0.35);
                let is_hidden = about.chance(self.fleet.hidden);
                Path::straight(Network::Home, &mut about).behind(leg_ms, is_hidden)
            }
            _ => Path::straight(Network::Home, &mut about),
        }
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

impl Plan for Actor {
    fn day(&mut self, day: u32, visits: &mut Vec<Visit>) {
        let day_s = day * DAY_S;
        if !self.window.meets(&(day_s..day_s + DAY_S)) {
            return;
        }
        let mut stream = self.key.named("day").at(u64::from(day)).stream();
        match self.fleet.level {
            Level::L0 => self.sessions(day_s, &mut stream, visits),
            Level::L1 | Level::L2 => self.requests(day_s, &mut stream, visits),
            Level::L3 | Level::L4 | Level::L5 => self.leases(day_s, &mut stream, visits),
        }
    }

    fn begin(&mut self, visit: &Visit) -> Conversation {
        let level = self.fleet.level;
        let is_replaced = self.is_past(self.fleet.failover_h, visit.start_s);
        let pool = self.key.named("pool").at(u64::from(is_replaced));
        let exit = pool.at(u64::from(visit.who));
        let source = if level < Level::L3 {
            let block = pool.named("blocks").at(u64::from(visit.who / 64));
            Network::DataCentre.v4_in(block.bits(), (visit.who % 64 * 3 + 7) as u8)
        } else if exit.named("family").unit() < 0.25 {
            Network::Home.v6(pool.bits().wrapping_add(u64::from(visit.who)))
        } else {
            Network::Home.v4(pool.bits().wrapping_add(u64::from(visit.who)))
        };
        let session =
            exit.at(u64::from(visit.start_s)).at(u64::from(visit.what)).at(u64::from(visit.exchanges));
        let mut stream = session.stream();
        let is_retargeted = self.is_past(self.fleet.retarget_h, visit.start_s);
        let (service, sizes) = self.targets[usize::from(is_retargeted)];
        let sizes = match visit.what {
            OWN if level < Level::L4 => sizes,
            // Padded: as wide as those of others.
            _ => Sizes { request_sigma: 0.7, response_sigma: 1.1, ..sizes }.of_one(0.5, &mut stream),
        };
        let client = Client {
            service,
            source,
            fingerprint: self.fingerprint(exit, visit),
            path: self.path(exit, visit),
            sizes,
            reconnect: if level == Level::L0 { 0.1 } else { 0.25 },
            resume: 0.6,
            spare: 0.0,
        };
        Conversation::new(client, stream)
    }

    fn talked(&mut self, visit: &Visit, time_s: u32, exchanges: u32, conversation: &Conversation) {
        if visit.what != OWN {
            return;
        }
        self.exchanges += u64::from(exchanges);
        let first = Membership { first_s: time_s, last_s: time_s, exchanges: 0 };
        let member = self.members.entry(conversation.client.source).or_insert(first);
        member.last_s = time_s;
        member.exchanges += exchanges;
    }
}
