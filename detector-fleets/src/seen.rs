//! Which sources were seen where in the last two weeks, and for how long, in three bytes each.
//!
//! A table of places in buckets of eight. Sixteen bits of a place hold twelve of the hash of source and service as a tag, and how many days
//! ago it was last seen; a byte beside them holds for how long it has been seen. A source stands in one of two buckets (Azar et al. 1994), so that
//! the table takes 83 % of its places. A stranger is taken for a known source where one of the up to sixteen tags is its own: with all places
//! taken 0.4 %, and 0.33 % at the planned load.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use crate::{
    limits::{NEW_S, PLACES_PER_SOURCE_HUNDREDTHS, REMEMBERED_DAYS},
    observation::ServiceId,
    source::Source,
};

/// Places of a bucket.
pub(crate) const PLACES: usize = 8;

/// Bits of a place that hold the day on which it was last seen: 1 is today; 0: the place is free.
const DAY_BITS: u32 = 4;

const DAY_MASK: u16 = (1 << DAY_BITS) - 1;

/// Today.
const TODAY: u16 = 1;

/// The last day that is remembered.
const OLDEST: u16 = REMEMBERED_DAYS as u16;

/// Time of a step of [`SeenFor`], s.
const STEP_S: u64 = 6 * 3600;

/// Steps of a day.
const DAY_STEPS: u64 = 4;

const _: () = assert!(OLDEST <= DAY_MASK && NEW_S.is_multiple_of(STEP_S) && STEP_S * DAY_STEPS == 86_400);

/// For how long a source has been seen at a service, without two weeks between: steps of six hours since the first time, 255 for
/// 64 days and more: of older fleets it does not say who was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeenFor(pub u8);

impl SeenFor {
    /// For the first time.
    pub const NEW: Self = Self(0);

    /// The shortest time after which a source is no longer new.
    pub const KNOWN: Self = Self((NEW_S / STEP_S) as u8);

    /// Whether it was not seen more than [`NEW_S`] ago, to a step.
    pub const fn is_new(self) -> bool {
        self.0 < Self::KNOWN.0
    }

    /// The same in seconds, to a step more or less.
    pub const fn seconds(self) -> u64 {
        self.0 as u64 * STEP_S
    }
}

/// Some places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// A tag each, and in the lowest bits the day on which it was last seen.
    pub(crate) places: [u16; PLACES],
    /// For how long, see [`SeenFor`].
    pub(crate) seen_for: [u8; PLACES],
}

/// The memory of sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(with = "crate::packed")]
    buckets: Vec<Bucket>,
    secret: u64,
    /// Steps of [`STEP_S`] since the Unix epoch that it has been aged to; 0: it has seen nothing.
    step: u64,
    /// Sources that took the place of another one which was not forgotten yet.
    replaced: u64,
}

impl Seen {
    /// An empty one for so many sources, each counted at each service. The secret makes sure that nobody chooses sources that are taken
    /// for known.
    pub fn for_sources(sources: u64, secret: u64) -> Self {
        let places = (sources * PLACES_PER_SOURCE_HUNDREDTHS / 100).max(1024);
        Self {
            buckets: vec![Bucket::default(); places.div_ceil(PLACES as u64) as usize],
            secret,
            step: 0,
            replaced: 0,
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// How many sources it remembers.
    pub fn len(&self) -> usize {
        let places = self.buckets.iter().flat_map(|bucket| &bucket.places);
        places.filter(|place| **place & DAY_MASK != 0).count()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a source took the place of another one that was not forgotten yet: more than none means that it is too small.
    pub const fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Notes that a source is active at a service, and says for how long it has been seen there. Time goes on and never back: an earlier time counts
    /// as the latest one.
    pub fn note(&mut self, service: ServiceId, source: Source, time_s: u64) -> SeenFor {
        self.age_to(time_s / STEP_S);
        let hash = self.hash(service, source);
        let tag = (hash as u16) & !DAY_MASK;
        let buckets = self.buckets_of(hash);
        for bucket in buckets {
            let Bucket { places, seen_for } = &mut self.buckets[bucket];
            for (place, seen_for) in places.iter_mut().zip(seen_for) {
                if *place & DAY_MASK != 0 && *place & !DAY_MASK == tag {
                    *place = tag | TODAY;
                    return SeenFor(*seen_for);
                }
            }
        }
        self.enter(buckets, tag | TODAY);
        SeenFor::NEW
    }

    /// Touches the buckets of sources that may be noted next.
    pub(crate) fn read_ahead(&self, of: impl Iterator<Item = (ServiceId, Source)>) {
        let buckets = of.flat_map(|(service, source)| self.buckets_of(self.hash(service, source)));
        black_box(buckets.fold(0, |read, bucket| read ^ self.buckets[bucket].places[0]));
    }

    fn hash(&self, service: ServiceId, source: Source) -> u64 {
        mix(mix(source.number() ^ self.secret).wrapping_add(u64::from(service.0)))
    }

    /// The two buckets in which a source of this hash stands.
    fn buckets_of(&self, hash: u64) -> [usize; 2] {
        [hash >> 32, mix(hash) >> 32].map(|part| ((part * self.buckets.len() as u64) >> 32) as usize)
    }

    /// Into the bucket with more room; where there is none the one that was not seen for longest gives way, of those the newest.
    fn enter(&mut self, buckets: [usize; 2], place: u16) {
        let is_free = |place: &&u16| **place & DAY_MASK == 0;
        let free = |bucket: usize| self.buckets[bucket].places.iter().filter(is_free).count();
        let bucket = if free(buckets[0]) >= free(buckets[1]) { buckets[0] } else { buckets[1] };
        let bucket = &mut self.buckets[bucket];
        let rank = |number: usize| match bucket.places[number] & DAY_MASK {
            0 => (u16::MAX, 0),
            day => (day, u8::MAX - bucket.seen_for[number]),
        };
        // Among equals not always the same one, which is the first that came.
        let start = usize::from(place >> DAY_BITS);
        let numbers = (start..start + PLACES).map(|number| number % PLACES);
        let victim = numbers.max_by_key(|&number| rank(number)).unwrap_or(0);
        self.replaced += u64::from(bucket.places[victim] & DAY_MASK != 0);
        bucket.places[victim] = place;
        bucket.seen_for[victim] = SeenFor::NEW.0;
    }

    /// Goes on to a step; with every fourth a day has gone.
    fn age_to(&mut self, step: u64) {
        if self.step == 0 {
            self.step = step;
        }
        // Beyond this everything is forgotten.
        let all = (u64::from(OLDEST) + 1) * DAY_STEPS;
        if step.saturating_sub(self.step) > all {
            self.buckets.fill(Bucket::default());
            self.step = step;
        }
        while self.step < step {
            self.step += 1;
            let days = u16::from(self.step.is_multiple_of(DAY_STEPS));
            for Bucket { places, seen_for } in &mut self.buckets {
                for (place, seen_for) in places.iter_mut().zip(seen_for) {
                    *seen_for = seen_for.saturating_add(1);
                    *place = match *place & DAY_MASK {
                        0 => 0,
                        OLDEST if days == 1 => 0,
                        _ => *place + days,
                    };
                }
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    /// A Thursday, at midnight.
    const START: u64 = 20_000 * DAY;
    const WEB: ServiceId = ServiceId(3);

    fn source(number: u32) -> Source {
        Source::of_v4(number.into())
    }

    #[test]
    fn a_source_is_new_for_a_day_and_known_for_two_weeks_after_its_last_time() {
        for start in [START, START + 5 * HOUR, START + 23 * HOUR] {
            let mut seen = Seen::for_sources(1000, 7);
            for hour in 0..18 {
                assert!(seen.note(WEB, source(1), start + hour * HOUR).is_new(), "hour {hour}");
            }
            // It is known between 18 and 24 hours after its first time, by the step in which that was.
            assert!(!seen.note(WEB, source(1), start + 25 * HOUR).is_new());
            assert!(seen.note(ServiceId(4), source(1), start + 25 * HOUR).is_new(), "elsewhere it is new");
            let last = start + 25 * HOUR;
            assert!(!seen.clone().note(WEB, source(1), last + 13 * DAY).is_new());
            assert!(seen.note(WEB, source(1), last + 15 * DAY).is_new());
        }
    }

    #[test]
    fn what_comes_back_is_kept_and_what_was_seen_once_is_forgotten() {
        let mut seen = Seen::for_sources(1000, 7);
        seen.note(WEB, source(2), START);
        for day in 0..80 {
            let known = seen.note(WEB, source(1), START + day * DAY);
            assert_eq!(known.0, (day * 4).min(255) as u8, "day {day}");
        }
        assert_eq!(seen.len(), 1);
        seen.note(WEB, source(3), START + 400 * DAY);
        assert_eq!(seen.len(), 1, "after a year nothing is left");
    }

    #[test]
    fn an_earlier_time_counts_as_the_latest() {
        let mut seen = Seen::for_sources(1000, 7);
        seen.note(WEB, source(1), START + 30 * HOUR);
        assert!(seen.note(WEB, source(1), START).is_new());
        assert!(!seen.note(WEB, source(1), START + 55 * HOUR).is_new());
    }

    #[test]
    fn twenty_million_sources_take_seventy_two_megabytes_and_one_stranger_in_two_hundred_is_taken_for_known()
    {
        assert_eq!(Seen::for_sources(20_000_000, 7).bytes(), 72_000_000);
        let sources = 200_000;
        let mut seen = Seen::for_sources(sources.into(), 7);
        for number in 0..sources {
            seen.note(WEB, source(number), START);
        }
        let taken = u64::from(sources) - seen.len() as u64;
        assert!(taken * 100 < u64::from(sources), "{taken} were taken for others");
        assert!(seen.replaced() * 1000 < u64::from(sources), "{} were replaced", seen.replaced());
        seen.note(WEB, source(u32::MAX), START + 2 * DAY);
        let lost =
            (0..sources).filter(|&number| seen.note(WEB, source(number), START + 2 * DAY).is_new()).count();
        assert!(lost * 200 < sources as usize, "{lost} were lost");
        let strangers = (sources..sources + 100_000)
            .filter(|&number| !seen.note(WEB, source(number), START + 2 * DAY).is_new())
            .count();
        assert!(strangers < 500, "{strangers} of 100,000");
        assert!(strangers > 100, "the table is larger than it need be");
    }
}
