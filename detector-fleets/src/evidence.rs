//! What the new sources of a cell say against what was expected of them.

use crate::{
    cells::{Cell, Counts},
    dirichlet::{entropy, entropy_of, log_likelihood},
    family::{self, Family},
    history::Histories,
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

/// Parameters of what a fleet does, which is not known: spread over the categories that were ever seen, so much for each or so much for
/// all, and as all of the service do.
const WIDE_EACH: f64 = 0.5;
const NARROW: f64 = 2.0;
const LIKE_USERS: f64 = 2.0;

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
    /// What was observed, in one number: of homogeneity the share of sources that are no heavy users, of path that behind a proxy, of size
    /// that of the most frequent pair of sizes.
    pub observed: f64,
    /// What was expected.
    pub expected: f64,
}

/// In which direction a fleet differs, as one number for reports: of homogeneity the share of sources that are no heavy users, of path
/// that behind a proxy, of size that of the most frequent pair of sizes.
fn measure(family: Family, shares: impl Iterator<Item = f64>) -> f64 {
    match family {
        Family::Homogeneity => sum_of(shares, |category| !family::is_heavy(category)),
        Family::Path => sum_of(shares, |evidence| evidence == 1),
        Family::Size => shares.fold(0.0, f64::max),
    }
}

fn sum_of(shares: impl Iterator<Item = f64>, is_counted: impl Fn(usize) -> bool) -> f64 {
    shares.enumerate().filter(|(category, _)| is_counted(*category)).map(|(_, share)| share).sum()
}

/// What each family says of a cell that it does not define.
pub fn weigh(cell: &Cell, counts: &Counts, histories: &Histories) -> Vec<Evidence> {
    let families = Family::ALL.into_iter().filter(|family| cell.common.is_tested_by(*family));
    families.filter_map(|family| weigh_family(cell, counts, histories, family)).collect()
}

fn weigh_family(cell: &Cell, counts: &Counts, histories: &Histories, family: Family) -> Option<Evidence> {
    let of_service = histories.of_service(cell.service)?;
    let seen = of_service.shares(family)?;
    let own = histories.of(cell).filter(|own| own.is_enough());
    let parent =
        mixed(seen.iter().copied(), of_service.known(family), 1.0 / seen.len() as f64, UNIFORM_SOURCES);
    let expected = match own.and_then(|own| Some((own.shares(family)?, own.known(family)))) {
        Some((shares, sources)) => shares
            .iter()
            .zip(&parent)
            .map(|(share, parent)| (share * sources + parent * PARENT_SOURCES) / (sources + PARENT_SOURCES))
            .collect(),
        None => parent.clone(),
    };
    let between = || histories.concentration_between(cell, family);
    let concentration = own
        .and_then(|own| own.concentration(family))
        .or_else(between)
        .or_else(|| of_service.concentration(family))
        .unwrap_or(CONCENTRATION_UNKNOWN);

    let counts = counts.of(family);
    let sources = f64::from(counts.iter().sum::<u32>());
    if sources == 0.0 {
        return None;
    }
    let categories = counts.len() as f64;
    // Of all categories few are ever seen; what a fleet is allowed is spread over those.
    let is_possible = |category: usize| seen[category] > 0.0 || counts[category] > 0;
    let possible = (0..counts.len()).filter(|&category| is_possible(category)).count() as f64;
    let fleet_of = |spread: f64| {
        let total = spread + LIKE_USERS;
        log_likelihood(counts, total, |category| spread / possible + LIKE_USERS * parent[category])
    };
    // A fleet may be of a few categories or of many: the mean of both likelihoods.
    let (narrow, wide) = (fleet_of(NARROW.min(WIDE_EACH * possible)), fleet_of(WIDE_EACH * possible));
    let fleet = narrow.max(wide) + (-(narrow - wide).abs()).exp().ln_1p() - std::f64::consts::LN_2;
    let users = log_likelihood(counts, concentration + UNEXPECTED * categories, |category| {
        concentration * expected[category] + UNEXPECTED
    });
    let observed = || counts.iter().map(|&count| f64::from(count) / sources);
    let measured = (measure(family, observed()), measure(family, expected.iter().copied()));
    let is_more_even = entropy(counts) >= entropy_of(expected.iter().copied());
    let is_of_a_fleet = match family {
        Family::Homogeneity => measured.0 > measured.1 && !is_more_even,
        Family::Path => measured.0 > measured.1,
        Family::Size => !is_more_even,
    };
    let says = fleet - users;
    let says = if is_of_a_fleet { says } else { says.min(0.0) };
    Some(Evidence {
        family,
        log_factor: says.clamp(LEAST, cap(family)),
        observed: measured.0,
        expected: measured.1,
    })
}
