//! The driver: a program under test, behind random sources.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp},
};
use detector_common::{
    limits::{SOURCES_DEFAULT, WAYS},
    table_size::sets_for_sources,
};

/// The object of the driver and the references.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/detector-bench-ebpf"));

/// The driver and the references, loaded for a number of sources.
pub(crate) struct Driver {
    ebpf: Ebpf,
    under_test: ProgramArray<MapData>,
}

/// The programs of that object.
const PROGRAMS: [&str; 9] =
    ["drive", "transmit", "empty", "discard", "array_read", "array_wait", "array_add", "table_wait", "lru"];

/// What one call of the kernel may take: it looks for signals between two packets.
const BATCH: u32 = 1_000_000;

impl Driver {
    /// Loads them.
    pub(crate) fn new(sources: u32, is_ipv6: bool) -> Result<Self> {
        // The product's tables are not made smaller than this either.
        let lines = sets_for_sources(sources.max(SOURCES_DEFAULT)) * WAYS as u32;
        let mut ebpf = EbpfLoader::new()
            .override_global("SOURCES", &sources, true)
            .override_global("IS_IPV6", &u32::from(is_ipv6), true)
            .override_global("LINES_LEN", &lines, true)
            .map_max_entries("LINES", lines)
            .map_max_entries("BUCKETS", (sources + sources / 4).max(16_384))
            .load(OBJECT)
            .context("loading the object of the bench")?;
        for name in PROGRAMS {
            program(&mut ebpf, name)?.load().with_context(|| format!("loading the program {name}"))?;
        }
        let map = ebpf.take_map("UNDER_TEST").context("the map UNDER_TEST")?;
        Ok(Self { ebpf, under_test: map.try_into()? })
    }

    /// Puts a program of its own behind the driver.
    pub(crate) fn put_reference(&mut self, name: &str) -> Result<()> {
        let fd = program(&mut self.ebpf, name)?.fd()?.try_clone()?;
        self.put(&fd)
    }

    /// Puts a program behind the driver.
    pub(crate) fn put(&mut self, program: &ProgramFd) -> Result<()> {
        self.under_test.set(0, program, 0).context("putting a program behind the driver")
    }

    /// Runs the driver; nanoseconds a packet, as the kernel counted.
    ///
    /// The same `seed`, which is not 0, draws the same sources.
    pub(crate) fn run(&mut self, frame: &[u8], packets: u32, seed: u64) -> Result<f64> {
        let state = self.ebpf.map_mut("STATE").context("the map STATE")?;
        aya::maps::Array::<_, u64>::try_from(state)?.set(0, seed, 0).context("setting the generator back")?;
        let driver = program(&mut self.ebpf, "drive")?;
        let (mut left, mut total_ns) = (packets, 0.0);
        while left > 0 {
            let repeat = left.min(BATCH);
            let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
            let result = driver.test_run(options).context("a test run")?;
            total_ns += result.duration.as_nanos() as f64 * f64::from(repeat);
            left -= repeat;
        }
        Ok(total_ns / f64::from(packets))
    }
}

/// A program of that object.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("the program {name}"))?;
    Ok(program.try_into()?)
}
