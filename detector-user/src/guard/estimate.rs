//! What a policy drops of the traffic that was seen: an estimate.
//!
//! The traffic is taken for steady and stretched to a minute, in which every budget starts full.
//!
//! | what | error |
//! |---|---|
//! | drop rules, allowed and unlimited sources | none, beside the stretching |
//! | limits | a budget that was not full lets through less, by at most its burst; a source that sends in bursts shorter than the window loses more than is told |
//! | several budgets of one source | only the one that refuses most is told; a refused connection is one packet, though its source sends no others then |
//! | parents | each drops from all of its sources alike; the program drops from who comes late |
//! | sources without an entry (their set is full), and destinations that were of no service | not seen |

use std::collections::HashMap;

use detector_common::{
    address::Address,
    budget::{BYTE_INTERVAL_FRACTION_BITS, Budget, TICKS_PER_NS},
    policy::{Action, Class, ParentClass},
    table::Unit,
};

use crate::{
    policy::compile::Judged,
    traffic::{Flow, Traffic},
};

/// What is told of, s.
pub const MINUTE_S: f64 = 60.0;

/// Packets that a policy drops in a minute, of each flow. `judged`: what it says of a flow; `parent_class`: its parent classes.
pub fn drops<'p>(
    traffic: &Traffic,
    judged: impl Fn(&Flow) -> Option<Judged<'p>>,
    parent_class: impl Fn(u16) -> Option<&'p ParentClass>,
) -> Vec<f64> {
    let stretch = MINUTE_S / traffic.seconds();
    let judged: Vec<_> = traffic.flows.iter().map(judged).collect();
    let demands = traffic.flows.iter().map(|flow| Demand::of(flow, stretch));
    let mut shares: Vec<(Demand, f64)> =
        demands.zip(&judged).map(|(demand, judged)| (demand, passing(&demand, judged.as_ref()))).collect();
    for level in Level::ALL {
        let mut around: HashMap<Around, Sum> = HashMap::new();
        let each = || traffic.flows.iter().zip(&judged);
        for ((flow, judged), &(demand, share)) in each().zip(&shares) {
            if let Some(key) = judged.and_then(|judged| level.around(flow, judged.class)) {
                around.entry(key).or_default().add(&demand, share);
            }
        }
        if around.is_empty() {
            continue;
        }
        for ((flow, judged), (_, share)) in each().zip(&mut shares) {
            let Some(key) = judged.and_then(|judged| level.around(flow, judged.class)) else { continue };
            if let (Some(sum), Some(class)) = (around.get(&key), parent_class(key.class)) {
                *share *= sum.passing(class);
            }
        }
    }
    let dropped = |((demand, share), judged): ((Demand, f64), &Option<Judged<'_>>)| {
        if judged.is_some_and(|judged| judged.enforced) { demand.packets * (1.0 - share) } else { 0.0 }
    };
    shares.into_iter().zip(&judged).map(dropped).collect()
}

/// What a source asks for in a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    packets: f64,
    bytes: f64,
    connections: f64,
}

impl Demand {
    fn of(flow: &Flow, stretch: f64) -> Self {
        Self {
            packets: f64::from(flow.packets) * stretch,
            bytes: f64::from(flow.bytes) * stretch,
            connections: f64::from(flow.connections) * stretch,
        }
    }
}

/// The share of its packets that a source's own class lets pass, were it enforced.
fn passing(demand: &Demand, judged: Option<&Judged<'_>>) -> f64 {
    match judged.map(|judged| (judged.class.action, judged.class)) {
        Some((action, _)) if action == Action::Deny as u8 => 0.0,
        Some((action, class)) if action == Action::Limit as u8 => {
            // A connection has at most one handshake, and most services see one in each.
            let handshakes = given(&class.handshakes, 0);
            passing_budgets(
                demand,
                &class.packets,
                &class.bytes,
                given(&class.connections, 0).min(handshakes),
            )
        }
        _ => 1.0,
    }
}

/// `connections`: how many may be begun.
fn passing_budgets(demand: &Demand, packets: &Budget, bytes: &Budget, connections: f64) -> f64 {
    let share = |asked: f64, given: f64| if asked > given { given / asked } else { 1.0 };
    let refused_connections = (demand.connections - connections).max(0.0);
    let shares = [
        share(demand.packets, given(packets, 0)),
        share(demand.bytes, given(bytes, BYTE_INTERVAL_FRACTION_BITS)),
        1.0 - refused_connections / demand.packets.max(refused_connections).max(1.0),
    ];
    shares.into_iter().fold(1.0, f64::min)
}

/// What a budget gives in a minute in which it starts full.
fn given(budget: &Budget, fraction_bits: u32) -> f64 {
    if !budget.is_limited() {
        return f64::INFINITY;
    }
    let minute_ticks = MINUTE_S * 1e9 * TICKS_PER_NS as f64;
    let units = (1_u64 << fraction_bits) as f64;
    (minute_ticks + budget.burst_ticks as f64) * units / budget.interval as f64
}

/// A level of parents, in the order in which the program asks them.
#[derive(Debug, Clone, Copy)]
struct Level {
    unit: Unit,
    class: fn(&Class) -> u16,
}

impl Level {
    const ALL: [Self; 3] = [
        Self { unit: Unit::V4Net24, class: |class| class.v4_24 },
        Self { unit: Unit::V6Net56, class: |class| class.v6_56 },
        Self { unit: Unit::V6Net48, class: |class| class.v6_48 },
    ];

    /// The parent of a source; none without budgets at this level.
    fn around(self, flow: &Flow, class: &Class) -> Option<Around> {
        let number = (self.class)(class);
        let is_limited = class.action == Action::Limit as u8 && number != 0;
        (is_limited && flow.packets > 0 && flow.source.family == self.unit.family()).then(|| Around {
            prefix: flow.source.prefix(self.unit.length()),
            service: flow.service,
            lineage: class.lineage,
            class: number,
        })
    }
}

/// The prefix around sources that share budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Around {
    prefix: Address,
    service: u16,
    lineage: u8,
    class: u16,
}

/// What the sources of a prefix ask for together, as far as their own budgets let them.
#[derive(Debug, Clone, Copy, Default)]
struct Sum(Demand);

impl Sum {
    fn add(&mut self, demand: &Demand, share: f64) {
        self.0.packets += demand.packets * share;
        self.0.bytes += demand.bytes * share;
        self.0.connections += demand.connections * share;
    }

    fn passing(&self, class: &ParentClass) -> f64 {
        passing_budgets(&self.0, &class.packets, &class.bytes, given(&class.connections, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn flow(host: u8, packets: u32, bytes: u32, connections: u32) -> Flow {
        let source = Address::v4([198, 51, 100, host]);
        Flow { source, service: 1, packets, bytes, connections, refused: 0 }
    }

    fn traffic(seconds: u64, flows: Vec<Flow>) -> Traffic {
        Traffic { window: Duration::from_secs(seconds), flows }
    }

    /// A class that limits packets to a rate, with a burst of one second.
    fn limit(per_second: u64) -> Class {
        let packets = Budget::of_units(per_second, 1_000_000_000, per_second, 0);
        Class { action: Action::Limit as u8, packets, ..Class::default() }
    }

    fn of(action: Action) -> Class {
        Class { action: action as u8, ..Class::default() }
    }

    fn dropped(traffic: &Traffic, class: &Class, enforced: bool) -> f64 {
        drops(traffic, |_| Some(Judged { class, enforced, incident: None }), |_| None).iter().sum()
    }

    #[test]
    fn a_limit_drops_what_is_beyond_rate_and_burst() {
        // 300 a second for a minute: 18,000 asked, 6,000 and the burst of 100 given.
        let minute = traffic(60, vec![flow(1, 18_000, 0, 0)]);
        assert!((dropped(&minute, &limit(100), true) - 11_900.0).abs() < 1.0);
        assert_eq!(dropped(&minute, &limit(100), false), 0.0);
        assert_eq!(dropped(&minute, &limit(300), true), 0.0);
        // Two seconds of the same are taken for a minute of it.
        let sample = traffic(2, vec![flow(1, 600, 0, 0)]);
        assert!((dropped(&sample, &limit(100), true) - 11_900.0).abs() < 1.0);
    }

    #[test]
    fn other_classes_drop_all_or_nothing() {
        let minute = traffic(60, vec![flow(1, 500, 0, 0), flow(2, 0, 0, 0)]);
        assert_eq!(dropped(&minute, &of(Action::Deny), true), 500.0);
        assert_eq!(dropped(&minute, &of(Action::Deny), false), 0.0);
        assert_eq!(dropped(&minute, &of(Action::Allow), true), 0.0);
        assert_eq!(dropped(&minute, &of(Action::Count), true), 0.0);
        assert_eq!(drops(&minute, |_| None, |_| None), [0.0, 0.0]);
    }

    #[test]
    fn the_worst_budget_decides() {
        let minute = traffic(60, vec![flow(1, 1_000, 6_000_000, 500)]);
        let bytes = Budget::of_bytes(45_000, 1_000_000_000, 300_000, 0);
        let class = Class { bytes, ..limit(1_000_000) };
        // 2.7 MB and the burst of 0.3 MB: half of the bytes, so half of the packets.
        assert!((dropped(&minute, &class, true) - 500.0).abs() < 1.0);
        let connections = Budget::of_units(1, 1_000_000_000, 40, 0);
        let class = Class { connections, ..limit(1_000_000) };
        assert!((dropped(&minute, &class, true) - 400.0).abs() < 1.0);
    }

    #[test]
    fn a_parent_drops_from_its_sources_together() {
        let minute = traffic(60, vec![flow(1, 6_000, 0, 0), flow(2, 12_000, 0, 0), flow(3, 0, 0, 0)]);
        let class = Class { v4_24: 1, ..limit(1_000) };
        let packets = Budget::of_units(100, 1_000_000_000, 3_000, 0);
        let parent = ParentClass { packets, ..ParentClass::default() };
        let judged = |_: &Flow| Some(Judged { class: &class, enforced: true, incident: None });
        let drops = drops(&minute, judged, |number| (number == 1).then_some(&parent));
        // 18,000 asked, 6,000 and the burst of 3,000 given: half.
        assert!((drops[0] - 3_000.0).abs() < 1.0 && (drops[1] - 6_000.0).abs() < 1.0, "{drops:?}");
        assert_eq!(drops[2], 0.0);
    }

    prop_compose! {
        fn budget()(count in 1_u64..100_000, burst in 1_u64..100_000, is_limited in any::<bool>()) -> Budget {
            if is_limited { Budget::of_units(count, 1_000_000_000, burst, 0) } else { Budget::UNLIMITED }
        }
    }

    prop_compose! {
        fn flows()(counts in proptest::collection::vec((0_u32..1_000_000, 0_u32..2_000_000_000, 0_u32..1_000_000), 1..20))
            -> Vec<Flow>
        {
            (0..).zip(counts).map(|(host, (packets, bytes, connections))| {
                flow(host, packets, bytes, connections.min(packets))
            }).collect()
        }
    }

    /// No looser than `budget`: a part of its rate and burst.
    fn stricter(budget: Budget, factor: u64) -> Budget {
        if budget.is_limited() {
            Budget { interval: budget.interval * factor, burst_ticks: budget.burst_ticks }
        } else {
            Budget::of_units(1_000 / factor, 1_000_000_000, 10, 0)
        }
    }

    proptest! {
        #[test]
        fn a_stricter_class_never_drops_fewer(
            flows in flows(), seconds in 2_u64..75, packets in budget(), bytes in budget(), connections in budget(),
            factor in 1_u64..100, which in 0..3_usize,
        ) {
            let traffic = traffic(seconds, flows);
            let class = Class { action: Action::Limit as u8, packets, bytes, connections, ..Class::default() };
            let mut strict = class;
            let changed = [&mut strict.packets, &mut strict.bytes, &mut strict.connections].into_iter().nth(which).unwrap();
            *changed = stricter(*changed, factor);
            let each = |class: &Class| drops(&traffic, |_| Some(Judged { class, enforced: true, incident: None }), |_| None);
            let order = [each(&of(Action::Allow)), each(&class), each(&strict), each(&of(Action::Deny))];
            for (looser, stricter) in order.iter().zip(&order[1..]) {
                for (fewer, more) in looser.iter().zip(stricter) {
                    prop_assert!(*fewer <= more + 1e-6 * more.abs(), "{fewer} > {more}");
                }
            }
            for (flow, dropped) in traffic.flows.iter().zip(&order[2]) {
                let asked = f64::from(flow.packets) * MINUTE_S / seconds as f64;
                prop_assert!((-1e-6..=asked * (1.0 + 1e-9)).contains(dropped), "{dropped} of {asked}");
            }
        }

        #[test]
        fn a_stricter_parent_never_drops_fewer(flows in flows(), own in budget(), rate in 1_u64..100_000, factor in 1_u64..100) {
            let traffic = traffic(60, flows);
            let class = Class { action: Action::Limit as u8, packets: own, v4_24: 1, ..Class::default() };
            let packets = Budget::of_units(rate, 1_000_000_000, rate, 0);
            let all = |packets: Budget| {
                let parent = ParentClass { packets, ..ParentClass::default() };
                let judged = |_: &Flow| Some(Judged { class: &class, enforced: true, incident: None });
                drops(&traffic, judged, |_| Some(&parent)).iter().sum::<f64>()
            };
            let (loose, strict) = (all(packets), all(stricter(packets, factor)));
            prop_assert!(loose <= strict * (1.0 + 1e-9) + 1e-6, "{loose} > {strict}");
        }
    }
}
