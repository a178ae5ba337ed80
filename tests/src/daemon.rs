//! The `detector` binary under test, in a place of its own.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    metrics::Metrics,
    netns::{Namespace, remove_pins, temporary_directory, unique_pins},
    process::{PATIENCE, Running, code, wait_until},
};

/// Where metrics are served, in the daemon's own namespace.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9477);

/// Sources that the tables of tests are sized for: small, so that daemons start at once.
const SOURCES: &str = "10000";

/// Names the directory of the history where no option does.
pub const STATE_VARIABLE: &str = "DETECTOR_STATE";
/// Commands that ask what the daemon saw of the traffic.
const WATCHING: [&str; 8] = ["allow", "apply", "block", "plan", "rollback", "throttle", "undo", "victims"];

/// The binary under test.
///
/// # Errors
///
/// It was not built.
pub fn binary() -> Result<PathBuf> {
    let missing =
        || anyhow!("there is no binary `detector` to test: run `cargo xtask test`, which builds it");
    if let Some(path) = std::env::var_os("DETECTOR_BIN").map(PathBuf::from) {
        return if path.is_file() { Ok(path) } else { Err(missing()) };
    }
    let own = std::env::current_exe().context("looking for our own executable")?;
    // target/release/deps/traffic-1234 or target/release/lab.
    let beside = own.ancestors().skip(1).take(2).map(|directory| directory.join("detector"));
    let profile = own.ancestors().nth(2).unwrap_or(Path::new(""));
    let release = profile.with_file_name("release").join("detector");
    beside.chain([release]).find(|path| path.is_file()).ok_or_else(|| {
        anyhow!("there is no binary `detector` to test: run `cargo xtask test`, which builds it")
    })
}

/// A place for one instance: its pins, its policy, its logs. When it goes, nothing stays attached or pinned.
#[derive(Debug)]
pub struct Site<'a> {
    namespace: &'a Namespace,
    binary: PathBuf,
    pins: PathBuf,
    is_owner: bool,
    files: TempDir,
}

impl<'a> Site<'a> {
    /// Prepares a place in a namespace.
    ///
    /// # Errors
    ///
    /// The binary was not built; no temporary directory can be made.
    pub fn new(namespace: &'a Namespace, policy: &str) -> Result<Self> {
        Self::at(namespace, policy, unique_pins(), true)
    }

    /// The same pins, policy and files of its own, in another namespace. What it leaves pinned stays until this one goes.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn seen_from<'b>(&self, namespace: &'b Namespace, policy: &str) -> Result<Site<'b>> {
        Site::at(namespace, policy, self.pins.clone(), false)
    }

    fn at(namespace: &'a Namespace, policy: &str, pins: PathBuf, is_owner: bool) -> Result<Self> {
        let files = temporary_directory()?;
        let site = Self { namespace, binary: binary()?, pins, is_owner, files };
        site.write_policy(policy)?;
        Ok(site)
    }

    /// The directory of the pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Whether anything is pinned.
    pub fn is_pinned(&self) -> bool {
        self.pins.exists()
    }

    /// A directory for files of the test.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The directory of the history.
    pub fn state(&self) -> PathBuf {
        self.files.path().join("state")
    }

    /// The policy file that daemons are started with.
    pub fn policy(&self) -> PathBuf {
        self.files.path().join("policy.toml")
    }

    /// The socket of the API of daemons that are started here.
    pub fn api(&self) -> PathBuf {
        self.files.path().join("api.sock")
    }

    /// Replaces that file, whole: a daemon reads the one or the other.
    ///
    /// # Errors
    ///
    /// The disk is full.
    pub fn write_policy(&self, policy: &str) -> Result<()> {
        let next = self.files.path().join("policy.next");
        fs::write(&next, policy)
            .and_then(|()| fs::rename(&next, self.policy()))
            .context("writing a policy file")
    }

    /// `detector` with arguments, in the namespace.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn detector(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command(&self.binary)?;
        // Not an option: commands that only read take none.
        command.args(arguments).env(STATE_VARIABLE, self.state());
        Ok(command)
    }

    /// Where its daemon keeps what it saw of the traffic.
    pub fn run_directory(&self) -> PathBuf {
        self.files.path().join("run")
    }

    /// The same about what is loaded here: with `--pins`, and with `--run-dir` where it is known.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.detector(arguments)?;
        command.args(self.places(arguments));
        Ok(command)
    }

    /// The same as a line for a shell, which knows nothing of us: with `--state`, of a command that takes it.
    ///
    /// # Errors
    ///
    /// The binary is gone.
    pub fn line(&self, arguments: &[&str]) -> Result<String> {
        let binary = self.binary.canonicalize().context("finding the binary")?;
        let state = ["--state".into(), self.state().into_os_string()];
        let words = [binary.into_os_string()].into_iter().chain(arguments.iter().map(Into::into));
        let words = words.chain(self.places(arguments)).chain(state);
        let quoted = |word: OsString| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
        Ok(words.map(quoted).collect::<Vec<_>>().join(" "))
    }

    /// Where a command finds what is loaded, and what the daemon saw.
    fn places(&self, arguments: &[&str]) -> Vec<OsString> {
        let mut places: Vec<OsString> = vec!["--pins".into(), self.pins.clone().into()];
        if arguments.first().is_some_and(|command| WATCHING.contains(command)) {
            places.extend(["--run-dir".into(), self.run_directory().into()]);
        }
        places
    }

    /// Runs [`Self::command`] to its end: its exit code, and what it printed.
    ///
    /// # Errors
    ///
    /// It cannot be started, or a signal ended it.
    pub fn ask(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        answer(&mut self.command(arguments)?)
    }

    /// The JSON that `detector` answers with, and its exit code.
    ///
    /// # Errors
    ///
    /// It prints none.
    pub fn ask_json(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let (code, out, err) = self.ask(&[arguments, &["--json"]].concat())?;
        let value = serde_json::from_str(&out)
            .with_context(|| format!("{arguments:?} exits with {code} and prints {out:?}, {err:?}"))?;
        Ok((code, value))
    }

    /// Runs `detector run` that is expected to end by itself: its exit code, and what it said.
    ///
    /// # Errors
    ///
    /// It goes on running.
    pub fn refused(&self, interfaces: &[&str], arguments: &[&str]) -> Result<(i32, String)> {
        self.refused_with(&mut self.run_command(interfaces, arguments)?)
    }

    /// The same with a command made before.
    ///
    /// # Errors
    ///
    /// It goes on running.
    pub fn refused_with(&self, command: &mut Command) -> Result<(i32, String)> {
        let log = self.files.path().join(crate::netns::unique("log"));
        let file = fs::File::create(&log).context("making a log file")?;
        command.stdout(file.try_clone().context("duplicating a descriptor")?).stderr(file);
        let mut process = Running::start(command)?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let status = process.end(PATIENCE).with_context(|| format!("it said:\n{}", said()))?;
        Ok((code(status)?, said()))
    }

    /// `detector run` on interfaces, with further arguments, not started yet.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn run_command(&self, interfaces: &[&str], arguments: &[&str]) -> Result<Command> {
        let mut command = self.detector(&["run", "--policy"])?;
        command.arg(self.policy()).arg("--pins").arg(&self.pins);
        command.arg("--run-dir").arg(self.run_directory());
        if !arguments.contains(&"--sources") {
            command.args(["--sources", SOURCES]);
        }
        if !arguments.contains(&"--metrics") {
            command.args(["--metrics", &METRICS.to_string()]);
        }
        if !arguments.contains(&"--api") {
            command.arg("--api").arg(self.api());
        }
        for interface in interfaces {
            command.args(["--iface", interface]);
        }
        command.args(arguments);
        Ok(command)
    }

    /// Starts the daemon on interfaces and waits until it is ready.
    ///
    /// # Errors
    ///
    /// It ends, or is not ready in time; the error holds its log.
    pub fn start(&self, interfaces: &[&str], arguments: &[&str]) -> Result<Daemon<'_>> {
        self.start_with(&mut self.run_command(interfaces, arguments)?)
    }

    /// The same with a command made before.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(&self, command: &mut Command) -> Result<Daemon<'_>> {
        let log = self.files.path().join(crate::netns::unique("log"));
        let file = fs::File::create(&log).context("making a log file")?;
        command.stdout(file.try_clone().context("duplicating a descriptor")?).stderr(file);
        let mut daemon = Daemon { process: Running::start(command)?, site: self, log };
        daemon.wait_until_ready().with_context(|| format!("its log:\n{}", daemon.log()))?;
        Ok(daemon)
    }

    /// What `status` says, and its exit code.
    ///
    /// # Errors
    ///
    /// It could not tell.
    pub fn status(&self) -> Result<(i32, Value)> {
        self.ask_json(&["status"])
    }

    /// The sources in the table, as `top` tells.
    ///
    /// # Errors
    ///
    /// Nothing is loaded.
    pub fn sources(&self) -> Result<Vec<Source>> {
        let (code, answer) = self.ask_json(&["top", "--once", "--interval", "0", "--rows", "1000"])?;
        let rows = answer["top"].as_array().ok_or_else(|| anyhow!("top exits with {code}: {answer}"))?;
        Ok(rows.iter().map(Source::read).collect())
    }

    /// One source of [`Self::sources`]; all zeros while it is unknown.
    ///
    /// # Errors
    ///
    /// Nothing is loaded.
    pub fn source(&self, prefix: &str) -> Result<Source> {
        let found = self.sources()?.into_iter().find(|source| source.prefix == prefix);
        Ok(found.unwrap_or_default())
    }

    /// Packets counted under a verdict and a reason, `""` for any, by `status`: works without a daemon.
    ///
    /// # Errors
    ///
    /// Nothing is loaded.
    pub fn reason(&self, reason: &str) -> Result<u64> {
        Ok(self.status()?.1["reasons"][reason].as_u64().unwrap_or_default())
    }

    /// The daemon's metrics.
    ///
    /// # Errors
    ///
    /// No daemon answers.
    pub fn metrics(&self) -> Result<Metrics> {
        self.namespace.fetch(METRICS, "/metrics").map(Metrics)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        if !self.is_owner || !self.pins.exists() {
            return;
        }
        if let Err(error) = self.ask(&["unload", "--force"]) {
            eprintln!("cannot unload: {error:#}");
        }
        remove_pins(&self.pins);
    }
}

/// Runs a program to its end: its exit code, and what it printed.
///
/// # Errors
///
/// It cannot be started, or a signal ended it.
pub fn answer(command: &mut Command) -> Result<(i32, String, String)> {
    let Output { status, stdout, stderr } = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((code(status)?, text(stdout), text(stderr)))
}

/// A source of the table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its prefix.
    pub prefix: String,
    /// Packets of any verdict.
    pub packets: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Connections it asked for.
    pub connections: u64,
}

impl Source {
    fn read(row: &Value) -> Self {
        let number = |name: &str| row[name].as_u64().unwrap_or_default();
        Self {
            prefix: row["source"].as_str().unwrap_or_default().to_owned(),
            packets: number("packets"),
            dropped: number("dropped"),
            connections: number("connections"),
        }
    }

    /// Packets that passed.
    pub fn passed(&self) -> u64 {
        self.packets.saturating_sub(self.dropped)
    }
}

/// A daemon that runs; killed when this is dropped.
#[derive(Debug)]
pub struct Daemon<'a> {
    process: Running,
    site: &'a Site<'a>,
    log: PathBuf,
}

impl Daemon<'_> {
    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        self.process.signal(signal)
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// The kernel cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_none())
    }

    /// Ends it by a signal.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn end(mut self, signal: i32) -> Result<ExitStatus> {
        self.process.signal(signal)?;
        self.process.end(PATIENCE)
    }

    /// Has it read its policy file again, and waits until it did: how many were applied and refused, in all.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn reload(&mut self) -> Result<(u64, u64)> {
        let before = self.reloads()?;
        self.process.signal(libc::SIGHUP)?;
        wait_until("the policy is read again", PATIENCE, || {
            Ok(Some(self.reloads()?).filter(|&now| now != before))
        })
    }

    /// Reloads that were applied and refused.
    ///
    /// # Errors
    ///
    /// It serves no metrics.
    pub fn reloads(&self) -> Result<(u64, u64)> {
        let metrics = self.site.metrics()?;
        let count = |result| metrics.sum("detector_policy_reloads_total", &[("result", result)]);
        Ok((count("applied"), count("failed")))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        wait_until("detector is ready", PATIENCE, || {
            if let Some(status) = self.process.ended()? {
                bail!("it ended: {status}");
            }
            let is_ready = self.log().contains("ready") && matches!(self.site.status(), Ok((0 | 10, _)));
            Ok(is_ready.then_some(()))
        })
    }
}
