//! Random policies over few addresses, so that everything overlaps.

use std::{collections::BTreeMap, net::IpAddr};

use detector_tests::{
    random::Random,
    rows::{SECOND, START_NS},
};
use detector_user::policy::{
    Action, Budget, Budgets, FleetSettings, Matches, Mode, ParentBudgets, Parents, Policy, Ports, Profile,
    Rate, Rule, Service,
};
use ipnet::IpNet;

/// Addresses of sources: neighbours at every length that means something.
pub(crate) const SOURCES: &[&str] = &[
    "10.1.2.3",
    "10.1.2.4",
    "10.1.3.4",
    "10.9.9.9",
    "172.16.0.1",
    "192.0.2.1",
    "2001:db8:a:b::1",
    "2001:db8:a:b::2",
    "2001:db8:a:b:8000::1",
    "2001:db8:a:c::1",
    "2001:db8:a:1b::1",
    "2001:db8:b:b::1",
];

/// Addresses of destinations.
pub(crate) const DESTINATIONS: &[&str] =
    &["203.0.113.10", "203.0.113.11", "203.0.112.1", "2001:db8::10", "2001:db8::11", "2001:db8:0:1::10"];

/// Ports that packets go to.
pub(crate) const PORTS: &[u16] = &[443, 444, 53, 8000];

/// A policy.
pub(crate) fn random(random: &mut Random) -> Policy {
    let profiles: BTreeMap<_, _> =
        (0..3).map(|number| (format!("profile-{number}"), profile(random))).collect();
    let mut services: Vec<_> = (0..1 + random.below(5)).map(|number| service(random, number)).collect();
    if !random.once_in(4) {
        services.push(everything(random));
    }
    let rules = (0..random.below(8)).map(|number| rule(random, number, &services)).collect();
    let allow = (0..u64::from(random.once_in(4))).map(|_| net(random, SOURCES)).collect();
    Policy { mode: mode(random), allow, services, profiles, rules, fleets: FleetSettings::default() }
}

pub(crate) fn mode(random: &mut Random) -> Mode {
    match random.below(8) {
        0 | 1 => Mode::Shadow,
        2 => Mode::Percent(1 + random.below(99) as u8),
        _ => Mode::Enforce,
    }
}

fn profile_name(random: &mut Random) -> String {
    format!("profile-{}", random.below(3))
}

/// A prefix around one of some addresses.
pub(crate) fn net(random: &mut Random, addresses: &[&str]) -> IpNet {
    let address: IpAddr = random.pick(addresses).parse().expect("an address");
    let lengths: &[u8] = if address.is_ipv4() {
        &[0, 8, 16, 24, 24, 31, 32, 32]
    } else {
        &[0, 32, 48, 56, 63, 64, 64, 65, 112, 128]
    };
    IpNet::new(address, *random.pick(lengths)).expect("a length of the family").trunc()
}

fn service(random: &mut Random, number: u64) -> Service {
    let destination = |random: &mut Random| {
        let address: IpAddr = random.pick(DESTINATIONS).parse().expect("an address");
        let lengths: &[u8] = if address.is_ipv4() { &[8, 16, 24, 32] } else { &[16, 32, 64, 126, 128] };
        IpNet::new(address, *random.pick(lengths)).expect("a length of the family").trunc()
    };
    let ports = |random: &mut Random| {
        let protocol = *random.pick(&[6, 17]);
        match random.below(5) {
            0 => Ports::Any,
            1 => Ports::Protocol(*random.pick(&[1, 6, 17, 47, 58])),
            _ => {
                let first = *random.pick(PORTS);
                Ports::Range { protocol, first, last: first + random.below(2) as u16 }
            }
        }
    };
    Service {
        name: format!("service-{number}"),
        addresses: (0..1 + random.below(3)).map(|_| destination(random)).collect(),
        ports: (0..1 + random.below(3)).map(|_| ports(random)).collect(),
        profile: (!random.once_in(4)).then(|| profile_name(random)),
        fleets: None,
    }
}

/// A service for what goes to no other.
fn everything(random: &mut Random) -> Service {
    let addresses = ["203.0.0.0/16", "2001::/16"].map(|net| net.parse().expect("a prefix"));
    Service {
        name: "everything".to_owned(),
        addresses: addresses.into(),
        ports: vec![Ports::Any],
        profile: Some(profile_name(random)),
        fleets: None,
    }
}

fn rule(random: &mut Random, number: u64, services: &[Service]) -> Rule {
    let action = match random.below(4) {
        0 => Action::Allow,
        1 => Action::Drop,
        _ => Action::Limit(profile_name(random)),
    };
    Rule {
        name: format!("rule-{number}"),
        service: random.once_in(3).then(|| random.pick(services).name.clone()),
        matches: Matches::Sources((0..1 + random.below(3)).map(|_| net(random, SOURCES)).collect()),
        action,
        mode: random.once_in(3).then(|| mode(random)),
        // Before the first frame, or among the frames.
        until_s: random.once_in(3).then(|| START_NS / SECOND + random.below(3)),
        reason: None,
    }
}

fn profile(random: &mut Random) -> Profile {
    let parents = Parents {
        v4_24: random.once_in(2).then(|| parent(random)),
        v6_56: random.once_in(2).then(|| parent(random)),
        v6_48: random.once_in(2).then(|| parent(random)),
    };
    // Without budgets of their own, sources reach those of the prefixes around them.
    let budgets = if random.once_in(3) { Budgets::default() } else { budgets(random, 2) };
    Profile { budgets, parents }
}

fn parent(random: &mut Random) -> ParentBudgets {
    ParentBudgets {
        budgets: budgets(random, 3),
        new_sources: random.once_in(2).then(|| Budget {
            rate: Rate { count: 1 + random.below(50), per_ns: 1_000_000_000 },
            burst: 1 + random.below(2),
        }),
    }
}

/// Budgets small enough to be spent by a few dozen packets.
pub(crate) fn budgets(random: &mut Random, factor: u64) -> Budgets {
    let budget = |random: &mut Random, count: u64, burst: u64| Budget {
        rate: Rate { count: factor * (1 + random.below(count)), per_ns: 1_000_000_000 },
        burst: factor * (burst + random.below(burst)),
    };
    Budgets {
        packets: random.once_in(3).then(|| budget(random, 100, 2)),
        bytes: random.once_in(3).then(|| budget(random, 2000, 1514)),
        connections: random.once_in(3).then(|| budget(random, 20, 1)),
        // Random frames are no part of a handshake that is followed.
        handshakes: None,
    }
}
