//! The hook: a program that is started for each event, without a shell.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::{Semaphore, mpsc::Receiver},
    time::timeout,
};

use super::{Counts, Target, note};
use crate::daemon::feed::Entry;

/// Programs that run at a time; more events wait.
const PROGRAMS_MAX: usize = 4;

/// Starts the program for each event.
pub(super) async fn run(
    program: PathBuf,
    patience: Duration,
    mut entries: Receiver<Entry>,
    counts: Arc<Counts>,
) {
    let places = Arc::new(Semaphore::new(PROGRAMS_MAX));
    while let Some(entry) = entries.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (program, counts) = (program.clone(), counts.clone());
        tokio::spawn(async move {
            let result = tell(&program, patience, &entry).await;
            drop(place);
            note(&counts, Target::Hook, &entry, result);
        });
    }
}

async fn tell(program: &PathBuf, patience: Duration, entry: &Entry) -> Result<(), String> {
    let json = serde_json::to_vec(entry).map_err(|error| error.to_string())?;
    let child = Command::new(program)
        .arg(entry.event.kind().name())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Its own group, which ends as a whole.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let group = child.id();
    let done = timeout(patience, finish(&mut child, &json)).await;
    match done {
        Ok(result) => result,
        Err(_) => {
            if let Some(group) = group.and_then(|group| i32::try_from(group).ok())
                && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL)
            {
                tracing::warn!("cannot end the hook {group}: {error}");
            }
            let _ = child.wait().await;
            Err(format!("{} took longer than {} s and was killed", program.display(), patience.as_secs_f64()))
        }
    }
}

async fn finish(child: &mut Child, json: &[u8]) -> Result<(), String> {
    if let Some(mut input) = child.stdin.take() {
        // One that reads nothing is told by its argument alone.
        if let Err(error) = input.write_all(json).await {
            tracing::debug!("the hook does not read its event: {error}");
        }
    }
    let status = child.wait().await.map_err(|error| format!("cannot wait for it: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the hook ended with {status}")) }
}
