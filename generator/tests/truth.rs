//! What the truth says is what the rows show.

use std::collections::{HashMap, HashSet};

use detector_generator::scenario::{Fleet, Level};
use detector_generator::{Row, Scenario, Source, Truth, generate};

/// A scenario with nothing in it but what the text adds.
fn only(text: &str) -> Scenario {
    let none = ["api_customers", "app_users", "browsers", "cgnat", "offices", "crawlers", "monitors"];
    let names: String = none
        .iter()
        .filter(|name| !text.contains(&format!("[[{name}]]")))
        .map(|name| format!("{name} = []\n"))
        .collect();
    Scenario::from_toml(&format!("{names}{text}")).expect("a scenario")
}

/// Sources of each day, and rows.
fn daily(scenario: &Scenario, seed: u64) -> (Vec<HashSet<Source>>, Vec<Row>) {
    let mut days = vec![HashSet::new(); scenario.days as usize];
    let mut rows = Vec::new();
    for epoch in generate(scenario, seed) {
        let day = (epoch.time_s - u64::from(scenario.start_s)) / 86_400;
        days[day as usize].extend(epoch.rows.iter().map(|row| row.source));
        rows.extend(epoch.rows);
    }
    (days, rows)
}

fn end(scenario: &Scenario, seed: u64) -> (Truth, HashMap<Source, (u64, u64, u32)>) {
    let mut generation = generate(scenario, seed);
    let mut seen: HashMap<Source, (u64, u64, u32)> = HashMap::new();
    for epoch in generation.by_ref() {
        for row in epoch.rows {
            let source = seen.entry(row.source).or_insert((epoch.time_s, 0, 0));
            source.1 = epoch.time_s;
            source.2 += row.exchanges;
        }
    }
    (generation.truth(), seen)
}

#[test]
fn members_are_those_who_came_and_what_they_did() {
    for level in [Level::L0, Level::L1, Level::L2, Level::L3, Level::L4] {
        let fleet =
            Fleet { level, sources: 700, start_h: 5.0, end_h: Some(40.0), ramp_h: 6.0, ..Fleet::default() };
        let scenario = Scenario { fleet: vec![fleet], ..only("days = 2\nexchange_sample = 1") };
        let (truth, seen) = end(&scenario, 21);
        let fleet = &truth.fleets[0];
        let told: HashMap<Source, (u64, u64, u32)> = fleet
            .members
            .iter()
            .map(|member| (member.source, (member.first_s, member.last_s, member.exchanges)))
            .collect();
        assert_eq!(told, seen, "{level:?}");
        assert_eq!(
            fleet.exchanges,
            seen.values().map(|(_, _, exchanges)| u64::from(*exchanges)).sum::<u64>()
        );
        assert!(
            seen.values().all(|(first_s, _, _)| (fleet.start_s..fleet.end_s).contains(first_s)),
            "{level:?}"
        );
    }
}

#[test]
fn the_last_level_has_others_traffic_among_its_own() {
    let fleet = Fleet { level: Level::L5, sources: 2_000, start_h: 0.0, ..Fleet::default() };
    let scenario = Scenario { fleet: vec![fleet], ..only("days = 1\nexchange_sample = 1") };
    let (truth, seen) = end(&scenario, 22);
    let all: u64 = seen.values().map(|(_, _, exchanges)| u64::from(*exchanges)).sum();
    // Of the others' exchanges, the part over QUIC is not counted.
    let own = truth.fleets[0].exchanges as f64 / all as f64;
    assert!((0.68..0.8).contains(&own), "{own}");
    assert!((truth.fleets[0].exchanges as f64 / (2_000.0 * 25.6 * 0.7) - 1.0).abs() < 0.04);
}

#[test]
fn the_case_makes_28_8_million_exchanges_in_45_days() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios/case.toml"));
    let case = Scenario::from_toml(&text.expect("the file")).expect("a scenario");
    let fleet = Fleet { start_h: 0.0, ..case.fleet[0].clone() };
    assert_eq!(f64::from(case.days) - case.fleet[0].start_h / 24.0, 45.0);
    let scenario = Scenario { fleet: vec![fleet], ..only("days = 2") };
    let mut generation = generate(&scenario, 1);
    let estimated: u64 =
        generation.by_ref().flat_map(|epoch| epoch.rows).map(|row| u64::from(row.exchanges)).sum();
    let fleet = &generation.truth().fleets[0];
    let expected = 28_800_000.0 * 2.0 / 45.0;
    assert!((fleet.exchanges as f64 / expected - 1.0).abs() < 0.02, "{}", fleet.exchanges);
    assert!((estimated as f64 / expected - 1.0).abs() < 0.03, "{estimated}");
    assert_eq!(fleet.members.len(), 25_000);
}

#[test]
fn shares_and_daily_sources_are_as_expected() {
    let text = "days = 2\nscale = 0.2\n[[fleet]]\nlevel = 'L3'\nshare = 0.1\nstart_h = 24\n";
    let scenario = Scenario::from_toml(text).expect("a scenario");
    let (days, _) = daily(&scenario, 8);
    let mut generation = generate(&scenario, 8);
    generation.by_ref().for_each(drop);
    let truth = generation.truth();
    let expected = truth.services[0].daily_sources_expected;
    assert!((days[0].len() as f64 / expected - 1.0).abs() < 0.15, "{} for {expected}", days[0].len());
    let fleet = &truth.fleets[0];
    assert!((fleet.share - 0.1).abs() < 0.001);
    let came = fleet.members.iter().filter(|member| days[1].contains(&member.source)).count();
    let share = came as f64 / days[1].len() as f64;
    assert!((0.085..0.115).contains(&share), "{share}");
}

#[test]
fn a_pool_is_replaced_and_a_target_left_when_they_should_be() {
    let text = "days = 2\n[[service]]\nname = 'a'\n[[service]]\nname = 'b'\n[[fleet]]\nsources = 400\nstart_h = 0\n\
        failover_h = 24\nretarget_h = 24\nretarget_service = 'b'\n";
    let (days, rows) = daily(&only(text), 2);
    // Sessions that last go on as they began.
    let both = days[0].intersection(&days[1]).count();
    assert!(days[0].len() > 390 && days[1].len() > 390 && both < 20, "{both}");
    let services: HashSet<(u16, bool)> =
        rows.iter().map(|row| (row.service, days[0].contains(&row.source))).collect();
    assert_eq!(services, HashSet::from([(0, true), (1, false)]));
}

/// Part of the handshakes whose ClientHello came 16 ms or more after the handshake of TCP.
fn gap(rows: &[Row]) -> f64 {
    let late: u32 = rows.iter().flat_map(|row| &row.hello_gap[6..]).sum();
    let all: u32 = rows.iter().flat_map(|row| row.hello_gap).sum();
    f64::from(late) / f64::from(all)
}

#[test]
fn gaps_are_where_tcp_ends_before_tls() {
    let of = |level: &str| {
        let text = format!("days = 1\n[[fleet]]\nlevel = '{level}'\nsources = 1000\nstart_h = 0\n");
        gap(&daily(&only(&text), 1).1)
    };
    assert!(of("L0") < 0.06 && of("L2") < 0.06 && of("L5") < 0.06);
    assert!((0.6..0.8).contains(&of("L3")), "30 % of the exits hide it: {}", of("L3"));
    let browsers = "days = 1\nscale = 0.05\n[[browsers]]\nrelayed = 0\ntunnelled = 0\n";
    let quiet = gap(&daily(&only(browsers), 1).1);
    let relay = format!("{browsers}[[privacy_relay]]\nstart_h = 0\nramp_h = 0\nshare = 1\n");
    let relay = gap(&daily(&only(&relay), 1).1);
    assert!(quiet < 0.06 && relay > 0.15, "{quiet} {relay}");
}

#[test]
fn nuisances_do_what_they_are_called() {
    let hour = |text: &str| {
        let scenario = only(text);
        let mut sources = vec![HashSet::new(); 24];
        let mut keys = vec![HashSet::new(); 24];
        for (index, epoch) in generate(&scenario, 6).enumerate() {
            sources[index / 60].extend(epoch.rows.iter().map(|row| row.source));
            keys[index / 60].extend(epoch.rows.iter().map(|row| row.tls_key).filter(|key| *key != 0));
        }
        (sources, keys)
    };
    let homes = "days = 1\nscale = 0.05\n[[app_users]]\n[[browsers]]\n";
    let (quiet, _) = hour(homes);
    let (crowd, _) = hour(&format!("{homes}[[flash_crowd]]\nstart_h = 12\nlength_h = 2\n"));
    assert_eq!(quiet[11], crowd[11]);
    let times = crowd[12].len() as f64 / quiet[12].len() as f64;
    assert!((7.5..11.0).contains(&times), "{times}");
    let (failed_over, _) = hour(&format!("{homes}[[regional_failover]]\nstart_h = 12\nlength_h = 2\n"));
    let times = failed_over[12].len() as f64 / quiet[12].len() as f64;
    assert!((1.6..2.3).contains(&times), "{times}");

    let (devices, keys) = hour("days = 1\nscale = 0.1\n[[device_launch]]\nstart_h = 12\n");
    assert!(devices[11].is_empty() && devices[15].len() > 2_400 && keys[15].len() == 1);
    let (cron, _) = hour("days = 1\nscale = 0.1\n[[cron_bursts]]\nstart_h = 12\nlength_h = 2\n");
    assert_eq!([11, 12, 13, 14].map(|hour| cron[hour].len()), [0, 200, 200, 0]);

    let mobile = "days = 1\n[[cgnat]]\naddresses = 20\n";
    let (before, _) = hour(mobile);
    let (after, _) = hour(&format!("{mobile}[[cgnat_renumbering]]\nstart_h = 12\n"));
    assert_eq!(before[11], after[11]);
    assert!(before[20].len() > 15 && before[20].is_disjoint(&after[20]));

    let (apps, keys) = hour("days = 1\nscale = 0.1\n[[app_launch]]\nstart_h = 6\nramp_h = 6\n");
    assert!(apps[5].is_empty() && apps[7].len() < apps[14].len() && apps[18].len() > 150);
    assert_eq!(keys[18].len(), 1);
    let (vpn, _) = hour(&format!("{homes}[[vpn_rollout]]\nstart_h = 12\nramp_h = 0\nshare = 1\n"));
    let moved =
        |hour: &HashSet<Source>| hour.iter().filter(|source| source.to_string().starts_with("250.")).count();
    // Those that the relay has already stay there; a VPN from the beginning has some.
    assert!(moved(&vpn[11]) * 10 < vpn[11].len() && moved(&vpn[20]) * 5 > vpn[20].len());

    let release = format!("{homes}[[browser_release]]\nstart_h = 12\nlength_h = 0\n");
    let (_, keys) = hour(&release);
    let (_, quiet) = hour(homes);
    assert_eq!(keys[11], quiet[11]);
    let new: HashSet<_> = keys[20].difference(&quiet[20]).collect();
    assert!((2..=3).contains(&new.len()), "the variants of one browser: {}", new.len());
    let servers = "days = 1\nscale = 0.05\n[[api_customers]]\n";
    let (_, quiet) = hour(servers);
    let (_, keys) = hour(&format!("{servers}[[sdk_release]]\nstart_h = 12\nlength_h = 2\n"));
    let new: HashSet<_> = keys[20].difference(&quiet[20]).collect();
    assert!(keys[11] == quiet[11] && new.len() == 2, "the variants of one SDK: {}", new.len());
}

#[test]
fn the_limiter_drops_what_is_above_its_limit() {
    let text = "days = 1\nscale = 0.05\nexchange_sample = 1\n[[api_customers]]\n";
    let limited = format!("{text}[[own_limiter]]\nstart_h = 12\nlength_h = 2\npackets_a_minute = 30\n");
    let exchanges = |rows: &[Row]| rows.iter().map(|row| u64::from(row.exchanges)).sum::<u64>();
    let mut lost = 0;
    for (minute, (free, held)) in generate(&only(text), 4).zip(generate(&only(&limited), 4)).enumerate() {
        let is_limited = (720..840).contains(&minute);
        let dropped = held.rows.iter().filter(|row| row.dropped_packets > 0).count();
        assert_eq!(dropped, held.rows.iter().filter(|row| is_limited && row.packets > 30).count());
        assert!(exchanges(&free.rows) >= exchanges(&held.rows));
        lost += exchanges(&free.rows) - exchanges(&held.rows);
        assert!(is_limited || free == held);
        assert!(held.rows.iter().all(|row| !is_limited || row.packets - row.dropped_packets <= 30));
    }
    assert!(lost > 20, "{lost}");
}
