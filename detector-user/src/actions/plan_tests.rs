//! The ladder, orders, ends and slots; and what holds whatever is asked.

use detector_fleets::fleet::FleetId;
use proptest::prelude::*;

use super::{
    budget::{Measured, Passed, SharedBudgets},
    fixtures::{Case, MEMBER, NOW_S, fleet, prefixes, source},
    guard::Guard,
    hints::{Hinted, Labelled},
    limits::{RENEWAL_GRACE_S, SLOTS_MAX},
    order::{Order, Stop, Wanted},
    plan::{Asked, Decision, Situation, Step, plan},
    prefixes::Prefixes,
    standing::{Rung, Standing},
};
use crate::{
    fleets::Scale,
    policy::{Budget, FleetMode, FleetSettings, Part, Rate, Tighten, utc_text},
};

#[test]
fn each_mode_goes_one_step_further() {
    let steps = [FleetMode::Off, FleetMode::Observe, FleetMode::Suggest, FleetMode::Throttle]
        .map(|mode| Case::of(mode).decide());
    assert_eq!(
        steps.each_ref().map(|one| one.step),
        [Step::Nothing, Step::Nothing, Step::Suggest, Step::Throttle]
    );
    assert_eq!(steps[1].says, "the policy has `fleets.mode = \"observe\"`");
    assert_eq!(
        steps[2].command.as_deref(),
        Some("detector throttle fleet:3 --for 1h --reason 'fleet of 1000 members at api'")
    );
    assert_eq!(steps[3].undo.as_deref(), Some("detector allow fleet:3 --for 24h --reason TEXT"));
    let audit = steps[3].audit(&[], Scale::MINUTE).expect("something changed");
    assert_eq!(
        (audit.what, &*audit.target, audit.before, &*audit.by),
        (Step::Throttle, "fleet:3", None, "detector")
    );
    assert_eq!(
        audit.after.as_deref(),
        Some(
            "1000 members, 1 keys, packets 4/s burst 16, connections 12/min burst 1, 95 %, until 2026-12-01T07:00:00Z"
        )
    );
    assert!(steps[..3].iter().all(|one| one.audit(&[], Scale::MINUTE).is_none()));
}

#[test]
fn a_lower_mode_ends_what_is_in_force() {
    for mode in [FleetMode::Off, FleetMode::Observe, FleetMode::Suggest] {
        let mut case = Case::throttle();
        assert_eq!(case.step(), Step::Throttle);
        case.settings.mode = mode;
        let decision = case.decide();
        assert_eq!((decision.step, decision.standing.is_none()), (Step::End, true));
        assert!(decision.audit(&[], Scale::MINUTE).is_some_and(|audit| audit.after.is_none()));
    }
}

#[test]
fn an_action_ends_an_hour_after_its_last_evidence_and_only_that_renews_it() {
    let mut case = Case::throttle();
    let end_s = case.fleet.last_seen_s + 3600 + RENEWAL_GRACE_S;
    assert_eq!(case.decide().standing.expect("it begins").action.until_s, end_s);
    case.now_s = end_s - 1;
    assert_eq!(case.step(), Step::Keep);
    case.fleet.last_seen_s += 1800;
    let decision = case.decide();
    assert_eq!(
        (decision.step, decision.standing.expect("it stays").action.until_s),
        (Step::Renew, end_s + 1800)
    );
    case.now_s = end_s + 1800;
    let decision = case.decide();
    assert_eq!((decision.step, decision.standing), (Step::End, None));
    assert_eq!(case.step(), Step::Nothing);
}

#[test]
fn what_detection_forgot_ends() {
    let mut case = Case::throttle();
    case.decide();
    let hinted = Hinted::default();
    let situation = Situation {
        now_s: NOW_S,
        scale: case.scale,
        settings: &case.settings,
        stop: None,
        fleets: &[],
        standing: &case.standing,
        hinted: &hinted,
        orders: &[],
    };
    let [decision] = &plan(&situation)[..] else { panic!("one decision") };
    assert_eq!((decision.fleet, decision.step, &decision.standing), (FleetId(3), Step::End, &None));
}

fn budgets(count: u64) -> SharedBudgets {
    let budget = Budget { rate: Rate { count, per_ns: 1_000_000_000 }, burst: count };
    SharedBudgets { packets: budget, connections: budget }
}

fn ordered(count: u64) -> Wanted {
    let SharedBudgets { packets, connections } = budgets(count);
    Wanted::Throttle { packets: Some(packets), connections: Some(connections) }
}

#[test]
fn an_order_comes_before_the_mode_and_ends_by_itself() {
    let mut case = Case::of(FleetMode::Observe);
    case.order(ordered(9), false, NOW_S + 600);
    let decision = case.decide();
    let standing = decision.standing.clone().expect("it is acted on");
    assert_eq!(
        (decision.step, standing.action.until_s, standing.action.budgets),
        (Step::Throttle, NOW_S + 600, budgets(9))
    );
    let audit = decision.audit(&case.orders, case.scale).expect("something changed");
    assert_eq!((&*audit.by, audit.reason.contains("INC-4711")), ("ann", true));
    case.now_s = NOW_S + 599;
    assert_eq!(case.step(), Step::Keep);
    case.now_s = NOW_S + 600;
    assert_eq!(case.step(), Step::End);
    assert_eq!(case.step(), Step::Nothing);
}

#[test]
fn people_read_times_and_rates_as_they_are_outside() {
    // A minute of detection is a second, so an hour a minute.
    let scale: Scale = "1s".parse().expect("a scale");
    let mut case = Case { scale, ..Case::of(FleetMode::Suggest) };
    let suggested = case.decide();
    assert_eq!(
        suggested.command.as_deref(),
        Some("detector throttle fleet:3 --for 1min --reason 'fleet of 1000 members at api'")
    );
    let fresh = suggested.verdicts.iter().find(|verdict| verdict.guard == Guard::FreshEvidence);
    let fresh = &fresh.expect("it is asked").sentence;
    assert_eq!(fresh, "it was last seen 1 s ago; an action is good for 1min after that");
    let until = utc_text(scale.end_unix_s(NOW_S + 600));
    case.order(Wanted::THROTTLE, false, NOW_S + 600);
    let decision = case.decide();
    assert_eq!(decision.says, format!("throttled until {until}, ann ordered it: INC-4711"));
    let audit = decision.audit(&case.orders, scale).expect("something changed");
    assert_eq!(
        audit.after,
        Some(format!(
            "1000 members, 1 keys, packets 240/s burst 16, connections 12/s burst 1, 95 %, until {until}"
        )),
        "sixty times as much a second"
    );
    case.order(Wanted::Leave, false, NOW_S + 600);
    assert_eq!(case.decide().says, format!("ann leaves it alone until {until}: INC-4711"));
}

#[test]
fn a_decision_says_which_order_was_heard_also_where_a_guard_stops_it() {
    let mut case = Case::of(FleetMode::Observe);
    assert_eq!(case.decide().order, None);
    case.order(Wanted::THROTTLE, false, NOW_S + 600);
    let decision = case.decide();
    assert_eq!(
        (decision.order, decision.undo.as_deref(), decision.step),
        (Some(1), Some("detector undo fleet:3"), Step::Throttle)
    );
    case.order(ordered(9), false, NOW_S + 600);
    assert_eq!((case.decide().order, case.step()), (Some(2), Step::Keep));
    case.fleet.explanation.is_new_uniform_population = true;
    let decision = case.decide();
    assert_eq!((decision.order, decision.step), (Some(2), Step::End));
    case.orders.clear();
    assert_eq!(case.decide().order, None);
}

#[test]
fn after_an_order_the_daemon_goes_on_by_itself_where_the_mode_lets_it() {
    let mut case = Case::throttle();
    case.order(ordered(9), false, NOW_S + 600);
    case.decide();
    case.now_s = NOW_S + 600;
    let decision = case.decide();
    let standing = decision.standing.expect("the evidence is good for an hour");
    assert_eq!(
        (decision.step, standing.action.until_s),
        (Step::Throttle, NOW_S - 60 + 3600 + RENEWAL_GRACE_S)
    );
    assert_eq!(standing.action.budgets.connections.rate.to_string(), "12/min", "with budgets of its own");
}

#[test]
fn a_fleet_that_is_left_alone_is() {
    let mut case = Case::throttle();
    assert_eq!(case.step(), Step::Throttle);
    case.order(Wanted::Leave, false, NOW_S + 600);
    let decision = case.decide();
    assert_eq!(decision.step, Step::End);
    assert_eq!(decision.says, "ann leaves it alone until 2026-12-01T06:10:00Z: INC-4711");
    assert_eq!(case.step(), Step::Nothing);
    case.now_s = NOW_S + 600;
    assert_eq!(case.step(), Step::Throttle);
}

fn measured(throttled: u64) -> Measured {
    Measured {
        throttled: Passed { sources: 950, connections: throttled },
        held_out: Passed { sources: 50, connections: 500 },
    }
}

#[test]
fn tightening_has_its_own_switch_and_needs_the_lack_of_an_effect_for_long() {
    let mut case = Case::throttle();
    case.decide();
    case.measured = Some(measured(4000));
    case.now_s += 900;
    assert_eq!(case.step(), Step::Keep, "without its switch");
    case.settings.tighten = Some(Tighten { after_s: 901, factor: Part::of_percent(50) });
    assert_eq!(case.step(), Step::Keep, "not yet");
    case.now_s += 1;
    case.measured = Some(measured(80));
    assert_eq!(case.step(), Step::Keep, "99 % were cut");
    case.measured = Some(measured(4000));
    let decision = case.decide();
    let standing = decision.standing.expect("it goes on");
    assert_eq!(
        (decision.step, standing.rung, standing.budgets_since_s),
        (Step::Tighten, Rung::Tightened, case.now_s)
    );
    assert_eq!(standing.action.budgets.connections.rate.to_string(), "3/min", "a quarter of 12");
    assert!(decision.says.starts_with("only 58 % were cut"), "{}", decision.says);
    case.now_s += 1800;
    assert_eq!(case.step(), Step::Keep, "once");
}

#[test]
fn slots_are_bounded_and_orders_come_first() {
    let count = u64::from(SLOTS_MAX) + 2;
    let fleets: Vec<_> = (1..=count).map(|id| fleet(id, 1 + id as u32)).collect();
    let (allowed, hinted, settings) = (Prefixes::default(), Hinted::default(), Case::throttle().settings);
    let asked: Vec<_> = fleets
        .iter()
        .map(|fleet| Asked {
            fleet,
            service: 1,
            service_name: "api",
            mode: settings.mode,
            allowed: &allowed,
            packets_of_connection: 20.0,
            measured: None,
        })
        .collect();
    let order = Order {
        id: 1,
        fleet: FleetId(1),
        wanted: Wanted::THROTTLE,
        force: false,
        by: "ann".to_owned(),
        reason: "INC-4711".to_owned(),
        at_s: NOW_S,
        until_s: NOW_S + 600,
    };
    let at = |standing: &[Standing], orders: &[Order]| {
        plan(&Situation {
            now_s: NOW_S,
            scale: Scale::MINUTE,
            settings: &settings,
            stop: None,
            fleets: &asked,
            standing,
            hinted: &hinted,
            orders,
        })
    };
    let decisions = at(&[], std::slice::from_ref(&order));
    let without: Vec<_> =
        decisions.iter().filter(|one| one.standing.is_none()).map(|one| (one.fleet.0, one.step)).collect();
    assert_eq!(without, [(2, Step::Nothing), (3, Step::Nothing)], "the smallest without an order");
    let stopped = &decisions[1].verdicts;
    assert!(stopped.iter().any(|verdict| verdict.guard == Guard::Slots && !verdict.passed));
    let standing: Vec<_> = decisions.into_iter().filter_map(|one| one.standing).collect();
    let slots: std::collections::BTreeSet<_> = standing.iter().map(|one| one.action.slot).collect();
    assert_eq!((slots.len(), slots.first(), slots.last()), (63, Some(&1), Some(&SLOTS_MAX)));
    assert!(
        at(&standing, std::slice::from_ref(&order)).iter().all(|one| one.step != Step::Throttle),
        "who has one keeps it"
    );
}

/// Anything that can be asked about one fleet.
fn any_case() -> impl Strategy<Value = Case> {
    let mode = prop_oneof![
        1 => Just(FleetMode::Off),
        1 => Just(FleetMode::Observe),
        1 => Just(FleetMode::Suggest),
        3 => Just(FleetMode::Throttle),
    ];
    let flags = proptest::array::uniform8(any::<bool>());
    (mode, flags, 0..30_u32, 0..7200_u64, 0.0..0.000_2_f64, 0..20_u32, proptest::option::of(0..2000_u64))
        .prop_map(
            |(
                mode,
                [is_uniform, is_stopped, is_ordered, force, is_left, has_keys, is_throttled, tightens],
                members,
                age_s,
                collateral,
                labelled,
                passed,
            )| {
                let mut case = Case::of(mode);
                case.fleet = fleet(3, 30);
                if is_throttled {
                    case.settings.mode = FleetMode::Throttle;
                    case.decide();
                    case.settings.mode = mode;
                }
                let kept: Vec<_> = (0..members).map(source).collect();
                case.fleet.members.retain(|source, _| kept.contains(source));
                case.change(30..35, MEMBER);
                case.fleet.last_seen_s = NOW_S.saturating_sub(age_s);
                case.fleet.collateral = collateral;
                case.fleet.explanation.is_new_uniform_population = is_uniform;
                if !has_keys {
                    case.fleet.usage.keys.clear();
                }
                case.stop = is_stopped.then(|| Stop {
                    by: "bob".to_owned(),
                    reason: "INC-1".to_owned(),
                    at_s: NOW_S,
                });
                case.allowed = prefixes(0..labelled / 4);
                case.labelled =
                    Labelled { customers: prefixes(2..labelled / 2), abuse: prefixes(0..labelled) };
                case.settings.new_members_max = 3;
                case.settings.tighten =
                    tightens.then_some(Tighten { after_s: 60, factor: Part::of_percent(50) });
                case.measured = passed.map(measured);
                case.now_s = NOW_S + age_s / 2;
                if is_ordered {
                    case.order(
                        if is_left { Wanted::Leave } else { Wanted::THROTTLE },
                        force,
                        case.now_s + 60,
                    );
                }
                case
            },
        )
}

fn assert_sound(case: &Case, before: &[Standing], decision: &Decision) {
    let wanted = case.orders.first().map(|order| (order.wanted, order.force));
    let is_ordered = wanted.is_some_and(|(wanted, _)| wanted.is_throttle());
    assert_eq!(decision.before.as_ref(), before.first());
    assert_eq!(decision.command.is_some(), decision.step == Step::Suggest);
    let is_in_force = matches!(decision.step, Step::Throttle | Step::Tighten | Step::Renew | Step::Keep);
    assert_eq!(decision.standing.is_some(), is_in_force, "{decision:?}");
    assert!(decision.step != Step::End || decision.before.is_some(), "only what is in force ends");
    let Some(standing) = &decision.standing else { return };
    let action = &standing.action;
    assert!(case.stop.is_none(), "the switch");
    assert!(is_ordered || case.settings.mode == FleetMode::Throttle, "the mode");
    assert!(!matches!(wanted, Some((Wanted::Leave, _))), "who is left alone");
    let force = is_ordered && wanted.is_some_and(|(_, force)| force);
    assert!(force || !case.fleet.explanation.is_new_uniform_population, "a uniform population");
    assert!(force || case.fleet.collateral <= case.settings.collateral_max.of(), "collateral");
    assert!(action.until_s > case.now_s && action.until_s <= case.now_s + 3600 + RENEWAL_GRACE_S, "an end");
    assert!(action.members.is_sorted_by(|one, next| one < next), "each once and in order");
    for member in &action.members {
        assert!(!case.allowed.touch(*member) && !case.labelled.customers.touch(*member), "{member}");
        assert!(
            case.fleet.members.contains_key(member)
                || case.fleet.suspects.iter().any(|suspect| suspect.source == *member)
        );
    }
    assert!((1..=SLOTS_MAX).contains(&action.slot) && action.enforced_percent == 95);
    assert!(!action.members.is_empty() || !action.keys.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is asked, what is in force is what may be; the same question has the same answer; and a plan that was carried out has nothing new.
    #[test]
    fn plans_are_sound_and_come_to_rest(mut case in any_case()) {
        let before = case.standing.clone();
        let decision = case.decide();
        assert_sound(&case, &before, &decision);
        let after = std::mem::replace(&mut case.standing, before.clone());
        prop_assert_eq!(&case.decide(), &decision, "it is a function");
        prop_assert_eq!(&case.standing, &after);
        let again = case.decide();
        prop_assert_eq!(&again.standing, &decision.standing, "nothing new: {:?}", again);
        prop_assert!(again.audit(&case.orders, case.scale).is_none());
        prop_assert!(matches!(again.step, Step::Nothing | Step::Suggest | Step::Keep), "{:?}", again.step);
    }
}

#[test]
fn settings_default_is_what_is_documented() {
    let settings = FleetSettings::default();
    assert_eq!(
        (settings.hold_out_percent, settings.for_s, settings.collateral_max.to_string()),
        (5, 3600, "0.01 %".to_owned())
    );
}
