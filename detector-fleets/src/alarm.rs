//! Which cells are fleets: more new sources than expected, and two hard families that each say so.

use crate::{
    cells::{Cell, Cells, Common, Counts},
    evidence::{Evidence, Excess, weigh},
    family::Family,
    history::{Histories, History},
    limits::SOURCES_OF_CELL_MIN,
    observation::ServiceId,
};

/// Deviations of the number of new sources from what was expected, from which on a cell is weighed.
pub const Z_MIN: f64 = 5.0;

/// Evidence of an alarm, in all.
pub const EVIDENCE_MIN: f64 = 15.0;

/// Evidence that a hard family has to say, ln 100.
pub const FAMILY_MIN: f64 = 4.6;

/// Hard families that have to say so.
pub const FAMILIES_MIN: usize = 2;

/// By how much of itself a share varies of which nothing is known.
const DEVIATION_UNKNOWN: f64 = 0.5;

/// A cell with more new sources than expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Which.
    pub cell: Cell,
    /// Its new sources.
    pub sources: u32,
    /// How many were expected.
    pub expected_sources: f64,
    /// By how many deviations there are more.
    pub z: f64,
    /// What each family says.
    pub evidence: Vec<Evidence>,
}

impl Finding {
    /// What novelty says: it opens the gate, and counts a little.
    pub fn novelty(&self) -> f64 {
        (self.z.min(12.0).powi(2) / 8.0).min(8.0)
    }

    /// All that is said.
    pub fn total(&self) -> f64 {
        self.novelty() + self.evidence.iter().map(|evidence| evidence.log_factor).sum::<f64>()
    }

    /// Whether it is an alarm.
    pub fn is_alarm(&self) -> bool {
        let hard = self.evidence.iter().filter(|evidence| evidence.log_factor >= FAMILY_MIN).count();
        // People who moved behind a relay come through a proxy and do what they did before: what sources do has to say it, too.
        let does = self.evidence.iter().filter(|evidence| evidence.family != Family::Path);
        let does: f64 = does.map(|evidence| evidence.log_factor).sum();
        hard >= FAMILIES_MIN && does >= FAMILY_MIN && self.total() >= EVIDENCE_MIN
    }
}

/// The cells of a window that have more new sources than expected, with what is said of each, by cell. `day`: so many windows are learned from
/// in a day; before that nothing is said, since nights differ from days.
pub fn look(cells: &Cells, histories: &Histories, day: u32) -> Vec<Finding> {
    let mut services: Vec<_> = cells.keys().map(|cell| cell.service).collect();
    services.sort_unstable();
    services.dedup();
    let mut findings: Vec<_> =
        services.into_iter().flat_map(|service| look_at(service, cells, histories, day)).collect();
    findings.sort_by_key(|finding| finding.cell);
    findings
}

fn look_at(service: ServiceId, cells: &Cells, histories: &Histories, day: u32) -> Vec<Finding> {
    let is_known = |service: &History| service.is_enough() && service.is_old() && service.windows() >= day;
    if !histories.of_service(service).is_some_and(is_known) {
        return Vec::new();
    }
    let Some(scale) = scale(service, cells, histories) else { return Vec::new() };
    let of_service =
        cells.iter().filter(|(cell, _)| cell.service == service && cell.common != Common::Service);
    let finding = |(cell, counts): (&Cell, &Counts)| {
        let history = histories.of(cell);
        let expected_sources = scale * history.map_or(0.0, History::share);
        let deviation = history.and_then(History::deviation).unwrap_or(DEVIATION_UNKNOWN);
        let excess = f64::from(counts.sources) - expected_sources;
        let z = excess / (expected_sources + (deviation * expected_sources).powi(2) + 1.0).sqrt();
        if excess < f64::from(SOURCES_OF_CELL_MIN) || z < Z_MIN {
            return None;
        }
        let evidence = weigh(&Excess { cell, counts, excess }, cells, histories);
        Some(Finding { cell: *cell, sources: counts.sources, expected_sources, z, evidence })
    };
    of_service.filter_map(finding).collect()
}

/// How many new sources the service would have if nothing was unusual: the median over its cells, weighted by their shares, of what each
/// says. So what changes everywhere cancels, and a fleet in one cell does not move it, as long as others have new sources enough to be counted.
fn scale(service: ServiceId, cells: &Cells, histories: &Histories) -> Option<f64> {
    let of_tls = |cell: &Cell| cell.service == service && matches!(cell.common, Common::Tls(_));
    let mut says: Vec<(f64, f64, Cell)> = cells
        .iter()
        .filter(|(cell, _)| of_tls(cell))
        .filter_map(|(cell, counts)| {
            let share = histories.of(cell).filter(|history| history.is_enough())?.share();
            (share > 0.0).then(|| (f64::from(counts.sources) / share, share, *cell))
        })
        .collect();
    says.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.2.cmp(&other.2)));
    let half = says.iter().map(|(_, share, _)| share).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    says.into_iter().find_map(|(says, share, _)| {
        sum += share;
        (sum >= half).then_some(says)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        block::{Block, Sizes},
        cells::Counted,
        family::tests::block,
        limits::SOURCES_COUNTED_MIN,
        span::Span,
    };

    const WEB: ServiceId = ServiceId(0);
    const BROWSERS: [u64; 4] = [11, 12, 13, 14];

    /// What the users of a browser do: volumes, lives and sizes of all kinds, no proxy. `number` stands for chance.
    fn user(number: u64) -> Block {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let exchanges = 1_u16 << (random % 7);
        let rtt = 4 + (random / 7 % 4) as u8;
        block(
            exchanges,
            (random / 28 % 300) as u16,
            [rtt, 2, rtt + (random / 64 % 2) as u8],
            Sizes(1 << (4 * (random / 128 % 6))),
        )
    }

    /// What those of a fleet do: the same, behind proxies.
    fn member(number: u64) -> Block {
        block(2, (number % 3) as u16, [4, 8, 7], Sizes(1 << 12))
    }

    /// A window with users of each browser, `more` of them of the first, and members of a fleet that has a key.
    fn window(number: u64, more: u64, members: u64, key: u64) -> Cells {
        let mut cells = Cells::default();
        let mut add = |tls_key, did: &Block| {
            for common in [Common::Service, Common::Tls(tls_key)] {
                cells.entry(Cell { service: WEB, common }).or_insert_with(Counts::default).add(did);
            }
        };
        for (place, browser) in BROWSERS.into_iter().enumerate() {
            let users = 150 + 10 * (number % 3) + if place == 0 { more } else { 0 };
            (0..users).for_each(|user_number| {
                add(browser, &user(number * 10_000 + place as u64 * 1000 + user_number))
            });
        }
        (0..members).for_each(|member_number| add(key, &member(member_number)));
        cells
    }

    fn counted(cells: Cells) -> Counted {
        Counted { cells, least: SOURCES_COUNTED_MIN }
    }

    fn taught() -> Histories {
        let mut histories = Histories::default();
        (0..30)
            .for_each(|number| histories.learn(&counted(window(number, 0, 0, 0)), &HashSet::new(), number));
        histories
    }

    fn alarms(cells: &Cells) -> Vec<Common> {
        let findings = look(cells, &taught(), 8);
        findings.iter().filter(|finding| finding.is_alarm()).map(|finding| finding.cell.common).collect()
    }

    #[test]
    fn a_fleet_is_found_under_a_key_of_its_own_and_under_that_of_a_browser() {
        assert_eq!(alarms(&window(40, 0, 200, 99)), [Common::Tls(99)]);
        assert_eq!(alarms(&window(40, 0, 300, BROWSERS[2])), [Common::Tls(BROWSERS[2])]);
    }

    #[test]
    fn more_users_are_no_fleet_and_neither_are_few_sources() {
        assert_eq!(alarms(&window(40, 0, 0, 0)), []);
        assert_eq!(alarms(&window(40, 600, 0, 0)), [], "more of a browser than ever");
        assert_eq!(alarms(&window(40, 0, 24, 99)), []);
        let findings = look(&window(40, 600, 0, 0), &taught(), 8);
        assert_eq!(findings.len(), 1, "it is seen all the same: {findings:?}");
    }

    /// Users shift from day to night and from day to day: that many of them are not as before is no fleet, unless they do one thing.
    #[test]
    fn a_shift_of_users_is_no_fleet_and_one_thing_beside_them_is() {
        let of_browser = Cell { service: WEB, common: Common::Tls(BROWSERS[0]) };
        let with = |more: &dyn Fn(u64) -> Block| {
            let mut cells = window(40, 600, 0, 0);
            let counts = cells.entry(of_browser).or_default();
            (0..1500).for_each(|number| counts.add(&more(number)));
            let findings = look(&cells, &taught(), 8);
            findings.into_iter().find(|finding| finding.cell == of_browser).expect("there are more than ever")
        };
        // Each tenth has twice the connections, and each eighth another size.
        let shifted = |number: u64| {
            let mut did = user(700_000 + number);
            did.connections *= 1 + u16::from(number.is_multiple_of(10));
            did.requests = if number.is_multiple_of(8) { Sizes(1 << 4) } else { did.requests };
            did
        };
        let finding = with(&shifted);
        assert!(!finding.is_alarm() && finding.total() < EVIDENCE_MIN, "{finding:?}");
        // A third of the cell.
        assert!(with(&member).is_alarm());
    }

    #[test]
    fn without_a_history_nothing_is_said() {
        assert_eq!(look(&window(0, 0, 200, 99), &Histories::default(), 8), []);
        let mut histories = Histories::default();
        histories.learn(&counted(window(0, 0, 0, 0)), &HashSet::new(), 0);
        assert_eq!(look(&window(1, 0, 200, 99), &histories, 8), [], "one window is none");
        assert_eq!(look(&window(40, 0, 200, 99), &taught(), 31), [], "and neither is a part of a day");
    }

    /// What is learned while there is an alarm is learned of other cells: the fleet does not become usual, and its cell does not become empty.
    #[test]
    fn a_cell_with_an_alarm_is_neither_taught_the_fleet_nor_that_nobody_is_in_it() {
        let of = |tls| Cell { service: WEB, common: Common::Tls(tls) };
        let all = Cell { service: WEB, common: Common::Service };
        let alarmed = HashSet::from([of(BROWSERS[2])]);
        let mut histories = taught();
        let share = |histories: &Histories, cell| histories.of(&cell).map(History::share).expect("a history");
        let before = [of(BROWSERS[2]), all].map(|cell| histories.of(&cell).cloned());
        let other = share(&histories, of(BROWSERS[1]));
        for number in 30..60 {
            histories.learn(&counted(window(number, 0, 300, BROWSERS[2])), &alarmed, number);
        }
        let ratio = share(&histories, of(BROWSERS[1])) / other;
        assert!((0.97..1.03).contains(&ratio), "others have the share that they had: {ratio}");
        let mut without = window(60, 0, 300, BROWSERS[2]);
        without.remove(&of(BROWSERS[2]));
        histories.learn(&counted(without), &alarmed, 60);
        let learned = |history: Option<History>| history.map(|one| (one.share(), one.windows()));
        let after = [of(BROWSERS[2]), all].map(|cell| histories.of(&cell).cloned());
        assert_eq!(after.map(learned), before.map(learned));
        let findings = look(&window(60, 0, 300, BROWSERS[2]), &histories, 8);
        let alarms: Vec<_> =
            findings.iter().filter(|finding| finding.is_alarm()).map(|one| one.cell).collect();
        assert_eq!(alarms, [of(BROWSERS[2])], "it is seen after many windows as in the first");
        assert_eq!(look(&window(60, 0, 0, 0), &histories, 8), [], "and without it there is nothing");
    }

    /// Of the families that speak for a fleet two are enough, and one is not, however much it says and whatever novelty says.
    #[test]
    fn an_alarm_stands_on_any_two_families_and_falls_with_one_of_them() {
        let findings = look(&window(40, 0, 200, 99), &taught(), 8);
        let [finding] = &findings[..] else { panic!("one finding: {findings:?}") };
        let strong = finding.evidence.iter().filter(|one| one.log_factor >= FAMILY_MIN).count();
        assert_eq!(strong, Family::ALL.len(), "{finding:?}");
        let with = |families: &[Family]| {
            let mut with = finding.clone();
            for one in with.evidence.iter_mut().filter(|one| !families.contains(&one.family)) {
                one.log_factor = 0.0;
            }
            with
        };
        for one in Family::ALL {
            assert!(!with(&[one]).is_alarm(), "{one:?} alone");
            for other in Family::ALL.into_iter().filter(|other| *other != one) {
                assert!(with(&[one, other]).is_alarm(), "{one:?} and {other:?}");
            }
        }
    }

    /// People behind a relay: new, behind a proxy, and as users in one of what they do.
    #[test]
    fn a_proxy_and_one_family_that_another_speaks_against_are_no_alarm() {
        let finding = |homogeneity, path, size| {
            let of = |family, log_factor| Evidence {
                family,
                log_factor,
                span: Span::PROXIED,
                observed: 0.9,
                expected: 0.1,
            };
            let evidence =
                vec![of(Family::Homogeneity, homogeneity), of(Family::Path, path), of(Family::Size, size)];
            let cell = Cell { service: WEB, common: Common::Tls(1) };
            Finding { cell, sources: 100, expected_sources: 1.0, z: 12.0, evidence }
        };
        assert!(!finding(5.5, 20.0, -4.0).is_alarm());
        assert!(finding(-1.7, 20.0, 8.0).is_alarm() && finding(9.0, -4.0, 9.0).is_alarm());
    }
}
