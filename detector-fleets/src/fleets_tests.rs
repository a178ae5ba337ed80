//! What becomes of fleets from one look to the next.

use std::collections::BTreeSet;

use crate::{
    alarm::Finding,
    block::{Block, KindId, NOT_TIMED, Sizes},
    cells::{Cell, Common},
    evidence::Evidence,
    explanation::Innocent,
    family::{Family, tests::block},
    fleet::{FORGOTTEN_S, Fleet, FleetId, MEMBERS_MIN, QUIET_S},
    fleets::{Fleets, Looked},
    interval::Kinds,
    limits::{FLEETS_MAX, MEMBER_S},
    membership::Group,
    observation::{Kind, ServiceId},
    profile::populations,
    source::Source,
    users::Users,
};

const WEB: ServiceId = ServiceId(0);
const HOUR: u64 = 3600;
const LENGTHS: [u64; 3] = [HOUR, 6 * HOUR, 24 * HOUR];

fn kinds() -> Kinds {
    let mut kinds = Kinds::default();
    for tls_key in [11, 12, 0] {
        kinds.number(Kind { service: WEB, syn_key: 9, tls_key });
    }
    kinds
}

fn alarm(tls_key: u64, behaviour: f64) -> Finding {
    let of = |family| Evidence {
        family,
        log_factor: if family == Family::Path { 9.0 } else { behaviour },
        span: crate::span::Span::PROXIED,
        observed: 0.9,
        expected: 0.1,
    };
    Finding {
        cell: Cell { service: WEB, common: Common::Tls(tls_key) },
        sources: 100,
        expected_sources: 1.0,
        z: 9.0,
        evidence: Family::ALL.map(of).into(),
    }
}

/// The sources that a number stands for: as many as a fleet has at least.
fn sources_of(number: u32) -> impl Iterator<Item = Source> {
    let each = MEMBERS_MIN as u32;
    (number * each..(number + 1) * each).map(|address| Source::of_v4(address.into()))
}

/// A look at a window of so many hours that ends at an hour, in the last of which sources were members, and what it found.
fn look(
    fleets: &mut Fleets,
    end_h: u64,
    length_h: u64,
    tls: u32,
    members: std::ops::Range<u32>,
    known: &[u64],
    is_alarm: bool,
) {
    let asked = Asked::of([end_h, length_h]);
    let did = Block { kind: KindId(tls), ..asked.did };
    look_at(fleets, &Asked { did, ..asked }, members, known, is_alarm);
}

/// A window by its end and length in hours, what members did in it, how much each family says of that, and who was not asked.
struct Asked {
    window: [u64; 2],
    collateral: f64,
    did: Block,
    behaviour: f64,
    not_asked: Vec<Source>,
}

impl Asked {
    fn of(window: [u64; 2]) -> Self {
        let did = block(2, 20, [4, 8, 8], Sizes(1 << 32));
        Self { window, collateral: 1e-5, did, behaviour: 9.0, not_asked: Vec::new() }
    }
}

fn look_at(
    fleets: &mut Fleets,
    Asked { window, collateral, did, behaviour, not_asked }: &Asked,
    members: std::ops::Range<u32>,
    known: &[u64],
    is_alarm: bool,
) {
    let (kinds, [end_h, length_h]) = (kinds(), *window);
    let window: Vec<_> = members
        .flat_map(sources_of)
        .map(|source| Block { source, ..*did })
        .map(|block| block.later_by((length_h as u16 - 1) * 60))
        .collect();
    let population = populations(&window, &kinds, |_| true).remove(&WEB).unwrap_or_default();
    let alarm = alarm(kinds.kind(did.kind).tls_key, *behaviour);
    let alarms = if is_alarm { vec![&alarm] } else { Vec::new() };
    let looked = Looked {
        service: WEB,
        start_s: (end_h - length_h) * HOUR,
        end_s: end_h * HOUR,
        length_s: length_h * HOUR,
        lengths_s: &LENGTHS,
        alarms: &alarms,
        population: &population,
        not_asked,
        of_users: &Users::default(),
        kinds: &kinds,
    };
    let group = Group {
        alarms: if is_alarm { vec![0] } else { Vec::new() },
        known: known.iter().copied().map(FleetId).collect(),
        members: population.sources.clone(),
        suspects: Vec::new(),
        earlier: Vec::new(),
        innocents: 0.5,
        collateral: *collateral,
        users: 4000.0,
        synchrony: 0.0,
    };
    fleets.update(&looked, vec![group]);
}

fn told(fleets: &Fleets) -> Vec<(u64, Vec<u64>)> {
    let each = MEMBERS_MIN as u64;
    let members = |fleet: &Fleet| {
        let numbers: BTreeSet<_> = fleet.members.keys().map(|source| source.number() / each).collect();
        assert_eq!(fleet.members.len(), numbers.len() * MEMBERS_MIN, "all that a number stands for");
        numbers.into_iter().collect()
    };
    fleets.iter().map(|fleet| (fleet.id.0, members(fleet))).collect()
}

#[test]
fn only_an_alarm_makes_a_fleet() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], false);
    assert_eq!(told(&fleets), []);
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    assert_eq!(told(&fleets), [(1, vec![0, 1, 2])]);
    let fleet = fleets.iter().next().expect("one fleet");
    assert_eq!(fleet.first_seen_s, 99 * HOUR + 3 * 60, "the window's third minute is its first");
    let members = MEMBERS_MIN as u64;
    assert_eq!((fleet.alarmed_at_s, fleet.exchanges()), (100 * HOUR, 6 * members));
    let member = fleet.members[&Source::of_v4(1.into())];
    assert_eq!(member.last_s, 99 * HOUR + 23 * 60);
    assert_eq!(
        (member.connections, member.tls_keys, member.is_busy, member.is_shared()),
        (1, 1, false, false)
    );
    assert_eq!((fleet.usage.window_s, fleet.usage.keys.len()), (HOUR, 1));
}

#[test]
fn it_keeps_its_number_as_it_moves_and_when_it_comes_back_as_others() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    look(&mut fleets, 103, 1, 0, 2..5, &[1], true);
    assert_eq!(told(&fleets), [(1, vec![0, 1, 2, 3, 4])], "a window shorter than it is old takes nobody out");
    let window_s = |fleets: &Fleets| fleets.iter().next().map(|fleet| fleet.usage.window_s);
    assert_eq!(window_s(&fleets), Some(HOUR), "that of the first look, when an hour had all of it");
    look(&mut fleets, 104, 6, 0, 3..6, &[1], false);
    assert_eq!(told(&fleets), [(1, vec![3, 4, 5])], "one that has all of it does");
    assert_eq!(window_s(&fleets), Some(6 * HOUR));
    look(&mut fleets, 105, 1, 0, 3..6, &[1], true);
    assert_eq!(window_s(&fleets), Some(6 * HOUR), "an hour has only a part of it now");
    look(&mut fleets, 104, 24, 0, 0..9, &[1], true);
    assert_eq!(told(&fleets), [(1, vec![3, 4, 5])], "one that is longer says nothing of members");
    look(&mut fleets, 200, 1, 0, 50..52, &[], true);
    assert_eq!(told(&fleets), [(1, vec![50, 51])], "from elsewhere, after days, it is what it was");
    look(&mut fleets, 200, 1, 1, 60..61, &[], true);
    assert_eq!(told(&fleets), [(1, vec![50, 51]), (2, vec![60])], "other software is another");
    look(&mut fleets, 201, 1, 0, 50..61, &[2, 1], true);
    assert_eq!(told(&fleets), [(1, (50..61).collect())], "until they are seen to be one");
    assert_eq!(fleets.iter().next().map(|fleet| &fleet.joined[..]), Some(&[FleetId(2)][..]));
}

/// A throttle refuses SYNs: nobody's ClientHello, way or sizes are known any more, and only that the same sources come.
#[test]
fn a_fleet_that_is_throttled_stays_what_it_was() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    let fleet = |fleets: &Fleets| fleets.iter().next().cloned().expect("a fleet");
    let before = fleet(&fleets);
    assert!(!before.explanation.is_new_uniform_population, "{:?}", before.explanation);
    let refused = Block { kind: KindId(2), ..block(0, 20, [NOT_TIMED; 3], Sizes(0)) };
    look_at(&mut fleets, &Asked { did: refused, ..Asked::of([101, 1]) }, 0..3, &[1], true);
    let throttled = fleet(&fleets);
    assert_eq!(throttled.last_alarm_s, 101 * HOUR);
    assert!(!throttled.explanation.is_new_uniform_population, "{:?}", throttled.explanation);
    assert_eq!(throttled.usage.keys, before.usage.keys);
    let of = |fleet: &Fleet| {
        fleet.traits.clone().map(|traits| (traits.keys, traits.proxied, traits.response_bytes))
    };
    assert_eq!(of(&throttled), of(&before));
}

/// A relay explains the way; what its people do then has to be told from what people do, once.
#[test]
fn what_told_a_fleet_from_people_behind_a_relay_is_kept() {
    let is_innocent = |alarms: [f64; 2]| {
        let mut fleets = Fleets::default();
        for (known, (hour, behaviour)) in [&[][..], &[1]].into_iter().zip((100..).zip(alarms)) {
            look_at(&mut fleets, &Asked { behaviour, ..Asked::of([hour, 1]) }, 0..3, known, true);
        }
        fleets.iter().map(|fleet| fleet.explanation.is_new_uniform_population).collect::<Vec<_>>()
    };
    assert_eq!([[4.0, 4.0], [9.0, 4.0], [4.0, 9.0]].map(is_innocent), [[true], [false], [false]]);
    // Also where it becomes part of one that might have been people behind a relay.
    let mut fleets = Fleets::default();
    for (behaviour, members, tls) in [(4.0, 0..3, 0), (9.0, 10..13, 1)] {
        let asked = Asked { behaviour, ..Asked::of([100, 1]) };
        let did = Block { kind: KindId(tls), ..asked.did };
        look_at(&mut fleets, &Asked { did, ..asked }, members, &[], true);
    }
    assert_eq!(fleets.iter().count(), 2);
    look(&mut fleets, 101, 1, 0, 0..13, &[1, 2], false);
    let told = fleets.iter().map(|fleet| fleet.explanation.is_new_uniform_population);
    assert_eq!(told.collect::<Vec<_>>(), [false]);
}

/// Devices are launched while people behind a relay are known: what those are like does not speak against a launch.
#[test]
fn what_is_innocent_is_told_of_those_whom_the_alarms_are_about() {
    let (kinds, mut fleets) = (kinds(), Fleets::default());
    let asked = Asked { behaviour: 4.0, ..Asked::of([100, 1]) };
    look_at(&mut fleets, &asked, 0..3, &[], true);
    let device = Block { kind: KindId(1), ..block(2, 20, [4, 2, 4], Sizes(1)) };
    let of = |numbers: std::ops::Range<u32>, did: Block| {
        numbers.flat_map(sources_of).map(move |source| Block { source, ..did })
    };
    let window: Vec<_> = of(0..3, asked.did).chain(of(10..12, device)).collect();
    let population = populations(&window, &kinds, |_| true).remove(&WEB).expect("sources");
    let mut alarm = alarm(12, 15.0);
    alarm.evidence.retain(|evidence| evidence.family != Family::Path);
    let (start_s, end_s) = (100 * HOUR, 101 * HOUR);
    let looked = Looked {
        service: WEB,
        start_s,
        end_s,
        length_s: HOUR,
        lengths_s: &LENGTHS,
        alarms: &[&alarm],
        population: &population,
        not_asked: &[],
        of_users: &Users::default(),
        kinds: &kinds,
    };
    let group = Group {
        alarms: vec![0],
        known: vec![FleetId(1)],
        members: population.sources.clone(),
        suspects: Vec::new(),
        earlier: Vec::new(),
        innocents: 0.5,
        collateral: 1e-5,
        users: 4000.0,
        synchrony: 0.0,
    };
    fleets.update(&looked, vec![group]);
    let told: Vec<_> = fleets
        .iter()
        .map(|fleet| (fleet.explanation.nearest, fleet.explanation.is_new_uniform_population))
        .collect();
    assert_eq!(told, [(Innocent::Launch, true)]);
}

/// Sources are new for a day: one that keeps its own has no alarm after that.
#[test]
fn a_fleet_without_an_alarm_is_there_while_enough_of_its_members_are() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..40, &[], true);
    look(&mut fleets, 124, 24, 0, 0..40, &[1], true);
    for day in [148, 172, 196] {
        look(&mut fleets, day, 24, 0, 0..40, &[1], false);
    }
    let times = |fleets: &Fleets| {
        fleets.iter().map(|fleet| (fleet.last_alarm_s / HOUR, fleet.last_seen_s / HOUR)).next()
    };
    assert_eq!(times(&fleets), Some((124, 196)));
    // Two of forty come again, which may be users.
    look(&mut fleets, 220, 24, 0, 0..2, &[1], false);
    assert_eq!(times(&fleets), Some((124, 196)));
    assert_eq!(fleets.services(196 * HOUR + QUIET_S).len(), 0);
}

/// Nothing is seen of what they would do, and they ask again and again.
#[test]
fn who_is_refused_stays_a_member_and_is_not_asked() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    let refused: Vec<_> = (0..2).flat_map(sources_of).collect();
    refused.iter().for_each(|source| fleets.note_refused(WEB, *source, 120 * HOUR));
    fleets.note_refused(WEB, Source::of_v4(9999.into()), 120 * HOUR);
    fleets.note_refused(ServiceId(1), Source::of_v4(99.into()), 120 * HOUR);
    assert_eq!(fleets.refused(WEB, 100 * HOUR, 120 * HOUR), refused);
    assert_eq!(fleets.refused(WEB, 100 * HOUR, 120 * HOUR + 1), []);
    fleets.forget(99 * HOUR + 23 * 60 + MEMBER_S);
    assert_eq!(told(&fleets), [(1, vec![0, 1])], "the others were not seen for two days");
    let of = |window| Asked { not_asked: refused.clone(), ..Asked::of(window) };
    look_at(&mut fleets, &of([131, 24]), 8..9, &[1], true);
    assert_eq!(told(&fleets), [(1, vec![0, 1, 8])]);
    look_at(&mut fleets, &Asked::of([132, 24]), 8..9, &[1], true);
    assert_eq!(told(&fleets), [(1, vec![8])], "who is asked, and is not found, is none");
}

/// Neither a window that has but a part of it, nor one in which most of it was refused.
#[test]
fn what_acting_costs_is_said_by_windows_that_have_most_of_a_fleet() {
    let mut fleets = Fleets::default();
    let cost = |fleets: &Fleets| fleets.iter().map(|fleet| (fleet.collateral, fleet.usage.window_s)).next();
    let of = |window, collateral| Asked { collateral, ..Asked::of(window) };
    look_at(&mut fleets, &of([100, 1], 1e-5), 0..6, &[], true);
    look_at(&mut fleets, &of([103, 1], 2e-5), 0..6, &[1], true);
    assert_eq!(cost(&fleets), Some((1e-5, HOUR)), "an hour has a part of it");
    let not_asked: Vec<_> = (0..4).flat_map(sources_of).collect();
    look_at(&mut fleets, &Asked { not_asked, ..of([104, 6], 3e-5) }, 4..6, &[1], true);
    assert_eq!(cost(&fleets), Some((1e-5, HOUR)), "four of six were not asked");
    look_at(&mut fleets, &of([105, 6], 4e-5), 0..6, &[1], true);
    assert_eq!(cost(&fleets), Some((4e-5, 6 * HOUR)));
}

#[test]
fn what_two_fleets_were_seen_to_do_is_kept_when_they_are_one() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    look(&mut fleets, 110, 1, 1, 10..20, &[], true);
    fleets.note_refused(WEB, Source::of_v4((10 * MEMBERS_MIN as u32).into()), 111 * HOUR);
    look(&mut fleets, 112, 1, 0, 0..1, &[1, 2], false);
    let [fleet] = &fleets.fleets[..] else { panic!("{:?}", told(&fleets)) };
    assert_eq!((fleet.id, fleet.last_seen_s, fleet.most), (FleetId(1), 110 * HOUR, 250.0));
    assert_eq!(fleet.members.values().filter(|member| member.refused_s == 111 * HOUR).count(), 1);
}

#[test]
fn whom_a_longer_window_did_not_take_a_shorter_one_does_not_take_either() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    look(&mut fleets, 104, 6, 0, 0..3, &[1], true);
    look(&mut fleets, 104, 1, 0, 0..9, &[1], true);
    assert_eq!(told(&fleets), [(1, vec![0, 1, 2])]);
    look(&mut fleets, 105, 1, 0, 7..9, &[1], true);
    assert_eq!(told(&fleets), [(1, vec![0, 1, 2, 7, 8])], "who comes later is asked");
}

#[test]
fn members_expire_two_days_after_they_were_active_and_fleets_are_forgotten() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..3, &[], true);
    fleets.forget(99 * HOUR + 23 * 60 + MEMBER_S - 1);
    assert_eq!(told(&fleets)[0].1.len(), 3);
    fleets.forget(99 * HOUR + 23 * 60 + MEMBER_S);
    assert_eq!(told(&fleets), [(1, vec![])]);
    assert_eq!(fleets.services(100 * HOUR + QUIET_S - 1).len(), 1);
    assert_eq!(fleets.services(100 * HOUR + QUIET_S).len(), 0);
    fleets.forget(100 * HOUR + FORGOTTEN_S);
    assert_eq!(told(&fleets), []);
}

#[test]
fn the_fleet_that_was_not_seen_for_longest_gives_way() {
    let mut fleets = Fleets::default();
    look(&mut fleets, 100, 1, 0, 0..1, &[], true);
    let fleet = fleets.fleets[0].clone();
    fleets.fleets = (0..=FLEETS_MAX as u64)
        .map(|number| Fleet {
            joined: Vec::new(),
            id: FleetId(number),
            last_seen_s: fleet.last_seen_s + number % 7 + 1,
            ..fleet.clone()
        })
        .collect();
    fleets.fleets[40].last_seen_s = fleet.last_seen_s;
    fleets.forget(fleet.last_seen_s);
    assert_eq!(fleets.iter().count(), FLEETS_MAX);
    assert!(fleets.iter().all(|fleet| fleet.id != FleetId(40)));
}
