//! What stands at the far end of a veth pair, each in a namespace of its own.

use std::{fs, mem::offset_of};

use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use detector_common::{budget::ticks, generation::Settings, limits::SOURCES_DEFAULT};
use detector_tests::{
    netns::{End, Namespace, veth},
    process,
};

use super::generator::Generator;
use crate::{decision::DETECTOR, subject::Subject};

/// The interface of every receiver.
const FAR: &str = "far";

/// Bytes of the largest packet of the pair.
const MTU: u32 = 1500;

/// MAC addresses of the frames that `detector_tests::packet` makes.
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The most that hashlimit holds.
const HASHLIMIT_MAX: u32 = 1 << 20;

/// Time between two sampled drops: the daemon has a hundred a second unless told otherwise.
const EVENT_INTERVAL_TICKS: u64 = ticks(10_000_000);

/// The policy of the product: one packet an hour for each source.
const POLICY: &str = "version = 1\n[[service]]\nname = \"api\"\naddresses = [\"203.0.113.10\"]\nports = [\"udp/443\"]\n\
    profile = \"customer\"\n[profile.customer]\npackets = { rate = \"1/h\", burst = 1 }\n";

/// A receiver of packets.
pub(super) struct Receiver {
    /// As the report names it.
    pub(super) name: &'static str,
    /// The interface that leads to it, in the namespace of the generator.
    pub(super) near_index: u32,
    namespace: Namespace,
    passed: fn(&Namespace) -> Result<u64>,
    _held: Option<Subject>,
}

/// What a receiver counted since it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Packets that its interface took.
    pub(super) received: u64,
    /// Packets that it let pass.
    pub(super) passed: u64,
}

/// All of them, each with room for so many sources.
pub(super) fn all(near: &Namespace, generator: &mut Generator, sources: u32) -> Result<Vec<Receiver>> {
    let mut receivers = Vec::new();
    for name in [DETECTOR, "xdp_drop", "lru", "nftables", "hashlimit"] {
        let mut receiver = Receiver::new(near, name)?;
        let far = &receiver.namespace;
        match name {
            DETECTOR => receiver._held = Some(detector(far, sources)?),
            "xdp_drop" => generator.attach("discard", far, FAR, XdpMode::Driver)?,
            "nftables" => nftables(far, sources)?,
            "hashlimit" => {
                hashlimit(far, sources)?;
                receiver.passed = passed_by_iptables;
            }
            program => generator.attach(program, far, FAR, XdpMode::Driver)?,
        }
        receivers.push(receiver);
    }
    Ok(receivers)
}

/// A namespace that sends nothing by itself. A packet of IPv6 for its own purposes, sent by another CPU, would move the
/// receiver to that CPU until the end of the run.
pub(super) fn silent_namespace(name: &str) -> Result<Namespace> {
    const SWITCH: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    let namespace = Namespace::new(name)?;
    // A kernel without IPv6 has no switch.
    namespace
        .within(|| if fs::exists(SWITCH)? { fs::write(SWITCH, "1") } else { Ok(()) })?
        .with_context(|| format!("writing {SWITCH}"))?;
    Ok(namespace)
}

impl Receiver {
    /// A pair whose far end takes frames and does nothing with them.
    fn new(near: &Namespace, name: &'static str) -> Result<Self> {
        let namespace = silent_namespace(name)?;
        let near_end = End { namespace: near, interface: name, mac: NEAR_MAC };
        veth(near_end, End { namespace: &namespace, interface: FAR, mac: FAR_MAC }, MTU)?;
        let near_index = near.index_of(name)?;
        Ok(Self { name, near_index, namespace, passed: passed_to_stack, _held: None })
    }

    /// What it counted so far.
    pub(super) fn counts(&self) -> Result<Counts> {
        Ok(Counts { received: received(&self.namespace)?, passed: (self.passed)(&self.namespace)? })
    }
}

/// The product's program under the kernel's clock, as the daemon attaches it.
fn detector(far: &Namespace, sources: u32) -> Result<Subject> {
    let mut subject = Subject::worn(sources.max(SOURCES_DEFAULT), true, POLICY)?;
    // What the daemon writes. Nobody reads the events here, and a full ring costs less than a sample.
    let place = offset_of!(Settings, event_interval) / size_of::<u64>();
    subject.loaded.maps.settings.write_word(0, place, EVENT_INTERVAL_TICKS);
    let program = subject.loaded.program()?;
    far.within(|| program.attach(FAR, XdpMode::Driver))?.context("attaching detector")?;
    Ok(subject)
}

/// A dynamic set of limits at the earliest hook that nftables has.
fn nftables(far: &Namespace, sources: u32) -> Result<()> {
    far.poll_received(FAR)?;
    let size = 2 * sources.max(16_384);
    let rules = format!(
        "table netdev bench {{\n\
         set sources {{ type ipv4_addr; size {size}; flags dynamic; }}\n\
         chain ingress {{\n\
         type filter hook ingress device \"{FAR}\" priority 0; policy accept;\n\
         add @sources {{ ip saddr limit rate over 1/hour burst 1 packets }} drop\n\
         }}\n}}\n"
    );
    process::run(far.command("nft")?.arg(rules)).context("setting up nftables").map(drop)
}

/// A table of limits before connection tracking. Nothing expires while it is measured, so nothing is swept.
fn hashlimit(far: &Namespace, sources: u32) -> Result<()> {
    far.poll_received(FAR)?;
    let size = sources.next_power_of_two().clamp(16_384, HASHLIMIT_MAX);
    let limit = format!(
        "-m hashlimit --hashlimit-name bench --hashlimit-mode srcip --hashlimit-above 1/hour --hashlimit-burst 1 \
         --hashlimit-htable-size {size} --hashlimit-htable-max {size} --hashlimit-htable-expire 3600000 \
         --hashlimit-htable-gcinterval 3600000 -j DROP"
    );
    for rule in [&*limit, "-j ACCEPT"] {
        let mut command = far.command("iptables")?;
        command.args(["-t", "raw", "-A", "PREROUTING"]).args(rule.split_whitespace());
        process::run(&mut command).context("setting up hashlimit")?;
    }
    Ok(())
}

/// Packets that the interface took, whatever became of them.
fn received(far: &Namespace) -> Result<u64> {
    let devices = read(far, "dev")?;
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix(FAR)?.strip_prefix(':'));
    number(line, 1).context("the packets of the interface in /proc/net/dev")
}

/// Packets that came as far as the network stack.
fn passed_to_stack(far: &Namespace) -> Result<u64> {
    let counters = read(far, "snmp")?;
    // A line of names and a line of numbers; after `Ip:`, Forwarding and DefaultTTL comes InReceives.
    number(counters.lines().nth(1), 3).context("the packets of IP in /proc/net/snmp")
}

/// Packets that came to the rule after the limit.
fn passed_by_iptables(far: &Namespace) -> Result<u64> {
    let mut list = far.command("iptables")?;
    list.args(["-t", "raw", "-nvxL", "PREROUTING", "2"]);
    number(Some(&process::run(&mut list)?), 0).context("the packets of a rule of iptables")
}

/// A file of the namespace's network.
fn read(far: &Namespace, name: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{name}");
    far.within(|| fs::read_to_string(&path))?.with_context(|| format!("reading {path}"))
}

/// A number in a line of words.
fn number(line: Option<&str>, place: usize) -> Option<u64> {
    line?.split_whitespace().nth(place)?.parse().ok()
}
