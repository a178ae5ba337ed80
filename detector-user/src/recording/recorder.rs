//! Looks at the tables of a program, and makes the rows of each epoch.

use detector_fleets::observation::Observation;

use super::{clients::Clients, epoch::Epoch, numbering::Numbering};
use crate::{
    kernel::{
        maps::Maps,
        read::{self, Client},
    },
    traffic::{self, Flow},
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
    /// Its rows, of services by the numbers of the [`Numbering`]; see [`Epoch::rows`].
    pub rows: Vec<Observation>,
    /// See [`Epoch::lost`].
    pub lost: u64,
}

impl Recorder {
    /// Looks at maps, and gives the epoch that is over since the look before. At its first look at tables it only learns what they are:
    /// what was counted before is of no epoch that is known.
    ///
    /// `numbering`: fresh, see [`Numbering::refresh`]. `time_s`: now, seconds since the Unix epoch. `span_s`: the length of epochs.
    pub fn look(&mut self, maps: &Maps, numbering: &mut Numbering, time_s: u64, span_s: u32) -> Option<Over> {
        if self.sources.as_ref().is_some_and(|look| !look.is_of_tables(maps)) {
            // Those of another program, which was loaded since.
            *self = Self { epoch: self.epoch.take(), ..Self::default() };
        }
        let epoch = self.epoch.get_or_insert_with(|| Epoch::at(time_s, span_s));
        let mut flow = |flow: Flow| {
            if let Some(service) = numbering.service(flow.service) {
                epoch.add_flow(&Flow { service: service.0, ..flow });
            }
        };
        match &mut self.sources {
            Some(look) => look.next(maps, &mut flow),
            None => self.sources = Some(traffic::Look::take(maps)),
        }
        self.clients.next(read::clients(maps), |client| {
            if let Some(service) = numbering.service(client.service) {
                epoch.add_client(&Client { service: service.0, ..client });
            }
        });
        if !epoch.is_over(time_s) {
            return None;
        }
        let over = self.epoch.replace(Epoch::at(time_s, span_s))?;
        Some(self.end(over, numbering))
    }

    /// The epoch that is going on is over now, as far as it came.
    pub fn cut(&mut self, numbering: &mut Numbering) -> Option<Over> {
        let over = self.epoch.take()?;
        Some(self.end(over, numbering))
    }

    fn end(&self, epoch: Epoch, numbering: &mut Numbering) -> Over {
        let (start_s, lost) = (epoch.start_s(), epoch.lost());
        let clients = self.clients.all().filter_map(|client| {
            let service = numbering.service(client.service)?;
            Some(Client { service: service.0, ..*client })
        });
        Over { start_s, rows: epoch.rows(clients), lost }
    }
}
