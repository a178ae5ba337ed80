//! What the table of clients counted between two looks.

use detector_common::client::Client as Counts;

use crate::kernel::read::Client;

/// The clients as they were at the last look, in the order of their ways.
#[derive(Debug, Default)]
pub struct Clients {
    before: Option<Vec<Client>>,
}

impl Clients {
    /// Looks at the clients of a table, which come in the order of their ways, and says what each did since the look before: a client
    /// whose counts are those between the looks. Of one that came since, all that is counted; at the first look nothing, since nobody
    /// knows when it was counted.
    pub fn next(&mut self, clients: impl Iterator<Item = Client>, mut did: impl FnMut(Client)) {
        let is_first = self.before.is_none();
        let before = self.before.take().unwrap_or_default();
        let mut rest = before.iter().peekable();
        let mut now = Vec::with_capacity(before.len());
        for client in clients {
            while rest.next_if(|earlier| earlier.way < client.way).is_some() {}
            let earlier = rest.peek().filter(|earlier| is_same(earlier, &client));
            let since = earlier.map_or(client, |earlier| since(&client, earlier));
            if !is_first && is_active(&since) {
                did(since);
            }
            now.push(client);
        }
        self.before = Some(now);
    }

    /// The clients as they were at the last look.
    pub fn all(&self) -> impl Iterator<Item = &Client> {
        self.before.iter().flatten()
    }
}

/// Whether both are of one life of a way.
fn is_same(one: &Client, other: &Client) -> bool {
    (one.way, one.counts.key, one.life) == (other.way, other.counts.key, other.life)
}

fn is_active(client: &Client) -> bool {
    let Counts { exchanges, round_trip, hello_delay, finish_delay, .. } = client.counts;
    let times = [round_trip, hello_delay, finish_delay];
    let is_timed = times.as_flattened().iter().any(|&count| count != 0);
    client.connections != 0 || client.handshakes != 0 || exchanges != 0 || is_timed
}

/// What was counted between two looks at one life of a way. Counts wrap.
fn since(now: &Client, before: &Client) -> Client {
    let (counts, earlier) = (&now.counts, &before.counts);
    Client {
        connections: now.connections.wrapping_sub(before.connections),
        handshakes: now.handshakes.wrapping_sub(before.handshakes),
        counts: Counts {
            followed: counts.followed.wrapping_sub(earlier.followed),
            segments: counts.segments.wrapping_sub(earlier.segments),
            exchanges: counts.exchanges.wrapping_sub(earlier.exchanges),
            round_trip: each_since(&counts.round_trip, &earlier.round_trip),
            hello_delay: each_since(&counts.hello_delay, &earlier.hello_delay),
            finish_delay: each_since(&counts.finish_delay, &earlier.finish_delay),
            request_sizes: each_since(&counts.request_sizes, &earlier.request_sizes),
            response_sizes: each_since(&counts.response_sizes, &earlier.response_sizes),
            ..*counts
        },
        ..*now
    }
}

fn each_since<const BINS: usize>(now: &[u16; BINS], before: &[u16; BINS]) -> [u16; BINS] {
    std::array::from_fn(|bin| now[bin].wrapping_sub(before[bin]))
}

#[cfg(test)]
mod tests {
    use detector_common::{
        address::{Address, Family},
        table::Unit,
    };
    use proptest::prelude::*;

    use super::*;

    const fn client(way: u32, life: u8, key: u64, handshakes: u32) -> Client {
        let counts = Counts {
            key,
            source: key,
            tag: 0,
            syn_key: 1,
            tls_key: 2,
            followed: 0,
            segments: 0,
            exchanges: handshakes.wrapping_mul(3),
            reserved: 0,
            round_trip: [handshakes as u16; _],
            hello_delay: [0; _],
            finish_delay: [0; _],
            request_sizes: [(handshakes as u16).wrapping_mul(5); _],
            response_sizes: [0; _],
        };
        let source = Address { family: Family::V4, high: key << 32, low: 0 };
        Client {
            way,
            life,
            source,
            unit: Unit::V4Source,
            service: 1,
            connections: 0,
            handshakes,
            last_ns: 0,
            counts,
        }
    }

    fn deeds(clients: &mut Clients, now: &[Client]) -> Vec<Client> {
        let mut deeds = Vec::new();
        clients.next(now.iter().copied(), |deed| deeds.push(deed));
        deeds
    }

    #[test]
    fn what_was_there_before_the_first_look_is_not_counted_and_what_comes_later_is_as_a_whole() {
        let mut clients = Clients::default();
        assert_eq!(deeds(&mut clients, &[client(3, 1, 7, 1000)]), []);
        // Another one comes, and the first is active again.
        let now = [client(1, 1, 8, 2), client(3, 1, 7, 1001)];
        assert_eq!(deeds(&mut clients, &now), [client(1, 1, 8, 2), client(3, 1, 7, 1)]);
        assert_eq!(deeds(&mut clients, &now), [], "nothing happened");
        assert_eq!(clients.all().count(), 2);
    }

    #[test]
    fn a_way_that_changed_hands_counts_from_nothing_also_when_its_owner_is_the_same_again() {
        let mut clients = Clients::default();
        deeds(&mut clients, &[client(3, 1, 7, 50)]);
        assert_eq!(deeds(&mut clients, &[client(3, 2, 8, 60)]), [client(3, 2, 8, 60)]);
        assert_eq!(deeds(&mut clients, &[client(3, 3, 8, 70)]), [client(3, 3, 8, 70)]);
        // It was away for a look.
        assert_eq!(deeds(&mut clients, &[]), []);
        assert_eq!(deeds(&mut clients, &[client(3, 4, 8, 1)]), [client(3, 4, 8, 1)]);
    }

    #[test]
    fn counts_wrap() {
        let mut clients = Clients::default();
        deeds(&mut clients, &[client(0, 0, 7, u32::MAX)]);
        assert_eq!(deeds(&mut clients, &[client(0, 0, 7, 4)]), [client(0, 0, 7, 5)]);
    }

    proptest! {
        /// However often it is looked, the sums are what was counted since the first look.
        #[test]
        fn deeds_sum_to_what_was_counted(
            steps in proptest::collection::vec(proptest::collection::vec((0..6_u32, 0..4_u32, any::<bool>()), 0..8), 1..30),
        ) {
            let mut table: [Option<Client>; 6] = [None; 6];
            let (mut clients, mut told, mut counted) = (Clients::default(), 0_u64, 0_u64);
            deeds(&mut clients, &[]);
            for (step, doings) in steps.into_iter().enumerate() {
                for (way, handshakes, is_new) in doings {
                    let place = &mut table[way as usize];
                    let next = match *place {
                        Some(before) if !is_new => client(way, before.life, before.counts.key, before.handshakes + handshakes),
                        before => {
                            // What was counted of the one before since anybody looked is lost, as it is in the kernel.
                            if let Some(before) = before {
                                let seen = clients.all().find(|seen| is_same(seen, &before));
                                counted -= u64::from(before.handshakes - seen.map_or(0, |seen| seen.handshakes));
                            }
                            let life = before.map_or(0, |before| before.life.wrapping_add(1));
                            client(way, life, 100 + step as u64, handshakes)
                        }
                    };
                    *place = Some(next);
                    counted += u64::from(handshakes);
                }
                let now: Vec<_> = table.iter().flatten().copied().collect();
                told += deeds(&mut clients, &now).iter().map(|deed| u64::from(deed.handshakes)).sum::<u64>();
                prop_assert_eq!(told, counted);
            }
        }
    }
}
