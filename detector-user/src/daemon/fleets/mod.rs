//! Fleets, live. The observer looks at the tables and makes epochs, the hunter looks for fleets in them, each on a thread of its own: a look for fleets
//! may take seconds, and nothing else waits for it. The rest of the daemon asks for what was told last.

mod acting;
mod effects;
mod heard;
mod hunter;
mod news;
mod observer;
mod telling;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{Sender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{
    broadcast::{self, Receiver},
    watch,
};

use super::Shared;
use crate::{
    cli::RunArgs,
    commands::Failure,
    fleets::{Memberships, Scale, Store, Told, limits::EPOCHS_QUEUED_MAX, membership::Membership},
    kernel::{mapped::Access, maps::Maps},
};

/// Sets of changes that wait for a follower of members at most: one that lags further has to begin anew.
pub(crate) const CHANGES_QUEUED_MAX: usize = 64;

/// How long the end waits for a look for fleets: what it would find is found by the next daemon.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Who belongs to fleets, and what changed of that at once.
pub(crate) type Changes = Arc<Vec<Membership>>;

/// What was told of fleets last.
#[derive(Debug)]
pub(crate) struct Fleets {
    /// Where what is remembered is.
    directory: PathBuf,
    told: watch::Sender<Arc<Told>>,
    memberships: RwLock<Memberships>,
    changes: broadcast::Sender<Changes>,
}

impl Fleets {
    /// Nothing was told yet, of an instance with these pins.
    pub(super) fn new(state: &Path, pins: &Path) -> Self {
        Self {
            directory: Store::directory(state, pins),
            told: watch::Sender::default(),
            memberships: RwLock::default(),
            changes: broadcast::channel(CHANGES_QUEUED_MAX).0,
        }
    }

    /// What was told last.
    pub(crate) fn told(&self) -> Arc<Told> {
        self.told.borrow().clone()
    }

    /// What was told last, and whatever is told then.
    pub(crate) fn follow_told(&self) -> watch::Receiver<Arc<Told>> {
        self.told.subscribe()
    }

    /// All who belong to fleets, and then what changes.
    pub(crate) fn follow(&self) -> (Vec<Membership>, Receiver<Changes>) {
        // Nothing changes between the two: whoever changes it has the lock meanwhile.
        let memberships = self.memberships.read().unwrap_or_else(PoisonError::into_inner);
        (memberships.all().collect(), self.changes.subscribe())
    }

    fn tell(&self, told: Told) -> Arc<Told> {
        let told = Arc::new(told);
        self.told.send_replace(told.clone());
        told
    }

    fn tell_members(&self, memberships: Memberships, changes: Vec<Membership>) {
        let mut known = self.memberships.write().unwrap_or_else(PoisonError::into_inner);
        *known = memberships;
        if !changes.is_empty() {
            // An error says only that nobody follows.
            let _ = self.changes.send(Arc::new(changes));
        }
    }
}

/// What the threads are started with.
#[derive(Debug, Clone)]
struct Options {
    scale: Scale,
    feed: Option<PathBuf>,
}

/// The threads.
pub(super) struct Threads {
    end: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them, over the maps that are pinned now.
    ///
    /// # Errors
    ///
    /// The maps cannot be opened, or a thread not be started.
    pub(super) fn start(args: &RunArgs, running: &Shared) -> Result<Self, Failure> {
        let options = Options { scale: args.fleet_epoch, feed: args.fleet_feed.clone() };
        let maps = || Ok::<_, Failure>(Maps::pinned(&running.pins.directory(), Access::Read)?);
        let (to_see, to_name) = (maps()?, maps()?);
        let (end, ended) = channel();
        let (told, heard) = sync_channel(EPOCHS_QUEUED_MAX);
        let (scale, here, there) = (options.scale, running.clone(), running.clone());
        let (services, known) = channel();
        let hunter = move || hunter::hunt(options, &to_name, &here, &services, &heard);
        let observer = move || observer::look(to_see, scale, &there, &known, &told, &ended);
        let threads = vec![named("fleets", hunter)?, named("fleets-observer", observer)?];
        Ok(Self { end: Some(end), threads })
    }

    /// Ends them: the epoch that goes on is kept as far as it came.
    pub(super) fn end(mut self) {
        drop(self.end.take());
        let began = Instant::now();
        for thread in self.threads {
            while !thread.is_finished() && began.elapsed() < END_TIME_MAX {
                thread::sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                tracing::warn!(
                    "a look for fleets goes on and is not waited for; the next daemon does it again"
                );
            } else if thread.join().is_err() {
                tracing::error!(
                    "the thread that looks for fleets panicked; the next daemon begins where it was"
                );
            }
        }
    }
}

fn named(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Failure::failed(format_args!("cannot start a thread to look for fleets: {error}")))
}
