//! Changes of the policy in the kernel: the one way for commands, the daemon and the API. Each is recorded in the history.
//!
//! What cannot be recorded is done nevertheless, and told: nobody is locked out by a full disk.

pub mod fleets;
pub mod incidents;

use std::time::Duration;

use serde_json::json;

use crate::{
    clock,
    commands::{
        Failure, PolicyFile,
        rules::{IdleIncident, idle_incidents},
    },
    guard::{Guard, Stop, with_lock},
    history::{Author, Entry, History, HistoryError, NewVersion, Origin, State, standing::InKernel},
    kernel::{
        apply::{self, apply as put, apply_until_confirmed, check_no_trial},
        maps::Maps,
        pins::Pins,
        read::{self, ReadError},
    },
    policy::{
        compile::{Beside, Clocks, Manifest, Standard, Tables},
        incident::Incidents,
    },
    traffic::Look,
};

/// The longest time that a policy may wait to be confirmed.
pub const CONFIRM_TIME_MAX: Duration = Duration::from_secs(86_400);

/// The longest time of an incident rule that ends; what lasts longer belongs into the policy.
pub const INCIDENT_TIME_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A policy to be put in place of the active one.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The policy.
    pub file: &'a PolicyFile,
    /// The time to confirm it in, after which it is taken back by itself.
    pub confirm: Option<Duration>,
    /// Whether to do also what is refused because it is likely to hurt.
    pub force: bool,
    /// By whom.
    pub author: &'a Author,
    /// By which way.
    pub origin: Origin,
    /// Why.
    pub reason: Option<&'a str>,
    /// The version that it is again.
    pub again: Option<u64>,
    /// The active version that was looked at to choose this one, where that matters: another one may come before the change
    /// has its turn.
    pub instead_of: Option<&'a InKernel>,
    /// Who looks at what it would do to the traffic, unless it is forced.
    pub guard: Option<&'a Guard>,
}

impl<'a> Change<'a> {
    /// A policy to stay, neither forced nor with a reason.
    pub const fn new(file: &'a PolicyFile, author: &'a Author, origin: Origin) -> Self {
        Self {
            file,
            confirm: None,
            force: false,
            author,
            origin,
            reason: None,
            again: None,
            instead_of: None,
            guard: None,
        }
    }
}

/// A policy that was put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its version; 0: it could not be recorded.
    pub version: u64,
    /// Whether that is a new one: not where the same policy was active already.
    pub is_new: bool,
    /// Its epoch in the kernel.
    pub epoch: u32,
    /// Incident rules beside it about services that it does not have.
    pub idle_incidents: Vec<IdleIncident>,
    /// Why the history does not have it.
    pub unrecorded: Option<String>,
}

/// A trial that was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The version that was on trial; 0: it was not recorded.
    pub trial: u64,
    /// The version that is active now; 0: it was not recorded, or there is none.
    pub version: u64,
    /// Its epoch in the kernel; 0: there was no policy before.
    pub epoch: u32,
    /// Why the history does not have it.
    pub unrecorded: Option<String>,
}

/// The clocks that a policy is compiled by now.
pub fn clocks(maps: &Maps) -> Clocks {
    Clocks {
        tick_ns: read::settings(maps).clock_tick_ns,
        kernel_ns: clock::kernel_ns(),
        unix_ns: clock::unix_ns(),
    }
}

/// What the kernel says of the active version; `None`: there is no policy.
pub fn in_kernel(maps: &Maps) -> Result<Option<InKernel>, ReadError> {
    read::consistently(maps, |active| {
        let on_trial = read::confirm_in_s(maps).is_some();
        Ok(active.manifest()?.map(|manifest| InKernel::new(&manifest, on_trial)))
    })
}

/// The first thing that could not be recorded.
#[derive(Debug, Default)]
struct Unrecorded(Option<String>);

impl Unrecorded {
    fn note<T>(&mut self, result: Result<T, HistoryError>) -> Option<T> {
        result.map_err(|error| self.0.get_or_insert_with(|| error.to_string())).ok()
    }

    /// What came of a change, and why the history does not have it; a refusal says that itself.
    fn told<T>(self, result: Result<T, Failure>) -> Result<(T, Option<String>), Failure> {
        match (result, self.0) {
            (Ok(done), unrecorded) => Ok((done, unrecorded)),
            (Err(failure), None) => Err(failure),
            (Err(failure), Some(why)) => {
                Err(Failure { message: format!("{}\nnot recorded: {why}", failure.message), ..failure })
            }
        }
    }
}

/// Compiles a policy against the one in the maps, puts it in its place and records that; also when it is refused.
///
/// # Errors
///
/// The policy needs to be forced, does not fit, or the kernel refuses it; another one waits to be confirmed; somebody
/// else applies one at this moment. Nothing changes then.
pub fn apply_to(
    maps: &mut Maps,
    pins: &Pins,
    history: &History,
    change: &Change<'_>,
) -> Result<Applied, Failure> {
    with_lock(maps, pins, |maps, look| apply_locked(maps, history, change, look))
}

/// As [`apply_to`], by who holds the lock; the look at the traffic that was taken for it, if one was.
fn apply_locked(
    maps: &mut Maps,
    history: &History,
    change: &Change<'_>,
    look: Option<&Look>,
) -> Result<Applied, Stop> {
    let mut unrecorded = Unrecorded::default();
    unrecorded.note(note_ends(maps, history)?);
    let before = read::consistently(maps, |active| active.manifest())?;
    let mut applying = Applying { maps, history, change, look, before, unrecorded, is_recorded: false };
    let result = Stop::settled(applying.apply())?;
    if let Err(failure) = &result
        && !applying.is_recorded
    {
        let refused = Entry { refusal: Some(&failure.message), ..applying.entry() };
        applying.unrecorded.note(history.record(&refused));
    }
    let (applied, unrecorded) = applying.unrecorded.told(result)?;
    Ok(Applied { unrecorded, ..applied })
}

/// A change on its way.
struct Applying<'a> {
    maps: &'a mut Maps,
    history: &'a History,
    change: &'a Change<'a>,
    look: Option<&'a Look>,
    before: Option<Manifest>,
    unrecorded: Unrecorded,
    /// Whether its audit entry is written, or was tried to be.
    is_recorded: bool,
}

impl<'a> Applying<'a> {
    /// The version is written before the kernel is asked, so that its number stands beside it there.
    fn apply(&mut self) -> Result<Applied, Stop> {
        let (file, confirm) = (self.change.file, self.change.confirm);
        check_no_trial(self.maps)?;
        self.check_instead_of()?;
        self.check_force()?;
        let previous = self.before.clone().unwrap_or_default();
        let mut tables = file.compile(&previous, clocks(self.maps))?;
        let incidents = read::incidents(self.maps)?;
        let idle = idle_incidents(&incidents, |name| tables.manifest.services.contains_key(name));
        self.check_guard(&mut tables, incidents)?;
        let same = self.same_version();
        let begun = if same.is_none() { self.begin() } else { None };
        let version = same.or(begun).unwrap_or_default();
        tables.manifest.file.clone_from(&file.name);
        tables.manifest.applied_at_s = clock::unix_s();
        tables.manifest.version = version;
        tables.manifest.digest.clone_from(&file.digest);
        let result = match confirm {
            None => put(self.maps, &tables),
            Some(time) => apply_until_confirmed(self.maps, &tables, time.as_nanos() as u64),
        };
        let result = result.map_err(Failure::from);
        self.finish(same, begun, result.as_ref().copied());
        Ok(Applied {
            version,
            is_new: begun.is_some(),
            epoch: result?,
            idle_incidents: idle,
            unrecorded: None,
        })
    }

    /// Refuses to go back from another version than the one that was active when it was chosen.
    fn check_instead_of(&self) -> Result<(), Failure> {
        let Some(expected) = self.change.instead_of else { return Ok(()) };
        let (version, digest) = match &self.before {
            Some(before) => (before.version, before.digest.as_str()),
            None => (0, ""),
        };
        if (version, digest) == (expected.version, expected.digest.as_str()) {
            return Ok(());
        }
        Err(Failure::conflict(format_args!(
            "another policy was applied meanwhile, version {version}: see `detector history`, and ask again"
        )))
    }

    /// Refuses what would lock somebody out or drop too much, unless it is forced or active already. A daemon that was told
    /// to force its policy was not told so of those that it reads later.
    fn check_guard(&mut self, tables: &mut Tables, incidents: Incidents) -> Result<(), Stop> {
        let Change { file, guard, force, origin, .. } = *self.change;
        let Some(guard) = guard.filter(|_| !force || origin == Origin::Reload) else { return Ok(()) };
        if self.before.as_ref().is_some_and(|before| before.digest == file.digest) {
            return Ok(());
        }
        tables.beside =
            Beside::new(incidents, &Standard::of(tables), tables.clocks).map_err(apply::ApplyError::from)?;
        Ok(guard.check(self.maps, tables, self.look)?.into_result()?)
    }

    /// A daemon's start and reload have nobody to ask: what is about nearly everyone and was forced once need not be again.
    /// A rollback goes to what was forced then.
    fn is_known(&mut self) -> bool {
        let Change { file, origin, .. } = *self.change;
        matches!(origin, Origin::Start | Origin::Reload | Origin::Rollback)
            && (self.before.as_ref().is_some_and(|before| before.digest == file.digest)
                || self.unrecorded.note(self.history.was_forced(&file.digest)).unwrap_or(false))
    }

    /// Refuses what is about nearly everyone, unless it is forced or known.
    fn check_force(&mut self) -> Result<(), Failure> {
        let Change { file, force, origin, .. } = *self.change;
        if force || !file.needs_force() {
            return Ok(());
        }
        if self.is_known() {
            return Ok(());
        }
        let by_itself = matches!(origin, Origin::Start | Origin::Reload);
        file.check_force(if by_itself {
            "apply it once with `detector apply FILE --force`, or start the daemon with `run --force`"
        } else {
            "add --force"
        })
    }

    /// The active version, where it is the same policy and to stay. Where no policy is active, as after the machine has
    /// booted, the last one that was.
    fn same_version(&mut self) -> Option<u64> {
        if self.change.confirm.is_some() {
            return None;
        }
        let digest = &self.change.file.digest;
        let known = match &self.before {
            None => self.history.last_applied(),
            Some(before) if before.version == 0 || before.digest != *digest => return None,
            Some(before) => match self.history.version(before.version) {
                // Another history's, or pruned.
                Err(HistoryError::NoVersion { .. }) => return None,
                Err(error) => {
                    self.unrecorded.note::<()>(Err(error));
                    return Some(before.version);
                }
                known => known.map(Some),
            },
        };
        let known = self.unrecorded.note(known).flatten()?;
        (known.digest == *digest).then_some(known.version)
    }

    fn begin(&mut self) -> Option<u64> {
        let Change { file, confirm, force, author, origin, reason, again, .. } = *self.change;
        let new = NewVersion {
            time_s: clock::unix_s(),
            author,
            origin,
            file: &file.name,
            text: &file.text,
            sources: &file.sources,
            digest: &file.digest,
            reason,
            forced: force || origin == Origin::Rollback && file.needs_force(),
            confirm_s: confirm.map(|time| time.as_secs()),
            replaced: self.before.as_ref().map(|before| before.version).filter(|&version| version != 0),
            again,
        };
        self.unrecorded.note(self.history.begin(&new))
    }

    fn finish(&mut self, same: Option<u64>, begun: Option<u64>, result: Result<u32, &Failure>) {
        self.is_recorded = true;
        let version = same.or(begun).unwrap_or_default();
        let after = |epoch| json!({ "version": version, "epoch": epoch, "again": self.change.again });
        let entry = Entry {
            after: result.ok().map(after),
            refusal: result.err().map(|failure| failure.message.as_str()),
            ..self.entry()
        };
        let state = match (&result, self.change.confirm) {
            (Err(_), _) => State::Failed,
            (Ok(_), Some(_)) => State::Trial,
            (Ok(_), None) => State::Applied,
        };
        let before = self.before.as_ref().map_or(0, |before| before.version);
        let recorded = match (same, begun) {
            (Some(version), _) if result.is_ok() => self.history.repeat(version, self.change.force, &entry),
            (None, Some(version)) => self.history.finish(version, state, &entry, &[version, before]),
            _ => self.history.record(&entry),
        };
        self.unrecorded.note(recorded);
    }

    /// The audit entry, as of a change that was made.
    fn entry(&self) -> Entry<'a> {
        let Change { file, author, origin, reason, .. } = *self.change;
        let action = if origin == Origin::Rollback { "rollback" } else { "apply" };
        let before = self.before.as_ref();
        Entry {
            before: before.map(|before| json!({ "version": before.version, "file": before.file })),
            reason,
            ..Entry::new(clock::unix_s(), author, origin, action, &file.name)
        }
    }
}

const NOTHING_WAITS: &str = "nothing waits to be confirmed: the time of the policy is over, it was confirmed, or it was \
applied without --confirm; `detector status` says which policy is active";

/// Ends the trial of the active policy: keeps it (`confirmed`), or goes back to the one before, and records that.
///
/// # Errors
///
/// No policy is on trial; somebody else applies one at this moment.
pub fn end_trial(
    maps: &Maps,
    pins: &Pins,
    history: &History,
    confirmed: bool,
    author: &Author,
    origin: Origin,
    reason: Option<&str>,
) -> Result<Ended, Failure> {
    let _lock = pins.lock_policy()?;
    let mut unrecorded = Unrecorded::default();
    unrecorded.note(note_ends(maps, history)?);
    let version_of =
        |maps| -> Result<u64, Failure> { Ok(in_kernel(maps)?.map_or(0, |kernel| kernel.version)) };
    let trial = version_of(maps)?;
    let is_done = if confirmed { apply::confirm(maps) } else { apply::take_back(maps) };
    if !is_done {
        return Err(Failure::conflict(NOTHING_WAITS));
    }
    let (version, epoch) = (version_of(maps)?, read::epoch(maps));
    let (action, state) =
        if confirmed { ("confirm", State::Applied) } else { ("rollback", State::TakenBack) };
    let target = format!("version {trial}");
    let entry = Entry {
        before: Some(json!({ "version": trial })),
        after: Some(json!({ "version": version, "epoch": epoch })),
        reason,
        ..Entry::new(clock::unix_s(), author, origin, action, &target)
    };
    unrecorded.note(match trial {
        0 => history.record(&entry),
        trial => history.finish(trial, state, &entry, &[trial, version]),
    });
    Ok(Ended { trial, version, epoch, unrecorded: unrecorded.0 })
}

/// Writes down in maps and history what the kernel did by itself since anybody looked: trials that were over. The inner
/// result: the versions that were taken back, or why the history cannot have it. The caller holds the policy's lock.
///
/// # Errors
///
/// The active policy cannot be read.
pub fn note_ends(maps: &Maps, history: &History) -> Result<Result<Vec<u64>, HistoryError>, ReadError> {
    apply::settle(maps);
    let kernel = in_kernel(maps)?;
    Ok(history.reconcile(kernel.as_ref(), clock::unix_s()))
}
