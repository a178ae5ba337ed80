//! The scenario files, and what is said of those that are wrong.

use std::collections::HashSet;
use std::fs;

use detector_generator::{Scenario, generate};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scenarios");

#[test]
fn every_scenario_can_be_generated() {
    let mut names = HashSet::new();
    for entry in fs::read_dir(FILES).expect("the directory") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a file");
        let scenario =
            Scenario::from_toml(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(scenario.name.as_str()));
        let mut generation = generate(&scenario, u64::from(scenario.seed));
        let rows: usize = generation.by_ref().take(60).map(|epoch| epoch.rows.len()).sum();
        assert!(rows > 500, "{}: {rows} rows in an hour", path.display());
        let truth = generation.truth();
        assert_eq!(truth.fleets.len(), scenario.fleet.len());
        let last_s = truth.start_s + u64::from(scenario.days) * 86_400;
        assert!(truth.fleets.iter().all(|fleet| fleet.start_s < fleet.end_s && fleet.end_s <= last_s));
        assert!(truth.nuisances.iter().all(|nuisance| nuisance.start_s < last_s), "{}", path.display());
        names.insert(scenario.name);
    }
    for level in 0..=5 {
        for name in [format!("l{level}"), format!("l{level}-1-percent"), format!("small-l{level}")] {
            assert!(names.contains(&name), "{name}");
        }
    }
    assert!(names.contains("quiet") && names.contains("case"));
    assert_eq!(names.iter().filter(|name| name.starts_with("hard-negative-")).count(), 13);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let said = |text: &str| match Scenario::from_toml(text) {
        Ok(_) => panic!("taken: {text}"),
        Err(error) => error.to_string(),
    };
    for (text, parts) in [
        ("days = 1\n[[browsers]]\nhomse = 3\n", &["line 3", "homse", "homes"][..]),
        ("days = 'many'", &["line 1", "many"]),
        ("days = 0", &["`days` is 0", "1 to 400 days"]),
        ("[[app_users]]\n[[app_users]]\nv6 = 1.5", &["`app_users[1].v6` is 1.5", "0 to 1 share"]),
        ("[[fleet]]\nlevel = 'L6'", &["line 2", "L6", "L5"]),
        ("[[fleet]]\nshare = 0.95", &["`fleet[0].share`", "0.0001 to 0.9"]),
        ("[[fleet]]\nstart_h = 50\nend_h = 40", &["`fleet[0].end_h` is 40", "`start_h`, 50"]),
        ("[[fleet]]\nretarget_h = 50", &["retarget_h", "both or none"]),
        ("[[fleet]]\npool = 5", &["`fleet[0].pool` is 5", "25000"]),
        ("[[fleet]]\nservice = 'apy'", &["`fleet[0].service` is `apy`", "api"]),
        ("epoch_s = 7", &["`epoch_s` is 7", "divisor of 3,600"]),
        ("start_s = 1772409601", &["start_s", "midnight"]),
        ("service = []", &["`service` is empty", "[[service]]"]),
        ("[[service]]\nname = 'a'\n[[service]]\nname = 'a'", &["twice"]),
        ("[[api_customers]]\ntop = 0.5", &["api_customers[0].top", "at most that of the one before"]),
        ("scale = nan", &["`scale` is NaN"]),
    ] {
        let said = said(text);
        for part in parts {
            assert!(said.contains(part), "{text:?} says {said:?}, without {part:?}");
        }
    }
}
