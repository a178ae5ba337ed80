//! A whole fleet through the whole way: 25,000 sources of one actor among a hundred thousand others, each below its own limit, are found,
//! decided about and throttled, by the product's own code over the loaded program under the virtual clock.
//!
//! What is packets and what is not:
//! - The first 95 hours, in which detection learns and the fleet has been there for 29, are rows of the generator, with the keys that the
//!   program finds in what the same software sends ([`keys`]).
//! - From then on everything is packets, of everybody: SYNs, ClientHellos, requests in segments, acknowledgements ([`edge`]). Rows are what the
//!   daemon's recorder takes from the tables each minute. Clients send what is dropped again, three times in all, and then give up.
//! - At hour 96 somebody applies [`ACTING`]. The plan, its guards and budgets, the members and what is written into the kernel are the
//!   product's ([`acting`]), and so is what each later look makes of it: detection sees from then on what the throttle lets it see.
//!
//! A figure that cannot be zero by construction is what others lose: some of them have the fleet's fingerprints, some of those its gaps,
//! and detection takes a few of them for members.

mod acting;
mod edge;
mod keys;
mod ledger;

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use detector_common::verdict::Reason;
use detector_fleets::{observation::Observation, source::Source};
use detector_generator::{Family, Generation, Scenario, generate, packets::Player};
use detector_user::fleets::{Epoch, Memory, Scale};

use acting::{Acting, Done};
use edge::Edge;
use keys::Keys;
use ledger::Ledger;

const SCENARIO: &str = include_str!("../../scenarios/whole-fleet.toml");

/// The service, by its name in both.
pub(crate) const SERVICE: &str = "api";

/// What everybody may do.
pub(crate) const POLICY: &str = "version = 1\n[[service]]\nname = \"api\"\naddresses = [\"203.0.113.1\", \"2001:db8:ff00::1\"]\n\
    profile = \"customer\"\n[profile.customer]\npackets = { rate = \"1000/s\", burst = 2000 }\n\
    connections = { rate = \"50/s\", burst = 200 }\n";

/// What an operator adds who wants nearly all of a fleet to be stopped: of those that are held out nothing is cut, and 5 % are by default; and
/// 1 % of its connections are left to the others.
const ACTING: &str = "[fleets]\nmode = \"throttle\"\nhold_out = 1\nshare = \"0.2 %\"\n";

/// Hours of the recording: packets begin, the policy says to act, the decision has to be there, the end.
const PACKETS_H: u64 = 95;
const ACTING_H: u64 = 96;
const DECISION_H_MAX: u64 = 97;
const END_H: u64 = 120;

/// What is to be: exchanges of members that are cut; of the whole fleet, with those that are held out, were not found or are left out as
/// addresses of many.
const CUT_MIN: f64 = 0.95;
const WHOLE_CUT_MIN: f64 = 0.95;

/// Exchanges that others may lose, as a share.
const OTHERS_HURT_MAX: f64 = 0.0001;

pub(crate) fn source_of(of: detector_generator::Source) -> Source {
    match of.family {
        Family::V4 => Source::of_v4((of.address as u32).into()),
        Family::V6 => Source::of_v6(of.address.into()).expect("not in ::/32"),
    }
}

/// The recording, and what is learned of it.
struct World {
    scenario: Scenario,
    generation: Generation,
    start_s: u64,
    memory: Memory,
}

impl World {
    fn new() -> Self {
        let scenario = Scenario::from_toml(SCENARIO).expect("a scenario");
        let generation = generate(&scenario, u64::from(scenario.seed));
        let start_s = generation.truth().start_s;
        let mut memory = Memory::new(Scale::MINUTE, 300_000, 7);
        memory.number(SERVICE);
        Self { scenario, generation, start_s, memory }
    }

    /// Learns from rows until packets begin; who will send those.
    fn learn(&mut self) -> Player {
        let began = Instant::now();
        let (mut keys, mut player) = (Keys::new(&self.scenario), Player::new(&self.scenario));
        for _ in 0..PACKETS_H * 60 {
            let (epoch, deeds) = self.generation.next_with_deeds().expect("an epoch");
            player.skip(&deeds);
            let rows = keys.observations(&epoch);
            self.memory.take(&Epoch { start_s: epoch.time_s, names: Vec::new(), rows, lost: 0 });
        }
        println!("{} rows in {PACKETS_H} hours, learned in {:.1?}", self.memory.rows(), began.elapsed());
        player
    }

    /// Who was of the fleet so far.
    fn members(&self) -> HashSet<Source> {
        self.generation.truth().fleets[0].members.iter().map(|member| source_of(member.source)).collect()
    }
}

/// What the test has seen.
#[derive(Default)]
struct Seen {
    /// What was done when it was decided.
    decision: Option<Done>,
    /// All that sent something.
    sources: HashSet<Source>,
    /// Those whose ClientHello is the fleet's most frequent one.
    alike: HashSet<Source>,
    ledger: Ledger,
}

impl Seen {
    fn note(&mut self, rows: &[Observation], memory: &Memory) {
        let fleet = memory.fleets().next();
        let key = fleet.and_then(|fleet| fleet.usage.keys.first()).map(|used| used.key.tls_key);
        self.sources.extend(rows.iter().map(|row| row.source));
        self.alike.extend(rows.iter().filter(|row| Some(row.kind.tls_key) == key).map(|row| row.source));
    }
}

#[test]
fn a_whole_fleet_is_found_and_cut_at_once_and_for_a_day_and_others_lose_next_to_nothing() {
    let mut world = World::new();
    let player = world.learn();
    let services = world.memory.services().clone();
    let mut edge = Edge::new(player, POLICY, services, world.start_s + PACKETS_H * 3600);
    let (mut acting, mut seen) = (Acting::default(), Seen::default());
    let began = Instant::now();
    for minute in PACKETS_H * 60..END_H * 60 {
        if minute == ACTING_H * 60 {
            edge.rig.apply(&format!("{POLICY}{ACTING}"));
        }
        let (epoch, deeds) = world.generation.next_with_deeds().expect("an epoch");
        let outcomes = edge.play(&epoch, &deeds, &acting.charged);
        let now_s = epoch.time_s + 60;
        if seen.decision.is_some() {
            seen.ledger.take(&outcomes);
        } else {
            assert!(minute < DECISION_H_MAX * 60, "nothing is decided: {:?}", acting.says);
        }
        let Some(over) = edge.look(now_s) else { continue };
        if seen.decision.is_none() {
            seen.note(&over.rows, &world.memory);
        }
        acting.note(&over.rows);
        let has_looked = !world.memory.take(&over).is_empty();
        if has_looked && let Some(done) = acting.act(&world.memory, &mut edge, now_s) {
            assert!(seen.decision.is_none(), "what was in force has ended meanwhile: {:?}", acting.says);
            acting.expect_in_force(&edge, &done);
            seen.decision = Some(done);
        }
    }
    println!("{} frames in {:.1?}", edge.frames, began.elapsed());
    let done = seen.decision.as_ref().expect("it was decided");
    expect_cut(&world, &edge, &acting, &seen);
    println!(
        "{} members, {} held out, {:?} left out; in force after {:.0} ms and no step of the virtual clock",
        done.throttled.members,
        done.throttled.held_out,
        done.decision.left_out,
        done.took_s * 1000.0
    );
}

/// Holds what became of everybody against what is to be.
fn expect_cut(world: &World, edge: &Edge, acting: &Acting, seen: &Seen) {
    let members = world.members();
    let is_member = |source: &Source| members.contains(source);
    let (charged, charged_sources) =
        seen.ledger.of(|source| is_member(source) && acting.charged.contains(source));
    let (whole, sources) = seen.ledger.of(is_member);
    let (others, other_sources) = seen.ledger.of(|source| !is_member(source));
    let innocents = acting.charged.difference(&members.iter().copied().collect::<BTreeSet<_>>()).count();
    let alike = seen.alike.difference(&members).count();
    println!(
        "of {charged_sources} charged members {charged:?}: {:.2} % cut\nof the whole fleet, {sources} sources, {whole:?}: {:.2} % cut\n\
         of {other_sources} others {others:?}: {:.4} % hurt; {innocents} of them are taken for members, {alike} of an hour's have its ClientHello",
        100.0 * charged.cut(),
        100.0 * whole.cut(),
        100.0 * others.hurt as f64 / others.all as f64
    );
    println!("others that lost most: {:?}", seen.ledger.worst(|source| !is_member(source)));
    assert!(sources > 24_000 && other_sources > 95_000, "{sources} of the fleet and {other_sources} others");
    assert!(innocents > 0 && alike > 100, "the others are told apart too easily");
    assert!(charged.cut() >= CUT_MIN, "{charged:?}");
    assert!(whole.cut() >= WHOLE_CUT_MIN, "{whole:?}");
    assert!(others.hurt as f64 <= others.all as f64 * OTHERS_HURT_MAX, "{others:?}");
    // Nobody is beyond a limit of their own.
    assert_eq!(edge.drops.keys().collect::<Vec<_>>(), [&Reason::Fleet.name()]);
    acting.expect_within_budget(edge);
}
