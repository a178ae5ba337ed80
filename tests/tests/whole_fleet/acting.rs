//! Decides about fleets as the daemon does, with its own plan, and has the kernel do it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use detector_common::{
    address::Address,
    budget::{Budget, ticks},
    policy::is_enforced,
};
use detector_fleets::{observation::Observation, source::Source};
use detector_tests::rows::SECOND;
use detector_user::{
    actions::{
        hints::Hinted,
        plan::{Asked, Decision, Situation, Step, plan},
        prefixes::Prefixes,
        standing::{Action, Standing},
    },
    fleets::{Memory, Scale},
    kernel::{
        fleets::{self, Throttle, Throttled, entry_key},
        read,
    },
    policy,
};

use crate::{SERVICE, edge::Edge};

/// What is in force, and what services do meanwhile.
#[derive(Default)]
pub(crate) struct Acting {
    packets: u64,
    connections: u64,
    standing: Vec<Standing>,
    /// Members that are charged.
    pub(crate) charged: BTreeSet<Source>,
    /// What was said last of each fleet.
    pub(crate) says: Vec<String>,
}

/// Something that was done.
pub(crate) struct Done {
    pub(crate) decision: Decision,
    pub(crate) throttled: Throttled,
    /// How long the kernel took for it.
    pub(crate) took_s: f64,
}

impl Acting {
    /// Adds what was seen: connections are how budgets of packets are made.
    pub(crate) fn note(&mut self, rows: &[Observation]) {
        for row in rows {
            self.packets += row.packets;
            self.connections += u64::from(row.connections.max(row.handshakes));
        }
    }

    /// Decides about all fleets, and does it. What began.
    pub(crate) fn act(&mut self, memory: &Memory, edge: &mut Edge, now_s: u64) -> Option<Done> {
        let decisions = self.decide(memory, edge, now_s);
        self.says = decisions.iter().map(|decision| decision.says.clone()).collect();
        self.standing = decisions.iter().filter_map(|decision| decision.standing.clone()).collect();
        for ended in decisions.iter().filter(|decision| decision.step == Step::End) {
            fleets::end(&mut edge.rig.bench_mut().loaded.maps, ended.fleet.0).expect("the kernel ends it");
        }
        let seed = edge.maps().settings.read(0).seed;
        self.charged.clear();
        let mut done = None;
        for decision in decisions {
            let Some(Standing { action, .. }) = &decision.standing else { continue };
            let (began, began_ns) = (Instant::now(), edge.rig.now_ns());
            let throttled = throttle(edge, action);
            let took_s = began.elapsed().as_secs_f64();
            assert_eq!(edge.rig.now_ns(), began_ns, "who acts does not wait");
            let is_charged = |source: &Source| {
                is_enforced(entry_key(*source, action.service).hash(&seed), action.enforced_percent)
            };
            self.charged.extend(action.members.iter().copied().filter(is_charged));
            if decision.step == Step::Throttle {
                done = done.or(Some(Done { decision, throttled, took_s }));
            }
        }
        done
    }

    fn decide(&self, memory: &Memory, edge: &Edge, now_s: u64) -> Vec<Decision> {
        let manifest = &edge.rig.bench().manifest;
        let nobody = Prefixes::default();
        let asked = memory.fleets().map(|fleet| Asked {
            fleet,
            service: manifest.services[SERVICE],
            service_name: SERVICE,
            mode: manifest.fleet_mode(SERVICE),
            allowed: &nobody,
            packets_of_connection: self.packets as f64 / self.connections.max(1) as f64,
            measured: None,
        });
        plan(&Situation {
            now_s,
            scale: Scale::MINUTE,
            settings: &manifest.fleets,
            stop: None,
            fleets: &asked.collect::<Vec<_>>(),
            standing: &self.standing,
            hinted: &Hinted::default(),
            orders: &[],
        })
    }

    /// Every member is charged or held out, and each entry of those that are charged has the slot.
    pub(crate) fn expect_in_force(&self, edge: &Edge, done: &Done) {
        let Throttled { slot, members, held_out, ref without_room, .. } = done.throttled;
        let [Standing { action, .. }] = &self.standing[..] else { panic!("{:?}", self.says) };
        assert_eq!((members, without_room.len()), (self.charged.len(), 0));
        assert_eq!(members + held_out, action.members.len());
        let entries = self
            .charged
            .iter()
            .filter_map(|source| read::source(edge.maps(), Address::from(address(*source)), action.service));
        let slots: Vec<u32> = entries.map(|entry| entry.meta().fleet()).collect();
        assert!(!slots.is_empty() && slots.iter().all(|of| *of == slot), "of {} entries", slots.len());
        println!("{} of {members} members have an entry, and all of those name the fleet", slots.len());
    }

    /// From the moment on at which it was done nobody of them has had more than the fleet's budgets; it is still in force.
    pub(crate) fn expect_within_budget(&self, edge: &Edge) {
        let [Standing { action, .. }] = &self.standing[..] else { panic!("{:?}", self.says) };
        for (name, budget, passed) in [
            ("packets", action.budgets.packets, edge.passed.packets),
            ("connections", action.budgets.connections, edge.passed.connections),
        ] {
            let ns = u128::from(edge.rig.now_ns() - edge.passed.since_ns);
            let given = ns * u128::from(budget.rate.count) / u128::from(budget.rate.per_ns);
            let most = u128::from(budget.burst) + given;
            println!("{passed} {name} of members passed, at most {most} may");
            assert!(u128::from(passed) <= most, "{passed} {name} of {most}");
        }
    }
}

fn address(source: Source) -> IpAddr {
    if source.is_v4() {
        Ipv4Addr::from(source.number() as u32).into()
    } else {
        Ipv6Addr::from(u128::from(source.number()) << 64).into()
    }
}

fn throttle(edge: &mut Edge, action: &Action) -> Throttled {
    let members: BTreeSet<_> = action.members.iter().copied().collect();
    let until = ticks(edge.virtual_ns(action.until_s * SECOND));
    let throttle = Throttle::of(action, &members, until, |policy::Budget { rate, burst }| {
        Budget::of_units(rate.count, rate.per_ns, burst, 0)
    });
    if edge.passed.since_ns == 0 {
        edge.passed.since_ns = edge.rig.now_ns();
    }
    fleets::throttle(&mut edge.rig.bench_mut().loaded.maps, &throttle).expect("the kernel does it")
}
