//! Clients of random fingerprints under random rules about them: the program against what [`crate::client_rules`] says.

use std::collections::BTreeMap;

use detector_common::{
    frame::SliceFrame,
    packet,
    verdict::{Reason, Verdict},
};

use detector_tests::{
    random::Random,
    rows::{Rig, SECOND, START_NS},
};

use detector_user::{
    kernel::{client_rules, incidents::change},
    policy::{
        self, Action, Budgets, Matches, Policy, Profile, Rate, Rule,
        compile::Manifest,
        incident::{Incident, IncidentAction},
        patterns::Patterns,
    },
};

use crate::{
    assert_covered,
    client_rules::{Client, Handshakes},
    clients::{Connection, Fingerprints, Moment},
    description,
    incidents::{self},
    is_drop,
    model::{Expected, Model, source_key},
    policies,
};

const POLICIES: usize = 120;
const PACKETS_PER_POLICY: usize = 400;

/// Connections that are open at a time.
const CONNECTIONS: usize = 6;

/// Reasons that are given to packets of handshakes alone.
pub(crate) const REASONS: [Reason; 3] = [Reason::Fingerprint, Reason::FingerprintBudget, Reason::Handshakes];

#[test]
fn the_program_and_the_host_agree_on_every_packet_of_clients() {
    let mut random = Random::announced(11);
    let mut seen = BTreeMap::new();
    let mut of_incidents = BTreeMap::new();
    for number in 0..POLICIES {
        let mut rig = Rig::bare();
        let fingerprints = Fingerprints::seen_by(&mut rig);
        // Numbers as in the first policy of a program.
        rig.bench_mut().manifest = Manifest::default();
        let policy = random_policy(&mut random, &fingerprints);
        rig.apply_policy(&policy);
        let added = random_incidents(&mut random, &policy, &fingerprints);
        let clocks = rig.bench().clocks();
        change(&mut rig.bench_mut().loaded.maps, clocks, added.clone(), |_| false).expect("they fit");
        let incidents = incidents::of_model(&added, &policy);
        let seed = rig.bench().loaded.maps.settings.read(0).seed;
        let mut model = Model::new(&policy, &incidents, seed);
        let mut handshakes = Handshakes::new(&policy, &incidents);
        let mut connections = Vec::new();
        let mut port = 1024;
        for packet_number in 0..PACKETS_PER_POLICY {
            advance(&mut rig, &mut random);
            while connections.len() < CONNECTIONS {
                connections.push(Connection::random(&mut random, &fingerprints, port));
                port += 1;
            }
            let chosen = random.index(connections.len());
            let connection = &mut connections[chosen];
            let (frame, moment) = connection.packet(&fingerprints);
            let packet = packet::parse(&SliceFrame(&frame)).expect("a whole packet").packet;
            let host = match model.service(&packet) {
                None => Expected::unjudged(Reason::NoService),
                Some(service) => {
                    let now = rig.now();
                    let judged = model.judge(&packet, service, frame.len() as u32, now);
                    // A source that has no entry is not followed.
                    let moment = moment.filter(|_| !judged.dropped() && judged.reason != Reason::NewSources);
                    match moment {
                        None => judged,
                        Some(moment) => {
                            let standing = model.standing_with_incidents(&packet, service, now);
                            let client = Client {
                                ja4s: &fingerprints.ja4s[connection.hello],
                                syn: connection.syn_name(&fingerprints),
                                service: &policy.services[service],
                                moment,
                                is_charged: connection.is_charged,
                                hash: model.hash(&packet, service),
                                source: source_key(&packet, service),
                            };
                            if moment == Moment::Part && handshakes.may_allow() {
                                judged
                            } else {
                                let admitted = handshakes.admit(&client, &standing, judged, now);
                                connection.is_charged |= moment == Moment::Part && !admitted.dropped();
                                admitted
                            }
                        }
                    }
                }
            };
            let judged = rig.send(&frame);
            let place = || {
                format!(
                    "packet {packet_number} under policy {number}: {moment:?} of {connection:?}\n{host:?}\n{policy:#?}\n{added:#?}"
                )
            };
            assert_eq!(judged.reason(), host.reason, "reason of {}", place());
            assert_eq!(judged.verdict == Verdict::Drop, host.dropped(), "verdict of {}", place());
            let shadow = host.shadow && !host.dropped() && is_drop(host.reason);
            assert_eq!(judged.trace.shadow == 1, shadow, "{}", place());
            if let Some(class) = &host.class {
                assert_eq!(description(&rig, judged.trace.class), *class, "class of {}", place());
                if REASONS.contains(&host.reason) && class.contains("rule incident") {
                    *of_incidents.entry(host.reason).or_insert(0) += 1;
                }
            }
            let is_unfollowed = moment == Some(Moment::Syn) && host.reason == Reason::NewSources;
            let goes_on = connection.goes_on(&mut random, &fingerprints, !host.dropped());
            if !goes_on || is_unfollowed {
                connections.swap_remove(chosen);
            }
            *seen.entry((host.reason, host.shadow)).or_insert(0) += 1;
        }
        for full in ["client_budgets_full", "flows_full"] {
            assert_eq!(rig.counter(full), 0, "{full}: there is room in this test");
        }
    }
    assert_covered(&seen, REASONS.iter().chain(&[Reason::Conforming, Reason::Allowed, Reason::Unlimited]));
    for reason in REASONS {
        let times = of_incidents.get(&reason).copied().unwrap_or(0);
        assert!(times > 20, "incident rules gave {reason:?} {times} times: {of_incidents:?}");
    }
}

/// Time goes on; in each new second the daemon looks which rules have ended.
fn advance(rig: &mut Rig, random: &mut Random) {
    let before = rig.now_ns() / SECOND;
    let step_ns = if random.once_in(12) { 150_000_000 } else { [0, 20_000, 10_000_000][random.index(3)] };
    rig.advance(random.below(step_ns + 1));
    if rig.now_ns() / SECOND != before {
        client_rules::refresh(&mut rig.bench_mut().loaded.maps).expect("the maps can be written");
    }
}

/// A policy with rules about fingerprints among the others, and budgets of handshakes.
fn random_policy(random: &mut Random, fingerprints: &Fingerprints) -> Policy {
    let mut policy = policies::random(random);
    for profile in policy.profiles.values_mut() {
        // Most clients come as far as their ClientHello.
        if !random.once_in(4) {
            *profile = Profile::default();
        }
        profile.budgets.handshakes = (!random.once_in(4)).then(|| budget(random));
    }
    for number in 0..2 {
        let (handshakes, connections) = (Some(budget(random)), Some(budget(random)));
        let budgets = Budgets { handshakes, connections, ..Budgets::default() };
        policy.profiles.insert(format!("library-{number}"), Profile { budgets, ..Profile::default() });
    }
    for number in 0..random.below(7) {
        let library = |random: &mut Random| format!("library-{}", random.below(2));
        let rule = Rule {
            name: format!("client-rule-{number}"),
            service: random.once_in(3).then(|| random.pick(&policy.services).name.clone()),
            matches: Matches::Fingerprints(patterns(random, fingerprints)),
            action: match random.below(6) {
                0 => Action::Allow,
                1 | 2 => Action::Drop,
                3 => Action::Limit(library(random)),
                _ => Action::LimitShared(library(random)),
            },
            mode: random.once_in(3).then(|| policies::mode(random)),
            until_s: random.once_in(4).then(|| START_NS / SECOND + random.below(4)),
            reason: None,
        };
        policy.rules.insert(random.index(policy.rules.len() + 1), rule);
    }
    policy
}

/// A budget that a client or two spend.
fn budget(random: &mut Random) -> policy::Budget {
    policy::Budget { rate: Rate { count: 1 + random.below(3), per_ns: SECOND }, burst: 1 + random.below(3) }
}

/// Incident rules about sources and about fingerprints; often none.
fn random_incidents(random: &mut Random, policy: &Policy, fingerprints: &Fingerprints) -> Vec<Incident> {
    let mut rules = incidents::random(random, policy);
    rules.truncate(2);
    for rule in &mut rules {
        if let IncidentAction::Throttle(budgets) = &mut rule.action {
            *budgets = Budgets { handshakes: Some(budget(random)), ..Budgets::default() };
        }
    }
    let count = if random.once_in(3) { 0 } else { random.below(4) };
    for _ in 0..count {
        let patterns = patterns(random, fingerprints);
        let budget = Some(budget(random));
        let budgets = match patterns.ja4.is_empty() {
            true => Budgets { connections: budget, ..Budgets::default() },
            false => Budgets { handshakes: budget, ..Budgets::default() },
        };
        let rule = Incident {
            id: 0,
            action: match random.below(5) {
                0 => IncidentAction::Allow,
                1 => IncidentAction::Block,
                2 => IncidentAction::Throttle(budgets),
                _ => IncidentAction::ThrottleShared(budgets),
            },
            matches: Matches::Fingerprints(patterns),
            service: random.once_in(3).then(|| random.pick(&policy.services).name.clone()),
            until_s: random.once_in(3).then(|| START_NS / SECOND + 1 + random.below(3)),
            reason: "at random".to_owned(),
            by: "nobody".to_owned(),
            at_s: 0,
            counter: 0,
        };
        rules.insert(random.index(rules.len() + 1), rule);
    }
    rules
}

/// Patterns of some of the fingerprints that there are.
fn patterns(random: &mut Random, fingerprints: &Fingerprints) -> Patterns {
    let kinds = random.below(3);
    let count = |random: &mut Random, is_named: bool| if is_named { 1 + random.below(2) } else { 0 };
    let ja4s = count(random, kinds != 0);
    let syns = count(random, kinds != 1);
    Patterns {
        ja4: (0..ja4s).map(|_| pattern(random, &fingerprints.ja4s, '_')).collect(),
        syn: (0..syns).map(|_| pattern(random, &fingerprints.syns, ':')).collect(),
    }
}

/// A pattern of one of these names, some of whose parts, or their ends, may be anything.
fn pattern<P: std::str::FromStr<Err = String>>(
    random: &mut Random,
    names: &[[String; 2]],
    separator: char,
) -> P {
    let [one, other] = random.pick(names);
    let name = if random.once_in(2) { one } else { other };
    let parts: Vec<_> = name.split(separator).collect();
    let kept = random.index(parts.len());
    let part = |(place, part): (usize, &&str)| match random.below(3) {
        0 if place != kept => "*".to_owned(),
        1 if separator == '_' => format!("{}*", &part[..1 + random.index(part.len())]),
        _ => (*part).to_owned(),
    };
    let parts: Vec<_> = parts.iter().enumerate().map(part).collect();
    let text = parts.join(&separator.to_string());
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
