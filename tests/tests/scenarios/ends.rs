//! What changes by itself: rules end, a policy that nobody confirms goes, and a percentage of sources is enforced.

use detector_common::verdict::Reason;
use detector_tests::rows::{MILLISECOND, Rig, SECOND, START_NS, policy};
use detector_user::{
    kernel::{apply, read},
    policy::{
        Mode, Policy,
        compile::{Clocks, Manifest, compile},
    },
};

use crate::*;

/// Rules about 10.0.0.0/8 and parts of it, in the order of their prefixes; those with a time end so many seconds after the
/// rig starts.
fn ending(rules: &[(&str, &str, Option<u64>)]) -> Policy {
    let mut text = policy_of("packets = \"1000/s\"");
    for (number, (source, action, _)) in rules.iter().enumerate() {
        text += &format!("[[rule]]\nname = \"r{number}\"\nsource = [\"{source}\"]\naction = {action}\n");
    }
    text += "[profile.slow]\npackets = { rate = \"1/h\", burst = 1 }\n";
    let mut policy = policy(&text);
    for (rule, (.., end_s)) in policy.rules.iter_mut().zip(rules) {
        rule.until_s = end_s.map(|end_s| START_NS / SECOND + end_s);
    }
    policy
}

#[test]
fn a_rule_ends_to_the_tick_for_known_and_new_sources() {
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&[("10.0.0.0/8", "\"drop\"", Some(10))]));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(10 * SECOND - 1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming, "a source that was known before");
    assert_eq!(rig.reason(&ack(v4(2))), Reason::Conforming, "a new one");
    let refreshed = rig.counter("source_refreshed");
    assert!(rig.passes(&ack(v4(1))) && rig.passes(&ack(v4(2))));
    assert_eq!(rig.counter("source_refreshed"), refreshed, "what follows is kept in the entry");
}

/// What follows a rule that ends is what the policy says without it: the rule around it, and in the end the profile.
#[test]
fn what_follows_an_end_is_what_the_policy_says_without_the_rule() {
    let rules = [
        ("10.0.0.0/8", "\"drop\"", Some(30)),
        ("10.0.0.0/16", "{ limit = \"slow\" }", Some(20)),
        ("10.0.0.0/24", "\"allow\"", Some(10)),
        ("10.0.0.0/25", "\"drop\"", Some(5)),
    ];
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&rules));
    let expected = [
        (Reason::Denied, 5),
        (Reason::Allowed, 5),
        (Reason::Conforming, 0),
        (Reason::Packets, 10),
        (Reason::Denied, 10),
        // What the slow rule left in debt counts as spent, for the second that its burst takes to fill again.
        (Reason::Packets, 1),
        (Reason::Conforming, 0),
    ];
    for (step, (reason, seconds)) in expected.into_iter().enumerate() {
        assert_eq!(rig.reason(&ack(v4(1))), reason, "step {step}");
        rig.advance(seconds * SECOND);
    }
}

/// An inner rule that ends after the one around it leaves nothing of that one.
#[test]
fn an_end_before_its_turn_is_skipped() {
    let rules = [("10.0.0.0/8", "\"drop\"", Some(5)), ("10.0.0.0/16", "\"allow\"", Some(10))];
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&rules));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Allowed);
    rig.advance(10 * SECOND);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

#[test]
fn a_rule_that_has_ended_is_none() {
    let mut rig = Rig::bare();
    let policy = ending(&[("10.0.0.0/8", "\"drop\"", Some(10))]);
    rig.advance(10 * SECOND);
    rig.apply_policy(&policy);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

#[test]
fn too_many_ends_in_a_row_are_refused() {
    let rules: Vec<_> = (0..5)
        .map(|n| {
            (["10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/10", "10.0.0.0/11", "10.0.0.0/12"][n], 50 - 10 * n as u64)
        })
        .map(|(source, end_s)| (source, "\"drop\"", Some(end_s)))
        .collect();
    let mut rig = Rig::bare();
    let error = compile(&ending(&rules), &Manifest::default(), rig.bench().clocks()).expect_err("five");
    assert!(error.to_string().contains("end one after the other"), "{error}");
    rig.apply_policy(&ending(&rules[1..]));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
}

/// The clock of the wall was wrong by three seconds when the policy came, and is set.
#[test]
fn ends_move_when_the_clock_is_set_and_what_has_ended_stays_so() {
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&[("10.0.0.0/8", "\"drop\"", Some(10)), ("10.1.0.0/16", "\"drop\"", Some(2))]));
    let set = |rig: &Rig, ahead_ns: u64| {
        let clocks = rig.bench().clocks();
        let clocks = Clocks { unix_ns: clocks.unix_ns + ahead_ns, ..clocks };
        apply::retime(&rig.bench().loaded.maps, clocks).expect("the policy can be read")
    };
    rig.advance(3 * SECOND);
    assert_eq!(set(&rig, SECOND / 2), 0, "what clocks are read apart");
    assert_eq!(set(&rig, 3 * SECOND), 1, "one rule has ended");
    rig.advance(4 * SECOND - 1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    assert_eq!(set(&rig, 0), 0, "an end that was");
    // Into the past.
    rig.apply_policy(&ending(&[("10.0.0.0/8", "\"drop\"", Some(20))]));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    assert_eq!(set(&rig, 60 * SECOND), 1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

/// Every source is wholly enforced or wholly in shadow, and stays so.
#[test]
fn a_percentage_of_sources_is_enforced() {
    const SOURCES: u32 = 4000;
    let mut rig = Rig::new(SOURCES);
    let mut policy = ending(&[("10.0.0.0/8", "\"drop\"", None)]);
    let dropped = |rig: &mut Rig, policy: &Policy| -> Vec<u32> {
        rig.apply_policy(policy);
        let dropped: Vec<_> = (0..SOURCES).filter(|&source| !rig.passes(&ack(v4(source)))).collect();
        let again: Vec<_> = (0..SOURCES).filter(|&source| !rig.passes(&ack(v4(source)))).collect();
        assert_eq!(dropped, again);
        dropped
    };
    policy.rules[0].mode = Some(Mode::Percent(10));
    let ten = dropped(&mut rig, &policy);
    // Five standard deviations of a binomial distribution.
    assert!((305..=495).contains(&ten.len()), "{} of {SOURCES} at 10 %", ten.len());
    policy.rules[0].mode = Some(Mode::Percent(60));
    let sixty = dropped(&mut rig, &policy);
    assert!((2245..=2555).contains(&sixty.len()), "{} of {SOURCES} at 60 %", sixty.len());
    assert!(
        ten.iter().all(|source| sixty.contains(source)),
        "a higher percentage drops whom a lower one did"
    );
    let drops = read::rule_drops(&rig.bench().loaded.maps, 1).expect("the counters of the only rule");
    let refused = u64::from(4 * SOURCES);
    assert_eq!(drops.dropped, 2 * (ten.len() + sixty.len()) as u64);
    assert_eq!(drops.dropped + drops.shadowed, refused);
}

/// Applies a policy that is taken back after so many seconds.
fn try_out(rig: &mut Rig, policy: &Policy, seconds: u64) -> Result<u32, apply::ApplyError> {
    let clocks = rig.bench().clocks();
    let manifest = rig.bench().manifest.clone();
    let tables = compile(policy, &manifest, clocks).expect("a policy that fits");
    apply::apply_until_confirmed(&mut rig.bench_mut().loaded.maps, &tables, seconds * SECOND)
}

/// Nobody writes anything at the deadline: the program goes back by itself.
#[test]
fn a_policy_that_nobody_confirms_is_taken_back_to_the_tick() {
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&[]));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    let drop_all = ending(&[("10.0.0.0/8", "\"drop\"", None)]);
    try_out(&mut rig, &drop_all, 60).expect("it is applied");
    let pending = try_out(&mut rig, &drop_all, 60);
    assert!(matches!(pending, Err(apply::ApplyError::Pending { seconds: 60 })), "{pending:?}");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(60 * SECOND - 1);
    assert_eq!(rig.reason(&ack(v4(2))), Reason::Denied);
    rig.advance(1);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming, "known before the trial");
    assert_eq!(rig.reason(&ack(v4(2))), Reason::Conforming, "known since the trial");
    assert_eq!(rig.reason(&ack(v4(3))), Reason::Conforming, "new");
    assert_eq!(read::epoch(&rig.bench().loaded.maps), 1, "readers see what packets are judged by");
    // The next policy gets an epoch of its own, and the slot of the one that was taken back.
    rig.apply_policy(&drop_all);
    assert_eq!(read::epoch(&rig.bench().loaded.maps), 3);
    for source in 1..4 {
        assert_eq!(rig.reason(&ack(v4(source))), Reason::Denied);
    }
}

#[test]
fn a_policy_that_is_confirmed_stays() {
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&[]));
    try_out(&mut rig, &ending(&[("10.0.0.0/8", "\"drop\"", None)]), 60).expect("it is applied");
    rig.advance(60 * SECOND - MILLISECOND);
    assert!(apply::confirm(&rig.bench().loaded.maps));
    assert!(!apply::confirm(&rig.bench().loaded.maps), "there is nothing left to confirm");
    rig.advance(3600 * SECOND);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
}

#[test]
fn a_trial_can_be_ended_and_comes_too_late_to_be_confirmed() {
    let mut rig = Rig::bare();
    rig.apply_policy(&ending(&[]));
    let drop_all = ending(&[("10.0.0.0/8", "\"drop\"", None)]);
    try_out(&mut rig, &drop_all, 60).expect("it is applied");
    assert!(apply::take_back(&rig.bench().loaded.maps));
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
    assert!(!apply::take_back(&rig.bench().loaded.maps), "the policy before is no trial");
    try_out(&mut rig, &drop_all, 60).expect("it is applied again");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(60 * SECOND);
    assert!(!apply::confirm(&rig.bench().loaded.maps), "too late");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Conforming);
}

/// The first policy goes back to none: everything passes.
#[test]
fn a_first_policy_that_nobody_confirms_leaves_none() {
    let mut rig = Rig::bare();
    try_out(&mut rig, &ending(&[("10.0.0.0/8", "\"drop\"", None)]), 5).expect("it is applied");
    assert_eq!(rig.reason(&ack(v4(1))), Reason::Denied);
    rig.advance(5 * SECOND);
    assert_eq!(rig.reason(&ack(v4(1))), Reason::NoPolicy);
}
