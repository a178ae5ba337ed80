//! What is remembered: detection, the services by name, and how long its minute is.

use detector_fleets::{
    detection::{Detection, Look},
    fleet::Fleet,
    observation::{Observation, ServiceId, Services},
};
use serde::{Deserialize, Serialize};

use super::scale::{EPOCH_S, Scale};

/// An epoch that is over, by the time of detection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// When it began, s of detection.
    pub start_s: u64,
    /// Services that nobody had a number for before, in the order of their numbers.
    pub names: Vec<String>,
    /// Its rows, by time.
    pub rows: Vec<Observation>,
    /// Counts of sources or clients that found no room in it.
    pub lost: u64,
}

/// All that detection knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    scale: Scale,
    services: Services,
    detection: Detection,
    /// When the first epoch began and the last one ended, s of detection.
    span_s: Option<(u64, u64)>,
    rows: u64,
    lost: u64,
}

impl Memory {
    /// One that has seen nothing. The secret makes sure that nobody chooses sources that are taken for known.
    pub fn new(scale: Scale, sources: u64, secret: u64) -> Self {
        Self {
            scale,
            services: Services::default(),
            detection: Detection::new(sources, secret),
            span_s: None,
            rows: 0,
            lost: 0,
        }
    }

    /// Adds an epoch, and says what is found in the intervals that are over. Epochs come by time.
    pub fn take(&mut self, epoch: &Epoch) -> Vec<Look> {
        for name in &epoch.names {
            // One too many is in no row.
            let _ = self.services.number(name);
        }
        let mut looks = self.go_on_to(epoch.start_s);
        for row in &epoch.rows {
            looks.extend(self.observe(row));
        }
        let from_s = self.span_s.map_or(epoch.start_s, |(from_s, _)| from_s);
        self.span_s = Some((from_s, epoch.start_s + u64::from(EPOCH_S)));
        self.lost += epoch.lost;
        looks
    }

    /// Adds a row of a service that has its number here.
    pub fn observe(&mut self, row: &Observation) -> Vec<Look> {
        let end_s = row.time_s + u64::from(EPOCH_S);
        let (from_s, to_s) = self.span_s.unwrap_or((row.time_s, end_s));
        self.span_s = Some((from_s, to_s.max(end_s)));
        self.rows += 1;
        self.detection.observe(row)
    }

    /// Time has come to this, s of detection: what is found in the interval before, if that is over.
    pub fn go_on_to(&mut self, inner_s: u64) -> Vec<Look> {
        self.detection.go_on_to(inner_s)
    }

    /// The number of a service, which is given one where it has none; `None`: there are 65,536.
    pub fn number(&mut self, service: &str) -> Option<ServiceId> {
        self.services.number(service)
    }

    /// Fleets get higher numbers than this one.
    pub const fn number_fleets_after(&mut self, last: u64) {
        self.detection.number_fleets_after(last);
    }

    /// How long its minute is.
    pub const fn scale(&self) -> Scale {
        self.scale
    }

    /// The services that it knows.
    pub const fn services(&self) -> &Services {
        &self.services
    }

    /// The fleets that were found, by number.
    pub fn fleets(&self) -> impl Iterator<Item = &Fleet> {
        self.detection.fleets()
    }

    /// Detection itself.
    pub const fn detection(&self) -> &Detection {
        &self.detection
    }

    /// When its first epoch began and its last one ended, s of detection; `None`: there was none.
    pub const fn span_s(&self) -> Option<(u64, u64)> {
        self.span_s
    }

    /// Rows that were added.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Counts of sources or clients that found no room, in their epoch or in their quarter of an hour.
    pub const fn lost(&self) -> u64 {
        self.lost + self.detection.lost()
    }
}
