//! Looks at the tables of sources and clients, and makes epochs of what they counted.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError},
    time::Duration,
};

use detector_fleets::observation::Services;

use super::hunter::Message;
use crate::{
    clock,
    daemon::Shared,
    fleets::{
        Epoch, Scale, Told,
        scale::EPOCH_S,
        told::{self, Health, Looking},
    },
    kernel::maps::Maps,
    policy::FleetMode,
    recording::{Numbering, Over, Recorder, numbering::NO_SERVICE},
};

/// Time between two looks, at most: a source that comes and gives way to another within it is missed.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until the other end of `ended` has gone.
pub(super) fn look(
    maps: Maps,
    scale: Scale,
    running: &Shared,
    known: &Receiver<Services>,
    heard: &SyncSender<Message>,
    ended: &Receiver<()>,
) {
    // The hunter says which services it knows, once it has read what it remembers.
    let Ok(services) = known.recv() else { return fail(running) };
    let mut observer = Observer {
        maps,
        scale,
        known: services.names().len(),
        numbering: Numbering::of(services),
        recorder: Recorder::default(),
        is_off: None,
        epochs_lost: 0,
        is_failing: false,
    };
    let every = scale.epoch().min(LOOK);
    loop {
        if observer.look(heard).is_err() {
            fail(running);
            return;
        }
        if ended.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    if let Some(over) = observer.recorder.cut(&mut observer.numbering) {
        let epoch = observer.epoch(over);
        // The hunter ends when it has taken it.
        let _ =
            heard.send(Message::Epoch { epoch, mode: observer.mode(), epochs_lost: observer.epochs_lost });
    }
    if heard.send(Message::End).is_err() {
        fail(running);
    }
}

/// One of the two threads ended before its time.
pub(super) fn fail(running: &Shared) {
    let problem =
        "a thread that looks for fleets panicked: nobody looks for fleets until the daemon is started again";
    tracing::error!("{problem}");
    let told = running.fleets.told();
    let health =
        Health { state: Looking::Failed, problem: Some(problem.to_owned()), ..told.detection.clone() };
    let told = running.fleets.tell(Told { detection: health, ..(*told).clone() });
    if let Err(error) = told::write(&running.fleets.directory, &told) {
        tracing::warn!("commands do not see that nobody looks for fleets: {error}");
    }
}

/// The hunter has ended.
struct Gone;

/// Whether the hunter has room for a message.
fn hear(told: &SyncSender<Message>, message: Message) -> Result<bool, Gone> {
    match told.try_send(message) {
        Ok(()) => Ok(true),
        Err(TrySendError::Full(_)) => Ok(false),
        Err(TrySendError::Disconnected(_)) => Err(Gone),
    }
}

struct Observer {
    maps: Maps,
    scale: Scale,
    numbering: Numbering,
    /// How many services the hunter was told of.
    known: usize,
    recorder: Recorder,
    is_off: Option<bool>,
    epochs_lost: u64,
    is_failing: bool,
}

impl Observer {
    fn look(&mut self, told: &SyncSender<Message>) -> Result<(), Gone> {
        match self.numbering.refresh(&self.maps) {
            Ok(()) if self.is_failing => self.is_failing = !hear(told, Message::Blind { why: None })?,
            Ok(()) => {}
            Err(error) => {
                if !self.is_failing {
                    let why = format!("nobody looks for fleets until the policy can be read: {error}");
                    if hear(told, Message::Blind { why: Some(why.clone()) })? {
                        tracing::warn!("{why}");
                        self.is_failing = true;
                    }
                }
                return Ok(());
            }
        }
        let is_off = !self.numbering.manifest().is_looking_for_fleets();
        if is_off {
            if self.is_off != Some(true) {
                self.recorder = Recorder::default();
                return self.tell_off(told);
            }
            return Ok(());
        }
        self.is_off = Some(false);
        let now_s = self.scale.inner_s(clock::unix_ns() / 1_000_000);
        match self.recorder.look(&self.maps, &mut self.numbering, now_s, EPOCH_S) {
            None => Ok(()),
            Some(over) => {
                let (epoch, mode) = (self.epoch(over), self.mode());
                self.send(told, Message::Epoch { epoch, mode, epochs_lost: self.epochs_lost })
            }
        }
    }

    /// Says that nobody looks, again until it is heard.
    fn tell_off(&mut self, told: &SyncSender<Message>) -> Result<(), Gone> {
        if hear(told, Message::Off { mode: self.mode() })? {
            self.is_off = Some(true);
        }
        Ok(())
    }

    fn mode(&self) -> FleetMode {
        self.numbering.manifest().fleets.mode
    }

    /// What of an epoch fleets are looked for in.
    fn epoch(&self, over: Over) -> Epoch {
        let Over { start_s, mut rows, lost } = over;
        let services = self.numbering.services();
        rows.retain(|row| {
            let name = services.name(row.kind.service);
            name != NO_SERVICE && self.numbering.manifest().fleet_mode(name) != FleetMode::Off
        });
        Epoch { start_s, names: services.names()[self.known..].to_vec(), rows, lost }
    }

    fn send(&mut self, told: &SyncSender<Message>, message: Message) -> Result<(), Gone> {
        let names = match &message {
            Message::Epoch { epoch, .. } => epoch.names.len(),
            Message::Off { .. } | Message::Blind { .. } | Message::End => 0,
        };
        if hear(told, message)? {
            // The hunter knows these now; what is lost tells no names.
            self.known += names;
        } else {
            self.epochs_lost += 1;
        }
        Ok(())
    }
}
