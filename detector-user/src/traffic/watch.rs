//! The daemon's looks, by a thread of its own: a look at a large table takes tens of milliseconds.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
};

use super::{Head, LOOK_EVERY, counts, file};
use crate::kernel::{mapped::Access, maps::Maps};

/// The thread; ended and its files removed when this is dropped.
#[derive(Debug)]
pub struct Watch {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    directory: PathBuf,
}

impl Watch {
    /// Takes a look at pinned maps now, and then one every [`LOOK_EVERY`], and keeps the last two in a directory. A look that cannot be
    /// kept is logged, once until it can be again.
    pub fn start(pins: PathBuf, directory: &Path) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let to = directory.to_owned();
        let thread = thread::spawn(move || {
            let maps = match Maps::pinned(&pins, Access::Read) {
                Ok(maps) => maps,
                Err(error) => {
                    tracing::warn!("plan and apply look at the traffic themselves: {error}");
                    return;
                }
            };
            let mut is_failing = false;
            loop {
                match file::keep(Head::now(&maps), counts(&maps), &to) {
                    Ok(()) => is_failing = false,
                    Err(error) if !is_failing => {
                        is_failing = true;
                        tracing::warn!("plan and apply look at the traffic themselves: {error}");
                    }
                    Err(_) => {}
                }
                if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self { end: Some(end), thread: Some(thread), directory: directory.to_owned() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks at the traffic panicked");
        }
        file::remove(&self.directory);
    }
}
