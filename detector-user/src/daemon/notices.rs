//! Telling a program or a server what happens: from a bounded queue each, beside everything else.

mod hook;
mod webhook;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{
    broadcast::error::RecvError,
    mpsc::{Receiver, Sender, channel},
};
use tokio_rustls::TlsConnector;

use super::{
    Shared,
    feed::{Entry, Event},
};
use crate::{cli::NoticeArgs, commands::Failure};

/// Events that wait for one target at most; more are counted and forgotten.
const WAITING_MAX: usize = 64;

/// Who is told.
#[derive(Debug, Clone, Copy)]
enum Target {
    Hook,
    Webhook,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Told,
    Failed,
    Dropped,
}

/// How many events were told to whom.
#[derive(Debug, Default)]
pub(super) struct Counts([[AtomicU64; 3]; 2]);

impl Counts {
    fn count(&self, target: Target, outcome: Outcome, events: u64) {
        self.0[target as usize][outcome as usize].fetch_add(events, Ordering::Relaxed);
    }

    /// Target, result and count of all.
    pub(super) fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let targets = ["hook", "webhook"].into_iter().zip(&self.0);
        let rows = targets.flat_map(|(target, counts)| {
            let results = ["told", "failed", "dropped"].into_iter().zip(counts);
            results.map(move |(result, count)| (target, result, count.load(Ordering::Relaxed)))
        });
        rows.collect()
    }
}

/// Whether somebody is to be told of an event.
fn is_notice(event: &Event) -> bool {
    match event {
        Event::PolicyApplied { .. }
        | Event::RuleEnded { .. }
        | Event::IncidentAdded { .. }
        | Event::IncidentUndone { .. }
        | Event::FingerprintConflict { .. }
        | Event::Fleet(_)
        | Event::Degraded { .. }
        | Event::Recovered { .. } => true,
        Event::TrialEnded { confirmed, .. } => !confirmed,
        Event::Drop(_) | Event::Reload { .. } | Event::Fingerprint { .. } | Event::Missed { .. } => false,
    }
}

/// What the webhook needs for TLS, if it needs it.
///
/// # Errors
///
/// The machine knows no root certificate, or the hook is not a file.
pub(super) fn prepare(args: &NoticeArgs) -> Result<Option<TlsConnector>, Failure> {
    if let Some(hook) = args.hook.as_ref().filter(|hook| !hook.is_file()) {
        return Err(Failure::invalid(format_args!(
            "there is no program {}: name one with --hook",
            hook.display()
        )));
    }
    match &args.webhook {
        Some(url) if url.is_https => webhook::connector().map(Some),
        _ => Ok(None),
    }
}

/// Tells hook and webhook what happens until the daemon ends.
pub(super) fn start(args: &NoticeArgs, tls: Option<TlsConnector>, running: &Shared) {
    if let Some(program) = args.hook.clone() {
        let patience = Duration::from_millis(args.hook_patience_ms);
        let entries = queue(Target::Hook, running);
        tokio::spawn(hook::run(program, patience, entries, running.notices.clone()));
    }
    if let Some(url) = args.webhook.clone() {
        let entries = queue(Target::Webhook, running);
        tokio::spawn(webhook::run(url, tls, entries, running.notices.clone()));
    }
}

/// The queue of a target, which is filled as things happen.
fn queue(target: Target, running: &Shared) -> Receiver<Entry> {
    let (sender, receiver) = channel(WAITING_MAX);
    tokio::spawn(fill(target, sender, running.clone()));
    receiver
}

async fn fill(target: Target, queue: Sender<Entry>, running: Shared) {
    let mut feed = running.feed.follow_others();
    let drop_of = |events| running.notices.count(target, Outcome::Dropped, events);
    loop {
        match feed.recv().await {
            Ok(entry) if !is_notice(&entry.event) => {}
            Ok(entry) => {
                if queue.try_send(entry).is_err() {
                    drop_of(1);
                    tracing::warn!(target = ?target, "an event is not told: {WAITING_MAX} wait already");
                }
            }
            Err(RecvError::Lagged(events)) => drop_of(events),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Notes what came of telling an event.
fn note(counts: &Arc<Counts>, target: Target, entry: &Entry, result: Result<(), String>) {
    match result {
        Ok(()) => counts.count(target, Outcome::Told, 1),
        Err(error) => {
            counts.count(target, Outcome::Failed, 1);
            tracing::warn!(target = ?target, kind = entry.event.kind().name(), "an event was not told: {error}");
        }
    }
}
