//! What the new sources of a cell say against what was expected of them.

use crate::{
    cells::{Cell, Cells, Counts},
    dirichlet::{log_likelihood, log_rising},
    family::Family,
    history::{Histories, History},
    span::Span,
};

/// The most that each family may say.
const fn cap(family: Family) -> f64 {
    match family {
        Family::Homogeneity | Family::Size => 15.0,
        Family::Path => 20.0,
    }
}

/// The least that each may say: what speaks against a fleet in one must not outweigh all that speaks for it in others.
pub const LEAST: f64 = -4.0;

/// Added to each parameter of what is expected, so that what never came is not impossible.
const UNEXPECTED: f64 = 0.001;

/// A concentration where none was measured yet: shares may be anything.
const CONCENTRATION_UNKNOWN: f64 = 2.0;

/// So many sources a cell has beside its own as all of its service do, and a service spread over all categories: what never came is
/// rare, not impossible.
const PARENT_SOURCES: f64 = 30.0;
const UNIFORM_SOURCES: f64 = 10.0;

/// The part of a fleet that is in one span of categories.
const IN_SPAN: f64 = 0.8;

/// The part of the excess that a span has to have beyond what users have there.
const SUBSTANCE_MIN: f64 = 0.4;

/// The same of what sources did in a cell with a history that is not of those behind proxies. Who moves behind one changes what such a cell does by more.
const SUBSTANCE_OF_HOMOGENEITY_MIN: f64 = 0.3;

/// The part of a fleet's sources in a band that are spread over it evenly; the others are there as users are.
const EVEN_IN_BAND: f64 = 0.5;

/// Shares of so many sources, with some more of a fixed share.
fn mixed(shares: impl Iterator<Item = f64>, sources: f64, share: f64, more: f64) -> Vec<f64> {
    shares.map(|own| (own * sources + share * more) / (sources + more)).collect()
}

/// What a family says of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Which.
    pub family: Family,
    /// The log of how much likelier the cell is a fleet, from [`LEAST`] to a cap.
    pub log_factor: f64,
    /// The categories that most of the excess is in.
    pub span: Span,
    /// The share of the cell's sources in them.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
}

/// A cell with more new sources than expected.
#[derive(Clone, Copy, Debug)]
pub struct Excess<'a> {
    /// Which.
    pub cell: &'a Cell,
    /// Its new sources.
    pub counts: &'a Counts,
    /// How many there are more than expected.
    pub excess: f64,
}

/// What each family says of a cell. Of one that the way defines the family of ways is asked about the sources that it was taken out of:
/// more of them are behind proxies than ever.
pub fn weigh(excess: &Excess<'_>, cells: &Cells, histories: &Histories) -> Vec<Evidence> {
    let cell = excess.cell;
    let of_family = |family: Family| {
        if cell.common.is_tested_by(family) {
            return weigh_family(excess, histories, family);
        }
        let all = Cell { common: cell.common.without_path()?, ..*cell };
        let counts = cells.get(&all)?;
        weigh_family(&Excess { cell: &all, counts, ..*excess }, histories, family)
    };
    Family::ALL.into_iter().filter_map(of_family).collect()
}

fn weigh_family(excess: &Excess<'_>, histories: &Histories, family: Family) -> Option<Evidence> {
    let counts = excess.counts.of(family);
    let sources = f64::from(counts.iter().sum::<u32>());
    if sources == 0.0 {
        return None;
    }
    let users = Expected::of(excess.cell, histories, family)?;
    let part = (excess.excess / f64::from(excess.counts.sources)).clamp(0.0, 1.0);
    // Of what never came before it is not known what its users do: they may differ from all others.
    let has_bands = family == Family::Homogeneity
        && !excess.cell.common.is_proxied()
        && histories.of(excess.cell).is_some_and(History::is_enough);
    let substance_min = if has_bands { SUBSTANCE_OF_HOMOGENEITY_MIN } else { SUBSTANCE_MIN };
    let fleet = Beside { family, part, has_bands, more_min: substance_min * part };
    let (fleet, span) = users.beside(&fleet, counts)?;
    let mut as_users = users.log(counts);
    if family == Family::Homogeneity && excess.cell.common.is_of_all_proxied() {
        as_users = as_users.max(users.log_of_movers(counts, part));
    }
    let says = fleet - as_users;
    let observed: u32 = span.categories(family).map(|category| counts[category]).sum();
    let observed = f64::from(observed) / sources;
    let expected = span.categories(family).map(|category| users.shares[category]).sum();
    let says = if observed - expected >= substance_min * part { says } else { says.min(0.0) };
    Some(Evidence { family, log_factor: says.clamp(LEAST, cap(family)), span, observed, expected })
}

/// A fleet that may be beside users.
struct Beside {
    family: Family,
    /// Its part of the sources.
    part: f64,
    /// Whether it may be in a band.
    has_bands: bool,
    /// How much more of the sources its span has to have than of users: that users do something else than before is no fleet, the excess has to do
    /// one thing.
    more_min: f64,
}

/// What is expected of the users of a cell, by categories of a family.
struct Expected {
    shares: Vec<f64>,
    /// Those of all users of the service.
    of_service: Vec<f64>,
    /// How little shares vary.
    concentration: f64,
}

impl Expected {
    fn of(cell: &Cell, histories: &Histories, family: Family) -> Option<Self> {
        let of_service = histories.of_service(cell.service)?;
        let seen = of_service.shares(family)?;
        let own = histories.of(cell).filter(|own| own.is_enough());
        let parent =
            mixed(seen.iter().copied(), of_service.known(family), 1.0 / seen.len() as f64, UNIFORM_SOURCES);
        let shares = match own.and_then(|own| Some((own.shares(family)?, own.known(family)))) {
            Some((shares, sources)) => shares
                .iter()
                .zip(&parent)
                .map(|(share, parent)| {
                    (share * sources + parent * PARENT_SOURCES) / (sources + PARENT_SOURCES)
                })
                .collect(),
            None => parent.clone(),
        };
        let between = || histories.concentration_between(cell, family);
        let concentration = own
            .and_then(|own| own.concentration(family))
            .or_else(between)
            .or_else(|| of_service.concentration(family))
            .unwrap_or(CONCENTRATION_UNKNOWN);
        Some(Self { shares, of_service: parent, concentration })
    }

    /// The sum of all parameters.
    fn total(&self) -> f64 {
        self.concentration + UNEXPECTED * self.shares.len() as f64
    }

    /// The log of how likely counts are of users.
    fn log(&self, counts: &[u32]) -> f64 {
        log_likelihood(counts, self.total(), |category| {
            self.concentration * self.shares[category] + UNEXPECTED
        })
    }

    /// The same where a part of them came from elsewhere in the service and does what it did there: people who moved behind a relay.
    fn log_of_movers(&self, counts: &[u32], part: f64) -> f64 {
        log_likelihood(counts, self.total(), |category| {
            let share = (1.0 - part) * self.shares[category] + part * self.of_service[category];
            self.concentration * share + UNEXPECTED
        })
    }

    /// How a fleet's sources in a span are spread over it: a function of the category.
    fn within(&self, span: Span, family: Family) -> impl Fn(usize) -> f64 {
        let even = 1.0 / span.len() as f64;
        let of_users: f64 = span.categories(family).map(|category| self.shares[category]).sum();
        move |category| {
            if span.is_band() && of_users > 0.0 {
                EVEN_IN_BAND * even + (1.0 - EVEN_IN_BAND) * self.shares[category] / of_users
            } else {
                even
            }
        }
    }

    /// The log of how likely counts are of users beside a fleet, most of which is in one span of categories: the mean over all spans that have
    /// more than users do, or over all where none has, each of its shapes as likely as the others. And the likeliest span.
    fn beside(&self, fleet: &Beside, counts: &[u32]) -> Option<(f64, Span)> {
        let Beside { family, part, has_bands, more_min } = *fleet;
        let in_span = part * IN_SPAN;
        let of_users =
            |category: usize| self.concentration * self.shares[category] * (1.0 - in_span) + UNEXPECTED;
        let all = log_likelihood(counts, self.total(), of_users);
        let bands = if has_bands { Span::bands() } else { Vec::new() };
        let hypotheses = self.shares.len().min(family.evidences()) * Span::shapes(family) + bands.len();
        let sources = f64::from(counts.iter().sum::<u32>());
        // By whether the span has enough, and how likely it is.
        let mut likely: Vec<(bool, f64, Span)> = Vec::new();
        for span in Span::all(family).into_iter().chain(bands) {
            let within = self.within(span, family);
            let with_sources = span.categories(family).filter(|&category| counts[category] > 0);
            let more = with_sources.map(|category| {
                let (own, count) = (of_users(category), counts[category]);
                let more = self.concentration * in_span * within(category);
                log_rising(own + more, count) - log_rising(own, count)
            });
            let more: f64 = more.sum();
            if more <= 0.0 {
                continue;
            }
            let beyond = |category: usize| f64::from(counts[category]) / sources - self.shares[category];
            let is_enough = span.categories(family).map(beyond).sum::<f64>() >= more_min;
            likely.push((is_enough, more, span));
        }
        let rank = |one: &(bool, f64, Span)| (one.0, one.1);
        let (is_enough, _, span) = likely
            .iter()
            .copied()
            .reduce(|best, next| if rank(&next) > rank(&best) { next } else { best })?;
        let logs: Vec<_> = likely.iter().filter(|one| one.0 == is_enough).map(|one| one.1).collect();
        Some((all + log_sum(&logs) - (hypotheses as f64).ln(), span))
    }
}

/// The log of a sum of what the logs are of.
fn log_sum(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + logs.iter().map(|log| (log - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{LIVES, VOLUMES};

    const CATEGORIES: usize = VOLUMES * LIVES;

    /// Users: each class of volume has half of the one before, all lives alike.
    fn users() -> Expected {
        let weights: Vec<f64> =
            (0..CATEGORIES).map(|category| 0.5_f64.powi((category / LIVES) as i32)).collect();
        let sum: f64 = weights.iter().sum();
        let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        Expected { of_service: shares.clone(), shares, concentration: 50.0 }
    }

    fn counts(shares: &[f64], sources: f64) -> Vec<u32> {
        shares.iter().map(|share| (share * sources).round() as u32).collect()
    }

    /// Beside 60 users, 240 sources of one actor that do as much as each other, and were seen for any time.
    #[test]
    fn those_of_one_actor_are_in_a_band_whenever_they_came() {
        let users = users();
        let mut counts = counts(&users.shares, 60.0);
        (2 * LIVES..4 * LIVES).for_each(|category| counts[category] += 24);
        let with = |has_bands| {
            let fleet = Beside { family: Family::Homogeneity, part: 0.8, has_bands, more_min: 0.24 };
            users.beside(&fleet, &counts).expect("there is a span")
        };
        let ((bands, span), (spans, _)) = (with(true), with(false));
        assert_eq!(span, Span { first: [2, 0], sides: [2, LIVES as u8] });
        assert!(bands > spans + 4.6, "{bands} with bands, {spans} without");
    }

    /// A cell had those with few connections; as many more do what all of the service do, or another thing.
    #[test]
    fn who_moves_does_as_all_of_the_service() {
        let all = users();
        let mut few = vec![0.001; CATEGORIES];
        few[..LIVES].fill(0.194);
        let users = Expected { shares: few, ..all };
        let moved: Vec<f64> =
            users.shares.iter().zip(&users.of_service).map(|(own, all)| (own + all) / 2.0).collect();
        let gain = |counts: &[u32]| users.log_of_movers(counts, 0.5) - users.log(counts);
        assert!(gain(&counts(&moved, 400.0)) > 10.0);
        let mut fleet = counts(&users.shares, 200.0);
        fleet[6 * LIVES] += 200;
        assert!(gain(&fleet) < gain(&counts(&moved, 400.0)));
    }
}
