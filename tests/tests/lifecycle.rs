//! Daemons come and go; limits stay, as long as they are asked for and no longer.

use std::{fmt::Write as _, fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use detector_common::{
    abi::ABI_VERSION,
    generation::{Generation, Settings},
    hash::Seed,
};
use detector_tests::{
    daemon::Site,
    netns::{may_run, turn},
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, outside_interface, policy},
    traffic::{Flood, Pace, Receiver, Sender},
};
use detector_user::kernel::{
    load::{LoadOptions, load},
    mapped::Access,
    maps::Maps,
};

/// The directory of this version's maps.
fn version(site: &Site<'_>) -> PathBuf {
    site.pins().join(format!("abi-{ABI_VERSION}"))
}

/// The limit of most tests here.
const BURST: u64 = 1000;
const PER_SECOND: u64 = 1000;

fn limit() -> String {
    policy(&format!("packets = {{ rate = \"{PER_SECOND}/s\", burst = {BURST} }}"))
}

fn flood(stage: &Stage, net: Net) -> Result<Flood> {
    let frame = net.flow(Who::Offender).datagram();
    Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(100_000))
}

/// Waits until the program has judged so many more packets of the flood; works without a daemon.
fn more_judged(site: &Site<'_>, net: Net, packets: u64) -> Result<()> {
    let before = site.source(&net.prefix(Who::Offender))?.packets;
    wait_until("the program judges more packets", PATIENCE, || {
        Ok((site.source(&net.prefix(Who::Offender))?.packets >= before + packets).then_some(()))
    })
}

#[test]
fn a_killed_daemon_leaves_the_limits_and_the_next_one_adopts_them_without_a_gap() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &limit())?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let flood = flood(&stage, net)?;
    more_judged(&site, net, 50_000)?;
    for _ in 0..3 {
        daemon.end(libc::SIGKILL)?;
        let (code, status) = site.status()?;
        assert_eq!((code, &status["daemon"]), (11, &false.into()), "degraded: {status}");
        more_judged(&site, net, 50_000)?;
        daemon = site.start(&[&edge_interface(0)], &[])?;
        let log = daemon.log();
        assert!(log.contains("adopted"), "{log}");
        assert!(!log.contains("made anew"), "{log}");
        let (code, status) = site.status()?;
        assert_eq!((code, &status["daemon"]), (0, &true.into()), "enforcing: {status}");
        more_judged(&site, net, 50_000)?;
    }
    flood.stop()?;
    stage.fence(0)?;
    // One gap of a millisecond would be 100 packets too many; one budget forgotten, 1000.
    let offender = site.source(&net.prefix(Who::Offender))?;
    receiver.assert_cut(net.source(Who::Offender), offender.passed(), BURST, PER_SECOND)
}

#[test]
fn sigterm_detaches_and_removes_every_pin() -> Result<()> {
    ends_clean(libc::SIGTERM)
}

#[test]
fn sigint_does_the_same() -> Result<()> {
    ends_clean(libc::SIGINT)
}

fn ends_clean(signal: i32) -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &limit())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert!(stage.is_attached(0)? && site.is_pinned());
    let status = daemon.end(signal)?;
    assert_eq!(status.code(), Some(0));
    assert!(!stage.is_attached(0)?, "nothing is attached");
    assert!(!site.is_pinned(), "nothing is pinned");
    let (code, status) = site.status()?;
    assert_eq!((code, &status["state"]), (10, &"unloaded".into()));
    // Ten times the burst at ten times the rate.
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let from = SocketAddr::new(net.source(Who::Client), 5555);
    let sender = Sender::start(&stage.outside, from, net.service(), Pace::per_second(10_000))?;
    receiver.wait_for(net.source(Who::Client), 10 * BURST)?;
    sender.stop()?;
    Ok(())
}

#[test]
fn keep_goes_on_filtering_until_unload() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &limit())?;
    let daemon = site.start(&[&edge_interface(0)], &["--keep"])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let flood = flood(&stage, net)?;
    more_judged(&site, net, 50_000)?;
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    assert!(stage.is_attached(0)?);
    more_judged(&site, net, 200_000)?;
    flood.stop()?;
    stage.fence(0)?;
    let offender = site.source(&net.prefix(Who::Offender))?;
    receiver.assert_cut(net.source(Who::Offender), offender.passed(), BURST, PER_SECOND)?;

    let (code, out, err) = site.ask(&["unload"])?;
    assert_eq!(code, 0, "{out}{err}");
    assert!(!stage.is_attached(0)? && !site.is_pinned());
    Ok(())
}

#[test]
fn unload_leaves_a_living_daemon_alone_unless_forced() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit())?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let (code, _, err) = site.ask(&["unload"])?;
    assert_eq!(code, 1);
    assert!(err.contains("a daemon runs") && err.contains("--force"), "{err}");
    assert!(stage.is_attached(0)? && site.is_pinned());
    let (code, out, err) = site.ask(&["unload", "--force"])?;
    assert_eq!(code, 0, "{out}{err}");
    assert!(!stage.is_attached(0)? && !site.is_pinned());
    Ok(())
}

#[test]
fn unload_removes_what_another_version_left() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit())?;
    site.start(&[&edge_interface(0)], &[])?.end(libc::SIGKILL)?;
    fs::rename(version(&site), site.pins().join("abi-0")).context("giving pins another version")?;
    let (code, said) = site.refused(&[&edge_interface(0)], &[])?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("abi-0") && said.contains("detector unload --pins"), "{said}");
    assert!(stage.is_attached(0)?, "the limits of the other version go on");
    let (code, answer) = site.ask_json(&["unload"])?;
    assert_eq!((code, &answer["unloaded"]), (0, &true.into()), "{answer}");
    assert_eq!((&answer["interfaces"][0], &answer["versions"][0]), (&"edge0".into(), &"abi-0".into()));
    assert!(!stage.is_attached(0)? && !site.is_pinned());
    Ok(())
}

#[test]
fn a_first_start_that_was_ended_half_way_is_not_adopted() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit())?;
    let directory = version(&site);
    let none = Seed { offsets: [0; 2], multipliers: [0; 2] };
    let drawn = Seed::new([1, 2, 3, 4]);
    // Ended while the program was verified, before the policy was there, and with a policy from `apply` meanwhile.
    for (active, seed) in [(0, none), (0, drawn), (1, none)] {
        fs::create_dir_all(&directory).context("making a directory for pins")?;
        let pins = Some(LoadOptions::pins_in(&directory));
        let half = load(&LoadOptions { pins, ..LoadOptions::isolated(10_000) })?;
        half.maps.settings.write(0, &Settings { active, seed, ..half.maps.settings.read(0) });
        drop(half);
        let daemon = site.start(&[&edge_interface(0)], &[])?;
        let log = daemon.log();
        assert!(log.contains("ended before it had a policy") && !log.contains("adopted=true"), "{log}");
        let settings = Maps::pinned(&directory, Access::Read)?.settings.read(0);
        assert_ne!(settings.seed, seed, "a seed of its own");
        assert!(
            settings.seed.multipliers.iter().all(|multiplier| multiplier & 1 == 1),
            "{:?}",
            settings.seed
        );
        assert_eq!(Generation(settings.active).epoch(), 1, "its policy is the first");
        assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_bad_policy_on_sighup_keeps_the_old_one() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &limit())?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let flood = flood(&stage, net)?;
    let epoch = |site: &Site<'_>| -> Result<_> { Ok(site.status()?.1["policy"]["epoch"].clone()) };
    let before = epoch(&site)?;

    site.write_policy("version = 1\n[[service]]\nname = \"edge\"\nadresses = []\n")?;
    assert_eq!(daemon.reload()?, (0, 1));
    let log = daemon.log();
    assert!(log.contains("policy.toml:4:1") && log.contains("adresses"), "{log}");
    assert_eq!(epoch(&site)?, before);
    more_judged(&site, net, 100_000)?;

    fs::remove_file(site.policy()).context("removing the policy")?;
    assert_eq!(daemon.reload()?, (0, 2), "a missing file is a bad one");
    assert_eq!(epoch(&site)?, before);
    more_judged(&site, net, 100_000)?;
    assert!(daemon.is_running()?);

    site.write_policy(&limit())?;
    assert_eq!(daemon.reload()?, (1, 2), "the next good one is taken");
    assert_ne!(epoch(&site)?, before);
    flood.stop()?;
    stage.fence(0)?;
    let offender = site.source(&net.prefix(Who::Offender))?;
    receiver.assert_cut(net.source(Who::Offender), offender.passed(), BURST, PER_SECOND)?;
    Ok(())
}

#[test]
fn every_interface_is_limited_and_a_successor_lets_go_of_those_it_is_not_given() -> Result<()> {
    let Some(stage) = Stage::in_turn(3)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit())?;
    let names: Vec<String> = (0..3).map(edge_interface).collect();
    let daemon = site.start(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[])?;
    let modes = |site: &Site<'_>| -> Result<String> {
        let (_, status) = site.status()?;
        let mut text = String::new();
        for interface in status["interfaces"].as_array().context("interfaces")? {
            write!(text, "{} {} ", interface["name"], interface["mode"])?;
        }
        Ok(text.replace('"', ""))
    };
    assert_eq!(modes(&site)?, "edge0 native edge1 native edge2 native ");
    let nets = [Net::v4(0), Net::v4(1), Net::v6(2)];
    let mut floods = Vec::new();
    for (link, net) in nets.iter().enumerate() {
        let frame = net.flow(Who::Offender).datagram();
        let interface = outside_interface(link as u8);
        let receiver = Receiver::start(&stage.edge, net.service())?;
        floods.push((Flood::start(&stage.outside, &interface, frame, Pace::per_second(20_000))?, receiver));
    }
    for net in nets {
        more_judged(&site, net, 20 * BURST)?;
    }
    for ((link, net), (flood, receiver)) in nets.iter().enumerate().zip(floods) {
        flood.stop()?;
        stage.fence(link as u8)?;
        let offender = site.source(&net.prefix(Who::Offender))?;
        receiver.assert_cut(net.source(Who::Offender), offender.passed(), BURST, PER_SECOND)?;
    }
    daemon.end(libc::SIGKILL)?;
    let _daemon = site.start(&["edge0", "edge2"], &[])?;
    assert_eq!(modes(&site)?, "edge0 native edge2 native ");
    assert!(stage.is_attached(0)? && !stage.is_attached(1)? && stage.is_attached(2)?);
    Ok(())
}

#[test]
fn jumbo_frames_are_limited_natively() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, 9000)?;
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &policy("bytes = { rate = \"100kB/s\", burst = \"90kB\" }"))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let (_, status) = site.status()?;
    assert_eq!(status["interfaces"][0]["mode"], "native", "{status}");
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let from = SocketAddr::new(net.source(Who::Client), 5555);
    let socket = stage.outside.within(|| std::net::UdpSocket::bind(from))?.context("binding")?;
    for _ in 0..100 {
        socket.send_to(&[0; 8900], net.service()).context("sending a jumbo datagram")?;
    }
    stage.fence(0)?;
    let source = site.source(&net.prefix(Who::Client))?;
    assert_eq!(source.packets, 100, "whole frames, not fragments: {source:?}");
    // Ten frames of 8,942 bytes are in the burst, and one more comes every 89 ms.
    assert!((10..=30).contains(&source.passed()), "{source:?}");
    assert_eq!(receiver.wait_for(net.source(Who::Client), source.passed())?, source.passed());
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_changes_nothing() -> Result<()> {
    let Some(stage) = Stage::in_turn(2)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit())?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let (_, before) = site.status()?;
    let (code, err) = site.refused(&[&edge_interface(1)], &["--metrics", "off"])?;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("another detector daemon runs here"), "{err}");
    let (code, after) = site.status()?;
    assert_eq!((code, &after["policy"], &after["interfaces"]), (0, &before["policy"], &before["interfaces"]));
    assert!(daemon.is_running()? && stage.is_attached(0)? && !stage.is_attached(1)?);
    Ok(())
}

/// A trial goes back by itself: whoever could have done it is dead.
#[test]
fn a_policy_on_trial_is_taken_back_with_the_daemon_dead() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &limit())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let client = net.source(Who::Client);
    let sender =
        Sender::start(&stage.outside, SocketAddr::new(client, 5555), net.service(), Pace::per_second(500))?;
    receiver.wait_for(client, 10)?;

    let path = site.files().join("shut.toml");
    let shut = "[[rule]]\nname = \"shut\"\nsource = [\"0.0.0.0/0\"]\naction = \"drop\"\n";
    fs::write(&path, limit() + shut).context("writing a policy")?;
    let path = path.to_str().context("a path that is text")?;
    let (code, _, said) = site.ask(&["apply", path, "--confirm", "4s"])?;
    assert!(code == 2 && said.contains("--force"), "a rule about everyone: {said}");
    let (code, answer) = site.ask_json(&["apply", path, "--confirm", "4s", "--force"])?;
    assert_eq!((code, &answer["confirm_in_s"]), (0, &4.into()), "{answer}");
    let status = daemon.end(libc::SIGKILL)?;
    assert_eq!(status.code(), None, "killed");

    let is_shut = || Ok((site.reason("denied")? > 10).then_some(()));
    wait_until("the trial drops packets", PATIENCE, is_shut)?;
    let (code, status) = site.status()?;
    assert_eq!((code, &status["policy"]["epoch"]), (11, &2.into()), "{status}");
    assert!(status["policy"]["confirm_in_s"].is_u64(), "{status}");
    let (code, _, said) = site.ask(&["apply", path, "--force"])?;
    assert!(code == 1 && said.contains("waits to be confirmed"), "{said}");

    let before = receiver.from(client);
    receiver.wait_for(client, before + 100)?;
    let (_, status) = site.status()?;
    assert_eq!(status["policy"]["epoch"], 1, "{status}");
    assert!(status["policy"]["confirm_in_s"].is_null(), "{status}");
    let (code, _, said) = site.ask(&["confirm"])?;
    assert!(code == 1 && said.contains("nothing waits"), "{said}");
    sender.stop()?;

    // A successor takes over, writes it down and goes on.
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let (code, rules) = site.ask_json(&["rules"])?;
    assert_eq!((code, &rules["rules"]), (0, &serde_json::json!([])), "{rules}");
    let (code, answer) = site.ask_json(&["apply", path, "--confirm", "1h", "--force"])?;
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = site.ask_json(&["rollback"])?;
    assert_eq!(code, 0, "{answer}");
    assert!(answer["taken_back"].as_u64() > answer["version"].as_u64(), "{answer}");
    let (code, answer) = site.ask_json(&["apply", path, "--confirm", "1h", "--force"])?;
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = site.ask_json(&["confirm"])?;
    assert_eq!((code, &answer["confirmed"]), (0, &true.into()), "{answer}");
    assert_eq!(site.status()?.1["policy"]["epoch"], answer["epoch"]);
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["rules"][0]["name"], "shut", "{rules}");
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    Ok(())
}
