//! The memory that a million source prefixes take of who checks and applies them, by real processes.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read as _},
    mem,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    ptr,
    time::Instant,
};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::Site,
    process::code,
    random::Random,
    stage::{Stage, policy},
};
use serde_json::{Value, json};

const LIMIT: &str = "packets = { rate = \"1000/s\", burst = 1000 }";

/// Prefixes of each file.
const PREFIXES: u32 = 1_000_000;

/// What a process may have in memory at its peak.
const PEAK_BYTES_MAX: u64 = 400_000_000;

/// In the file of its family; the one beside it is not.
const LISTED_V4: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);
const LISTED_V6: Ipv6Addr = Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0);

#[test]
fn a_million_prefixes_are_checked_and_applied_in_bounded_memory() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    // With a small table of sources: commands map it, and what they touch of it counts as theirs though it is the kernel's.
    let _daemon = site.start(&["edge0"], &[])?;
    // Each is applied over the one before.
    let v6 = addresses_v6()?;
    let cases = [
        ("ipv4", addresses_v4(0)?, LISTED_V4.to_string(), "11.0.0.1", false),
        ("ipv6", v6.clone(), LISTED_V6.to_string(), "3fff::1", false),
        ("other", addresses_v4(1 << 24)?, "12.0.0.0".to_owned(), "11.0.0.0", false),
        ("forced", v6, LISTED_V6.to_string(), "12.0.0.0", true),
    ];
    for (name, addresses, listed, other, is_forced) in cases {
        fs::write(site.files().join(format!("{name}.txt")), addresses).context("writing prefixes")?;
        let file = site.files().join(format!("{name}.toml"));
        let rule = format!("[[rule]]\nname = \"{name}\"\nsource_file = \"{name}.txt\"\naction = \"drop\"\n");
        fs::write(&file, policy(LIMIT) + &rule).context("writing a policy")?;
        let file = file.to_str().context("a path")?;

        let checked = done_within_bounds(&mut site.detector(&["check", file, "--json"])?)?;
        assert_eq!(checked["source_prefixes"], PREFIXES, "{name}: {checked}");
        let force: &[&str] = if is_forced { &["--force"] } else { &[] };
        let mut apply = site.command(&["apply", file, "--json"])?;
        let applied = done_within_bounds(apply.args(force))?;
        assert_eq!(applied["source_prefixes"], PREFIXES, "{name}: {applied}");
        let rule_of = |address: &str| -> Result<Value> {
            Ok(site.ask_json(&["explain", address])?.1["services"][0]["rule"].clone())
        };
        assert_eq!((rule_of(&listed)?, rule_of(other)?), (json!(name), Value::Null));
    }
    Ok(())
}

/// Every other address of a /8 as they come, an eighth of them: none is merged with its neighbour.
fn addresses_v4(first: u32) -> Result<String> {
    let mut addresses = String::new();
    for number in 0..PREFIXES {
        // An odd factor meets each of them once.
        let place = number.wrapping_mul(0x9e37_79b1) % (1 << 23);
        let address = Ipv4Addr::from_bits(LISTED_V4.to_bits() + first + 2 * place);
        writeln!(addresses, "{address}").context("writing to a text")?;
    }
    Ok(addresses)
}

/// Addresses that have little in common.
fn addresses_v6() -> Result<String> {
    let mut random = Random::new(1);
    let mut addresses = format!("{LISTED_V6}\n");
    for _ in 1..PREFIXES {
        let place = u128::from(random.bits()) << 40;
        let address = Ipv6Addr::from_bits(LISTED_V6.to_bits() | place);
        writeln!(addresses, "{address}").context("writing to a text")?;
    }
    Ok(addresses)
}

/// Runs a command to its end, which is a good one, with no more memory at its peak than it may have; the JSON that it prints.
fn done_within_bounds(command: &mut Command) -> Result<Value> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let mut said = String::new();
    child.stdout.take().context("a pipe")?.read_to_string(&mut said).context("reading what it says")?;
    let (status, peak_bytes) = wait(child)?;
    println!("{:.2} s, {} MB: {command:?}", began.elapsed().as_secs_f64(), peak_bytes / 1_000_000);
    assert_eq!(code(status)?, 0, "{said}");
    assert!(peak_bytes <= PEAK_BYTES_MAX, "{peak_bytes} bytes at the peak of {command:?}");
    serde_json::from_str(&said).with_context(|| format!("it prints {said:?}"))
}

/// Waits for the end of a process; how it ended, and what it had in memory at its peak. That counts what was in ours when we
/// made it, too, which is far less.
fn wait(child: Child) -> Result<(ExitStatus, u64)> {
    let id = i32::try_from(child.id()).context("process numbers are below 2^22")?;
    let mut status = 0;
    // SAFETY: all zeros are a valid value of these integers.
    let mut used: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for the call. The child was not waited for, so the number is still its own.
    let ended = unsafe { libc::wait4(id, ptr::from_mut(&mut status), 0, ptr::from_mut(&mut used)) };
    if ended != id {
        return Err(io::Error::last_os_error()).context("waiting for a process");
    }
    let peak_kib = u64::try_from(used.ru_maxrss).context("what the kernel counts is not negative")?;
    Ok((ExitStatus::from_raw(status), peak_kib << 10))
}
