//! Who changed what: versions, rollbacks and audit entries of real daemons and commands.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use detector_tests::{
    daemon::{STATE_VARIABLE, Site, answer},
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, policy},
};
use serde_json::Value;

/// A policy whose limit of packets tells it from others.
fn limit(per_second: u64) -> String {
    policy(&format!("packets = {{ rate = \"{per_second}/s\", burst = {} }}", 2 * per_second))
}

fn write(site: &Site<'_>, name: &str, text: &str) -> Result<String> {
    let path = site.files().join(name);
    fs::write(&path, text).context("writing a policy")?;
    Ok(path.to_str().context("a path that is text")?.to_owned())
}

/// Packets a second of a source, as the kernel has it.
fn rate(site: &Site<'_>) -> Result<u64> {
    let (code, explained) = site.ask_json(&["explain", &Net::v4(0).source(Who::Client).to_string()])?;
    ensure!(code == 0, "explain says {explained}");
    let rate = explained["services"][0]["budgets"][0]["per_second"].as_f64().context("a rate")?;
    Ok(rate.round() as u64)
}

fn done(site: &Site<'_>, arguments: &[&str]) -> Result<Value> {
    let (code, value) = site.ask_json(arguments)?;
    ensure!(code == 0, "{arguments:?} exits with {code}: {value}");
    Ok(value)
}

/// Versions with their standing, the newest first.
fn standings(site: &Site<'_>) -> Result<String> {
    let history = done(site, &["history"])?;
    let versions = history["versions"].as_array().context("versions")?;
    let text = |version: &Value| format!("{} {}", version["version"], version["standing"]).replace('"', "");
    Ok(versions.iter().map(text).collect::<Vec<_>>().join(", "))
}

#[test]
fn versions_are_listed_shown_compared_and_gone_back_to() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit(100))?;
    let (code, out, _) = site.ask(&["history"])?;
    assert!(code == 0 && out.contains("no version is recorded"), "{out}");
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    for per_second in [200, 300] {
        let file = write(&site, "new.toml", &limit(per_second))?;
        let applied = done(&site, &["apply", &file, "--reason", &format!("CHG-{per_second}")])?;
        assert_eq!((&applied["version"], &applied["is_new"]), (&(per_second / 100).into(), &true.into()));
        assert_eq!(applied["unrecorded"], Value::Null, "{applied}");
    }
    let file = write(&site, "same.toml", &limit(300))?;
    let (code, out, _) = site.ask(&["apply", &file])?;
    assert!(code == 0 && out.contains("version 3, which is active already"), "{out}");
    assert_eq!(standings(&site)?, "3 active, 2 past, 1 past");
    let (_, status) = site.status()?;
    assert_eq!((&status["policy"]["version"], rate(&site)?), (&3.into(), 300), "{status}");

    let history = done(&site, &["history", "2"])?;
    assert_eq!((&history["reason"], &history["author"]["uid"]), (&"CHG-200".into(), &0.into()), "{history}");
    assert_eq!((&history["changes"]["text"]["added"], &history["before"]), (&1.into(), &1.into()));
    let (code, out, _) = site.ask(&["history", "2"])?;
    assert!(code == 0 && out.contains("--- version 1\n+++ version 2\n"), "{out}");
    assert!(
        out.contains("\n-packets = { rate = \"100/s\"") && out.contains("\n+packets = { rate = \"200/s\""),
        "{out}"
    );
    let (code, out, _) = site.ask(&["show", "1"])?;
    assert_eq!((code, out), (0, limit(100)), "as it was applied");
    let (code, out, _) = site.ask(&["show"])?;
    assert_eq!((code, out), (0, limit(300)));

    let again = done(&site, &["rollback", "1", "--reason", "INC-1"])?;
    assert_eq!((&again["version"], &again["again"], rate(&site)?), (&4.into(), &1.into(), 100), "{again}");
    let (code, out, err) = site.ask(&["rollback"])?;
    assert!(code == 1 && err.contains("no other version was active before version 4"), "{out}{err}");
    let again = done(&site, &["rollback", "3"])?;
    assert_eq!((&again["version"], rate(&site)?), (&5.into(), 300), "{again}");
    let (code, out, _) = site.ask(&["rollback"])?;
    assert!(code == 0 && out.contains("version 6 = version 2 again"), "{out}");
    let (code, out, _) = site.ask(&["rollback"])?;
    assert!(code == 0 && out.contains("version 7 = version 1 again"), "each goes further back: {out}");
    assert_eq!(rate(&site)?, 100);
    let (code, _, err) = site.ask(&["rollback", "77"])?;
    assert!(code == 2 && err.contains("no version 77"), "{err}");
    assert_eq!(daemon.end(libc::SIGKILL)?.code(), None);
    let again = done(&site, &["rollback", "2"])?;
    assert_eq!((&again["version"], rate(&site)?), (&8.into(), 200), "with the daemon dead: {again}");
    Ok(())
}

#[test]
fn a_version_goes_back_to_its_source_files_of_then() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let client = Net::v4(0).source(Who::Client);
    let rule = "[[rule]]\nname = \"listed\"\nsource_file = \"list.txt\"\naction = \"drop\"\n";
    let text = limit(100) + rule;
    let site = Site::new(&stage.edge, &limit(100))?;
    let list = site.files().join("list.txt");
    fs::write(&list, format!("{client}\n"))?;
    site.write_policy(&text)?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let action = || -> Result<Value> {
        Ok(done(&site, &["explain", &client.to_string()])?["services"][0]["action"].clone())
    };
    assert_eq!(action()?, "drop");
    fs::write(&list, "192.0.2.0/24\n192.0.3.0/24\n")?;
    assert_eq!(daemon.reload()?, (1, 0));
    assert_eq!(action()?, "limit");
    let (code, out, _) = site.ask(&["history", "2"])?;
    assert!(code == 0 && out.contains("list.txt +2 −1") && out.contains("\n+192.0.2.0/24\n"), "{out}");
    fs::remove_file(&list)?;
    let again = done(&site, &["rollback"])?;
    assert_eq!((&again["again"], action()?), (&1.into(), "drop".into()), "{again}");
    let shown = done(&site, &["show"])?;
    assert_eq!((&shown["sources"][0]["name"], &shown["text"]), (&"list.txt".into(), &text.into()), "{shown}");
    Ok(())
}

#[test]
fn trials_are_told_how_they_ended() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit(100))?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let path = write(&site, "new.toml", &limit(200))?;
    let is_over = || Ok((rate(&site)? == 100).then_some(()));
    let entries = || -> Result<Vec<Value>> {
        Ok(done(&site, &["history", "--audit"])?["entries"].as_array().context("entries")?.clone())
    };

    // The daemon writes down that the kernel took it back.
    done(&site, &["apply", &path, "--confirm", "1s"])?;
    wait_until("the trial is over", PATIENCE, is_over)?;
    let written = || Ok(entries()?.into_iter().find(|entry| entry["action"] == "take_back"));
    let entry = wait_until("the daemon writes it down", PATIENCE, written)?;
    assert_eq!(
        (&entry["author"]["name"], &entry["target"]),
        (&"kernel".into(), &"version 2".into()),
        "{entry}"
    );
    assert_eq!(standings(&site)?, "2 taken_back, 1 active");
    assert_eq!(daemon.end(libc::SIGKILL)?.code(), None);

    // Nobody writes it down, and it is told nevertheless.
    done(&site, &["apply", &path, "--confirm", "1s"])?;
    wait_until("the trial is over", PATIENCE, is_over)?;
    assert_eq!(standings(&site)?, "3 taken_back, 2 taken_back, 1 active");
    done(&site, &["apply", &path, "--confirm", "1h", "--reason", "try"])?;
    assert_eq!(
        standings(&site)?,
        "4 trial, 3 taken_back, 2 taken_back, 1 active".replace("1 active", "1 past")
    );
    let (code, _, err) = site.ask(&["rollback", "--confirm", "1h"])?;
    assert!(code == 2 && err.contains("leave --confirm out"), "{err}");
    let (code, _, err) = site.ask(&["rollback", "1"])?;
    assert!(code == 1 && err.contains("waits to be confirmed"), "{err}");
    let confirmed = done(&site, &["confirm"])?;
    assert_eq!((&confirmed["version"], rate(&site)?), (&4.into(), 200), "{confirmed}");
    // From a rollback on trial one comes back.
    done(&site, &["rollback", "--confirm", "1h"])?;
    assert_eq!((rate(&site)?, standings(&site)?.split(',').next()), (100, Some("5 trial")));
    let (code, out, _) = site.ask(&["rollback", "--reason", "worse"])?;
    assert!(code == 0 && out.contains("rolled back to version 4"), "{out}");
    assert_eq!(rate(&site)?, 200);
    assert_eq!(standings(&site)?, "5 taken_back, 4 active, 3 taken_back, 2 taken_back, 1 past");
    let said: Vec<_> = entries()?
        .iter()
        .map(|entry| format!("{} {} {}", entry["origin"], entry["action"], entry["target"]).replace('"', ""))
        .collect();
    let file = |action: &str| format!("{action} {path}");
    let policy = site.policy().display().to_string();
    let expected = [
        "rollback rollback version 5".to_owned(),
        format!("rollback rollback {policy}"),
        "command confirm version 4".to_owned(),
        format!("rollback rollback {policy}"),
        file("apply apply"),
        "kernel take_back version 3".to_owned(),
        file("apply apply"),
        "kernel take_back version 2".to_owned(),
        file("apply apply"),
        "daemon start edge0".to_owned(),
        format!("start apply {policy}"),
    ];
    assert_eq!(said, expected);
    assert!(entries()?[3]["result"].as_str().is_some_and(|result| result.contains("waits to be confirmed")));
    Ok(())
}

#[test]
fn reloads_restarts_and_refusals_are_recorded() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit(100))?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_eq!(daemon.reload()?, (1, 0), "the same again");
    site.write_policy("version = 2\n")?;
    assert_eq!(daemon.reload()?, (1, 1));
    site.write_policy(&limit(200))?;
    assert_eq!(daemon.reload()?, (2, 1));
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_eq!(daemon.end(libc::SIGKILL)?.code(), None);
    let (code, out, err) = site.ask(&["unload"])?;
    assert_eq!(code, 0, "{out}{err}");
    let audit = done(&site, &["history", "--audit"])?;
    let entries = audit["entries"].as_array().context("entries")?;
    let said = |entry: &Value| {
        let words = ["origin", "action"].map(|name| entry[name].as_str().unwrap_or_default());
        let version = entry["after"]["version"].as_u64().unwrap_or_default();
        format!("{} {} {version} {}", words[0], words[1], entry["result"] == "done")
    };
    let said: Vec<_> = entries.iter().rev().map(said).collect();
    let expected = [
        "start apply 1 true",
        "daemon start 0 true",
        "reload apply 1 true",
        "reload apply 0 false",
        "reload apply 2 true",
        "daemon stop 0 true",
        "start apply 2 true",
        "daemon start 0 true",
        "command unload 0 true",
    ];
    assert_eq!(said, expected, "{audit}");
    assert_eq!(standings(&site)?, "2 past, 1 past", "nothing is loaded");
    Ok(())
}

/// What is likely to hurt nearly everyone needs to be forced once, whichever way it comes.
#[test]
fn a_daemon_takes_what_was_forced_before_and_refuses_the_rest() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    // Broad, and nobody's: so no other guard has a say.
    let shut =
        |name: &str| format!("[[rule]]\nname = \"{name}\"\nsource = [\"254.0.0.0/7\"]\naction = \"drop\"\n");
    let site = Site::new(&stage.edge, &(limit(100) + &shut("one")))?;
    let (code, said) = site.refused(&[&edge_interface(0)], &[])?;
    assert!(code == 2 && said.contains("run --force") && said.contains("apply FILE --force"), "{said}");
    assert!(!site.is_pinned() && !stage.is_attached(0)?, "nothing is left");
    let daemon = site.start(&[&edge_interface(0)], &["--force"])?;
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    site.write_policy(&(limit(100) + &shut("two")))?;
    assert_eq!(daemon.reload()?, (0, 1), "another one");
    assert!(daemon.log().contains("run --force"), "{}", daemon.log());
    let file = site.policy().display().to_string();
    let (code, _, err) = site.ask(&["apply", &file])?;
    assert!(code == 2 && err.contains("add --force"), "{err}");
    done(&site, &["apply", &file, "--force"])?;
    assert_eq!(daemon.reload()?, (1, 1), "what is active does no more harm");
    site.write_policy(&limit(100))?;
    assert_eq!(daemon.reload()?, (2, 1));
    site.write_policy(&(limit(100) + &shut("two")))?;
    assert_eq!(daemon.reload()?, (3, 1), "forced before");
    let audit = done(&site, &["history", "--audit"])?;
    let refused =
        |entry: &&Value| entry["result"].as_str().is_some_and(|result| result.contains("not applied"));
    let refused = audit["entries"].as_array().context("entries")?.iter().filter(refused).count();
    assert_eq!(refused, 3, "{audit}");
    Ok(())
}

/// Nobody is locked out of a change because it cannot be recorded.
#[test]
fn what_cannot_be_recorded_is_done_with_a_warning() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit(100))?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let file = write(&site, "new.toml", &limit(200))?;
    // A file system that is read-only, seen by this command alone.
    let empty = site.files().join("empty");
    fs::create_dir(&empty)?;
    let mount = "mount -t tmpfs -o ro tmpfs \"$1\" && shift && exec \"$@\"";
    let mut command = stage.edge.command("unshare")?;
    command.args(["--mount", "sh", "-c", mount, "sh"]).arg(&empty).arg(detector_tests::daemon::binary()?);
    command.args(["apply", &file, "--pins"]).arg(site.pins()).arg("--state").arg(&empty);
    command.arg("--run-dir").arg(site.run_directory());
    let (code, out, err) = answer(&mut command)?;
    assert!(code == 0 && out.contains("without a version"), "{out}{err}");
    assert!(err.contains("warning") && err.contains("not recorded") && err.contains("Read-only"), "{err}");
    assert_eq!((rate(&site)?, &site.status()?.1["policy"]["version"]), (200, &0.into()));
    let (code, _, err) = site.ask(&["show"])?;
    assert!(code == 1 && err.contains("--effective") && err.contains("new.toml"), "{err}");
    // Back to what was recorded last.
    let again = done(&site, &["rollback"])?;
    assert_eq!((&again["again"], rate(&site)?), (&1.into(), 100), "{again}");

    // A broken one, to every way of changing something.
    let database: PathBuf = site.state().join("history.db");
    fs::write(&database, "no database")?;
    let applied = done(&site, &["apply", &file, "--confirm", "1h"])?;
    assert!(applied["unrecorded"].as_str().is_some_and(|why| why.contains("move it away")), "{applied}");
    let confirmed = done(&site, &["confirm"])?;
    assert!(confirmed["unrecorded"].is_string() && confirmed["version"] == 0, "{confirmed}");
    let (code, _, err) = site.ask(&["rollback"])?;
    assert!(code == 1 && err.contains("history.db") && err.contains("move it away"), "{err}");
    let (code, effective) = site.ask_json(&["show", "--effective"])?;
    let budget = &effective["services"][0]["budgets"][0];
    assert_eq!((code, &budget["rate"], &budget["burst"]), (0, &"200/s".into(), &"400".into()), "{effective}");
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));

    // A new one begins with what comes next.
    fs::remove_file(&database)?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_eq!(standings(&site)?, "1 active");
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    Ok(())
}

#[test]
fn what_is_effective_is_told_without_daemon_and_history() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let text = policy(
        "packets = { rate = \"2000/s\", burst = 4000 }\nbytes = { rate = \"8MB/s\" }\n\
         connections = { rate = \"10/min\", burst = 5 }\n\
         [profile.each.parents]\nv4_24 = { packets = { rate = \"50000/s\" } }\n",
    );
    let rules = "[profile.strict]\npackets = { rate = \"50/s\", burst = 100 }\n\
                 [[rule]]\nname = \"slow\"\nsource = [\"203.0.113.0/24\"]\naction = { limit = \"strict\" }\nmode = { enforce = 10 }\n\
                 [[rule]]\nname = \"partner\"\nsource = [\"192.0.2.0/24\"]\naction = \"allow\"\nuntil = 2099-01-01T00:00:00Z\n";
    let site = Site::new(&stage.edge, &(text + rules))?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_eq!(daemon.end(libc::SIGKILL)?.code(), None);
    fs::remove_dir_all(site.state())?;
    let effective = done(&site, &["show", "--effective"])?;
    let service = &effective["services"][0];
    let budgets: Vec<_> = service["budgets"]
        .as_array()
        .context("budgets")?
        .iter()
        .map(|budget| {
            let words =
                ["of", "budget", "rate", "burst"].map(|word| budget[word].as_str().unwrap_or_default());
            words.join(" ")
        })
        .collect();
    let expected = [
        "source packets 2000/s 4000",
        "source bytes 8MB/s 8MB",
        "source connections 10/min 5",
        "v4_24 packets 50000/s 50000",
    ];
    assert_eq!(
        (&service["action"], budgets),
        (&"limit".into(), expected.map(str::to_owned).to_vec()),
        "{effective}"
    );
    let rules = effective["rules"].as_array().context("rules")?;
    assert_eq!(
        (&rules[0]["mode"], &rules[0]["budgets"][0]["rate"]),
        (&"enforce 10 %".into(), &"50/s".into())
    );
    assert_eq!(
        (&rules[1]["action"], rules[1]["ends_in_s"].as_u64() > Some(0)),
        (&"allow".into(), true),
        "{effective}"
    );
    let (code, out, _) = site.ask(&["show", "--effective"])?;
    assert!(code == 0 && out.contains("packets 50/s burst 100") && out.contains("10/min"), "{out}");
    assert!(!site.state().exists(), "only reading makes nothing");
    Ok(())
}

/// Two commands at once: one waits for the other, and both are recorded.
#[test]
fn commands_at_once_are_all_recorded() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &limit(100))?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let files: Vec<_> = (2..8)
        .map(|number| write(&site, &format!("{number}.toml"), &limit(number * 100)))
        .collect::<Result<_>>()?;
    let mut children = Vec::new();
    for file in &files {
        let mut command = site.command(&["apply", file, "--json"])?;
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        children.push(command.spawn().context("starting detector")?);
    }
    let mut applied = 0;
    for mut child in children {
        applied += usize::from(child.wait()?.success());
    }
    let versions = done(&site, &["history"])?["versions"].as_array().context("versions")?.clone();
    assert_eq!(versions.len(), 1 + applied, "{versions:?}");
    assert!(applied >= 1 && versions[0]["standing"] == "active", "{versions:?}");
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0));
    assert!(std::env::var_os(STATE_VARIABLE).is_none(), "tests have their own");
    Ok(())
}
