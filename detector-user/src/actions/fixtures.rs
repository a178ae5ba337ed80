//! Fleets, and what is asked about them, for tests.

use std::collections::BTreeMap;

use detector_fleets::{
    cells::{Cell, Common},
    explanation::{Explanation, Innocent},
    fleet::{Fleet, FleetId, Member},
    observation::ServiceId,
    source::Source,
    traits::Key,
    usage::{KeyUse, Usage},
};

use super::{
    hints::{Hinted, Labelled},
    order::{Order, Stop, Wanted},
    plan::{Asked, Decision, Situation, Step, plan},
    prefixes::Prefixes,
    standing::Standing,
};
use crate::{
    fleets::Scale,
    policy::{FleetMode, FleetSettings},
};

/// The time of what is asked, unless another one is said: an alarm was a minute ago.
pub(super) const NOW_S: u64 = 1_796_104_800;

pub(super) const KEY: Key = Key { tls_key: 0xabc, syn_key: 7 };

/// The source of a member by its number.
pub(super) fn source(number: u32) -> Source {
    Source::of_v4(std::net::Ipv4Addr::from(0xc633_6400 + number))
}

pub(super) fn prefixes(numbers: impl IntoIterator<Item = u32>) -> Prefixes {
    Prefixes::of(numbers.into_iter().map(|number| source(number).to_string().parse().expect("a prefix")))
}

/// A member that did what members do.
pub(super) const MEMBER: Member =
    Member { last_s: NOW_S - 600, refused_s: 0, exchanges: 24, connections: 12, tls_keys: 1, is_busy: false };

/// A fleet that every guard lets be acted on: so many members, with a key that nobody else has.
pub(super) fn fleet(id: u64, members: u32) -> Fleet {
    let service = ServiceId(0);
    let own = KeyUse { key: KEY, members: 0.98, baseline: 0.0, baseline_connections: 0.0, is_top: false };
    Fleet {
        collateral: 0.000_01,
        id: FleetId(id),
        joined: Vec::new(),
        service,
        first_seen_s: NOW_S - 7200,
        alarmed_at_s: NOW_S - 3600,
        last_alarm_s: NOW_S - 60,
        last_seen_s: NOW_S - 60,
        most: 0.0,
        members: (0..members).map(|number| (source(number), MEMBER)).collect(),
        suspects: Vec::new(),
        innocents: 0.5,
        users: 100_000.0,
        usage: Usage {
            window_s: 3600,
            present_s: 3600,
            connections: 90_000,
            exchanges: 72_000,
            normal_connections_s: 0.1,
            keys: vec![own],
        },
        key: Some(KEY),
        traits: None,
        decided_s: NOW_S - 60,
        cells: Vec::new(),
        explanation: Explanation {
            cell: Cell { service, common: Common::Tls(KEY.tls_key) },
            evidence: Vec::new(),
            nearest: Innocent::Launch,
            why: "rejected: they come through proxies".to_owned(),
            is_new_uniform_population: false,
        },
    }
}

/// All that a plan about one fleet depends on.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) now_s: u64,
    pub(super) scale: Scale,
    pub(super) fleet: Fleet,
    pub(super) settings: FleetSettings,
    pub(super) stop: Option<Stop>,
    pub(super) standing: Vec<Standing>,
    pub(super) allowed: Prefixes,
    pub(super) labelled: Labelled,
    pub(super) orders: Vec<Order>,
    pub(super) measured: Option<super::budget::Measured>,
}

impl Case {
    /// A fleet of 1,000 members and a mode.
    pub(super) fn of(mode: FleetMode) -> Self {
        Self {
            now_s: NOW_S,
            scale: Scale::MINUTE,
            fleet: fleet(3, 1000),
            settings: FleetSettings { mode, ..FleetSettings::default() },
            stop: None,
            standing: Vec::new(),
            allowed: Prefixes::default(),
            labelled: Labelled::default(),
            orders: Vec::new(),
            measured: None,
        }
    }

    pub(super) fn throttle() -> Self {
        Self::of(FleetMode::Throttle)
    }

    /// Plans, and keeps what is in force.
    #[track_caller]
    pub(super) fn decide(&mut self) -> Decision {
        let asked = Asked {
            fleet: &self.fleet,
            service: 1,
            service_name: "api",
            mode: self.settings.mode,
            allowed: &self.allowed,
            packets_of_connection: 20.0,
            measured: self.measured,
        };
        let hinted = Hinted::everywhere(self.labelled.clone());
        let decisions = plan(&Situation {
            now_s: self.now_s,
            scale: self.scale,
            settings: &self.settings,
            stop: self.stop.as_ref(),
            fleets: &[asked],
            standing: &self.standing,
            hinted: &hinted,
            orders: &self.orders,
        });
        let [decision] = &decisions[..] else { panic!("one decision: {decisions:?}") };
        self.standing = decision.standing.iter().cloned().collect();
        decision.clone()
    }

    #[track_caller]
    pub(super) fn step(&mut self) -> Step {
        self.decide().step
    }

    pub(super) fn order(&mut self, wanted: Wanted, force: bool, until_s: u64) {
        let id = self.orders.len() as u64 + 1;
        self.orders.push(Order {
            id,
            fleet: self.fleet.id,
            wanted,
            force,
            by: "ann".to_owned(),
            reason: "INC-4711".to_owned(),
            at_s: self.now_s,
            until_s,
        });
    }

    /// A member becomes another one.
    pub(super) fn change(&mut self, numbers: impl IntoIterator<Item = u32>, member: Member) {
        let changed: BTreeMap<_, _> = numbers.into_iter().map(|number| (source(number), member)).collect();
        self.fleet.members.extend(changed);
    }
}

/// What is in force about a fleet that is throttled.
pub(crate) fn standing() -> Standing {
    let mut case = Case::throttle();
    case.decide().standing.expect("every guard lets it be")
}
