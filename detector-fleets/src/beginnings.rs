//! Where fleets begin: cells with an alarm, and members that are known; and which of those are of one fleet.

use crate::{
    evidence::Evidence,
    family::Family,
    limits::{ALARMED_CELLS_MAX, FLEETS_OF_LOOK_MAX},
    membership::Question,
    mixture::Beginning,
    profile::{Active, Population},
    traits::{self, SYNCHRONOUS_MINUTES},
};

/// Two beginnings are of one fleet where so much of the smaller one is in both.
const OVERLAP_MIN: f64 = 0.5;

/// The part of a known member that is taken for a fleet's at first.
const KNOWN_WEIGHT: f64 = 0.9;

/// Where fleets begin: alarmed cells, and members that are known, and which sources are in which of them.
pub(crate) struct Beginnings {
    /// Which alarms, those with the most evidence first.
    pub(crate) alarms: Vec<usize>,
    /// For each source a bit for each alarm, and above them one for each known fleet.
    pub(crate) of_sources: Vec<u128>,
    /// How many sources are in each pair.
    in_both: Vec<Vec<u32>>,
    weights: Vec<f64>,
    is_proxied: Vec<bool>,
}

impl Beginnings {
    pub(crate) fn of(question: &Question<'_>) -> Self {
        let mut alarms: Vec<_> = (0..question.alarms.len()).collect();
        alarms.sort_by(|&one, &other| {
            let total = |alarm: usize| question.alarms[alarm].total();
            total(other).total_cmp(&total(one)).then(one.cmp(&other))
        });
        alarms.truncate(ALARMED_CELLS_MAX);
        let known = &question.known[..question.known.len().min(FLEETS_OF_LOOK_MAX)];
        let all = alarms.len() + known.len();
        // Of each cell the bit of its alarm.
        let mut bits_of_cells = vec![0_u128; question.projections.len()];
        for (bit, &alarm) in alarms.iter().enumerate() {
            if let Some(number) = question.projections.number(&question.alarms[alarm].cell) {
                bits_of_cells[number as usize] |= 1 << bit;
            }
        }
        let of_alarms = |active: &Active| {
            let blocks = Population::blocks(active, question.window, question.kinds, question.service);
            let cells =
                blocks.filter(|block| block.is_new()).map(|block| question.projections.cells_of(block));
            cells.flatten().fold(0, |bits, cell| bits | bits_of_cells[cell as usize])
        };
        let of_known = |active: &Active| {
            let of = known.iter().enumerate();
            let of = of.filter(|(_, known)| known.members.binary_search(&active.source).is_ok());
            of.fold(0, |bits, (bit, _)| bits | 1 << (alarms.len() + bit))
        };
        let sources = question.population.sources.iter();
        let of_sources: Vec<u128> = match alarms.is_empty() {
            true => sources.map(of_known).collect(),
            false => sources.map(|active| of_known(active) | of_alarms(active)).collect(),
        };
        let mut in_both = vec![vec![0; all]; all];
        for &bits in of_sources.iter().filter(|bits| **bits != 0) {
            for one in bits_of(bits) {
                bits_of(bits).for_each(|other| in_both[one][other] += 1);
            }
        }
        // Who is not asked is refused, and is too many: less of those who are asked is.
        let of_alarm = |(bit, &alarm): (usize, &usize)| {
            let (finding, asked) = (question.alarms[alarm], f64::from(in_both[bit][bit]));
            let excess = asked - finding.expected_sources;
            (excess / asked.max(1.0)).clamp(0.01, 0.99)
        };
        let of_known = std::iter::repeat_n(KNOWN_WEIGHT, known.len());
        let weights = alarms.iter().enumerate().map(of_alarm).chain(of_known).collect();
        let is_proxied = |&alarm: &usize| {
            let finding = question.alarms[alarm];
            let is_evident =
                |evidence: &Evidence| evidence.family == Family::Path && evidence.log_factor > 0.0;
            finding.evidence.iter().any(is_evident) || finding.cell.common.is_proxied()
        };
        // What joins two known fleets has to be members: which of two that come through proxies an alarm is about, the way does not tell.
        let is_only = known.iter().filter(|known| known.is_proxied).count() == 1;
        let known_proxied = known.iter().map(|known| is_only && known.is_proxied);
        let is_proxied = alarms.iter().map(is_proxied).chain(known_proxied).collect();
        Self { alarms, of_sources, in_both, weights, is_proxied }
    }

    /// Whether two are of one fleet: most of one is in the other, or a proxy is on the way to both.
    fn is_one_fleet(&self, one: usize, other: usize) -> bool {
        let of = |beginning: usize| self.in_both[beginning][beginning];
        let smaller = f64::from(of(one).min(of(other)));
        let overlaps = smaller > 0.0 && f64::from(self.in_both[one][other]) >= OVERLAP_MIN * smaller;
        overlaps || self.is_proxied[one] && self.is_proxied[other]
    }

    /// Beginnings by fleets, as bits.
    pub(crate) fn groups(&self) -> Vec<u128> {
        let all = self.in_both.len();
        let mut groups: Vec<u128> = Vec::new();
        for one in 0..all {
            let mut joined = 1_u128 << one;
            groups.retain(|&group| {
                let is_joined = bits_of(group).any(|other| self.is_one_fleet(one, other));
                if is_joined {
                    joined |= group;
                }
                !is_joined
            });
            groups.push(joined);
        }
        groups.sort_by_key(|group| group.trailing_zeros());
        groups
    }

    /// How much the sources of a group's alarms that are too many keep to a minute of the hour: the mean over alarms. Others come at any.
    pub(crate) fn synchrony(&self, group: u128, population: &Population) -> f64 {
        let alarms = (1_u128 << self.alarms.len()) - 1;
        let (mut sum, mut all) = (0.0, 0.0);
        for bit in bits_of(group & alarms) {
            let of_alarm = population.sources.iter().zip(&self.of_sources);
            let of_alarm = of_alarm.filter(|(_, bits)| *bits >> bit & 1 == 1).map(|(active, _)| active);
            let weight = self.weights[bit];
            let others = (1.0 - weight) * SYNCHRONOUS_MINUTES as f64 / 60.0;
            let excess = weight * f64::from(self.in_both[bit][bit]);
            sum += excess * ((traits::synchrony(of_alarm) - others) / weight).clamp(0.0, 1.0);
            all += excess;
        }
        if all > 0.0 { sum / all } else { 0.0 }
    }

    /// Whether a source with these bits is a member of a known fleet.
    pub(crate) fn is_known(&self, bits: u128) -> bool {
        bits >> self.alarms.len() != 0
    }

    /// How many sources of each profile are members of none.
    pub(crate) fn newcomers(&self, population: &Population) -> Vec<u32> {
        let mut newcomers = vec![0; population.profiles.len()];
        let sources = population.sources.iter().zip(&self.of_sources);
        for (active, _) in sources.filter(|(_, bits)| !self.is_known(**bits)) {
            newcomers[active.profile as usize] += 1;
        }
        newcomers
    }

    /// The mean weight of each group in each profile, and what part of the profile is in the group.
    pub(crate) fn weighted(&self, groups: &[u128], question: &Question<'_>) -> Vec<Beginning> {
        let profiles = &question.population.profiles;
        let none = vec![0.0; profiles.len()];
        let mut weighted = vec![Beginning { weights: none.clone(), teaching: none }; groups.len()];
        for (active, &bits) in question.population.sources.iter().zip(&self.of_sources) {
            if bits == 0 {
                continue;
            }
            let of_group =
                |group: &u128| bits_of(bits & group).map(|bit| self.weights[bit]).fold(0.0, f64::max);
            let sum: f64 = groups.iter().map(of_group).sum();
            let place = active.profile as usize;
            let of_profile = 1.0 / f64::from(profiles[place].1);
            for (Beginning { weights, teaching }, group) in weighted.iter_mut().zip(groups) {
                weights[place] += of_group(group) / sum.max(1.0) * of_profile;
                teaching[place] += f64::from(u8::from(bits & group != 0)) * of_profile;
            }
        }
        weighted
    }
}

pub(crate) fn bits_of(mut bits: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(next)
    })
}
