//! `detector record`: what the program counts, as rows on disk.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior},
};

use super::{EXIT_DONE, Failure, print_json_line, print_line, rfc3339, time, warn};
use crate::{
    cli::RecordArgs,
    clock,
    kernel::{mapped::Access, maps::Maps, names, pins::Pins, probe::probe},
    recording::{Directory, Names, Numbering, Over, Recorder, Tidied},
};

/// Time between two looks: a source that comes and gives way to another within it is missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An epoch that was recorded.
#[derive(Debug, Serialize)]
struct Recorded {
    /// When it began.
    epoch: String,
    /// Rows of it.
    rows: usize,
    /// Sources and clients that found no room in it.
    lost: u64,
    /// Recordings that made room.
    removed: Vec<PathBuf>,
}

/// Records until a signal, or for a time.
pub fn record(args: &RecordArgs) -> Result<u8, Failure> {
    probe()?;
    let pins = Pins::new(&args.read.pins);
    let maps = Maps::pinned(&pins.loaded()?, Access::Read)?;
    let node = match &args.node {
        Some(node) => node.clone(),
        None => own_name()?,
    };
    let (directory, unfinished) =
        Directory::open(&args.directory, &node, args.file.as_secs(), args.keep.bytes())?;
    for path in unfinished {
        warn(&format!("{} was never finished: removed", path.display()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime =
        runtime.map_err(|error| Failure::failed(format_args!("cannot wait for signals: {error}")))?;
    let mut run = Run {
        args,
        pins,
        maps,
        directory,
        recorder: Recorder::default(),
        numbering: Numbering::default(),
        rows: 0,
        epochs: 0,
    };
    runtime.block_on(run.until_the_end())?;
    run.finish()
}

fn own_name() -> Result<String, Failure> {
    let name = nix::unistd::gethostname().map_err(|error| {
        Failure::failed(format_args!("this machine does not tell its name: {error}; give one with --node"))
    })?;
    Ok(name.to_string_lossy().into_owned())
}

/// A recording that goes on.
struct Run<'a> {
    args: &'a RecordArgs,
    pins: Pins,
    maps: Maps,
    directory: Directory,
    recorder: Recorder,
    numbering: Numbering,
    rows: usize,
    epochs: usize,
}

impl Run<'_> {
    async fn until_the_end(&mut self) -> Result<(), Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))
        };
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let end = self.args.time.map(|time| Instant::now() + time);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look()?,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = until(end) => return self.look(),
            }
        }
    }

    fn look(&mut self) -> Result<(), Failure> {
        let span_s = self.args.epoch.as_secs() as u32;
        self.numbering.refresh(&self.maps)?;
        let now_s = clock::unix_s();
        let Some(over) = self.recorder.look(&self.maps, &mut self.numbering, now_s, span_s) else {
            return Ok(());
        };
        self.keep(over)?;
        // After an unload and another start there are other maps.
        match self
            .pins
            .loaded()
            .map_err(Failure::from)
            .and_then(|pins| Ok(Maps::pinned(&pins, Access::Read)?))
        {
            Ok(maps) => self.maps = maps,
            Err(failure) => {
                self.directory.finish()?;
                let rows = self.rows;
                let message = format!("{}; {rows} rows of {} epochs are kept", failure.message, self.epochs);
                return Err(Failure { message, ..failure });
            }
        }
        Ok(())
    }

    fn keep(&mut self, over: Over) -> Result<(), Failure> {
        let Over { start_s, rows, lost } = over;
        let rows_of_epoch = rows.len();
        let services = self.numbering.services();
        let named = Names::of(&rows, names::all(&self.maps));
        let tidied = self.directory.write(start_s, rows, named, |service| services.name(service))?;
        self.rows += rows_of_epoch;
        self.epochs += 1;
        self.tell(
            start_s,
            &Recorded { epoch: rfc3339(start_s), rows: rows_of_epoch, lost, removed: tidied.removed },
        )
    }

    fn tell(&self, start_s: u64, recorded: &Recorded) -> Result<(), Failure> {
        if self.args.read.json {
            return print_json_line(recorded);
        }
        print_line(&format!("{}  {} rows", time(start_s), recorded.rows));
        if recorded.lost > 0 {
            warn(&format!("{} counts of sources or clients found no room in this epoch", recorded.lost));
        }
        for path in &recorded.removed {
            warn(&format!("{} made room (--keep)", path.display()));
        }
        Ok(())
    }

    /// Writes the epoch that was going on, and ends the file.
    fn finish(mut self) -> Result<u8, Failure> {
        if let Some(over) = self.recorder.cut(&mut self.numbering) {
            self.keep(over)?;
        }
        let Tidied { removed } = self.directory.finish()?;
        for path in removed {
            warn(&format!("{} made room (--keep)", path.display()));
        }
        if !self.args.read.json {
            print_line(&format!(
                "{} rows of {} epochs in {}",
                self.rows,
                self.epochs,
                self.args.directory.display()
            ));
        }
        Ok(EXIT_DONE)
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
