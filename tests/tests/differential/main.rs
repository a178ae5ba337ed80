//! The loaded program against the host, on the same random frames: the shared parser and service tables over a slice,
//! rules, incident rules and services once more as their definition says, budgets by the shared arithmetic on a plain map.
//! And clients of the loaded program against the host: what rules about fingerprints and budgets of handshakes say of them.
//!
//! `DETECTOR_TEST_SEED` gives a run back; the seed is printed.

mod client_rules;
mod clients;
mod frames;
mod handshakes;
mod incidents;
mod model;
mod policies;

use std::collections::BTreeMap;

use detector_common::{
    frame::SliceFrame,
    packet::{self, Packet},
    policy::{NO_PROFILE, PolicyHeader},
    service::{self, DestinationSlot, PortSlot, ServiceTables},
    verdict::{Reason, Verdict},
};
use detector_tests::{random::Random, rows::Rig};
use detector_user::{
    kernel::{incidents::change, read},
    policy::compile::{Manifest, Tables, compile},
};

use crate::model::{Expected, Model};

const POLICIES: usize = 120;
const FRAMES_PER_POLICY: usize = 500;

const _: () = assert!(POLICIES * FRAMES_PER_POLICY >= 20_000);

/// The compiled tables of services, as the program's maps hold them.
struct HostTables<'a>(&'a Tables);

impl ServiceTables for HostTables<'_> {
    fn destination(&self, place: u32) -> Option<&DestinationSlot> {
        self.0.destinations.get(place as usize)
    }

    fn port(&self, place: u32) -> Option<&PortSlot> {
        self.0.ports.get(place as usize)
    }
}

#[test]
fn the_program_and_the_host_agree_on_every_frame() {
    let mut random = Random::announced(10);
    let mut seen = BTreeMap::new();
    let mut incidents_seen = 0;
    for number in 0..POLICIES {
        let policy = policies::random(&mut random);
        let mut rig = Rig::bare();
        let tables =
            compile(&policy, &Manifest::default(), rig.bench().clocks()).expect("a policy that fits");
        rig.apply_policy(&policy);
        let incidents = incidents::random(&mut random, &policy);
        let clocks = rig.bench().clocks();
        change(&mut rig.bench_mut().loaded.maps, clocks, incidents.clone(), |_| false).expect("they fit");
        let incidents = incidents::of_model(&incidents, &policy);
        let seed = rig.bench().loaded.maps.settings.read(0).seed;
        let mut model = Model::new(&policy, &incidents, seed);
        for frame_number in 0..FRAMES_PER_POLICY {
            let step_ns =
                if random.once_in(12) { 30_000_000 } else { [0, 20_000, 2_000_000][random.index(3)] };
            rig.advance(random.below(step_ns + 1));
            let frame = frames::random(&mut random);
            let host = expected(&mut model, &tables, &frame, rig.now());
            let judged = rig.send(&frame);
            let place = || {
                format!(
                    "frame {frame_number} under policy {number}: {frame:02x?}\n{policy:#?}\n{:#?}",
                    incidents.iter().map(|rule| &rule.incident).collect::<Vec<_>>()
                )
            };
            assert_eq!(judged.reason(), host.reason, "reason of {}", place());
            assert_eq!(judged.verdict == Verdict::Drop, host.dropped(), "verdict of {}", place());
            let trace = judged.trace;
            assert_eq!(
                trace.shadow == 1,
                host.shadow && !host.dropped() && is_drop(host.reason),
                "{}",
                place()
            );
            let service = host.service.map_or(0, |service| rig.service(&policy.services[service].name));
            assert_eq!(trace.service, service, "service of {}", place());
            if let Some(class) = host.class {
                assert_eq!(description(&rig, trace.class), class, "class of {}", place());
                incidents_seen += usize::from(class.contains("rule incident"));
            }
            *seen.entry((host.reason, host.shadow)).or_insert(0) += 1;
        }
    }
    // No client is among these frames, so nothing is said of fingerprints and handshakes: see `handshakes`.
    let of_frames = Reason::ALL.iter().filter(|reason| !handshakes::REASONS.contains(reason));
    assert_covered(&seen, of_frames);
    assert!(incidents_seen > 1000, "incident rules decided about {incidents_seen} frames");
}

/// What the host says of a frame.
fn expected(model: &mut Model<'_>, tables: &Tables, frame: &[u8], now: u64) -> Expected {
    let packet = match packet::parse(&SliceFrame(frame)) {
        Ok(parsed) => parsed.packet,
        Err(reason) => return Expected::unjudged(reason),
    };
    let service = model.service(&packet);
    assert_eq!(find(tables, &packet), service.map(|service| model.number(service)), "service of {packet:?}");
    match service {
        None => Expected::unjudged(Reason::NoService),
        Some(service) => model.judge(&packet, service, frame.len() as u32, now),
    }
}

fn find(tables: &Tables, packet: &Packet) -> Option<u16> {
    let header: &PolicyHeader = &tables.header;
    service::find(&HostTables(tables), header, packet)
}

fn is_drop(reason: Reason) -> bool {
    reason.verdict() == Verdict::Drop
}

/// Action, rule and profile of a class, by name.
fn description(rig: &Rig, number: u16) -> String {
    read::consistently(&rig.bench().loaded.maps, |active| -> Result<_, read::ReadError> {
        let (class, rules) = (active.class(number)?, active.rules()?);
        let rule = rules.of_class(number.into(), &class).map_or("-".to_owned(), |rule| rule.name());
        let profile = match class.profile {
            NO_PROFILE => "-",
            profile => &rules.manifest.profiles[usize::from(profile)],
        };
        let (action, percent) = (class.action, class.enforced_percent);
        Ok(format!("action {action} rule {rule} profile {profile} enforced {percent}"))
    })
    .expect("the policy can be read")
}

/// Every one of these reasons that a table with room can give under a policy came up, enforced and shadowed. A fleet is none of a policy's:
/// `fleet_budgets` is about them.
fn assert_covered<'r>(seen: &BTreeMap<(Reason, bool), usize>, reasons: impl IntoIterator<Item = &'r Reason>) {
    use Reason::{Fleet, NoPolicy, Overflow, TableFull, Unjudged};
    for &reason in reasons {
        if matches!(reason, NoPolicy | TableFull | Unjudged | Overflow | Fleet) {
            continue;
        }
        for shadow in [false, true] {
            let times = seen.get(&(reason, shadow)).copied().unwrap_or(0);
            let is_possible = !shadow || is_drop(reason);
            assert!(!is_possible || times > 5, "{reason:?} (shadow: {shadow}) came {times} times: {seen:?}");
        }
    }
}
