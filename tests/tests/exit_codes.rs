//! The exit code of every command, whatever is loaded and whatever it is asked.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use detector_tests::{
    daemon::{Site, answer},
    netns::{may_run, turn},
    stage::{MTU, Stage, edge_interface, policy},
};
use detector_user::cli::Cli;

/// A command; words in capitals stand for files of the test. Its exit codes while nothing is loaded, and while a daemon runs.
type Row = (&'static str, i32, i32);

/// Of a command that ends when it is told to.
const GOES_ON: i32 = -1;

/// In an order: what is added is undone, what is loaded unloaded.
const ROWS: &[Row] = &[
    ("check FILE", 0, 0),
    ("check BAD", 2, 2),
    ("check LATER", 2, 2),
    ("schema", 0, 0),
    ("token ci", 0, 0),
    ("token ci --role king", 2, 2),
    ("completions bash", 0, 0),
    ("completions tcsh", 2, 2),
    ("man --command apply", 0, 0),
    ("man --command nosuch", 2, 2),
    ("run --policy FILE", 2, 2),
    ("replay CAPTURE --policy FILE --sources 1000", 0, 0),
    ("replay FILE --policy FILE --sources 1000", 2, 2),
    ("fingerprint CAPTURE", 0, 0),
    ("fingerprint CAPTURE --all --json", 0, 0),
    ("fingerprint FILE", 2, 2),
    ("fingerprint", 2, 2),
    ("status", 10, 0),
    ("status --nonsense", 2, 2),
    ("explain 192.0.2.1", 1, 0),
    ("explain nobody", 2, 2),
    ("top --once --interval 0", 1, 0),
    ("top --interval soon", 2, 2),
    ("rules", 1, 0),
    ("victims --sample 1s", 1, 0),
    ("victims --sample 1s --rule nosuch", 1, 2),
    ("record DIR --for 1s", 1, 0),
    ("record DIR --keep 10", 2, 2),
    ("hunt FILE", 2, 2),
    ("hunt NOSUCH", 1, 1),
    ("plan FILE", 1, 0),
    ("plan BAD", 2, 2),
    ("history", 0, 0),
    ("history 99", 2, 2),
    ("show", 1, 0),
    ("show 99", 2, 2),
    ("show --effective", 1, 0),
    ("apply BAD", 2, 2),
    ("apply FILE --confirm soon", 2, 2),
    ("confirm", 1, 1),
    ("rollback", 1, 1),
    ("rollback 99", 1, 2),
    ("apply OTHER --confirm 1h", 1, 0),
    ("apply FILE", 1, 1),
    ("confirm", 1, 0),
    ("apply FILE", 1, 0),
    ("rollback", 1, 0),
    ("throttle 192.0.2.1 --rate 9/s --for 1h --reason x", 1, 0),
    ("throttle 192.0.2.1 --rate fast --for 1h --reason x", 2, 2),
    ("throttle 192.0.2.1 --for 1h --reason x", 2, 2),
    ("throttle fleet:3 --for 1h --reason x", 1, 2),
    ("block 192.0.2.1 --for 1h --reason x", 1, 0),
    ("block 192.0.2.1", 2, 2),
    ("allow 192.0.2.1 --for 1h --reason x", 1, 0),
    ("allow 0.0.0.0/0 --for 1h --reason x", 1, 2),
    ("throttle ja4:t13*_*_* --handshakes 9/s --shared --for 1h --reason x", 1, 0),
    ("throttle ja4:t13*_*_* --rate 9/s --for 1h --reason x", 1, 2),
    ("block ja4:t13 --for 1h --reason x", 2, 2),
    ("undo 1 2 3 4", 1, 0),
    ("undo 1", 1, 2),
    ("fleets", 0, 0),
    ("fleets 99", 2, 2),
    ("fleets many", 2, 2),
    ("events", 1, GOES_ON),
    ("unload", 0, 1),
    ("unload --force", 0, 0),
    ("status", 10, 10),
];

/// A capture without packets: the header of a pcap file of Ethernet frames with times in microseconds.
const EMPTY_CAPTURE: [u8; 24] =
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];

/// Commands that are about no loaded program.
const ELSEWHERE: [&str; 9] =
    ["check", "completions", "fingerprint", "hunt", "man", "replay", "run", "schema", "token"];

#[test]
fn every_command_ends_with_the_code_that_is_promised() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let commands: BTreeSet<_> =
        Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let of_row = |(line, ..): &Row| line.split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(ROWS.iter().map(of_row).collect::<BTreeSet<_>>(), commands, "a row at least for each command");

    let stage = Stage::new(1, MTU)?;
    let text = policy("packets = \"1000/s\"");
    let site = Site::new(&stage.edge, &text)?;
    let files: [(&str, &[u8]); 5] = [
        ("FILE", text.as_bytes()),
        ("OTHER", &[text.as_bytes(), b"# another one\n"].concat()),
        ("BAD", b"version = 1\nfast = true\n"),
        ("LATER", &[text.as_bytes(), b"parents.v4_24.handshakes = \"10/s\"\n"].concat()),
        ("CAPTURE", &EMPTY_CAPTURE),
    ];
    for (name, bytes) in files {
        fs::write(site.files().join(name), bytes).context("writing a file")?;
    }
    assert_codes(&site, |(_, code, _)| *code)?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_codes(&site, |(_, _, code)| *code)?;
    assert_eq!(daemon.end(libc::SIGTERM)?.code(), Some(0), "it was unloaded under it");
    Ok(())
}

/// Asks every row; all that differ are told.
fn assert_codes(site: &Site<'_>, expected: impl Fn(&Row) -> i32) -> Result<()> {
    let mut others = Vec::new();
    for row in ROWS.iter().filter(|row| expected(row) != GOES_ON) {
        let place = |word: &str| match word.bytes().all(|letter| letter.is_ascii_uppercase()) {
            true => site.files().join(word).display().to_string(),
            false => word.to_owned(),
        };
        let words: Vec<_> = row.0.split(' ').map(place).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let (code, out, err) = if words[0] == "events" {
            answer(site.detector(&words)?.arg("--api").arg(site.api()))?
        } else if ELSEWHERE.contains(&words[0]) {
            answer(&mut site.detector(&words)?)?
        } else {
            site.ask(&words)?
        };
        if code != expected(row) {
            others.push(format!("{}: {code}, not {}: {out}{err}", row.0, expected(row)));
        }
        // Whoever is refused is told why, on standard error; nobody is who is not.
        assert_eq!(err.contains("error"), matches!(code, 1 | 2), "{}: {out}{err}", row.0);
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    Ok(())
}

/// A budget that the format knows of and this version does not: refused wherever a policy is read, with its place.
#[test]
fn a_parent_with_handshakes_is_refused() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let text = policy("packets = \"1000/s\"");
    let site = Site::new(&stage.edge, &text)?;
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let (_, before) = site.status()?;
    site.write_policy(&policy("packets = \"1000/s\"\nparents.v4_24.handshakes = \"10/s\""))?;
    let file = site.policy().display().to_string();
    let expected = [
        &format!("{file}:11:15"),
        "`handshakes` is not supported by this version",
        "expected `packets`, `bytes`, `connections` or `new_sources`",
        "remove `handshakes`",
    ];
    assert_eq!(daemon.reload()?, (0, 1));
    let told = [
        answer(&mut site.detector(&["check", &file])?)?,
        site.ask(&["plan", &file])?,
        site.ask(&["apply", &file])?,
        (2, String::new(), daemon.log()),
    ];
    for (code, out, err) in told {
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        for part in expected {
            assert!(err.contains(part), "{part:?} is missing in: {err}");
        }
    }
    assert_eq!(site.status()?.1["policy"], before["policy"], "nothing changed in the kernel");
    Ok(())
}
