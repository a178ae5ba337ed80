//! Users: everybody who comes by themselves and then behaves as people, or machines, of their kind do.

use crate::conversation::{Client, Conversation, Sizes};
use crate::path::Path;
use crate::population::place::{Move, Place};
use crate::random::{Key, Stream};
use crate::software::Software;
use crate::time::{DAY_S, Rhythm, Window, hours_ahead};
use crate::visits::{Plan, Visit};

/// When visits begin, and what they are.
#[derive(Clone, Debug)]
pub(crate) enum Pace {
    /// Of people: some visits on a day on which they come at all.
    Sessions {
        /// Mean of a day.
        visits: f64,
        /// Median of a visit, and its spread.
        exchanges: f64,
        exchanges_sigma: f64,
        /// Mean seconds between exchanges.
        think_s: f64,
    },
    /// Of machines: one exchange each time.
    Every {
        period_s: f64,
        /// Standard deviation of each time.
        jitter_s: f64,
        /// Whether each begins at a time of its own, rather than all at full periods of UTC.
        is_scattered: bool,
    },
}

/// Which software a user has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    /// Browsers, by how common they are.
    Browsers,
    /// SDKs, by how common they are.
    Sdks,
    /// An app on Android and iOS.
    App(&'static str),
    /// The same for everybody.
    One(Software),
    /// One of these, by the number of the user.
    Among(&'static [Software]),
}

/// New releases of software, to which hosts change one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    /// Ranks that have a new release.
    pub(crate) first_rank: usize,
    pub(crate) ranks: usize,
    pub(crate) is_of_browsers: bool,
    pub(crate) window: Window,
}

impl Release {
    /// Whether that software on that host has been renewed by then.
    pub(crate) fn has_reached(&self, software: Software, host: Key, time_s: f64) -> bool {
        let rank = match software {
            Software::Browser(rank) if self.is_of_browsers => rank,
            Software::Sdk(rank) if !self.is_of_browsers => rank,
            _ => return false,
        };
        let starts = self.window.start_s + self.window.ramp_s * host.named("release").unit();
        (self.first_rank..self.first_rank + self.ranks).contains(&rank) && time_s >= starts
    }
}

/// A population of users.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    pub(crate) key: Key,
    pub(crate) service: u16,
    /// Chance of each user to come on a working day.
    pub(crate) chances: Vec<f32>,
    /// Spread of the whole population's activity from day to day.
    pub(crate) drift: f64,
    pub(crate) pace: Pace,
    pub(crate) rhythm: Rhythm,
    pub(crate) choice: Choice,
    /// Devices of a user.
    pub(crate) devices: u64,
    pub(crate) place: Place,
    pub(crate) sizes: Sizes,
    pub(crate) reconnect: f64,
    pub(crate) spare: f64,
    /// Share of users behind a proxy that ends TCP, and the median of the leg behind it.
    pub(crate) proxied: f64,
    pub(crate) leg_ms: f64,
    /// Round trip more than from the node's own region.
    pub(crate) further_ms: f64,
    /// When there is this population; each user joins at a time of the ramp.
    pub(crate) window: Window,
    pub(crate) moves: Vec<Move>,
    pub(crate) releases: Vec<Release>,
}

/// Chances of `count` users, lognormal with that spread, so that about `daily` of them come on a day.
pub(crate) fn chances(key: Key, count: u32, daily: f64, sigma: f64) -> Vec<f32> {
    let mean = daily / f64::from(count);
    let mut chances: Vec<f32> = (0..count)
        .map(|user| (mean * key.at(u64::from(user)).named("use").stream().factor(sigma)).min(0.97) as f32)
        .collect();
    // What the bound takes from those who come daily goes to the others.
    for _ in 0..4 {
        let sum: f64 = chances.iter().map(|chance| f64::from(*chance)).sum();
        let missing = (daily / sum) as f32;
        chances.iter_mut().for_each(|chance| *chance = (*chance * missing).min(0.97));
    }
    chances
}

impl Plan for Users {
    fn day(&mut self, day: u32, visits: &mut Vec<Visit>) {
        let start_s = day * DAY_S;
        if !self.window.meets(&(start_s..start_s + DAY_S)) {
            return;
        }
        let today = self.key.named("day").at(u64::from(day));
        let factor = (today.stream().factor(self.drift) * self.rhythm.of_day(day)) as f32;
        for user in 0..self.chances.len() as u32 {
            let own = today.at(u64::from(user));
            if own.unit() >= f64::from(self.chances[user as usize] * factor) {
                continue;
            }
            self.visits_of(user, start_s, &mut own.stream(), visits);
        }
    }

    fn begin(&mut self, visit: &Visit) -> Conversation {
        let time_s = f64::from(visit.start_s);
        let user = self.key.at(u64::from(visit.who));
        let host = user.named("host").at(u64::from(visit.what));
        let mut about = host.stream();
        let software = self.software(visit.who, host);
        let renewed =
            self.releases.iter().filter(|release| release.has_reached(software, host, time_s)).count();
        let mut network = self.place.network();
        let mut source = self.place.source(self.key, visit.who, user, time_s);
        // The home's path, whichever device it is.
        let mut path = Path::straight(network, &mut user.named("path").stream()).further(self.further_ms);
        if user.named("proxied").unit() < self.proxied {
            path = path.behind(about.lognormal(self.leg_ms, 0.7), about.chance(0.3));
        }
        let moved = self.moves.iter().find(|other| other.takes(software, host, time_s));
        if let Some(other) = moved {
            network = other.network();
            source = other.source(host);
            path = other.path(path, &mut about);
        }
        let mut fingerprint = software.fingerprint(renewed as u64, network, host);
        if let Some(other) = moved {
            other.disguise(&mut fingerprint);
        }
        let client = Client {
            service: self.service,
            source,
            fingerprint,
            path,
            sizes: self.sizes.of_one(0.4, &mut about),
            reconnect: self.reconnect,
            resume: 0.7,
            spare: self.spare,
        };
        Conversation::new(client, host.named("visit").at(u64::from(visit.start_s)).stream())
    }
}

impl Users {
    fn software(&self, user: u32, host: Key) -> Software {
        match self.choice {
            Choice::Browsers => Software::browser(host.named("browser").unit()),
            Choice::Sdks => Software::sdk(host.named("sdk").unit()),
            Choice::App(name) if host.named("system").unit() < 0.62 => Software::Own(name, "android"),
            Choice::App(name) => Software::Own(name, "ios"),
            Choice::One(software) => software,
            Choice::Among(all) => all[user as usize % all.len()],
        }
    }

    fn visits_of(&self, user: u32, day_s: u32, stream: &mut Stream, visits: &mut Vec<Visit>) {
        let key = self.key.at(u64::from(user));
        let place = key.named("joins").unit();
        match self.pace {
            Pace::Sessions { visits: mean, exchanges, exchanges_sigma, think_s } => {
                let ahead_h = hours_ahead(key);
                let count =
                    1 + stream.poisson((mean - 1.0).max(0.0) * key.named("visits").stream().factor(0.5));
                let devices = 1 + key.named("devices").bits() % self.devices;
                for _ in 0..count {
                    let start_s = day_s + self.rhythm.second(stream.unit(), stream.unit(), ahead_h);
                    let exchanges = stream.lognormal(exchanges, exchanges_sigma).ceil().clamp(1.0, 20_000.0);
                    let length_s = (exchanges - 1.0) * think_s * (0.3 + 0.7 * stream.exponential());
                    let what = stream.below(devices) as u32;
                    if self.window.has(f64::from(start_s), place) {
                        let length_s = length_s.min(12.0 * 3_600.0) as u32;
                        visits.push(Visit {
                            start_s,
                            who: user,
                            what,
                            exchanges: exchanges as u32,
                            length_s,
                        });
                    }
                }
            }
            Pace::Every { period_s, jitter_s, is_scattered } => {
                let phase_s = if is_scattered { key.named("phase").unit() * period_s } else { 0.0 };
                let day_end_s = f64::from(day_s + DAY_S);
                let mut turn = ((f64::from(day_s) - phase_s) / period_s).ceil();
                while turn * period_s + phase_s < day_end_s {
                    let late_s = if is_scattered {
                        jitter_s * stream.normal()
                    } else {
                        jitter_s * stream.exponential()
                    };
                    let time_s =
                        (turn * period_s + phase_s + late_s).clamp(f64::from(day_s), day_end_s - 1.0);
                    turn += 1.0;
                    if self.window.has(time_s, place) {
                        visits.push(Visit {
                            start_s: time_s as u32,
                            who: user,
                            what: 0,
                            exchanges: 1,
                            length_s: 0,
                        });
                    }
                }
            }
        }
    }
}
