//! What holds of the rows of any scenario.

use std::collections::HashSet;

use detector_generator::scenario::{
    ApiCustomers, AppUsers, BrowserRelease, Browsers, CgnatRenumbering, CronBursts, DeviceLaunch, FlashCrowd,
    Fleet, Level, OwnLimiter, PrivacyRelay, RegionalFailover, VpnRollout,
};
use detector_generator::{Epoch, Row, Scenario, generate};
use proptest::prelude::*;

/// Everything of a few hundred sources.
fn small() -> Scenario {
    Scenario::from_toml("days = 1\nscale = 0.01").expect("a scenario")
}

fn empty() -> Scenario {
    let none = ["api_customers", "app_users", "browsers", "cgnat", "offices", "crawlers", "monitors"];
    let text: String = none.iter().map(|name| format!("{name} = []\n")).collect();
    Scenario::from_toml(&format!("days = 1\n{text}")).expect("a scenario")
}

fn rows(scenario: &Scenario, seed: u64) -> HashSet<Row> {
    generate(scenario, seed).flat_map(|epoch| epoch.rows).collect()
}

#[test]
fn the_seed_decides_everything() {
    let scenario =
        Scenario { fleet: vec![Fleet { start_h: 3.0, sources: 200, ..Fleet::default() }], ..small() };
    let epochs = |seed| generate(&scenario, seed).collect::<Vec<Epoch>>();
    let first = epochs(5);
    assert_eq!(first.len(), 1_440);
    assert!(first.iter().all(|epoch| !epoch.rows.is_empty()));
    assert!(first == epochs(5));
    assert!(first != epochs(6));
    assert!(first.windows(2).all(|pair| pair[0].time_s + 60 == pair[1].time_s));
}

#[test]
fn what_is_added_changes_nothing_of_the_rest() {
    let none = Scenario { scale: 0.02, ..empty() };
    let fleet = Fleet { level: Level::L3, start_h: 1.0, sources: 300, ..Fleet::default() };
    let all = Scenario {
        api_customers: vec![ApiCustomers::default()],
        app_users: vec![AppUsers::default()],
        browsers: vec![Browsers::default()],
        cron_bursts: vec![CronBursts { start_h: 2.0, servers: 3_000, ..CronBursts::default() }],
        fleet: vec![fleet],
        ..none.clone()
    };
    let together = rows(&all, 9);
    for alone in [
        Scenario { api_customers: all.api_customers.clone(), ..none.clone() },
        Scenario { browsers: all.browsers.clone(), ..none.clone() },
        Scenario { cron_bursts: all.cron_bursts.clone(), ..none.clone() },
        Scenario { fleet: all.fleet.clone(), ..none },
    ] {
        let alone = rows(&alone, 9);
        assert!(alone.len() > 900 && alone.len() < together.len(), "{}", alone.len());
        assert!(alone.is_subset(&together), "{} rows are not the same", alone.difference(&together).count());
    }
}

#[test]
fn there_is_one_row_for_each_set_of_keys() {
    for epoch in generate(&small(), 3).step_by(60) {
        let keys: HashSet<_> =
            epoch.rows.iter().map(|row| (row.service, row.source, row.syn_key, row.tls_key)).collect();
        assert_eq!(keys.len(), epoch.rows.len());
    }
}

#[test]
fn of_quic_only_connections_are_known() {
    let all = rows(&small(), 4);
    let quic: Vec<&Row> = all.iter().filter(|row| row.syn_key == 0).collect();
    assert!(quic.len() > 100 && quic.len() < all.len() / 2);
    for row in quic {
        let counted =
            [row.exchanges, row.rtt.iter().sum(), row.hello_gap.iter().sum(), row.finish_gap.iter().sum()];
        assert_eq!(counted, [0; 4]);
        assert!(row.tls_key != 0 && row.packets > 0);
    }
}

/// What no edge node can report.
fn hold(row: &Row, exchange_sample: u32) {
    let sum = |histogram: &[u32]| histogram.iter().sum::<u32>();
    assert_eq!(sum(&row.request_sizes) * exchange_sample, row.exchanges);
    assert_eq!(sum(&row.response_sizes), sum(&row.request_sizes));
    assert!(row.handshakes <= row.connections);
    assert!(sum(&row.rtt) <= row.connections);
    for gaps in [&row.hello_gap, &row.finish_gap] {
        assert!(sum(gaps) <= row.handshakes);
    }
    assert!(row.tls_key != 0 || row.handshakes == 0);
    assert!(row.packets > 0 && row.bytes >= row.packets * 52 && row.dropped_packets <= row.packets);
    assert!(u64::from(row.connections) <= row.packets);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn counts_agree_with_each_other(
        seed in any::<u64>(),
        exchange_sample in prop::sample::select(vec![1_u32, 2, 8, 64]),
        epoch_s in prop::sample::select(vec![1_u32, 60, 900, 3_600]),
        level in prop::sample::select(Level::ALL.to_vec()),
        packets_a_minute in 1.0..200.0_f64,
        start_h in 0.0..20.0_f64,
    ) {
        let scenario = Scenario {
            scale: 0.002,
            exchange_sample,
            epoch_s,
            flash_crowd: vec![FlashCrowd { start_h, ..FlashCrowd::default() }],
            browser_release: vec![BrowserRelease { start_h, ..BrowserRelease::default() }],
            regional_failover: vec![RegionalFailover { start_h, ..RegionalFailover::default() }],
            own_limiter: vec![OwnLimiter { start_h, packets_a_minute, ..OwnLimiter::default() }],
            vpn_rollout: vec![VpnRollout { start_h, ..VpnRollout::default() }],
            privacy_relay: vec![PrivacyRelay { start_h, ..PrivacyRelay::default() }],
            device_launch: vec![DeviceLaunch { start_h, ..DeviceLaunch::default() }],
            cgnat_renumbering: vec![CgnatRenumbering { start_h }],
            fleet: vec![Fleet { level, sources: 60, start_h, ..Fleet::default() }],
            ..small()
        }
        .checked()
        .expect("a scenario");
        for epoch in generate(&scenario, seed) {
            epoch.rows.iter().for_each(|row| hold(row, exchange_sample));
        }
    }
}
