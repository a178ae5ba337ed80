//! Fleets: one actor behind many sources.

use crate::scenario::{Error, parameters::parameters};

/// What an actor does not to be seen. Each level has what those before it have, unless it says otherwise.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize,
)]
pub enum Level {
    /// An SDK, from addresses in data centres: sessions of several exchanges.
    #[default]
    L0,
    /// A new address for each request, of the same pool.
    L1,
    /// The ClientHello of the most common browser.
    L2,
    /// Residential proxies: exits in homes, each for some minutes. They end TCP, not TLS.
    L3,
    /// Jitter, daily rhythm, padded sizes, ClientHellos drawn as browsers are.
    L4,
    /// Unrelated traffic of the exits beside it, and no gap: TLS ends at the exit, too.
    L5,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::L0, Self::L1, Self::L2, Self::L3, Self::L4, Self::L5];

    /// What is new at this level.
    pub const fn help(self) -> &'static str {
        match self {
            Self::L0 => "an SDK, from addresses in data centres: sessions of several exchanges",
            Self::L1 => "a new address of the pool for each request",
            Self::L2 => "the ClientHello of the most common browser; the SYN stays a server's",
            Self::L3 => {
                "residential proxies: exits in homes out of millions, each for 1 to 30 minutes; they end TCP, not TLS"
            }
            Self::L4 => "jitter, daily rhythm, padded sizes, ClientHellos drawn as browsers are",
            Self::L5 => {
                "unrelated traffic of the same exits, 30 % of the exchanges; no gap: TLS ends at the exit"
            }
        }
    }
}

parameters! {
    /// A fleet.
    pub struct Fleet {
        name: Option<String> = None, 0.0..=0.0, "", "Name in `truth.json`; otherwise by its number.";
        level: Level = Level::L0, 0.0..=0.0, "", "What it does not to be seen.";
        service: Option<String> = None, 0.0..=0.0, "", "Its target; otherwise the first service.";
        sources: u32 = 25_000, 1.0..=6e6, "sources", "Active on a day.";
        share: Option<f64> = None, 0.0001..=0.9, "share", "Instead of `sources`: their part of the daily sources of the service, itself among them.";
        exchanges: f64 = 25.6, 0.1..=100_000.0, "a day", "Of a source: 28.8 M over 25,000 sources and 45 days.";
        start_h: f64 = 96.0, 0.0..=9_600.0, "h", "When it begins.";
        end_h: Option<f64> = None, 0.0..=9_600.0, "h", "When it ends; otherwise with the recording.";
        ramp_h: f64 = 0.0, 0.0..=9_600.0, "h", "Until it has all its sources.";
        pool: Option<u32> = None, 1.0..=67_000_000.0, "addresses", "That it takes its sources from: otherwise `sources`, from `L3` on 6,000,000.";
        failover_h: Option<f64> = None, 0.0..=9_600.0, "h", "When the pool is replaced.";
        retarget_h: Option<f64> = None, 0.0..=9_600.0, "h", "When it turns to `retarget_service`.";
        retarget_service: Option<String> = None, 0.0..=0.0, "", "The target from then on.";
        sticky_min: f64 = 1.0, 0.1..=1_440.0, "min", "From `L3` on: shortest time for which an exit is kept.";
        sticky_max: f64 = 30.0, 0.1..=1_440.0, "min", "The longest.";
        leg_ms: f64 = 90.0, 1.0..=2_000.0, "ms", "Median round trip between exit and actor.";
        hidden: f64 = 0.3, 0.0..=1.0, "share", "Exits that answer the actor before they are connected: no gap before the ClientHello.";
        jitter: f64 = 0.5, 0.0..=2.0, "log", "From `L4` on: spread of exchanges over sessions.";
        unrelated: f64 = 0.3, 0.0..=0.95, "share", "At `L5`: exchanges of its sources that are not its own.";
    }
}

impl Fleet {
    pub(super) fn check_times(&self, place: &str) -> Result<(), Error> {
        let wrong = |name: &str, found: String, expected: &str| {
            Err(Error::Value { place: format!("{place}.{name}"), found, expected: expected.into() })
        };
        if let Some(end_h) = self.end_h
            && end_h <= self.start_h
        {
            return wrong("end_h", end_h.to_string(), &format!("more than `start_h`, {}", self.start_h));
        }
        if self.sticky_max < self.sticky_min {
            return wrong("sticky_max", self.sticky_max.to_string(), "at least `sticky_min`");
        }
        if self.retarget_h.is_some() != self.retarget_service.is_some() {
            return wrong("retarget_h", "without its service, or the other way round".into(), "both or none");
        }
        if let Some(pool) = self.pool
            && self.share.is_none()
            && pool < self.sources
        {
            return wrong("pool", pool.to_string(), &format!("at least `sources`, {}", self.sources));
        }
        Ok(())
    }
}
