//! Where users come from, and what moves them elsewhere.

use crate::conversation::Fingerprint;
use crate::path::Path;
use crate::random::{Key, Stream};
use crate::software::{Software, syn_key};
use crate::source::{Network, Source};
use crate::time::{DAY_S, Window};

/// What address a user has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A home of their own, whose address changes.
    Homes {
        /// Share of homes that come over IPv6.
        v6: f64,
        /// Homes that get another address on a day: from, to.
        churn: (f64, f64),
    },
    /// An address for many, over a mobile network's translator or of an office.
    Shared {
        network: Network,
        addresses: u32,
        /// When all addresses are replaced.
        renumbered_s: f64,
    },
    /// A server of their own.
    Servers,
}

impl Place {
    pub(crate) const fn network(&self) -> Network {
        match self {
            Self::Homes { .. } => Network::Home,
            Self::Shared { network, .. } => *network,
            Self::Servers => Network::DataCentre,
        }
    }

    /// The source of a user at a time.
    pub(crate) fn source(&self, population: Key, number: u32, user: Key, time_s: f64) -> Source {
        match *self {
            Self::Homes { v6, churn: (low, high) } => {
                let own = user.named("address");
                // Each home keeps an address for a time of its own, and began with it before the recording.
                let keeps_s = f64::from(DAY_S) / (low + (high - low) * own.unit()).max(1e-9);
                let times = ((time_s + own.at(1).unit() * keeps_s) / keeps_s) as u64;
                let address = own.at(2).at(times).bits();
                if own.at(3).unit() < v6 { Network::Home.v6(address) } else { Network::Home.v4(address) }
            }
            Self::Shared { network, addresses, renumbered_s } => {
                // Addresses have from few to many users: the square favours the first ones.
                let favoured = user.named("address").unit().powf(1.35);
                let index = (favoured * f64::from(addresses)) as u64;
                let epoch = u64::from(time_s >= renumbered_s);
                let block = population.named("blocks").at(epoch).at(index / 200);
                network.v4_in(block.bits(), (index % 200) as u8)
            }
            Self::Servers => {
                let block = population.named("blocks").at(u64::from(number) / 16);
                Network::DataCentre.v4_in(block.bits(), (number % 16 * 16 + 3) as u8)
            }
        }
    }
}

/// A roll-out that takes users from where they are to exits that they share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) kind: Exit,
    pub(crate) key: Key,
    /// Share of the users (of a relay: of those with Safari).
    pub(crate) share: f64,
    /// Addresses of the exits.
    pub(crate) exits: u32,
    pub(crate) window: Window,
}

/// Kinds of exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Carries packets: nothing but the address and the segment size changes.
    Vpn,
    /// Ends TCP, not TLS, as MASQUE relays for browsers do (RFC 9298 and its relatives): an innocent gap.
    Relay,
}

impl Move {
    /// Whether that host is behind the exits by then.
    pub(crate) fn takes(&self, software: Software, host: Key, time_s: f64) -> bool {
        let own = self.key.at(host.bits());
        let may = self.kind == Exit::Vpn || software.is_safari();
        may && own.unit() < self.share && self.window.has(time_s, own.at(1).unit())
    }

    pub(crate) const fn network(&self) -> Network {
        match self.kind {
            Exit::Vpn => Network::Vpn,
            Exit::Relay => Network::Relay,
        }
    }

    /// The exit of a host.
    pub(crate) fn source(&self, host: Key) -> Source {
        let number = self.key.named("exit").at(host.bits()).bits() % u64::from(self.exits);
        self.network().v4_in(self.key.named("blocks").at(number / 128).bits(), (number % 128) as u8)
    }

    /// What becomes of its path.
    pub(crate) fn path(&self, home: Path, stream: &mut Stream) -> Path {
        match self.kind {
            Exit::Vpn => home.further(stream.lognormal(9.0, 0.6)),
            Exit::Relay => Path::straight(Network::Relay, stream).behind(stream.lognormal(38.0, 0.45), false),
        }
    }

    /// What becomes of its SYN: a relay's own.
    pub(crate) fn disguise(&self, fingerprint: &mut Fingerprint) {
        if self.kind == Exit::Relay {
            fingerprint.syn_key = syn_key("relay", Network::Relay, self.key);
            fingerprint.quic_key = 0;
        }
    }
}
