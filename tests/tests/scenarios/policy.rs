//! A change of policy keeps what every source has spent.

use detector_common::{
    generation::{Generation, Settings},
    verdict::Reason,
    way::EPOCH_MAX,
};
use detector_tests::rows::{MILLISECOND, Rig, SECOND};

use crate::*;

/// Spends the whole budget of a source.
fn spend(rig: &mut Rig, source: IpAddr) {
    let frame = ack(source);
    while rig.passes(&frame) {}
}

#[test]
fn the_same_policy_again_changes_nothing() {
    let text = policy_of("packets = { rate = \"10/s\", burst = 5 }");
    let mut rig = Rig::under(&text);
    let mut bucket = Bucket::a_second(10, 5);
    for packet in 0..200 {
        rig.advance(50 * MILLISECOND);
        rig.apply(&text);
        assert_eq!(rig.passes(&ack(v4(1))), bucket.take(rig.now_ns(), 1), "packet {packet}");
    }
}

/// What was spent under one profile is owed under the next: in time, which is what a budget is.
#[test]
fn another_profile_starts_where_the_last_one_ended() {
    let mut rig = Rig::under(&policy_of("packets = { rate = \"10/s\", burst = 20 }"));
    spend(&mut rig, v4(1));
    // The debt is two seconds; a burst of five at 10/s tolerates half a second of it.
    rig.apply(&policy_of("packets = { rate = \"10/s\", burst = 5 }"));
    rig.advance(1600 * MILLISECOND - 1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    rig.advance(1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    // A wider one is in force at once.
    rig.apply(&policy_of("packets = { rate = \"10/s\", burst = 8 }"));
    for _ in 0..3 {
        assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    }
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    // And a policy without limits, then with them again, forgives nothing.
    rig.apply("version = 1\n[[service]]\nname = \"api\"\naddresses = [\"203.0.113.10\"]\n");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Unlimited);
    rig.apply(&policy_of("packets = { rate = \"10/s\", burst = 8 }"));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
}

#[test]
fn parents_keep_what_they_spent() {
    let text = |burst| {
        policy_of(&format!(
            "packets = \"1000/s\"\n[profile.customer.parents]\n\
             v4_24 = {{ packets = {{ rate = \"10/s\", burst = {burst} }} }}"
        ))
    };
    let mut rig = Rig::under(&text(5));
    for source in 0..5 {
        assert_eq!(rig.reason(&ack(v4(source))), Reason::Conforming);
    }
    rig.apply(&text(6));
    assert_eq!(rig.reason(&ack(v4(9))), Reason::Conforming);
    assert_eq!(rig.reason(&ack(v4(10))), Reason::ParentPackets);
}

#[test]
fn another_name_of_the_profile_keeps_the_budget_and_another_name_of_the_service_does_not() {
    let text = policy_of("packets = { rate = \"10/s\", burst = 5 }");
    let mut rig = Rig::under(&text);
    spend(&mut rig, v4(1));
    rig.apply(&text.replace("customer", "visitor"));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    // A service is its name: under another one it is another service, and the old one's budgets wait for it.
    rig.apply(&text.replace("\"api\"", "\"web\""));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    rig.apply(&text);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
}

#[test]
fn services_in_another_order_keep_their_budgets() {
    let service = |name: &str, address: &str| {
        format!("[[service]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nprofile = \"p\"\n")
    };
    let head = "version = 1\n[profile.p]\npackets = { rate = \"10/s\", burst = 5 }\n";
    let (api, web) = (service("api", "203.0.113.10"), service("web", "203.0.113.11"));
    let mut rig = Rig::under(&format!("{head}{api}{web}"));
    spend(&mut rig, v4(1));
    let other = tcp("10.0.0.1:1", "203.0.113.11:1", flags::ACK).frame();
    for text in [
        format!("{head}{web}{api}"),
        format!("{head}{}{web}{api}", service("first", "203.0.113.12")),
        format!("{head}{api}"),
        format!("{head}{api}{web}"),
    ] {
        rig.apply(&text);
        assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets, "{text}");
    }
    assert_eq!(rig.reason(&other), Reason::Conforming);
}

/// The class is looked up once for each source that comes after a change, and never between.
#[test]
fn a_source_is_looked_up_once_a_policy() {
    let text = policy_of("packets = \"1000/s\"");
    let mut rig = Rig::under(&text);
    for source in 0..10 {
        assert!(rig.passes(&ack(v4(source))) && rig.passes(&ack(v6(source))));
    }
    let before = rig.counter("source_refreshed");
    for change in 1..=4 {
        rig.apply(&text);
        for _ in 0..3 {
            for source in 0..10 {
                assert!(rig.passes(&ack(v4(source))) && rig.passes(&ack(v6(source))));
            }
        }
        assert_eq!(rig.counter("source_refreshed") - before, 20 * change);
    }
    assert_eq!(rig.entry("10.0.0.1", "api").unwrap().meta().epoch(), 5);
}

/// A rule that comes, changes and goes is in force with the next packet of a source that is known.
#[test]
fn rules_reach_known_sources_at_once() {
    let open = policy_of("packets = { rate = \"10/s\", burst = 5 }");
    let rule = |action: &str| {
        format!(
            "{open}[[rule]]\nname = \"r\"\nsource = [\"10.0.0.1\", \"2001:db8:a:1::/64\"]\naction = {action}\n"
        )
    };
    let mut rig = Rig::under(&open);
    for source in [v4(1), v6(1)] {
        rig.apply(&open);
        assert_eq!(rig.reason(&ack(source)), Reason::Conforming);
        rig.apply(&rule("\"drop\""));
        assert_eq!(rig.reason(&ack(source)), Reason::Denied);
        rig.apply(&rule("\"allow\""));
        assert_eq!(rig.reason(&ack(source)), Reason::Allowed);
        rig.apply(&rule("{ limit = \"customer\" }"));
        assert_eq!(rig.reason(&ack(source)), Reason::Conforming);
        rig.apply(&open);
        // Two packets were charged; what was denied and allowed between was not.
        for _ in 0..3 {
            assert_eq!(rig.reason(&ack(source)), Reason::Conforming);
        }
        assert_eq!(rig.reason(&ack(source)), Reason::Packets);
    }
}

/// A host rule inside a /64 that is known: its class must not be kept for the neighbours.
#[test]
fn a_host_rule_reaches_a_known_source_and_spares_its_neighbours() {
    let open = policy_of("packets = \"1000/s\"");
    let divided =
        format!("{open}[[rule]]\nname = \"r\"\nsource = [\"2001:db8:a:1::bad\"]\naction = \"drop\"\n");
    let (bad, good) = ("2001:db8:a:1::bad".parse().unwrap(), "2001:db8:a:1::1".parse().unwrap());
    let mut rig = Rig::under(&open);
    assert_eq!((rig.reason(&ack(bad)), rig.reason(&ack(good))), (Reason::Conforming, Reason::Conforming));
    rig.apply(&divided);
    for _ in 0..3 {
        assert_eq!((rig.reason(&ack(good)), rig.reason(&ack(bad))), (Reason::Conforming, Reason::Denied));
    }
    rig.apply(&open);
    assert_eq!((rig.reason(&ack(bad)), rig.reason(&ack(good))), (Reason::Conforming, Reason::Conforming));
}

#[test]
fn epochs_wrap_around_and_keep_budgets() {
    let text = policy_of("packets = { rate = \"10/s\", burst = 5 }");
    let mut rig = Rig::under(&text);
    // As if sixteen million policies had been applied.
    let settings = &rig.bench().loaded.maps.settings;
    let slot = Generation(settings.read(0).active).slot();
    let active = Generation::new(EPOCH_MAX, slot, None).0;
    settings.write(0, &Settings { active, last_epoch: EPOCH_MAX.into(), ..settings.read(0) });
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    spend(&mut rig, v4(1));
    assert_eq!(rig.entry("10.0.0.1", "api").unwrap().meta().epoch(), EPOCH_MAX);
    rig.apply(&text.replace("burst = 5", "burst = 6"));
    assert_eq!(rig.entry("10.0.0.1", "api").unwrap().meta().epoch(), EPOCH_MAX);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    assert_eq!(rig.entry("10.0.0.1", "api").unwrap().meta().epoch(), 1);
    rig.advance(10 * SECOND);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

/// A source that a slow rule left hours in debt is served at the rate of the next policy at once.
#[test]
fn a_debt_under_a_slow_rule_does_not_outlive_it() {
    let mut rig = Rig::under(&policy_of("packets = { rate = \"10/h\", burst = 20 }"));
    spend(&mut rig, v4(1));
    rig.apply(&policy_of("packets = { rate = \"2000/s\", burst = 4000 }"));
    // The debt counts as spent: the first packet is refused, the next comes when the rate has one for it.
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    rig.advance(MILLISECOND / 2);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Packets);
    rig.advance(SECOND);
    rig.repeat(&ack(v4(1)), 3000);
    assert_eq!(rig.counted("api", Reason::Conforming).packets, 20 + 1 + 2000);
}
