//! Nuisances that are populations of their own, for a time.

use crate::population::background::{machines, of_app, of_browsers, people, scaled};
use crate::population::place::Place;
use crate::population::users::{Choice, Pace, Users, chances};
use crate::population::{APP, CUSTOMERS, DEVICES, Populations, sizes};
use crate::random::Key;
use crate::scenario::{AppUsers, Browsers, Scenario};
use crate::software::Software;
use crate::time::{Rhythm, Window};
use crate::visits::Visits;

pub(super) fn add(scenario: &Scenario, key: Key, all: &mut Populations) {
    for (index, it) in scenario.flash_crowd.iter().enumerate() {
        let key = key.named("flash_crowd").at(index as u64);
        let window = Window::hours(it.start_h, it.length_h, 0.0);
        let more = crowd(scenario, it.service.as_deref(), key, it.times - 1.0, window, 0.0);
        all.users.extend(more);
    }
    for (index, it) in scenario.regional_failover.iter().enumerate() {
        let key = key.named("regional_failover").at(index as u64);
        let window = Window::hours(it.start_h, it.length_h, 0.0);
        all.users.extend(crowd(scenario, it.service.as_deref(), key, it.share, window, it.further_ms));
    }
    for (index, it) in scenario.cron_bursts.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("cron_bursts").at(index as u64);
        all.users.push(Visits::new(Users {
            chances: vec![1.0; scaled(scenario, it.servers) as usize],
            pace: Pace::Every { period_s: it.period_s, jitter_s: it.jitter_s, is_scattered: false },
            choice: Choice::Sdks,
            sizes: sizes(scenario, service, CUSTOMERS),
            window: Window::hours(it.start_h, it.length_h, 0.0),
            ..machines(scenario, key, service)
        }));
    }
    for (index, it) in scenario.app_launch.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("app_launch").at(index as u64);
        let homes = scaled(scenario, it.homes);
        all.users.push(Visits::new(Users {
            chances: chances(key, homes, f64::from(homes) * it.daily, 0.8),
            pace: Pace::Sessions {
                visits: 2.2,
                exchanges: it.exchanges,
                exchanges_sigma: 1.1,
                think_s: 25.0,
            },
            choice: Choice::One(Software::Own("launched app", "android")),
            sizes: sizes(scenario, service, APP),
            reconnect: 0.12,
            spare: 0.0,
            window: Window::hours(it.start_h, f64::INFINITY, it.ramp_h),
            ..people(scenario, key, service)
        }));
    }
    for (index, it) in scenario.device_launch.iter().enumerate() {
        let service = scenario.service_index(it.service.as_deref());
        let key = key.named("device_launch").at(index as u64);
        all.users.push(Visits::new(Users {
            chances: vec![1.0; scaled(scenario, it.devices) as usize],
            drift: 0.0,
            pace: Pace::Every { period_s: it.period_s, jitter_s: it.jitter_s, is_scattered: true },
            rhythm: Rhythm::flat(),
            choice: Choice::One(Software::Own("device", "embedded")),
            place: Place::Homes { v6: 0.0, churn: (0.02, 0.05) },
            sizes: sizes(scenario, service, DEVICES),
            reconnect: 1.0,
            spare: 0.0,
            window: Window::hours(it.start_h, f64::INFINITY, it.ramp_h),
            ..people(scenario, key, service)
        }));
    }
}

/// Homes like those of the scenario, but others: so many times as active as they are.
fn crowd(
    scenario: &Scenario,
    service: Option<&str>,
    key: Key,
    times: f64,
    window: Window,
    further_ms: f64,
) -> Vec<Visits<Users>> {
    let wanted = scenario.service_index(service);
    let is_there = |named: &Option<String>| scenario.service_index(named.as_deref()) == wanted;
    let apps = scenario.app_users.iter().filter(|it| is_there(&it.service)).enumerate().map(|(index, it)| {
        let homes = f64::from(it.homes) * times.max(1.0);
        let it = AppUsers { homes: homes as u32, ..it.clone() };
        of_app(scenario, &it, key.named("app_users").at(index as u64), times)
    });
    let browsers =
        scenario.browsers.iter().filter(|it| is_there(&it.service)).enumerate().map(|(index, it)| {
            let homes = f64::from(it.homes) * times.max(1.0);
            let it = Browsers { homes: homes as u32, ..it.clone() };
            of_browsers(scenario, &it, key.named("browsers").at(index as u64), times)
        });
    apps.chain(browsers).map(|users| Visits::new(Users { window, further_ms, ..users })).collect()
}
