//! Who is there in any case.

use crate::scenario::{Error, parameters::parameters};

parameters! {
    /// A service. Populations scale its sizes: a browser sends less than an API customer.
    pub struct Service {
        name: String = "api".into(), 0.0..=0.0, "", "Name in the policy.";
        request_bytes: f64 = 1_800.0, 64.0..=1e6, "bytes", "Median of requests.";
        response_bytes: f64 = 8_000.0, 64.0..=1e8, "bytes", "Median of responses.";
    }
}

parameters! {
    /// Customers of an API, on servers. A few make most of the requests, each in bursts of its own (a renewal process with gamma
    /// intervals); activity follows the working day by 60 %, drifts from hour to hour and changes every ten minutes; each has one SDK of 14, on servers that are replaced.
    pub struct ApiCustomers {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        customers: u32 = 3_000, 40.0..=1e6, "customers", "How many there are.";
        requests_a_day: f64 = 600_000.0, 1.0..=1e9, "requests", "Of all of them, on a working day.";
        top: f64 = 0.16, 0.0..=1.0, "share", "Requests of the largest customer.";
        top_10: f64 = 0.63, 0.0..=1.0, "share", "Requests of the ten largest.";
        top_29: f64 = 0.85, 0.0..=1.0, "share", "Requests of the twenty-nine largest.";
        variation_min: f64 = 0.7, 0.1..=20.0, "", "Coefficient of variation of the times between a customer's requests while its rate stays the same, for the steadiest.";
        variation_max: f64 = 4.3, 0.1..=20.0, "", "The same for the one with the most pronounced bursts.";
        drift: f64 = 0.7, 0.0..=2.0, "log", "Standard deviation of a customer's activity from hour to hour; gives 14 to 29 % from day to day at the same hour over all.";
        server_churn: f64 = 0.1, 0.0..=10.0, "share a day", "Servers that are replaced.";
        serverless: f64 = 0.02, 0.0..=1.0, "share", "Small customers that have a new address each hour.";
    }
}

impl ApiCustomers {
    pub(super) fn check_shares(&self, place: &str) -> Result<(), Error> {
        let shares = [self.top, self.top_10, self.top_29];
        // The largest of the nine after the first has a fifth of their share, the largest after them a tenth.
        let (second, third) = ((shares[1] - shares[0]) * 0.22, (shares[2] - shares[1]) * 0.11);
        let ninth = (shares[1] - shares[0]) * 0.07;
        if shares[0] >= second && ninth >= third && third > 0.0 && self.variation_min <= self.variation_max {
            return Ok(());
        }
        Err(Error::Value {
            place: format!("{place}.top, top_10, top_29, variation_min, variation_max"),
            found: format!("{shares:?}, {}, {}", self.variation_min, self.variation_max),
            expected: "shares of which each customer's is at most that of the one before; variations from low to high"
                .into(),
        })
    }
}

parameters! {
    /// Homes with the service's app, on Android (62 %) or iOS: one TLS fingerprint each. Use is lognormal over homes and over visits; visits
    /// follow the evening of the local day.
    pub struct AppUsers {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        homes: u32 = 500_000, 10.0..=5e7, "homes", "How many have it.";
        daily_sources: f64 = 18_000.0, 1.0..=1e7, "homes", "That come on a working day.";
        use_sigma: f64 = 1.0, 0.0..=2.5, "log", "Spread of how often a home comes.";
        visits: f64 = 2.2, 1.0..=100.0, "a day", "Visits of a home on a day on which it comes.";
        exchanges: f64 = 5.0, 1.0..=1_000.0, "", "Median of a visit.";
        exchanges_sigma: f64 = 1.1, 0.0..=2.5, "log", "Its spread.";
        v6: f64 = 0.35, 0.0..=1.0, "share", "Homes that come over IPv6.";
        churn_min: f64 = 0.02, 0.0..=1.0, "share a day", "Homes that get another address: least.";
        churn_max: f64 = 0.05, 0.0..=1.0, "share a day", "The same: most.";
        proxied: f64 = 0.01, 0.0..=1.0, "share", "Homes behind a proxy that ends TCP.";
        drift: f64 = 0.1, 0.0..=1.0, "log", "Standard deviation of the activity of all from day to day.";
    }
}

parameters! {
    /// People with browsers at home: 64 fingerprints by Zipf's law (exponent 1.1), each in three variants for new and resumed connections;
    /// SYNs by operating system and segment size; half of the later connections over QUIC.
    pub struct Browsers {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        homes: u32 = 400_000, 10.0..=5e7, "homes", "How many know it.";
        daily_sources: f64 = 15_000.0, 1.0..=1e7, "homes", "That come on a working day.";
        use_sigma: f64 = 1.2, 0.0..=2.5, "log", "Spread of how often a home comes.";
        visits: f64 = 1.8, 1.0..=100.0, "a day", "Visits of a home on a day on which it comes.";
        exchanges: f64 = 7.0, 1.0..=1_000.0, "", "Median of a visit.";
        exchanges_sigma: f64 = 1.2, 0.0..=2.5, "log", "Its spread.";
        v6: f64 = 0.35, 0.0..=1.0, "share", "Homes that come over IPv6.";
        churn_min: f64 = 0.02, 0.0..=1.0, "share a day", "Homes that get another address: least.";
        churn_max: f64 = 0.05, 0.0..=1.0, "share a day", "The same: most.";
        proxied: f64 = 0.01, 0.0..=1.0, "share", "Homes behind a proxy that ends TCP.";
        relayed: f64 = 0.05, 0.0..=1.0, "share", "Hosts with Safari that are behind a privacy relay from the beginning.";
        tunnelled: f64 = 0.02, 0.0..=1.0, "share", "Hosts that are behind a VPN from the beginning.";
        drift: f64 = 0.1, 0.0..=1.0, "log", "Standard deviation of the activity of all from day to day.";
    }
}

parameters! {
    /// Addresses of mobile networks' translators: thousands of users each, with browsers, behind one address.
    pub struct Cgnat {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        addresses: u32 = 60, 1.0..=100_000.0, "addresses", "How many there are.";
        users: f64 = 3_000.0, 10.0..=20_000.0, "users", "Of an address, on average; from a third to two times that.";
        daily: f64 = 0.02, 0.0..=0.9, "share", "Users that come on a day.";
        exchanges: f64 = 5.0, 1.0..=1_000.0, "", "Median of a visit.";
    }
}

parameters! {
    /// Offices: colleagues with browsers behind one address, in working hours; some behind a proxy of their own, a few ms away.
    pub struct Offices {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        addresses: u32 = 400, 1.0..=1e6, "addresses", "How many there are.";
        users: f64 = 40.0, 1.0..=5_000.0, "users", "Of an address, on average.";
        daily: f64 = 0.25, 0.0..=0.9, "share", "Users that come on a working day.";
        exchanges: f64 = 10.0, 1.0..=1_000.0, "", "Median of a visit.";
        proxied: f64 = 0.2, 0.0..=1.0, "share", "Users behind the office's proxy, which ends TCP.";
    }
}

parameters! {
    /// Crawlers of five operators, with software of their own, day and night.
    pub struct Crawlers {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        addresses: u32 = 600, 1.0..=1e6, "addresses", "How many there are.";
        daily: f64 = 0.6, 0.0..=0.97, "share", "Addresses that come on a day.";
        visits: f64 = 3.0, 1.0..=100.0, "a day", "Visits of an address.";
        exchanges: f64 = 60.0, 1.0..=10_000.0, "", "Median of a visit.";
    }
}

parameters! {
    /// Probes that look whether the service is there.
    pub struct Monitors {
        service: Option<String> = None, 0.0..=0.0, "", "Service that they use; otherwise the first one.";
        probes: u32 = 24, 1.0..=10_000.0, "probes", "How many there are.";
        period_s: f64 = 60.0, 1.0..=86_400.0, "s", "Between two exchanges of a probe.";
        jitter_s: f64 = 0.3, 0.0..=3_600.0, "s", "Standard deviation of their times.";
    }
}
