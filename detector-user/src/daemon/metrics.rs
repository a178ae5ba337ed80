//! OpenMetrics over HTTP: every figure is read from the maps when it is asked for.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use aya::maps::MapError;
use detector_common::{
    budget::ticks,
    counters::{FRAME_KINDS, HANDSHAKE_EVENTS, TABLE_EVENTS, handshake_event_slot, table_event_slot},
    limits::INCIDENT_RULES_MAX,
    verdict::{COUNTER_SLOTS, Verdict, slot_reason},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{Running, Shared, blocking};
use crate::{
    clock,
    commands::Failure,
    fleets::{Told, told::Looking},
    kernel::{maps::Maps, read},
    policy::{compile::Manifest, incident::Incident},
};

/// A family of metrics.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name, without the suffix that OpenMetrics gives to counters.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Its labels, as documentation writes them.
    pub labels: &'static str,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($( $constant:ident $name:literal $kind:literal $labels:literal $help:literal )*) => {
        $( const $constant: Family = Family { name: $name, kind: $kind, labels: $labels, help: $help }; )*

        /// Every family, for the documentation.
        pub const FAMILIES: &[Family] = &[$( $constant, )*];
    };
}

families! {
    PACKETS "detector_packets" "counter" "service, verdict, reason" "Packets by service, verdict (pass, drop, shadow) and reason."
    BYTES "detector_bytes" "counter" "service, verdict, reason" "Bytes of frames by service, verdict and reason."
    FRAMES "detector_frames" "counter" "kind" "Frames that are handled on purpose, by kind."
    EVENTS "detector_table_events" "counter" "event" "What happens inside the tables."
    HANDSHAKES "detector_handshake_events" "counter" "event" "What becomes of handshakes that are followed."
    WAYS "detector_table_ways" "gauge" "table" "Entries that a table has room for."
    OCCUPIED "detector_table_occupied" "gauge" "table" "Entries that have an owner."
    BUSY "detector_table_busy" "gauge" "table" "Entries whose budgets are not full: they cannot be taken over."
    FINGERPRINTS "detector_fingerprints" "gauge" "" "Fingerprints of clients that are counted, each at a service."
    FINGERPRINTS_ROOM "detector_fingerprints_max" "gauge" "" "Fingerprints that there is room for."
    CLIENTS "detector_clients" "gauge" "" "Clients that are counted: sources, each at a service under a pair of fingerprints."
    CLIENTS_ROOM "detector_clients_max" "gauge" "" "Clients that there is room for."
    CLIENT_RULES "detector_client_rules" "gauge" "" "Fingerprints that rules act on, each at a service."
    GENERATION "detector_policy_generation" "gauge" "" "Epoch of the active policy, as `status` tells it."
    INCIDENTS "detector_incident_rules" "gauge" "" "Incident rules in force."
    INCIDENT_DROPS "detector_incident_drops" "counter" "id, action" "Packets dropped by each incident rule in force."
    RELOADS "detector_policy_reloads" "counter" "result" "Policies read again on SIGHUP, by result (applied, failed)."
    TICK "detector_clock_tick_seconds" "gauge" "" "Step of the clock that budgets tolerate."
    ATTACHED "detector_interface_attached" "gauge" "interface, mode" "1 for each interface, with the mode (native, generic); 0 when it was deleted or the program unloaded."
    DROP_EVENTS "detector_drop_events" "counter" "" "Sampled drops received."
    EXEMPLARS "detector_exemplars" "counter" "result" "Bytes of fingerprints received, by result (named, torn: not of the fingerprint that was said)."
    INITIALS "detector_initials" "counter" "result" "Connections over QUIC whose first datagrams were received, by result (opened: their ClientHello is known, incomplete: it was not whole in time or is none, unopened: no key opens them)."
    CONFLICTS "detector_fingerprint_conflicts" "counter" "" "ClientHellos whose stable JA4 is not the one that their key has."
    FINGERPRINT_EVENTS "detector_fingerprint_events" "counter" "result" "Events of new fingerprints, by result (told, held: too many in a second)."
    NOTICES "detector_notices" "counter" "target, result" "Events told to hook and webhook, by result (told, failed, dropped: too many waited)."
    FLEETS "detector_fleets" "gauge" "service, state" "Fleets that are known, by state (active: it was seen in the last day, quiet)."
    FLEET_MEMBERS "detector_fleet_members" "gauge" "service, confidence" "Sources that belong to fleets, by confidence (member, suspect)."
    FLEET_DROPS "detector_fleet_drops" "counter" "service, fleet" "Packets that the budget of a throttled fleet refused since the throttle began."
    FLEET_STATE "detector_fleet_detection" "gauge" "state" "1 for what looking for fleets does: off, learning, watching, failed."
    FLEET_STOPPED "detector_fleet_actions_stopped" "gauge" "" "1 while all actions on fleets are stopped by an operator."
    FLEET_ROWS "detector_fleet_rows" "counter" "result" "Observations since learning began, by result (seen, late: after the quarter of an hour that they are of was over)."
    FLEET_LOST "detector_fleet_lost" "counter" "what" "What found no room: counts of sources or clients in their epoch or quarter of an hour (count), sources that are remembered (source), members of fleets (member), epochs while detection was busy (epoch)."
    FLEET_LOOK "detector_fleet_look_seconds" "gauge" "" "Time that the last look for fleets took."
    FLEET_SAVED "detector_fleet_saved_timestamp_seconds" "gauge" "" "When all that is remembered of fleets was saved last; 0: never. The epochs since are kept, too."
    BUILD "detector_build_info" "gauge" "version" "1, with the version."
}

/// Serves `/metrics` until the daemon ends.
pub(super) async fn serve(listener: TcpListener, running: Shared) {
    let router = Router::new().route("/metrics", get(metrics)).with_state(running);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("metrics are not served any more: {error}");
    }
}

/// Permits to take a snapshot, one at a time: it is taken to its end also where nobody waits for it any more.
static SNAPSHOTS: Semaphore = Semaphore::const_new(1);

async fn metrics(State(running): State<Shared>) -> Response {
    let permit = SNAPSHOTS.acquire().await;
    let snapshot = blocking(move || {
        let _permit = permit;
        Snapshot::take(&running)
    });
    let snapshot = match snapshot.await {
        Ok(snapshot) => snapshot,
        Err(failure) => return (StatusCode::INTERNAL_SERVER_ERROR, failure.message).into_response(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics").into_response();
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Packets and bytes of one service by verdict and reason.
#[derive(Debug)]
struct Judged {
    service: String,
    verdict: &'static str,
    reason: &'static str,
    packets: u64,
    bytes: u64,
}

/// An incident rule in force, and what it dropped.
#[derive(Debug)]
struct InForce {
    id: String,
    action: &'static str,
    dropped: u64,
}

/// All figures at one time.
#[derive(Debug)]
struct Snapshot {
    judged: Vec<Judged>,
    incidents: Vec<InForce>,
    counters: [u64; detector_common::counters::COUNTERS],
    fills: [(&'static str, read::Fill); 3],
    fingerprints: read::Fill,
    clients: read::Fill,
    client_rules: u64,
    epoch: u32,
    tick_ns: u64,
    interfaces: Vec<(String, &'static str, bool)>,
    reloads: [(&'static str, u64); 2],
    events: u64,
    exemplars: [(&'static str, u64); 2],
    initials: [(&'static str, u64); 3],
    conflicts: u64,
    fingerprint_events: [(&'static str, u64); 2],
    notices: Vec<Notices>,
    fleets: Arc<Told>,
}

/// Target, result, count.
type Notices = (&'static str, &'static str, u64);

impl Snapshot {
    fn take(running: &Running) -> Result<Self, Failure> {
        let maps = &running.maps;
        let (epoch, judged, incidents) = read::consistently(maps, |active| -> Result<_, Failure> {
            let judged = judged(maps, &active.manifest()?.unwrap_or_default())?;
            Ok((active.policy_epoch(), judged, incidents(maps, &active.incidents()?.rules)?))
        })?;
        let now = ticks(clock::kernel_ns());
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut interfaces = Vec::new();
        for attachment in &running.attachments {
            let is_attached = running.is_attached(attachment)?;
            interfaces.push((attachment.interface.clone(), attachment.pin.mode.name(), is_attached));
        }
        Ok(Self {
            judged,
            incidents,
            counters: read::counters(maps)?,
            fills: read::budget_tables(maps).map(|(name, table)| (name, read::fill(table, now))),
            fingerprints: read::fill(&maps.fingerprints, now),
            clients: read::fill(&maps.clients, now),
            client_rules: count(&running.client_rules),
            epoch,
            tick_ns: read::settings(maps).clock_tick_ns,
            interfaces,
            reloads: [
                ("applied", running.reloads.applied.load(Ordering::Relaxed)),
                ("failed", running.reloads.failed.load(Ordering::Relaxed)),
            ],
            events: running.events.load(Ordering::Relaxed),
            exemplars: [("named", count(&running.exemplars.named)), ("torn", count(&running.exemplars.torn))],
            initials: [
                ("opened", count(&running.exemplars.initials.opened)),
                ("incomplete", count(&running.exemplars.initials.incomplete)),
                ("unopened", count(&running.exemplars.initials.unopened)),
            ],
            conflicts: count(&running.exemplars.conflicts),
            fingerprint_events: [
                ("told", count(&running.exemplars.told)),
                ("held", count(&running.exemplars.held)),
            ],
            notices: running.notices.all(),
            fleets: running.fleets.told(),
        })
    }
}

fn judged(maps: &Maps, manifest: &Manifest) -> Result<Vec<Judged>, MapError> {
    let mut judged = Vec::new();
    let services =
        manifest.services.iter().map(|(name, &number)| (name.as_str(), number)).chain([("none", 0)]);
    for (service, number) in services {
        let counters = read::verdicts(maps, number)?;
        for (slot, counter) in counters.slots.iter().enumerate().take(COUNTER_SLOTS) {
            let Some((reason, shadow)) = slot_reason(slot) else { continue };
            let verdict = if shadow { "shadow" } else { reason.verdict().name() };
            // A reason to drop that never came about is a series nobody asked for, a reason to pass likewise.
            if counter.packets == 0 && !(number != 0 && reason.verdict() == Verdict::Drop && !shadow) {
                continue;
            }
            let (packets, bytes) = (counter.packets, counter.bytes);
            judged.push(Judged {
                service: service.to_owned(),
                verdict,
                reason: reason.name(),
                packets,
                bytes,
            });
        }
    }
    Ok(judged)
}

/// Those of a list that have not ended; a list has a bound.
fn incidents(maps: &Maps, rules: &[Incident]) -> Result<Vec<InForce>, MapError> {
    let now_s = clock::unix_s();
    let in_force = rules.iter().filter(|incident| !incident.has_ended(now_s)).take(INCIDENT_RULES_MAX);
    in_force
        .map(|incident| {
            let dropped = read::rule_drops(maps, incident.counter)?.dropped;
            Ok(InForce { id: incident.id.to_string(), action: incident.action.name(), dropped })
        })
        .collect()
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        let judged = |value: fn(&Judged) -> u64| {
            self.judged.iter().map(move |judged| {
                let labels = vec![
                    ("service", judged.service.as_str()),
                    ("verdict", judged.verdict),
                    ("reason", judged.reason),
                ];
                (labels, value(judged))
            })
        };
        counter(encoder, &PACKETS, judged(|judged| judged.packets))?;
        counter(encoder, &BYTES, judged(|judged| judged.bytes))?;
        let kinds =
            FRAME_KINDS.iter().map(|&(kind, name, _)| (vec![("kind", name)], self.counters[kind as usize]));
        counter(encoder, &FRAMES, kinds)?;
        let events = TABLE_EVENTS.iter().map(|&(event, name, _)| {
            (vec![("event", name)], self.counters[table_event_slot(event) as usize])
        });
        counter(encoder, &EVENTS, events)?;
        let handshakes = HANDSHAKE_EVENTS.iter().map(|&(event, name, _)| {
            (vec![("event", name)], self.counters[handshake_event_slot(event) as usize])
        });
        counter(encoder, &HANDSHAKES, handshakes)?;
        let fill = |value: fn(&read::Fill) -> u64| {
            self.fills.iter().map(move |(name, fill)| (vec![("table", *name)], value(fill)))
        };
        gauge(encoder, &WAYS, fill(|fill| fill.ways))?;
        gauge(encoder, &OCCUPIED, fill(|fill| fill.occupied))?;
        gauge(encoder, &BUSY, fill(|fill| fill.busy))?;
        gauge(encoder, &FINGERPRINTS, [(Vec::new(), self.fingerprints.occupied)])?;
        gauge(encoder, &FINGERPRINTS_ROOM, [(Vec::new(), self.fingerprints.ways)])?;
        gauge(encoder, &CLIENTS, [(Vec::new(), self.clients.occupied)])?;
        gauge(encoder, &CLIENTS_ROOM, [(Vec::new(), self.clients.ways)])?;
        gauge(encoder, &CLIENT_RULES, [(Vec::new(), self.client_rules)])?;
        let epoch = [(Vec::new(), u64::from(self.epoch))];
        gauge(encoder, &GENERATION, epoch)?;
        gauge(encoder, &INCIDENTS, [(Vec::new(), self.incidents.len() as u64)])?;
        let drops = self.incidents.iter().map(|incident| {
            (vec![("id", incident.id.as_str()), ("action", incident.action)], incident.dropped)
        });
        counter(encoder, &INCIDENT_DROPS, drops)?;
        counter(encoder, &RELOADS, by_result(&self.reloads))?;
        let tick = encoder.encode_descriptor(TICK.name, TICK.help, None, MetricType::Gauge)?;
        ConstGauge::new(self.tick_ns as f64 / 1e9).encode(tick)?;
        let interfaces = self.interfaces.iter().map(|(name, mode, is_attached)| {
            (vec![("interface", name.as_str()), ("mode", *mode)], u64::from(*is_attached))
        });
        gauge(encoder, &ATTACHED, interfaces)?;
        counter(encoder, &DROP_EVENTS, [(Vec::new(), self.events)])?;
        counter(encoder, &EXEMPLARS, by_result(&self.exemplars))?;
        counter(encoder, &INITIALS, by_result(&self.initials))?;
        counter(encoder, &CONFLICTS, [(Vec::new(), self.conflicts)])?;
        counter(encoder, &FINGERPRINT_EVENTS, by_result(&self.fingerprint_events))?;
        let notices = self
            .notices
            .iter()
            .map(|&(target, result, count)| (vec![("target", target), ("result", result)], count));
        counter(encoder, &NOTICES, notices)?;
        encode_fleets(encoder, &self.fleets)?;
        let version = [(vec![("version", env!("CARGO_PKG_VERSION"))], 1)];
        gauge(encoder, &BUILD, version)
    }
}

/// What is known of fleets, and how that is.
fn encode_fleets(encoder: &mut DescriptorEncoder<'_>, told: &Told) -> Result<(), fmt::Error> {
    let Told { detection, report, actions } = told;
    let fleets = report.counts().into_iter();
    gauge(
        encoder,
        &FLEETS,
        fleets.map(|((service, state), count)| (vec![("service", service), ("state", state)], count)),
    )?;
    let mut members: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for fleet in &report.fleets {
        for (confidence, sources) in [("member", &fleet.members), ("suspect", &fleet.suspects)] {
            *members.entry((&fleet.service, confidence)).or_default() += sources.len() as u64;
        }
    }
    let members = members.into_iter();
    let labels = |(service, confidence)| vec![("service", service), ("confidence", confidence)];
    gauge(encoder, &FLEET_MEMBERS, members.map(|(of, count)| (labels(of), count)))?;
    let throttled = actions.iter().filter_map(|action| Some((action, action.throttle.as_ref()?)));
    let service = |id: &str| report.fleet(id).map_or("", |fleet| fleet.service.as_str());
    let samples = throttled.map(|(action, throttle)| {
        (vec![("service", service(&action.fleet)), ("fleet", action.fleet.as_str())], throttle.dropped)
    });
    counter(encoder, &FLEET_DROPS, samples)?;
    let states = [Looking::Off, Looking::Learning, Looking::Watching, Looking::Failed];
    let states = states.map(|state| (vec![("state", state.name())], u64::from(state == detection.state)));
    gauge(encoder, &FLEET_STATE, states)?;
    let stopped = u64::from(detection.stopped.is_some());
    gauge(encoder, &FLEET_STOPPED, [(Vec::new(), stopped)])?;
    counter(encoder, &FLEET_ROWS, by_result(&[("seen", report.rows), ("late", report.late)]))?;
    let lost = [
        ("count", report.lost),
        ("source", report.forgotten),
        ("member", report.left_out),
        ("epoch", detection.epochs_lost),
    ];
    counter(encoder, &FLEET_LOST, lost.map(|(what, count)| (vec![("what", what)], count)))?;
    let look = encoder.encode_descriptor(FLEET_LOOK.name, FLEET_LOOK.help, None, MetricType::Gauge)?;
    ConstGauge::new(detection.look_seconds).encode(look)?;
    gauge(encoder, &FLEET_SAVED, [(Vec::new(), detection.saved_at_s.unwrap_or(0))])
}

/// A sample for each result.
fn by_result<'a>(counts: &'a [(&'static str, u64)]) -> impl Iterator<Item = Sample<'a>> {
    counts.iter().map(|&(result, count)| (vec![("result", result)], count))
}

type Sample<'a> = (Vec<(&'a str, &'a str)>, u64);

fn counter<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl IntoIterator<Item = Sample<'a>>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            return ConstCounter::new(value).encode(family);
        }
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl IntoIterator<Item = Sample<'a>>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        if labels.is_empty() {
            return value.encode(family);
        }
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
