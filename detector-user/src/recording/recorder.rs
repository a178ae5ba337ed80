//! Looks at the tables of a program, and makes the rows of each epoch.

use detector_fleets::observation::Observation;

use super::{clients::Clients, epoch::Epoch};
use crate::{
    kernel::{maps::Maps, read},
    traffic,
};

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub struct Recorder {
    sources: Option<traffic::Look>,
    clients: Clients,
    epoch: Option<Epoch>,
}

/// An epoch that is over.
#[derive(Debug)]
pub struct Over {
    /// When it began, seconds since the Unix epoch.
    pub start_s: u64,
    /// Its rows, of services by their numbers in the policy; see [`Epoch::rows`].
    pub rows: Vec<Observation>,
    /// See [`Epoch::lost`].
    pub lost: u64,
}

impl Recorder {
    /// Looks at maps, and gives the epoch that is over since the look before. At its first look at tables it only learns what they are:
    /// what was counted before is of no epoch that is known.
    ///
    /// `time_s`: now, seconds since the Unix epoch. `span_s`: the length of epochs.
    pub fn look(&mut self, maps: &Maps, time_s: u64, span_s: u32) -> Option<Over> {
        if self.sources.as_ref().is_some_and(|look| !look.is_of_tables(maps)) {
            // Those of another program, which was loaded since.
            *self = Self { epoch: self.epoch.take(), ..Self::default() };
        }
        let epoch = self.epoch.get_or_insert_with(|| Epoch::at(time_s, span_s));
        match &mut self.sources {
            Some(look) => look.next(maps, |flow| epoch.add_flow(&flow)),
            None => self.sources = Some(traffic::Look::take(maps)),
        }
        self.clients.next(read::clients(maps), |client| epoch.add_client(&client));
        if !epoch.is_over(time_s) {
            return None;
        }
        let over = self.epoch.replace(Epoch::at(time_s, span_s))?;
        Some(self.end(over))
    }

    /// No look comes any more: the epoch that is going on, as far as it came.
    pub fn finish(mut self) -> Option<Over> {
        let over = self.epoch.take()?;
        Some(self.end(over))
    }

    fn end(&self, epoch: Epoch) -> Over {
        let (start_s, lost) = (epoch.start_s(), epoch.lost());
        Over { start_s, rows: epoch.rows(self.clients.all()), lost }
    }
}
