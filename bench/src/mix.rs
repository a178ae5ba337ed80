//! The driver of floods: the product, behind a mixture of spoofed and known sources.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{TestRun as _, TestRunOptions, XdpMode},
};
use bytes::BytesMut;
use detector_common::{
    address::Address,
    table::{Key, Unit},
    verdict::{COUNTER_SLOTS, Reason, counter_slot},
};
use detector_tests::{netns::Namespace, packet::udp};
use detector_user::kernel::{
    mapped::{Access, Mapped},
    maps::Maps,
    read,
};

use crate::{
    drive::{OBJECT, program},
    subject::Subject,
};

#[path = "../ebpf/src/mixture.rs"]
mod mixture;

pub(crate) use mixture::{FIRST, FIRST_PORT, GROUPS, Mixture, SECOND, SPOOFED, source_word};

// SAFETY: words, without padding.
unsafe impl aya::Pod for Mixture {}

/// A mixture of frames before the product's program.
pub(crate) struct Mixer {
    ebpf: Ebpf,
    mixture: Arc<Mapped<Mixture>>,
    frame: BytesMut,
    _under_test: ProgramArray<MapData>,
    // Goes last: the driver is attached in it.
    _parking: Namespace,
}

impl Mixer {
    /// Loads the driver before a subject.
    pub(crate) fn new(subject: &mut Subject, is_ipv6: bool) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("LINES", 1)
            .map_max_entries("BUCKETS", 1)
            .load(OBJECT)
            .context("loading the object of the bench")?;
        let map = ebpf.take_map("UNDER_TEST").context("the map UNDER_TEST")?;
        let mut under_test: ProgramArray<MapData> = map.try_into()?;
        let driver = program(&mut ebpf, "mix")?;
        driver.load().context("loading the program mix")?;
        under_test.set(0, &subject.program()?, 0).context("putting detector behind the driver")?;
        // A test run of a program that is attached nowhere starts and ends with a grace period, some 20 ms.
        let parking = Namespace::new("parking")?;
        parking.within(|| driver.attach("lo", XdpMode::Skb))?.context("parking the driver")?;
        let Some(aya::maps::Map::Array(map)) = ebpf.take_map("MIXTURE") else {
            anyhow::bail!("the map MIXTURE is missing")
        };
        let mixture = Arc::new(Mapped::new(&map, Access::Write).context("mapping MIXTURE")?);
        let frame = match is_ipv6 {
            false => udp("10.0.0.1:4000", "203.0.113.10:8000"),
            true => udp("[2001:db8::1]:4000", "[2001:db8:ffff::10]:8000"),
        };
        let mixer = Self { ebpf, mixture, frame: frame.frame(), _under_test: under_test, _parking: parking };
        mixer.mixture.write(0, &Mixture { known: 1, is_ipv6: is_ipv6.into(), ..Mixture::default() });
        Ok(mixer)
    }

    /// Mixes so many frames of each group from so many known sources from now on.
    pub(crate) fn set(&self, in_cycle: [u64; GROUPS], known: u64) {
        let mixture = self.mixture.read(0);
        self.mixture.write(0, &Mixture { in_cycle, known, place: 0, ..mixture });
    }

    /// Sends frames, at one time of the virtual clock.
    pub(crate) fn run(&mut self, frames: u32) -> Result<()> {
        let options = TestRunOptions { data_in: Some(&self.frame), repeat: frames, ..TestRunOptions::new() };
        program(&mut self.ebpf, "mix")?.test_run(options).context("a test run")?;
        Ok(())
    }

    /// For other threads.
    pub(crate) fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.mixture))
    }

    /// Frames of each group so far.
    pub(crate) fn sent(&self) -> [u64; GROUPS] {
        self.mixture.read(0).sent
    }
}

/// After this time without a packet the thread that sends has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a mixture is, for other threads than the one that runs it.
pub(crate) struct Progress(Arc<Mapped<Mixture>>);

impl Progress {
    /// Waits until a group has sent so many more frames.
    pub(crate) fn wait_for(&self, group: usize, frames: u64) -> Result<()> {
        let sent = || self.0.read(0).sent[group];
        let (start, end) = (Instant::now(), sent() + frames);
        while sent() < end {
            ensure!(start.elapsed() < PATIENCE, "no packet was sent for {PATIENCE:?}");
            thread::yield_now();
        }
        Ok(())
    }
}

/// A service for each group, all with the profile `source`: same budgets, same table, counters of their own.
pub(crate) fn services() -> String {
    let service = |group: usize| {
        let port = FIRST_PORT + group as u16;
        format!(
            "[[service]]\nname = \"group-{group}\"\naddresses = [\"203.0.113.10\", \"2001:db8:ffff::10\"]\n\
             ports = [\"udp/{port}\"]\nprofile = \"source\"\n"
        )
    };
    (0..GROUPS).map(service).collect()
}

/// The number that the active policy gives to the service of a group.
pub(crate) fn service(maps: &Maps, group: usize) -> Result<u16> {
    let manifest = read::consistently(maps, |active| active.manifest())?.context("there is no policy")?;
    manifest.services.get(&format!("group-{group}")).copied().context("a group without a service")
}

/// The entry of a known source.
pub(crate) fn key(group: usize, number: u64, is_ipv6: bool, service: u16) -> Key {
    let [a, b, c, d] = source_word(group, number, is_ipv6).to_be_bytes();
    if is_ipv6 {
        let address = Address::v6([0x20, 0x01, 0x0d, 0xb8, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]);
        Key::new(address, Unit::V6Source, service)
    } else {
        Key::new(Address::v4([a, b, c, d]), Unit::V4Source, service)
    }
}

/// Packets of a service by reason, in the order of [`Reason::ALL`].
pub(crate) struct Counted(Vec<u64>);

impl Counted {
    /// What was counted of a service that drops what it refuses.
    pub(crate) fn of(maps: &Maps, service: u16) -> Result<Self> {
        let counters = read::verdicts(maps, service)?;
        let shadowed = counters.slots[Reason::ALL.len()..COUNTER_SLOTS].iter().any(|slot| slot.packets > 0);
        ensure!(!shadowed, "packets were counted as if the policy did not enforce");
        let packets = |&reason: &Reason| counters.slots[counter_slot(reason, false)].packets;
        Ok(Self(Reason::ALL.iter().map(packets).collect()))
    }

    /// Packets of some reasons.
    pub(crate) fn sum(&self, is_wanted: impl Fn(Reason) -> bool) -> u64 {
        let wanted = Reason::ALL.iter().zip(&self.0).filter(|(reason, _)| is_wanted(**reason));
        wanted.map(|(_, packets)| packets).sum()
    }

    /// All packets.
    pub(crate) fn all(&self) -> u64 {
        self.sum(|_| true)
    }
}
