//! The lab of `cargo xtask run`: it shows what it promises, and nothing of it stays.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use detector_tests::{
    daemon::answer,
    netns::{may_run, temporary_directory, turn},
    process::{PATIENCE, Running, wait_until},
};
use serde_json::Value;

/// The lab, which finds the binary under test as we do.
fn lab(arguments: &[&str]) -> Result<Command> {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
    lab.args(arguments).env("DETECTOR_BIN", detector_tests::daemon::binary()?);
    Ok(lab)
}

/// Namespaces, pins and directories of a process.
fn left_by(id: u32) -> Result<Vec<String>> {
    let prefix = format!("det-{id}-");
    let mut left: Vec<String> = Vec::new();
    for directory in ["/run/netns", "/sys/fs/bpf", "/tmp"] {
        for entry in fs::read_dir(directory).with_context(|| format!("reading {directory}"))? {
            let name = entry.context("reading a name")?.file_name().to_string_lossy().into_owned();
            left.extend(name.starts_with(&prefix).then(|| format!("{directory}/{name}")));
        }
    }
    Ok(left)
}

/// The daemon that a lab started.
fn daemon_of(lab: u32) -> Result<i32> {
    let parent = format!("PPid:\t{lab}\n");
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        // Other processes may end while we look.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\tdetector\n") && status.contains(&parent) {
            return entry.file_name().to_string_lossy().parse().context("a process number");
        }
    }
    bail!("the lab {lab} has no daemon")
}

fn kill(id: i32) -> Result<()> {
    // SAFETY: no precondition; the process is a child of a lab of ours, which has not waited for it.
    ensure!(unsafe { libc::kill(id, libc::SIGKILL) } == 0, "process {id} is gone");
    Ok(())
}

#[test]
fn it_ends_by_itself_and_its_clients_lost_nothing() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let (code, out, err) = answer(&mut lab(&["--seconds", "4", "--json"])?)?;
    println!("{out}");
    assert_eq!(code, 0, "{err}");
    let summary: Value = serde_json::from_str(&out).context("JSON and nothing else")?;
    assert_eq!((&summary["kept"], &summary["faults"]), (&true.into(), &Value::Array(Vec::new())));
    for client in summary["clients"].as_array().context("clients")? {
        assert!(client["requests"].as_u64() > Some(3) && client["failed"] == 0 && client["limited"] == 0);
    }
    for offender in summary["offenders"].as_array().context("offenders")? {
        assert!(offender["limited"].as_u64() > Some(0), "{offender}");
    }
    Ok(())
}

/// Its people only, and that detection learns from them: what is usual takes six minutes to learn, after which the whole is for people to see.
#[test]
fn people_beside_whom_a_fleet_would_grow_lose_nothing_while_detection_learns() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let (code, out, err) = answer(&mut lab(&["--fleet", "--seconds", "8", "--json"])?)?;
    println!("{out}");
    assert_eq!(code, 0, "{err}");
    let summary: Value = serde_json::from_str(&out).context("JSON and nothing else")?;
    assert_eq!((&summary["kept"], &summary["faults"]), (&true.into(), &Value::Array(Vec::new())));
    assert!(
        summary["people"]["answered"].as_u64() > Some(100) && summary["people"]["failed"] == 0,
        "{summary}"
    );
    // An epoch takes a tenth of a second, and is a minute of detection's time.
    assert!(
        summary["minutes"]["end"].as_f64() >= Some(70.0) && summary["minutes"]["learned"].is_null(),
        "{summary}"
    );
    assert_eq!(summary["fleet"]["exits"], 0, "{summary}");
    Ok(())
}

#[test]
fn a_signal_ends_it_in_order() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let files = temporary_directory()?;
        let path = files.path().join("out");
        let out = fs::File::create(&path).context("making a file")?;
        let mut process = Running::start(lab(&[])?.stdout(out))?;
        let id = process.id();
        let said = || fs::read_to_string(&path).unwrap_or_default();
        wait_until("the lab shows a table", PATIENCE, || Ok(said().contains("after 2 s").then_some(())))?;
        assert!(!left_by(id)?.is_empty(), "it is there");
        process.signal(signal)?;
        let status = process.end(PATIENCE)?;
        assert_eq!(status.code(), Some(0), "{}", said());
        assert!(said().contains("The clients lost nothing"), "{}", said());
        assert!(!said().contains('\x1b'), "no colour where no terminal is");
        assert_eq!(left_by(id)?, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_daemon_that_dies_ends_it_with_its_log() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let files = temporary_directory()?;
    let path = files.path().join("out");
    let out = fs::File::create(&path).context("making a file")?;
    let copy = out.try_clone().context("duplicating a descriptor")?;
    let mut process = Running::start(lab(&["--seconds", "60"])?.stdout(out).stderr(copy))?;
    let id = process.id();
    let said = || fs::read_to_string(&path).unwrap_or_default();
    wait_until("the lab shows a table", PATIENCE, || Ok(said().contains("after 1 s").then_some(())))?;
    kill(daemon_of(id)?)?;
    assert_eq!(process.end(PATIENCE)?.code(), Some(1), "{}", said());
    assert!(said().contains("detector ended while the lab ran; its log:"), "{}", said());
    assert_eq!(left_by(id)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn its_policies_are_good() -> Result<()> {
    for file in ["/src/lab/policy.toml", "/src/lab/fleet/policy.toml"] {
        let mut check = Command::new(detector_tests::daemon::binary()?);
        let (code, out, err) = answer(check.args(["check", &[env!("CARGO_MANIFEST_DIR"), file].concat()]))?;
        assert_eq!((code, err.as_str()), (0, ""), "{file}: {out}");
    }
    Ok(())
}
