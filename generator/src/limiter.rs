//! The node's own limiter, as it shows in the rows: packets that were dropped, and what did not happen because of that.

use std::ops::Range;

use crate::random::{Key, Stream};
use crate::row::Row;
use crate::time::Window;

/// A limit on each client of each source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    pub(crate) key: Key,
    pub(crate) service: u16,
    pub(crate) window: Window,
    pub(crate) packets_a_minute: f64,
}

impl Limiter {
    /// Acts on the rows of an epoch.
    pub(crate) fn act(&self, span: &Range<u32>, exchange_sample: u32, rows: &mut [Row]) {
        if !self.window.has(f64::from(span.start), 0.0) {
            return;
        }
        let allowed = (self.packets_a_minute * f64::from(span.end - span.start) / 60.0).ceil() as u64;
        for row in rows.iter_mut().filter(|row| row.service == self.service && row.packets > allowed) {
            let own = self.key.at(u64::from(span.start)).at(row.source.address as u64);
            let own = own.at((row.source.address >> 64) as u64).at(row.tls_key).at(row.syn_key);
            limit(row, allowed, exchange_sample, &mut own.stream());
        }
    }
}

fn limit(row: &mut Row, allowed: u64, exchange_sample: u32, stream: &mut Stream) {
    row.dropped_packets = row.packets - allowed;
    let refused = row.dropped_packets as f64 / row.packets as f64;
    let lost = stream.binomial(row.exchanges / exchange_sample, refused);
    row.exchanges -= lost * exchange_sample;
    remove(&mut row.request_sizes, lost, stream);
    remove(&mut row.response_sizes, lost, stream);
    // A handshake whose SYN or ClientHello was dropped is not seen.
    let lost = stream.binomial(row.handshakes, refused);
    row.handshakes -= lost;
    for times in [&mut row.rtt, &mut row.hello_gap, &mut row.finish_gap] {
        remove(times, lost, stream);
    }
}

/// Takes so many of what was counted, whichever.
fn remove(histogram: &mut [u32], count: u32, stream: &mut Stream) {
    for _ in 0..count {
        let total: u32 = histogram.iter().sum();
        if total == 0 {
            return;
        }
        let mut which = stream.below(u64::from(total)) as u32;
        for bin in histogram.iter_mut() {
            if which < *bin {
                *bin -= 1;
                break;
            }
            which -= *bin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Network;

    #[test]
    fn what_is_dropped_does_not_happen() {
        let mut row = Row::new(0, Network::Home.v4(1), 1, 2);
        (row.packets, row.exchanges, row.connections, row.handshakes) = (600, 800, 50, 50);
        (row.request_sizes[3], row.response_sizes[5], row.response_sizes[6]) = (100, 40, 60);
        (row.rtt[6], row.hello_gap[1], row.finish_gap[7]) = (50, 50, 50);
        let limiter =
            Limiter { key: Key::root(1), service: 0, window: Window::ALWAYS, packets_a_minute: 150.0 };
        let mut rows = [row];
        limiter.act(&(0..60), 8, &mut rows);
        let [row] = rows;
        assert_eq!((row.packets, row.dropped_packets, row.connections), (600, 450, 50));
        assert!((80..320).contains(&row.exchanges), "{}", row.exchanges);
        assert_eq!(row.request_sizes.iter().sum::<u32>() * 8, row.exchanges);
        assert_eq!(row.response_sizes.iter().sum::<u32>() * 8, row.exchanges);
        assert_eq!([row.rtt[6], row.hello_gap[1], row.finish_gap[7]], [row.handshakes; 3]);
        assert!(row.handshakes < 30);
    }
}
