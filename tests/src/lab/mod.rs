//! The lab of `cargo xtask run`: an edge with a real HTTPS service, clients below their limits, offenders above, and
//! detector between them; live, then a summary. Everything is removed at the end, whatever ends it.

mod account;
mod cast;
pub mod fleet;
mod scene;
mod view;

use std::{
    io::{self, Write as _},
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use account::{Summary, Verdict};

use self::{
    account::Meter,
    cast::{Actor, FLOOD_PER_SECOND, Part, cast},
    scene::{INTERFACES, OFFENDERS, SERVICE, SERVICE_V6, Scene},
    view::Style,
};
use crate::{
    daemon::{Daemon, Site},
    https::Https,
    netns::is_root,
    traffic::{Flood, Pace, Receiver},
};

/// The policy that the lab runs under.
pub const POLICY: &str = include_str!("policy.toml");

/// Longest run of a lab that nobody ends.
const FOREVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// How to run the lab.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// It ends by itself after that.
    pub seconds: Option<u64>,
    /// Print the summary as JSON, and no table.
    pub json: bool,
}

/// Runs the lab until its time is over or `stop` is set, and prints what happens.
///
/// # Errors
///
/// It cannot be set up, or detector ends before it.
pub fn run(options: Options, stop: &AtomicBool) -> Result<Summary> {
    if !is_root() {
        bail!("network namespaces and XDP need root: run this as root, or with `sudo`");
    }
    let cast = cast();
    say("setting up: namespaces edge, clients, offenders; nginx with HTTPS on the edge");
    let scene = scene(&cast)?;
    let https = Https::start(&scene.edge, &[SERVICE, SERVICE_V6])?;
    let site = Site::new(&scene.edge, POLICY)?;
    let mut daemon = site.start(&INTERFACES, &[])?;
    say("detector is attached to wan0 and wan1 of the edge, its policy is tests/src/lab/policy.toml");
    if options.seconds.is_none() {
        say("Ctrl-C ends the lab");
    }
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let receiver = Receiver::start(&scene.edge, SERVICE)?;
    thread::scope(|scope| {
        // Also when what follows fails: the scope waits for its threads.
        let _stopping = StopOnDrop(&over);
        for actor in &cast {
            actor.play(scope, &scene, &https, &over);
        }
        let flood = flood(&scene, &cast)?;
        watch(options, stop, &mut daemon, &site, &cast)?;
        flood.stop()
    })?;
    let summary = Summary::new(&site, &cast, start.elapsed(), &receiver)?;
    let text = if options.json {
        format!("{:#}", summary.json())
    } else {
        view::sentences(Style::of_stdout(), &summary)
    };
    print(&format!("{text}\n"))?;
    Ok(summary)
}

fn scene(cast: &[Actor]) -> Result<Scene> {
    let sources = |is_client: bool| -> Vec<IpAddr> {
        let actors = cast.iter().filter(|actor| (actor.part == Part::Client) == is_client);
        actors.map(|actor| actor.source).collect()
    };
    let connecting =
        cast.iter().find(|actor| actor.part == Part::Connections).context("the cast is fixed")?;
    Scene::new(&sources(true), &sources(false), connecting.source).context("setting up the lab")
}

fn flood(scene: &Scene, cast: &[Actor]) -> Result<Flood> {
    let actor = cast.iter().find(|actor| actor.part == Part::Flood).context("the cast is fixed")?;
    let pace = Pace { per_second: FLOOD_PER_SECOND, at_most: FOREVER };
    Flood::start(&scene.offenders, OFFENDERS, Scene::flow(actor.source).datagram(), pace)
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Shows a table every second until the time is over or somebody says stop.
fn watch(
    options: Options,
    stop: &AtomicBool,
    daemon: &mut Daemon<'_>,
    site: &Site<'_>,
    cast: &[Actor],
) -> Result<()> {
    let start = Instant::now();
    let seconds = options.seconds.unwrap_or(FOREVER.as_secs());
    let style = Style::of_stdout();
    let mut meter = Meter::new();
    for second in 1..=seconds {
        while start.elapsed() < Duration::from_secs(second) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        if !daemon.is_running()? {
            bail!("detector ended while the lab ran; its log:\n{}", daemon.log());
        }
        let lines = meter.look(site, cast)?;
        if options.json {
            continue;
        }
        print(&format!("{}{}", style.fresh(), view::table(style, second, &lines)))?;
    }
    Ok(())
}

fn say(text: &str) {
    eprintln!("lab: {text}");
}

/// A reader that went away ends the lab in order, not by a panic.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("printing what happens")
}
