//! What is true of a recording: what detection is measured by.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::packets::capture::CaptureTruth;
use crate::population::Populations;
use crate::row::Epoch;
use crate::scenario::{Level, Scenario};
use crate::source::Source;
use crate::time::{DAY_S, HOUR_S};

/// What is true of the part of a recording that was generated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Truth {
    /// Name of the scenario.
    pub scenario: String,
    /// Seed that it was generated with.
    pub seed: u64,
    /// When it begins, seconds since 1970.
    pub start_s: u64,
    /// Its length.
    pub days: u32,
    /// Length of an epoch.
    pub epoch_s: u32,
    /// Of so many connections one was followed.
    pub exchange_sample: u32,
    /// Services, in the order of their indices.
    pub services: Vec<ServiceTruth>,
    /// Nuisances, in the order of the scenario.
    pub nuisances: Vec<Nuisance>,
    /// Fleets, in the order of the scenario.
    pub fleets: Vec<FleetTruth>,
    /// What was counted in the rows, if it was: see [`Census`].
    pub days_counted: Vec<DayTruth>,
    /// What is true of the part that was written as packets, if one was.
    pub capture: Option<CaptureTruth>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceTruth {
    /// Its name.
    pub name: String,
    /// Sources of a working day without nuisances and fleets, as the parameters give it.
    pub daily_sources_expected: f64,
}

/// A nuisance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nuisance {
    /// Its name in the scenario.
    pub kind: &'static str,
    /// When it begins, seconds since 1970.
    pub start_s: u64,
    /// When it ends; of what stays, when all who take part do.
    pub end_s: u64,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetTruth {
    /// Its name.
    pub name: String,
    /// What it does not to be seen.
    pub level: Level,
    /// Its target.
    pub service: String,
    /// The later target, and from when on.
    pub retarget: Option<(String, u64)>,
    /// When its pool is replaced, seconds since 1970.
    pub failover_s: Option<u64>,
    /// When it begins.
    pub start_s: u64,
    /// When it ends.
    pub end_s: u64,
    /// Sources of a day, as the parameters give them.
    pub daily_sources: u32,
    /// Their part of the daily sources of its first target, themselves among them.
    pub share: f64,
    /// Exchanges so far, each counted: neither sampled nor limited.
    pub exchanges: u64,
    /// Its sources so far, in their order.
    pub members: Vec<Member>,
}

/// A source of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its prefix, in JSON as text.
    pub source: Source,
    /// When its first epoch in the fleet begins, seconds since 1970.
    pub first_s: u64,
    /// When its last one so far does.
    pub last_s: u64,
    /// Exchanges that it made for the fleet.
    pub exchanges: u32,
}

/// A day of a service, as counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DayTruth {
    /// Of the recording, from 0.
    pub day: u32,
    /// Name of the service.
    pub service: String,
    /// Rows.
    pub rows: u64,
    /// Different sources.
    pub sources: u64,
    /// Exchanges, as the rows estimate them.
    pub exchanges: u64,
}

impl Truth {
    pub(crate) fn new(scenario: &Scenario, seed: u64, populations: &Populations) -> Self {
        let since_1970 = |time_s: u32| u64::from(scenario.start_s) + u64::from(time_s);
        let of_hour = |hour: f64| since_1970((hour * f64::from(HOUR_S)) as u32);
        let name = |index: u16| scenario.service[usize::from(index)].name.clone();
        let fleets = populations.fleets.iter().enumerate().map(|(index, visits)| {
            let fleet = &visits.plan;
            let [(service, _), (later, _)] = fleet.targets;
            let others = populations.daily_sources[usize::from(service)];
            let own = f64::from(fleet.sources);
            let mut members: Vec<_> = fleet.members.iter().collect();
            members.sort_unstable_by_key(|(source, _)| **source);
            FleetTruth {
                name: fleet.fleet.name.clone().unwrap_or_else(|| format!("fleet {}", index + 1)),
                level: fleet.fleet.level,
                service: name(service),
                retarget: fleet.fleet.retarget_h.map(|hour| (name(later), of_hour(hour))),
                failover_s: fleet.fleet.failover_h.map(of_hour),
                start_s: since_1970(fleet.window.start_s as u32),
                end_s: since_1970((fleet.window.end_s as u32).min(scenario.days * DAY_S)),
                daily_sources: fleet.sources,
                share: own / (own + others),
                exchanges: fleet.exchanges,
                members: members
                    .into_iter()
                    .map(|(source, member)| Member {
                        source: *source,
                        first_s: since_1970(member.first_s),
                        last_s: since_1970(member.last_s),
                        exchanges: member.exchanges,
                    })
                    .collect(),
            }
        });
        let services = scenario.service.iter().zip(&populations.daily_sources);
        Self {
            scenario: scenario.name.clone(),
            seed,
            start_s: u64::from(scenario.start_s),
            days: scenario.days,
            epoch_s: scenario.epoch_s,
            exchange_sample: scenario.exchange_sample,
            services: services
                .map(|(service, daily)| ServiceTruth {
                    name: service.name.clone(),
                    daily_sources_expected: *daily,
                })
                .collect(),
            nuisances: nuisances(scenario),
            fleets: fleets.collect(),
            days_counted: Vec::new(),
            capture: None,
        }
    }
}

/// When each nuisance of a scenario is.
fn nuisances(scenario: &Scenario) -> Vec<Nuisance> {
    let mut all = Vec::new();
    macro_rules! add {
        ($($kind:ident, $length:ident;)*) => {$(
            all.extend(scenario.$kind.iter().map(|it| (stringify!($kind), it.start_h, it.$length)));
        )*};
    }
    add! {
        flash_crowd, length_h;
        browser_release, length_h;
        sdk_release, length_h;
        regional_failover, length_h;
        own_limiter, length_h;
        cron_bursts, length_h;
        app_launch, ramp_h;
        vpn_rollout, ramp_h;
        privacy_relay, ramp_h;
        device_launch, ramp_h;
    }
    all.extend(scenario.cgnat_renumbering.iter().map(|it| ("cgnat_renumbering", it.start_h, 0.0)));
    let of_hour = |hour: f64| u64::from(scenario.start_s) + (hour * f64::from(HOUR_S)) as u64;
    all.into_iter()
        .map(|(kind, start_h, length_h)| Nuisance {
            kind,
            start_s: of_hour(start_h),
            end_s: of_hour(start_h + length_h),
        })
        .collect()
}

/// Counts what the rows of each day have.
#[derive(Clone, Debug, Default)]
pub struct Census {
    days: HashMap<(u32, u16), (u64, u64, HashSet<Source>)>,
    counted: Vec<DayTruth>,
}

impl Census {
    /// Counts an epoch of the recording.
    pub fn add(&mut self, truth: &Truth, epoch: &Epoch) {
        let day = ((epoch.time_s - truth.start_s) / u64::from(DAY_S)) as u32;
        if self.days.keys().any(|(of, _)| *of != day) {
            self.end_day(truth);
        }
        for row in &epoch.rows {
            let (rows, exchanges, sources) = self.days.entry((day, row.service)).or_default();
            *rows += 1;
            *exchanges += u64::from(row.exchanges);
            sources.insert(row.source);
        }
    }

    /// What was counted.
    pub fn finish(mut self, truth: &Truth) -> Vec<DayTruth> {
        self.end_day(truth);
        self.counted
    }

    fn end_day(&mut self, truth: &Truth) {
        let mut days: Vec<_> = self.days.drain().collect();
        days.sort_unstable_by_key(|(key, _)| *key);
        self.counted.extend(days.into_iter().map(|((day, service), (rows, exchanges, sources))| DayTruth {
            day,
            service: truth.services[usize::from(service)].name.clone(),
            rows,
            sources: sources.len() as u64,
            exchanges,
        }));
    }
}
