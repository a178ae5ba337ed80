//! `detector run`: load or adopt, apply, attach, serve, and end cleanly.

mod events;
pub mod metrics;
mod start;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};

use crate::{
    cli::{MetricsAddress, RunArgs},
    commands::{
        EXIT_DONE, Failure,
        apply::{apply_to, clocks},
        read_policy,
    },
    kernel::{
        apply::{is_trial_over, retime, settle},
        attach::Attachment,
        maps::Maps,
        pins::{Lock, Pins, PinsError},
        read,
    },
    log, policy,
};

/// What runs.
struct Running {
    maps: Maps,
    attachments: Vec<Attachment>,
    lock: Lock,
    reloads: Reloads,
    events: u64,
}

impl Running {
    /// Whether the program of this daemon runs on an interface.
    fn is_attached(&self, attachment: &Attachment) -> Result<bool, PinsError> {
        // Under the name of its pin there may be a successor's.
        Ok(self.lock.is_current() && attachment.is_attached()?)
    }
}

/// Time between two looks at whether the interfaces are still there.
const LOOK: Duration = Duration::from_secs(1);

/// For which policy, and with how many nanoseconds between the two clocks, the ends of rules were looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    generation: u64,
    between_ns: u64,
}

/// The coarse clock steps behind the other one; more than this between two looks is a clock that was set.
const CLOCKS_APART_NS_MAX: u64 = 500_000_000;

/// How often the policy was read again.
#[derive(Debug, Clone, Copy, Default)]
struct Reloads {
    applied: u64,
    failed: u64,
}

type Shared = Arc<Mutex<Running>>;

/// A panic elsewhere leaves nothing half done in here: the maps are the kernel's.
fn lock(running: &Shared) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until a signal.
pub fn run(args: &RunArgs) -> Result<u8, Failure> {
    log::start(args.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| {
        Failure::failed(format_args!(
            "cannot wait for signals and events: {error}; look at the limit of open files (`ulimit -n`)"
        ))
    })?;
    runtime.block_on(serve(args))
}

async fn serve(args: &RunArgs) -> Result<u8, Failure> {
    // Signals and the port come before the interfaces: what is attached always has somebody to detach it.
    let signals = Signals::listen()?;
    let prepared = start::prepare(args)?;
    let listener = match bind(args.metrics).await {
        Ok(listener) => listener,
        Err(failure) => {
            prepared.abandon()?;
            return Err(failure);
        }
    };
    let started = start::start(args, prepared)?;
    let running: Shared = Arc::new(Mutex::new(Running {
        maps: started.maps,
        attachments: started.attachments,
        lock: started.lock,
        reloads: Reloads::default(),
        events: 0,
    }));
    if let Some(listener) = listener {
        tokio::spawn(metrics::serve(listener, running.clone()));
    }
    if let Some(events) = started.events {
        tokio::spawn(events::follow(events, running.clone()));
    }
    if let Some(log) = started.log {
        tokio::spawn(log);
    }
    let daemon = Daemon {
        policy: args.policy.clone(),
        pins: started.pins,
        keep: args.keep,
        running,
        _program: started.ebpf,
    };
    tracing::info!("ready; SIGHUP reads the policy again, SIGTERM ends");
    daemon.run(signals).await;
    daemon.stop()?;
    Ok(EXIT_DONE)
}

async fn bind(address: MetricsAddress) -> Result<Option<TcpListener>, Failure> {
    let MetricsAddress::At(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format_args!(
            "cannot serve metrics at {address}: {error}; choose another address with --metrics, or `off`"
        ))
    })?;
    tracing::info!(address = %address, "metrics are served at /metrics");
    Ok(Some(listener))
}

/// The signals that the daemon answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

struct Daemon {
    policy: PathBuf,
    pins: Pins,
    keep: bool,
    running: Shared,
    _program: aya::Ebpf,
}

impl Daemon {
    /// Serves until it is told to end.
    async fn run(&self, mut signals: Signals) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = BTreeSet::new();
        let mut kept = Kept::default();
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    self.look(&mut lost);
                    self.keep_time(&mut kept);
                }
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hangup.recv() => self.reload(),
            }
        }
    }

    /// Says once of each interface that it is lost.
    fn look(&self, lost: &mut BTreeSet<String>) {
        let running = lock(&self.running);
        for attachment in &running.attachments {
            // What cannot be read now can at the next look, and is an error of the metrics meanwhile.
            let is_lost = running.is_attached(attachment).is_ok_and(|is_attached| !is_attached);
            if !is_lost || !lost.insert(attachment.interface.clone()) {
                continue;
            }
            let interface = &attachment.interface;
            if running.lock.is_current() {
                tracing::warn!(
                    interface = %interface,
                    "the interface was deleted, nothing is limited on it: when it is there again, restart detector"
                );
            } else {
                tracing::warn!(
                    interface = %interface,
                    "the program was unloaded under this daemon, which limits nothing any more: end or restart it"
                );
            }
        }
    }

    /// Writes down that a trial is over, which the program sees by itself, and moves the ends of rules when the clock of the
    /// wall was set. `kept`: for which policy and between which clocks that was done last.
    fn keep_time(&self, kept: &mut Kept) {
        let running = lock(&self.running);
        let clocks = clocks(&running.maps);
        let between_ns = clocks.unix_ns.saturating_sub(clocks.kernel_ns);
        let is_kept = kept.generation == read::settings(&running.maps).active
            && kept.between_ns.abs_diff(between_ns) < CLOCKS_APART_NS_MAX
            && !is_trial_over(&running.maps);
        if is_kept {
            return;
        }
        // Who applies a policy at this moment does both; what is left to do is done at the next look.
        let Ok(_lock) = self.pins.lock_policy() else { return };
        if settle(&running.maps) {
            tracing::warn!(
                policy = read::epoch(&running.maps),
                "nobody confirmed the policy: it was taken back, and the one before is active"
            );
        }
        match retime(&running.maps, clocks) {
            Ok(0) => {}
            Ok(moved) => tracing::warn!("the clock was set: the ends of rules were moved ({moved} classes)"),
            Err(error) => tracing::error!("cannot keep the ends of rules: {error}"),
        }
        *kept = Kept { generation: read::settings(&running.maps).active, between_ns };
    }

    /// Reads the policy again. A bad one changes nothing.
    fn reload(&self) {
        let mut running = lock(&self.running);
        let result = read_policy(&self.policy)
            .and_then(|file| if running.lock.is_current() { Ok(file) } else { Err(unloaded()) })
            .and_then(|file| apply_to(&mut running.maps, &self.pins, &file, None).map(|epoch| (epoch, file)));
        match result {
            Ok((epoch, file)) => {
                running.reloads.applied += 1;
                start::warn_of(&file);
                tracing::info!(policy = epoch, file = %file.name, "applied the policy");
            }
            Err(failure) => {
                running.reloads.failed += 1;
                tracing::error!("the policy was not reloaded, the old one stays: {}", failure.message);
            }
        }
    }

    fn stop(&self) -> Result<(), Failure> {
        if self.keep {
            tracing::info!("ended; the program stays attached (--keep), `detector unload` removes it");
            return Ok(());
        }
        if !lock(&self.running).lock.is_current() {
            tracing::info!("ended: the program was unloaded before, its pins are not this daemon's any more");
            return Ok(());
        }
        self.pins.remove()?;
        tracing::info!("ended: detached, pins removed");
        Ok(())
    }
}

fn unloaded() -> Failure {
    Failure::failed("the program was unloaded under this daemon: start `detector run` again")
}

/// The warnings of a policy, as one text.
fn warnings(file: &crate::commands::PolicyFile) -> Option<String> {
    if file.checked.warnings.is_empty() {
        return None;
    }
    Some(policy::render(&file.name, &file.text, &file.checked.warnings).trim_end().to_owned())
}
