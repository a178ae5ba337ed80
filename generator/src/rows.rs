//! The rows of the epoch that is being made: whoever is active adds to the row of its keys.

use crate::deed::Deed;
use crate::row::Row;
use crate::source::{Family, Source};

/// Rows with an index over their keys.
#[derive(Debug)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    /// (epoch, index of the row) in the order of the hash, open addressing; those of other epochs are empty.
    slots: Vec<(u32, u32)>,
    epoch: u32,
    /// Of so many connections one is followed.
    pub(crate) exchange_sample: u32,
    /// What is done, where somebody asks for it.
    pub(crate) deeds: Option<Vec<Deed>>,
    connections: u64,
}

impl Rows {
    pub(crate) fn new(exchange_sample: u32) -> Self {
        Self {
            rows: Vec::new(),
            slots: vec![(0, 0); 1 << 12],
            epoch: 1,
            exchange_sample,
            deeds: None,
            connections: 0,
        }
    }

    /// A number that no other connection has.
    pub(crate) const fn number_connection(&mut self) -> u64 {
        self.connections += 1;
        self.connections
    }

    /// Ends the epoch.
    pub(crate) fn take(&mut self) -> Vec<Row> {
        self.epoch += 1;
        let room = Vec::with_capacity(self.rows.len() + self.rows.len() / 8);
        std::mem::replace(&mut self.rows, room)
    }

    /// The row of these keys.
    #[inline]
    pub(crate) fn at(&mut self, service: u16, source: Source, syn_key: u64, tls_key: u64) -> &mut Row {
        if self.rows.len() * 2 >= self.slots.len() {
            self.grow();
        }
        let mut slot = self.first_slot(service, source, syn_key, tls_key);
        let index = loop {
            let (epoch, index) = self.slots[slot];
            if epoch != self.epoch {
                self.slots[slot] = (self.epoch, self.rows.len() as u32);
                self.rows.push(Row::new(service, source, syn_key, tls_key));
                break self.rows.len() - 1;
            }
            let row = &self.rows[index as usize];
            if row.source == source
                && row.tls_key == tls_key
                && row.syn_key == syn_key
                && row.service == service
            {
                break index as usize;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        };
        &mut self.rows[index]
    }

    fn first_slot(&self, service: u16, source: Source, syn_key: u64, tls_key: u64) -> usize {
        let address = source.address as u64 ^ ((source.address >> 64) as u64).rotate_left(17);
        let tag = u64::from(service) << 1 | u64::from(source.family == Family::V6);
        let word =
            (address ^ tag << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ syn_key.rotate_left(29) ^ tls_key;
        (word.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 20) as usize & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        self.slots = vec![(0, 0); self.slots.len() * 2];
        for index in 0..self.rows.len() {
            let Row { service, source, syn_key, tls_key, .. } = self.rows[index];
            let mut slot = self.first_slot(service, source, syn_key, tls_key);
            while self.slots[slot].0 == self.epoch {
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            self.slots[slot] = (self.epoch, index as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Network;

    #[test]
    fn there_is_one_row_for_each_set_of_keys() {
        let mut rows = Rows::new(8);
        for round in 0..2 {
            for _ in 0..2 {
                for number in 0..10_000 {
                    rows.at(0, Network::Home.v4(number), 1, number % 3).connections += 1;
                    rows.at(1, Network::Home.v4(number), 1, number % 3).connections += 1;
                    rows.at(0, Network::Home.v4(number), 2, number % 3).connections += 1;
                    rows.at(0, Network::Home.v4(number), 1, number % 3 + 1).connections += 1;
                }
            }
            let taken = rows.take();
            assert_eq!(taken.len(), 40_000, "round {round}");
            assert!(taken.iter().all(|row| row.connections == 2));
        }
    }
}
