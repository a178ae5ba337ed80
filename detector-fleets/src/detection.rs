//! Detection as a whole: rows go in, and every quarter of an hour findings come out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::{
    alarm::{self, Finding},
    block::{Block, KindId},
    cells::{self, Cell, Counted},
    fleet::Fleet,
    fleets::{Fleets, Looked},
    history::Histories,
    interval::{Interval, Kinds, OpenInterval, Room},
    limits::{
        BLOCKS_MAX, BLOCKS_MIN, BLOCKS_OF_DAY_MAX, CLEAN_WINDOWS_MAX, INTERVAL_S, INTERVALS_MAX, KINDS_KEPT,
        NEW_S, REMEMBERED_DAYS,
    },
    membership::{self, Question},
    observation::{Observation, ServiceId},
    profile::{self, Clean},
    projection::Projections,
    seen::Seen,
    source::Source,
    users::Users,
    window::{Part, merge, merge_hours},
};

/// A length of window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLength {
    /// Intervals in it.
    pub intervals: usize,
    /// Intervals between two looks.
    pub looked_every: u64,
    /// Intervals between two that are learned from.
    pub learned_every: u64,
}

impl WindowLength {
    /// Windows that are learned from in a day.
    pub const fn day(&self) -> u32 {
        (DAY / self.learned_every) as u32
    }
}

/// Lengths of windows: 1, 6 and 24 hours.
pub const WINDOWS: [WindowLength; 3] = [
    WindowLength { intervals: 4, looked_every: 1, learned_every: 4 },
    WindowLength { intervals: 24, looked_every: 2, learned_every: 8 },
    WindowLength { intervals: 96, looked_every: 4, learned_every: 12 },
];

/// Intervals before a window is learned from: twelve hours, so that a fleet does not teach what is expected before it is found.
pub const LEARNED_AFTER: u64 = 48;

/// Rows whose places in tables are read before they are taken: more than a processor waits for at once, and few enough that they are
/// still in its caches then.
const ROWS_AHEAD: usize = 32;

/// Intervals of an hour, and of a day.
const HOUR: u64 = 4;
const DAY: u64 = 96;

/// Intervals after which nothing is remembered of a service that was silent.
const SERVICE_FORGOTTEN: u64 = DAY * REMEMBERED_DAYS as u64;

/// What a look at a window found.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Number of the window in [`WINDOWS`].
    pub window: usize,
    /// When it ended, seconds since the Unix epoch.
    pub end_s: u64,
    /// Cells with more new sources than expected.
    pub findings: Vec<Finding>,
}

/// A window that is to be learned from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lesson {
    /// Number of the interval in which it is learned.
    due: u64,
    window: usize,
    counted: Counted,
    clean: BTreeMap<ServiceId, Clean>,
}

/// Windows of one length in which nothing was found, by service, the oldest first; at most [`CLEAN_WINDOWS_MAX`] of each.
type CleanWindows = BTreeMap<ServiceId, VecDeque<Clean>>;

/// The state of detection.
#[derive(Debug, Serialize, Deserialize)]
pub struct Detection {
    kinds: Kinds,
    /// What follows from the kinds.
    #[serde(skip)]
    projections: Projections,
    seen: Seen,
    open: Option<OpenInterval>,
    /// The day before, by quarters of an hour, and by hours where no window begins within one any more.
    intervals: VecDeque<Interval>,
    histories: [Histories; WINDOWS.len()],
    lessons: VecDeque<Lesson>,
    clean: [CleanWindows; WINDOWS.len()],
    /// What follows from the clean windows, of services that were asked for it.
    #[serde(skip)]
    users: [BTreeMap<ServiceId, Users>; WINDOWS.len()],
    fleets: Fleets,
    /// In which interval each service was first seen, and last. One that was not for so long that its sources are forgotten begins anew.
    #[serde(with = "crate::ordered")]
    began: HashMap<ServiceId, (u64, u64), RandomState>,
    /// Cells with an alarm, and in which interval it was last.
    #[serde(with = "crate::ordered")]
    alarmed: HashMap<Cell, u64>,
    /// Observations older than the interval that was open, which are not counted.
    late: u64,
    /// Observations of clients that found no room in their interval.
    lost: u64,
}

impl Detection {
    /// One that has seen nothing, for so many sources.
    pub fn new(sources: u64, secret: u64) -> Self {
        Self {
            kinds: Kinds::default(),
            projections: Projections::default(),
            seen: Seen::for_sources(sources, secret),
            open: None,
            intervals: VecDeque::new(),
            histories: Default::default(),
            lessons: VecDeque::new(),
            clean: Default::default(),
            users: Default::default(),
            fleets: Fleets::default(),
            began: HashMap::default(),
            alarmed: HashMap::new(),
            late: 0,
            lost: 0,
        }
    }

    /// Takes rows as [`Self::observe`] does, in less time.
    pub fn observe_all(&mut self, rows: &[Observation]) -> Vec<Look> {
        let mut looks = Vec::new();
        for rows in rows.chunks(ROWS_AHEAD) {
            self.read_ahead(rows);
            rows.iter().for_each(|row| looks.extend(self.observe(row)));
        }
        looks
    }

    /// Reads what is looked up for these rows. Most of the time goes by waiting for memory, for one row after another; here that of all of them
    /// is waited for at once. (Prefetching without `unsafe` is not stable yet: rust-lang/rust 146941.)
    fn read_ahead(&self, rows: &[Observation]) {
        let Some(open) = &self.open else { return };
        let new = rows.iter().filter(|row| !open.has(row, &self.kinds));
        self.seen.read_ahead(new.map(|row| (row.kind.service, row.source)));
    }

    /// Takes a row. Rows come by time; where one begins another interval, the one before is looked at first: what that found.
    pub fn observe(&mut self, row: &Observation) -> Vec<Look> {
        let number = row.time_s / INTERVAL_S;
        let looks = match &self.open {
            Some(open) if open.number() > number => {
                self.late += 1;
                return Vec::new();
            }
            Some(open) if open.number() == number => Vec::new(),
            _ => self.go_on_to(row.time_s),
        };
        let (began, last) = self.began.entry(row.kind.service).or_insert((number, number));
        let is_forgotten = number > *last + SERVICE_FORGOTTEN;
        if is_forgotten {
            *began = number;
        }
        *last = number;
        if is_forgotten {
            self.forget_service(row.kind.service);
        }
        if row.is_refused() {
            self.fleets.note_refused(row.kind.service, row.source, row.time_s);
        }
        if let Some(open) = &mut self.open {
            open.add(row, &mut self.kinds, &mut self.seen);
        }
        looks
    }

    /// Time has come to this: what is found in the interval before, if that is over.
    pub fn go_on_to(&mut self, time_s: u64) -> Vec<Look> {
        let until = time_s / INTERVAL_S;
        if self.open.as_ref().is_some_and(|open| open.number() >= until) {
            return Vec::new();
        }
        let kept: usize = self.intervals.iter().map(|interval| interval.blocks.len()).sum();
        let room = BLOCKS_OF_DAY_MAX.saturating_sub(kept).clamp(BLOCKS_MIN, BLOCKS_MAX);
        let expected = self.open.as_ref().map_or(0, OpenInterval::len);
        let open = OpenInterval::new(until, Room { most: room, expected });
        let Some(over) = self.open.replace(open) else { return Vec::new() };
        let first = over.number().saturating_add(1).max(until.saturating_sub(INTERVALS_MAX as u64));
        let mut looks = self.take(over.seal());
        // Nothing came in those between: they end windows all the same, whether somebody tells the time meanwhile or not.
        for number in first..until {
            looks.extend(self.take(OpenInterval::new(number, Room::default()).seal()));
        }
        looks
    }

    /// A service begins anew.
    fn forget_service(&mut self, service: ServiceId) {
        self.histories.iter_mut().for_each(|histories| histories.forget_service(service));
        self.clean.iter_mut().for_each(|clean| _ = clean.remove(&service));
        self.users.iter_mut().for_each(|users| _ = users.remove(&service));
        for lesson in &mut self.lessons {
            lesson.counted.cells.retain(|cell, _| cell.service != service);
            lesson.clean.remove(&service);
        }
    }

    /// Takes an interval that is over, and looks at the windows that end with it.
    fn take(&mut self, sealed: Interval) -> Vec<Look> {
        let number = sealed.number;
        self.lost += sealed.lost;
        self.intervals.push_back(sealed);
        while self.intervals.front().is_some_and(|first| first.number + INTERVALS_MAX as u64 <= number) {
            self.intervals.pop_front();
        }
        self.forget_kinds(KINDS_KEPT);
        let looks = self.look(number);
        if number.is_multiple_of(HOUR) {
            merge_hours(&mut self.intervals, (number + 1).saturating_sub(WINDOWS[1].intervals as u64));
        }
        looks
    }

    /// Where more than so many kinds have a number, those of which nothing is kept lose it. That is asked with each interval for
    /// [`KINDS_KEPT`].
    pub fn forget_kinds(&mut self, most: usize) {
        if self.kinds.len() <= most {
            return;
        }
        let mut is_in_use = vec![false; self.kinds.len()];
        self.each_kind(|kind| is_in_use[kind.0 as usize] = true);
        let numbers = self.kinds.keep(&is_in_use);
        self.each_kind(|kind| *kind = numbers[kind.0 as usize]);
        self.projections = Projections::of(&self.kinds);
        self.users.iter_mut().for_each(BTreeMap::clear);
    }

    /// Shows all numbers of kinds that are kept.
    fn each_kind(&mut self, mut show: impl FnMut(&mut KindId)) {
        self.intervals
            .iter_mut()
            .flat_map(|interval| &mut interval.blocks)
            .for_each(|block| show(&mut block.kind));
        if let Some(open) = &mut self.open {
            open.each_kind(&mut show);
        }
        let learned = self.clean.iter_mut().flat_map(BTreeMap::values_mut).flatten();
        for clean in self.lessons.iter_mut().flat_map(|lesson| lesson.clean.values_mut()).chain(learned) {
            clean.profiles.iter_mut().for_each(|(profile, _)| show(&mut profile.kind));
            clean.connections.iter_mut().for_each(|(kind, _)| show(kind));
        }
    }

    /// Looks at all windows that end with an interval.
    fn look(&mut self, number: u64) -> Vec<Look> {
        self.learn(number);
        let end_s = (number + 1) * INTERVAL_S;
        self.fleets.forget(end_s);
        self.projections.grow(&self.kinds);
        let mut looks = Vec::new();
        // The window before, which the next one ends with.
        let (mut merged, mut merged_from) = (Vec::new(), number + 1);
        for (window, length) in WINDOWS.iter().enumerate() {
            if !number.is_multiple_of(length.looked_every) {
                continue;
            }
            let from = (number + 1).saturating_sub(length.intervals as u64);
            (merged, merged_from) = {
                let earlier = self.intervals.iter().filter(|one| (from..merged_from).contains(&one.number));
                let first = earlier.clone().map(|one| one.number).next().unwrap_or(merged_from);
                let last = (!merged.is_empty()).then_some(Part { number: merged_from, blocks: &merged });
                (merge(earlier.map(Part::from).chain(last)), first)
            };
            let mut counted = cells::count(&merged, &self.kinds, &self.projections);
            let findings = alarm::look(&counted.cells, &self.histories[window], length.day());
            for finding in findings.iter().filter(|finding| finding.is_alarm()) {
                self.alarmed.insert(finding.cell, number);
            }
            let alike = self.find_fleets(window, end_s, &merged, &findings);
            if number.is_multiple_of(length.learned_every) {
                counted.cells.retain(|cell, _| self.tells_new_from_known(cell.service, from));
                let mut populations = profile::populations(&merged, &self.kinds, |block| {
                    self.tells_new_from_known(self.kinds.kind(block.kind).service, from)
                });
                for (service, population) in &mut populations {
                    population.leave_out(&self.fleets.members(*service, end_s));
                    population.leave_out(alike.get(service).map_or(&[], Vec::as_slice));
                    population.leave_out(&population.unseen(&self.kinds));
                }
                populations.retain(|_, population| !population.sources.is_empty());
                let clean = Clean::of_all(&populations);
                self.lessons.push_back(Lesson { due: number + LEARNED_AFTER, window, counted, clean });
            }
            looks.push(Look { window, end_s, findings });
        }
        looks
    }

    /// Asks who belongs to what alarms of a window saw, and to the fleets that are known. By service those who are like members, and are none since
    /// they were there before: nobody is to be taken for an innocent by them. A few of a fleet's own are among them, since the memory of sources
    /// takes one in three hundred for another one; learned as users, they would have the cut rise until the fleet has no members any more.
    fn find_fleets(
        &mut self,
        window: usize,
        end_s: u64,
        merged: &[Block],
        findings: &[Finding],
    ) -> BTreeMap<ServiceId, Vec<Source>> {
        let mut alike: BTreeMap<ServiceId, Vec<Source>> = BTreeMap::new();
        let alarms: Vec<&Finding> = findings.iter().filter(|finding| finding.is_alarm()).collect();
        let mut services: BTreeSet<_> = alarms.iter().map(|alarm| alarm.cell.service).collect();
        services.extend(self.fleets.services(end_s));
        services.retain(|service| self.clean[window].contains_key(service));
        // The first minute of a window is that of the first interval that is kept.
        let intervals = WINDOWS[window].intervals as u64;
        let from = (end_s / INTERVAL_S).saturating_sub(intervals);
        let kept = self.intervals.iter().map(|interval| interval.number).find(|number| *number >= from);
        for service in services {
            let alarms: Vec<_> =
                alarms.iter().copied().filter(|alarm| alarm.cell.service == service).collect();
            let clean = || self.clean[window].get(&service).into_iter().flatten().collect::<Vec<_>>();
            let users = self.users[window].entry(service).or_insert_with(|| Users::of(&clean(), &self.kinds));
            let with_clean = (0..WINDOWS.len()).filter(|&length| self.clean[length].contains_key(&service));
            let lengths_s: Vec<_> =
                with_clean.map(|length| WINDOWS[length].intervals as u64 * INTERVAL_S).collect();
            let mut looked = Looked {
                service,
                start_s: kept.unwrap_or(from) * INTERVAL_S,
                end_s,
                length_s: intervals * INTERVAL_S,
                lengths_s: &lengths_s,
                alarms: &alarms,
                population: &profile::Population::default(),
                not_asked: &[],
                of_users: users,
                kinds: &self.kinds,
            };
            if !self.fleets.is_asked(&looked) {
                continue;
            }
            let refused = self.fleets.refused(service, end_s, looked.start_s);
            let is_refused = |source: &Source| refused.binary_search(source).is_ok();
            let mut populations = profile::populations(merged, &self.kinds, |block| {
                let kind = self.kinds.kind(block.kind);
                kind.service == service && (kind.tls_key != 0 || !is_refused(&block.source))
            });
            // There is nobody where all are refused.
            let population = populations.entry(service).or_default();
            let is_asked = |source: &Source| {
                population.sources.binary_search_by_key(source, |active| active.source).is_ok()
            };
            let mut not_asked = population.unseen(&self.kinds);
            not_asked.extend(refused.iter().filter(|source| !is_asked(source)));
            not_asked.sort_unstable();
            population.leave_out(&not_asked);
            looked.not_asked = &not_asked;
            looked.population = population;
            let known = self.fleets.known(service, end_s);
            let groups = membership::attribute(&Question {
                service,
                start_s: looked.start_s,
                window: merged,
                population,
                users,
                alarms: &alarms,
                known: &known,
                kinds: &self.kinds,
                projections: &self.projections,
            });
            let of_service = alike.entry(service).or_default();
            groups.iter().for_each(|group| of_service.extend(&group.earlier));
            of_service.sort_unstable();
            self.fleets.update(&looked, groups);
        }
        alike
    }

    /// Whether sources of a service were known a day before an interval: before that all of them are new.
    fn tells_new_from_known(&self, service: ServiceId, number: u64) -> bool {
        self.began.get(&service).is_some_and(|(began, _)| began + NEW_S / INTERVAL_S <= number)
    }

    /// Learns from the windows whose time has come, but for cells with an alarm since they began.
    fn learn(&mut self, number: u64) {
        while self.lessons.front().is_some_and(|lesson| lesson.due <= number) {
            let Some(Lesson { due, window, counted, clean }) = self.lessons.pop_front() else { break };
            let began = (due - LEARNED_AFTER).saturating_sub(WINDOWS[window].intervals as u64);
            let alarmed: HashSet<_> =
                self.alarmed.iter().filter(|(_, at)| **at >= began).map(|(cell, _)| *cell).collect();
            self.histories[window].learn(&counted, &alarmed, due);
            for (service, clean) in clean {
                if alarmed.iter().any(|cell| cell.service == service) {
                    continue;
                }
                let windows = self.clean[window].entry(service).or_default();
                windows.push_back(clean);
                self.users[window].remove(&service);
                while windows.len() > CLEAN_WINDOWS_MAX {
                    windows.pop_front();
                }
            }
        }
        // Not before: after a pause lessons are late.
        let kept_for = LEARNED_AFTER + INTERVALS_MAX as u64;
        self.alarmed.retain(|_, at| *at + kept_for >= number);
    }

    /// The fleets that were found, by number, also those that are quiet.
    pub fn fleets(&self) -> impl Iterator<Item = &Fleet> {
        self.fleets.iter()
    }

    /// Numbers of fleets up to this one were given before, by a memory that was lost: the next one has a higher one.
    pub const fn number_fleets_after(&mut self, last: u64) {
        self.fleets.number_after(last);
    }

    /// Members that found no room, in all.
    pub const fn left_out(&self) -> u64 {
        self.fleets.left_out()
    }

    /// From when on a fleet may be found at a service, seconds since the Unix epoch: after a day in which all is new, when a day of windows
    /// was learned from. `None`: nothing was seen of it.
    pub fn learned_from_s(&self, service: ServiceId) -> Option<u64> {
        let (began, _) = self.began.get(&service)?;
        Some((began + NEW_S / INTERVAL_S + LEARNED_AFTER + DAY) * INTERVAL_S)
    }

    /// The kinds of client that blocks and cells are of.
    pub const fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// The memory of sources.
    pub const fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Intervals that are kept, the oldest first.
    pub fn intervals(&self) -> impl Iterator<Item = &Interval> {
        self.intervals.iter()
    }

    /// Observations of clients that found no room in their interval, in all.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Observations that came too late to be counted.
    pub const fn late(&self) -> u64 {
        self.late
    }
}
