//! How long a client's handshake takes, seen from the edge.
//!
//! The edge meets whoever ends TCP. Where that is the client, the ClientHello comes a moment after the handshake of TCP (what the client
//! needs to build it) and the next bytes a round trip later. Behind a proxy that ends TCP but not TLS, both wait for the leg between the
//! proxy and the client as well; a proxy that answers its client before it is connected hides the first of the two waits, never the
//! second. Losses and connections that are opened before they are needed only add.

use crate::random::Stream;
use crate::source::Network;

/// A connection of a hundred loses a segment of its handshake, which costs the sender's timer.
const LOSS: f64 = 0.01;

/// A connection of fifty is opened before it is needed.
const EARLY: f64 = 0.02;

/// From the edge to a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Round trip to whoever ends TCP, at its best, ms.
    rtt_ms: f64,
    /// Round trip from there to the client; 0: it is the client.
    leg_ms: f64,
    /// What ends TCP answers the client before it is connected.
    is_hidden: bool,
    /// What the client needs to build a ClientHello.
    processing_ms: f64,
}

/// Of one handshake, ms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delays {
    /// From the SYN's answer to the client's.
    pub rtt: f64,
    /// From that to the ClientHello.
    pub hello_gap: f64,
    /// From the ClientHello to what the client says next.
    pub finish_gap: f64,
}

impl Path {
    /// From a network, straight to a client. Medians and spreads are choices: towards a node in the same region.
    pub(crate) fn straight(network: Network, stream: &mut Stream) -> Self {
        let (median, sigma) = match network {
            Network::Home => (22.0, 0.5),
            Network::Mobile => (55.0, 0.45),
            Network::Office => (14.0, 0.5),
            Network::DataCentre => (6.0, 0.9),
            Network::Vpn => (38.0, 0.5),
            Network::Relay => (5.0, 0.6),
        };
        let rtt_ms = stream.lognormal(median, sigma).max(0.4);
        Self { rtt_ms, leg_ms: 0.0, is_hidden: false, processing_ms: stream.lognormal(0.6, 0.7) }
    }

    /// The same, `leg_ms` behind what ends TCP.
    pub(crate) const fn behind(self, leg_ms: f64, is_hidden: bool) -> Self {
        Self { leg_ms, is_hidden, ..self }
    }

    /// The same from further away.
    pub(crate) const fn further(self, ms: f64) -> Self {
        Self { rtt_ms: self.rtt_ms + ms, ..self }
    }

    /// What one handshake takes.
    pub(crate) fn handshake(&self, stream: &mut Stream) -> Delays {
        let queue = |stream: &mut Stream| 1.0 + 0.12 * stream.exponential();
        let rtt = self.rtt_ms * queue(stream);
        let mut hello_gap = self.processing_ms * (0.6 + 0.6 * stream.exponential());
        let mut finish_gap = self.rtt_ms * queue(stream) + 1.0 + stream.exponential();
        if self.leg_ms > 0.0 {
            let leg = self.leg_ms * queue(stream);
            finish_gap += leg;
            if !self.is_hidden {
                hello_gap += leg;
            }
        }
        // One number for both, which are rare.
        let luck = stream.unit();
        if luck < LOSS {
            hello_gap += 200.0 + self.rtt_ms;
        } else if luck < 2.0 * LOSS {
            finish_gap += 200.0 + self.rtt_ms;
        } else if luck < 2.0 * LOSS + EARLY {
            hello_gap += 150.0 * (1.0 + 10.0 * stream.unit());
        }
        Delays { rtt, hello_gap, finish_gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn medians(path: &Path, stream: &mut Stream) -> (f64, f64, f64) {
        let mut delays: Vec<_> = (0..2_001).map(|_| path.handshake(stream)).collect();
        let mut median = |of: fn(&Delays) -> f64| {
            delays.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&delays[1_000])
        };
        (median(|delays| delays.rtt), median(|delays| delays.hello_gap), median(|delays| delays.finish_gap))
    }

    #[test]
    fn a_leg_behind_the_exit_shows_in_the_gaps() {
        let mut stream = Key::root(1).stream();
        let straight = Path { rtt_ms: 20.0, leg_ms: 0.0, is_hidden: false, processing_ms: 0.6 };
        let (rtt, hello, finish) = medians(&straight, &mut stream);
        assert!((20.0..25.0).contains(&rtt) && hello < 1.5 && (20.0..28.0).contains(&finish));
        let (rtt, hello, finish) = medians(&straight.behind(90.0, false), &mut stream);
        assert!((20.0..25.0).contains(&rtt) && (90.0..105.0).contains(&hello) && finish > 110.0);
        let (_, hello, finish) = medians(&straight.behind(90.0, true), &mut stream);
        assert!(hello < 1.5 && finish > 110.0);
    }
}
