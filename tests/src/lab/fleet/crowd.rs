//! Who comes when: people, each in their own way, and the exits of one actor, all in the same. Times are of detection, in minutes.

use std::net::Ipv4Addr;

use super::{
    curl::{PROGRAMS, Program, Request, SDK},
    scene::Addresses,
};
use crate::random::Random;

/// Pages of the service, bytes: people read all of them.
pub(super) const PAGES: [usize; 12] =
    [700, 1_200, 2_500, 4_000, 6_000, 9_000, 14_000, 20_000, 30_000, 45_000, 60_000, 90_000];

/// The page that the actor is after.
const WANTED: usize = 4;

/// People at a time.
const PEOPLE: usize = 480;

/// For how long somebody comes, at the mean: two days.
const STAY_MIN: f64 = 2880.0;

/// Time between two visits of somebody, at the median, and by which factor half of all people differ from it.
const VISITS_EVERY_MIN: f64 = 240.0;
const SPREAD: f64 = 2.5;

/// Two requests of one visit follow each other within that, at the mean.
const WITHIN_VISIT_MIN: f64 = 6.0;

/// Exits that come each hour while the fleet grows.
const EXITS_AN_HOUR: f64 = 150.0;

/// Time between two requests by an exit: about one an hour.
const EXIT_EVERY_MIN: f64 = 60.0;

/// How long people wait for an answer, and the actor, s of the clock on the wall.
const PEOPLE_PATIENCE_S: u32 = 10;
const ACTOR_PATIENCE_S: u32 = 3;

struct Person {
    source: Ipv4Addr,
    program: Program,
    visits_every_min: f64,
    leaves_min: f64,
    next_min: f64,
}

/// People of a service.
pub(super) struct People {
    random: Random,
    people: Vec<Person>,
}

impl People {
    pub(super) fn new(addresses: &mut Addresses, mut random: Random) -> Self {
        let people = (0..PEOPLE).map(|_| Person::comes(0.0, addresses, &mut random)).collect();
        Self { random, people }
    }

    /// The requests that are due, and new people for those who have left.
    pub(super) fn due(&mut self, now_min: f64, addresses: &mut Addresses) -> Vec<Request> {
        let Self { random, people } = self;
        for person in people.iter_mut().filter(|person| person.leaves_min <= now_min) {
            *person = Person::comes(now_min, addresses, random);
        }
        let due = people.iter_mut().filter(|person| person.next_min <= now_min);
        due.map(|person| person.request(now_min, random)).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.people.len()
    }
}

impl Person {
    fn comes(now_min: f64, addresses: &mut Addresses, random: &mut Random) -> Self {
        // The first programs are the most common.
        let rank = random.index(PROGRAMS.len()).min(random.index(PROGRAMS.len()));
        let visits_every_min = VISITS_EVERY_MIN * SPREAD.powf(4.0 * (unit(random) - 0.5));
        Self {
            source: addresses.next(),
            program: PROGRAMS[rank],
            visits_every_min,
            leaves_min: now_min + waiting(STAY_MIN, random),
            next_min: now_min + waiting(visits_every_min, random),
        }
    }

    fn request(&mut self, now_min: f64, random: &mut Random) -> Request {
        let mean = if random.once_in(2) { WITHIN_VISIT_MIN } else { self.visits_every_min };
        self.next_min = now_min + waiting(mean, random);
        Request {
            source: self.source,
            by_proxy: false,
            program: self.program,
            page: random.index(PAGES.len()),
            more: random.index(1500),
            patience_s: PEOPLE_PATIENCE_S,
        }
    }
}

/// The one actor: many exits, each of which asks for the same about once an hour.
pub(super) struct Actor {
    random: Random,
    began_min: f64,
    /// How many exits it has when it has grown.
    grown: usize,
    exits: Vec<(Ipv4Addr, f64)>,
}

impl Actor {
    pub(super) fn new(began_min: f64, random: Random) -> Self {
        Self { random, began_min, grown: 0, exits: Vec::new() }
    }

    /// Grows to so many exits.
    pub(super) fn grow(&mut self, now_min: f64, exits: usize) {
        self.began_min = now_min - self.exits.len() as f64 / EXITS_AN_HOUR * 60.0;
        self.grown = exits;
    }

    /// The requests that are due.
    pub(super) fn due(&mut self, now_min: f64, addresses: &mut Addresses) -> Vec<Request> {
        let Self { random, began_min, grown, exits } = self;
        let there = ((now_min - *began_min) / 60.0 * EXITS_AN_HOUR).max(0.0) as usize;
        while exits.len() < there.min(*grown) {
            exits.push((addresses.next(), now_min));
        }
        let due = exits.iter_mut().filter(|(_, next_min)| *next_min <= now_min);
        let request = |(source, next_min): &mut (Ipv4Addr, f64)| {
            *next_min = now_min + EXIT_EVERY_MIN * (0.8 + 0.4 * unit(random));
            Request {
                source: *source,
                by_proxy: true,
                program: SDK,
                page: WANTED,
                more: 300,
                patience_s: ACTOR_PATIENCE_S,
            }
        };
        due.map(request).collect()
    }

    /// Its exits until now.
    pub(super) fn exits(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.exits.iter().map(|(source, _)| *source)
    }
}

/// A number from 0 to 1.
fn unit(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A time until something that happens at any moment alike.
fn waiting(mean_min: f64, random: &mut Random) -> f64 {
    -mean_min * (1.0 - unit(random)).ln()
}
