//! Fleets through the real program: what their members share, who is charged and who is not, and how it ends.

use std::collections::BTreeSet;

use bytes::BytesMut;
use detector_common::{
    budget::{Budget, ticks},
    fleet::{acts_bit, rule_counter},
    generation::Settings,
    limits::FLEET_SLOTS,
    verdict::Reason,
};
use detector_fleets::{source::Source, traits::Key};
use detector_tests::{
    client::Client,
    hello::Hello,
    packet::{flags, tcp},
    rows::{Rig, SECOND},
};
use detector_user::{
    commands::explain,
    fleets::Told,
    kernel::{
        fleets::{self, FleetsError, Throttle, Throttled},
        read,
    },
};

const POLICY: &str = "version = 1\n[[service]]\nname = \"web\"\naddresses = [\"192.0.2.1\", \"2001:db8::1\"]\nprofile = \"p\"\n\
                      [[service]]\nname = \"other\"\naddresses = [\"192.0.2.2\"]\nprofile = \"p\"\n\
                      [profile.p]\npackets = { rate = \"1000/s\", burst = 1000 }\n";

/// The clock of a rig steps as it is told to.
const CLOCK_TICK_NS: u64 = 0;

/// Connections of a fleet, five at once and then one in ten seconds.
fn five() -> Budget {
    Budget::of_units(1, 10 * SECOND, 5, CLOCK_TICK_NS)
}

fn sources(texts: &[&str]) -> BTreeSet<Source> {
    texts.iter().map(|text| text.parse().expect("a source")).collect()
}

/// A fleet of these sources at `web`, for an hour.
fn throttle<'a>(rig: &Rig, members: &'a BTreeSet<Source>) -> Throttle<'a> {
    Throttle {
        id: 7,
        service: rig.service("web"),
        packets: Budget::UNLIMITED,
        connections: five(),
        held_out_percent: 0,
        until: rig.now() + ticks(3600 * SECOND),
        members,
        keys: &[],
    }
}

fn put(rig: &mut Rig, throttle: &Throttle<'_>) -> Throttled {
    fleets::throttle(&mut rig.bench_mut().loaded.maps, throttle).unwrap_or_else(|error| panic!("{error}"))
}

/// What comes of a throttle of nobody.
fn nothing(slot: u32) -> Throttled {
    let (without_room, keys_without_room) = (BTreeSet::new(), 0);
    Throttled { slot, members: 0, joined: 0, left: 0, held_out: 0, without_room, keys: 0, keys_without_room }
}

fn syn(source: &str) -> BytesMut {
    let server = if source.starts_with('[') { "[2001:db8::1]:443" } else { "192.0.2.1:443" };
    tcp(source, server, flags::SYN).frame()
}

fn ack(source: &str) -> BytesMut {
    tcp(source, "192.0.2.1:443", flags::ACK).frame()
}

fn refused(rig: &Rig, slot: u32) -> u64 {
    read::rule_drops(&rig.bench().loaded.maps, rule_counter(slot)).expect("counters").dropped
}

#[test]
fn members_share_one_budget_whether_they_were_there_before_or_come_later() {
    let mut rig = Rig::under(POLICY);
    let members = sources(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8:7::/64"]);
    // Two are known before the fleet is.
    for source in ["10.0.0.1:1", "[2001:db8:7::9]:1"] {
        assert_eq!(rig.reason(&syn(source)), Reason::Conforming);
    }
    let fleet = throttle(&rig, &members);
    let done = put(&mut rig, &fleet);
    assert_eq!(done, Throttled { members: 4, joined: 4, ..nothing(1) });
    let told: Vec<_> =
        ["10.0.0.1:2", "[2001:db8:7::8]:2", "10.0.0.2:2", "10.0.0.3:2", "10.0.0.2:3", "10.0.0.1:3"]
            .iter()
            .map(|source| rig.reason(&syn(source)))
            .collect();
    assert_eq!(told[..5], [Reason::Conforming; 5], "the burst of all together");
    assert_eq!(told[5], Reason::Fleet);
    for source in ["10.0.0.3:9", "[2001:db8:7::1]:9"] {
        assert_eq!(rig.reason(&syn(source)), Reason::Fleet);
    }
    // Others, the members' other service, and what is no new connection are not of it.
    for frame in [
        syn("10.0.0.9:1"),
        tcp("10.0.0.1:5", "192.0.2.2:443", flags::SYN).frame(),
        ack("10.0.0.1:2"),
        syn("[2001:db8:8::8]:2"),
    ] {
        assert_eq!(rig.reason(&frame), Reason::Conforming);
    }
    assert_eq!((refused(&rig, done.slot), rig.counted("web", Reason::Fleet).packets), (3, 3));
    rig.advance(10 * SECOND);
    assert_eq!(
        [rig.reason(&syn("10.0.0.1:7")), rig.reason(&syn("10.0.0.2:7"))],
        [Reason::Conforming, Reason::Fleet]
    );
}

#[test]
fn packets_of_members_share_a_budget_too_and_what_is_refused_costs_the_source_nothing() {
    let policy = POLICY.replace("1000/s\", burst = 1000", "1/h\", burst = 4");
    let mut rig = Rig::under(&policy);
    let members = sources(&["10.0.0.1", "10.0.0.2"]);
    let packets = Budget::of_units(1, SECOND, 3, CLOCK_TICK_NS);
    let fleet = Throttle { packets, connections: Budget::UNLIMITED, ..throttle(&rig, &members) };
    put(&mut rig, &fleet);
    let told: Vec<_> = (0..6).map(|_| rig.reason(&ack("10.0.0.1:1"))).collect();
    assert_eq!(told, [[Reason::Conforming; 3], [Reason::Fleet; 3]].concat());
    // One is left of its own four, and it has the second that the fleet gets: its own budget comes first.
    rig.advance(2 * SECOND);
    let told: Vec<_> = (0..2).map(|_| rig.reason(&ack("10.0.0.1:1"))).collect();
    assert_eq!(told, [Reason::Conforming, Reason::Packets]);
    assert_eq!(
        rig.reason(&ack("10.0.0.2:1")),
        Reason::Conforming,
        "what the source's own budget refused cost the fleet nothing"
    );
    assert_eq!(rig.reason(&ack("10.0.0.2:1")), Reason::Fleet);
}

#[test]
fn parents_are_not_charged_for_what_a_fleet_is_refused() {
    let policy =
        format!("{POLICY}[profile.p.parents]\nv4_24 = {{ connections = {{ rate = \"1/h\", burst = 7 }} }}\n");
    let mut rig = Rig::under(&policy);
    let members = sources(&["10.0.0.1", "10.0.0.2"]);
    let fleet = throttle(&rig, &members);
    put(&mut rig, &fleet);
    let told: Vec<_> = (0..8).map(|port| rig.reason(&syn(&format!("10.0.0.1:{port}")))).collect();
    assert_eq!(told, [&[Reason::Conforming; 5][..], &[Reason::Fleet; 3]].concat());
    let told: Vec<_> = (0..3).map(|port| rig.reason(&syn(&format!("10.0.0.9:{port}")))).collect();
    assert_eq!(told, [Reason::Conforming, Reason::Conforming, Reason::ParentConnections], "seven in all");
}

#[test]
fn newcomers_with_a_key_of_the_fleet_fall_into_it_at_their_client_hello() {
    let mut rig = Rig::under(POLICY);
    let hello = Hello::browser(200).stream();
    let mut first = Client::new("203.0.113.1:1");
    let syn_key = first.connect(&mut rig);
    let tls_key = first.send(&mut rig, &hello);
    let members = sources(&["10.0.0.1"]);
    let fleet = Throttle { keys: &[Key { tls_key, syn_key }], ..throttle(&rig, &members) };
    let done = put(&mut rig, &fleet);
    let shake = |rig: &mut Rig, source: &str, stream: &[u8]| {
        let mut client = Client::new(source);
        client.connect(rig);
        (client.reason(rig, 0, stream), client)
    };
    let told: Vec<_> =
        (1..8).map(|number| shake(&mut rig, &format!("203.0.113.{number}:9"), &hello).0).collect();
    assert_eq!(
        told,
        [&[Reason::Conforming; 5][..], &[Reason::Fleet; 2]].concat(),
        "each from another source"
    );
    // A member's connection is charged once, when it is asked for.
    assert_eq!(rig.reason(&syn("10.0.0.1:9")), Reason::Fleet);
    // Another ClientHello from the same address, and the same one at another service, are not of it.
    let mut other = Hello::browser(200);
    other.ciphers.push(0xc030);
    let (reason, mut of_other) = shake(&mut rig, "203.0.113.1:10", &other.stream());
    assert_eq!(reason, Reason::Conforming);
    assert_eq!(refused(&rig, done.slot), 3);
    // Who calls is told so, of each of its clients that finished a handshake.
    first.send(&mut rig, b"finished");
    of_other.send(&mut rig, b"finished");
    let maps = &rig.bench_mut().loaded.maps;
    let explained = explain::answer(maps, [203, 0, 113, 1].into(), &Told::default()).expect("it is known");
    let web = explained.services.iter().find(|standing| standing.service == "web").expect("the service");
    let charged = web.clients.iter().map(|client| client.charged_as.as_deref());
    let charged: Vec<_> = charged.collect();
    assert_eq!(charged.iter().filter(|fleet| **fleet == Some("7")).count(), 1, "{charged:?}");
    assert!(charged.contains(&None), "the other ClientHello: {charged:?}");
    // The segment that was refused comes again when there is room.
    let (reason, refused_client) = shake(&mut rig, "203.0.113.200:9", &hello);
    assert_eq!(reason, Reason::Fleet);
    rig.advance(9 * SECOND);
    assert_eq!(refused_client.reason(&mut rig, 0, &hello), Reason::Fleet);
    rig.advance(SECOND);
    assert_eq!(refused_client.reason(&mut rig, 0, &hello), Reason::Conforming);
    rig.advance(10 * SECOND);
    assert_eq!(rig.reason(&syn("10.0.0.1:10")), Reason::Conforming);
    let mut of_member = Client::new("10.0.0.1:11");
    rig.advance(10 * SECOND);
    of_member.connect(&mut rig);
    assert_eq!(of_member.reason(&mut rig, 0, &hello), Reason::Conforming, "its SYN paid");
}

#[test]
fn operators_lists_and_shadow_come_before_a_fleet() {
    let rules = "[[rule]]\nname = \"partner\"\nsource = [\"10.0.0.1\"]\naction = \"allow\"\n\
                 [[rule]]\nname = \"trial\"\nsource = [\"10.0.0.2\"]\naction = { limit = \"p\" }\nmode = \"shadow\"\n\
                 [[rule]]\nname = \"blocked\"\nsource = [\"10.0.0.3\"]\naction = \"drop\"\n";
    let allow = POLICY.replace("version = 1\n", "version = 1\n[defaults]\nallow = [\"10.0.0.4\"]\n");
    let mut rig = Rig::under(&format!("{allow}{rules}"));
    let members = sources(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    let fleet = throttle(&rig, &members);
    let done = put(&mut rig, &fleet);
    (0..5).for_each(|port| assert_eq!(rig.reason(&syn(&format!("10.0.0.5:{port}"))), Reason::Conforming));
    assert_eq!(rig.reason(&syn("10.0.0.5:9")), Reason::Fleet);
    for source in ["10.0.0.1:9", "10.0.0.4:9"] {
        assert_eq!(rig.reason(&syn(source)), Reason::Allowed);
    }
    let judged = rig.send(&syn("10.0.0.2:9"));
    assert_eq!((judged.reason(), judged.trace.dropped, judged.trace.shadow), (Reason::Fleet, 0, 1));
    assert_eq!(rig.reason(&syn("10.0.0.3:9")), Reason::Denied);
    let drops = read::rule_drops(&rig.bench().loaded.maps, rule_counter(done.slot)).expect("counters");
    assert_eq!((drops.dropped, drops.shadowed), (1, 1));
}

#[test]
fn a_service_without_a_profile_has_fleets_too() {
    let mut rig =
        Rig::under(&POLICY.replace("192.0.2.1\", \"2001:db8::1\"]\nprofile = \"p\"", "192.0.2.1\"]"));
    let members = sources(&["10.0.0.1"]);
    let fleet = throttle(&rig, &members);
    put(&mut rig, &fleet);
    (0..5).for_each(|port| assert_eq!(rig.reason(&syn(&format!("10.0.0.1:{port}"))), Reason::Unlimited));
    assert_eq!(rig.reason(&syn("10.0.0.1:9")), Reason::Fleet);
}

#[test]
fn it_ends_in_the_kernel_by_itself_to_the_tick_and_at_once_by_who_ends_it() {
    let mut rig = Rig::under(POLICY);
    let members = sources(&["10.0.0.1"]);
    let until = rig.now() + ticks(20 * SECOND);
    let one = Budget::of_units(1, 3600 * SECOND, 1, CLOCK_TICK_NS);
    let fleet = Throttle { until, connections: one, ..throttle(&rig, &members) };
    put(&mut rig, &fleet);
    assert_eq!(
        [1, 2].map(|port| rig.reason(&syn(&format!("10.0.0.1:{port}")))),
        [Reason::Conforming, Reason::Fleet]
    );
    rig.advance(20 * SECOND - 1);
    assert_eq!(rig.reason(&syn("10.0.0.1:3")), Reason::Fleet);
    rig.advance(1);
    assert_eq!(rig.reason(&syn("10.0.0.1:4")), Reason::Conforming);
    // Its slot is given back by who looks next; renewed before that, what it has spent stays spent.
    let renewed = Throttle { until: until + ticks(3600 * SECOND), ..fleet };
    put(&mut rig, &renewed);
    assert_eq!(rig.reason(&syn("10.0.0.1:5")), Reason::Fleet);
    assert!(fleets::end(&mut rig.bench_mut().loaded.maps, 7).expect("it ends"), "it was there");
    assert_eq!(rig.reason(&syn("10.0.0.1:6")), Reason::Conforming);
    assert!(fleets::standing(&rig.bench().loaded.maps).is_empty());
}

#[test]
fn while_all_is_stopped_nothing_is_charged_and_nothing_begins() {
    let mut rig = Rig::under(POLICY);
    let members = sources(&["10.0.0.1"]);
    let one = Budget::of_units(1, 3600 * SECOND, 1, CLOCK_TICK_NS);
    let fleet = Throttle { connections: one, ..throttle(&rig, &members) };
    put(&mut rig, &fleet);
    rig.reason(&syn("10.0.0.1:1"));
    assert_eq!(rig.reason(&syn("10.0.0.1:2")), Reason::Fleet);
    fleets::stop(&rig.bench().loaded.maps);
    assert_eq!(rig.reason(&syn("10.0.0.1:3")), Reason::Conforming, "at once");
    let maps = &mut rig.bench_mut().loaded.maps;
    for fleet in [fleet.clone(), Throttle { id: 8, ..fleet.clone() }] {
        let refused = fleets::throttle(maps, &fleet).expect_err("it is stopped").to_string();
        assert!(refused.contains("--resume"), "{refused}");
    }
    assert_eq!(fleets::settle(maps).expect("it is settled"), [7]);
    assert!(fleets::is_stopped(maps), "and stays so");
    assert_eq!(rig.reason(&syn("10.0.0.1:4")), Reason::Conforming);
    fleets::resume(&rig.bench().loaded.maps);
    put(&mut rig, &fleet);
    assert_eq!(
        [5, 6].map(|port| rig.reason(&syn(&format!("10.0.0.1:{port}")))),
        [Reason::Conforming, Reason::Fleet]
    );
}

#[test]
fn a_slot_is_given_again_with_nothing_left_of_the_fleet_before() {
    let mut rig = Rig::under(POLICY);
    let members = sources(&["10.0.0.1", "10.0.0.2"]);
    let one = Budget::of_units(1, 3600 * SECOND, 1, CLOCK_TICK_NS);
    let fleet =
        Throttle { connections: one, keys: &[Key { tls_key: 5, syn_key: 6 }], ..throttle(&rig, &members) };
    put(&mut rig, &fleet);
    rig.reason(&syn("10.0.0.1:1"));
    assert_eq!(rig.reason(&syn("10.0.0.2:1")), Reason::Fleet);
    assert_eq!(rig.entry("10.0.0.1", "web").map(|way| way.meta().fleet()), Some(1));
    let maps = &mut rig.bench_mut().loaded.maps;
    assert!(fleets::end(maps, 7).expect("it ends") && !fleets::end(maps, 7).expect("it has ended"));
    assert_eq!(
        (maps.settings.read(0).fleets, maps.fleet_members.iter().count(), maps.fleet_keys.iter().count()),
        (0, 0, 0)
    );
    assert_eq!(rig.entry("10.0.0.1", "web").map(|way| way.meta().fleet()), Some(0));
    let others = sources(&["10.0.0.3"]);
    let next = Throttle { id: 8, connections: one, ..throttle(&rig, &others) };
    assert_eq!(put(&mut rig, &next).slot, 1);
    assert_eq!(refused(&rig, 1), 0, "counters begin anew");
    for source in ["10.0.0.3:2", "10.0.0.1:2", "10.0.0.2:2", "10.0.0.1:3"] {
        assert_eq!(
            rig.reason(&syn(source)),
            Reason::Conforming,
            "{source}: a full budget, and no old member"
        );
    }
    assert_eq!(rig.reason(&syn("10.0.0.3:3")), Reason::Fleet);
}

#[test]
fn members_come_and_go_and_a_policy_changes_nothing_of_it() {
    let mut rig = Rig::under(POLICY);
    let members = sources(&["10.0.0.1", "10.0.0.2"]);
    let one = Budget::of_units(1, 3600 * SECOND, 1, CLOCK_TICK_NS);
    let fleet = Throttle { connections: one, ..throttle(&rig, &members) };
    put(&mut rig, &fleet);
    assert_eq!(
        [1, 2].map(|port| rig.reason(&syn(&format!("10.0.0.1:{port}")))),
        [Reason::Conforming, Reason::Fleet]
    );
    let moved = sources(&["10.0.0.2", "10.0.0.3"]);
    let done = put(&mut rig, &Throttle { members: &moved, ..fleet });
    assert_eq!(done, Throttled { members: 2, joined: 1, left: 1, ..nothing(1) });
    rig.apply(&POLICY.replace("1000/s", "900/s"));
    assert_eq!(rig.reason(&syn("10.0.0.1:3")), Reason::Conforming, "it left");
    assert_eq!(["10.0.0.2:3", "10.0.0.3:3"].map(|source| rig.reason(&syn(source))), [Reason::Fleet; 2]);
    assert_eq!(rig.entry("10.0.0.2", "web").map(|way| way.meta().fleet()), Some(1));
}

#[test]
fn a_part_is_held_out_by_the_hash_of_the_source() {
    let mut rig = Rig::under(POLICY);
    let members: BTreeSet<_> =
        (0..2000_u32).map(|number| Source::of_v4((0x0a00_0000 + number).into())).collect();
    let none = Budget { interval: u64::MAX >> 2, burst_ticks: 1 };
    let fleet = Throttle { connections: none, held_out_percent: 5, ..throttle(&rig, &members) };
    let done = put(&mut rig, &fleet);
    assert_eq!(done.members + done.held_out, 2000);
    assert!((70..130).contains(&done.held_out), "{} of 2,000 for 5 %", done.held_out);
    let passed =
        members.iter().filter(|source| rig.passes(&syn(&source.to_string().replace("/32", ":1")))).count();
    assert_eq!(passed, done.held_out);
}

#[test]
fn what_a_daemon_that_was_killed_left_behind_is_settled() {
    let mut rig = Rig::under(POLICY);
    let members = sources(&["10.0.0.1"]);
    let one = Budget::of_units(1, 3600 * SECOND, 1, CLOCK_TICK_NS);
    let fleet = Throttle { connections: one, ..throttle(&rig, &members) };
    put(&mut rig, &fleet);
    rig.reason(&syn("10.0.0.1:1"));
    // It had switched the fleet off and no more.
    let maps = &mut rig.bench_mut().loaded.maps;
    let settings = maps.settings.read(0);
    maps.settings.write(0, &Settings { fleets: settings.fleets & !acts_bit(1), ..settings });
    assert_eq!(rig.reason(&syn("10.0.0.1:2")), Reason::Conforming);
    let maps = &mut rig.bench_mut().loaded.maps;
    assert_eq!(fleets::settle(maps).expect("it is settled"), [7]);
    assert!(
        fleets::settle(maps).expect("nothing is left").is_empty()
            && maps.fleet_members.iter().next().is_none()
    );
    assert_eq!(rig.entry("10.0.0.1", "web").map(|way| way.meta().fleet()), Some(0));
}

#[test]
fn there_are_so_many_slots_and_a_source_is_of_one_fleet() {
    let mut rig = Rig::under(POLICY);
    let (members, keys) = (sources(&["10.0.0.1"]), [Key { tls_key: 5, syn_key: 7 }]);
    let fleet = Throttle { keys: &keys, ..throttle(&rig, &members) };
    for id in 1..FLEET_SLOTS as u64 {
        let done = put(&mut rig, &Throttle { id, ..fleet.clone() });
        assert_eq!(
            (done.slot as u64, done.members, done.without_room.len(), done.keys, done.keys_without_room),
            if id == 1 { (id, 1, 0, 1, 0) } else { (id, 0, 1, 0, 1) }
        );
        assert_eq!(done.lacks_room(), id > 1);
    }
    let full = fleets::throttle(&mut rig.bench_mut().loaded.maps, &Throttle { id: 99, ..fleet.clone() });
    assert!(matches!(full, Err(FleetsError::Full)), "{full:?}");
    let again = put(&mut rig, &Throttle { id: 5, ..fleet });
    assert_eq!(again.slot, 5, "one that has a slot keeps it");
}
