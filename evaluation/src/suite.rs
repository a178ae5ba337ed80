//! What is measured, and what was meant to be reached.

/// Levels of fleets, by the start of the names of their scenarios.
pub(crate) const LEVELS: [&str; 6] = ["l0", "l1", "l2", "l3", "l4", "l5"];

/// Scenarios of further fleets.
pub(crate) const FURTHER: [&str; 8] = [
    "fleet-of-500",
    "fleet-of-2000",
    "five-fleets",
    "slow-ramp",
    "same-sources-l0",
    "same-sources-l3",
    "peak",
    "case",
];

/// What is no fleet.
pub(crate) const NEGATIVES: [&str; 14] = [
    "quiet",
    "hard-negative-browser-release",
    "hard-negative-sdk-release",
    "hard-negative-flash-crowd",
    "hard-negative-cgnat-renumbering",
    "hard-negative-app-launch",
    "hard-negative-cron-bursts",
    "hard-negative-vpn-rollout",
    "hard-negative-regional-failover",
    "hard-negative-privacy-relay",
    "hard-negative-own-limiter",
    "hard-negative-device-launch",
    "hard-negative-everything",
    LARGE,
];

/// It takes as long as all others together, and is measured where it is named only.
const LARGE: &str = "hard-negative-everything-300k";

/// The scenario with a tenth of the sources, and with a hundredth.
pub(crate) fn of_level(level: &str) -> [String; 2] {
    [level.to_owned(), format!("{level}-1-percent")]
}

/// All scenarios.
pub(crate) fn whole() -> Vec<String> {
    let levels = LEVELS.iter().flat_map(|level| of_level(level));
    let others = NEGATIVES.into_iter().chain(FURTHER).filter(|name| *name != LARGE);
    levels.chain(others.map(str::to_owned)).collect()
}

/// Small ones, for a few minutes.
pub(crate) fn quick() -> Vec<String> {
    let negatives = NEGATIVES.into_iter().filter_map(|name| name.strip_prefix("hard-negative-"));
    let names = LEVELS.into_iter().chain(negatives).chain(["quiet"]);
    names.filter(|name| !name.starts_with("everything")).map(|name| format!("small-{name}")).collect()
}

/// What is to be reached for a level and a share of the daily sources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) alarm_min: u64,
    /// Which of [`crate::figures::COMPARED_AT_H`].
    pub(crate) compared: usize,
    pub(crate) precision: f64,
    pub(crate) recall: f64,
}

/// Those of a level, for a tenth and for a hundredth of the sources. `None`: what is found is reported, and nothing was promised.
pub(crate) fn targets(level: &str) -> Option<[Target; 2]> {
    let of = |alarm_min, compared, precision, recall| Target { alarm_min, compared, precision, recall };
    Some(match level {
        "l0" => [of(60, 0, 0.99, 0.98), of(360, 0, 0.95, 0.98)],
        "l1" | "l2" => [of(30, 0, 0.995, 0.99), of(120, 0, 0.99, 0.99)],
        "l3" => [of(30, 1, 0.995, 0.98), of(120, 1, 0.99, 0.97)],
        "l4" => [of(120, 1, 0.99, 0.90), of(480, 1, 0.96, 0.80)],
        _ => return None,
    })
}

/// The share of legitimate exchanges that acting on a fleet may cost.
pub(crate) const HIT_MAX: f64 = 0.0001;

/// Rows of a second that are to be taken by one core.
pub(crate) const ROWS_A_SECOND_MIN: f64 = 2e6;

/// Time of a look at a million sources, at most, s.
pub(crate) const LOOK_S_MAX: f64 = 5.0;

/// Memory for a day of a million sources, at most, bytes.
pub(crate) const MEMORY_BYTES_MAX: u64 = 1_000_000_000;
