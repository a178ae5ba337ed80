//! What commands read is of one policy, whatever is applied meanwhile; what cannot be applied changes nothing.

use std::{collections::BTreeMap, fs, net::UdpSocket, path::PathBuf, sync::mpsc, thread};

use anyhow::{Context as _, Result};
use aya::{
    maps::PerCpuValues,
    programs::{TestRun as _, TestRunOptions},
};
use detector_common::{address::Address, budget::Budget, generation::Settings, limits::WAYS};
use detector_tests::{
    daemon::Site,
    netns::{may_run, remove_pins, unique_pins},
    packet::udp,
    process::{PATIENCE, wait_until},
    rows::{self, Rig},
    stage::{Net, Stage, Who, policy},
};
use detector_user::{
    kernel::{
        apply::{ApplyError, apply},
        load::{Clock, LoadOptions, Loaded, load},
        mapped::Access,
        maps::Maps,
        pins::Pins,
        read::{self, Active, ReadError},
    },
    policy::compile::{Manifest, Tables, compile},
};
use serde_json::{Value, json};

/// A program whose maps are pinned, so that they can be opened twice: once to apply, once to read.
struct Pinned {
    writer: Loaded,
    reader: Maps,
    directory: PathBuf,
}

impl Pinned {
    fn new() -> Result<Self> {
        let directory = unique_pins();
        fs::create_dir(&directory).context("making a directory for pins")?;
        let pins = Some(LoadOptions::pins_in(&directory));
        let opened = load(&LoadOptions { pins, ..LoadOptions::isolated(1000) })
            .map_err(anyhow::Error::from)
            .and_then(|writer| Ok((writer, Maps::pinned(&directory, Access::Read)?)));
        match opened {
            Ok((writer, reader)) => Ok(Self { writer, reader, directory }),
            Err(error) => {
                remove_pins(&directory);
                Err(error)
            }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        remove_pins(&self.directory);
    }
}

/// A policy that says its number in its names, in the limit of [`SOURCE`], and in how many rules stand before that one.
fn numbered(number: u64) -> Tables {
    let mut text = policy(&format!("packets = {{ rate = \"{}/s\", burst = 10 }}", RATE + number));
    for other in 0..number % 7 {
        text += &format!(
            "\n[[rule]]\nname = \"other{other}\"\nsource = [\"192.0.2.{other}\"]\naction = \"drop\"\n"
        );
    }
    text += &format!(
        "\n[[rule]]\nname = \"{number}\"\nsource = [\"198.18.0.3\"]\naction = {{ limit = \"each\" }}\n"
    );
    let mut tables = compile(&rows::policy(&text), &Manifest::default(), 0).expect("a small policy");
    tables.manifest.file = number.to_string();
    tables
}

const RATE: u64 = 1000;

/// The number of the policy as the manifest says, the rule's name, and the limit in the kernel.
fn look(active: &Active<'_>, mut between: impl FnMut()) -> Result<(u64, String, Budget), ReadError> {
    let manifest = active.manifest()?.expect("a policy was applied");
    between();
    let source = Address::from("198.18.0.3".parse::<std::net::IpAddr>().expect("an address"));
    let standing = active.classify(source, manifest.services["edge"])?.expect("a policy was applied");
    let rule = manifest.rules.get(usize::from(standing.class.rule));
    let rule = rule.map_or("none", |rule| rule.name.as_str()).to_owned();
    Ok((manifest.file.parse().expect("a number"), rule, standing.class.packets))
}

#[track_caller]
fn assert_one_policy((number, rule, budget): (u64, String, Budget)) -> u64 {
    assert_eq!(rule, number.to_string());
    let expected = Budget::of_units(RATE + number, 1_000_000_000, 10, 0);
    assert_eq!((budget.interval, budget.burst_ticks), (expected.interval, expected.burst_ticks), "{number}");
    number
}

#[test]
fn a_policy_that_is_applied_between_two_reads_is_read_whole() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let mut pinned = Pinned::new()?;
    let Pinned { writer, reader, .. } = &mut pinned;
    apply(&mut writer.maps, &numbered(0))?;
    // Two fill the slot that is being read; one makes the other slot active.
    for applied in [2, 1] {
        let (to_writer, wanted) = mpsc::channel::<()>();
        let (to_reader, done) = mpsc::channel();
        let first = assert_one_policy(read::consistently(reader, |active| look(active, || ()))?);
        let maps = &mut writer.maps;
        let (looks, seen) = thread::scope(|scope| {
            scope.spawn(move || {
                while wanted.recv().is_ok() {
                    for number in 1..=applied {
                        apply(maps, &numbered(first + number)).expect("a small policy");
                    }
                    to_reader.send(()).expect("the reader waits");
                }
            });
            let mut looks = 0;
            let seen = read::consistently(reader, |active| {
                looks += 1;
                look(active, || {
                    if looks == 1 {
                        to_writer.send(()).expect("the writer waits");
                        done.recv().expect("the writer answers");
                    }
                })
            });
            drop(to_writer);
            (looks, seen)
        });
        assert_eq!((assert_one_policy(seen?), looks), (first + applied, 2));
    }
    Ok(())
}

#[test]
fn readers_beside_an_unceasing_writer_see_one_policy_each_time() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    const APPLIED: u64 = 50;
    let mut pinned = Pinned::new()?;
    let Pinned { writer, reader, .. } = &mut pinned;
    apply(&mut writer.maps, &numbered(0))?;
    let mut looks = 0;
    thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| {
            for number in 1..=APPLIED {
                apply(&mut writer.maps, &numbered(number)).expect("a small policy");
            }
        });
        loop {
            let is_last = writing.is_finished();
            let number = assert_one_policy(read::consistently(reader, |active| look(active, || ()))?);
            looks += 1;
            if is_last {
                assert_eq!(number, APPLIED);
                return Ok(());
            }
        }
    })?;
    println!("{looks} looks beside {APPLIED} policies");
    Ok(())
}

#[test]
fn a_policy_that_never_rests_is_an_error_with_an_end() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let mut pinned = Pinned::new()?;
    let Pinned { writer, reader, .. } = &mut pinned;
    apply(&mut writer.maps, &numbered(0))?;
    let mut number = 0;
    let seen = read::consistently(reader, |active| {
        look(active, || {
            number += 1;
            apply(&mut writer.maps, &numbered(number)).expect("a small policy");
        })
    });
    let Err(error) = seen else { panic!("{seen:?} was read of a policy that was gone") };
    assert!(error.to_string().contains("try again"), "{error}");
    assert!((2..100).contains(&number), "{number} looks");
    Ok(())
}

#[test]
fn a_policy_that_fails_half_way_changes_no_verdict() {
    let rule =
        |action| format!("\n[[rule]]\nname = \"it\"\nsource = [\"198.18.0.3\"]\naction = \"{action}\"\n");
    let text = |action| policy("packets = { rate = \"1/s\", burst = 1 }") + &rule(action);
    let frame = Net::v4(0).flow(Who::Offender).datagram();
    let mut rig = Rig::under(&text("drop"));
    let active = rig.bench().manifest.clone();
    let other = compile(&rows::policy(&text("allow")), &active, 0).expect("a small policy");
    let epoch = read::epoch(&rig.bench().loaded.maps);
    assert_eq!(rig.reason(&frame).name(), "denied");

    // The active names cannot be read, which is found when the other slot has its rules already.
    let slot = read::generation(&rig.bench().loaded.maps).slot();
    let first = detector_common::policy::slot_place(slot, detector_common::limits::MANIFEST_BYTES / 4096, 0);
    let map = &rig.bench().loaded.maps.manifest;
    let length = map.read(first as usize)[0];
    map.write_word(first as usize, 0, u64::MAX);
    let result = apply(&mut rig.bench_mut().loaded.maps, &other);
    assert!(matches!(result, Err(ApplyError::Active(ReadError::Manifest(_)))), "{result:?}");
    assert_eq!(read::epoch(&rig.bench().loaded.maps), epoch);
    assert_eq!(rig.reason(&frame).name(), "denied");

    rig.bench().loaded.maps.manifest.write_word(first as usize, 0, length);
    let read = read::consistently(&rig.bench().loaded.maps, |active| active.manifest());
    assert_eq!(read.expect("mended").as_ref(), Some(&active), "the names of the active policy are whole");
    apply(&mut rig.bench_mut().loaded.maps, &other).expect("nothing is in its way any more");
    assert_eq!(rig.reason(&frame).name(), "allowed");
}

#[test]
fn a_number_that_goes_to_another_name_counts_from_zero_and_a_name_that_stays_counts_on() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let mut pinned = Pinned::new()?;
    let maps = &mut pinned.writer.maps;
    let mut previous = Manifest::default();
    let mut owners = BTreeMap::new();
    // One service stays, the other has a new name each time: more names than are remembered.
    for number in 0..50 {
        let name = format!("service{number}");
        let text = format!(
            "version = 1\n[[service]]\nname = \"stays\"\naddresses = [\"203.0.113.1\"]\n\
             [[service]]\nname = \"{name}\"\naddresses = [\"203.0.113.2\"]\n"
        );
        let tables = compile(&rows::policy(&text), &previous, 0)?;
        apply(maps, &tables)?;
        previous = tables.manifest;
        let packets = |maps: &Maps, service: &str| -> Result<u64> {
            let counters = read::verdicts(maps, previous.services[service])?;
            Ok(counters.slots.iter().map(|slot| slot.packets).sum())
        };
        assert_eq!(packets(maps, "stays")?, number, "{name}");
        assert_eq!(packets(maps, &name)?, 0, "{name} is credited with what another name had");
        owners.entry(previous.services[&name]).or_insert_with(Vec::new).push(name.clone());
        count(maps, previous.services["stays"], number + 1)?;
        count(maps, previous.services[&name], 1000 + number)?;
    }
    assert!(owners.values().any(|names| names.len() > 1), "no number was given twice: {owners:?}");
    Ok(())
}

/// Has the first CPU count so many packets of a service.
fn count(maps: &mut Maps, service: u16, packets: u64) -> Result<()> {
    let mut each = maps.verdicts.get(&service.into(), 0)?.to_vec();
    each[0].slots[0].packets = packets;
    maps.verdicts.set(service.into(), PerCpuValues::try_from(each)?, 0)?;
    Ok(())
}

#[test]
fn top_names_no_rule_of_an_earlier_policy() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let rule = |name: &str, source: &str| {
        format!("\n[[rule]]\nname = \"{name}\"\nsource = [\"{source}\"]\naction = \"drop\"\n")
    };
    let base = policy("packets = { rate = \"1000/s\", burst = 1000 }");
    let site = Site::new(&stage.edge, &(base.clone() + &rule("INC-1", "198.18.0.2")))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let socket =
        stage.outside.within(|| UdpSocket::bind((net.source(Who::Client), 5555)))?.context("binding")?;
    let row = |packets: u64| -> Result<Value> {
        socket.send_to(&[0; 8], net.service()).context("sending")?;
        wait_until("it is judged", PATIENCE, || {
            Ok((site.source(&net.prefix(Who::Client))?.packets == packets).then_some(()))
        })?;
        first_row(&site)
    };
    assert_eq!(row(1)?["rule"], "INC-1");
    // Numbers mean something else now: the class of INC-1 is that of OTHER.
    site.write_policy(&(base + &rule("OTHER", "192.0.2.0/24") + &rule("INC-2", "198.18.0.2")))?;
    assert_eq!(daemon.reload()?, (1, 0));
    let silent = first_row(&site)?;
    assert_eq!((&silent["service"], &silent["rule"]), (&"edge".into(), &Value::Null), "{silent}");
    assert_eq!(row(2)?["rule"], "INC-2", "the next packet looks it up");
    Ok(())
}

fn first_row(site: &Site<'_>) -> Result<Value> {
    let (_, answer) = site.ask_json(&["top", "--once", "--interval", "0"])?;
    assert_eq!(answer["top"].as_array().map(Vec::len), Some(1), "{answer}");
    Ok(answer["top"][0].clone())
}

#[test]
fn status_tells_shadow_from_rules_that_are_carried_out() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let text = |mode: &str, rule: &str| {
        policy("packets = { rate = \"1000/s\", burst = 1000 }").replacen(
            "\n\n",
            &format!("\n\n[defaults]\nmode = \"{mode}\"\n\n"),
            1,
        ) + "\n[profile.free]\n"
            + rule
    };
    let rule = |action: &str, mode: &str| {
        let rule = format!("\n[[rule]]\nname = \"it\"\nsource = [\"192.0.2.1\"]\nmode = \"{mode}\"\n");
        format!("{rule}action = {action}\n")
    };
    let (drop, limit) = ("\"drop\"", "{ limit = \"each\" }");
    let harmless = ["\"allow\"", "{ limit = \"free\" }"].map(|action| rule(action, "enforce"));
    let service = "[[service]]\nname = \"b\"\naddresses = [\"203.0.113.1\"]\nprofile = \"free\"\n".to_owned();
    let site = Site::new(&stage.edge, &text("enforce", ""))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let cases = [
        ("enforce", String::new(), 0, "enforcing", vec![], "mode enforce:"),
        ("shadow", String::new(), 10, "shadow", vec![], "mode shadow:"),
        ("shadow", rule(drop, "enforce"), 0, "enforcing", vec!["it"], "except rules it:"),
        ("shadow", rule(limit, "enforce"), 0, "enforcing", vec!["it"], "except rules it:"),
        ("shadow", String::new(), 10, "shadow", vec![], "mode shadow:"),
        // More classes than the last but one after it, in the same slot.
        ("shadow", service + &rule(drop, "enforce"), 0, "enforcing", vec!["it"], "except rules it:"),
        ("enforce", rule(drop, "enforce"), 0, "enforcing", vec![], "mode enforce:"),
        ("shadow", rule(drop, "shadow"), 10, "shadow", vec![], "mode shadow:"),
        ("shadow", harmless[0].clone(), 10, "shadow", vec![], "mode shadow:"),
        ("shadow", harmless[1].clone(), 10, "shadow", vec![], "mode shadow:"),
        ("enforce", rule(drop, "shadow"), 0, "enforcing", vec!["it"], "except rules it:"),
        ("enforce", rule(drop, "enforce"), 0, "enforcing", vec![], "mode enforce:"),
    ];
    for (number, (mode, rule, code, state, exceptions, said)) in cases.into_iter().enumerate() {
        site.write_policy(&text(mode, &rule))?;
        assert_eq!(daemon.reload()?, (number as u64 + 1, 0), "{}", daemon.log());
        let (found, status) = site.status()?;
        let expected = (code, &state.into(), &mode.into(), &exceptions.into());
        let policy = &status["policy"];
        assert_eq!((found, &status["state"], &policy["mode"], &policy["exceptions"]), expected, "{rule}");
        let (_, text, _) = site.ask(&["status"])?;
        assert!(text.contains(said), "{said:?} is missing in {text}");
        let is_partial = mode == "shadow" && code == 0;
        assert_eq!(text.contains("enforcing some rules"), is_partial, "{text}");
    }
    Ok(())
}

/// A file cut down to its first line, a service without a profile, a profile whose parents have no budget: no packet can be
/// refused, and only rules in shadow are not enforced either.
#[test]
fn status_tells_a_policy_that_limits_nothing() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"1000/s\""))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let open = policy("").replace("profile = \"each\"", "").replace("[profile.each]", "");
    let rule =
        |rest: &str| format!("[[rule]]\nname = \"it\"\nsource = [\"192.0.2.1\"]\naction = \"drop\"\n{rest}");
    let no_service = format!("version = 1\n{}", rule(""));
    let cases = [
        ("version = 1\n".to_owned(), 10, "limits_nothing", "not enforcing: the policy has no service"),
        (no_service, 10, "limits_nothing", "not enforcing: the policy has no service"),
        (open.clone(), 10, "limits_nothing", "not enforcing: no service has a limit"),
        (policy("parents.v4_24 = {}"), 10, "limits_nothing", "not enforcing: no service has a limit"),
        (
            open.clone() + &rule("mode = \"shadow\""),
            10,
            "shadow",
            "not enforcing: every rule that could drop",
        ),
        (open + &rule(""), 0, "enforcing", "enforcing"),
        (policy("parents.v4_24 = { new_sources = \"9/s\" }"), 0, "enforcing", "enforcing"),
    ];
    for (number, (text, code, state, said)) in cases.into_iter().enumerate() {
        site.write_policy(&text)?;
        assert_eq!(daemon.reload()?, (number as u64 + 1, 0), "{}", daemon.log());
        let (found, status) = site.status()?;
        assert_eq!((found, &status["state"]), (code, &state.into()), "{text}");
        let (_, out, _) = site.ask(&["status"])?;
        assert!(out.contains(said), "{said:?} is missing in {out}");
    }
    Ok(())
}

/// Without an entry: the next packet gets one, or the prefix may bring no new source, or the set is full of busy ones.
#[test]
fn explain_tells_why_a_source_has_no_entry() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, "")?;
    let pins = Pins::new(site.pins());
    pins.prepare()?;
    // A table of one set, under the clock that `explain` reads too.
    let options = LoadOptions {
        pins: Some(LoadOptions::pins_in(&pins.directory())),
        clock: Clock::Kernel,
        ..LoadOptions::isolated(1)
    };
    let mut loaded = load(&options)?;
    let settings = loaded.maps.settings.read(0);
    loaded.maps.settings.write(0, &Settings { seed: options.seed, ..settings });
    let text = policy(
        "packets = { rate = \"1/h\", burst = 10 }\nparents.v4_24.new_sources = { rate = \"1/h\", burst = 1 }",
    ) + "\n[[rule]]\nname = \"it\"\nsource = [\"192.0.2.1\"]\naction = \"drop\"\n";
    apply(&mut loaded.maps, &compile(&rows::policy(&text), &Manifest::default(), 0)?)?;
    let mut send = |source: &str| -> Result<()> {
        let frame = udp(&format!("{source}:1"), "198.18.0.9:443").frame();
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        loaded.program()?.test_run(options)?;
        Ok(())
    };
    let explained = |source: &str| -> Result<(Value, String)> {
        let (_, answer) = site.ask_json(&["explain", source])?;
        let (_, text, _) = site.ask(&["explain", source])?;
        Ok((answer["services"][0].clone(), text))
    };
    let assert_newcomer = |source: &str, expected: Value, said: &str| -> Result<()> {
        let (standing, text) = explained(source)?;
        assert_eq!((&standing["seen"], &standing["newcomer"]), (&Value::Null, &expected), "{standing}");
        assert!(text.contains(said), "{said:?} is missing in {text}");
        Ok(())
    };
    let spent = json!({ "state": "new_sources", "prefix": "10.0.0.0/24" });
    let spent_said = "none to be had: 10.0.0.0/24 has spent its budget new_sources";

    assert_newcomer(
        "10.0.0.1",
        json!({ "state": "admitted" }),
        "nothing lately, every budget of its own is full",
    )?;
    assert_newcomer("192.0.2.1", json!({ "state": "admitted" }), "seen: nothing lately\n")?;
    send("10.0.0.1")?;
    let (standing, text) = explained("10.0.0.1")?;
    assert_eq!(
        (&standing["seen"]["packets"], &standing["newcomer"]),
        (&1.into(), &Value::Null),
        "{standing}"
    );
    assert!(text.contains("seen: 1 packets") && text.contains("modulo 2^32"), "{text}");
    send("10.0.0.2")?;
    assert_newcomer("10.0.0.2", spent.clone(), spent_said)?;
    assert_newcomer("10.0.1.2", json!({ "state": "admitted" }), "nothing lately")?;

    // So many more make the set full.
    (1..WAYS).try_for_each(|net| send(&format!("10.0.{net}.1")))?;
    send("10.0.99.1")?;
    let full = json!({ "state": "table_full" });
    assert_newcomer("10.0.99.1", full.clone(), "it shares the overflow budget of its class")?;
    assert_newcomer("192.0.2.1", full, "no entry: all ways of its set are busy")?;
    assert_newcomer("10.0.0.2", spent, spent_said)
}
