//! Each guardrail by its name: what it lets be, and what it does not.

use detector_fleets::{
    fleet::{Member, Suspect},
    traits::Key,
    usage::KeyUse,
};

use super::{
    fixtures::{Case, KEY, MEMBER, NOW_S, prefixes, source},
    guard::{Guard, Verdict},
    hints::Labelled,
    order::{Stop, Wanted},
    plan::{Decision, Step},
};

fn verdict(decision: &Decision, guard: Guard) -> &Verdict {
    decision.verdicts.iter().find(|verdict| verdict.guard == guard).expect("every guard is asked")
}

/// A guard leaves an action a suggestion, which an operator can insist on.
#[track_caller]
fn assert_only_suggested(mut case: Case, guard: Guard) -> Decision {
    let decision = case.decide();
    assert_eq!(decision.step, Step::Suggest, "{}", decision.says);
    let stops = verdict(&decision, guard);
    assert!(!stops.passed && stops.sentence == decision.says, "{stops:?}");
    let command = decision.command.clone().expect("it is suggested");
    assert!(
        command.starts_with("detector throttle fleet:3 --for 1h") && command.ends_with(" --force"),
        "{command}"
    );
    case.order(Wanted::THROTTLE, false, NOW_S + 600);
    assert_eq!(case.step(), Step::Suggest, "an order without --force");
    case.order(Wanted::THROTTLE, true, NOW_S + 600);
    assert_eq!(case.step(), Step::Throttle, "with it");
    decision
}

fn used(tls_key: u64, members: f64, baseline: f64, is_top: bool) -> KeyUse {
    KeyUse { key: Key { tls_key, syn_key: 7 }, members, baseline, baseline_connections: baseline, is_top }
}

/// The fingerprints that are acted on alone.
fn keys(case: &mut Case) -> (Vec<u64>, Decision) {
    let decision = case.decide();
    let standing = decision.standing.as_ref().expect("it is acted on");
    (standing.action.keys.iter().map(|key| key.tls_key).collect(), decision)
}

#[test]
fn what_passes_every_guard_is_acted_on_with_all_verdicts_on_record() {
    let decision = Case::throttle().decide();
    assert_eq!(decision.step, Step::Throttle);
    let guards: Vec<_> = decision.verdicts.iter().map(|verdict| verdict.guard).collect();
    assert_eq!(guards, Guard::ALL, "each once, in their order");
    for guard in guards {
        assert_eq!(serde_json::to_value(guard).expect("JSON"), guard.name());
    }
    assert!(decision.verdicts.iter().all(|verdict| verdict.passed && !verdict.sentence.is_empty()));
    let told = serde_json::to_value(verdict(&decision, Guard::Collateral)).expect("JSON");
    assert_eq!(told["guard"], "collateral");
}

#[test]
fn key_selective_needs_nearly_nobody_else_to_have_it() {
    let mut case = Case::throttle();
    case.settings.collateral_max = crate::policy::Part::of_percent(1);
    let mut with = |baselines: &[f64]| {
        case.fleet.usage.keys =
            baselines.iter().zip(1..).map(|(baseline, number)| used(number, 0.3, *baseline, false)).collect();
        case.standing.clear();
        let (keys, decision) = keys(&mut case);
        (keys, verdict(&decision, Guard::KeySelective).passed)
    };
    assert_eq!(with(&[0.001]), (vec![1], true));
    assert_eq!(with(&[0.001_01]), (vec![], false));
    assert_eq!(with(&[0.000_6, 0.000_5, 0.000_4]), (vec![1, 3], false), "all together");
    // What it would cost counts, too: the members leave 0.01 % less 0.001 %.
    case.settings.collateral_max = crate::policy::Part(100);
    case.fleet.usage.keys = vec![used(1, 0.3, 0.000_089, false), used(2, 0.3, 0.000_002, false)];
    case.standing.clear();
    assert_eq!(keys(&mut case).0, [1]);
    // A customer with one address and a sixth of all requests.
    case.fleet.usage.keys = vec![KeyUse { baseline_connections: 0.16, ..used(1, 0.3, 0.000_001, false) }];
    case.standing.clear();
    assert!(keys(&mut case).0.is_empty());
}

#[test]
fn key_top_is_never_acted_on_alone_also_by_force() {
    let mut case = Case::throttle();
    case.fleet.usage.keys =
        vec![used(1, 0.6, 0.0, true), used(2, 0.3, 0.0, false), used(3, 0.04, 0.0, false)];
    case.order(Wanted::THROTTLE, true, NOW_S + 600);
    let (found, decision) = keys(&mut case);
    assert_eq!(found, [2], "the first is top, and few have the third");
    assert!(!verdict(&decision, Guard::KeyTop).passed);
}

#[test]
fn shared_sources_are_left_out_but_for_the_key() {
    let mut case = Case::throttle();
    case.change(0..10, Member { tls_keys: 3, ..MEMBER });
    case.change(10..15, Member { is_busy: true, ..MEMBER });
    let (keys, decision) = keys(&mut case);
    assert_eq!(keys, [KEY.tls_key]);
    let members = &decision.standing.as_ref().expect("it is acted on").action.members;
    assert_eq!((members.len(), members[0], decision.left_out.shared), (985, source(15), 15));
    assert!((verdict(&decision, Guard::SharedSources).figure - 15.0).abs() < 1e-9);
}

#[test]
fn members_max_keeps_what_is_very_large_a_suggestion() {
    let mut case = Case::throttle();
    case.settings.members_max = 1000;
    assert_eq!(case.step(), Step::Throttle);
    case.settings.members_max = 999;
    case.standing.clear();
    assert_only_suggested(case, Guard::MembersMax);
}

#[test]
fn new_members_max_lets_newcomers_wait_for_the_next_hour() {
    let mut case = Case::throttle();
    case.settings.new_members_max = 10;
    assert_eq!(
        case.decide().standing.expect("it begins").action.members.len(),
        1000,
        "those of the beginning"
    );
    case.change(1000..1015, MEMBER);
    case.change([1014], Member { connections: 99, ..MEMBER });
    case.now_s += 600;
    let decision = case.decide();
    let members = decision.standing.expect("it goes on").action.members;
    assert_eq!((decision.step, members.len(), decision.left_out.waiting), (Step::Keep, 1010, 5));
    assert!(
        members.contains(&source(1014)) && !members.contains(&source(1009)),
        "who connects most comes first"
    );
    assert_eq!(case.decide().left_out.waiting, 5, "in the same hour");
    case.now_s = NOW_S + 3600;
    case.fleet.last_seen_s = case.now_s - 60;
    let decision = case.decide();
    assert_eq!(
        (decision.standing.expect("it goes on").action.members.len(), decision.left_out.waiting),
        (1015, 0)
    );
}

#[test]
fn collateral_above_the_bound_stays_a_suggestion() {
    let mut case = Case::throttle();
    case.fleet.collateral = 0.000_05;
    assert_eq!(case.step(), Step::Throttle, "half of 0.01 %");
    case.standing.clear();
    case.fleet.collateral = 0.000_051;
    let decision = assert_only_suggested(case, Guard::Collateral);
    assert_eq!(decision.says, "0.0051 % of the users' connections would be slowed; at most 0.005 %");
}

#[test]
fn collateral_that_comes_to_be_ends_the_action() {
    let mut case = Case::throttle();
    assert_eq!(case.step(), Step::Throttle);
    case.fleet.collateral = 0.000_1;
    assert_eq!(case.step(), Step::Keep);
    case.fleet.collateral = 0.000_101;
    assert_eq!(case.step(), Step::End);
    case.fleet.collateral = 0.000_1;
    assert_eq!(case.step(), Step::Suggest);
}

#[test]
fn fresh_evidence_is_no_older_than_an_action_lasts() {
    let mut case = Case::throttle();
    case.fleet.last_seen_s = NOW_S - 3600;
    assert_eq!(case.step(), Step::Throttle);
    case.standing.clear();
    case.fleet.last_seen_s -= 1;
    let decision = case.decide();
    assert_eq!((decision.step, decision.command), (Step::Nothing, None), "not even a suggestion");
    assert!(!verdict(&case.decide(), Guard::FreshEvidence).passed);
}

#[test]
fn hold_out_leaves_a_part_of_the_members_alone() {
    let mut case = Case::throttle();
    assert_eq!(case.decide().standing.expect("it begins").action.enforced_percent, 95);
    case.settings.hold_out_percent = 20;
    assert_eq!(case.decide().standing.expect("it goes on").action.enforced_percent, 80);
    case.settings.hold_out_percent = 0;
    assert_eq!(case.step(), Step::End, "which the policy language does not say");
}

#[test]
fn operator_lists_are_left_alone_also_by_force() {
    let mut case = Case::throttle();
    case.allowed = prefixes([1, 2]);
    case.labelled = Labelled { customers: prefixes([2, 3]), ..Labelled::default() };
    case.order(Wanted::THROTTLE, true, NOW_S + 600);
    let decision = case.decide();
    let members = decision.standing.clone().expect("it is acted on").action.members;
    assert_eq!((members.len(), &members[..2]), (997, &[source(0), source(4)][..]));
    assert_eq!((decision.left_out.allowed, decision.left_out.customers), (2, 1));
    assert!((verdict(&decision, Guard::OperatorLists).figure - 3.0).abs() < 1e-9);
}

#[test]
fn targets_have_to_be_left() {
    let mut case = Case::throttle();
    case.fleet.usage.keys.clear();
    case.allowed = prefixes(0..1000);
    case.order(Wanted::THROTTLE, true, NOW_S + 600);
    let decision = case.decide();
    assert_eq!(decision.step, Step::Nothing);
    assert_eq!(decision.says, "0 members and 0 fingerprints are left to act on");
    case.fleet.explanation.is_new_uniform_population = true;
    case.orders.clear();
    assert_eq!(case.step(), Step::Nothing, "nor is it suggested to do nothing");
}

#[test]
fn customers_among_the_members_stop_the_action() {
    let mut case = Case::throttle();
    case.labelled.customers = prefixes(0..10);
    case.labelled.abuse = prefixes(20..25);
    assert_eq!(case.step(), Step::Throttle, "one in a hundred");
    case.standing.clear();
    case.labelled.customers = prefixes(0..11);
    let decision = assert_only_suggested(case, Guard::Customers);
    assert_eq!(
        decision.says,
        "11 of 1000 members are customers by hints and 5 are confirmed abuse: at most 98.9 % of the members are right"
    );
}

#[test]
fn fingerprints_that_a_customer_has_are_not_acted_on_alone() {
    let mut case = Case::throttle();
    assert_eq!(keys(&mut case).0, [KEY.tls_key]);
    case.labelled.customers = prefixes([7]);
    let (left, decision) = keys(&mut case);
    let stops = verdict(&decision, Guard::KeyCustomers);
    assert_eq!((left, stops.passed, stops.figure as u64), (vec![], false, 1), "{stops:?}");
    assert_eq!(
        stops.sentence,
        "1 members are customers by hints, who have its fingerprints: 0 of 1 are acted on alone"
    );
    case.labelled.customers = prefixes([2000]);
    assert_eq!(keys(&mut case).0, [KEY.tls_key], "who is no member says nothing of it");
}

#[test]
fn confirmed_abuse_makes_a_suspect_a_member_and_nobody_else() {
    let mut case = Case::throttle();
    let suspect = |number| Suspect { source: source(number), is_shared: number == 2003 };
    case.fleet.suspects = (2000..2004).map(suspect).collect();
    case.labelled.customers = prefixes([2001]);
    case.labelled.abuse = prefixes([2000, 2001, 2003, 3000]);
    let decision = case.decide();
    assert_eq!(decision.left_out.shared, 1, "what one of many behind an address did is not theirs");
    let members = decision.standing.expect("it begins").action.members;
    assert_eq!((members.len(), members.last()), (1001, Some(&source(2000))));
}

#[test]
fn switch_stops_everything_also_by_force() {
    let mut case = Case::throttle();
    case.order(Wanted::THROTTLE, true, NOW_S + 600);
    assert_eq!(case.step(), Step::Throttle);
    case.stop = Some(Stop { by: "bob".to_owned(), reason: "INC-1".to_owned(), at_s: NOW_S });
    let decision = case.decide();
    assert_eq!((decision.step, decision.standing), (Step::End, None));
    assert_eq!(decision.says, "all actions on fleets are stopped by bob: INC-1");
    assert_eq!(case.step(), Step::Nothing);
}

/// 25,000 identical devices that are launched at once: shown, and never acted on.
#[test]
fn uniform_population_is_never_more_than_a_suggestion() {
    let mut case = Case::throttle();
    case.fleet.explanation.is_new_uniform_population = true;
    case.fleet.explanation.why = "not rejected: no handshake tells of a proxy".to_owned();
    let decision = assert_only_suggested(case, Guard::UniformPopulation);
    assert_eq!(
        decision.says,
        "could it be devices or an app that were launched? not rejected: no handshake tells of a proxy"
    );
}
