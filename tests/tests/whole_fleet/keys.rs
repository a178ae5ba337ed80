//! The keys that the program makes of what the generator's software sends, for the days that are learned from rows.

use std::collections::HashMap;

use detector_common::{initial, segment::Segment};
use detector_fleets::observation::{Kind, Observation, ServiceId};
use detector_generator::{
    Epoch, Family, Row, Scenario, Source,
    deed::{Connect, Deed, Delays, Says, What},
    packets::Player,
};
use detector_tests::rows::{Rig, SECOND};

use crate::{POLICY, source_of};

/// Bytes of the headers before a datagram.
const UDP_HEADERS: usize = 14 + 20 + 8;

/// A program that sees one connection of each kind of client.
pub(crate) struct Keys {
    rig: Rig,
    player: Player,
    connections: u64,
    syn: HashMap<(u64, Family), u64>,
    tls: HashMap<u64, u64>,
    quic: HashMap<u64, u64>,
}

impl Keys {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (rig, player) = (Rig::under(POLICY), Player::new(scenario));
        let (syn, tls, quic) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { rig, player, connections: 0, syn, tls, quic }
    }

    /// What the program would tell of an epoch, by the generator's rows.
    pub(crate) fn observations(&mut self, epoch: &Epoch) -> Vec<Observation> {
        let mut rows: Vec<_> = epoch.rows.iter().map(|row| self.observation(epoch, row)).collect();
        rows.sort_unstable_by_key(|row| (row.kind.service, row.source, row.kind));
        rows
    }

    fn observation(&mut self, epoch: &Epoch, row: &Row) -> Observation {
        let (syn_key, tls_key) = self.of(row);
        Observation {
            time_s: epoch.time_s,
            span_s: epoch.span_s,
            source: source_of(row.source),
            kind: Kind { service: ServiceId(row.service), syn_key, tls_key },
            packets: row.packets,
            bytes: row.bytes,
            dropped_packets: row.dropped_packets,
            connections: row.connections,
            handshakes: row.handshakes,
            exchanges: row.exchanges,
            request_sizes: row.request_sizes,
            response_sizes: row.response_sizes,
            rtt: row.rtt,
            hello_gap: row.hello_gap,
            finish_gap: row.finish_gap,
        }
    }

    /// The keys of a row's client.
    fn of(&mut self, row: &Row) -> (u64, u64) {
        let Row { syn_key, tls_key, source, .. } = *row;
        if syn_key == 0 {
            return (0, self.of_quic(tls_key));
        }
        let is_known = self.syn.contains_key(&(syn_key, source.family))
            && (tls_key == 0 || self.tls.contains_key(&tls_key));
        if !is_known {
            self.connect(syn_key, tls_key, source.family);
        }
        (self.syn[&(syn_key, source.family)], self.tls.get(&tls_key).copied().unwrap_or(0))
    }

    fn connect(&mut self, syn_key: u64, tls_key: u64, family: Family) {
        let says = if tls_key == 0 { Says::Nothing } else { Says::Hello };
        let delays = Delays { rtt: 1.0, hello_gap: 1.0, finish_gap: 1.0 };
        for (_, syn, tls) in self.seen(family, What::Connect(Connect { syn_key, tls_key, says, delays })) {
            if syn != 0 {
                self.syn.insert((syn_key, family), syn);
            }
            if tls != 0 {
                self.tls.insert(tls_key, tls);
            }
        }
    }

    fn of_quic(&mut self, key: u64) -> u64 {
        if let Some(known) = self.quic.get(&key) {
            return *known;
        }
        let frames = self.seen(Family::V4, What::ConnectQuic { key });
        let shape = initial::read(&Segment::of(&frames[0].0[UDP_HEADERS..])).expect("an Initial");
        self.quic.insert(key, shape.key());
        shape.key()
    }

    /// The frames of a connection, with the keys that the program finds in each.
    fn seen(&mut self, family: Family, what: What) -> Vec<(Vec<u8>, u64, u64)> {
        self.connections += 1;
        let address = match family {
            Family::V4 => 0xf000_0001,
            Family::V6 => 0x2001_0db8 << 96,
        };
        let (source, connection) = (Source { family, address }, self.connections);
        let deed = |what| Deed { service: 0, source, connection, what };
        self.player.add(self.connections * 60, 60, &[deed(what), deed(What::End)]);
        let (mut frames, rig) = (Vec::new(), &mut self.rig);
        rig.advance(60 * SECOND);
        self.player.play(u64::MAX, |_, frame| {
            let trace = rig.send(frame).trace;
            frames.push((frame.to_vec(), trace.syn_key, trace.tls_key));
            true
        });
        frames
    }
}
