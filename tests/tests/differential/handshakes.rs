//! What rules about fingerprints and budgets of handshakes say of clients, as `docs/policy.md` says it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use detector_common::{
    budget::{Budget, take, ticks},
    frame::SliceFrame,
    packet,
    policy::is_enforced,
    verdict::{Reason, Verdict},
};
use detector_tests::{
    random::Random,
    rows::{Rig, SECOND, START_NS},
};
use detector_user::{
    kernel::{client_rules, incidents::change},
    policy::{
        self, Action, Budgets, Matches, Policy, Profile, Rate, Rule, Service,
        compile::Manifest,
        incident::{Incident, IncidentAction},
        patterns::Patterns,
    },
};

use crate::{
    assert_covered,
    clients::{Connection, Fingerprints, Moment},
    description,
    incidents::{self, IncidentRule},
    is_drop,
    model::{self, Expected, Key, Model, source_key},
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
        let mut handshakes = Handshakes { policy: &policy, incidents: &incidents, spent: HashMap::new() };
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
                                hash: model.hash(&packet, service),
                                source: source_key(&packet, service),
                            };
                            handshakes.admit(&client, &standing, judged, now)
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

/// Whether a JA4 is one of a pattern.
fn is_ja4_of(pattern: &str, ja4: &str) -> bool {
    let part_is_of = |(pattern, part): (&str, &str)| match pattern.strip_suffix('*') {
        Some(start) => part.starts_with(start),
        None => pattern == part,
    };
    pattern.split('_').zip(ja4.split('_')).all(part_is_of)
}

/// Whether a SYN is one of a pattern. Window and scale, which have a comma between them, may each be anything.
fn is_syn_of(pattern: &str, syn: &str) -> bool {
    let field_is_of = |(pattern, field): (&str, &str)| match (pattern.split_once(','), field.split_once(','))
    {
        (Some(("*", pattern)), Some((_, field))) | (Some((pattern, "*")), Some((field, _))) => {
            pattern == "*" || pattern == field
        }
        _ => pattern == "*" || pattern == field,
    };
    pattern.split(':').zip(syn.split(':')).all(field_is_of)
}

/// Who asks for what.
struct Client<'a> {
    /// The full JA4 and the stable one.
    ja4s: &'a [String; 2],
    syn: &'a str,
    service: &'a Service,
    moment: Moment,
    /// Of the source.
    hash: u64,
    source: Key<'static>,
}

/// Whose budget is charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Payer {
    /// A source, at a service.
    Source(Key<'static>),
    /// A source under a rule.
    SourceUnder(Key<'static>, String),
    /// All clients of a rule.
    All(String),
}

/// Budgets of handshakes and of rules about fingerprints, and what was spent of them.
struct Handshakes<'a> {
    policy: &'a Policy,
    incidents: &'a [IncidentRule],
    spent: HashMap<Payer, u64>,
}

/// A rule about fingerprints, of the policy or of a responder.
struct Said<'a> {
    name: String,
    patterns: &'a Patterns,
    action: u8,
    /// Of a limit, and whether all clients have it together.
    budgets: Option<(&'a Budgets, bool)>,
    profile: &'a str,
    enforced_percent: u8,
}

/// Which of the two kinds a rule names: it comes before all that have a smaller number.
fn kinds(patterns: &Patterns) -> u8 {
    match (patterns.ja4.is_empty(), patterns.syn.is_empty()) {
        (false, false) => 2,
        (false, true) => 1,
        _ => 0,
    }
}

/// Characters that are not `*`, where of several patterns of a kind the one with the fewest counts.
fn literals(patterns: &Patterns) -> usize {
    fn fewest(patterns: &[impl ToString]) -> usize {
        let literals = |pattern: &_| ToString::to_string(pattern).chars().filter(|&one| one != '*').count();
        patterns.iter().map(literals).min().unwrap_or(0)
    }
    fewest(&patterns.ja4) + fewest(&patterns.syn)
}

impl Client<'_> {
    /// Whether a rule is about it: at a SYN none that names JA4s is.
    fn is_meant(&self, patterns: &Patterns, service: Option<&String>) -> bool {
        let has_ja4 = |pattern: &_| {
            let pattern = ToString::to_string(pattern);
            self.ja4s.iter().any(|ja4| is_ja4_of(&pattern, ja4))
        };
        let has_ja4 =
            patterns.ja4.is_empty() || self.moment == Moment::ClientHello && patterns.ja4.iter().any(has_ja4);
        let has_syn = |pattern: &_| is_syn_of(&ToString::to_string(pattern), self.syn);
        let has_syn = patterns.syn.is_empty() || patterns.syn.iter().any(has_syn);
        service.is_none_or(|name| *name == self.service.name) && has_ja4 && has_syn
    }

    /// Whether a rule says something now: one about SYNs has said at the SYN what it limits or drops.
    fn is_told(&self, said: &Said<'_>) -> bool {
        self.moment == Moment::Syn || kinds(said.patterns) > 0 || said.action == model::ALLOW
    }
}

impl<'a> Handshakes<'a> {
    /// The rule that decides about a client, whose source stands so: one of a responder, then one of the policy. Sources that
    /// are allowed are exempt from what comes after the rule that allows them.
    fn rule_about(&self, client: &Client<'_>, standing: &model::Standing<'_>, now: u64) -> Option<Said<'a>> {
        let is_allowed = standing.action == model::ALLOW;
        match &standing.rule {
            None if is_allowed => return None,
            Some(rule) if is_allowed && rule.starts_with("incident ") => return None,
            _ => {}
        }
        if let Some(said) = self.of_incidents(client, now).filter(|said| client.is_told(said)) {
            return Some(said);
        }
        if is_allowed { None } else { self.of_policy(client, now).filter(|said| client.is_told(said)) }
    }

    /// The narrowest, then the last.
    fn of_incidents(&self, client: &Client<'_>, now: u64) -> Option<Said<'a>> {
        let candidate = |(index, rule): (usize, &'a IncidentRule)| {
            let Incident { matches, service, until_s, action, .. } = &rule.incident;
            let patterns =
                matches.patterns().filter(|patterns| client.is_meant(patterns, service.as_ref()))?;
            let said = Said {
                name: format!("incident {}", index + 1),
                patterns,
                action: match action {
                    IncidentAction::Allow => model::ALLOW,
                    IncidentAction::Block => model::DENY,
                    IncidentAction::Throttle(_) | IncidentAction::ThrottleShared(_) => model::LIMIT,
                },
                budgets: action.budgets().map(|budgets| (budgets, action.is_shared())),
                profile: "-",
                enforced_percent: 100,
            };
            let order = (kinds(patterns), literals(patterns), index);
            (!has_ended(*until_s, now)).then_some((order, said))
        };
        let rules = self.incidents.iter().enumerate().filter_map(candidate);
        rules.max_by_key(|(order, _)| *order).map(|(_, said)| said)
    }

    /// The narrowest, then allow, drop, limit, then the first.
    fn of_policy(&self, client: &Client<'_>, now: u64) -> Option<Said<'a>> {
        let candidate = |(index, rule): (usize, &'a Rule)| {
            let patterns = rule.matches.patterns();
            let patterns = patterns.filter(|patterns| client.is_meant(patterns, rule.service.as_ref()))?;
            let (rank, action, profile, is_shared) = match &rule.action {
                Action::Allow => (0, model::ALLOW, "-", false),
                Action::Drop => (1, model::DENY, "-", false),
                Action::Limit(profile) => (2, model::LIMIT, profile.as_str(), false),
                Action::LimitShared(profile) => (2, model::LIMIT, profile.as_str(), true),
            };
            let said = Said {
                name: rule.name.clone(),
                patterns,
                action,
                budgets: self.policy.profiles.get(profile).map(|profile| (&profile.budgets, is_shared)),
                profile,
                enforced_percent: rule.mode.unwrap_or(self.policy.mode).enforced_percent(),
            };
            let order = (Reverse((kinds(patterns), literals(patterns))), rank, index);
            (!has_ended(rule.until_s, now)).then_some((order, said))
        };
        let rules = self.policy.rules.iter().enumerate().filter_map(candidate);
        rules.min_by_key(|(order, _)| *order).map(|(_, said)| said)
    }

    /// What becomes of a packet that passes so far: it is charged to the budgets of the rule and of its source, or to none.
    fn admit(
        &mut self,
        client: &Client<'_>,
        standing: &model::Standing<'_>,
        mut judged: Expected,
        now: u64,
    ) -> Expected {
        let rule = self.rule_about(client, standing, now);
        let mut of_rule = None;
        if let Some(said) = &rule {
            let is_shadow = !is_enforced(client.hash, said.enforced_percent);
            let refusal = |reason: Reason| Refusal {
                reason,
                is_shadow,
                class: format!(
                    "action {} rule {} profile {} enforced {}",
                    said.action, said.name, said.profile, said.enforced_percent
                ),
            };
            match said.action {
                model::ALLOW => return judged,
                model::DENY => {
                    if refusal(Reason::Fingerprint).is_final(&mut judged) {
                        return judged;
                    }
                }
                _ => {
                    let (budgets, is_shared) = said.budgets.expect("a limit has budgets");
                    let of_syn = kinds(said.patterns) == 0;
                    let budget = if of_syn { budgets.connections } else { budgets.handshakes };
                    let name = said.name.clone();
                    let payer =
                        if is_shared { Payer::All(name) } else { Payer::SourceUnder(client.source, name) };
                    let budget = budget.expect("a limit has the budget of its moment");
                    match self.ask(&payer, budget, now) {
                        Some(state) => of_rule = Some((payer, state)),
                        None => {
                            if refusal(Reason::FingerprintBudget).is_final(&mut judged) {
                                return judged;
                            }
                        }
                    }
                }
            }
        }
        let own = match standing.profile {
            Some((_, profile)) if client.moment == Moment::ClientHello => profile.budgets.handshakes,
            _ => None,
        };
        if let Some(budget) = own {
            let payer = Payer::Source(client.source);
            match self.ask(&payer, budget, now) {
                Some(state) => drop(self.spent.insert(payer, state)),
                None => {
                    let is_shadow = !is_enforced(client.hash, standing.mode.enforced_percent());
                    let refusal =
                        Refusal { reason: Reason::Handshakes, is_shadow, class: standing.description() };
                    if refusal.is_final(&mut judged) {
                        return judged;
                    }
                }
            }
        }
        if let Some((payer, state)) = of_rule {
            self.spent.insert(payer, state);
        }
        judged
    }

    /// What is spent of a budget once one more is; `None`: it does not suffice.
    fn ask(&self, payer: &Payer, budget: policy::Budget, now: u64) -> Option<u64> {
        let budget = Budget::of_units(budget.rate.count, budget.rate.per_ns, budget.burst, 0);
        take(self.spent.get(payer).copied().unwrap_or(0), now, budget.unit_cost(), budget.burst_ticks).ok()
    }
}

fn has_ended(until_s: Option<u64>, now: u64) -> bool {
    until_s.is_some_and(|until_s| ticks(until_s * SECOND) <= now)
}

/// Why a packet may not go on.
struct Refusal {
    reason: Reason,
    is_shadow: bool,
    class: String,
}

impl Refusal {
    /// Makes it what is said of the packet; whether it is dropped. In shadow it gives way to what was said before.
    fn is_final(&self, judged: &mut Expected) -> bool {
        if !self.is_shadow || !is_drop(judged.reason) {
            judged.reason = self.reason;
            judged.shadow = self.is_shadow;
            judged.class = Some(self.class.clone());
        }
        !self.is_shadow
    }
}
