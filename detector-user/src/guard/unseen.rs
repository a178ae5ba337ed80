//! A change whose guard has to look at the traffic first: nobody else waits for the policy meanwhile.

use std::time::Duration;

use super::Guard;
use crate::{
    commands::Failure,
    kernel::{mapped::Access, maps::Maps, pins::Pins, read},
    traffic::{FileError, Look, Watching},
};

/// Why a change stops.
#[derive(Debug)]
pub enum Stop {
    /// It is refused, or cannot be made.
    Failed(Failure),
    /// The traffic is to be looked at first.
    Unseen(Unseen),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Stop {
    /// What came of a change, unless the traffic is to be looked at first.
    ///
    /// # Errors
    ///
    /// It is.
    pub fn settled<T>(result: Result<T, Self>) -> Result<Result<T, Failure>, Self> {
        match result {
            Ok(done) => Ok(Ok(done)),
            Err(Self::Failed(failure)) => Ok(Err(failure)),
            Err(unseen @ Self::Unseen(_)) => Err(unseen),
        }
    }
}

/// Traffic that nobody looked at.
#[derive(Debug)]
pub struct Unseen {
    watching: Watching,
    tells: fn(Duration, Option<&FileError>),
    /// Why what is kept is of no use.
    error: Option<FileError>,
}

impl Unseen {
    pub(super) fn new(guard: &Guard, error: Option<FileError>) -> Self {
        Self { watching: guard.watching.clone(), tells: guard.tells_waiting, error }
    }
}

/// Goes on with the maps that are pinned now: while one waited, the program may have been unloaded and loaded anew, which
/// its seed tells. A start fills maps that are not pinned yet; who has looked at traffic is no start.
fn follow(maps: &mut Maps, pins: &Pins, has_looked: bool) -> Result<(), Failure> {
    let pinned = match pins.loaded() {
        Ok(directory) => Maps::pinned(&directory, Access::Write)?,
        Err(error) if has_looked => return Err(error.into()),
        Err(_) => return Ok(()),
    };
    if read::settings(&pinned).seed != read::settings(maps).seed {
        *maps = pinned;
    }
    Ok(())
}

/// Makes a change under the lock of the policy. Where the traffic is to be looked at first, the lock is let go for that time,
/// and the change is begun anew with the look: others may have changed the policy meanwhile.
///
/// # Errors
///
/// The change fails, or somebody else changes the policy at this moment.
pub fn with_lock<T>(
    maps: &mut Maps,
    pins: &Pins,
    mut change: impl FnMut(&mut Maps, Option<&Look>) -> Result<T, Stop>,
) -> Result<T, Failure> {
    let mut look = None;
    loop {
        let lock = pins.lock_policy()?;
        follow(maps, pins, look.is_some())?;
        let unseen = match change(maps, look.as_ref()) {
            Ok(done) => return Ok(done),
            Err(Stop::Failed(failure)) => return Err(failure),
            Err(Stop::Unseen(unseen)) => unseen,
        };
        drop(lock);
        let Unseen { watching, tells, error } = unseen;
        look = Some(watching.look(maps, |time| tells(time, error.as_ref())));
    }
}
