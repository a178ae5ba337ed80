//! Looks for fleets in epochs: what they add to what is remembered, what that finds, and who is told.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use detector_common::fingerprint::{Kind, ja4_text};
use detector_fleets::{observation::Services, traits::Key};

use super::{
    Options,
    acting::Acting,
    news::{self, News},
    observer,
};
use crate::{
    clock,
    daemon::Shared,
    fleets::{
        Epoch, Memberships, Memory, Report, Restored, Store, StoreError, Told,
        limits::{REPORT_EVERY_S, SOURCES},
        report::State,
        told::{self, Health, Looking},
    },
    kernel::{maps::Maps, names},
    policy::FleetMode,
};

/// How often it is looked whether somebody says something of a fleet, or the policy changed.
const NEWS_EVERY: Duration = Duration::from_secs(1);

/// What the observer says.
pub(super) enum Message {
    /// An epoch is over.
    Epoch {
        /// What was seen in it.
        epoch: Epoch,
        /// What the policy says is to be done about fleets.
        mode: FleetMode,
        /// Epochs that were lost since the start.
        epochs_lost: u64,
    },
    /// Why nobody can look; `None`: somebody does again.
    Blind {
        /// For people.
        why: Option<String>,
    },
    /// The daemon ends: nothing follows.
    End,
    /// The policy says that nobody looks for fleets.
    Off {
        /// What it says.
        mode: FleetMode,
    },
}

/// Goes on until no more epochs come.
pub(super) fn hunt(
    options: Options,
    maps: &Maps,
    running: &Shared,
    services: &Sender<Services>,
    heard: &Receiver<Message>,
) {
    let mut hunter = Hunter::wake(options, running);
    if services.send(hunter.memory.services().clone()).is_err() {
        return;
    }
    hunter.act(maps, running);
    hunter.report(maps, running, true, true);
    loop {
        let message = match heard.recv_timeout(NEWS_EVERY) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                if hunter.acting.has_news(maps, running) {
                    hunter.act(maps, running);
                    hunter.report(maps, running, !hunter.is_off, true);
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return observer::fail(running),
        };
        match message {
            Message::Epoch { epoch, mode, epochs_lost } => {
                hunter.health.mode = mode;
                hunter.health.epochs_lost = epochs_lost;
                hunter.take(&epoch, maps, running);
            }
            Message::Blind { why } => {
                hunter.blind = why;
                hunter.report(maps, running, false, true);
            }
            Message::End => return,
            Message::Off { mode } => {
                hunter.health.mode = mode;
                hunter.is_off = true;
                hunter.act(maps, running);
                hunter.report(maps, running, false, true);
            }
        }
    }
}

struct Hunter {
    options: Options,
    store: Option<Store>,
    memory: Memory,
    memberships: Memberships,
    acting: Acting,
    news: News,
    health: Health,
    is_off: bool,
    /// Why nobody can look.
    blind: Option<String>,
    /// Why epochs are not kept.
    unkept_epoch: Option<String>,
    /// Why all that is remembered is not kept.
    unkept_memory: Option<String>,
    /// When the report was written last, seconds since the Unix epoch.
    reported_s: u64,
    /// Whether the file of members is what was told of them.
    is_feed_written: bool,
}

impl Hunter {
    /// Reads what is remembered; without a disk it begins anew each time.
    fn wake(options: Options, running: &Shared) -> Self {
        let now_s = clock::unix_s();
        let scale = options.scale;
        let secret = getrandom::u64().unwrap_or_else(|error| {
            tracing::warn!("no secret can be drawn ({error}): the clock is taken for one");
            clock::unix_ns()
        });
        let directory = &running.fleets.directory;
        let opened = Store::open(directory, scale, now_s, || Memory::new(scale, SOURCES, secret));
        let (store, mut memory, problem) = match opened {
            Ok((store, memory, restored)) => {
                tell_restored(&restored, &memory);
                let problem = store.unsaved().map(ToString::to_string);
                if let Some(problem) = &problem {
                    tracing::error!("what fleets are known by is lost if the daemon ends: {problem}");
                }
                (Some(store), memory, problem)
            }
            Err(error) => {
                let problem = format!("what is learned is forgotten with this daemon: {error}");
                tracing::error!("fleets: {problem}");
                (None, Memory::new(scale, SOURCES, secret), Some(problem))
            }
        };
        match running.history.last_fleet() {
            // What was lost had fleets of these numbers, and others know them by these.
            Ok(last) => memory.number_fleets_after(last),
            Err(error) => tracing::warn!("fleets of before are not known: {error}"),
        }
        Self {
            options,
            memberships: Memberships::restored(&memory),
            acting: Acting::restored(scale, running),
            news: News::after(&memory),
            health: Health {
                saved_at_s: store.as_ref().filter(|store| store.unsaved().is_none()).map(|_| now_s),
                ..Health::default()
            },
            store,
            memory,
            is_off: false,
            blind: None,
            unkept_epoch: None,
            unkept_memory: problem,
            reported_s: 0,
            is_feed_written: false,
        }
    }

    fn take(&mut self, epoch: &Epoch, maps: &Maps, running: &Shared) {
        self.is_off = false;
        if let Some(store) = &mut self.store {
            let kept = store.keep(epoch);
            note(&mut self.unkept_epoch, "an epoch", kept);
        }
        let began = Instant::now();
        let looks = self.memory.take(epoch);
        self.acting.note(epoch);
        self.health.epochs += 1;
        if !looks.is_empty() {
            self.health.look_seconds = began.elapsed().as_secs_f64();
        }
        let has_heard = self.act(maps, running);
        self.report(maps, running, !looks.is_empty(), has_heard);
        let now_s = clock::unix_s();
        if let Some(store) = self.store.as_mut().filter(|store| store.is_due(now_s)) {
            let saved = store.save(&self.memory, now_s);
            if saved.is_ok() {
                self.health.saved_at_s = Some(now_s);
            }
            note(&mut self.unkept_memory, "what is remembered", saved);
        }
    }

    /// Decides what is done about fleets, and tells what changed of that; whether somebody had said something of them.
    fn act(&mut self, maps: &Maps, running: &Shared) -> bool {
        let decided = self.acting.decide(&self.memory, maps, running);
        for decision in &decided.changed {
            let past = || match running.history.fleet(decision.fleet.0) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(
                        fleet = decision.fleet.0,
                        "nobody is told what became of a fleet: {error}"
                    );
                    None
                }
            };
            if let Some(event) = news::of_decision(decision, &self.memory, past) {
                running.feed.tell(event);
            }
        }
        decided.has_heard
    }

    /// Tells how detection is, and where it looked, what is known of fleets now. `is_awaited`: commands may wait for it, and read it at once.
    fn report(&mut self, maps: &Maps, running: &Shared, has_looked: bool, is_awaited: bool) {
        let now_s = clock::unix_s();
        let before = running.fleets.told();
        let report = if has_looked {
            Report::of(&self.memory, &|_, key| names_of(maps, key))
        } else {
            let (rows, lost, late) = (self.memory.rows(), self.memory.lost(), self.memory.detection().late());
            Report { rows, lost, late, ..before.report.clone() }
        };
        let problems = self.blind.iter().chain(&self.unkept_epoch).chain(&self.unkept_memory);
        let mut problems: Vec<_> = problems.map(String::as_str).chain(self.acting.problem()).collect();
        problems.dedup();
        self.health.problem = (!problems.is_empty()).then(|| problems.join("; "));
        self.health.stopped = self.acting.stopped().map(|stop| format!("{}: {}", stop.by, stop.reason));
        self.health.at_s = now_s;
        self.health.state = self.state(&report, now_s);
        let actions = self.acting.told(&self.memory, maps);
        self.health.fleets = report.fleets.iter().filter(|fleet| fleet.state == State::Active).count() as u64;
        self.health.throttled = actions.iter().filter(|action| action.throttle.is_some()).count() as u64;
        let told = Told { detection: self.health.clone(), report, actions };
        // First, so that whoever is told of something finds it when it asks a command.
        if has_looked || is_awaited || now_s >= self.reported_s + REPORT_EVERY_S {
            self.reported_s = now_s;
            let written =
                self.store.as_ref().map_or(Ok(()), |_| told::write(&running.fleets.directory, &told));
            if let Err(error) = written {
                tracing::warn!("commands do not see what is known of fleets: {error}");
            }
        }
        let told = running.fleets.tell(told);
        if has_looked {
            self.tell_news(&told, running, now_s);
        }
    }

    fn state(&self, report: &Report, now_s: u64) -> Looking {
        let now_s = crate::commands::rfc3339(now_s);
        match &report.services[..] {
            _ if self.is_off => Looking::Off,
            services if services.iter().any(|service| service.learning_until <= now_s) => Looking::Watching,
            _ => Looking::Learning,
        }
    }

    fn tell_news(&mut self, told: &Told, running: &Shared, now_s: u64) {
        for event in self.news.of(&self.memory, &told.report) {
            running.feed.tell(event);
        }
        let changes = self.memberships.follow(&self.memory, now_s);
        self.is_feed_written &= changes.is_empty();
        if let Some(path) = self.options.feed.as_ref().filter(|path| !self.is_feed_written || !path.exists())
        {
            let csv = self.memberships.csv();
            let written = told::replace(path, 0o644, |path, _| std::fs::write(path, &csv));
            self.is_feed_written = written.is_ok();
            if let Err(error) = written {
                tracing::warn!("who belongs to fleets is not written, and tried again: {error}");
            }
        }
        running.fleets.tell_members(self.memberships.clone(), changes);
        if let Err(error) = running.history.keep_fleets(&told.report.fleets) {
            tracing::warn!("fleets are not recorded in the history: {error}");
        }
    }
}

/// Logs that something cannot be kept, once until it can be again.
fn note(unkept: &mut Option<String>, what: &str, kept: Result<(), StoreError>) {
    let why = kept.err().map(|error| error.to_string());
    if let Some(why) = why.as_ref().filter(|_| unkept.is_none()) {
        tracing::error!("{what} of fleets is lost if the daemon ends: {why}");
    }
    *unkept = why;
}

fn tell_restored(restored: &Restored, memory: &Memory) {
    let fleets = memory.fleets().count();
    match restored {
        Restored::New => tracing::info!("fleets: what is usual is not known yet, and learned from now on"),
        Restored::Memory { epochs, damage: None } => {
            tracing::info!(fleets, epochs, "fleets: goes on with what was learned before");
        }
        Restored::Memory { epochs, damage: Some(damage) } => {
            tracing::warn!(fleets, epochs, "fleets: epochs after these are lost: {damage}");
        }
        Restored::Refused { why, kept } => {
            tracing::warn!(kept = %kept.display(), "fleets: learns anew, and keeps what it cannot use: {why}");
        }
    }
}

/// What the client with these keys is called, where that is known.
fn names_of(maps: &Maps, key: Key) -> (Option<String>, Option<String>) {
    let known = |kinds: &[Kind], key: u64| {
        let is_it = |name: &detector_common::fingerprint::Name| {
            name.key == key && kinds.iter().any(|kind| *kind as u8 == name.kind)
        };
        names::all(maps).find(is_it)
    };
    let tls = known(&[Kind::Tls, Kind::Initial], key.tls_key);
    let ja4 = tls.as_ref().and_then(|name| ja4_text(&name.ja4)).map(str::to_owned);
    let syn = known(&[Kind::Syn], key.syn_key).map(|name| name.syn.to_string());
    (ja4, syn)
}
