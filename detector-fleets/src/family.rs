//! Families of evidence: into which category of each a source falls, by what it did in a window.

use serde::{Deserialize, Serialize};

use crate::block::{Block, NOT_TIMED, Sizes};

/// A family of evidence. All are *hard*: what they see is not that a population is new, but that it is not a population of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Family {
    /// How much each source did, and for how long: users differ by orders of magnitude, those of one actor do not.
    Homogeneity = 0,
    /// What the times of handshakes say of the way to the client: behind a proxy the parts that need it take longer than a round trip.
    Path = 1,
    /// Sizes of requests and responses: one program asks for one thing.
    Size = 2,
}

impl Family {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Homogeneity, Self::Path, Self::Size];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Homogeneity => "homogeneity",
            Self::Path => "path",
            Self::Size => "size",
        }
    }

    /// Categories that it has.
    pub const fn categories(self) -> usize {
        match self {
            Self::Homogeneity => VOLUMES * LIVES,
            Self::Path => PATHS,
            Self::Size => SIZES * SIZES,
        }
    }

    /// What is counted as evidence of a category; `None`: it says nothing. Of ways only whether a proxy is on them: everything else of them
    /// is where clients are. Sizes are known of the exchanges that were followed, and of many sources none was: that is a property of how
    /// exchanges are sampled and not of the source.
    pub const fn evidence(self, category: usize) -> Option<usize> {
        match self {
            Self::Homogeneity => Some(category),
            Self::Path if category == PATHS - 1 => None,
            Self::Path => Some(is_proxied(category) as usize),
            Self::Size if category == SIZES * SIZES - 1 => None,
            Self::Size => Some(category),
        }
    }

    /// Kinds of evidence that it has.
    pub const fn evidences(self) -> usize {
        match self {
            Self::Path => 2,
            Self::Homogeneity | Self::Size => self.categories(),
        }
    }

    /// The category of what a source did.
    pub fn category(self, did: &Block) -> usize {
        match self {
            Self::Homogeneity => volume(did) * LIVES + life(did),
            Self::Path => path(did),
            Self::Size => top(did.requests) * SIZES + top(did.responses),
        }
    }
}

/// Classes of volume: 1, 2, 3–4, 5–8, 9–16, 17–32 and more connections.
pub const VOLUMES: usize = 7;

/// Classes of time from first to last activity: below 1, 5, 30 and 120 minutes, and longer.
pub const LIVES: usize = 5;

/// Classes of the time from the TCP handshake to the ClientHello, the last one unknown.
const HELLO_GAPS: usize = 9;

/// Classes of how many bins the answer to the ServerHello took longer than a round trip, the last one unknown.
const FINISH_GAPS: usize = 7;

/// Categories of [`Family::Path`].
pub const PATHS: usize = HELLO_GAPS * FINISH_GAPS;

/// Classes of the most frequent size, the last one unknown.
pub(crate) const SIZES: usize = 17;

/// The class of how much a source did: of its connections, each of which is counted, while exchanges are estimated from few of them.
pub fn volume(did: &Block) -> usize {
    let volume = u32::from(did.connections.max(1));
    ((u32::BITS - (volume - 1).leading_zeros()) as usize).min(VOLUMES - 1)
}

/// How much is done in a category of [`Family::Homogeneity`], connections: the middle of its class, of the open one its beginning.
pub fn volume_of(category: usize) -> f64 {
    let class = (category / LIVES).min(VOLUMES - 1) as i32;
    let last = 2_f64.powi(class);
    let first = if class == 0 { 1.0 } else { last / 2.0 + 1.0 };
    if class as usize == VOLUMES - 1 { first } else { f64::midpoint(first, last) }
}

/// The class of how long it did so.
pub fn life(did: &Block) -> usize {
    [1, 5, 30, 120].iter().filter(|&&minutes| did.life_minutes() >= minutes).count()
}

/// The category of the way to a client.
pub fn path(did: &Block) -> usize {
    let hello = match did.hello_gap {
        NOT_TIMED => HELLO_GAPS - 1,
        bin => HELLO_GAP_STARTS.iter().filter(|&&start| bin >= start).count(),
    };
    let finish = match (did.finish_gap, did.rtt) {
        (NOT_TIMED, _) | (_, NOT_TIMED) => FINISH_GAPS - 1,
        (finish, rtt) => usize::from(finish.saturating_sub(rtt.max(COMPUTING))).min(FINISH_GAPS - 2),
    };
    hello * FINISH_GAPS + finish
}

/// Bins that a class of [`HELLO_GAPS`] begins with, after the first: 2, 8, 16, 32, 64, 128 and 256 ms.
const HELLO_GAP_STARTS: [u8; HELLO_GAPS - 2] = [3, 5, 6, 7, 8, 9, 10];

/// The bin of 4 to 8 ms, within which a client answers from anywhere near: it verifies a certificate meanwhile, on a machine that does other
/// things, too. A shorter round trip is taken for as long.
const COMPUTING: u8 = 4;

/// Whether a category of [`Family::Path`] is a proxy's: the ClientHello came 32 ms after it could, or the answer to the ServerHello took
/// twice a round trip or longer, and 16 ms at least.
pub const fn is_proxied(path: usize) -> bool {
    let (hello, finish) = (path / FINISH_GAPS, path % FINISH_GAPS);
    hello >= 4 && hello < HELLO_GAPS - 1 || finish >= 2 && finish < FINISH_GAPS - 1
}

/// The bin of the responses of a category of [`Family::Size`]. `None`: none was seen.
pub const fn response_bin(category: usize) -> Option<u32> {
    let bin = category % SIZES;
    if bin == SIZES - 1 { None } else { Some(bin as u32) }
}

fn top(sizes: Sizes) -> usize {
    sizes.top().unwrap_or(SIZES - 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{block::KindId, seen::SeenFor, source::Source};
    use proptest::prelude::*;

    pub(crate) fn block(
        exchanges: u16,
        minutes: u16,
        [rtt, hello_gap, finish_gap]: [u8; 3],
        requests: Sizes,
    ) -> Block {
        Block {
            source: Source::of_v4(7.into()),
            kind: KindId(0),
            seen_for: SeenFor::NEW,
            exchanges,
            connections: 1,
            first_minute: 3,
            last_minute: 3 + minutes,
            rtt,
            hello_gap,
            finish_gap,
            requests,
            responses: requests,
        }
    }

    #[test]
    fn volumes_double_and_lives_are_in_minutes() {
        let volume = |connections| volume(&Block { connections, ..block(7, 0, [NOT_TIMED; 3], Sizes(0)) });
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 60_000].map(volume),
            [0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
        );
        let middles: Vec<_> = (0..VOLUMES).map(|class| volume_of(class * LIVES + 2)).collect();
        assert_eq!(middles, [1.0, 2.0, 3.5, 6.5, 12.5, 24.5, 33.0]);
        let life = |minutes| life(&block(1, minutes, [NOT_TIMED; 3], Sizes(0)));
        assert_eq!([0, 1, 4, 5, 29, 30, 119, 120, 1439].map(life), [0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn a_proxy_is_known_by_its_gaps_and_nothing_known_is_no_proxy() {
        let is_proxied = |times| is_proxied(path(&block(1, 0, times, Sizes(0))));
        // A browser 20 ms away; one behind a proxy whose client is 40 ms behind it; one that answers early.
        assert!(!is_proxied([6, 2, 6]) && !is_proxied([6, 2, 7]));
        assert!(is_proxied([6, 7, 8]) && is_proxied([6, 2, 8]));
        // A server in the same building, whose client computes for some milliseconds; a proxy there.
        assert!(!is_proxied([0, 2, 5]) && is_proxied([0, 2, 6]) && is_proxied([0, 7, 3]));
        assert!(
            !is_proxied([NOT_TIMED; 3])
                && !is_proxied([NOT_TIMED, 2, 11])
                && !is_proxied([6, NOT_TIMED, NOT_TIMED])
        );
    }

    #[test]
    fn what_is_not_known_is_no_evidence() {
        let of = |family: Family, times, sizes| family.evidence(family.category(&block(1, 0, times, sizes)));
        assert_eq!(of(Family::Path, [NOT_TIMED; 3], Sizes(0)), None);
        assert_eq!(of(Family::Path, [6, 2, 6], Sizes(0)), Some(0));
        assert_eq!(of(Family::Path, [6, 7, 8], Sizes(0)), Some(1));
        assert_eq!(of(Family::Size, [NOT_TIMED; 3], Sizes(0)), None);
        assert!(of(Family::Size, [NOT_TIMED; 3], Sizes(1)).is_some());
        assert_eq!((response_bin(SIZES * 3 + 7), response_bin(SIZES - 1)), (Some(7), None));
    }

    proptest! {
        #[test]
        fn every_source_is_in_a_category(
            exchanges in any::<u16>(), minutes in 0..1440_u16, bins in proptest::array::uniform3(prop_oneof![0..12_u8, Just(NOT_TIMED)]), sizes in any::<u64>(),
        ) {
            let block = block(exchanges, minutes, bins, Sizes(sizes));
            for family in Family::ALL {
                prop_assert!(family.category(&block) < family.categories(), "{family:?}");
            }
        }
    }
}
