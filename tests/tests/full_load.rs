//! Policies that replace each other under as much traffic as this machine makes: no packet is judged by anything between
//! two of them, and what the program counted is what the kernel counted around it.

use std::{collections::BTreeMap, fmt::Write as _, fs, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, outside_interface, policy},
    traffic::{Flood, Pace, Receiver},
};
use serde_json::Value;

/// One family on each link, each with a source that every policy allows and one that every policy drops.
const NETS: [Net; 2] = [Net::v4(0), Net::v6(1)];

/// Times that a policy is applied.
const CHANGES: usize = 51;

/// Three take turns in the two places that the kernel has. What they do with the four sources is the same, and all else is
/// not: which rule decides, by a prefix how long, in what order, and what would befall who misses it.
fn policies() -> [String; 3] {
    let profiles = ["packets = \"1G/s\"", "packets = { rate = \"1/h\", burst = 1 }", ""];
    [0, 1, 2].map(|number| {
        let sources = |who: Who| NETS.map(|net| format!("\"{}\"", net.prefix(who))).join(", ");
        let around = "\"198.18.0.0/24\", \"2001:db8:1::/48\"".to_owned();
        let (allowed, dropped) = match number {
            0 => (sources(Who::Client), sources(Who::Offender)),
            1 => (sources(Who::Client), around),
            _ => (around, sources(Who::Offender)),
        };
        let mut others = String::new();
        for other in 0..2000 {
            let _ = write!(others, "\"10.{}.{}.0/24\", ", other / 200 + 20 * number, other % 200);
        }
        let rule = |name: &str, sources: &str, action: &str| {
            format!("[[rule]]\nname = \"{name}{number}\"\nsource = [{sources}]\naction = {action}\n")
        };
        let mut rules = [
            rule("others", &others, "{ limit = \"each\" }"),
            rule("friends", &allowed, "\"allow\""),
            rule("foes", &dropped, "\"drop\""),
        ];
        rules.rotate_left(number);
        policy(profiles[number]) + &rules.concat()
    })
}

/// What the program and the kernel counted so far.
#[derive(Debug)]
struct Counts {
    /// Frames that came to the interfaces.
    received: u64,
    /// Frames that the program judged, by reason.
    reasons: BTreeMap<String, u64>,
    /// Datagrams that came to a socket that had no room for them.
    no_room: [u64; 2],
}

impl Counts {
    /// While nothing comes: all of them are of one moment.
    fn take(site: &Site<'_>, stage: &Stage) -> Result<Self> {
        wait_until("nothing comes any more", PATIENCE, || {
            let before = received(stage)?;
            let (_, status) = site.status()?;
            let no_room = no_room(stage)?;
            let reasons = status["reasons"].as_object().context("reasons")?.iter();
            let reasons = reasons.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default()));
            let counts = Self { received: before, reasons: reasons.collect(), no_room };
            Ok((received(stage)? == before).then_some(counts))
        })
    }

    fn judged(&self) -> u64 {
        self.reasons.values().sum()
    }
}

/// Frames that the driver handed to XDP on both links. (How many it refused before, since a queue was full, it counts without
/// care for senders on several CPUs, so what was sent is no more than a bound.)
fn received(stage: &Stage) -> Result<u64> {
    let links = [0, 1].map(|link| {
        let shown = stage.edge.ip(&format!("-s -j link show dev {}", edge_interface(link)))?;
        let shown: Value = serde_json::from_str(&shown).context("JSON of ip")?;
        shown[0]["stats64"]["rx"]["packets"].as_u64().context("packets received")
    });
    links.into_iter().sum()
}

/// Datagrams that the sockets of the edge lost, of each family.
fn no_room(stage: &Stage) -> Result<[u64; 2]> {
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    let (v4, v6) = stage.edge.within(|| (read("snmp"), read("snmp6")))?;
    let (v4, v6) = (v4.context("reading counters")?, v6.context("reading counters")?);
    // A line of names, and one of numbers.
    let mut udp = v4.lines().filter(|line| line.starts_with("Udp: ")).map(str::split_whitespace);
    let (names, numbers) = (udp.next().context("names")?, udp.next().context("numbers")?);
    let v4 = names.zip(numbers).find(|(name, _)| *name == "InErrors").context("errors of UDP")?.1;
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Udp6InErrors")).context("errors of UDP")?;
    Ok([v4.parse()?, v6.trim().parse()?])
}

#[test]
fn no_packet_is_misjudged_while_policies_replace_each_other_under_full_load() -> Result<()> {
    let Some(stage) = Stage::in_turn(2)? else { return Ok(()) };
    let policies = policies();
    let site = Site::new(&stage.edge, &policies[0])?;
    let _daemon = site.start(&[&edge_interface(0), &edge_interface(1)], &[])?;
    let mut files = Vec::new();
    for (number, text) in policies.iter().enumerate() {
        let path = site.files().join(format!("{number}.toml"));
        fs::write(&path, text).context("writing a policy")?;
        files.push(path.to_string_lossy().into_owned());
    }
    let receivers = NETS.map(|net| Receiver::start(&stage.edge, net.service()));
    let [v4, v6] = receivers;
    let receivers = [v4?, v6?];
    let before = Counts::take(&site, &stage)?;

    let mut floods = Vec::new();
    for (link, net) in NETS.iter().enumerate() {
        for who in [Who::Client, Who::Offender] {
            let (frame, interface) = (net.flow(who).datagram(), outside_interface(link as u8));
            floods.push(Flood::start(&stage.outside, &interface, frame, Pace::per_second(2_000_000))?);
        }
    }
    let sent = || floods.iter().map(Flood::packets).collect::<Vec<_>>();
    let mut applied = 0;
    while applied < CHANGES {
        applied += 1;
        let before = sent();
        let (code, out, err) = site.ask(&["apply", &files[applied % files.len()]])?;
        ensure!(code == 0, "apply exits with {code}: {out}{err}");
        let after = sent();
        let went_on = |before: &[u64], now: &[u64]| before.iter().zip(now).filter(|(b, n)| n > b).count();
        assert!(went_on(&before, &after) > 0, "nothing was sent meanwhile: {before:?}, {after:?}");
        // Each of them has its packets judged by each policy.
        wait_until("every flood goes on", PATIENCE, || {
            Ok((went_on(&after, &sent()) == after.len()).then_some(()))
        })?;
    }
    let mut total = 0;
    for flood in floods {
        total += flood.stop()?.packets;
    }
    stage.fence(0)?;
    stage.fence(1)?;
    let after = Counts::take(&site, &stage)?;

    let judged = after.judged() - before.judged();
    println!("{applied} policies; {total} packets sent, {judged} judged");
    assert_eq!(after.received - before.received, judged, "every frame that came was judged once: {after:?}");
    let mut sums = [0, 0];
    for (place, (net, receiver)) in NETS.iter().zip(&receivers).enumerate() {
        let [client, offender] = [Who::Client, Who::Offender].map(|who| site.source(&net.prefix(who)));
        let (client, offender) = (client?, offender?);
        println!("{client:?}, {offender:?}");
        assert!(client.packets > 10_000 && offender.packets > 10_000, "hardly any load");
        assert_eq!(client.dropped, 0, "a source that every policy allows: {client:?}");
        assert_eq!(offender.passed(), 0, "a source that every policy drops: {offender:?}");
        let no_room = after.no_room[place] - before.no_room[place];
        let address: IpAddr = net.source(Who::Client);
        let arrived = receiver.wait_for(address, client.packets - no_room)?;
        assert_eq!(arrived + no_room, client.packets, "what passed came to the socket, and nothing else");
        assert_eq!(receiver.from(net.source(Who::Offender)), 0);
        sums[0] += client.packets;
        sums[1] += offender.packets;
    }
    assert!(sums[0] + sums[1] <= total, "{sums:?} of {total} sent");
    let of_service = ["allowed", "denied"].map(|reason| after.reasons[reason]);
    assert_eq!(of_service, sums, "{after:?}");
    let others: Vec<_> =
        after.reasons.iter().filter(|(_, count)| **count > 0).map(|(name, _)| name).collect();
    let expected = ["allowed", "denied", "neighbour_discovery", "no_service", "not_ip"];
    assert!(others.iter().all(|reason| expected.contains(&reason.as_str())), "{after:?}");
    Ok(())
}
