//! Sampled drops: what an event says, how many there are at most, and what happens when nobody reads them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use aya::maps::{MapData, RingBuf};
use detector_common::{
    address::Address,
    budget::{TICKS_PER_NS, ticks},
    generation::Settings,
    limits::{EVENTS_BYTES, OVERFLOW_SOURCES, WAYS},
    policy::DropEvent,
    verdict::Reason,
};
use detector_tests::{
    packet::{flags, icmpv6, udp},
    random::Random,
    rows::{MILLISECOND, Rig, SECOND},
};
use detector_user::kernel::read;

use crate::*;

/// Step of the clock that the settings tell, as with a timer of 250 Hz.
const CLOCK_TICK_NS: u64 = 4 * MILLISECOND;

/// Where a test run says that frames come from: the loopback interface, the first of every namespace.
const LOOPBACK: u32 = 1;

/// Events that the ring has room for: each has a header of eight bytes, and one byte stays free.
const ROOM: usize = (EVENTS_BYTES - 1) / (size_of::<DropEvent>() + 8);

/// Every way to be refused by a source of its own: 10.0.K.0/24 and 2001:db8:a:K::/64 for kind K.
const POLICY: &str = "
version = 1
[[service]]
name = \"other\"
addresses = [\"203.0.113.99\"]
[[service]]
name = \"api\"
addresses = [\"203.0.113.10\", \"2001:db8::10\"]
profile = \"packets\"
[profile.packets]
packets = { rate = \"1/h\", burst = 1 }
[profile.bytes]
bytes = { rate = \"64B/s\", burst = 2000 }
[profile.connections]
connections = { rate = \"1/h\", burst = 1 }
[profile.parents.parents]
v4_24 = { packets = { rate = \"1/h\", burst = 1 } }
v6_56 = { new_sources = { rate = \"1/h\", burst = 1 } }
[profile.fast]
packets = { rate = \"1000/s\", burst = 1000 }
[[rule]]
name = \"bytes\"
source = [\"10.0.1.0/24\"]
action = { limit = \"bytes\" }
[[rule]]
name = \"connections\"
source = [\"2001:db8:a:2::/64\"]
action = { limit = \"connections\" }
[[rule]]
name = \"parents\"
source = [\"10.0.3.0/24\", \"2001:db8:a:300::/56\"]
action = { limit = \"parents\" }
[[rule]]
name = \"denied\"
source = [\"10.0.4.0/24\", \"2001:db8:a:4::/64\"]
action = \"drop\"
[[rule]]
name = \"denied-in-shadow\"
source = [\"10.0.5.0/24\", \"2001:db8:a:5::/64\"]
action = \"drop\"
mode = \"shadow\"
[[rule]]
name = \"limited-in-shadow\"
source = [\"10.0.6.0/24\"]
action = { limit = \"packets\" }
mode = \"shadow\"
[[rule]]
name = \"fast\"
source = [\"10.0.7.0/24\"]
action = { limit = \"fast\" }
";

/// A program that samples, and the reader of what it sends.
struct Sampling {
    rig: Rig,
    ring: RingBuf<MapData>,
}

impl Sampling {
    /// So many events a second, asked for as the daemon does when it starts. A program of its own: another test's would
    /// go on sampling.
    fn new(sources: u32, events_per_second: u32) -> Self {
        let mut rig = Rig::new(sources);
        rig.apply(POLICY);
        let settings = &rig.bench().loaded.maps.settings;
        settings.write(
            0,
            &Settings {
                event_interval: match events_per_second {
                    0 => 0,
                    events => SECOND * TICKS_PER_NS / u64::from(events),
                },
                event_tat: ticks(rig.now_ns()),
                clock_tick_ns: CLOCK_TICK_NS,
                ..settings.read(0)
            },
        );
        let map = rig.bench_mut().loaded.ebpf.take_map("EVENTS").expect("the map EVENTS");
        Self { rig, ring: RingBuf::try_from(map).expect("a ring buffer") }
    }

    /// The events that nobody has read yet.
    fn read(&mut self) -> Vec<DropEvent> {
        let mut events = Vec::new();
        while let Some(item) = self.ring.next() {
            assert_eq!(item.len(), size_of::<DropEvent>());
            // SAFETY: as many bytes as an event has, every bit pattern of which is one.
            events.push(unsafe { item.as_ptr().cast::<DropEvent>().read_unaligned() });
        }
        events
    }
}

/// A frame that is refused, and what its event has to say.
struct Row {
    frame: BytesMut,
    from: &'static str,
    to: &'static str,
    protocol: u8,
    reason: Reason,
    shadow: bool,
}

impl Row {
    const fn new(
        frame: BytesMut,
        from: &'static str,
        to: &'static str,
        protocol: u8,
        reason: Reason,
    ) -> Self {
        Self { frame, from, to, protocol, reason, shadow: false }
    }

    fn shadowed(self) -> Self {
        Self { shadow: true, ..self }
    }

    fn event(&self, rig: &Rig) -> DropEvent {
        let end = |text: &str| -> SocketAddr { text.parse().expect("a socket address") };
        let (from, to) = (end(self.from), end(self.to));
        let words = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => [u64::from(ip.to_bits()) << 32, 0],
            IpAddr::V6(ip) => [(ip.to_bits() >> 64) as u64, ip.to_bits() as u64],
        };
        let service = rig.service("api");
        let source = Address::from(from.ip());
        let standing =
            read::consistently(&rig.bench().loaded.maps, |active| active.classify(source, service));
        let standing = standing.expect("a lookup").expect("a policy");
        DropEvent {
            time_ns: rig.now_ns(),
            source: words(from.ip()),
            destination: words(to.ip()),
            bytes: self.frame.len() as u32,
            interface: LOOPBACK,
            source_port: from.port(),
            destination_port: to.port(),
            service,
            class: standing.class_number,
            reason: self.reason as u8,
            protocol: self.protocol,
            version: if from.is_ipv4() { 4 } else { 6 },
            shadow: self.shadow.into(),
            rule_counter: standing.class.rule_counter,
            reserved: 0,
        }
    }
}

/// A TCP segment with these flags.
fn tcp_row(from: &'static str, to: &'static str, flags: u8, reason: Reason) -> Row {
    Row::new(tcp(from, to, flags).frame(), from, to, 6, reason)
}

/// A UDP datagram of a frame of so many bytes.
fn udp_row(from: &'static str, to: &'static str, bytes: usize, reason: Reason) -> Row {
    Row::new(udp(from, to).of_length(bytes).frame(), from, to, 17, reason)
}

#[test]
fn an_event_says_who_was_refused_what_and_why() {
    let mut sampling = Sampling::new(1000, 1000);
    let tagged = tcp("10.0.4.9:1", "203.0.113.10:7", flags::ACK).tag(0x8100).frame();
    let later_fragment = udp("10.0.4.9:1", "203.0.113.10:7").fragment(100, false).frame();
    let ping = icmpv6("2001:db8:a:4::9", "2001:db8::10", 128).frame();
    let rows = [
        tcp_row("10.0.0.1:4001", "203.0.113.10:443", flags::ACK, Reason::Packets),
        udp_row("10.0.1.1:53", "203.0.113.10:65535", 1200, Reason::Bytes),
        tcp_row("[2001:db8:a:2:1::9]:4002", "[2001:db8::10]:443", flags::SYN, Reason::Connections),
        udp_row("10.0.3.1:4003", "203.0.113.10:443", 42, Reason::ParentPackets),
        tcp_row("[2001:db8:a:3ff::1]:4004", "[2001:db8::10]:80", flags::ACK, Reason::NewSources),
        udp_row("10.0.4.255:1", "203.0.113.10:2", 1514, Reason::Denied),
        udp_row("[2001:db8:a:5:ffff:ffff:ffff:ffff]:3", "[2001:db8::10]:4", 62, Reason::Denied).shadowed(),
        tcp_row("10.0.6.1:5", "203.0.113.10:6", flags::FIN, Reason::Packets).shadowed(),
        Row::new(tagged, "10.0.4.9:1", "203.0.113.10:7", 6, Reason::Denied),
        Row::new(later_fragment, "10.0.4.9:0", "203.0.113.10:0", 17, Reason::Denied),
        Row::new(ping, "[2001:db8:a:4::9]:0", "[2001:db8::10]:0", 58, Reason::Denied),
    ];
    // What spends the budgets is refused nothing, and so says nothing. The parents' are spent by a neighbour.
    for spender in [
        rows[0].frame.clone(),
        rows[1].frame.clone(),
        rows[2].frame.clone(),
        udp("10.0.3.77:1", "203.0.113.10:1").frame(),
        tcp("[2001:db8:a:377::1]:1", "[2001:db8::10]:1", flags::ACK).frame(),
        rows[7].frame.clone(),
    ] {
        sampling.rig.advance(MILLISECOND + 1);
        assert!(sampling.rig.passes(&spender));
    }
    assert_eq!(sampling.read(), []);
    for row in &rows {
        sampling.rig.advance(MILLISECOND + 1);
        let judged = sampling.rig.send(&row.frame);
        assert_eq!(judged.reason(), row.reason, "{}", row.from);
        assert_eq!(judged.trace.dropped == 0, row.shadow, "{}", row.from);
        assert_eq!(sampling.read(), [row.event(&sampling.rig)], "{}", row.from);
    }
}

/// Who has no entry is sampled too.
#[test]
fn an_event_tells_of_the_shared_budget_of_a_full_set() {
    let mut sampling = Sampling::new(1, 1000);
    for source in 0..WAYS as u32 {
        assert_eq!(sampling.rig.reason(&ack(v4(source))), Reason::Conforming);
    }
    let row = udp_row("10.0.0.200:1", "203.0.113.10:2", 64, Reason::Overflow);
    for _ in 0..OVERFLOW_SOURCES {
        assert_eq!(sampling.rig.reason(&row.frame), Reason::TableFull);
    }
    assert_eq!(sampling.rig.reason(&row.frame), Reason::Overflow);
    assert_eq!(sampling.read(), [row.event(&sampling.rig)]);
}

/// Frames that are refused always, but for a few: for their packets, by a rule, and by a rule in shadow.
fn refused_frames() -> [BytesMut; 6] {
    [v4(1), v4(0x401), v4(0x501), v6(1), v6(4), v6(5)].map(ack)
}

/// Floods that begin after an hour of rest, under a clock that steps: no second has more events than asked for and those
/// of two steps of the clock, wherever it begins.
#[test]
fn events_stay_below_the_number_asked_for_in_every_second() {
    const FLOODS: u64 = 2;
    const FLOOD_S: u64 = 2;
    let mut random = Random::announced(21);
    for per_second in [10, 100, 10_000] {
        let two_steps = (per_second * 2 * CLOCK_TICK_NS).div_ceil(SECOND);
        let mut sampling = Sampling::new(1000, per_second as u32);
        let frames = refused_frames();
        let mut events = Vec::new();
        for _ in 0..FLOODS {
            sampling.rig.advance(3600 * SECOND);
            let before = events.len();
            sampling.rig.repeat(&frames[1], 2000);
            events.extend(sampling.read());
            let at_once = (events.len() - before) as u64;
            assert!(at_once > 0, "{per_second}/s: none after an hour without any");
            assert!(at_once <= 1 + two_steps, "{per_second}/s: {at_once} at once");
            for _ in 0..FLOOD_S * SECOND / CLOCK_TICK_NS {
                sampling.rig.advance(CLOCK_TICK_NS);
                for _ in 0..2 + two_steps {
                    sampling.rig.send(&frames[random.index(frames.len())]);
                }
                events.extend(sampling.read());
            }
            let during = (events.len() - before) as u64;
            println!("{per_second}/s: {at_once} at once, {during} in {FLOOD_S} s");
            assert!(during >= FLOOD_S * per_second, "{per_second}/s: only {during} in {FLOOD_S} s");
        }
        let times: Vec<_> = events.iter().map(|event| event.time_ns).collect();
        let (fullest, begin) = fullest_second(&times);
        assert!(
            fullest <= per_second + two_steps,
            "{per_second}/s: {fullest} in the second from {begin} ns on, {two_steps} more at most"
        );
        // The sample is one of all that is refused.
        let kinds: BTreeSet<_> =
            events.iter().map(|event| (event.version, event.reason, event.shadow)).collect();
        assert_eq!(kinds.len(), frames.len(), "{kinds:?}");
        assert_eq!(sampling.rig.counter("events_lost"), 0);
    }
}

/// The most events of any second, and when it begins. The times are in order.
fn fullest_second(times: &[u64]) -> (u64, u64) {
    let mut end = 0;
    let count_from = |(begin, &time): (usize, &u64)| {
        while times.get(end).is_some_and(|&later| later < time + SECOND) {
            end += 1;
        }
        ((end - begin) as u64, time)
    };
    times.iter().enumerate().map(count_from).max().expect("events")
}

#[test]
fn no_events_are_sent_when_none_are_asked_for() {
    let mut sampling = Sampling::new(1000, 0);
    for frame in refused_frames() {
        sampling.rig.advance(SECOND);
        sampling.rig.repeat(&frame, 100);
    }
    assert!(sampling.rig.counted("api", Reason::Denied).packets >= 200);
    assert_eq!(sampling.read(), []);
    assert_eq!(sampling.rig.counter("events_lost"), 0);
}

/// Two programs see the same, and only one of them is read: the other loses what its ring has no room for, counts it,
/// and does everything else alike.
#[test]
fn a_full_ring_loses_events_and_nothing_else() {
    let mut random = Random::announced(22);
    let mut frames = Vec::from(refused_frames());
    // Below its limit one moment, above it the next.
    frames.push(ack(v4(0x701)));
    let (mut attended, mut ignored) = (Sampling::new(1000, 100_000), Sampling::new(1000, 100_000));
    let befores = [attended.rig.snapshot(), ignored.rig.snapshot()];
    let mut events = Vec::new();
    for _ in 0..20 {
        for sampling in [&mut attended, &mut ignored] {
            sampling.rig.advance(CLOCK_TICK_NS);
        }
        for packet in 0..1000 {
            let frame = &frames[random.index(frames.len())];
            let judged = [attended.rig.send(frame), ignored.rig.send(frame)];
            assert_eq!(judged[0], judged[1], "packet {packet}");
        }
        events.extend(attended.read());
    }
    let conforming = attended.rig.counted("api", Reason::Conforming).packets;
    assert!(conforming > 1000, "only {conforming} of the packets conformed");
    let kept = ignored.read();
    let lost = ignored.rig.counter("events_lost");
    println!("{} events were sent, the ring kept {}, {lost} were lost", events.len(), kept.len());
    assert_eq!(attended.rig.counter("events_lost"), 0);
    assert!(events.len() > 2 * ROOM, "only {} events", events.len());
    assert_eq!(kept.len(), ROOM);
    assert_eq!(lost as usize, events.len() - ROOM);
    assert!(kept == events[..ROOM], "what was kept is what came first");

    let moved = |sampling: &Sampling, before| {
        let name = |number| sampling.rig.bench().manifest.service_name(number).to_owned();
        let mut lines = sampling.rig.snapshot().moved_since(before, name, frames[0].len() as u64);
        lines.retain(|line| !line.starts_with("events_lost"));
        lines
    };
    assert_eq!(moved(&attended, &befores[0]), moved(&ignored, &befores[1]));

    // There is room again.
    ignored.rig.advance(SECOND);
    let row = tcp_row("10.0.4.1:1", "203.0.113.10:443", flags::ACK, Reason::Denied);
    assert_eq!(ignored.rig.reason(&row.frame), Reason::Denied);
    assert_eq!(ignored.read(), [row.event(&ignored.rig)]);
    assert_eq!(ignored.rig.counter("events_lost"), lost);
}
