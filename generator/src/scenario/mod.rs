//! Scenarios: what is simulated, as TOML.

mod fleets;
mod nuisances;
pub(crate) mod parameters;
mod populations;

use std::collections::HashSet;

use crate::time::DAY_S;

pub use fleets::{Fleet, Level};
pub use nuisances::{
    AppLaunch, BrowserRelease, CgnatRenumbering, CronBursts, DeviceLaunch, FlashCrowd, OwnLimiter,
    PrivacyRelay, RegionalFailover, SdkRelease, VpnRollout,
};
pub use parameters::Parameter;
pub use populations::{ApiCustomers, AppUsers, Browsers, Cgnat, Crawlers, Monitors, Offices, Service};

use parameters::parameters;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no TOML, or has names or types that no scenario has.
    #[error("the scenario cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value makes no sense.
    #[error("`{place}` is {found}; expected: {expected}")]
    Value {
        /// The parameter.
        place: String,
        /// What it is.
        found: String,
        /// What it may be.
        expected: String,
    },
}

parameters! {
    /// The recording, and what is in it. Populations, nuisances and fleets are lists: `[[browsers]]` in a scenario replaces the
    /// population that is there otherwise, `browsers = []` takes it out.
    pub struct Scenario {
        name: String = "unnamed".into(), 0.0..=0.0, "", "Name, for people and `truth.json`.";
        seed: u32 = 1, 0.0..=4_294_967_295.0, "", "Seed if none is given.";
        days: u32 = 7, 1.0..=400.0, "days", "Length of the recording.";
        start_s: u32 = 1_772_409_600, 0.0..=4_200_000_000.0, "s since 1970", "When it begins: midnight, UTC, of what is taken for a Monday.";
        epoch_s: u32 = 60, 1.0..=3_600.0, "s", "Length of an epoch; divides an hour.";
        node: String = "edge-1".into(), 0.0..=0.0, "", "Name of the edge node.";
        exchange_sample: u32 = 8, 1.0..=1_024.0, "", "Of so many connections one is followed to count exchanges and their sizes, as the program does; 1: each.";
        scale: f64 = 1.0, 0.001..=100.0, "", "Factor on all numbers of users, customers and addresses, not on fleets.";
        @lists {
            /// What is talked to.
            service: Service = vec![Service::default()];
            /// See [`ApiCustomers`].
            api_customers: ApiCustomers = vec![ApiCustomers::default()];
            /// See [`AppUsers`].
            app_users: AppUsers = vec![AppUsers::default()];
            /// See [`Browsers`].
            browsers: Browsers = vec![Browsers::default()];
            /// See [`Cgnat`].
            cgnat: Cgnat = vec![Cgnat::default()];
            /// See [`Offices`].
            offices: Offices = vec![Offices::default()];
            /// See [`Crawlers`].
            crawlers: Crawlers = vec![Crawlers::default()];
            /// See [`Monitors`].
            monitors: Monitors = vec![Monitors::default()];
            /// See [`FlashCrowd`].
            flash_crowd: FlashCrowd = Vec::new();
            /// See [`BrowserRelease`].
            browser_release: BrowserRelease = Vec::new();
            /// See [`SdkRelease`].
            sdk_release: SdkRelease = Vec::new();
            /// See [`RegionalFailover`].
            regional_failover: RegionalFailover = Vec::new();
            /// See [`OwnLimiter`].
            own_limiter: OwnLimiter = Vec::new();
            /// See [`CronBursts`].
            cron_bursts: CronBursts = Vec::new();
            /// See [`AppLaunch`].
            app_launch: AppLaunch = Vec::new();
            /// See [`VpnRollout`].
            vpn_rollout: VpnRollout = Vec::new();
            /// See [`PrivacyRelay`].
            privacy_relay: PrivacyRelay = Vec::new();
            /// See [`DeviceLaunch`].
            device_launch: DeviceLaunch = Vec::new();
            /// See [`CgnatRenumbering`].
            cgnat_renumbering: CgnatRenumbering = Vec::new();
            /// See [`Fleet`].
            fleet: Fleet = Vec::new();
        }
    }
}

impl Scenario {
    /// Reads and checks a scenario.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let scenario: Self = toml::from_str(text)?;
        scenario.checked()
    }

    /// The scenario, if all of it makes sense.
    pub fn checked(self) -> Result<Self, Error> {
        self.check("")?;
        let wrong = |place: &str, found: String, expected: &str| {
            Err(Error::Value { place: place.into(), found, expected: expected.into() })
        };
        if !3_600_u32.is_multiple_of(self.epoch_s) {
            return wrong("epoch_s", self.epoch_s.to_string(), "a divisor of 3,600");
        }
        if !self.start_s.is_multiple_of(DAY_S) {
            return wrong("start_s", self.start_s.to_string(), "a multiple of 86,400: midnight, UTC");
        }
        if self.service.is_empty() {
            return wrong("service", "empty".into(), "at least one `[[service]]`");
        }
        let names: HashSet<&str> = self.service.iter().map(|service| service.name.as_str()).collect();
        if names.len() != self.service.len() {
            return wrong("service", "a list with a name twice".into(), "services with different names");
        }
        for (place, service) in self.services_named() {
            if !names.contains(service) {
                let all: Vec<&str> = self.service.iter().map(|service| service.name.as_str()).collect();
                return wrong(
                    &place,
                    format!("`{service}`"),
                    &format!("the name of a service: {}", all.join(", ")),
                );
            }
        }
        for (index, customers) in self.api_customers.iter().enumerate() {
            customers.check_shares(&format!("api_customers[{index}]"))?;
        }
        for (index, fleet) in self.fleet.iter().enumerate() {
            fleet.check_times(&format!("fleet[{index}]"))?;
        }
        Ok(self)
    }

    /// Index of a service; `None`: of the first one.
    pub(crate) fn service_index(&self, name: Option<&str>) -> u16 {
        let found = self.service.iter().position(|service| Some(service.name.as_str()) == name);
        found.unwrap_or_default() as u16
    }

    /// Every place that names a service, with the name.
    fn services_named(&self) -> Vec<(String, &str)> {
        let mut named = Vec::new();
        macro_rules! of {
            ($($list:ident),*) => {$(
                for (index, item) in self.$list.iter().enumerate() {
                    if let Some(service) = &item.service {
                        named.push((format!("{}[{index}].service", stringify!($list)), service.as_str()));
                    }
                }
            )*};
        }
        of!(
            api_customers,
            app_users,
            browsers,
            cgnat,
            offices,
            crawlers,
            monitors,
            flash_crowd,
            regional_failover
        );
        of!(own_limiter, cron_bursts, app_launch, device_launch, fleet);
        for (index, fleet) in self.fleet.iter().enumerate() {
            if let Some(service) = &fleet.retarget_service {
                named.push((format!("fleet[{index}].retarget_service"), service));
            }
        }
        named
    }
}
