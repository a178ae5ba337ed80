//! What a fleet may use as a whole, and what became of it.

use detector_fleets::usage::Usage;
use serde::{Deserialize, Serialize};

use super::limits::{BUDGET_PERIOD_NS, HELD_OUT_CONNECTIONS_MIN, PACKETS_AT_ONCE_MIN};
use crate::policy::{Budget, COUNT_PER_S_MAX, FleetSettings, Part, Rate};

const NS_PER_S: u64 = 1_000_000_000;

/// The budgets that all members of a fleet share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedBudgets {
    /// Packets.
    pub packets: Budget,
    /// New connections.
    pub connections: Budget,
}

/// What a fleet's population normally used, by a factor, but no more than leaves enough of the fleet's present rate cut. What members that
/// are held out send is not part of that: nothing of it is cut.
///
/// `packets_of_connection` are the packets of a connection at the service, at the mean; less than 1 is taken for 1.
pub fn shared(usage: &Usage, packets_of_connection: f64, settings: &FleetSettings) -> SharedBudgets {
    let wanted = settings.factor.of() * usage.normal_connections_s;
    let most = settings.share.of() * usage.connections_s();
    let connections_s = wanted.min(most);
    let packets_s = connections_s * packets_of_connection.max(1.0);
    SharedBudgets {
        packets: expressed(packets_s, PACKETS_AT_ONCE_MIN),
        connections: expressed(connections_s, 1),
    }
}

/// The same for a smaller factor than the budgets were made with.
pub fn tightened(budgets: SharedBudgets, factor: Part, smaller: Part) -> SharedBudgets {
    let part = (smaller.of() / factor.of()).min(1.0);
    let per_s =
        |budget: Budget| budget.rate.count as f64 * NS_PER_S as f64 / budget.rate.per_ns.max(1) as f64;
    SharedBudgets {
        packets: expressed(per_s(budgets.packets) * part, PACKETS_AT_ONCE_MIN),
        connections: expressed(per_s(budgets.connections) * part, 1),
    }
}

/// A budget of so many a second, rounded down to whole ones an hour; of one an hour where that is none. At once as many as a second gives.
fn expressed(per_s: f64, burst_min: u64) -> Budget {
    let hour_s = (BUDGET_PERIOD_NS / NS_PER_S) as f64;
    // A float to integer cast saturates, and what is no number is none.
    let count = ((per_s * hour_s) as u64).clamp(1, COUNT_PER_S_MAX * (BUDGET_PERIOD_NS / NS_PER_S));
    let rate = Rate { count, per_ns: BUDGET_PERIOD_NS };
    Budget { rate, burst: rate.over_ns_ceil(NS_PER_S).max(burst_min) }
}

/// What passed of some members since their fleet's budgets are what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Passed {
    /// The members.
    pub sources: u64,
    /// Their connections that were let through.
    pub connections: u64,
}

/// What passed of a fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// Of members that are charged to the budgets.
    pub throttled: Passed,
    /// Of those that are held out, which show what all would do.
    pub held_out: Passed,
}

/// What an action does, by those that it leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Effect {
    /// The share of what throttled members would have done that was cut. Below 0: they did more than those that are held out.
    pub cut: f64,
    /// With 97.5 % certainty it was not more than this.
    pub cut_max: f64,
}

impl Measured {
    /// What the action does: connections of a throttled member against those of one that is held out. The bound is that of a ratio of
    /// Poisson counts, on the logarithm (Graham et al. 2003). `None`: those that are held out did not do enough to tell.
    pub fn effect(&self) -> Option<Effect> {
        let Self { throttled, held_out } = self;
        if held_out.connections < HELD_OUT_CONNECTIONS_MIN || throttled.sources == 0 || held_out.sources == 0
        {
            return None;
        }
        let of_throttled = (throttled.connections as f64).max(0.5);
        let of_held_out = held_out.connections as f64;
        let ratio = (of_throttled / throttled.sources as f64) / (of_held_out / held_out.sources as f64);
        let deviation = (1.0 / of_throttled + 1.0 / of_held_out).sqrt();
        Some(Effect { cut: 1.0 - ratio, cut_max: 1.0 - ratio * (-1.96 * deviation).exp() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usage(connections: u64, normal_connections_s: f64) -> Usage {
        Usage { window_s: 3600, present_s: 3600, connections, normal_connections_s, ..Usage::default() }
    }

    #[test]
    fn a_fleet_may_do_twice_what_its_population_did_and_a_hundredth_of_what_it_does() {
        let settings = FleetSettings::default();
        let of = |usage: &Usage| shared(usage, 20.0, &settings);
        let budgets = of(&usage(90_000, 0.1));
        assert_eq!(budgets.connections.rate.to_string(), "12/min", "twice 0.1 a second");
        assert_eq!((budgets.packets.rate.to_string(), budgets.packets.burst), ("4/s".to_owned(), 16));
        assert_eq!(of(&usage(36_000, 0.1)).connections.rate.to_string(), "6/min", "1 % of ten a second");
        let none = of(&usage(0, 0.0));
        assert_eq!(none.connections, Budget { rate: Rate { count: 1, per_ns: BUDGET_PERIOD_NS }, burst: 1 });
        assert_eq!(none.packets.burst, PACKETS_AT_ONCE_MIN, "a connection comes to its end");
    }

    #[test]
    fn a_smaller_factor_makes_smaller_budgets() {
        let budgets = shared(&usage(90_000, 0.1), 20.0, &FleetSettings::default());
        let tight = tightened(budgets, Part::of_percent(200), Part::of_percent(50));
        assert_eq!(tight.connections.rate.to_string(), "3/min");
        assert_eq!(tight.packets.rate.to_string(), "1/s");
    }

    #[test]
    fn the_effect_is_what_throttled_members_did_not_do_that_others_did() {
        let measured = |throttled, held_out| Measured {
            throttled: Passed { sources: 950, connections: throttled },
            held_out: Passed { sources: 50, connections: held_out },
        };
        let effect = measured(95, 100).effect().expect("it can be told");
        assert!((effect.cut - 0.95).abs() < 1e-9, "{effect:?}");
        assert!(effect.cut_max > 0.95 && effect.cut_max < 0.97, "{effect:?}");
        let none = measured(1900, 100).effect().expect("it can be told");
        assert!(none.cut.abs() < 1e-9 && none.cut_max < 0.2, "{none:?}");
        assert_eq!(measured(0, HELD_OUT_CONNECTIONS_MIN - 1).effect(), None);
        assert!(measured(0, 100).effect().is_some_and(|effect| effect.cut > 0.99));
        assert_eq!(Measured::default().effect(), None);
    }

    proptest! {
        /// Every budget can be expressed, and cuts what it has to.
        #[test]
        fn budgets_are_a_policys_and_cut_enough(
            connections in any::<u64>(), normal in prop_oneof![0.0..1e12_f64, Just(f64::NAN), Just(f64::INFINITY)], packets in 0.0..1e6_f64,
        ) {
            let settings = FleetSettings::default();
            let usage = usage(connections, normal);
            let budgets = shared(&usage, packets, &settings);
            for budget in [budgets.packets, budgets.connections] {
                prop_assert!(budget.rate.count >= 1 && budget.burst >= 1);
                prop_assert!(u128::from(budget.rate.count) * u128::from(NS_PER_S) <= u128::from(COUNT_PER_S_MAX) * u128::from(budget.rate.per_ns));
                let refill_ns = u128::from(budget.burst) * u128::from(budget.rate.per_ns) / u128::from(budget.rate.count);
                prop_assert!(refill_ns <= u128::from(crate::policy::REFILL_NS_MAX));
            }
            let hourly = usage.connections_s() * 3600.0;
            prop_assert!(budgets.connections.rate.count as f64 <= (hourly * settings.share.of()).max(1.0) * (1.0 + 1e-9));
        }
    }
}
