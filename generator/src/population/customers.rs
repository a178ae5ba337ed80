//! API customers: a few make most of the requests, each in bursts of its own, from servers that come and go.

use std::ops::Range;

use crate::conversation::{Client, Conversation, Sizes};
use crate::path::Path;
use crate::population::users::Release;
use crate::random::{Key, Stream};
use crate::rows::Rows;
use crate::software::Software;
use crate::source::{Network, Source};
use crate::time::{DAY_S, HOUR_S, Rhythm, hours_ahead};

/// Customers of the largest group, of the one after it, and of both.
const SECOND: usize = 9;
const THIRD: usize = 19;

/// From this rank on, customers may have no servers of their own.
const SERVERLESS_RANK: usize = 30;

/// Servers that one customer has at most.
const SERVERS_MAX: u64 = 64;

/// Activity of a customer changes so often, with that spread: beside the drift from hour to hour. With both, the requests of a minute
/// vary as those of LLM APIs do (variance 16 to 164 times the mean over days).
const BURST_S: u32 = 600;
const BURST_SIGMA: f64 = 0.6;

/// What the population is made from.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) customers: u32,
    pub(crate) requests_a_day: f64,
    /// Shares of the first, of the first ten, and of the first twenty-nine.
    pub(crate) shares: [f64; 3],
    /// Coefficients of variation of the times between a customer's requests: from, to.
    pub(crate) variation: (f64, f64),
    /// Spread of a customer's activity from hour to hour.
    pub(crate) drift: f64,
    /// Servers that are replaced on a day.
    pub(crate) churn: f64,
    /// Customers whose requests come from a new address each hour.
    pub(crate) serverless: f64,
    pub(crate) sizes: Sizes,
}

/// All customers.
#[derive(Debug)]
pub(crate) struct Customers {
    key: Key,
    service: u16,
    habits: Habits,
    rhythm: Rhythm,
    releases: Vec<Release>,
    customers: Vec<Customer>,
    /// For each of them what is looked at in each epoch: mean intervals until the next request, and intervals of a second now.
    pace: Vec<(f64, f64)>,
}

#[derive(Debug)]
struct Customer {
    key: Key,
    stream: Stream,
    /// Requests of a second, on average.
    rate: f64,
    shape: f64,
    ahead_h: i32,
    is_serverless: bool,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    /// Its place among the servers of the customer, and the how manieth it is there.
    turn: u64,
    conversation: Option<Conversation>,
}

/// Shares of customers by rank: exact for the groups, falling within them.
fn shares(count: usize, [first, ten, all]: [f64; 3]) -> Vec<f64> {
    let group = |share: f64, size: usize, fall: f64| {
        let weights: Vec<f64> = (1..=size).map(|rank| (rank as f64).powf(-fall)).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(move |weight| weight / sum * share)
    };
    let rest = count - 1 - SECOND - THIRD;
    let mut shares = vec![first];
    shares.extend(group(ten - first, SECOND, 0.5));
    shares.extend(group(all - ten, THIRD, 0.4));
    shares.extend(group(1.0 - all, rest, 0.5));
    shares
}

/// Servers of a customer with that many requests a day.
fn servers(requests_a_day: f64) -> u64 {
    ((requests_a_day / 400.0).powf(0.65) as u64).clamp(1, SERVERS_MAX)
}

impl Habits {
    /// Sources that come on a day, about.
    pub(crate) fn daily_sources(&self) -> f64 {
        let replaced = 1.0 + self.churn;
        shares(self.customers as usize, self.shares)
            .into_iter()
            .enumerate()
            .map(|(rank, share)| {
                let requests = share * self.requests_a_day;
                // A burst of requests counts once: who makes few does not come on each day, or not in each hour.
                let servers = servers(requests) as f64 * replaced * (1.0 - (-requests / 2.5).exp());
                let hours = 24.0 * (1.0 - (-requests / 24.0 / 1.5).exp());
                let serverless = if rank < SERVERLESS_RANK { 0.0 } else { self.serverless };
                (1.0 - serverless) * servers + serverless * hours
            })
            .sum()
    }
}

impl Customers {
    pub(crate) fn new(key: Key, service: u16, habits: Habits, releases: Vec<Release>) -> Self {
        let customers: Vec<Customer> = shares(habits.customers as usize, habits.shares)
            .into_iter()
            .enumerate()
            .map(|(rank, share)| {
                Customer::new(key.at(rank as u64), share * habits.requests_a_day, rank, &habits)
            })
            .collect();
        let pace = customers
            .iter()
            .map(|customer| (customer.key.named("first").stream().exponential(), 0.0))
            .collect();
        Self { key, service, habits, rhythm: Rhythm::office(), releases, customers, pace }
    }

    /// What they do in an epoch.
    pub(crate) fn step(&mut self, span: &Range<u32>, rows: &mut Rows) {
        let Self { key, service, habits, rhythm, releases, customers, pace } = self;
        let base = Client {
            service: *service,
            source: Network::DataCentre.v4(0),
            fingerprint: Software::Sdk(0).fingerprint(0, Network::DataCentre, *key),
            path: Path::straight(Network::DataCentre, &mut key.stream()),
            sizes: habits.sizes,
            reconnect: 0.0,
            resume: 0.5,
            spare: 0.0,
        };
        let span_s = span.end - span.start;
        let is_other_burst = span.start % BURST_S < span_s;
        for (customer, (left, rate)) in customers.iter_mut().zip(pace) {
            if is_other_burst {
                *rate = customer.rate * customer.activity(span.start, rhythm, habits.drift);
            }
            *left -= *rate * f64::from(span_s);
            while *left < 0.0 {
                *left += customer.stream.interval(customer.shape);
                customer.request(span.start, &base, habits, releases, rows);
            }
        }
    }
}

impl Customer {
    fn new(key: Key, requests_a_day: f64, rank: usize, habits: &Habits) -> Self {
        let (low, high) = habits.variation;
        let variation = low * (high / low).powf(key.named("variation").unit());
        let is_serverless = rank >= SERVERLESS_RANK && key.named("serverless").unit() < habits.serverless;
        let servers =
            (0..servers(requests_a_day)).map(|_| Server { turn: u64::MAX, conversation: None }).collect();
        Self {
            key,
            rate: requests_a_day / f64::from(DAY_S),
            shape: variation.powi(-2),
            stream: key.stream(),
            ahead_h: hours_ahead(key),
            is_serverless,
            servers,
        }
    }

    /// Activity at a time of the recording, on average 1: most of it by day, drifting from hour to hour, and in bursts.
    fn activity(&self, time_s: u32, rhythm: &Rhythm, drift: f64) -> f64 {
        let (day, hour) = (time_s / DAY_S, u64::from(time_s / HOUR_S));
        let local = (hour as i64 + i64::from(self.ahead_h)).rem_euclid(24) as usize;
        let by_day = 0.4 + 0.6 * rhythm.of_hour(local) * rhythm.of_day(day);
        let burst = self.key.named("burst").at(u64::from(time_s / BURST_S)).stream().factor(BURST_SIGMA);
        by_day * self.key.named("hour").at(hour).stream().factor(drift) * burst
    }

    fn request(
        &mut self,
        time_s: u32,
        base: &Client,
        habits: &Habits,
        releases: &[Release],
        rows: &mut Rows,
    ) {
        let index = self.stream.below(self.servers.len() as u64);
        let place = self.key.named("server").at(index);
        let kept_s = if self.is_serverless {
            f64::from(HOUR_S)
        } else {
            f64::from(DAY_S) / (habits.churn * (0.5 + place.unit())).max(1e-9)
        };
        let turn = (f64::from(time_s) / kept_s + place.at(1).unit()) as u64;
        let server = &mut self.servers[index as usize];
        if server.turn != turn || server.conversation.is_none() {
            server.turn = turn;
            server.conversation = Some(conversation(
                self.key,
                place.named("turn").at(turn),
                index,
                self.is_serverless,
                base,
                habits,
            ));
        }
        let Some(conversation) = &mut server.conversation else { return };
        if !releases.is_empty() {
            let sdk = sdk(self.key);
            let renewed =
                releases.iter().filter(|it| it.has_reached(sdk, self.key, f64::from(time_s))).count();
            let host = self.key.named("image");
            conversation.client.fingerprint = sdk.fingerprint(renewed as u64, Network::DataCentre, host);
        }
        conversation.talk(1, rows);
    }
}

/// A customer has one SDK on all its servers.
fn sdk(customer: Key) -> Software {
    Software::sdk(customer.named("sdk").unit())
}

fn conversation(
    customer: Key,
    server: Key,
    index: u64,
    is_serverless: bool,
    base: &Client,
    habits: &Habits,
) -> Conversation {
    let mut stream = server.stream();
    // Requests of one customer are alike, those of different ones are not.
    let sizes = habits.sizes.of_one(0.8, &mut customer.named("sizes").stream());
    let client = Client {
        source: address(customer, server, index, is_serverless),
        fingerprint: sdk(customer).fingerprint(0, Network::DataCentre, customer.named("image")),
        path: Path::straight(Network::DataCentre, &mut customer.named("path").stream()),
        sizes,
        reconnect: 0.02
            + 0.5 * customer.named("reconnect").unit().powi(3)
            + if is_serverless { 0.3 } else { 0.0 },
        ..*base
    };
    Conversation::new(client, stream.fork())
}

/// Servers of a customer are neighbours; what has no server comes from anywhere in a region.
fn address(customer: Key, server: Key, index: u64, is_serverless: bool) -> Source {
    if is_serverless {
        return Network::DataCentre.v4(server.bits());
    }
    Network::DataCentre.v4_in(customer.named("block").at(index / 16).bits(), server.bits() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn habits() -> Habits {
        Habits {
            customers: 3_000,
            requests_a_day: 300_000.0,
            shares: [0.16, 0.63, 0.85],
            variation: (0.7, 4.3),
            drift: 0.7,
            churn: 0.1,
            serverless: 0.02,
            sizes: Sizes { request: 2_000.0, request_sigma: 0.9, response: 8_000.0, response_sigma: 0.8 },
        }
    }

    /// Requests of the first customers over some days.
    fn requests(first: usize) -> f64 {
        let mut customers = Customers::new(Key::root(11), 0, habits(), Vec::new());
        customers.customers.truncate(first);
        let mut rows = Rows::new(1);
        let mut sum = 0.0;
        for epoch in 0..4 * DAY_S / 300 {
            customers.step(&(epoch * 300..(epoch + 1) * 300), &mut rows);
            sum += rows.take().iter().map(|row| f64::from(row.exchanges)).sum::<f64>();
        }
        sum
    }

    #[test]
    fn a_few_customers_make_most_of_the_requests() {
        let all = requests(3_000);
        assert!((all / 1_200_000.0 - 1.0).abs() < 0.15, "{all}");
        for (first, share) in [(1, 0.16), (10, 0.63), (29, 0.85)] {
            let made = requests(first) / all;
            assert!((made - share).abs() < 0.05, "{first}: {made}");
        }
    }

    #[test]
    fn as_many_servers_come_as_expected() {
        let mut customers = Customers::new(Key::root(12), 0, habits(), Vec::new());
        let mut rows = Rows::new(1);
        let mut sources = std::collections::HashSet::new();
        for epoch in 0..DAY_S / 60 {
            customers.step(&(epoch * 60..(epoch + 1) * 60), &mut rows);
            sources.extend(rows.take().iter().map(|row| row.source));
        }
        let expected = habits().daily_sources();
        assert!((sources.len() as f64 / expected - 1.0).abs() < 0.2, "{} for {expected}", sources.len());
    }

    #[test]
    fn shares_are_those_of_the_groups() {
        let shares = shares(3_000, [0.16, 0.63, 0.85]);
        let first = |count: usize| shares[..count].iter().sum::<f64>();
        for (count, share) in [(1, 0.16), (10, 0.63), (29, 0.85), (3_000, 1.0)] {
            assert!((first(count) - share).abs() < 1e-9, "{count}");
        }
        assert!(shares.windows(2).all(|pair| pair[0] >= pair[1]), "falling");
    }
}
