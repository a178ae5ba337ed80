//! What cells were like before: how many of a service's new sources they had, what those did, and how much both vary.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    cells::{Cell, Cells, Common, Counted, Counts},
    dirichlet,
    family::Family,
    limits::{
        CONCENTRATIONS, HALF_LIFE_WINDOWS, HISTORIES_MAX, SOURCES_COUNTED_MIN, SOURCES_OF_HISTORY_MIN,
        WINDOWS_OF_HISTORY_MIN,
    },
    observation::ServiceId,
};

/// The share of new sources that is usually in cells without an alarm, at least, if it is said by them how many there would be.
const OTHERS_MIN: f64 = 0.1;

/// Numbers of the last times, of which a low quantile is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    numbers: Vec<f64>,
    next: usize,
}

impl Recent {
    /// Adds one, and forgets the one that is [`CONCENTRATIONS`] older.
    pub fn push(&mut self, number: f64) {
        if self.numbers.len() < CONCENTRATIONS {
            self.numbers.push(number);
        } else {
            self.numbers[self.next] = number;
        }
        self.next = (self.next + 1) % CONCENTRATIONS;
    }

    /// What a tenth of them are below; `None` of fewer than [`WINDOWS_OF_HISTORY_MIN`].
    pub fn low(&self) -> Option<f64> {
        if self.numbers.len() < WINDOWS_OF_HISTORY_MIN {
            return None;
        }
        let mut sorted = self.numbers.clone();
        sorted.sort_by(f64::total_cmp);
        Some(sorted[sorted.len() / 10])
    }
}

/// What is kept of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Windows that it was learned from.
    windows: u32,
    /// Number of the last one.
    last_window: u64,
    /// Mean share of the service's new sources, and the mean square of its deviation.
    share: f64,
    square: f64,
    /// Sources by categories; what is older counts less.
    families: [Box<[f32]>; Family::ALL.len()],
    concentrations: [Recent; Family::ALL.len()],
}

impl Default for History {
    fn default() -> Self {
        Self {
            windows: 0,
            last_window: 0,
            share: 0.0,
            square: 0.0,
            families: Family::ALL.map(|family| vec![0.0; family.evidences()].into()),
            concentrations: Default::default(),
        }
    }
}

impl History {
    /// Mean share of the service's new sources.
    pub const fn share(&self) -> f64 {
        self.share
    }

    /// By how much of itself the share varies; `None`: it was not seen often enough to tell.
    pub fn deviation(&self) -> Option<f64> {
        (self.is_old() && self.share > 0.0).then(|| (self.square.max(0.0).sqrt() / self.share).min(2.0))
    }

    /// Sources that it knows of.
    pub fn sources(&self) -> f64 {
        self.families[0].iter().copied().map(f64::from).sum()
    }

    /// Sources of which a family says something.
    pub fn known(&self, family: Family) -> f64 {
        self.families[family as usize].iter().copied().map(f64::from).sum()
    }

    /// Whether it says what is expected of the cell.
    pub fn is_enough(&self) -> bool {
        self.sources() >= SOURCES_OF_HISTORY_MIN
    }

    /// Windows that it was learned from.
    pub const fn windows(&self) -> u32 {
        self.windows
    }

    /// Whether it was learned from so many windows that how it varies is known.
    pub const fn is_old(&self) -> bool {
        self.windows as usize >= WINDOWS_OF_HISTORY_MIN
    }

    /// Shares of the categories of a family. `None`: it knows of no sources.
    pub fn shares(&self, family: Family) -> Option<Vec<f64>> {
        let counts = &self.families[family as usize];
        let sum: f64 = counts.iter().copied().map(f64::from).sum();
        (sum > 0.0).then(|| counts.iter().map(|&count| f64::from(count) / sum).collect())
    }

    /// How little the shares of a family vary: a low quantile of the concentrations of past windows; `None` where there were too few.
    pub fn concentration(&self, family: Family) -> Option<f64> {
        self.concentrations[family as usize].low()
    }

    fn learn(&mut self, counts: &Counts, share: f64, window: u64) {
        if self.is_enough() {
            for family in Family::ALL {
                let shares = self.shares(family).unwrap_or_default();
                if let Some(concentration) = dirichlet::concentration(counts.of(family), &shares) {
                    self.concentrations[family as usize].push(concentration);
                }
            }
        }
        self.windows += 1;
        self.last_window = window;
        let kept = 0.5_f64.powf(1.0 / HALF_LIFE_WINDOWS);
        // The mean of all at first, so that the first window is not the half of what is known for long.
        let weight = (1.0 - kept).max(1.0 / f64::from(self.windows));
        let deviation = share - self.share;
        self.share += weight * deviation;
        self.square = (1.0 - weight) * (self.square + weight * deviation * deviation);
        for family in Family::ALL {
            let known = self.families[family as usize].iter_mut();
            for (known, &count) in known.zip(counts.of(family)) {
                *known = *known * kept as f32 + count as f32;
            }
        }
    }
}

/// Histories of all cells, for one length of window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Histories {
    #[serde(with = "crate::ordered")]
    cells: HashMap<Cell, History, RandomState>,
    /// How little the shares of a family vary from cell to cell of a projection.
    #[serde(with = "crate::ordered")]
    between: HashMap<(ServiceId, usize), [Recent; Family::ALL.len()], RandomState>,
}

impl Histories {
    /// That of a cell.
    pub fn of(&self, cell: &Cell) -> Option<&History> {
        self.cells.get(cell)
    }

    /// That of all of a service.
    pub fn of_service(&self, service: ServiceId) -> Option<&History> {
        self.of(&Cell { service, common: Common::Service })
    }

    /// How little the shares of a family vary from cell to cell, among cells like this one.
    pub fn concentration_between(&self, cell: &Cell, family: Family) -> Option<f64> {
        self.between.get(&(cell.service, cell.common.projection()))?[family as usize].low()
    }

    /// How many cells have one.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether none has one.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Learns from a window, by its number among those that are learned from. Cells that have a history and are not in it had none of
    /// its sources, unless only the largest were counted. Nothing is learned of cells with an alarm, nor of all of their service: that has the fleet
    /// in it.
    pub fn learn(&mut self, Counted { cells, least }: &Counted, alarmed: &HashSet<Cell>, window: u64) {
        let services: HashSet<_> = alarmed.iter().map(|cell| cell.service).collect();
        let is_left_out = |cell: &Cell| {
            alarmed.contains(cell) || (cell.common == Common::Service && services.contains(&cell.service))
        };
        let of_services = cells.iter().filter(|(cell, _)| cell.common == Common::Service);
        let totals: HashMap<ServiceId, f64> = of_services
            .filter_map(|(cell, counts)| {
                let total = self.usual_total(cell.service, f64::from(counts.sources), cells, alarmed)?;
                Some((cell.service, total.max(1.0)))
            })
            .collect();
        self.learn_between(cells, is_left_out);
        let none = Counts::default();
        for (cell, history) in &mut self.cells {
            if is_left_out(cell) {
                // What it is like is asked for as long as there are alarms.
                history.last_window = window;
            } else if totals.contains_key(&cell.service)
                && !cells.contains_key(cell)
                && *least <= SOURCES_COUNTED_MIN
            {
                let last_window = history.last_window;
                history.learn(&none, 0.0, window);
                history.last_window = last_window;
            }
        }
        let mut in_order: Vec<_> = cells.iter().filter(|(cell, _)| !is_left_out(cell)).collect();
        in_order.sort_by_key(|(cell, _)| **cell);
        for (cell, counts) in in_order {
            let Some(total) = totals.get(&cell.service) else { continue };
            let share = (f64::from(counts.sources) / total).min(1.0);
            self.cells.entry(*cell).or_default().learn(counts, share, window);
        }
        self.forget();
    }

    /// New sources that a service would have without those that are too many in cells with an alarm: what the others have, by the share that they
    /// have usually. `None`: next to nothing is usually in others.
    fn usual_total(
        &self,
        service: ServiceId,
        total: f64,
        cells: &Cells,
        alarmed: &HashSet<Cell>,
    ) -> Option<f64> {
        // Each source is in one cell of a projection.
        let of_projection = |projection: usize| {
            let mut of: Vec<&Cell> = alarmed
                .iter()
                .filter(|cell| cell.service == service && cell.common.projection() == projection)
                .collect();
            of.sort_unstable();
            of
        };
        let of = (1..Common::PROJECTIONS).map(of_projection).find(|of| !of.is_empty());
        let Some(of) = of else { return Some(total) };
        let found: f64 = of.iter().filter_map(|cell| cells.get(cell)).map(|one| f64::from(one.sources)).sum();
        let usual: f64 = of.iter().filter_map(|cell| self.of(cell)).map(History::share).sum();
        let others = 1.0 - usual;
        (others >= OTHERS_MIN).then(|| ((total - found) / others).clamp(0.0, total))
    }

    /// Forgets all of a service.
    pub fn forget_service(&mut self, service: ServiceId) {
        self.cells.retain(|cell, _| cell.service != service);
        self.between.retain(|(of, _), _| *of != service);
    }

    /// Cells of some size against all of their service, before this window is known of either.
    fn learn_between(&mut self, cells: &Cells, is_left_out: impl Fn(&Cell) -> bool) {
        let mut found: HashMap<(ServiceId, usize, Family), Vec<f64>> = HashMap::new();
        for (cell, counts) in
            cells.iter().filter(|(cell, _)| cell.common != Common::Service && !is_left_out(cell))
        {
            let Some(service) = self.of_service(cell.service).filter(|service| service.is_enough()) else {
                continue;
            };
            if f64::from(counts.sources) < SOURCES_OF_HISTORY_MIN {
                continue;
            }
            for family in Family::ALL {
                let shares = service.shares(family).unwrap_or_default();
                if let Some(concentration) = dirichlet::concentration(counts.of(family), &shares) {
                    found
                        .entry((cell.service, cell.common.projection(), family))
                        .or_default()
                        .push(concentration);
                }
            }
        }
        for ((service, projection, family), mut concentrations) in found {
            concentrations.sort_by(f64::total_cmp);
            let low = concentrations[concentrations.len() / 10];
            self.between.entry((service, projection)).or_default()[family as usize].push(low);
        }
    }

    /// Keeps [`HISTORIES_MAX`] at most: those that were counted last, among equals the largest.
    fn forget(&mut self) {
        if self.cells.len() <= HISTORIES_MAX {
            return;
        }
        let rank = |cell: &Cell, history: &History| {
            let is_service = cell.common == Common::Service;
            (is_service, history.last_window, history.share.to_bits(), *cell)
        };
        let mut ranks: Vec<_> = self.cells.iter().map(|(cell, history)| rank(cell, history)).collect();
        ranks.sort_unstable_by(|one, other| other.cmp(one));
        for (.., cell) in ranks.drain(HISTORIES_MAX..) {
            self.cells.remove(&cell);
        }
    }
}
