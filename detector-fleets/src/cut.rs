//! From which score on sources are taken for members: such that clean windows have nearly none above it.

/// The share of users' connections that acting on a fleet may cost at most: half of what an action may cost by default, since it begins at half
/// of that.
pub const COLLATERAL_MAX: f64 = 5e-5;

/// The part of the members that a cut has to keep, if it is taken because acting on its members would cost nearly nothing.
const KEPT_MIN: f64 = 0.9;

/// Added to how many clean sources are above a cut: that none was seen is not that there is none.
const UNSEEN: f64 = 0.5;

/// From which score on sources are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cut {
    pub(crate) score: f64,
    /// Users that are expected above it.
    pub(crate) innocents: f64,
    /// The share of users' connections that is expected to be theirs.
    pub(crate) collateral: f64,
    /// Sources of the window above it.
    sources: f64,
}

/// Sources of clean windows with a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Clean {
    pub(crate) score: f64,
    pub(crate) sources: f64,
    /// Of all of them.
    pub(crate) connections: f64,
}

/// Scores of a window and of clean ones that are not too low, each with how many sources have it, the highest first.
pub(crate) struct Scores {
    of_window: Vec<(f64, f64)>,
    of_clean: Vec<Clean>,
    /// Sources and connections of clean windows, whatever their scores are.
    all_clean: [f64; 2],
    users: f64,
}

impl Scores {
    /// Those of at least `least`.
    pub(crate) fn of(
        of_window: impl Iterator<Item = (f64, f64)>,
        of_clean: impl Iterator<Item = Clean> + Clone,
        users: f64,
        least: f64,
    ) -> Self {
        let sum = |[sources, connections]: [f64; 2], clean: Clean| {
            [sources + clean.sources, connections + clean.connections]
        };
        let all_clean = of_clean.clone().fold([0.0; 2], sum);
        let is_asked = |(score, sources): &(f64, f64)| *score >= least && *sources > 0.0;
        let mut of_window: Vec<_> = of_window.filter(is_asked).collect();
        let mut of_clean: Vec<_> = of_clean.filter(|clean| clean.score >= least).collect();
        of_window.sort_by(|one, other| other.0.total_cmp(&one.0));
        of_clean.sort_by(|one, other| other.score.total_cmp(&one.score));
        Self { of_window, of_clean, all_clean, users }
    }

    /// Those of other sources of the window, beside the same clean windows.
    pub(crate) fn of_others(self, of_window: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut of_window: Vec<_> = of_window.filter(|(_, sources)| *sources > 0.0).collect();
        of_window.sort_by(|one, other| other.0.total_cmp(&one.0));
        Self { of_window, ..self }
    }

    /// The cut for members: where it keeps nearly all of them, one above which acting costs users nearly nothing.
    pub(crate) fn members(&self, least: f64, innocents_max: f64) -> Cut {
        let all = self.cut(least, innocents_max, f64::INFINITY);
        let strict = self.cut(least, innocents_max, COLLATERAL_MAX);
        if strict.sources >= KEPT_MIN * all.sources { strict } else { all }
    }

    /// The lowest cut, not below `least`, above which users are at most a part of all that are above it, and at most a share of what users
    /// do is done by them.
    pub(crate) fn cut(&self, least: f64, innocents_max: f64, collateral_max: f64) -> Cut {
        let [all_sources, all_connections] = self.all_clean;
        let mut clean = self.of_clean.iter().peekable();
        // One that was not seen does as users do on average.
        let mean = all_connections / all_sources.max(1.0);
        let (mut above, mut clean_above, mut connections) = (0.0, UNSEEN, UNSEEN * mean);
        let mut found = Cut { score: f64::INFINITY, innocents: 0.0, collateral: 0.0, sources: 0.0 };
        for same in self.of_window.chunk_by(|one, next| one.0 == next.0) {
            let score = same[0].0;
            if score < least {
                break;
            }
            above += same.iter().map(|(_, count)| count).sum::<f64>();
            while let Some(next) = clean.next_if(|clean| clean.score >= score) {
                clean_above += next.sources;
                connections += next.connections;
            }
            let innocents = self.users * clean_above / all_sources.max(1.0);
            let collateral = connections / all_connections.max(1.0);
            if innocents <= innocents_max * above && collateral <= collateral_max {
                found = Cut { score, innocents, collateral, sources: above };
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Users of clean windows: 100,000, of which 1,000 score above 5 and 10,000 above 2, with a connection each; those with low scores have
    /// ten. The window has 500 users.
    fn scores(members: f64) -> Scores {
        let of = |score, sources, each: f64| Clean { score, sources, connections: sources * each };
        let clean = [of(6.0, 1000.0, 1.0), of(3.0, 9000.0, 1.0), of(-1.0, 90_000.0, 10.0)];
        let window = [(8.0, members), (5.5, members), (2.5, members), (-2.0, 500.0)];
        Scores::of(window.into_iter(), clean.into_iter(), 500.0, -10.0)
    }

    #[test]
    fn the_cut_is_the_lowest_with_few_users_above_it() {
        let cut = |members, least| scores(members).cut(least, 0.01, f64::INFINITY);
        let lowest = cut(2000.0, -10.0);
        // Above 5.5 are 5 of 500 users, above 2.5 are 50.
        assert_eq!(lowest.score, 2.5);
        assert!((lowest.innocents - 50.0).abs() < 0.01, "{lowest:?}");
        assert!((lowest.collateral - 10_000.0 / 910_000.0).abs() < 1e-4, "{lowest:?}");
        assert_eq!(cut(400.0, -10.0).score, 5.5);
        assert_eq!(cut(100.0, -10.0).score, 8.0);
        assert_eq!(cut(2000.0, 3.0).score, 5.5, "not below the least");
        assert_eq!(cut(0.1, -10.0).score, f64::INFINITY, "a part of a user is too much for less");
    }

    /// Of all there are enough for five users among them; of those that are asked about there are too few.
    #[test]
    fn the_cut_of_others_is_by_those_alone() {
        let others = [(8.0, 1.0), (5.5, 6.0), (2.5, 100.0)];
        let cut = |scores: Scores| scores.cut(-10.0, 0.01, f64::INFINITY).score;
        assert_eq!(cut(scores(2000.0)), 2.5);
        assert_eq!(cut(scores(2000.0).of_others(others.into_iter())), 8.0);
    }

    #[test]
    fn members_are_those_that_cost_nothing_where_these_are_nearly_all() {
        let few_below = [(8.0, 950.0), (5.5, 50.0)];
        let many_below = [(8.0, 850.0), (5.5, 150.0)];
        let of = |window: [(f64, f64); 2]| {
            let all = scores(1.0);
            Scores { of_window: window.into(), ..all }.members(-10.0, 0.01)
        };
        assert_eq!((of(few_below).score, of(few_below).collateral < COLLATERAL_MAX), (8.0, true));
        assert_eq!((of(many_below).score, of(many_below).collateral < COLLATERAL_MAX), (5.5, false));
    }
}
