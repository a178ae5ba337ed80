//! What is remembered: detection, the services by name, and how long its minute is.

use std::time::Duration;

use detector_fleets::{
    detection::{Detection, Look},
    fleet::Fleet,
    observation::{Observation, ServiceId, Services},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

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

/// Why rows of a recording cannot be added.
#[derive(Debug, Error)]
pub enum NotOfMemory {
    /// They are of epochs of another length.
    #[error(
        "epochs of {span_s} s after some of {scale}: windows are so many epochs long; hunt in recordings of one length at a time"
    )]
    Span {
        /// How long these are, s.
        span_s: u32,
        /// What those before were like.
        scale: Scale,
    },
    /// There are too many.
    #[error("more than 65,536 services: hunt in recordings of fewer at a time")]
    Services,
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
        looks.extend(self.observe(&epoch.rows));
        let from_s = self.span_s.map_or(epoch.start_s, |(from_s, _)| from_s);
        self.span_s = Some((from_s, epoch.start_s + u64::from(EPOCH_S)));
        self.lost += epoch.lost;
        looks
    }

    /// Adds rows of services that have their numbers here, by time.
    pub fn observe(&mut self, rows: &[Observation]) -> Vec<Look> {
        for row in rows {
            let end_s = row.time_s + u64::from(EPOCH_S);
            let (from_s, to_s) = self.span_s.unwrap_or((row.time_s, end_s));
            self.span_s = Some((from_s, to_s.max(end_s)));
        }
        self.rows += rows.len() as u64;
        self.detection.observe_all(rows)
    }

    /// Adds rows of a recording, by time: times are Unix time, services have the numbers of `services`, which has them all. The rows are left with
    /// those of this memory.
    ///
    /// # Errors
    ///
    /// Their epochs have another length than those before, or there are too many services. Rows before such a one may have been added.
    pub fn observe_recorded(
        &mut self,
        rows: &mut [Observation],
        services: &Services,
    ) -> Result<Vec<Look>, NotOfMemory> {
        let mut numbers = vec![None; services.names().len()];
        for row in &mut *rows {
            if self.scale.epoch() != Duration::from_secs(row.span_s.into()) {
                return Err(NotOfMemory::Span { span_s: row.span_s, scale: self.scale });
            }
            let number = &mut numbers[usize::from(row.kind.service.0)];
            let known = number.or_else(|| self.services.number(services.name(row.kind.service)));
            *number = known;
            row.kind.service = known.ok_or(NotOfMemory::Services)?;
            row.time_s = self.scale.inner_s(row.time_s * 1000);
            row.span_s = EPOCH_S;
        }
        Ok(self.observe(rows))
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
