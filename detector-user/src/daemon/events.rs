//! What the program sends: sampled drops, and its own log where that is asked for.

use std::{pin::Pin, sync::atomic::Ordering};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use detector_common::{
    address::{Address, Family},
    fleet::slot_of_counter,
    policy::DropEvent,
    verdict::Reason,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Shared,
    feed::{Dropped, Event},
};
use crate::{
    commands::Failure,
    kernel::{
        maps::Maps,
        read::{self, ReadError},
    },
    policy::{compile::Manifest, incident::Incidents},
};

/// The ring buffer of drops.
pub(super) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: the ring owns one descriptor for as long as it lives, and lives in the registration.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self { ring: ring.map_err(|error| std::io::Error::other(error.to_string()))? })
    }
}

/// Names of services and rules, read anew when the policy has changed.
#[derive(Default)]
pub(super) struct Names {
    epoch: u32,
    manifest: Manifest,
    incidents: Incidents,
}

impl Names {
    /// Those of the active policy. Numbers stay with their names, so those of the last one will do where it cannot be read.
    pub(super) fn refresh(&mut self, maps: &Maps) {
        if read::epoch(maps) == self.epoch {
            return;
        }
        let names = read::consistently(maps, |active| -> Result<_, ReadError> {
            let manifest = active.manifest()?.unwrap_or_default();
            Ok(Self { epoch: active.epoch(), manifest, incidents: active.incidents()? })
        });
        match names {
            Ok(names) => *self = names,
            Err(error) => tracing::warn!("events may name services and rules of an earlier policy: {error}"),
        }
    }
}

impl Names {
    pub(super) fn service_name(&self, number: u16) -> &str {
        self.manifest.service_name(number)
    }

    /// The rule, or the fleet, whose drops are counted there.
    fn rule_name(&self, maps: &Maps, counter: u16) -> Option<String> {
        if counter == 0 {
            return None;
        }
        if let Some(slot) = slot_of_counter(counter) {
            let id = maps.fleets.read(slot as usize).id;
            return (id != 0).then(|| format!("fleet {id}"));
        }
        let rule = self.manifest.rules.iter().find(|rule| rule.counter == counter);
        let incident = || self.incidents.rules.iter().find(|incident| incident.counter == counter);
        rule.map(|rule| rule.name.clone()).or_else(|| Some(format!("incident {}", incident()?.id)))
    }
}

/// Reads events as they come. They are counted, told to those who follow, and logged at level `trace`.
pub(super) async fn follow(mut events: Events, running: Shared) {
    let mut names = Names::default();
    loop {
        let mut guard = match events.ring.readable_mut().await {
            Ok(guard) => guard,
            Err(error) => {
                tracing::warn!("sampled drops are not read any more: {error}");
                return;
            }
        };
        let is_wanted = tracing::enabled!(tracing::Level::TRACE) || running.feed.has_drops_followed();
        if is_wanted {
            names.refresh(&running.maps);
        }
        let mut count = 0;
        while let Some(item) = guard.get_inner_mut().next() {
            count += 1;
            if let Some(event) = decode(&item).filter(|_| is_wanted) {
                let dropped = named(&event, &names, &running.maps);
                log(&dropped);
                running.feed.tell(Event::Drop(dropped));
            }
        }
        guard.clear_ready();
        running.events.fetch_add(count, Ordering::Relaxed);
    }
}

fn decode(bytes: &[u8]) -> Option<DropEvent> {
    if bytes.len() != size_of::<DropEvent>() {
        return None;
    }
    // SAFETY: as many bytes as an event has, every bit pattern of which is one.
    Some(unsafe { bytes.as_ptr().cast::<DropEvent>().read_unaligned() })
}

fn named(event: &DropEvent, names: &Names, maps: &Maps) -> Dropped {
    let family = if event.version == 6 { Family::V6 } else { Family::V4 };
    let address = |[high, low]: [u64; 2]| Address { family, high, low }.to_ip();
    Dropped {
        source: address(event.source),
        source_port: event.source_port,
        destination: address(event.destination),
        destination_port: event.destination_port,
        protocol: event.protocol,
        bytes: event.bytes,
        interface: event.interface,
        service: names.service_name(event.service).to_owned(),
        reason: Reason::from_number(event.reason).map_or("unknown", Reason::name).to_owned(),
        rule: names.rule_name(maps, event.rule_counter),
        shadow: event.shadow != 0,
    }
}

fn log(dropped: &Dropped) {
    tracing::trace!(
        source = %dropped.source,
        source_port = dropped.source_port,
        destination = %dropped.destination,
        destination_port = dropped.destination_port,
        protocol = dropped.protocol,
        bytes = dropped.bytes,
        interface = dropped.interface,
        service = %dropped.service,
        reason = %dropped.reason,
        rule = dropped.rule,
        shadow = dropped.shadow,
        "dropped"
    );
}

/// The task that passes the program's own log on.
pub(super) type ProgramLog = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts reading the program's own log.
pub(super) fn program_log(ebpf: &mut Ebpf) -> Result<ProgramLog, Failure> {
    let logger = EbpfLogger::init(ebpf)
        .map_err(|error| Failure::failed(format_args!("cannot read the program's log: {error}")))?;
    // SAFETY: the logger owns one descriptor for as long as it lives, and lives in the registration.
    let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = logger.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Box::pin(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }))
}
