//! Real traffic through the program on veth pairs, natively: who stays below the limit notices nothing, who does not
//! gets the limit and not one packet more.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use detector_tests::{
    daemon::Site,
    https::Https,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, outside_interface, policy},
    traffic::{Flood, Pace, Receiver, Sender, assert_cut},
};
use serde_json::Value;

/// What the promise of the next test is about.
const PROMISED_RATE: f64 = 1e6;

#[test]
fn a_million_packets_a_second_get_their_limit_and_a_second_source_loses_nothing() -> Result<()> {
    let Some(stage) = Stage::in_turn(2)? else { return Ok(()) };
    let (flooded, quiet) = (Net::v4(0), Net::v4(1));
    let site = Site::new(&stage.edge, &policy("packets = { rate = \"100/s\", burst = 100 }"))?;
    let _daemon = site.start(&[&edge_interface(0), &edge_interface(1)], &[])?;
    let receiver = Receiver::start(&stage.edge, flooded.service())?;
    let beside = Receiver::start(&stage.edge, quiet.service())?;

    let steady = |net: Net| {
        let client = (net.source(Who::Client), 5555).into();
        Sender::start(&stage.outside, client, net.service(), Pace::per_second(80))
    };
    let (neighbour, client) = (steady(flooded)?, steady(quiet)?);
    let offender = flooded.source(Who::Offender);
    let frame = flooded.flow(Who::Offender).datagram();
    let flood = Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(1_200_000))?;
    // The burst, and nine seconds of the rate.
    receiver.wait_for(offender, 1000)?;
    let sent = flood.stop()?;
    let (neighbour, client) = (neighbour.stop()?, client.stop()?);
    stage.fence(0)?;
    stage.fence(1)?;

    let judged = site.source(&flooded.prefix(Who::Offender))?;
    let judged_rate = judged.packets as f64 / sent.elapsed.as_secs_f64();
    println!("the program judged {} packets of the flood, {judged_rate:.0}/s", judged.packets);
    receiver.assert_cut(offender, judged.passed(), 100, 100)?;

    // On a link of its own nothing is lost at all.
    let judged = site.source(&quiet.prefix(Who::Client))?;
    assert_eq!((judged.packets, judged.dropped), (client.packets, 0));
    assert_eq!(beside.wait_for(quiet.source(Who::Client), client.packets)?, client.packets);

    // On the link of the flood, the veth pair drops what finds its queue full, which is not ours: of what comes to the
    // program, nothing is lost.
    let judged = site.source(&flooded.prefix(Who::Client))?;
    println!("beside the flood, {} of {} packets came to the program", judged.packets, neighbour.packets);
    assert!(judged.packets > 0 && judged.packets <= neighbour.packets, "{judged:?}");
    assert_eq!(judged.dropped, 0, "{judged:?}");
    let came = receiver.wait_for(flooded.source(Who::Client), judged.packets)?;
    assert_eq!(came, judged.packets);

    if judged_rate < PROMISED_RATE {
        println!(
            "skipped: this machine makes {judged_rate:.0} packets a second, the promise is about {PROMISED_RATE:.0}"
        );
    }
    Ok(())
}

#[test]
fn curl_keeps_working_beside_an_offender_over_ipv4() -> Result<()> {
    curl_beside_an_offender(Net::v4(0))
}

#[test]
fn curl_keeps_working_beside_an_offender_over_ipv6() -> Result<()> {
    curl_beside_an_offender(Net::v6(0))
}

#[test]
fn curl_keeps_working_beside_an_offender_in_a_vlan() -> Result<()> {
    curl_beside_an_offender(Net::vlan(0))
}

/// Requests that the client makes at least, whatever the machine does beside.
const REQUESTS_MIN: u32 = 10;

fn curl_beside_an_offender(net: Net) -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    if net.is_tagged() {
        stage.tag(0)?;
    }
    let https = Https::start(&stage.edge, &[net.service()])?;
    let site = Site::new(&stage.edge, &policy("packets = { rate = \"2000/s\", burst = 2000 }"))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;

    let frame = net.flow(Who::Offender).datagram();
    let flood = Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(100_000))?;
    let requests = request_until(&https, &stage, net, Duration::from_secs(4))?;
    flood.stop()?;
    stage.fence(0)?;
    println!("{requests} requests beside the flood");

    let offender = site.source(&net.prefix(Who::Offender))?;
    assert!(offender.dropped > 0, "the offender was cut: {offender:?}");
    receiver.assert_cut(net.source(Who::Offender), offender.passed(), 2000, 2000)?;
    let client = site.source(&net.prefix(Who::Client))?;
    assert_eq!(client.dropped, 0, "{client:?}");
    assert_eq!(client.connections, u64::from(requests), "{client:?}");
    let tagged = site.metrics()?.sum("detector_frames_total", &[("kind", "vlan")]);
    assert_eq!(tagged >= offender.packets, net.is_tagged(), "{tagged} frames had a tag");
    Ok(())
}

/// Makes requests one after the other for a time; all have to succeed.
fn request_until(https: &Https, stage: &Stage, net: Net, time: Duration) -> Result<u32> {
    let start = Instant::now();
    let mut requests = 0;
    while start.elapsed() < time || requests < REQUESTS_MIN {
        https.request(&stage.outside, net.source(Who::Client), net.service(), 30)?;
        requests += 1;
    }
    Ok(requests)
}

#[test]
fn a_syn_flood_gets_its_connections_and_curl_beside_it_too() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let https = Https::start(&stage.edge, &[net.service()])?;
    let site = Site::new(&stage.edge, &policy("connections = { rate = \"100/s\", burst = 400 }"))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;

    let frame = net.flow(Who::Offender).syn();
    let flood = Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(50_000))?;
    let requests = request_until(&https, &stage, net, Duration::from_secs(4))?;
    let sent = flood.stop()?;
    stage.fence(0)?;
    println!("{requests} requests beside the flood");

    let offender = site.source(&net.prefix(Who::Offender))?;
    // The offender's own stack answers what the edge sends it with resets: no connections, so none is dropped.
    let passed = offender.connections - offender.dropped;
    assert_cut(passed, sent.elapsed, 400, 100);
    assert_eq!(site.source(&net.prefix(Who::Client))?.dropped, 0);
    Ok(())
}

#[test]
fn reloads_under_traffic_drop_nothing_below_the_limit() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    // Both leave the sender room; everything else about them differs, so that each reload changes class and rules.
    let policies = [
        policy("packets = { rate = \"2000/s\", burst = 2000 }"),
        policy("packets = { rate = \"4000/s\", burst = 1000 }\nbytes = \"1GB/s\"")
            + "\n[[rule]]\nname = \"other\"\nsource = [\"192.0.2.0/24\"]\naction = \"drop\"\n",
    ];
    let site = Site::new(&stage.edge, &policies[0])?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let client = (net.source(Who::Client), 5555).into();
    let sender = Sender::start(&stage.outside, client, net.service(), Pace::per_second(1000))?;

    let start = Instant::now();
    let mut reloads = 0;
    while start.elapsed() < Duration::from_secs(5) || reloads < 10 {
        site.write_policy(&policies[(reloads + 1) % 2])?;
        if reloads % 4 < 2 {
            let (_applied, failed) = daemon.reload()?;
            ensure!(failed == 0, "a good policy was refused:\n{}", daemon.log());
        } else {
            let (code, out, err) = site.ask(&["apply", &site.policy().to_string_lossy()])?;
            ensure!(code == 0, "apply exits with {code}: {out}{err}");
        }
        reloads += 1;
    }
    let sent = sender.stop()?;
    stage.fence(0)?;

    println!(
        "{reloads} reloads in {:.1} s, {} packets at {:.0}/s",
        sent.elapsed.as_secs_f64(),
        sent.packets,
        sent.rate()
    );
    let judged = site.source(&net.prefix(Who::Client))?;
    assert_eq!((judged.packets, judged.dropped), (sent.packets, 0));
    assert_eq!(receiver.wait_for(net.source(Who::Client), sent.packets)?, sent.packets);
    assert_eq!(site.reason("unjudged")? + site.reason("no_policy")?, 0);
    Ok(())
}

#[test]
fn reloads_do_not_refill_a_spent_budget() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let limits = "packets = { rate = \"1000/s\", burst = 1000 }";
    let policies = [
        policy(limits),
        policy(limits) + "\n[[rule]]\nname = \"other\"\nsource = [\"192.0.2.0/24\"]\naction = \"drop\"\n",
    ];
    let site = Site::new(&stage.edge, &policies[0])?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let frame = net.flow(Who::Offender).datagram();
    let flood = Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(200_000))?;
    let offender = net.source(Who::Offender);
    let stop = AtomicBool::new(false);
    let (reloads, flooded) = thread::scope(|scope| {
        let reloading = scope.spawn(|| -> Result<usize> {
            let mut reloads = 0;
            while !stop.load(Ordering::Relaxed) || reloads < 5 {
                site.write_policy(&policies[(reloads + 1) % 2])?;
                daemon.reload()?;
                reloads += 1;
            }
            Ok(reloads)
        });
        // The burst, and four seconds of the rate.
        let flooded = receiver.wait_for(offender, 5000);
        stop.store(true, Ordering::Relaxed);
        (reloading.join().expect("a thread that returns errors"), flooded)
    });
    let reloads = reloads?;
    flooded?;
    flood.stop()?;
    stage.fence(0)?;
    println!("{reloads} reloads");
    let judged = site.source(&net.prefix(Who::Offender))?;
    receiver.assert_cut(offender, judged.passed(), 1000, 1000)
}

/// Sampled drops end where an operator reads them, in the daemon's log.
#[test]
fn the_daemon_logs_a_sample_of_what_is_dropped() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &policy("packets = { rate = \"1/h\", burst = 4 }"))?;
    let mut run = site.run_command(&[&edge_interface(0)], &["--json", "--events", "100"])?;
    let daemon = site.start_with(run.env("DETECTOR_LOG", "trace"))?;
    let flow = net.flow(Who::Offender);
    let pace = Pace::per_second(10_000);
    let flood = Flood::start(&stage.outside, &outside_interface(0), flow.datagram(), pace)?;
    let events = wait_until("some drops are logged", PATIENCE, || {
        let events = logged_drops(&daemon.log());
        Ok((events.len() >= 10).then_some(events))
    })?;
    flood.stop()?;
    let interface = stage.edge.index_of(&edge_interface(0))?;
    for event in events {
        assert_eq!(event["source"], flow.from.ip().to_string(), "{event}");
        assert_eq!(event["source_port"], flow.from.port(), "{event}");
        assert_eq!(event["destination"], flow.to.ip().to_string(), "{event}");
        assert_eq!(event["destination_port"], flow.to.port(), "{event}");
        assert_eq!(event["protocol"], libc::IPPROTO_UDP, "{event}");
        assert_eq!(event["bytes"], flow.datagram().len(), "{event}");
        assert_eq!(event["interface"], interface, "{event}");
        assert_eq!(event["reason"], "packets", "{event}");
        assert_eq!(event["shadow"], false, "{event}");
        // The policy's only service.
        assert_eq!(event["service"], "edge", "{event}");
    }
    let received = site.metrics()?.sum("detector_drop_events_total", &[]);
    assert!(received >= 10, "{received} events in the metrics");
    Ok(())
}

/// The sampled drops of a daemon's log of objects. What is being written, and other lines, are left out.
fn logged_drops(log: &str) -> Vec<Value> {
    let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects.filter(|object| object["message"] == "dropped").collect()
}
