//! Which cells are fleets: more new sources than expected, and two hard families that each say so.

use crate::{
    cells::{Cell, Cells, Common},
    evidence::{Evidence, weigh},
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
        hard >= FAMILIES_MIN && self.total() >= EVIDENCE_MIN
    }
}

/// The cells of a window that have more new sources than expected, with what is said of each, by cell.
pub fn look(cells: &Cells, histories: &Histories) -> Vec<Finding> {
    let mut services: Vec<_> = cells.keys().map(|cell| cell.service).collect();
    services.sort_unstable();
    services.dedup();
    let mut findings: Vec<_> =
        services.into_iter().flat_map(|service| look_at(service, cells, histories)).collect();
    findings.sort_by_key(|finding| finding.cell);
    findings
}

fn look_at(service: ServiceId, cells: &Cells, histories: &Histories) -> Vec<Finding> {
    if histories.of_service(service).is_none_or(|service| !service.is_enough() || !service.is_old()) {
        return Vec::new();
    }
    let Some(scale) = scale(service, cells, histories) else { return Vec::new() };
    let of_service =
        cells.iter().filter(|(cell, _)| cell.service == service && cell.common != Common::Service);
    let finding = |(cell, counts): (&Cell, &crate::cells::Counts)| {
        let history = histories.of(cell);
        let expected_sources = scale * history.map_or(0.0, History::share);
        let deviation = history.and_then(History::deviation).unwrap_or(DEVIATION_UNKNOWN);
        let excess = f64::from(counts.sources) - expected_sources;
        let z = excess / (expected_sources + (deviation * expected_sources).powi(2) + 1.0).sqrt();
        if excess < f64::from(SOURCES_OF_CELL_MIN) || z < Z_MIN {
            return None;
        }
        let evidence = weigh(cell, counts, histories);
        Some(Finding { cell: *cell, sources: counts.sources, expected_sources, z, evidence })
    };
    of_service.filter_map(finding).collect()
}

/// How many new sources the service would have if nothing was unusual: the median over its cells, weighted by their shares, of what each
/// says. So what changes everywhere cancels, and a fleet in one cell does not move it.
fn scale(service: ServiceId, cells: &Cells, histories: &Histories) -> Option<f64> {
    let of_tls = |cell: &Cell| cell.service == service && matches!(cell.common, Common::Tls(_));
    let mut says: Vec<(f64, f64)> = cells
        .iter()
        .filter(|(cell, _)| of_tls(cell))
        .filter_map(|(cell, counts)| {
            let share = histories.of(cell).filter(|history| history.is_enough())?.share();
            (share > 0.0).then(|| (f64::from(counts.sources) / share, share))
        })
        .collect();
    says.sort_by(|one, other| one.0.total_cmp(&other.0));
    let half = says.iter().map(|(_, share)| share).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    says.into_iter().find_map(|(says, share)| {
        sum += share;
        (sum >= half).then_some(says)
    })
}
