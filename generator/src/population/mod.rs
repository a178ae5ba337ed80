//! Populations, as they are simulated: made from a scenario, and asked for each epoch.

mod background;
pub(crate) mod customers;
pub(crate) mod fleet;
mod nuisances;
pub(crate) mod place;
pub(crate) mod users;

use std::ops::Range;

use crate::conversation::Sizes;
use crate::random::Key;
use crate::rows::Rows;
use crate::scenario::Scenario;
use crate::time::DAY_S;
use crate::visits::Visits;

use customers::Customers;
use fleet::Actor;
use users::Users;

/// What a scenario is made of.
#[derive(Debug, Default)]
pub(crate) struct Populations {
    pub(crate) users: Vec<Visits<Users>>,
    pub(crate) customers: Vec<Customers>,
    pub(crate) fleets: Vec<Visits<Actor>>,
    /// Sources of a working day that each service has without nuisances and fleets, about.
    pub(crate) daily_sources: Vec<f64>,
}

impl Populations {
    /// Everything of a checked scenario.
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let key = Key::root(seed);
        let mut all = Self { daily_sources: vec![0.0; scenario.service.len()], ..Self::default() };
        background::add(scenario, key, &mut all);
        nuisances::add(scenario, key, &mut all);
        for (index, fleet) in scenario.fleet.iter().enumerate() {
            let service = scenario.service_index(fleet.service.as_deref());
            let later =
                fleet.retarget_service.as_deref().map_or(service, |name| scenario.service_index(Some(name)));
            let sources = fleet.share.map_or(fleet.sources, |share| {
                (all.daily_sources[usize::from(service)] * share / (1.0 - share)).ceil() as u32
            });
            let targets = [service, later].map(|service| (service, sizes(scenario, service, FLEET)));
            let length_s = f64::from(scenario.days) * f64::from(DAY_S);
            let key = key.named("fleet").at(index as u64);
            all.fleets.push(Visits::new(Actor::new(key, fleet.clone(), sources.max(1), targets, length_s)));
        }
        all
    }

    /// What goes on in an epoch, seconds since the recording began.
    pub(crate) fn step(&mut self, span: &Range<u32>, rows: &mut Rows) {
        for customers in &mut self.customers {
            customers.step(span, rows);
        }
        for users in &mut self.users {
            users.step(span, rows);
        }
        for fleet in &mut self.fleets {
            fleet.step(span, rows);
        }
    }
}

/// Medians of requests and responses as multiples of the service's, and the spreads around them.
type Proportions = [f64; 4];

const CUSTOMERS: Proportions = [1.6, 1.1, 0.9, 0.8];
const APP: Proportions = [0.5, 0.75, 0.7, 1.0];
const BROWSERS: Proportions = [0.7, 1.1, 0.6, 1.3];
const CRAWLERS: Proportions = [0.25, 2.0, 0.3, 1.0];
const MONITORS: Proportions = [0.15, 0.05, 0.05, 0.1];
const DEVICES: Proportions = [0.2, 0.025, 0.08, 0.1];
/// One kind of task, over and over.
const FLEET: Proportions = [1.4, 0.7, 0.25, 0.3];

/// Sizes of a population at a service.
fn sizes(
    scenario: &Scenario,
    service: u16,
    [request, response, request_sigma, response_sigma]: Proportions,
) -> Sizes {
    let service = &scenario.service[usize::from(service)];
    Sizes {
        request: service.request_bytes * request,
        request_sigma,
        response: service.response_bytes * response,
        response_sigma,
    }
}
