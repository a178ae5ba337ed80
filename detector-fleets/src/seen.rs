//! Which sources were seen where in the last two weeks, in two bytes each.
//!
//! A table of places of 16 bits in buckets of eight: eleven bits of the hash of source and service as a tag, five for the age. A source
//! stands in one of two buckets (Azar et al. 1994), so that the table takes 83 % of its places. A stranger is taken for a known source where
//! one of the up to sixteen tags is its own: with all places taken 0.8 %, and 0.66 % at the planned load.
//!
//! Ages are steps of six hours for a new source, until it is a day old, and days since the last time for a known one.

use serde::{Deserialize, Serialize};

use crate::{
    limits::{NEW_S, PLACES_PER_SOURCE_HUNDREDTHS, REMEMBERED_DAYS},
    observation::ServiceId,
    source::Source,
};

/// Places of a bucket.
const PLACES: usize = 8;

/// Bits of a place that hold the age; 0 in all of them: the place is free.
const AGE_BITS: u32 = 5;

const AGE_MASK: u16 = (1 << AGE_BITS) - 1;

/// Time of a step of age of a new source, s.
const STEP_S: u64 = 6 * 3600;

/// Steps after which a source is known.
const STEPS: u16 = (NEW_S / STEP_S) as u16;

/// The first age of a known source: seen today. New ones have the ages 1 to [`STEPS`] before it.
const KNOWN: u16 = STEPS + 1;

/// The last age.
const OLDEST: u16 = KNOWN + REMEMBERED_DAYS as u16 - 1;

const _: () = assert!(OLDEST <= AGE_MASK && NEW_S.is_multiple_of(STEP_S) && STEP_S * 4 == 86_400);

/// The memory of sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    #[serde(with = "crate::packed")]
    places: Vec<[u16; PLACES]>,
    secret: u64,
    /// Steps of [`STEP_S`] since the Unix epoch that it has been aged to; 0: it has seen nothing.
    step: u64,
    /// Sources that took the place of another one which was not forgotten yet.
    replaced: u64,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was not seen more than [`NEW_S`] ago, or not in the last [`REMEMBERED_DAYS`] days.
    New,
    /// It was.
    Known,
}

impl Seen {
    /// An empty one for so many sources, each counted at each service. The secret makes sure that nobody chooses sources that are taken
    /// for known.
    pub fn for_sources(sources: u64, secret: u64) -> Self {
        let places = (sources * PLACES_PER_SOURCE_HUNDREDTHS / 100).max(1024);
        Self {
            places: vec![[0; PLACES]; places.div_ceil(PLACES as u64) as usize],
            secret,
            step: 0,
            replaced: 0,
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.places.len() * size_of::<[u16; PLACES]>()
    }

    /// How many sources it remembers.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().filter(|place| **place & AGE_MASK != 0).count()
    }

    /// Whether it remembers none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a source took the place of another one that was not forgotten yet: more than none means that it is too small.
    pub const fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Notes that a source is active at a service, and says what was known of it before. Time goes on and never back: an earlier time
    /// counts as the latest one.
    pub fn note(&mut self, service: ServiceId, source: Source, time_s: u64) -> Known {
        self.age_to(time_s / STEP_S);
        let hash = mix(mix(source.number() ^ self.secret).wrapping_add(u64::from(service.0)));
        let tag = (hash as u16) & !AGE_MASK;
        let buckets =
            [hash >> 32, mix(hash) >> 32].map(|part| ((part * self.places.len() as u64) >> 32) as usize);
        for bucket in buckets {
            for place in &mut self.places[bucket] {
                let age = *place & AGE_MASK;
                if age != 0 && *place & !AGE_MASK == tag {
                    if age < KNOWN {
                        return Known::New;
                    }
                    *place = tag | KNOWN;
                    return Known::Known;
                }
            }
        }
        self.enter(buckets, tag | 1);
        Known::New
    }

    /// Into the bucket with more room; where there is none the oldest gives way.
    fn enter(&mut self, buckets: [usize; 2], place: u16) {
        let free = |bucket: usize| self.places[bucket].iter().filter(|place| **place & AGE_MASK == 0).count();
        let bucket = if free(buckets[0]) >= free(buckets[1]) { buckets[0] } else { buckets[1] };
        let rank = |place: &u16| match *place & AGE_MASK {
            0 => u16::MAX,
            age => age,
        };
        // Among equals not always the same one, which is the first that came.
        let start = usize::from(place >> AGE_BITS);
        let numbers = (start..start + PLACES).map(|number| number % PLACES);
        let victim = numbers.max_by_key(|&number| rank(&self.places[bucket][number])).unwrap_or(0);
        let victim = &mut self.places[bucket][victim];
        self.replaced += u64::from(*victim & AGE_MASK != 0);
        *victim = place;
    }

    /// Goes on to a step: new sources grow a step older, known ones a day older with every fourth.
    fn age_to(&mut self, step: u64) {
        if self.step == 0 {
            self.step = step;
        }
        // Beyond this everything is forgotten.
        let all = u64::from(OLDEST) * 4;
        if step.saturating_sub(self.step) > all {
            self.places.fill([0; PLACES]);
            self.step = step;
        }
        while self.step < step {
            self.step += 1;
            let is_day = self.step.is_multiple_of(4);
            for place in self.places.iter_mut().flatten() {
                let age = match *place & AGE_MASK {
                    0 => continue,
                    age if age < KNOWN => age + 1,
                    age if !is_day => age,
                    OLDEST => 0,
                    age => age + 1,
                };
                *place = if age == 0 { 0 } else { *place & !AGE_MASK | age };
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
                assert_eq!(seen.note(WEB, source(1), start + hour * HOUR), Known::New, "hour {hour}");
            }
            // It is known between 18 and 24 hours after its first time, by the step in which that was.
            assert_eq!(seen.note(WEB, source(1), start + 25 * HOUR), Known::Known);
            assert_eq!(
                seen.note(ServiceId(4), source(1), start + 25 * HOUR),
                Known::New,
                "elsewhere it is new"
            );
            let last = start + 25 * HOUR;
            assert_eq!(seen.clone().note(WEB, source(1), last + 13 * DAY), Known::Known);
            assert_eq!(seen.note(WEB, source(1), last + 15 * DAY), Known::New);
        }
    }

    #[test]
    fn what_comes_back_is_kept_and_what_was_seen_once_is_forgotten() {
        let mut seen = Seen::for_sources(1000, 7);
        seen.note(WEB, source(2), START);
        for day in 0..40 {
            let known = seen.note(WEB, source(1), START + day * DAY);
            assert_eq!(known, if day == 0 { Known::New } else { Known::Known }, "day {day}");
        }
        assert_eq!(seen.len(), 1);
        seen.note(WEB, source(3), START + 400 * DAY);
        assert_eq!(seen.len(), 1, "after a year nothing is left");
    }

    #[test]
    fn an_earlier_time_counts_as_the_latest() {
        let mut seen = Seen::for_sources(1000, 7);
        seen.note(WEB, source(1), START + 30 * HOUR);
        assert_eq!(seen.note(WEB, source(1), START), Known::New);
        assert_eq!(seen.note(WEB, source(1), START + 55 * HOUR), Known::Known);
    }

    #[test]
    fn twenty_million_sources_take_forty_eight_megabytes_and_one_stranger_in_a_hundred_is_taken_for_known() {
        assert_eq!(Seen::for_sources(20_000_000, 7).bytes(), 48_000_000);
        let sources = 200_000;
        let mut seen = Seen::for_sources(sources.into(), 7);
        for number in 0..sources {
            seen.note(WEB, source(number), START);
        }
        let taken = u64::from(sources) - seen.len() as u64;
        assert!(taken * 100 < u64::from(sources), "{taken} were taken for others");
        assert!(seen.replaced() * 1000 < u64::from(sources), "{} were replaced", seen.replaced());
        seen.note(WEB, source(u32::MAX), START + 2 * DAY);
        let lost = (0..sources)
            .filter(|&number| seen.note(WEB, source(number), START + 2 * DAY) == Known::New)
            .count();
        assert!(lost * 200 < sources as usize, "{lost} were lost");
        let strangers = (sources..sources + 100_000)
            .filter(|&number| seen.note(WEB, source(number), START + 2 * DAY) == Known::Known)
            .count();
        assert!(strangers < 1000, "{strangers} of 100,000");
        assert!(strangers > 100, "the table is larger than it need be");
    }
}
