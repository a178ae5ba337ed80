//! The populations of an ordinary day, from a scenario.

use crate::population::customers::{Customers, Habits};
use crate::population::place::{Exit, Move, Place};
use crate::population::users::{Choice, Pace, Release, Users, chances};
use crate::population::{APP, BROWSERS, CRAWLERS, CUSTOMERS, MONITORS, Populations, sizes};
use crate::random::Key;
use crate::scenario::{AppUsers, Browsers, Scenario};
use crate::software::Software;
use crate::source::Network;
use crate::time::{HOUR_S, Rhythm, Window};
use crate::visits::Visits;

/// Median of the leg behind a proxy that somebody uses for themselves, and behind an office's, ms.
const OWN_PROXY_LEG_MS: f64 = 25.0;
const OFFICE_PROXY_LEG_MS: f64 = 2.0;

/// Operators of crawlers.
const CRAWLER_SOFTWARE: [Software; 5] = [
    Software::Own("crawler 1", "linux server"),
    Software::Own("crawler 2", "linux server"),
    Software::Own("crawler 3", "linux server"),
    Software::Own("crawler 4", "linux crawler"),
    Software::Own("crawler 5", "linux crawler"),
];

pub(super) fn add(scenario: &Scenario, key: Key, all: &mut Populations) {
    add_customers(scenario, key, all);
    for (index, app_users) in scenario.app_users.iter().enumerate() {
        let service = scenario.service_index(app_users.service.as_deref());
        all.daily_sources[usize::from(service)] += app_users.daily_sources * scenario.scale;
        all.users.push(Visits::new(of_app(
            scenario,
            app_users,
            key.named("app_users").at(index as u64),
            1.0,
        )));
    }
    for (index, browsers) in scenario.browsers.iter().enumerate() {
        let service = scenario.service_index(browsers.service.as_deref());
        all.daily_sources[usize::from(service)] += browsers.daily_sources * scenario.scale;
        all.users.push(Visits::new(of_browsers(
            scenario,
            browsers,
            key.named("browsers").at(index as u64),
            1.0,
        )));
    }
    add_shared(scenario, key, all);
    add_machines(scenario, key, all);
}

/// A number of a scenario at its scale.
pub(super) fn scaled(scenario: &Scenario, number: u32) -> u32 {
    ((f64::from(number) * scenario.scale).round() as u32).max(1)
}

fn add_customers(scenario: &Scenario, key: Key, all: &mut Populations) {
    for (index, it) in scenario.api_customers.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let habits = Habits {
            customers: scaled(scenario, it.customers).max(40),
            requests_a_day: it.requests_a_day * scenario.scale,
            shares: [it.top, it.top_10, it.top_29],
            variation: (it.variation_min, it.variation_max),
            drift: it.drift,
            churn: it.server_churn,
            serverless: it.serverless,
            sizes: sizes(scenario, service, CUSTOMERS),
        };
        all.daily_sources[usize::from(service)] += habits.daily_sources();
        let key = key.named("api_customers").at(index as u64);
        all.customers.push(Customers::new(key, service, habits, releases(scenario)));
    }
}

/// Homes with the app; `times` as active.
pub(super) fn of_app(scenario: &Scenario, it: &AppUsers, key: Key, times: f64) -> Users {
    let service = scenario.service_index(it.service.as_deref());
    let daily = it.daily_sources * scenario.scale * times;
    let homes = scaled(scenario, it.homes).max((daily * 1.2) as u32);
    Users {
        chances: chances(key, homes, daily, it.use_sigma),
        drift: it.drift,
        pace: Pace::Sessions {
            visits: it.visits,
            exchanges: it.exchanges,
            exchanges_sigma: it.exchanges_sigma,
            think_s: 25.0,
        },
        choice: Choice::App("app"),
        devices: 2,
        place: Place::Homes { v6: it.v6, churn: (it.churn_min, it.churn_max) },
        sizes: sizes(scenario, service, APP),
        reconnect: 0.12,
        spare: 0.0,
        proxied: it.proxied,
        ..people(scenario, key, service)
    }
}

/// Homes with browsers; `times` as active.
pub(super) fn of_browsers(scenario: &Scenario, it: &Browsers, key: Key, times: f64) -> Users {
    let service = scenario.service_index(it.service.as_deref());
    let daily = it.daily_sources * scenario.scale * times;
    let homes = scaled(scenario, it.homes).max((daily * 1.2) as u32);
    let always = |kind, share, exits| Move {
        kind,
        key: Key::root(0).named(if kind == Exit::Vpn { "vpn" } else { "relay" }),
        share,
        exits: scaled(scenario, exits),
        window: Window::ALWAYS,
    };
    let mut moves = vec![always(Exit::Relay, it.relayed, 1_500), always(Exit::Vpn, it.tunnelled, 600)];
    moves.extend(rollouts(scenario));
    Users {
        chances: chances(key, homes, daily, it.use_sigma),
        drift: it.drift,
        pace: Pace::Sessions {
            visits: it.visits,
            exchanges: it.exchanges,
            exchanges_sigma: it.exchanges_sigma,
            think_s: 18.0,
        },
        choice: Choice::Browsers,
        devices: 4,
        place: Place::Homes { v6: it.v6, churn: (it.churn_min, it.churn_max) },
        sizes: sizes(scenario, service, BROWSERS),
        proxied: it.proxied,
        moves,
        ..people(scenario, key, service)
    }
}

/// What people with browsers at home have in common.
pub(super) fn people(scenario: &Scenario, key: Key, service: u16) -> Users {
    Users {
        key,
        service,
        chances: Vec::new(),
        drift: 0.1,
        pace: Pace::Sessions { visits: 1.8, exchanges: 5.0, exchanges_sigma: 1.1, think_s: 20.0 },
        rhythm: Rhythm::evenings(),
        choice: Choice::Browsers,
        devices: 1,
        place: Place::Homes { v6: 0.35, churn: (0.02, 0.05) },
        sizes: sizes(scenario, service, BROWSERS),
        reconnect: 0.2,
        spare: 0.25,
        proxied: 0.0,
        leg_ms: OWN_PROXY_LEG_MS,
        further_ms: 0.0,
        window: Window::ALWAYS,
        moves: Vec::new(),
        releases: releases(scenario),
    }
}

/// Many behind one address.
fn add_shared(scenario: &Scenario, key: Key, all: &mut Populations) {
    let renumbered_s = scenario
        .cgnat_renumbering
        .iter()
        .map(|it| it.start_h * f64::from(HOUR_S))
        .fold(f64::INFINITY, f64::min);
    for (index, it) in scenario.cgnat.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("cgnat").at(index as u64);
        let addresses = scaled(scenario, it.addresses);
        let users = (f64::from(addresses) * it.users) as u32;
        all.daily_sources[usize::from(service)] += f64::from(addresses);
        all.users.push(Visits::new(Users {
            chances: chances(key, users, f64::from(users) * it.daily, 0.8),
            pace: Pace::Sessions {
                visits: 1.8,
                exchanges: it.exchanges,
                exchanges_sigma: 1.1,
                think_s: 20.0,
            },
            place: Place::Shared { network: Network::Mobile, addresses, renumbered_s },
            ..people(scenario, key, service)
        }));
    }
    for (index, it) in scenario.offices.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("offices").at(index as u64);
        let addresses = scaled(scenario, it.addresses);
        let users = (f64::from(addresses) * it.users).ceil() as u32;
        all.daily_sources[usize::from(service)] += f64::from(addresses);
        all.users.push(Visits::new(Users {
            chances: chances(key, users, f64::from(users) * it.daily, 0.8),
            pace: Pace::Sessions {
                visits: 2.5,
                exchanges: it.exchanges,
                exchanges_sigma: 1.1,
                think_s: 30.0,
            },
            rhythm: Rhythm::office(),
            place: Place::Shared { network: Network::Office, addresses, renumbered_s: f64::INFINITY },
            proxied: it.proxied,
            leg_ms: OFFICE_PROXY_LEG_MS,
            ..people(scenario, key, service)
        }));
    }
}

fn add_machines(scenario: &Scenario, key: Key, all: &mut Populations) {
    for (index, it) in scenario.crawlers.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("crawlers").at(index as u64);
        let addresses = scaled(scenario, it.addresses);
        let daily = f64::from(addresses) * it.daily;
        all.daily_sources[usize::from(service)] += daily;
        all.users.push(Visits::new(Users {
            chances: chances(key, addresses, daily, 0.3),
            pace: Pace::Sessions {
                visits: it.visits,
                exchanges: it.exchanges,
                exchanges_sigma: 0.8,
                think_s: 8.0,
            },
            choice: Choice::Among(&CRAWLER_SOFTWARE),
            sizes: sizes(scenario, service, CRAWLERS),
            reconnect: 0.05,
            ..machines(scenario, key, service)
        }));
    }
    for (index, it) in scenario.monitors.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("monitors").at(index as u64);
        let probes = scaled(scenario, it.probes);
        all.daily_sources[usize::from(service)] += f64::from(probes);
        all.users.push(Visits::new(Users {
            chances: vec![1.0; probes as usize],
            pace: Pace::Every { period_s: it.period_s, jitter_s: it.jitter_s, is_scattered: true },
            choice: Choice::One(Software::Own("monitor", "linux server")),
            sizes: sizes(scenario, service, MONITORS),
            ..machines(scenario, key, service)
        }));
    }
}

/// What servers have in common.
pub(super) fn machines(scenario: &Scenario, key: Key, service: u16) -> Users {
    Users {
        drift: 0.0,
        rhythm: Rhythm::flat(),
        place: Place::Servers,
        reconnect: 1.0,
        spare: 0.0,
        ..people(scenario, key, service)
    }
}

fn releases(scenario: &Scenario) -> Vec<Release> {
    let of_browsers = scenario.browser_release.iter().map(|it| Release {
        first_rank: it.first_rank as usize,
        ranks: it.ranks as usize,
        is_of_browsers: true,
        window: Window::hours(it.start_h, f64::INFINITY, it.length_h),
    });
    let of_sdks = scenario.sdk_release.iter().map(|it| Release {
        first_rank: it.first_rank as usize,
        ranks: it.ranks as usize,
        is_of_browsers: false,
        window: Window::hours(it.start_h, f64::INFINITY, it.length_h),
    });
    of_browsers.chain(of_sdks).collect()
}

fn rollouts(scenario: &Scenario) -> Vec<Move> {
    let root = Key::root(0);
    let vpns = scenario.vpn_rollout.iter().enumerate().map(|(index, it)| Move {
        kind: Exit::Vpn,
        key: root.named("vpn_rollout").at(index as u64),
        share: it.share,
        exits: scaled(scenario, it.exits),
        window: Window::hours(it.start_h, f64::INFINITY, it.ramp_h),
    });
    let relays = scenario.privacy_relay.iter().enumerate().map(|(index, it)| Move {
        kind: Exit::Relay,
        key: root.named("privacy_relay").at(index as u64),
        share: it.share,
        exits: scaled(scenario, it.egresses),
        window: Window::hours(it.start_h, f64::INFINITY, it.ramp_h),
    });
    vpns.chain(relays).collect()
}
