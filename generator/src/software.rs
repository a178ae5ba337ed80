//! Software and its fingerprints: browsers, SDKs, the app, crawlers. A key is the hash of a name, so it is the same under each seed.

use std::sync::LazyLock;

use crate::conversation::Fingerprint;
use crate::random::{Key, Weights, hash};
use crate::source::Network;

/// Operating systems of browsers, as they are known by their SYN.
const SYSTEMS: [&str; 5] = ["windows", "android", "ios", "macos", "linux"];

/// Browsers by their first ranks: name and index of the operating system. The ranks repeat them in older versions.
const BROWSERS: [(&str, usize); 10] = [
    ("chrome", 0),
    ("safari", 2),
    ("chrome", 1),
    ("safari", 3),
    ("edge", 0),
    ("chrome", 3),
    ("firefox", 0),
    ("samsung", 1),
    ("webview", 1),
    ("firefox", 4),
];

/// Ranks of the catalogue: each has a fingerprint of TLS of its own, in three variants.
const RANKS: usize = 64;

/// Catalogue of browsers, by how common they are: Zipf's law.
static MIX: LazyLock<Weights> = LazyLock::new(|| Weights::zipf(RANKS, 1.1));

/// SDKs of API customers, by how common they are.
static SDKS: LazyLock<Weights> = LazyLock::new(|| Weights::zipf(14, 1.0));

/// A piece of software on an operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Software {
    /// A browser by its rank.
    Browser(usize),
    /// An SDK by its rank, on servers.
    Sdk(usize),
    /// Something with one fingerprint on any host: the consumer app, a crawler, a device. On that operating system.
    Own(&'static str, &'static str),
    /// A tool that says the ClientHello of the browser of that rank; its SYN is that of a server.
    Mimic(usize),
}

impl Software {
    /// The browser of a number from 0 to below 1, by how common they are.
    pub(crate) fn browser(unit: f64) -> Self {
        Self::Browser(MIX.pick(unit))
    }

    /// The SDK of a number from 0 to below 1.
    pub(crate) fn sdk(unit: f64) -> Self {
        Self::Sdk(SDKS.pick(unit))
    }

    pub(crate) fn is_safari(self) -> bool {
        matches!(self, Self::Browser(rank) if BROWSERS[rank % BROWSERS.len()].0 == "safari")
    }

    /// Operating system of the host, by the name that its SYN has.
    fn system(self) -> &'static str {
        match self {
            Self::Browser(rank) => SYSTEMS[BROWSERS[rank % BROWSERS.len()].1],
            Self::Sdk(_) | Self::Mimic(_) => "linux server",
            Self::Own(_, system) => system,
        }
    }

    /// Keys of release number `release` of it, on a host in that network: the SYN tells the network's segment size, too.
    pub(crate) fn fingerprint(self, release: u64, network: Network, host: Key) -> Fingerprint {
        let tls = match self {
            Self::Browser(rank) | Self::Mimic(rank) => {
                Key::root(hash(BROWSERS[rank % BROWSERS.len()].0)).at(rank as u64)
            }
            Self::Sdk(rank) => Key::root(hash("sdk")).at(rank as u64),
            // Each system brings a TLS library of its own.
            Self::Own(name, system) => Key::root(hash(name)).named(system),
        }
        .at(release);
        let [first, resumed, odd] = [0, 1, 2].map(|variant| tls.at(variant).bits());
        let tls_keys = match self {
            Self::Browser(_) => [first, resumed, odd],
            Self::Sdk(rank) if rank % 3 == 0 => [first, resumed, first],
            // Mimics and simple stacks say the same each time.
            Self::Sdk(_) | Self::Own(..) | Self::Mimic(_) => [first; 3],
        };
        let quic_key = match self {
            Self::Browser(rank) if rank % BROWSERS.len() != 9 => {
                Key::root(hash("initial")).named(BROWSERS[rank % BROWSERS.len()].0).bits()
            }
            _ => 0,
        };
        Fingerprint { syn_key: syn_key(self.system(), network, host), tls_keys, quic_key }
    }
}

/// The SYN of an operating system in a network.
pub(crate) fn syn_key(system: &str, network: Network, host: Key) -> u64 {
    let unit = host.named("segment size").unit();
    let segment_bytes = match network {
        Network::Home if unit < 0.3 => 1452,
        Network::Home | Network::Office => 1460,
        Network::Mobile if unit < 0.5 => 1400,
        Network::Mobile => 1360,
        Network::DataCentre if unit < 0.3 => 1412,
        Network::DataCentre => 1460,
        Network::Vpn => 1380,
        Network::Relay => 1440,
    };
    // Two versions of each operating system are about.
    let version = u64::from(host.named("system version").unit() < 0.25);
    Key::root(hash(system)).at(segment_bytes).at(version).bits()
}

/// Operating system of a host in homes, of a number from 0 to below 1: who lends an exit has one of these.
pub(crate) fn home_system(unit: f64) -> &'static str {
    static SHARES: LazyLock<Weights> = LazyLock::new(|| Weights::new([0.4, 0.35, 0.05, 0.05, 0.15]));
    SYSTEMS[SHARES.pick(unit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn browsers_have_more_than_sixty_fingerprints_in_variants() {
        let host = Key::root(1);
        let keys: HashSet<u64> = (0..RANKS)
            .flat_map(|rank| Software::Browser(rank).fingerprint(0, Network::Home, host).tls_keys)
            .collect();
        assert_eq!(keys.len(), 3 * RANKS);
        let chrome = Software::Browser(0).fingerprint(0, Network::Home, host);
        assert_ne!(chrome.tls_keys, Software::Browser(0).fingerprint(1, Network::Home, host).tls_keys);
        let mimic = Software::Mimic(0).fingerprint(0, Network::DataCentre, host);
        assert_eq!(mimic.tls_keys, [chrome.tls_keys[0]; 3]);
        assert_ne!(mimic.syn_key, chrome.syn_key);
    }
}
