//! `cargo xtask kernels`: the tests that must hold on the oldest supported kernel, on that kernel, in qemu.

mod debian;
mod guest;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::command::{cargo, read, say};
use crate::initramfs::Initramfs;
use crate::paths;
use crate::setup::setup;
use crate::tally::Tally;
use crate::test::{HOST_CRATES, close};

/// The oldest kernel series that detector promises to run on.
const OLDEST: &str = "6.1";

/// Integration tests of detector-tests that run on every kernel, beside those whose name starts with [`PREFIX`].
const TESTS: &[&str] = &["packet_rows"];

/// What the name of an integration test starts with that is made for booted kernels.
const PREFIX: &str = "kernel_";

/// Modules the tests need, each after those it depends on. What a kernel has built in is not missed.
const MODULES: &[&str] = &["veth"];

/// `/init` of the booted kernel.
const INIT: &str = include_str!("init.sh");

/// What to boot and what to run there.
#[derive(Args)]
pub(crate) struct Options {
    /// A kernel series of Debian, such as 6.1 or 6.12; may be repeated
    #[arg(long = "version", value_name = "SERIES", default_value = OLDEST)]
    versions: Vec<String>,
    /// Keep the initramfs, and say how to boot it by hand
    #[arg(long)]
    keep: bool,
    /// Run this test program instead of the project's; may be repeated
    #[arg(long = "exec", value_name = "FILE")]
    executables: Vec<PathBuf>,
}

/// Sets up, boots, prints the closing line.
pub(crate) fn kernels(options: &Options) -> Result<()> {
    setup()?;
    let tests = match options.executables.as_slice() {
        [] => project_tests()?,
        files => files.iter().map(|file| named(file)).collect::<Result<_>>()?,
    };
    let mut tally = Tally::default();
    for version in &options.versions {
        tally += boot(version, &tests, options.keep)?;
    }
    close(tally)
}

/// Runs the project's tests on the oldest supported kernel.
pub(crate) fn oldest() -> Result<Tally> {
    boot(OLDEST, &project_tests()?, false)
}

/// A test program and the name it gets in the booted system.
struct Test {
    name: String,
    executable: PathBuf,
}

fn named(file: &Path) -> Result<Test> {
    let executable =
        file.canonicalize().with_context(|| format!("looking for the test program {}", file.display()))?;
    let name = executable.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Test { name, executable })
}

fn boot(version: &str, tests: &[Test], keep: bool) -> Result<Tally> {
    let directory = paths::target().join("kernels");
    let kernel = debian::kernel(version, &directory)?;
    say("kernels", format!("packing {} test programs for {}", tests.len(), kernel.name));
    let tree = directory.join(format!("initramfs-{version}"));
    let image = directory.join(format!("initramfs-{version}.cpio"));
    fill(&tree, &kernel, tests)?.pack(&image)?;
    let tally = guest::run(&kernel.image, &image);
    if keep {
        say("kernels", format!("kept {} and {}", tree.display(), image.display()));
        say("kernels", format!("boot it by hand: {:?}", guest::qemu(&kernel.image, &image)));
    } else {
        fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
        fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    }
    tally.with_context(|| format!("testing on {}", kernel.name))
}

fn fill(tree: &Path, kernel: &debian::Kernel, tests: &[Test]) -> Result<Initramfs> {
    let initramfs = Initramfs::new(tree.to_path_buf(), INIT)?;
    for (order, module) in MODULES.iter().enumerate() {
        if let Some(file) = kernel.module(module)? {
            initramfs.add_module(order, &file)?;
        }
    }
    for test in tests {
        initramfs.add_test(&test.name, &test.executable)?;
    }
    let detector = paths::release("detector");
    if detector.is_file() {
        initramfs.add_program("detector", &detector)?;
    }
    Ok(initramfs)
}

/// Builds the project's tests and picks those for booted kernels.
fn project_tests() -> Result<Vec<Test>> {
    say("kernels", "building the tests");
    let mut build = cargo("test");
    build.args(["--release", "--no-run", "--message-format=json"]).args(HOST_CRATES);
    let messages =
        read("building the tests", &mut build, "`cargo test --release --no-run` shows what is wrong")?;
    let tests: Vec<_> = messages.lines().filter_map(test_of_message).collect();
    if tests.is_empty() {
        bail!(
            "there is no test to run on old kernels\n  next: name one in {TESTS:?} or let its name start with {PREFIX}"
        );
    }
    Ok(tests)
}

/// The test program that a message of cargo announces, if it is for booted kernels.
fn test_of_message(message: &str) -> Option<Test> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    let is_integration_test =
        message["reason"] == "compiler-artifact" && message["target"]["kind"][0] == "test";
    let is_for_kernels = TESTS.contains(&name) || name.starts_with(PREFIX);
    if !is_integration_test || !is_for_kernels {
        return None;
    }
    Some(Test { name: name.to_owned(), executable: message["executable"].as_str()?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_for_kernels_are_picked() {
        let message = |name: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":"/t/x-1"}}"#
            )
        };
        let test = test_of_message(&message("kernel_floor", "test")).expect("a test");
        assert_eq!((test.name.as_str(), test.executable.as_path()), ("kernel_floor", Path::new("/t/x-1")));
        assert!(test_of_message(&message("packet_rows", "test")).is_some());
        assert!(test_of_message(&message("packet_rows", "bin")).is_none());
        assert!(test_of_message(&message("namespaces", "test")).is_none());
        assert!(test_of_message(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(test_of_message("not a message").is_none());
    }
}
