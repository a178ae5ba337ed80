//! Reading a table of a million sources as the daemon does, against reading a hash map of the same content in batches;
//! and what the readers cost the packets of another CPU.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, IterableMap as _, MapData};
use bytes::BytesMut;
use detector_common::{limits, table::Set, way::Way};
use detector_tests::{cpus, packet::udp};
use detector_user::kernel::{load::Clock, mapped::Mapped, read};

use crate::{
    decision::policy,
    drive::Driver,
    report,
    sampling::{Samples, SetAtEnd, in_turn, joined},
    say,
    subject::Subject,
};

/// Active sources.
const SOURCES: u32 = 1 << 20;

/// Packets that give each of them its entry: drawn at random, so hardly one in nine million is left out.
const PACKETS: u32 = 16 * SOURCES;

/// Names of the ways to read, as the report has them.
const WAYS: [&str; 2] = ["mapping", "batch"];

/// Measures both.
pub(crate) fn measure(quick: bool) -> Result<Vec<report::Reader>> {
    say(format_args!("snapshot, a table of {SOURCES} sources"));
    let mut subject = Subject::new(SOURCES, Clock::Kernel, &policy(0))?;
    let mut driver = Driver::new(SOURCES, false)?;
    let frame = udp("10.0.0.1:4000", "203.0.113.10:443").frame();
    driver.put(&subject.program()?)?;
    driver.run(&frame, PACKETS, 1)?;
    let table = &subject.loaded.maps.sources;
    let table_ways = table.len() * limits::WAYS;
    let mut readers = [Reader::Mapping(table, Vec::new()), Reader::Batch(Batch::of(table)?)];

    let rounds = if quick { 5 } else { 15 };
    let mut sources = [0; WAYS.len()];
    let times = in_turn(WAYS.len(), rounds, |way| {
        let start_ns = thread_ns()?;
        sources[way] = readers[way].read()?;
        Ok((thread_ns()? - start_ns) as f64 / 1e6)
    })?;
    say("snapshot, packets beside readers");
    let packets = beside(&mut driver, &frame, &mut readers, if quick { 3 } else { 9 })?;
    let report = |way: usize| report::Reader {
        way: WAYS[way].to_owned(),
        sources: sources[way] as u32,
        table_ways: table_ways as u64,
        ms_median: times[way].median(),
        ms_min: times[way].min(),
        ms_max: times[way].max(),
        packet_ns_alone: packets[0].median(),
        packet_ns_alone_range: packets[0].range(),
        packet_ns_beside: packets[1 + way].median(),
        packet_ns_beside_range: packets[1 + way].range(),
    };
    Ok((0..WAYS.len()).map(report).collect())
}

/// Nanoseconds a packet with nobody reading, then beside each reader, on CPUs of their own where there are two.
fn beside(
    driver: &mut Driver,
    frame: &BytesMut,
    readers: &mut [Reader<'_>],
    rounds: usize,
) -> Result<Vec<Samples>> {
    let cpus = cpus::usable();
    let (for_packets, for_readers) = (cpus[0], cpus[1 % cpus.len()]);
    in_turn(1 + readers.len(), rounds, |thing| {
        let reader = thing.checked_sub(1).map(|way| &mut readers[way]);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reading = reader.map(|reader| scope.spawn(|| reader.read_until(for_readers, &is_over)));
            // A thread of its own: this one keeps its CPUs.
            let driving = scope.spawn(|| {
                cpus::bind(for_packets);
                driver.run(frame, 2 * SOURCES, 2)
            });
            let ns = {
                let _end = SetAtEnd(&is_over);
                joined(driving)
            };
            reading.map_or(Ok(()), joined)?;
            ns
        })
    })
}

/// A way to read a table, with the memory it reads to.
enum Reader<'a> {
    Mapping(&'a Mapped<Set>, Vec<Way>),
    Batch(Batch),
}

impl Reader<'_> {
    /// Reads all entries once; how many there are.
    fn read(&mut self) -> Result<usize> {
        match self {
            Self::Mapping(table, ways) => {
                ways.clear();
                ways.extend(read::entries(table));
                Ok(ways.len())
            }
            Self::Batch(batch) => batch.read(),
        }
    }

    /// Reads them again and again.
    fn read_until(&mut self, cpu: usize, is_over: &AtomicBool) -> Result<()> {
        cpus::bind(cpu);
        while !is_over.load(Ordering::Relaxed) {
            self.read()?;
        }
        Ok(())
    }
}

/// Owner of an entry.
type Key = [u64; 2];
/// The rest of it.
type Value = [u64; 6];

/// Entries that one call reads: more than any chain of the hash has.
const BATCH: usize = 1 << 16;

/// A hash map, and room for a part of it.
struct Batch {
    map: HashMap<MapData, Key, Value>,
    keys: Vec<Key>,
    values: Vec<Value>,
}

impl Batch {
    /// The same content as a table's.
    fn of(table: &Mapped<Set>) -> Result<Self> {
        let mut map = HashMap::create(SOURCES, 0).context("creating a hash map")?;
        for way in read::entries(table) {
            let value = [
                way.packets_tat,
                way.bytes_tat,
                way.connections_tat,
                way.special_tat,
                way.traffic,
                way.outcomes,
            ];
            map.insert([way.prefix, way.meta().tag()], value, 0).context("filling the hash map")?;
        }
        Ok(Self { map, keys: vec![Key::default(); BATCH], values: vec![Value::default(); BATCH] })
    }

    /// Reads all entries; how many there are.
    fn read(&mut self) -> Result<usize> {
        let mut place = None;
        let mut entries = 0;
        loop {
            let (read, is_last) = self.read_some(&mut place).context("reading a hash map in batches")?;
            entries += read;
            if is_last {
                return Ok(entries);
            }
            ensure!(read > 0, "a batch of {BATCH} entries is too small");
        }
    }

    /// Reads entries from a place on, which moves on; how many, and whether they are the last.
    fn read_some(&mut self, place: &mut Option<u32>) -> io::Result<(usize, bool)> {
        let mut next = 0_u32;
        let mut attributes = BatchAttributes {
            from: place.as_ref().map_or(0, |place| std::ptr::from_ref(place) as u64),
            to: &raw mut next as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map: self.map.map().fd().as_fd().as_raw_fd() as u32,
            ..BatchAttributes::default()
        };
        let size = size_of::<BatchAttributes>() as u32;
        // SAFETY: the kernel writes `next` and at most BATCH keys and values, for which there is room.
        let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size) };
        let error = io::Error::last_os_error();
        *place = Some(next);
        match result {
            0 => Ok((attributes.count as usize, false)),
            _ if error.raw_os_error() == Some(libc::ENOENT) => Ok((attributes.count as usize, true)),
            _ => Err(error),
        }
    }
}

/// Of linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: i32 = 24;

/// The member of `union bpf_attr` for it.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Time that this thread ran, ns: other processes share the CPUs.
fn thread_ns() -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written to.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    ensure!(result == 0, "the clock of this thread: {}", io::Error::last_os_error());
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
