//! `detector run`: load or adopt, apply, attach, serve, and end cleanly.

mod events;
mod exemplars;
pub mod feed;
pub(crate) mod fleets;
mod initials;
mod looks;
pub mod metrics;
mod notices;
mod start;
pub(crate) mod turns;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::MissedTickBehavior,
};
use tokio_rustls::TlsConnector;

use serde_json::{Value, json};

use crate::{
    api,
    change::{Change, apply_to},
    cli::{MetricsAddress, RunArgs},
    clock,
    commands::{EXIT_DONE, Failure, PolicyFile, read_policy},
    guard::Guard,
    history::{Author, Entry, History, Origin},
    kernel::{
        attach::Attachment,
        mapped::Access,
        maps::Maps,
        pins::{Lock, Pins, PinsError},
    },
    log, policy,
    traffic::Watch,
};
use feed::{Event, Feed};
use looks::Looks;
use turns::{Kind, Turns};

/// What runs. Nothing in it is ever held over long work: whoever changes a policy opens the maps for itself, and has the
/// turn to.
pub(crate) struct Running {
    pub(crate) pins: Pins,
    pub(crate) feed: Feed,
    /// Of who changes the policy from within this process: so many at a time, and the end waits for all.
    pub(crate) changes: Turns,
    /// Has the daemon look at once at what was changed.
    pub(crate) changed: Notify,
    pub(crate) history: History,
    /// Who started it.
    author: Author,
    /// Those that it was started for, in one line.
    interfaces: String,
    /// Whether policies are applied though they need to be forced.
    force: bool,
    pub(crate) guard: Guard,
    maps: Maps,
    attachments: Vec<Attachment>,
    lock: Lock,
    reloads: Reloads,
    events: AtomicU64,
    exemplars: exemplars::Counts,
    /// Fingerprints that rules act on, each at a service.
    client_rules: AtomicU64,
    notices: Arc<notices::Counts>,
    /// What is known of fleets.
    pub(crate) fleets: fleets::Fleets,
}

impl Running {
    /// Whether the program of this daemon runs on an interface.
    fn is_attached(&self, attachment: &Attachment) -> Result<bool, PinsError> {
        // Under the name of its pin there may be a successor's.
        Ok(self.lock.is_current() && attachment.is_attached()?)
    }

    /// The maps, to change a policy.
    ///
    /// # Errors
    ///
    /// The program was unloaded under this daemon.
    pub(crate) fn maps_to_change(&self) -> Result<Maps, Failure> {
        if !self.lock.is_current() {
            return Err(unloaded());
        }
        Ok(Maps::pinned(&self.pins.loaded()?, Access::Write)?)
    }

    /// Writes an audit entry about this daemon.
    fn record(&self, action: &str, after: Option<Value>) {
        let entry = Entry::new(clock::unix_s(), &self.author, Origin::Daemon, action, &self.interfaces);
        self.write(&Entry { after, ..entry });
    }

    fn write(&self, entry: &Entry<'_>) {
        if let Err(error) = self.history.record(entry) {
            tracing::warn!("{} is not recorded: {error}", entry.action);
        }
    }
}

/// Time between two looks at whether the interfaces are still there.
const LOOK: Duration = Duration::from_secs(1);

/// Threads for work that takes longer than a moment: reading tables, compiling policies.
pub(crate) const BLOCKING_THREADS_MAX: usize = 20;

/// How long the end waits for work that changes nothing.
const END_TIME_MAX: Duration = Duration::from_secs(2);

/// How often the policy was read again.
#[derive(Debug, Default)]
struct Reloads {
    applied: AtomicU64,
    failed: AtomicU64,
}

pub(crate) type Shared = Arc<Running>;

/// Does work that takes longer than a moment beside the loop of signals and connections.
///
/// # Errors
///
/// The work fails, or panics.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Failure::failed(format_args!("the work was ended: {error}; look at the log")))
    })
}

/// Runs until a signal.
pub fn run(args: &RunArgs) -> Result<u8, Failure> {
    log::start(args.json);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::failed(format_args!(
            "cannot wait for signals and events: {error}; look at the limit of open files (`ulimit -n`)"
        ))
    })?;
    let ended = runtime.block_on(serve(args));
    // Who still reads has nobody to tell.
    runtime.shutdown_timeout(END_TIME_MAX);
    ended
}

async fn serve(args: &RunArgs) -> Result<u8, Failure> {
    // Signals and the port come before the interfaces: what is attached always has somebody to detach it.
    let signals = Signals::listen()?;
    let prepared = start::prepare(args)?;
    let (listener, api, tls_client) = match listen(args).await {
        Ok(listeners) => listeners,
        Err(failure) => {
            prepared.abandon()?;
            return Err(failure);
        }
    };
    let started = start::start(args, prepared)?;
    let _watch = Watch::start(started.pins.directory(), &args.run_dir);
    let running: Shared = Arc::new(Running {
        pins: started.pins,
        feed: Feed::new(),
        changes: Turns::default(),
        changed: Notify::new(),
        history: started.history,
        author: started.author,
        interfaces: args.interfaces.join(", "),
        force: args.force,
        guard: Guard::of_daemon(args),
        maps: started.maps,
        attachments: started.attachments,
        lock: started.lock,
        reloads: Reloads::default(),
        events: AtomicU64::new(0),
        exemplars: exemplars::Counts::default(),
        client_rules: AtomicU64::new(0),
        notices: Arc::default(),
        fleets: fleets::Fleets::new(&args.state.state, &args.pins),
    });
    notices::start(&args.notices, tls_client, &running);
    if let Some(listener) = listener {
        tokio::spawn(metrics::serve(listener, running.clone()));
    }
    let secrets = api.serve(&running);
    if let Some(events) = started.events {
        tokio::spawn(events::follow(events, running.clone()));
    }
    if let Some(exemplars) = started.exemplars {
        tokio::spawn(exemplars::follow(exemplars, running.clone()));
    }
    if let Some(log) = started.log {
        tokio::spawn(log);
    }
    let Signals { terminate, interrupt, hangup } = signals;
    tokio::spawn(reload_on(hangup, running.clone(), args.policy.clone(), secrets));
    let fleets = match fleets::Threads::start(args, &running) {
        Ok(threads) => Some(threads),
        Err(failure) => {
            tracing::error!("nobody looks for fleets: {}", failure.message);
            None
        }
    };
    running.record("start", None);
    tracing::info!("ready; SIGHUP reads the policy again, SIGTERM ends");
    look_until(terminate, interrupt, &running).await;
    // A change that is being made comes to its end, and so does an epoch.
    let _end = running.changes.end().await;
    if let Some(fleets) = fleets {
        fleets.end();
    }
    stop(&running, args.keep)?;
    drop(started.ebpf);
    Ok(EXIT_DONE)
}

/// The listeners of metrics and of the API, and what notices need: all that can be refused without touching a packet.
async fn listen(
    args: &RunArgs,
) -> Result<(Option<TcpListener>, api::Listeners, Option<TlsConnector>), Failure> {
    let tls_client = notices::prepare(&args.notices)?;
    Ok((bind(args.metrics).await?, api::Listeners::bind(&args.api).await?, tls_client))
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

/// Looks every second, and after each change, until a signal.
async fn look_until(mut terminate: Signal, mut interrupt: Signal, running: &Shared) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = running.changed.notified() => {}
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
        }
        let here = running.clone();
        let look = look_with(looks, move |looks: &mut Looks| looks.look(&here));
        tokio::select! {
            after = look => looks = after,
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
        }
    }
}

/// Looks beside the loop with what is remembered from the looks before; nothing is after one that panicked.
async fn look_with<L: Default + Send + 'static>(
    mut looks: L,
    look: impl FnOnce(&mut L) + Send + 'static,
) -> L {
    let looked = blocking(move || {
        look(&mut looks);
        Ok(looks)
    });
    looked.await.unwrap_or_else(|failure| {
        tracing::error!(
            "a look at policy and interfaces failed, the next ones start anew: {}",
            failure.message
        );
        L::default()
    })
}

/// Reads the policy and the files of the API again at each signal. Signals that come meanwhile count as one.
async fn reload_on(mut hangup: Signal, running: Shared, policy: PathBuf, secrets: Option<api::Secrets>) {
    while hangup.recv().await.is_some() {
        if let Some(secrets) = secrets.clone() {
            let reloaded = blocking(move || {
                secrets.reload();
                Ok(())
            });
            if let Err(failure) = reloaded.await {
                tracing::error!("the files of the API were not read again: {}", failure.message);
            }
        }
        let turn = running.changes.take(Kind::Ordinary).await;
        let (here, path) = (running.clone(), policy.clone());
        let event = match blocking(move || reload(&here, &path)).await {
            Ok(file) => {
                running.reloads.applied.fetch_add(1, Ordering::Relaxed);
                Event::Reload { applied: true, file, error: None }
            }
            Err(failure) => {
                running.reloads.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the policy was not reloaded, the old one stays: {}", failure.message);
                let file = policy.display().to_string();
                Event::Reload { applied: false, file, error: Some(failure.message) }
            }
        };
        drop(turn);
        running.feed.tell(event);
        running.changed.notify_one();
    }
}

/// Reads the policy again, and returns its name. A bad one changes nothing.
fn reload(running: &Running, path: &Path) -> Result<String, Failure> {
    let (file, mut maps) = read_again(running, path)?;
    let change = Change {
        force: running.force,
        guard: Some(&running.guard),
        ..Change::new(&file, &running.author, Origin::Reload)
    };
    let applied = apply_to(&mut maps, &running.pins, &running.history, &change)?;
    start::warn_of(&file);
    start::tell_applied(&file, &applied, false);
    Ok(file.name)
}

/// The policy file as it is now. What cannot be read never gets to where changes are recorded.
fn read_again(running: &Running, path: &Path) -> Result<(PolicyFile, Maps), Failure> {
    let result = read_policy(path).and_then(|file| Ok((file, running.maps_to_change()?)));
    if let Err(failure) = &result {
        let target = path.display().to_string();
        let entry = Entry::new(clock::unix_s(), &running.author, Origin::Reload, "apply", &target);
        running.write(&Entry { refusal: Some(&failure.message), ..entry });
    }
    result
}

fn stop(running: &Running, keep: bool) -> Result<(), Failure> {
    running.record("stop", Some(json!({ "keeps_filtering": keep })));
    if keep {
        tracing::info!("ended; the program stays attached (--keep), `detector unload` removes it");
        return Ok(());
    }
    if !running.lock.is_current() {
        tracing::info!("ended: the program was unloaded before, its pins are not this daemon's any more");
        return Ok(());
    }
    running.pins.remove()?;
    tracing::info!("ended: detached, pins removed");
    Ok(())
}

fn unloaded() -> Failure {
    Failure::failed("the program was unloaded under this daemon: start `detector run` again")
}

/// The warnings of a policy, as one text.
fn warnings(file: &PolicyFile) -> Option<String> {
    if file.checked.warnings.is_empty() {
        return None;
    }
    Some(policy::render(&file.name, &file.text, &file.checked.warnings).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_panics_is_one_look_lost() {
        let remembered = look_with(1, |looks: &mut u32| *looks += 1).await;
        assert_eq!(remembered, 2);
        let anew = look_with(remembered, |_: &mut u32| panic!("in a look")).await;
        assert_eq!(anew, 0);
    }
}
