//! Why something is taken for a fleet, in sentences with numbers, and what innocent thing it could be.

use serde::{Deserialize, Serialize};

use crate::{
    alarm::{FAMILY_MIN, Finding},
    cells::{Cell, Common, Way},
    evidence::Evidence,
    family::Family,
    limits::SIZE_BINS,
    span::Span,
    traits::Traits,
};

/// Responses below which a population may be of devices that ask whether there is something new, bytes.
pub const SMALL_RESPONSE_BYTES: u32 = 512;

/// Members in the /24 or /48 of a member, itself among them, from which on they are taken for servers and not for homes.
pub const NEIGHBOURS_MIN: u32 = 4;

/// The share of sources that keep to a minute of the hour from which on they are taken for scripts on a schedule. Who wants not to be seen does
/// not come all at once.
pub const SYNCHRONY_MIN: f64 = 0.6;

/// Evidence of what sources do, as a log factor of homogeneity and size together, from which on those behind proxies are no people who moved behind a
/// relay: as much as two families have in an alarm at least. The relay explains that there are proxies, which is the second family of most such alarms.
const RELAY_BEHAVIOUR_MIN: f64 = 2.0 * FAMILY_MIN;

/// What a family says of a fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Which; `None`: novelty, which opens the gate and never counts as one of the two that an alarm needs.
    pub family: Option<Family>,
    /// What was observed: a share of sources, of novelty a number of them.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
    /// How much likelier it is of a fleet than of users.
    pub e_value: f64,
    /// The same for people.
    pub sentence: String,
}

/// What is innocent and looks like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Innocent {
    /// Devices or an app that were launched: uniform, new, and straight from where they are.
    Launch,
    /// Scripts that run on many servers at the same minute.
    Schedule,
    /// A release of a browser or an SDK: a new key, and people behind it as before.
    Release,
    /// A privacy relay or a VPN that people move behind: a gap, and people behind it as before.
    Relay,
    /// A flash crowd or a fail-over: many that are new, as users are.
    Crowd,
}

impl Innocent {
    /// What it is, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launch => "devices or an app that were launched",
            Self::Schedule => "scripts that run at the same minute of the hour on many servers",
            Self::Release => "the release of a browser or an SDK",
            Self::Relay => "people who moved behind a privacy relay or a VPN",
            Self::Crowd => "a flash crowd or a fail-over",
        }
    }
}

/// Why something is taken for a fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The cell with the most evidence.
    pub cell: Cell,
    /// What each family says of it, after novelty.
    pub evidence: Vec<Statement>,
    /// The innocent explanation that was nearest: the one that the least speaks against.
    pub nearest: Innocent,
    /// Why it was rejected, or that it was not.
    pub why: String,
    /// A new population, with nothing that tells it from devices or an app that were launched, from scripts on a schedule or from people who moved
    /// behind a relay: to be shown, and not acted on unless an operator insists.
    pub is_new_uniform_population: bool,
}

impl Explanation {
    /// Of the cells with an alarm that a fleet was found by, and of its members; `synchrony`: how much of what is too many in those cells keeps to
    /// a minute of the hour. `None`: there is no such cell.
    pub fn of(alarms: &[&Finding], traits: Option<&Traits>, synchrony: f64) -> Option<Self> {
        // The first among equals.
        let strongest = alarms.iter().rev().max_by(|one, other| one.total().total_cmp(&other.total()))?;
        // An alarm tells of those of its members that are behind proxies; where most are not, it does not tell of the fleet.
        let is_proxied = traits.is_none_or(Traits::is_proxied);
        let has_path = is_proxied && alarms.iter().any(|alarm| has_path_evidence(alarm, alarms));
        // Whoever is beside scripts among the members may hide that they are scripts, but not in what the alarm is about.
        let is_scheduled = synchrony.max(traits.map_or(0.0, |traits| traits.synchrony)) >= SYNCHRONY_MIN;
        let is_launched = !has_path && traits.is_none_or(looks_launched);
        // Nor does one that is not about proxies tell what those behind one do: devices that are launched among people who moved behind a relay
        // would prove each other to be a fleet.
        let of_path = alarms.iter().filter(|alarm| has_path_evidence(alarm, alarms));
        let has_moved =
            has_path && of_path.copied().all(|alarm| behaviour_factor(alarm) < RELAY_BEHAVIOUR_MIN);
        let likely = [
            (is_scheduled, Innocent::Schedule),
            (is_launched, Innocent::Launch),
            (has_moved, Innocent::Relay),
        ];
        let likely = likely.into_iter().find_map(|(is_it, innocent)| is_it.then_some(innocent));
        let (nearest, why) = match likely {
            Some(innocent) => (innocent, not_rejected(innocent).to_owned()),
            None => nearest(strongest, has_path, traits),
        };
        let families = strongest.evidence.iter().map(|evidence| Statement {
            family: Some(evidence.family),
            observed: evidence.observed,
            expected: evidence.expected,
            e_value: evidence.log_factor.exp(),
            sentence: sentence(evidence, strongest.sources),
        });
        let novelty = Statement {
            family: None,
            observed: strongest.sources.into(),
            expected: strongest.expected_sources,
            e_value: strongest.novelty().exp(),
            sentence: format!(
                "{} new sources came where {} were expected.",
                grouped(strongest.sources.into()),
                grouped(strongest.expected_sources.round() as u64)
            ),
        };
        Some(Self {
            cell: strongest.cell,
            evidence: std::iter::once(novelty).chain(families).collect(),
            nearest,
            why,
            is_new_uniform_population: likely.is_some(),
        })
    }

    /// Whether nothing tells it from people who moved behind a relay.
    pub(crate) fn is_relay(&self) -> bool {
        self.is_new_uniform_population && self.nearest == Innocent::Relay
    }
}

/// Whether an alarm tells of proxies: its family says so, or the cell is of those behind one, and most of what is too many does not come straight: of
/// any devices a few have a proxy's gap.
fn has_path_evidence(alarm: &Finding, alarms: &[&Finding]) -> bool {
    let too_many = |alarm: &Finding| f64::from(alarm.sources) - alarm.expected_sources;
    let straight = match alarm.cell.common {
        Common::TlsAndPath(tls_key, _) => Common::TlsAndPath(tls_key, Way::Straight),
        _ => Common::Way(Way::Straight),
    };
    let is_most = |other: &&Finding| other.cell.common == straight && too_many(other) > too_many(alarm);
    log_factor(alarm, Family::Path) >= FAMILY_MIN
        || alarm.cell.common.is_proxied() && !alarms.iter().any(is_most)
}

/// What homogeneity and size say together.
fn behaviour_factor(alarm: &Finding) -> f64 {
    log_factor(alarm, Family::Homogeneity) + log_factor(alarm, Family::Size)
}

fn log_factor(alarm: &Finding, family: Family) -> f64 {
    alarm
        .evidence
        .iter()
        .find(|evidence| evidence.family == family)
        .map_or(0.0, |evidence| evidence.log_factor)
}

/// Whether nothing tells members from devices or an app that were launched, if no path does: they come straight from homes, which are
/// scattered while servers are neighbours, or get small answers.
fn looks_launched(traits: &Traits) -> bool {
    let is_direct = !traits.is_proxied();
    let is_small = traits.response_bytes.is_none_or(|bytes| bytes < SMALL_RESPONSE_BYTES);
    is_direct && traits.neighbours < NEIGHBOURS_MIN || is_small
}

/// Why an innocent explanation stands.
const fn not_rejected(innocent: Innocent) -> &'static str {
    match innocent {
        Innocent::Schedule => "not rejected: most of the sources come at the same minute of the hour",
        Innocent::Launch => {
            "not rejected: no handshake tells of a proxy, and the sources are scattered as homes are or get small answers"
        }
        Innocent::Relay | Innocent::Release | Innocent::Crowd => {
            "not rejected: beside the proxy nothing is unlikely enough of people"
        }
    }
}

/// The innocent explanation that the least speaks against, and what does.
fn nearest(strongest: &Finding, has_path: bool, traits: Option<&Traits>) -> (Innocent, String) {
    let behaviour = [Family::Homogeneity, Family::Size].map(|family| log_factor(strongest, family));
    let against_users = behaviour_factor(strongest);
    let against_launch =
        if has_path { log_factor(strongest, Family::Path).max(FAMILY_MIN) } else { FAMILY_MIN };
    let moved = if has_path { Innocent::Relay } else { Innocent::Release };
    let against = [
        (Innocent::Launch, against_launch),
        (moved, against_users),
        (Innocent::Crowd, against_users + strongest.novelty()),
    ];
    let nearest =
        against.into_iter().min_by(|one, other| one.1.total_cmp(&other.1)).map_or(moved, |(of, _)| of);
    let why = match nearest {
        Innocent::Launch if has_path => {
            "rejected: they come through proxies, and devices and apps come straight from where they are"
                .to_owned()
        }
        Innocent::Launch => format!(
            "rejected: half of the members or more share their /24 or /48 with {} others, and homes are scattered",
            traits.map_or(0, |traits| traits.neighbours.saturating_sub(1))
        ),
        Innocent::Schedule | Innocent::Release | Innocent::Relay | Innocent::Crowd => {
            let family = if behaviour[0] >= behaviour[1] { Family::Homogeneity } else { Family::Size };
            let odds = grouped(log_factor(strongest, family).exp().round() as u64);
            format!(
                "rejected: people would do as they did before, and the {} of these sources is {odds} times likelier of a fleet",
                family.name()
            )
        }
    };
    (nearest, why)
}

fn sentence(evidence: &Evidence, sources: u32) -> String {
    let Evidence { family, span, observed, expected, .. } = *evidence;
    let of = grouped((f64::from(sources) * observed).round() as u64);
    let all = grouped(sources.into());
    let [observed, expected] = [observed, expected].map(|share| format!("{:.0} %", share * 100.0));
    match family {
        Family::Homogeneity => {
            format!("{of} of {all} new sources ({observed}) made {}; {expected} did before.", behaviour(span))
        }
        Family::Path => {
            format!(
                "{observed} of the new sources whose handshakes were timed have a proxy's gap; {expected} had one before."
            )
        }
        Family::Size => {
            format!(
                "{observed} of the new sources whose sizes are known have {}; {expected} had before.",
                sizes(span)
            )
        }
    }
}

/// What sources in a span of [`Family::Homogeneity`] did.
fn behaviour(span: Span) -> String {
    const VOLUMES: [(u32, u32); 7] = [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, u32::MAX)];
    const LIVES: [u32; 6] = [0, 1, 5, 30, 120, u32::MAX];
    let [row, column] = span.first.map(usize::from);
    let [rows, columns] = span.sides.map(usize::from);
    let connections = match (VOLUMES[row].0, VOLUMES[row + rows - 1].1) {
        (1, 1) => "1 connection".to_owned(),
        (least, u32::MAX) => format!("{least} connections or more"),
        (least, most) if least == most => format!("{least} connections"),
        (least, most) => format!("{least} to {most} connections"),
    };
    match (LIVES[column], LIVES[column + columns]) {
        (0, u32::MAX) => connections,
        (0, 1) => format!("{connections} within a minute"),
        (0, most) => format!("{connections} within {most} minutes"),
        (least, u32::MAX) => format!("{connections} over {least} minutes or more"),
        (least, most) => format!("{connections} over {least} to {most} minutes"),
    }
}

/// What sizes are in a span of [`Family::Size`].
fn sizes(span: Span) -> String {
    let of = |side: usize| {
        let (first, bins) = (u32::from(span.first[side]), u32::from(span.sides[side]));
        let least = (first > 0).then(|| grouped(64 << first));
        let most = (first + bins < SIZE_BINS as u32).then(|| grouped((64 << (first + bins)) - 1));
        match (least, most) {
            (Some(least), Some(most)) => format!("{least} to {most} bytes"),
            (Some(least), None) => format!("{least} bytes or more"),
            (None, Some(most)) => format!("{most} bytes or less"),
            (None, None) => "any size".to_owned(),
        }
    };
    format!("requests of {} and responses of {}", of(0), of(1))
}

/// A number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observation::ServiceId, traits::tests::traits};

    /// A category of ways with a proxy.
    const PROXIED: u8 = 37;

    fn alarm(common: Common, homogeneity: f64, path: f64, size: f64) -> Finding {
        let of = |family, log_factor| Evidence {
            family,
            log_factor,
            span: if family == Family::Path { Span::PROXIED } else { Span { first: [3, 2], sides: [2, 1] } },
            observed: 0.96,
            expected: 0.09,
        };
        Finding {
            cell: Cell { service: ServiceId(0), common },
            sources: 24_880,
            expected_sources: 1200.4,
            z: 12.0,
            evidence: vec![
                of(Family::Homogeneity, homogeneity),
                of(Family::Path, path),
                of(Family::Size, size),
            ],
        }
    }

    #[test]
    fn every_family_has_its_sentence() {
        let explanation =
            Explanation::of(&[&alarm(Common::Tls(1), 9.0, 12.0, 7.0)], Some(&traits(1, true, 7, 0)), 0.0);
        let explanation = explanation.expect("there is an alarm");
        let told: Vec<_> = explanation.evidence.iter().map(|one| one.sentence.as_str()).collect();
        assert_eq!(
            told,
            [
                "24,880 new sources came where 1,200 were expected.",
                "23,885 of 24,880 new sources (96 %) made 5 to 16 connections over 5 to 30 minutes; 9 % did before.",
                "96 % of the new sources whose handshakes were timed have a proxy's gap; 9 % had one before.",
                "96 % of the new sources whose sizes are known have requests of 512 to 2,047 bytes and responses of 256 to 511 bytes; 9 % had before.",
            ]
        );
        assert!((explanation.evidence[2].e_value - 12_f64.exp()).abs() < 1e-6);
        assert_eq!(Explanation::of(&[], None, 0.0), None);
    }

    #[test]
    fn spans_have_words() {
        let of = |first, sides| Span { first, sides };
        assert_eq!(behaviour(of([0, 0], [1, 1])), "1 connection within a minute");
        assert_eq!(behaviour(of([5, 3], [2, 2])), "17 connections or more over 30 minutes or more");
        assert_eq!(behaviour(of([1, 0], [1, 3])), "2 connections within 30 minutes");
        assert_eq!(
            sizes(of([0, 14], [1, 2])),
            "requests of 127 bytes or less and responses of 1,048,576 bytes or more"
        );
    }

    #[test]
    fn what_may_have_been_launched_is_told_as_that() {
        let is_uniform = |alarm: &Finding, traits: &Traits| {
            let explanation = Explanation::of(&[alarm], Some(traits), 0.0).expect("there is an alarm");
            assert_eq!(explanation.is_new_uniform_population, explanation.why.starts_with("not rejected"));
            explanation.is_new_uniform_population
        };
        let without_path = alarm(Common::Tls(1), 15.0, -4.0, 15.0);
        assert!(is_uniform(&without_path, &traits(256, false, 7, 0)), "straight from homes");
        assert!(is_uniform(&without_path, &traits(1, false, 2, 0)), "servers with small answers");
        assert!(!is_uniform(&without_path, &traits(1, false, 7, 0)), "servers");
        let mut cron = traits(1, false, 7, 0);
        cron.synchrony = 0.7;
        assert!(is_uniform(&without_path, &cron), "servers at each full hour");
        let scheduled = Explanation::of(&[&without_path], Some(&traits(1, false, 7, 0)), 0.7);
        assert_eq!(
            scheduled.map(|one| (one.nearest, one.is_new_uniform_population)),
            Some((Innocent::Schedule, true))
        );
        let with_path = alarm(Common::Tls(1), 15.0, 9.0, 15.0);
        assert!(!is_uniform(&with_path, &traits(256, true, 7, 0)), "homes behind which somebody is");
        let of_path = alarm(Common::Path(PROXIED), 15.0, 0.0, 15.0);
        assert!(!is_uniform(&of_path, &traits(256, true, 7, 0)), "a cell of those behind proxies");
        // What a relay's roll-out was taken for a fleet by (privacy relay, seed 6).
        let of_relay = alarm(Common::Tls(1), 7.8, 20.0, -2.5);
        assert!(is_uniform(&of_relay, &traits(256, true, 7, 0)), "people who moved behind a relay");
        let both = Explanation::of(&[&of_relay, &with_path], Some(&traits(256, true, 7, 0)), 0.0);
        assert_eq!(both.map(|one| one.is_new_uniform_population), Some(false), "one alarm tells more");
        // Devices that are launched beside such people, of which a few have a gap (everything, seed 17).
        let straight = alarm(Common::TlsAndPath(2, Way::Straight), 15.0, 0.0, 15.0);
        let few = Finding { sources: 1229, ..alarm(Common::TlsAndPath(2, Way::Proxied), 7.8, 0.2, 15.0) };
        let all = [&of_relay, &without_path, &straight, &few];
        let all = Explanation::of(&all, Some(&traits(256, true, 7, 0)), 0.0);
        assert_eq!(
            all.map(|one| (one.nearest, one.is_new_uniform_population)),
            Some((Innocent::Relay, true))
        );
        assert!(!is_uniform(&few, &traits(256, true, 7, 0)), "where nobody is straight");
        assert!(is_uniform(&of_path, &traits(256, false, 7, 0)), "of which the members are not");
    }

    #[test]
    fn the_nearest_explanation_is_the_one_that_the_least_speaks_against() {
        let nearest = |alarm: Finding, apart: u32, is_proxied| {
            Explanation::of(&[&alarm], Some(&traits(apart, is_proxied, 7, 0)), 0.0).map(|one| one.nearest)
        };
        assert_eq!(nearest(alarm(Common::Tls(1), 9.0, 5.0, 9.0), 256, true), Some(Innocent::Launch));
        assert_eq!(nearest(alarm(Common::Tls(1), 12.0, 20.0, -2.0), 256, true), Some(Innocent::Relay));
        assert_eq!(nearest(alarm(Common::Tls(1), 4.7, 0.0, -1.0), 1, false), Some(Innocent::Release));
    }
}
