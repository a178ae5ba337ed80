//! A window as a mixture: users as they were in clean windows, and fleets.
//!
//! Users are described once, from clean windows, and stay what they are ([`crate::users`]). A fleet is one
//! multinomial for each of their features, independent of the others. What share of each profile is whose is found by expectation maximisation
//! (Dempster, Laird & Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm").

use crate::{
    interval::Kinds,
    profile::{self, Profile},
    users::{Keyed, Users},
};

/// Rounds of expectation and maximisation, at most.
const ROUNDS_MAX: usize = 30;

/// Rounds end when the sizes of all fleets change by less than this part.
const CHANGE_MIN: f64 = 1e-3;

/// Sources of a fleet that are users in all they do: what no member did so far is unlikely, not impossible.
const USERS_IN_FLEET: f64 = 2.0;

/// Features that a fleet has a multinomial of: TLS, SYN, newness and those of profiles.
const FEATURES: usize = 3 + profile::FEATURES;

/// A profile by the number of its value for each feature.
type Point = [u32; FEATURES];

/// A number for each value of each feature.
type Sums = [Box<[f64]>; FEATURES];

fn point(profile: &Profile, keyed: &Keyed<'_>) -> Point {
    let [tls, syn] = keyed.keys(profile.kind);
    let [homogeneity, path, size, neighbours] = profile.features().map(u32::from);
    [tls, syn, profile.is_new.into(), homogeneity, path, size, neighbours]
}

/// The shares of users.
fn shares_of_users(users: &Users, keyed: &Keyed<'_>) -> Sums {
    let of_feature = |feature| {
        let categories = 0..profile::categories_of(feature);
        categories.map(move |category| users.share_of_category(feature, category)).collect()
    };
    let [homogeneity, path, size, neighbours] = std::array::from_fn(of_feature);
    [
        (0..keyed.lengths[0]).map(|tls| keyed.share_of_tls(tls)).collect(),
        (0..keyed.lengths[1]).map(|syn| keyed.share_of_syn(syn)).collect(),
        [false, true].map(|is_new| users.share_of_new(is_new)).into(),
        homogeneity,
        path,
        size,
        neighbours,
    ]
}

/// A fleet of a mixture.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its sources, as far as they are its own.
    pub sources: f64,
    /// Of each value of each feature its sources, with some users.
    sums: Sums,
}

impl Component {
    fn of(points: &[Point], counts: &[f64], weights: &[f64], users: &Sums) -> Self {
        let mut sums = users.clone();
        sums.iter_mut().flatten().for_each(|sum| *sum *= USERS_IN_FLEET);
        let mut sources = 0.0;
        for ((point, count), weight) in points.iter().zip(counts).zip(weights) {
            if *weight < 1e-9 {
                continue;
            }
            sources += count * weight;
            for (sums, &value) in sums.iter_mut().zip(point) {
                sums[value as usize] += count * weight;
            }
        }
        Self { sources, sums }
    }

    /// The log of how likely a member is this, by all others: a source whose weight `own` is part of the sums would speak for itself, and what
    /// nobody else does would be what members do.
    fn log(&self, point: &Point, own: f64) -> f64 {
        let of_values =
            self.sums.iter().zip(point).map(|(sums, &value)| (sums[value as usize] - own).max(1e-12));
        let all = (self.sources + USERS_IN_FLEET - own).max(1e-12);
        (of_values.product::<f64>() / all.powi(FEATURES as i32)).max(f64::MIN_POSITIVE).ln()
    }
}

/// Where a fleet begins, by the profiles of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Beginning {
    /// The part of the sources of each profile that is the fleet's at first, 0 to 1.
    pub weights: Vec<f64>,
    /// The part that is in alarmed cells or among known members, 0 to 1: of these a fleet learns what it is. Others are asked and teach nothing,
    /// or it would move on to whatever more users do now than did in clean windows.
    pub teaching: Vec<f64>,
}

/// A window of sources as users and fleets.
#[derive(Clone, Debug)]
pub struct Mixture {
    /// Fleets, as many as there were beginnings.
    pub fleets: Vec<Component>,
    /// Sources of the window.
    pub sources: f64,
    /// For each fleet and each profile of the window: the log of how much likelier a member has it than a user.
    pub scores: Vec<Vec<f64>>,
    /// For each fleet and each profile of clean windows: the same.
    pub clean_scores: Vec<Vec<f64>>,
}

impl Mixture {
    /// Of the profiles of a window, each with how many sources have it, beside users. What the fleets have of a profile at first is in sum at
    /// most 1.
    pub fn of(profiles: &[(Profile, u32)], users: &Users, beginnings: Vec<Beginning>, kinds: &Kinds) -> Self {
        let keyed = Keyed::of(users, profiles, kinds);
        let points: Vec<_> = profiles.iter().map(|(profile, _)| point(profile, &keyed)).collect();
        let counts: Vec<_> = profiles.iter().map(|(_, count)| f64::from(*count)).collect();
        let of_users: Vec<_> = profiles.iter().map(|(profile, _)| keyed.log(profile)).collect();
        let (fleets, weights) =
            maximise(&points, &counts, &of_users, beginnings, &shares_of_users(users, &keyed));
        let scores = fleets.iter().zip(&weights).map(|(fleet, weights)| {
            let of_window = points.iter().zip(&of_users).zip(weights);
            of_window.map(|((point, log), own)| fleet.log(point, *own) - log).collect()
        });
        let scores = scores.collect();
        let clean_scores = fleets.iter().map(|fleet| {
            let of_clean = users.profiles().iter().zip(keyed.clean_logs());
            of_clean.map(|((profile, _), log)| fleet.log(&point(profile, &keyed), 0.0) - log).collect()
        });
        let clean_scores = clean_scores.collect();
        Self { fleets, sources: counts.iter().sum(), scores, clean_scores }
    }

    /// The log of how many members of a fleet there are for each user.
    pub fn odds(&self, fleet: usize) -> f64 {
        let members: f64 = self.fleets.iter().map(|fleet| fleet.sources).sum();
        (self.fleets[fleet].sources.max(1e-9) / (self.sources - members).max(1.0)).ln()
    }
}

fn maximise(
    points: &[Point],
    counts: &[f64],
    of_users: &[f64],
    beginnings: Vec<Beginning>,
    users: &Sums,
) -> (Vec<Component>, Vec<Vec<f64>>) {
    let sources: f64 = counts.iter().sum();
    let (mut weights, teaching): (Vec<_>, Vec<_>) =
        beginnings.into_iter().map(|beginning| (beginning.weights, beginning.teaching)).unzip();
    let components = |weights: &[Vec<f64>]| -> Vec<Component> {
        weights.iter().map(|weights| Component::of(points, counts, weights, users)).collect()
    };
    let mut fleets = components(&weights);
    let mut logs = vec![0.0; fleets.len()];
    for _ in 0..ROUNDS_MAX {
        let members: f64 = fleets.iter().map(|fleet| fleet.sources).sum();
        let users_share = ((sources - members) / sources).max(1e-9).ln();
        // A fleet of less than one source is none, and does not come back.
        let share = |fleet: &Component| if fleet.sources < 1.0 { 0.0 } else { fleet.sources / sources };
        let shares: Vec<_> = fleets.iter().map(|fleet| share(fleet).ln()).collect();
        for (place, point) in points.iter().enumerate() {
            let of_users = of_users[place] + users_share;
            let mut most = of_users;
            for (((log, fleet), share), weights) in logs.iter_mut().zip(&fleets).zip(&shares).zip(&weights) {
                *log = fleet.log(point, weights[place]) + share;
                most = most.max(*log);
            }
            let sum = (of_users - most).exp() + logs.iter().map(|log| (log - most).exp()).sum::<f64>();
            for ((weights, teaching), log) in weights.iter_mut().zip(&teaching).zip(&logs) {
                weights[place] = teaching[place] * (log - most).exp() / sum;
            }
        }
        let next = components(&weights);
        let change: f64 =
            next.iter().zip(&fleets).map(|(next, fleet)| (next.sources - fleet.sources).abs()).sum();
        fleets = next;
        if change < CHANGE_MIN * members {
            break;
        }
    }
    (fleets, weights)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        block::KindId,
        observation::{Kind, ServiceId},
    };

    const WEB: ServiceId = ServiceId(0);

    /// Kinds 0 to 3: three browsers, and the first one's ClientHello with another SYN.
    pub(crate) fn kinds() -> Kinds {
        let mut kinds = Kinds::default();
        for (tls_key, syn_key) in [(1, 7), (2, 7), (3, 8), (1, 9)] {
            kinds.number(Kind { service: WEB, syn_key, tls_key });
        }
        kinds
    }

    /// Users of three browsers, of which one in four is new, do all kinds of things; `number` stands for chance.
    pub(crate) fn user(number: u64) -> Profile {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
        Profile {
            kind: KindId((random % 3) as u32),
            is_new: (random / 3).is_multiple_of(4),
            categories: [(random / 12 % 35) as u16, (random / 420 % 3) as u16, (random / 1260 % 40) as u16],
            neighbours: 0,
        }
    }

    /// Members have a proxy's way and few sizes.
    pub(crate) fn member(number: u64) -> Profile {
        Profile {
            kind: KindId(3),
            is_new: true,
            categories: [(number % 3) as u16, 30 + (number % 2) as u16, 200],
            neighbours: 0,
        }
    }

    pub(crate) fn counted(profiles: impl Iterator<Item = Profile>) -> Vec<(Profile, u32)> {
        let mut counts = BTreeMap::new();
        profiles.for_each(|profile| *counts.entry(profile).or_insert(0) += 1);
        counts.into_iter().collect()
    }

    fn clean(users: u64) -> Vec<(Profile, f64)> {
        counted((1_000_000..1_000_000 + users).map(user))
            .into_iter()
            .map(|(profile, count)| (profile, f64::from(count)))
            .collect()
    }

    /// A window of 4,000 users and 200 members; of the new ones with the first ClientHello a third belongs to the fleet at first.
    fn mixture(beginning: impl Fn(&Profile) -> f64) -> (Vec<(Profile, u32)>, Mixture) {
        let window = counted((0..4000).map(user).chain((0..200).map(member)));
        let mixture = mixture_of(&window, clean(20_000), vec![beginning_of(&window, beginning)]);
        (window, mixture)
    }

    fn mixture_of(
        window: &[(Profile, u32)],
        clean: Vec<(Profile, f64)>,
        beginnings: Vec<Beginning>,
    ) -> Mixture {
        Mixture::of(window, &Users::of_profiles(clean, &kinds()), beginnings, &kinds())
    }

    /// All of a profile teaches that has a weight.
    fn beginning_of(window: &[(Profile, u32)], weight: impl Fn(&Profile) -> f64) -> Beginning {
        let weights: Vec<_> = window.iter().map(|(profile, _)| weight(profile)).collect();
        let teaching = weights.iter().map(|weight| f64::from(u8::from(*weight > 0.0))).collect();
        Beginning { weights, teaching }
    }

    #[test]
    fn a_fleet_is_told_from_users_with_its_key() {
        let (window, mixture) =
            mixture(|profile| if profile.is_new && matches!(profile.kind.0, 0 | 3) { 0.3 } else { 0.0 });
        let found = mixture.fleets[0].sources;
        assert!((195.0..210.0).contains(&found), "{found} of 200");
        for ((profile, _), score) in window.iter().zip(&mixture.scores[0]) {
            let is_member = profile.kind.0 == 3;
            assert_eq!(score + mixture.odds(0) > 0.0, is_member, "{profile:?}: {score}");
        }
    }

    /// A user whom nobody is like is not what makes a fleet of what that user does, neither in the window nor in clean ones.
    #[test]
    fn nobody_speaks_for_itself() {
        let odd = |number: u16| Profile { kind: KindId(1), categories: [20, 50, 230 + number], ..member(1) };
        let users = (0..4000).map(user).chain((0..5).map(odd));
        let window = counted(users.chain((0..200).map(member)));
        let beginning =
            |profile: &Profile| if profile.kind.0 == 3 || profile.categories[2] >= 230 { 0.6 } else { 0.0 };
        let clean: Vec<_> = clean(20_000).into_iter().chain([(odd(0), 1.0)]).collect();
        let mixture = mixture_of(&window, clean, vec![beginning_of(&window, beginning)]);
        for ((profile, _), score) in window.iter().zip(&mixture.scores[0]) {
            let is_member = profile.kind.0 == 3;
            assert_eq!(score + mixture.odds(0) > 0.0, is_member, "{profile:?}: {score}");
        }
        let of_window = window.iter().position(|(profile, _)| *profile == odd(0)).expect("it is there");
        let (own, other) =
            (mixture.scores[0][of_window], *mixture.clean_scores[0].last().expect("it is there"));
        assert!((own - other).abs() < 0.1, "{own} and {other}");
    }

    #[test]
    fn fleets_with_different_keys_are_told_from_each_other() {
        let other = |number: u64| Profile { kind: KindId(2), categories: [9, 40, 111], ..member(number) };
        let window = counted((0..4000).map(user).chain((0..200).map(member)).chain((0..100).map(other)));
        let beginning = |kind: u32| {
            beginning_of(&window, |profile| if profile.is_new && profile.kind.0 == kind { 0.4 } else { 0.0 })
        };
        let mixture = mixture_of(&window, clean(20_000), vec![beginning(3), beginning(2)]);
        let found: Vec<_> = mixture.fleets.iter().map(|fleet| fleet.sources).collect();
        assert!((195.0..210.0).contains(&found[0]) && (95.0..110.0).contains(&found[1]), "{found:?}");
    }

    /// Half of the members are in alarmed cells.
    #[test]
    fn a_fleet_learns_where_it_begins_and_asks_everywhere() {
        let window = counted((0..4000).map(user).chain((0..200).map(member)));
        let of_fleet = beginning_of(&window, |profile| if profile.kind.0 == 3 { 0.3 } else { 0.0 });
        let half = of_fleet.teaching.iter().map(|teaching| teaching / 2.0).collect();
        let mixture = mixture_of(&window, clean(20_000), vec![Beginning { teaching: half, ..of_fleet }]);
        let found = mixture.fleets[0].sources;
        assert!((95.0..105.0).contains(&found), "{found} of 100");
        for ((profile, _), score) in window.iter().zip(&mixture.scores[0]) {
            assert_eq!(score + mixture.odds(0) > 0.0, profile.kind.0 == 3, "{profile:?}: {score}");
        }
    }

    /// Where nothing begins nothing comes to be.
    #[test]
    fn without_a_beginning_there_is_no_fleet() {
        let (_, mixture) = mixture(|_| 0.0);
        assert!(mixture.fleets[0].sources < 1.0, "{}", mixture.fleets[0].sources);
    }
}
