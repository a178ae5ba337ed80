//! Pins outlive daemons, interfaces and network namespaces, and what is read from them stays true.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use detector_tests::{
    bpf::{Action, Mode, Program},
    daemon::{Daemon, Site},
    process::{PATIENCE, wait_until},
    stage::{MTU, Stage, policy},
};
use detector_user::kernel::pins::Pins;
use serde_json::Value;

const LIMIT: &str = "packets = { rate = \"1000/s\", burst = 1000 }";

/// Name, place and exit code of `status` where one interface is pinned.
fn only_interface(site: &Site<'_>) -> Result<(i32, Value, Value)> {
    let (code, status) = site.status()?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    assert_eq!(interfaces.len(), 1, "{status}");
    Ok((code, interfaces[0]["name"].clone(), interfaces[0]["place"].clone()))
}

fn wait_for_log(daemon: &Daemon<'_>, text: &str) -> Result<()> {
    wait_until(&format!("the log says {text:?}"), PATIENCE, || Ok(daemon.log().contains(text).then_some(())))
        .with_context(|| daemon.log())
}

fn epoch(site: &Site<'_>) -> Result<Value> {
    Ok(site.status()?.1["policy"]["epoch"].clone())
}

#[test]
fn links_of_another_namespace_are_told_and_left_alone() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let outside = site.seen_from(&stage.outside, &policy(LIMIT))?;
    let number = stage.edge.index_of("edge0")?;
    assert_eq!(number, stage.outside.index_of("out0")?, "the number alone would name the wrong interface");
    let daemon = site.start(&["edge0"], &[])?;
    assert_eq!(only_interface(&site)?, (0, "edge0".into(), "here".into()));
    assert_eq!(only_interface(&outside)?, (0, Value::Null, "other_namespace".into()));
    let (_, text, _) = outside.ask(&["status"])?;
    assert!(text.contains(&format!("interface {number}, native, in another network namespace")), "{text}");
    assert!(!text.contains("out0"), "{text}");

    daemon.end(libc::SIGKILL)?;
    let program = stage.program(0)?;
    let (code, said) = outside.refused(&["out0"], &[])?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another network namespace") && said.contains("unload --pins"), "{said}");
    assert!(program.is_some() && stage.program(0)? == program, "the limits of the other namespace go on");
    assert!(!stage.outside.ip("link show dev out0")?.contains("xdp"));

    let (code, out, err) = outside.ask(&["unload"])?;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("interface {number} of another network namespace")), "{out}");
    assert!(!stage.is_attached(0)? && !site.is_pinned());
    Ok(())
}

#[test]
fn links_of_a_namespace_that_ended_are_gone_and_in_nobodys_way() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    {
        let ended = Stage::new(1, MTU)?;
        let other = site.seen_from(&ended.edge, &policy(LIMIT))?;
        other.start(&["edge0"], &[])?.end(libc::SIGKILL)?;
        assert_eq!(only_interface(&site)?, (11, Value::Null, "other_namespace".into()));
    }
    // The kernel takes a namespace down some time after its last user.
    wait_until("the link is dead", PATIENCE, || Ok((only_interface(&site)?.2 == "gone").then_some(())))?;
    let (code, status) = site.status()?;
    assert_eq!((code, &status["state"]), (10, &"detached".into()), "{status}");
    let _daemon = site.start(&["edge0"], &[])?;
    assert_eq!(only_interface(&site)?, (0, "edge0".into(), "here".into()));
    Ok(())
}

#[test]
fn new_interfaces_come_before_the_policy_and_the_policy_before_adopted_ones() -> Result<()> {
    let Some(stage) = Stage::in_turn(2)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    site.start(&["edge0"], &[])?.end(libc::SIGKILL)?;
    let (program, before) = (stage.program(0)?, epoch(&site)?);
    let as_before = |said: &str| -> Result<()> {
        assert!(program.is_some() && stage.program(0)? == program, "the old program goes on: {said}");
        assert_eq!(epoch(&site)?, before, "under the old policy: {said}");
        Ok(())
    };

    // A new interface that refuses: before the policy is touched.
    let foreign = Program::new(Action::Pass)?;
    let attach = || foreign.attach(detector_tests::netns::index_of("edge1")?, Mode::Native);
    let attached = stage.edge.within(attach)??;
    let (code, said) = site.refused(&["edge0", "edge1"], &[])?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another XDP program is attached to edge1"), "{said}");
    as_before(&said)?;
    drop(attached);
    wait_until("the foreign program is gone", PATIENCE, || Ok((!stage.is_attached(1)?).then_some(())))?;

    // A policy that is refused: before the adopted link is touched, and the new interface is let go again.
    let applying = fs::File::open(site.pins().join("lock-policy")).context("opening the lock of policies")?;
    applying.lock().context("holding the lock of policies")?;
    let (code, said) = site.refused(&["edge0", "edge1"], &[])?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is changing the policy"), "{said}");
    as_before(&said)?;
    assert!(said.contains("edge1") && !stage.is_attached(1)?, "attached and let go: {said}");
    let (code, _, err) = site.ask(&["apply", &site.policy().to_string_lossy()])?;
    assert!(code == 1 && err.contains("is changing the policy"), "{err}");
    as_before(&err)?;
    drop(applying);

    let daemon = site.start(&["edge0", "edge1"], &[])?;
    let log = daemon.log();
    let at = |text: &str| log.find(text).with_context(|| format!("{text:?} is missing in {log}"));
    assert!(at("interface=edge1")? < at("applied the policy")?, "{log}");
    assert!(at("applied the policy")? < at("interface=edge0")?, "{log}");
    assert!(stage.program(0)? != program && stage.program(0)? == stage.program(1)?);
    Ok(())
}

#[test]
fn an_unloaded_daemon_leaves_the_pins_of_its_successor() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let mut unloaded = site.start(&["edge0"], &[])?;
    assert_eq!(site.ask(&["unload", "--force"])?.0, 0);
    wait_for_log(&unloaded, "was unloaded under this daemon")?;
    let attached = |site: &Site<'_>| -> Result<u64> {
        Ok(site.metrics()?.sum("detector_interface_attached", &[("interface", "edge0")]))
    };
    assert_eq!(attached(&site)?, 0);

    let mut successor = site.start(&["edge0"], &["--metrics", "off", "--api", "off"])?;
    let before = epoch(&site)?;
    assert_eq!(attached(&site)?, 0, "what is attached is the successor's");
    assert_eq!(unloaded.reload()?, (0, 1), "it has no policy to replace any more: {}", unloaded.log());
    assert_eq!(epoch(&site)?, before);
    assert_eq!(unloaded.end(libc::SIGTERM)?.code(), Some(0));
    assert!(successor.is_running()? && stage.is_attached(0)?);
    assert_eq!(only_interface(&site)?, (0, "edge0".into(), "here".into()));
    let (code, said) = site.refused(&["edge0"], &["--metrics", "off"])?;
    assert!(code == 1 && said.contains("another detector daemon runs here"), "its lock too: {said}");
    Ok(())
}

/// So many that removing them takes longer than to start.
const MANY: usize = 2000;

#[test]
fn who_starts_while_another_unloads_keeps_its_pins() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let pins = Pins::new(site.pins());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let starting = scope.spawn(|| -> Result<u32> {
            let mut starts = 0;
            while !is_over.load(Ordering::Relaxed) {
                let lock = pins.prepare()?;
                let directory = pins.directory();
                let count = || fs::read_dir(&directory).map_or(0, Iterator::count);
                let found = count();
                assert!(found == 0 || found == MANY, "{found} pins of {MANY} are left");
                for number in found..MANY {
                    let pin = directory.join(format!("pin{number}"));
                    std::os::unix::fs::symlink("nothing", pin).context("making a pin")?;
                }
                // Held for a moment, so that an unload meets it, and then left alone, so that one gets through.
                thread::sleep(Duration::from_millis(2));
                assert!(lock.is_current() && count() == MANY, "removed under their holder");
                drop(lock);
                starts += 1;
                thread::sleep(Duration::from_millis(2));
            }
            Ok(starts)
        });
        let unloads: Result<Vec<_>> = (0..50).map(|_| site.ask(&["unload"])).collect();
        is_over.store(true, Ordering::Relaxed);
        let starts = starting.join().map_err(|_| anyhow::anyhow!("a start was disturbed"))??;
        let mut unloaded = 0;
        for (code, out, err) in unloads? {
            assert!(code == 0 || err.contains("a daemon runs"), "{out}{err}");
            unloaded += u32::from(code == 0);
        }
        println!("{starts} starts, {unloaded} times unloaded");
        assert!(starts > 1 && unloaded > 1, "{starts} starts, {unloaded} times unloaded");
        Ok(())
    })
}

#[test]
fn a_deleted_interface_is_told_by_status_metrics_and_log() -> Result<()> {
    let Some(stage) = Stage::in_turn(2)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let mut daemon = site.start(&["edge0", "edge1"], &[])?;
    let attached = |interface: &str| -> Result<u64> {
        Ok(site.metrics()?.sum("detector_interface_attached", &[("interface", interface)]))
    };
    assert_eq!((attached("edge0")?, attached("edge1")?), (1, 1));
    let number = stage.edge.index_of("edge1")?;
    stage.edge.ip("link del edge1")?;
    let (code, status) = site.status()?;
    assert_eq!((code, &status["state"]), (11, &"enforcing".into()), "{status}");
    let gone = &status["interfaces"][1];
    assert_eq!((&gone["index"], &gone["place"]), (&number.into(), &"gone".into()), "{status}");
    assert!(status["degraded"][0].as_str().is_some_and(|text| text.contains("was deleted")), "{status}");
    assert_eq!((attached("edge0")?, attached("edge1")?), (1, 0));
    wait_for_log(&daemon, "the interface was deleted")?;
    let log = daemon.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(told.len() == 1 && told[0].contains("subject=edge1"), "once, of the one: {log}");
    assert_eq!(daemon.reload()?, (1, 0), "it goes on: {}", daemon.log());

    stage.edge.ip("link del edge0")?;
    let (code, status) = site.status()?;
    assert_eq!((code, &status["state"]), (10, &"detached".into()), "{status}");
    assert!(daemon.is_running()?);

    // Made anew, edge0 with the number it had, so that its pin would have the same name.
    let old = &status["interfaces"][0]["index"];
    stage.edge.ip(&format!("link add edge0 index {old} type veth peer name back0"))?;
    stage.link(1, MTU)?;
    assert_ne!(stage.edge.index_of("edge1")?, number);
    assert_eq!(site.status()?.0, 10, "nothing revives a dead link");
    daemon.end(libc::SIGKILL)?;
    let daemon = site.start(&["edge0", "edge1"], &[])?;
    let (code, status) = site.status()?;
    assert_eq!((code, &status["degraded"]), (0, &Value::Array(Vec::new())), "{status}");
    let names: Vec<_> = status["interfaces"].as_array().context("interfaces")?.iter().collect();
    assert!(names.len() == 2 && names.iter().all(|interface| interface["place"] == "here"), "{status}");
    assert!(stage.is_attached(0)? && stage.is_attached(1)?);
    let log = daemon.log();
    assert_eq!(
        log.lines().filter(|line| line.contains("attached") && line.contains("adopted=false")).count(),
        2
    );
    Ok(())
}

#[test]
fn an_interface_named_twice_is_attached_once() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    for _ in 0..2 {
        // The second time over the pin of the first.
        let daemon = site.start(&["edge0", "edge0"], &[])?;
        assert_eq!(only_interface(&site)?, (0, "edge0".into(), "here".into()));
        assert_eq!(site.metrics()?.sum("detector_interface_attached", &[]), 1);
        daemon.end(libc::SIGKILL)?;
    }
    Ok(())
}
