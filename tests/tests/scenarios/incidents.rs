//! Incident rules: what responders add by hand, and how it ends.

use detector_common::{
    limits::{INCIDENT_RULES_MAX, POLICY_RULE_COUNTERS},
    verdict::Reason,
};
use detector_tests::rows::{Rig, SECOND, START_NS, policy};
use detector_user::{
    kernel::{apply, incidents, read},
    policy::{
        Budgets, Matches,
        compile::compile,
        incident::{Incident, IncidentAction, throttle_of_packets},
        target,
    },
};

use crate::*;

/// A rule about a source prefix that ends so many seconds after the rig starts.
fn incident(action: IncidentAction, source: &str, end_s: Option<u64>) -> Incident {
    Incident {
        id: 0,
        action,
        matches: Matches::Sources(vec![target::source(source).expect("a prefix")]),
        service: None,
        until_s: end_s.map(|end_s| START_NS / SECOND + end_s),
        reason: "test".to_owned(),
        by: "nobody".to_owned(),
        at_s: 0,
        counter: 0,
    }
}

fn throttle(rate: &str, burst: u64) -> IncidentAction {
    let packets = Some(throttle_of_packets(rate, Some(burst)).expect("a rate"));
    IncidentAction::Throttle(Budgets { packets, ..Budgets::default() })
}

/// Adds a rule; its number.
fn add(rig: &mut Rig, incident: Incident) -> u64 {
    let clocks = rig.bench().clocks();
    let maps = &mut rig.bench_mut().loaded.maps;
    incidents::change(maps, clocks, vec![incident], |_| false).expect("it fits").added[0].id
}

fn undo(rig: &mut Rig, id: u64) {
    let clocks = rig.bench().clocks();
    let maps = &mut rig.bench_mut().loaded.maps;
    let changed = incidents::change(maps, clocks, Vec::new(), |incident| incident.id == id);
    assert_eq!(changed.expect("the rule can go").removed.len(), 1);
}

#[test]
fn a_block_is_at_once_and_ends_to_the_tick_for_known_and_new_sources() {
    let mut rig = Rig::under(&policy_of("packets = \"1000/s\""));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    add(&mut rig, incident(IncidentAction::Block, "10.0.0.0/8", Some(10)));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(10 * SECOND - 1);
    assert_eq!(rig.reason(&ack(v4(2))), Reason::Denied);
    rig.advance(1);
    for source in 1..4 {
        assert_eq!(rig.reason(&ack(v4(source))), Reason::Conforming, "source {source}");
    }
    let refreshed = rig.counter("source_refreshed");
    assert!(rig.passes(&ack(v4(1))) && rig.passes(&ack(v4(2))));
    assert_eq!(rig.counter("source_refreshed"), refreshed, "what follows is kept in the entry");
    let drops =
        read::rule_drops(&rig.bench().loaded.maps, POLICY_RULE_COUNTERS as u16).expect("the first counter");
    assert_eq!((drops.dropped, drops.shadowed), (2, 0));
}

/// The budgets of a source stay what they are: a throttle begins with what the source has spent.
#[test]
fn a_throttle_tightens_and_keeps_what_the_profile_limits_besides() {
    let mut rig = Rig::under(&policy_of("packets = \"1000/s\"\nconnections = { rate = \"1/h\", burst = 2 }"));
    let id = add(&mut rig, incident(throttle("1/s", 3), "10.0.0.0/8", None));
    let syn = |source| segment(v4(source), flags::SYN);
    assert_eq!([rig.reason(&syn(1)), rig.reason(&syn(1))], [Reason::Conforming; 2]);
    assert_eq!(rig.reason(&syn(1)), Reason::Connections, "of the profile");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming, "what was dropped cost nothing");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets, "of the throttle");
    undo(&mut rig, id);
    // The debt counts as spent, for the second that the profile's burst takes to fill again.
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    rig.advance(SECOND);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    add(&mut rig, incident(throttle("100000/s", 100_000), "10.0.0.0/8", None));
    rig.repeat(&ack(v4(2)), 1000);
    assert_eq!(rig.reason(&ack(v4(2))), Reason::Packets, "a loose throttle loosens nothing");
}

/// What follows the policy's rule may be stricter than the throttle that stood in the rule's place.
#[test]
fn a_throttle_gives_way_to_what_follows_a_rule_that_ends_beneath_it() {
    let rules = "[[rule]]\nname = \"one\"\nsource = [\"10.0.0.1\"]\naction = \"allow\"\nuntil = 1970-01-01T01:00:10Z\n\
                 [[rule]]\nname = \"all\"\nsource = [\"10.0.0.0/8\"]\naction = \"drop\"\n";
    let mut rig = Rig::under(&(policy_of("packets = \"1000/s\"") + rules));
    add(&mut rig, incident(throttle("100/s", 100), "10.0.0.0/8", None));
    assert_eq!([rig.reason(&ack(v4(1))), rig.reason(&ack(v4(2)))], [Reason::Conforming, Reason::Denied]);
    rig.advance(10 * SECOND);
    assert_eq!([rig.reason(&ack(v4(1))), rig.reason(&ack(v4(2)))], [Reason::Denied; 2]);
}

/// … and what follows the throttle may allow what the policy's rule drops.
#[test]
fn a_rule_that_prevails_over_a_throttle_gives_way_to_what_follows_that() {
    let rule = "[[rule]]\nname = \"all\"\nsource = [\"10.0.0.0/16\"]\naction = \"drop\"\n";
    let mut rig = Rig::under(&(policy_of("packets = \"1000/s\"") + rule));
    add(&mut rig, incident(IncidentAction::Allow, "0.0.0.0/0", None));
    add(&mut rig, incident(throttle("100/s", 100), "10.0.0.0/8", Some(10)));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied, "the rule is tighter");
    rig.advance(10 * SECOND);
    assert_eq!([rig.reason(&ack(v4(1))), rig.reason(&ack(v4(2)))], [Reason::Allowed; 2]);
}

#[test]
fn a_policy_that_is_applied_leaves_incident_rules_as_they_are() {
    let mut rig = Rig::under(&policy_of("packets = \"1000/s\""));
    add(&mut rig, incident(IncidentAction::Block, "10.0.0.1", Some(100)));
    // Another service comes first, so that numbers differ.
    let more = "[[service]]\nname = \"a\"\naddresses = [\"203.0.113.99\"]\n";
    rig.apply(&(policy_of("packets = \"5/h\"") + more));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.repeat(&ack(v4(2)), 5);
    assert_eq!(rig.reason(&ack(v4(2))), Reason::Packets);
    rig.advance(100 * SECOND);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

/// During a trial both policies get the rule, and the one before keeps it when the trial is over.
#[test]
fn an_incident_rule_of_a_trial_outlives_it() {
    let mut rig = Rig::under(&policy_of("packets = \"1000/s\""));
    let before = add(&mut rig, incident(IncidentAction::Block, "10.0.0.1", None));
    let trial = policy(&policy_of("packets = { rate = \"1/h\", burst = 1 }"));
    let tables = compile(&trial, &rig.bench().manifest, rig.bench().clocks()).expect("it fits");
    let maps = &mut rig.bench_mut().loaded.maps;
    apply::apply_until_confirmed(maps, &tables, 60 * SECOND).expect("it is applied");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    add(&mut rig, incident(IncidentAction::Block, "10.0.0.2", None));
    undo(&mut rig, before);
    let during = [Reason::Conforming, Reason::Denied, Reason::Conforming];
    assert_eq!([1, 2, 3].map(|source| rig.reason(&ack(v4(source)))), during);
    assert_eq!(rig.reason(&ack(v4(3))), Reason::Packets, "of the policy on trial");
    rig.advance(60 * SECOND);
    // What they owe to the slow policy counts as spent, for a second.
    let in_debt = [Reason::Packets, Reason::Denied, Reason::Packets];
    assert_eq!([1, 2, 3].map(|source| rig.reason(&ack(v4(source)))), in_debt);
    rig.advance(SECOND);
    assert_eq!([1, 2, 3].map(|source| rig.reason(&ack(v4(source)))), during);
    assert_eq!(rig.reason(&ack(v4(3))), Reason::Conforming, "of the policy before");
    assert_eq!(read::incidents(&rig.bench().loaded.maps).expect("they can be read").rules.len(), 1);
}

#[test]
fn numbers_are_not_given_twice_and_counters_start_from_zero() {
    let mut rig = Rig::under(&policy_of("packets = \"1000/s\""));
    for round in 1..=12 {
        let id = add(&mut rig, incident(IncidentAction::Block, "10.0.0.1", None));
        assert_eq!(id, round);
        assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
        let rule = read::incidents(&rig.bench().loaded.maps).expect("they can be read").rules.remove(0);
        let drops = read::rule_drops(&rig.bench().loaded.maps, rule.counter).expect("its counter");
        assert_eq!(drops.dropped, 1, "round {round}");
        undo(&mut rig, id);
        assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    }
    let one_too_many = vec![incident(IncidentAction::Block, "10.0.0.1", None); INCIDENT_RULES_MAX + 1];
    let clocks = rig.bench().clocks();
    let refused = incidents::change(&mut rig.bench_mut().loaded.maps, clocks, one_too_many, |_| false);
    assert!(refused.expect_err("too many").to_string().contains("at most 256"));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

/// Of an IPv6 source that is divided by a longer prefix, each half by itself.
#[test]
fn a_block_of_half_an_ipv6_source_leaves_the_other_half() {
    let mut rig = Rig::under(&policy_of("packets = \"1000/s\""));
    assert_eq!(rig.reason(&ack(v6(1))), Reason::Conforming);
    add(&mut rig, incident(IncidentAction::Block, "2001:db8:a:1::/65", None));
    let other: IpAddr = "2001:db8:a:1:8000::1".parse().expect("an address");
    for _ in 0..2 {
        assert_eq!(rig.reason(&ack(v6(1))), Reason::Denied);
        assert_eq!(rig.reason(&ack(other)), Reason::Conforming);
    }
}

#[test]
fn without_a_policy_there_is_nothing_to_stand_beside() {
    let mut rig = Rig::bare();
    let clocks = rig.bench().clocks();
    let added = vec![incident(IncidentAction::Block, "10.0.0.1", None)];
    let refused = incidents::change(&mut rig.bench_mut().loaded.maps, clocks, added, |_| false);
    assert!(matches!(refused, Err(apply::ApplyError::NoPolicy)), "{refused:?}");
}
