//! What `detector` says, with which exit code, and that what it refuses leaves nothing behind.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result};
use detector_tests::{
    bpf::{Action, Mode, Program},
    daemon::{Site, answer, binary},
    netns::index_of,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, outside_interface, policy},
    traffic::{Flood, Pace},
};
use serde_json::Value;

const LIMIT: &str = "packets = { rate = \"1000/s\", burst = 1000 }";

/// A sentence for people: one of errors, on one line unless it shows a place in a file, with what is to be in it.
#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    assert!(said.contains("error"), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
}

#[track_caller]
fn assert_nothing_left(stage: &Stage, site: &Site<'_>, links: u8) -> Result<()> {
    for link in 0..links {
        assert!(!stage.is_attached(link)?, "{} has a program", edge_interface(link));
    }
    assert!(!site.is_pinned(), "{} exists", site.pins().display());
    Ok(())
}

#[test]
fn a_missing_interface_is_refused_before_anything_is_touched() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let (code, said) = site.refused(&["edge0", "edge7"], &[])?;
    assert_eq!(code, 2, "{said}");
    assert_says(&said, &["edge7", "lo, edge0"]);
    assert_nothing_left(&stage, &site, 1)
}

#[test]
fn a_foreign_program_stays_and_the_other_interfaces_are_let_go() -> Result<()> {
    let Some(stage) = Stage::in_turn(2)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let foreign = Program::new(Action::Pass)?;
    for mode in [Mode::Native, Mode::Generic] {
        let attach = || index_of("edge1").and_then(|index| foreign.attach(index, mode));
        let attached = stage.edge.within(attach)??;
        let (code, said) = site.refused(&["edge0", "edge1"], &[])?;
        assert_eq!(code, 1, "{said}");
        assert_says(&said, &["another XDP program is attached to edge1", "ip -details link show dev edge1"]);
        assert!(stage.is_attached(1)?, "the foreign program is still there");
        assert_nothing_left(&stage, &site, 1)?;
        drop(attached);
        // A link that its last holder lets go is detached a moment later.
        wait_until("the foreign program is gone", PATIENCE, || Ok((!stage.is_attached(1)?).then_some(())))?;
    }
    let _daemon = site.start(&["edge0", "edge1"], &[])?;
    Ok(())
}

#[test]
fn without_privileges_it_says_which_are_missing() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let nobody = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("opening a file to everybody")
    };
    // The binary may stand where only root can go.
    let copy = site.files().join("detector");
    fs::copy(binary()?, &copy).context("copying the binary")?;
    nobody(site.files(), 0o755)?;
    nobody(&copy, 0o755)?;
    nobody(&site.policy(), 0o644)?;
    let setpriv = |arguments: &[&str]| -> Result<Command> {
        let mut command = stage.edge.command("setpriv")?;
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).args(arguments);
        Ok(command)
    };
    let pins = site.pins().to_string_lossy().into_owned();
    let file = site.policy().to_string_lossy().into_owned();
    for arguments in [
        vec!["run", "--iface", "edge0", "--policy", &file, "--pins", &pins],
        vec!["status", "--pins", &pins],
        vec!["top", "--once", "--pins", &pins],
        vec!["explain", "192.0.2.1", "--pins", &pins],
        vec!["apply", &file, "--pins", &pins],
        vec!["unload", "--pins", &pins],
    ] {
        let (code, said) = site.refused_with(&mut setpriv(&arguments)?)?;
        assert_eq!(code, 1, "{arguments:?}: {said}");
        assert_says(&said, &["CAP_BPF", "CAP_NET_ADMIN", "run as root"]);
        assert_nothing_left(&stage, &site, 1)?;
    }
    let (code, out, err) = answer(&mut setpriv(&["check", &file])?)?;
    assert_eq!(code, 0, "check needs no privileges: {out}{err}");
    Ok(())
}

#[test]
fn a_bad_policy_is_refused_with_its_place() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, "version = 1\n\n[defaults]\nmode = \"enfroce\"\n")?;
    let file = site.policy().to_string_lossy().into_owned();
    let expected = ["policy.toml:4:8", "\"enfroce\"", "\"enforce\", \"shadow\"", "did you mean"];

    let (code, said) = site.refused(&["edge0"], &[])?;
    assert_eq!(code, 2, "{said}");
    assert_says(&said, &expected);
    assert_nothing_left(&stage, &site, 1)?;

    let (code, out, err) = answer(&mut site.detector(&["check", &file])?)?;
    assert_eq!((code, out.as_str()), (2, ""));
    assert_says(&err, &expected);
    let (code, out, _) = answer(&mut site.detector(&["check", &file, "--json"])?)?;
    let json: Value = serde_json::from_str(&out).context("JSON")?;
    assert_eq!((code, &json["valid"]), (2, &false.into()));
    let error = &json["errors"][0];
    assert_eq!((&error["line"], &error["column"]), (&4.into(), &8.into()), "{json}");

    site.write_policy(&policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let (_, before) = site.status()?;
    site.write_policy("version = 1\nfast = true\n")?;
    let (code, out, err) = site.ask(&["apply", &file])?;
    assert_eq!((code, out.as_str()), (2, ""));
    assert_says(&err, &["policy.toml:2:1", "fast"]);
    assert_eq!(site.status()?.1["policy"], before["policy"], "nothing changed in the kernel");
    Ok(())
}

/// A capture without packets: the header of a pcap file of Ethernet frames with times in microseconds.
const EMPTY_CAPTURE: [u8; 24] =
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];

#[test]
fn a_policy_that_does_not_fit_is_refused_with_its_place() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let too_large = policy(LIMIT).replace("tcp/443", "tcp/1-3000");
    let site = Site::new(&stage.edge, &too_large)?;
    let file = site.policy().to_string_lossy().into_owned();
    let expected = [
        "policy.toml:6:10: error: too many ports",
        "3000 here × 2 destination",
        "at most 2048",
        "help: write wide",
    ];
    let assert_place = |diagnostic: &Value| {
        assert_eq!(diagnostic["file"], file.as_str(), "{diagnostic}");
        assert_eq!((&diagnostic["line"], &diagnostic["column"]), (&6.into(), &10.into()), "{diagnostic}");
        for field in ["found", "expected", "help"] {
            assert!(diagnostic[field].is_string(), "{field} of {diagnostic}");
        }
    };

    let (code, said) = site.refused(&["edge0"], &[])?;
    assert_eq!(code, 2, "{said}");
    assert_says(&said, &expected);
    assert_nothing_left(&stage, &site, 1)?;

    let capture = site.files().join("empty.pcap");
    fs::write(&capture, EMPTY_CAPTURE).context("writing a capture")?;
    let capture = capture.to_string_lossy().into_owned();
    let check = ["check", &file];
    let replay = ["replay", &capture, "--policy", &file, "--sources", "1000"];
    for (command, list) in [(&check[..], "errors"), (&replay[..], "diagnostics")] {
        let (code, out, err) = answer(&mut site.detector(command)?)?;
        assert_eq!((code, out.as_str()), (2, ""), "{command:?}");
        assert_says(&err, &expected);
        let (code, out, err) = answer(&mut site.detector(&[command, &["--json"]].concat())?)?;
        assert_eq!((code, err.as_str()), (2, ""), "{command:?}");
        let json: Value = serde_json::from_str(&out).context("JSON")?;
        assert_place(&json[list][0]);
    }

    site.write_policy(&policy(LIMIT))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let (_, before) = site.status()?;
    site.write_policy(&too_large)?;
    let (code, out, err) = site.ask(&["apply", &file])?;
    assert_eq!((code, out.as_str()), (2, ""));
    assert_says(&err, &expected);
    let (code, json) = site.ask_json(&["apply", &file])?;
    assert_eq!((code, &json["exit_code"]), (2, &2.into()), "{json}");
    assert_place(&json["diagnostics"][0]);
    assert_eq!(daemon.reload()?, (0, 1));
    assert_says(&daemon.log(), &[&expected[..], &["the old one stays"]].concat());
    assert_eq!(site.status()?.1["policy"], before["policy"], "nothing changed in the kernel");
    Ok(())
}

#[test]
fn programs_read_failures_and_the_log_as_json() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let file = site.policy().to_string_lossy().into_owned();
    let lines = |log: &str| -> Result<Vec<Value>> {
        log.lines().map(|line| serde_json::from_str(line).with_context(|| format!("JSON: {line}"))).collect()
    };
    let (code, said) = site.refused(&["edge7"], &["--json"])?;
    let told = lines(&said)?.pop().context("a line")?;
    assert_eq!((code, &told["exit_code"], &told["level"]), (2, &2.into(), &"ERROR".into()), "{said}");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("edge7")), "{said}");

    for (command, code_expected, part) in [
        (&["explain", "192.0.2.1"][..], 1, "nothing is loaded"),
        (&["top", "--once"], 1, "nothing is loaded"),
        (&["apply", &file], 1, "nothing is loaded"),
        (&["apply", "/nowhere"], 2, "/nowhere"),
    ] {
        let (code, out, err) = site.ask(&[command, &["--json"]].concat())?;
        assert_eq!((code, err.as_str()), (code_expected, ""), "{command:?}: {out}");
        let json: Value =
            serde_json::from_str(&out).with_context(|| format!("JSON of {command:?}: {out}"))?;
        assert_eq!(json["exit_code"], code_expected, "{command:?}: {out}");
        assert!(json["error"].as_str().is_some_and(|error| error.contains(part)), "{command:?}: {out}");
    }

    let mut daemon = site.start(&["edge0"], &["--json"])?;
    site.write_policy("version = 1\nfast = true\n")?;
    assert_eq!(daemon.reload()?, (0, 1));
    let log = lines(&daemon.log())?;
    assert!(log.iter().all(|line| line["level"].is_string() && line["message"].is_string()), "{log:?}");
    let told = log.iter().rfind(|line| line["level"] == "ERROR").context("an error")?;
    assert!(told["message"].as_str().is_some_and(|message| message.contains("policy.toml:2:1")), "{told}");
    Ok(())
}

#[test]
fn a_taken_metrics_address_leaves_nothing_and_takes_nothing_away() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let address = "127.0.0.1:9478";
    let taken = stage.edge.within(|| std::net::TcpListener::bind(address))?.context("taking an address")?;
    let (code, said) = site.refused(&["edge0"], &["--metrics", address])?;
    assert_eq!(code, 1, "{said}");
    assert_says(&said, &[address, "--metrics"]);
    assert_nothing_left(&stage, &site, 1)?;
    // What a predecessor left stays.
    site.start(&["edge0"], &[])?.end(libc::SIGKILL)?;
    let (code, said) = site.refused(&["edge0"], &["--metrics", address])?;
    assert_eq!(code, 1, "{said}");
    assert!(stage.is_attached(0)? && site.is_pinned(), "the limits of the predecessor go on");
    drop(taken);
    let _daemon = site.start(&["edge0"], &["--metrics", "off"])?;
    Ok(())
}

#[test]
fn exit_codes_tell_enforcing_from_not() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let state = |site: &Site<'_>| -> Result<(i32, String)> {
        let (code, answer) = site.status()?;
        Ok((code, answer["state"].as_str().unwrap_or_default().to_owned()))
    };
    assert_eq!(state(&site)?, (10, "unloaded".to_owned()));
    for arguments in [&["explain", "192.0.2.1"][..], &["top", "--once"]] {
        let (code, _, err) = site.ask(arguments)?;
        assert_eq!(code, 1, "{err}");
        assert_says(&err, &["nothing is loaded", "detector run"]);
    }
    let file = site.policy().to_string_lossy().into_owned();
    let (code, _, err) = site.ask(&["apply", &file])?;
    assert_eq!(code, 1);
    assert_says(&err, &["nothing is loaded"]);
    let (code, ..) = site.ask(&["unload"])?;
    assert_eq!(code, 0, "unloading what is not loaded is done");
    let (code, ..) = site.ask(&["status", "--nonsense"])?;
    assert_eq!(code, 2);
    assert!(!site.is_pinned(), "asking pins nothing");

    let mut daemon = site.start(&["edge0"], &[])?;
    assert_eq!(state(&site)?, (0, "enforcing".to_owned()));
    site.write_policy(&policy(LIMIT).replacen("\n\n", "\n\n[defaults]\nmode = \"shadow\"\n\n", 1))?;
    assert_eq!(daemon.reload()?, (1, 0), "{}", daemon.log());
    assert_eq!(state(&site)?, (10, "shadow".to_owned()));
    site.write_policy(&policy(LIMIT))?;
    let (code, answer) = site.ask_json(&["apply", &file])?;
    assert_eq!((code, &answer["applied"], &answer["epoch"]), (0, &true.into(), &3.into()), "{answer}");
    assert_eq!(state(&site)?, (0, "enforcing".to_owned()));
    daemon.end(libc::SIGKILL)?;
    assert_eq!(state(&site)?, (11, "enforcing".to_owned()));
    Ok(())
}

#[test]
fn shadow_counts_what_it_would_drop_and_drops_nothing() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let shadow = policy(LIMIT).replacen("\n\n", "\n\n[defaults]\nmode = \"shadow\"\n\n", 1);
    let site = Site::new(&stage.edge, &shadow)?;
    let _daemon = site.start(&["edge0"], &[])?;
    let frame = net.flow(Who::Offender).datagram();
    let flood = Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(20_000))?;
    wait_until("more than the limit was judged", PATIENCE, || {
        Ok((site.source(&net.prefix(Who::Offender))?.packets > 10_000).then_some(()))
    })?;
    flood.stop()?;
    stage.fence(0)?;
    let (_, status) = site.status()?;
    let edge = &status["services"]["edge"];
    let count = |name: &str| edge[name].as_u64().unwrap_or_default();
    assert!(count("shadow") > 5000 && count("pass") >= 1000 && count("drop") == 0, "{status}");
    assert_eq!(count("shadow") + count("pass"), site.source(&net.prefix(Who::Offender))?.packets);
    Ok(())
}

#[test]
fn a_source_is_explained_and_listed_and_counted_alike() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let rule =
        "\n[[rule]]\nname = \"INC-1\"\nsource = [\"198.18.0.2\"]\naction = \"drop\"\nreason = \"a test\"\n";
    let site = Site::new(&stage.edge, &(policy(LIMIT) + rule))?;
    let _daemon = site.start(&["edge0"], &[])?;
    for net in [Net::v4(0), Net::v6(0)] {
        let frame = net.flow(Who::Offender).datagram();
        let flood = Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(20_000))?;
        wait_until("the offender is cut", PATIENCE, || {
            Ok((site.source(&net.prefix(Who::Offender))?.dropped > 1000).then_some(()))
        })?;
        flood.stop()?;
        stage.fence(0)?;
        let listed = site.source(&net.prefix(Who::Offender))?;
        let (code, answer) = site.ask_json(&["explain", &net.source(Who::Offender).to_string()])?;
        assert_eq!(code, 0);
        assert_eq!(answer["source"], net.prefix(Who::Offender).as_str());
        let standing = &answer["services"][0];
        let words =
            ["service", "action", "mode", "profile"].map(|key| standing[key].as_str().unwrap_or_default());
        assert_eq!(words, ["edge", "limit", "enforce", "each"], "{answer}");
        assert_eq!(standing["seen"]["packets"], listed.packets);
        assert_eq!(standing["seen"]["dropped"], listed.dropped);
        let budget = &standing["budgets"][0];
        assert_eq!((&budget["per_second"], &budget["burst"]), (&1000.0.into(), &1000.0.into()), "{answer}");
    }
    let (_, status) = site.status()?;
    let sum = |of: fn(&detector_tests::daemon::Source) -> u64| -> Result<u64> {
        let offenders = [Net::v4(0), Net::v6(0)].map(|net| site.source(&net.prefix(Who::Offender)));
        offenders.into_iter().map(|source| Ok(of(&source?))).sum()
    };
    assert_eq!(status["services"]["edge"]["drop"], sum(|source| source.dropped)?);
    let metrics = site.metrics()?;
    let packets = |verdict, reason| {
        let labels = [("service", "edge"), ("verdict", verdict), ("reason", reason)];
        metrics.sum("detector_packets_total", &labels)
    };
    assert_eq!(packets("drop", "packets"), sum(|source| source.dropped)?, "{}", metrics.0);
    assert_eq!(packets("pass", "conforming"), sum(detector_tests::daemon::Source::passed)?);
    assert!(metrics.0.ends_with("# EOF\n"), "OpenMetrics ends so");

    let (_, answer) = site.ask_json(&["explain", "198.18.0.2"])?;
    let standing = &answer["services"][0];
    assert_eq!((&standing["action"], &standing["rule"]), (&"drop".into(), &"INC-1".into()), "{answer}");
    assert_eq!((&standing["reason"], &standing["seen"]), (&"a test".into(), &Value::Null));
    Ok(())
}

#[test]
fn an_interface_without_native_xdp_is_served_generically_with_a_warning() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let daemon = site.start(&["edge0", "lo"], &[])?;
    let log = daemon.log();
    assert!(log.contains("WARN") && log.contains("generic mode") && log.contains("lo"), "{log}");
    let (_, status) = site.status()?;
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    let modes: Vec<_> = interfaces.iter().map(|interface| (&interface["name"], &interface["mode"])).collect();
    assert_eq!(modes, [(&"lo".into(), &"generic".into()), (&"edge0".into(), &"native".into())]);
    let metrics = site.metrics()?;
    let attached = |mode| metrics.sum("detector_interface_attached", &[("mode", mode)]);
    assert_eq!((attached("native"), attached("generic")), (1, 1));
    Ok(())
}

#[test]
fn warnings_are_part_of_the_answer() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let file = site.policy().to_string_lossy().into_owned();
    let _daemon = site.start(&["edge0"], &[])?;
    let (_, answer) = site.ask_json(&["apply", &file])?;
    assert_eq!(answer["warnings"], serde_json::json!([]), "{answer}");
    site.write_policy("version = 1\n")?;
    let (code, out, err) = site.ask(&["apply", &file, "--json"])?;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let answer: Value = serde_json::from_str(&out).context("JSON")?;
    let (code, out, _) = answer_of(&site, &["check", &file, "--json"])?;
    let check: Value = serde_json::from_str(&out).context("JSON")?;
    assert_eq!((code, &answer["warnings"]), (0, &check["warnings"]));
    let warning = &answer["warnings"][0];
    assert_eq!((&warning["file"], &warning["line"]), (&file.as_str().into(), &1.into()), "{answer}");
    assert!(warning["message"].as_str().is_some_and(|said| said.contains("no service")), "{answer}");
    let (code, out, err) = site.ask(&["apply", &file])?;
    assert!(
        code == 0 && out.contains("applied") && err.contains("warning: nothing is limited"),
        "{out}{err}"
    );
    Ok(())
}

fn answer_of(site: &Site<'_>, arguments: &[&str]) -> Result<(i32, String, String)> {
    answer(&mut site.detector(arguments)?)
}

#[test]
fn top_ranks_by_the_rate_between_two_looks() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let (quiet, busy) = (Net::v4(0), Net::v6(0));
    let flood = |net: &Net, rate| {
        let frame = net.flow(Who::Offender).datagram();
        Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(rate))
    };
    let packets = |net: &Net| Ok::<_, anyhow::Error>(site.source(&net.prefix(Who::Offender))?.packets);
    let first = flood(&quiet, 20_000)?;
    wait_until("the first has sent much", PATIENCE, || Ok((packets(&quiet)? > 20_000).then_some(())))?;
    first.stop()?;
    stage.fence(0)?;
    let second = flood(&busy, 2_000)?;
    let before = packets(&busy)?;
    let (_, answer) = site.ask_json(&["top", "--once", "--interval", "1"])?;
    let sent = packets(&busy)? - before;
    second.stop()?;
    let row = |net: &Net| {
        let rows = answer["top"].as_array().into_iter().flatten().enumerate();
        let mut rows = rows.filter(|(_, row)| row["source"] == net.prefix(Who::Offender).as_str());
        rows.next().map(|(place, row)| (place, row["packets_per_s"].as_u64())).context("a row")
    };
    let (place, rate) = row(&busy)?;
    assert!(place == 0 && rate.is_some_and(|rate| (1..=sent).contains(&rate)), "{sent} sent: {answer}");
    assert_eq!(row(&quiet)?.1, Some(0), "{answer}");
    Ok(())
}
