//! What every source sent in the last minute: two looks at the table of sources, and what was counted between them.
//!
//! An entry has counters and no rate. The daemon takes a look every [`LOOK_EVERY`] and keeps the last two as files, so that
//! commands compare the live table with one that is half a minute to a minute old. Without a daemon a command takes both
//! looks itself.

mod file;
mod watch;

pub use file::FileError;
pub use watch::Watch;

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use detector_common::{
    address::Address,
    hash::{Seed, keyed},
    limits::WAYS,
    table::Unit,
    way::Way,
};

use crate::{
    cli::TrafficArgs,
    clock,
    kernel::{maps::Maps, read},
};

/// Time between two looks of the daemon.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Where the daemon keeps its looks, unless it is told otherwise.
pub const DEFAULT_RUN_DIRECTORY: &str = "/run/detector";

/// The shortest time between two looks that says something of a minute.
pub const WINDOW_MIN: Duration = Duration::from_secs(2);

/// The longest time that is still the last minute.
pub const WINDOW_MAX: Duration = Duration::from_secs(75);

/// One look at the table: 24 bytes for each source that has an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    head: Head,
    /// In the order of the ways.
    counts: Vec<Count>,
}

/// When a look was taken, and at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    /// The program's clock, ns.
    at_ns: u64,
    /// Of which tables: a number that their secret seed gives.
    identity: u64,
    /// Ways of the table.
    ways: u64,
}

/// The counters of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    way: u32,
    /// Tells one owner of the way from the next.
    owner: u32,
    /// See [`Way::traffic`].
    traffic: u64,
    /// See [`Way::outcomes`].
    outcomes: u64,
}

impl Count {
    fn of(number: u32, way: &Way, seed: &Seed) -> Self {
        Self { way: number, owner: owner(seed, way), traffic: way.traffic, outcomes: way.outcomes }
    }
}

/// What a source that has an entry sent to a service between two looks; zeros when it was silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The source, an IPv4 address or the first one of an IPv6 /64.
    pub source: Address,
    /// Number of the service.
    pub service: u16,
    /// Packets.
    pub packets: u32,
    /// Bytes, modulo 2^32: right up to 4 GiB.
    pub bytes: u32,
    /// New connections.
    pub connections: u32,
    /// Packets of these that were refused: dropped, or only counted where the mode is `shadow` for the source.
    pub refused: u32,
}

/// What all sources sent between two looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// The time between them.
    pub window: Duration,
    /// Every source that has an entry now, by service.
    pub flows: Vec<Flow>,
}

impl Look {
    /// Looks at the table now.
    pub fn take(maps: &Maps) -> Self {
        Self { head: Head::now(maps), counts: counts(maps).collect() }
    }

    /// What was sent since this look, which is of the same tables.
    pub fn since(&self, maps: &Maps) -> Traffic {
        let seed = read::settings(maps).seed;
        let mut counts = self.counts.iter().peekable();
        let flows = read::numbered_entries(&maps.sources).filter_map(|(number, way)| {
            while counts.next_if(|count| count.way < number).is_some() {}
            let is_its_own = |count: &&Count| count.way == number && count.owner == owner(&seed, &way);
            flow(&way, counts.peek().copied().filter(is_its_own))
        });
        let flows = flows.collect();
        Traffic { window: self.age(), flows }
    }

    /// Looks again: what was sent since this look, which is of the same tables, by every source that was not silent. From then on this is
    /// the look that was just taken.
    pub fn next(&mut self, maps: &Maps, mut sent: impl FnMut(Flow)) {
        let (head, seed) = (Head::now(maps), read::settings(maps).seed);
        let mut counts = Vec::with_capacity(self.counts.len());
        let mut before = self.counts.iter().peekable();
        for (number, way) in read::numbered_entries(&maps.sources) {
            while before.next_if(|count| count.way < number).is_some() {}
            let now = Count::of(number, &way, &seed);
            let is_its_own = |count: &&Count| (count.way, count.owner) == (now.way, now.owner);
            if let Some(flow) = flow(&way, before.peek().copied().filter(is_its_own))
                && flow.packets != 0
            {
                sent(flow);
            }
            counts.push(now);
        }
        *self = Self { head, counts };
    }

    /// Whether it is of the tables of these maps.
    pub fn is_of_tables(&self, maps: &Maps) -> bool {
        let now = Head::now(maps);
        (self.head.identity, self.head.ways) == (now.identity, now.ways)
    }

    /// The time since.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(clock::kernel_ns().saturating_sub(self.head.at_ns))
    }
}

impl Head {
    fn now(maps: &Maps) -> Self {
        let (first, second) = (u64::from_be_bytes(*b"identity"), u64::from_be_bytes(*b"of table"));
        Self {
            at_ns: clock::kernel_ns(),
            identity: keyed(&read::settings(maps).seed, first, second),
            ways: (maps.sources.len() * WAYS) as u64,
        }
    }
}

/// The counters of every way that has an owner, in the order of the ways.
fn counts(maps: &Maps) -> impl Iterator<Item = Count> {
    let seed = read::settings(maps).seed;
    read::numbered_entries(&maps.sources).map(move |(number, way)| Count::of(number, &way, &seed))
}

fn owner(seed: &Seed, way: &Way) -> u32 {
    keyed(seed, way.prefix, way.meta().tag()) as u32 ^ u32::from(way.meta().generation())
}

/// `before`: the counters of the same owner at the first look; without, it came since.
fn flow(way: &Way, before: Option<&Count>) -> Option<Flow> {
    let (source, _) = way.owner()?;
    // Whole words: the carry of one half into the other goes away with it.
    let traffic = way.traffic.wrapping_sub(before.map_or(0, |before| before.traffic));
    let outcomes = way.outcomes.wrapping_sub(before.map_or(0, |before| before.outcomes));
    Some(Flow {
        source,
        service: way.meta().service(),
        packets: traffic as u32,
        bytes: (traffic >> 32) as u32,
        connections: (outcomes >> 32) as u32,
        refused: outcomes as u32,
    })
}

impl Flow {
    /// The source as other tools write it.
    pub fn prefix(&self) -> ipnet::IpNet {
        crate::replay::source_prefix(Unit::of_source(self.source.family), self.source.high)
    }
}

impl Traffic {
    /// Packets of all sources a second.
    pub fn packets_per_s(&self) -> f64 {
        let packets: u64 = self.flows.iter().map(|flow| u64::from(flow.packets)).sum();
        packets as f64 / self.seconds()
    }

    /// The time between the looks, s; never 0.
    pub fn seconds(&self) -> f64 {
        self.window.as_secs_f64().max(1e-3)
    }
}

/// How commands learn of the traffic.
#[derive(Debug, Clone)]
pub struct Watching {
    /// Where the daemon keeps its looks.
    pub directory: PathBuf,
    /// To look for so long oneself, whatever the daemon keeps.
    pub sample: Option<Duration>,
}

impl Watching {
    /// As a command is asked to.
    pub fn of(args: &TrafficArgs) -> Self {
        Self { directory: args.run_dir.clone(), sample: args.sample }
    }

    /// The traffic of the last minute as the daemon saw it, else of the time that it takes to look; who waits is told by
    /// `waits`, with the reason.
    pub fn traffic(&self, maps: &Maps, waits: impl FnOnce(Duration, Option<&FileError>)) -> Traffic {
        let (kept, error) = match self.kept(maps) {
            Ok(kept) => (kept, None),
            Err(error) => (None, Some(error)),
        };
        let look = kept.unwrap_or_else(|| self.look(maps, |time| waits(time, error.as_ref())));
        look.since(maps)
    }

    /// The look that a daemon keeps; `None`: it keeps none that is of use, or is not to be asked.
    ///
    /// # Errors
    ///
    /// A file is there and cannot be read.
    pub fn kept(&self, maps: &Maps) -> Result<Option<Look>, FileError> {
        if self.sample.is_some() {
            return Ok(None);
        }
        recent(maps, &self.directory, WINDOW_MIN)
    }

    /// Takes a look, and waits until it is old enough; who waits is told by `waits`.
    pub fn look(&self, maps: &Maps, waits: impl FnOnce(Duration)) -> Look {
        let look = Look::take(maps);
        let time = self.sample.unwrap_or(WINDOW_MIN);
        waits(time);
        thread::sleep(time);
        look
    }
}

/// The oldest look that a daemon keeps of these tables and that is of the last minute, but at least `age_min` old.
///
/// # Errors
///
/// A file is there and cannot be read, and the other is of no use.
pub fn recent(maps: &Maps, directory: &Path, age_min: Duration) -> Result<Option<Look>, FileError> {
    let is_recent = |look: &Look| look.is_of_tables(maps) && (age_min..=WINDOW_MAX).contains(&look.age());
    oldest(directory, is_recent)
}

/// The oldest look of a directory that is of use. A file that cannot be read is an error only where no other serves.
fn oldest(directory: &Path, is_of_use: impl Fn(&Look) -> bool) -> Result<Option<Look>, FileError> {
    let mut unreadable = None;
    for path in file::paths(directory) {
        match file::load(&path) {
            Ok(look) => {
                if let Some(look) = look.filter(&is_of_use) {
                    return Ok(Some(look));
                }
            }
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    unreadable.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use detector_common::{table::Key, way::Meta};

    fn way(traffic: u64, outcomes: u64) -> Way {
        let key = Key::new(Address::v4([198, 51, 100, 7]), Unit::V4Source, 3);
        let meta = Meta(0).claimed().owned(key.tag, 1, 1);
        Way { prefix: key.prefix, meta: meta.0, traffic, outcomes, ..Way::default() }
    }

    #[test]
    fn counters_that_wrap_are_subtracted_as_whole_words() {
        let before =
            Count { way: 0, owner: 0, traffic: 7 << 32 | 0xffff_fff0, outcomes: 5 << 32 | 0xffff_ffff };
        // 32 packets of 100 bytes, which carry one into the bytes; two of them dropped, three connections.
        let now = way(before.traffic + (3200 << 32 | 32), before.outcomes + (3 << 32 | 2));
        let flow = flow(&now, Some(&before)).unwrap();
        assert_eq!((flow.packets, flow.bytes, flow.connections, flow.refused), (32, 3200, 3, 2));
        assert_eq!((flow.service, flow.prefix().to_string().as_str()), (3, "198.51.100.7/32"));
    }

    #[test]
    fn who_came_since_sent_all_it_ever_sent() {
        let flow = flow(&way(100 << 32 | 4, 1 << 32), None).unwrap();
        assert_eq!((flow.packets, flow.bytes, flow.connections, flow.refused), (4, 100, 1, 0));
    }

    #[test]
    fn a_look_that_cannot_be_read_does_not_keep_the_other_from_use() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let [before, newest] = file::paths(directory);
        let kept = |at_ns| Look { head: Head { at_ns, identity: 7, ways: 5 }, counts: Vec::new() };
        let keep = |at_ns| file::keep(kept(at_ns).head, std::iter::empty(), directory).unwrap();
        let found = || oldest(directory, |look| look.head.at_ns < 3);
        assert_eq!(found().unwrap(), None);
        keep(1);
        keep(2);
        assert_eq!(found().unwrap(), Some(kept(1)));
        std::fs::write(&before, "cut off").unwrap();
        assert_eq!(found().unwrap(), Some(kept(2)));
        // The other one is of no use, or cannot be read either: the error is about the one that is asked first.
        let is_about =
            |path: &Path| found().unwrap_err().to_string().contains(&format!("{} ", path.display()));
        keep(3);
        std::fs::write(&before, "cut off").unwrap();
        assert!(is_about(&before));
        std::fs::write(&newest, "cut off").unwrap();
        assert!(is_about(&before));
        std::fs::remove_file(&before).unwrap();
        assert!(is_about(&newest));
    }

    #[test]
    fn the_next_owner_of_a_way_is_another() {
        let seed = Seed::new([1, 2, 3, 4]);
        let one = way(0, 0);
        let again = Way { meta: one.meta().claimed().owned(one.meta().tag(), 1, 1).0, ..one };
        assert_ne!(owner(&seed, &one), owner(&seed, &again));
        let new_class = Way { meta: one.meta().with_class(9, 9).0, ..one };
        assert_eq!(owner(&seed, &one), owner(&seed, &new_class));
    }
}
