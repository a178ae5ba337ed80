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
pub enum NotAdded {
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
    /// They are of too many services.
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

    /// Adds rows of a recording, by time: times are Unix time, and services have their numbers in `services`. Afterwards the rows have the times and
    /// numbers of this memory.
    ///
    /// # Errors
    ///
    /// Their epochs have another length than those before, or there are too many services. Then no row is added, and `rows` are of no use any more.
    pub fn observe_recorded(
        &mut self,
        rows: &mut [Observation],
        services: &Services,
    ) -> Result<Vec<Look>, NotAdded> {
        let mut before = None;
        for row in &mut *rows {
            if self.scale.epoch() != Duration::from_secs(row.span_s.into()) {
                return Err(NotAdded::Span { span_s: row.span_s, scale: self.scale });
            }
            let service = match before {
                Some((of_recording, service)) if of_recording == row.kind.service => service,
                _ => self.services.number(services.name(row.kind.service)).ok_or(NotAdded::Services)?,
            };
            before = Some((row.kind.service, service));
            row.kind.service = service;
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

#[cfg(test)]
mod tests {
    use detector_fleets::observation::Kind;

    use super::*;
    use crate::recording::fixtures::row;

    const START_S: u64 = 1_763_816_400;

    fn services(names: &[&str]) -> Services {
        let mut services = Services::default();
        names.iter().for_each(|name| _ = services.number(name));
        services
    }

    fn of(service: u16, span_s: u32) -> Observation {
        let row = row(START_S, 7);
        Observation { span_s, kind: Kind { service: ServiceId(service), ..row.kind }, ..row }
    }

    #[test]
    fn rows_of_a_recording_are_of_the_services_of_the_memory() {
        let mut memory = Memory::new(Scale::MINUTE, 1000, 1);
        memory.number("web");
        let mut rows = [of(0, 60), of(1, 60), of(0, 60)];
        memory.observe_recorded(&mut rows, &services(&["api", "web"])).expect("added");
        assert_eq!(memory.services().names(), ["web", "api"]);
        assert_eq!(rows.map(|row| row.kind.service.0), [1, 0, 1]);
        assert_eq!(memory.rows(), 3);
    }

    #[test]
    fn rows_of_other_epochs_or_of_too_many_services_are_not_added() {
        let mut memory = Memory::new(Scale::MINUTE, 1000, 1);
        let refused = |memory: &mut Memory, rows: &mut [Observation], names: &[&str]| {
            let refused = memory.observe_recorded(rows, &services(names)).map(drop).expect_err("refused");
            (refused.to_string(), memory.rows())
        };
        let (told, rows) = refused(&mut memory, &mut [of(0, 60), of(0, 1)], &["api"]);
        assert!(told.starts_with("epochs of 1 s after some of"), "{told}");
        assert_eq!(rows, 0);
        for number in memory.services().names().len()..=usize::from(u16::MAX) {
            memory.number(&number.to_string());
        }
        let (told, rows) = refused(&mut memory, &mut [of(1, 60)], &["api", "web"]);
        assert!(told.starts_with("more than 65,536 services"), "{told}");
        assert_eq!(rows, 0);
    }
}
