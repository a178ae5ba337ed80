//! Where maps and links are pinned, and who may change them.
//!
//! ```text
//! /sys/fs/bpf/detector/
//!   lock-daemon/  lock-policy/     directories only to be locked (flock), free again when their holder dies
//!   abi-7/                         SETTINGS SOURCES …  link-1-2-native link-1-5-generic
//! ```

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use detector_common::abi::ABI_VERSION;
use thiserror::Error;

use super::{
    links::{LinkPin, Namespace, Place, is_link},
    maps::NAMES,
};

/// Where everything is pinned unless another place is asked for.
pub const DEFAULT_ROOT: &str = "/sys/fs/bpf/detector";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// How often a lock is tried that others hold for moments, and how long is waited between: a second, since who unloads
/// thousands of pins on a busy machine takes a part of one.
const LOCK_ATTEMPTS: u32 = 100;
/// Ten seconds.
const POLICY_LOCK_ATTEMPTS: u32 = 1000;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// The pins of one instance.
#[derive(Debug, Clone)]
pub struct Pins {
    root: PathBuf,
}

/// Why pins cannot be used.
#[derive(Debug, Error)]
pub enum PinsError {
    /// No bpffs there.
    #[error(
        "{path} is not on a BPF file system ({source}): `mount -t bpf bpf /sys/fs/bpf`, or name a place on one with --pins"
    )]
    NoBpffs {
        /// The place.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another version's pins are there.
    #[error(
        "{path} holds the maps of another version ({found}, this one is abi-{ABI_VERSION}), whose limits go on: \
         run `detector unload --pins {path}` first, then the limits start anew"
    )]
    OtherVersion {
        /// The root.
        path: PathBuf,
        /// The directory found.
        found: String,
    },
    /// Somebody else is at work.
    #[error("another detector {what} ({path} is locked): {help}")]
    Locked {
        /// The locked directory.
        path: PathBuf,
        /// What the other is doing.
        what: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// There is nothing there.
    #[error("nothing is loaded (no maps in {path}): start it with `detector run --iface IF --policy FILE`")]
    NotLoaded {
        /// Where the maps would be.
        path: PathBuf,
    },
    /// The links of another network namespace are there.
    #[error(
        "{path} holds links of interfaces in another network namespace: detach them with \
         `detector unload --pins {path}`, or give this daemon its own place with --pins"
    )]
    OtherNamespace {
        /// The root.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A lock on a directory; free when this is dropped or the process dies.
#[derive(Debug)]
pub struct Lock {
    directory: fs::File,
    path: PathBuf,
}

impl Lock {
    /// Whether the locked directory is still the one at its path: not after somebody unloaded under its holder.
    pub fn is_current(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.directory.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(found)) => identity(held) == identity(found),
            _ => false,
        }
    }

    fn removed(self) -> PinsError {
        PinsError::Io { what: "lock", path: self.path, source: io::ErrorKind::NotFound.into() }
    }
}

impl PinsError {
    /// Whether somebody else removed a directory meanwhile. `AlreadyExists` too: `create_dir_all` says so of a directory
    /// that was there when it was made and is no more when it is looked at.
    fn is_gone(&self) -> bool {
        let (Self::NoBpffs { source, .. } | Self::Io { source, .. }) = self else { return false };
        matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists)
    }
}

impl Pins {
    /// The pins under a root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of maps and links.
    pub fn directory(&self) -> PathBuf {
        self.root.join(format!("abi-{ABI_VERSION}"))
    }

    /// Makes the directories and locks them for a daemon, as long as it lives. Again, for a while, when somebody unloads
    /// between the two.
    pub fn prepare(&self) -> Result<Lock, PinsError> {
        if self.mount_if_absent()? {
            tracing::info!("mounted a BPF file system at /sys/fs/bpf");
        }
        self.lock_daemon(|| self.make_directories())
    }

    fn make_directories(&self) -> Result<(), PinsError> {
        self.check_version()?;
        for directory in [self.directory(), self.lock_path("daemon"), self.lock_path("policy")] {
            let no_bpffs = |source| PinsError::NoBpffs { path: self.root.clone(), source };
            fs::create_dir_all(&directory).map_err(no_bpffs)?;
            if !is_bpffs(&directory).map_err(no_bpffs)? {
                // The directories just made on another file system are empty: leave nothing behind.
                let _ = fs::remove_dir(&directory);
                let _ = fs::remove_dir(&self.root);
                return Err(no_bpffs(io::Error::other("another file system is mounted there")));
            }
        }
        Ok(())
    }

    fn mount_if_absent(&self) -> Result<bool, PinsError> {
        let mount_point = Path::new("/sys/fs/bpf");
        if !self.root.starts_with(mount_point)
            || !mount_point.is_dir()
            || is_bpffs(mount_point).unwrap_or(false)
        {
            return Ok(false);
        }
        // SAFETY: constant strings and no data.
        let result = unsafe {
            libc::mount(c"bpf".as_ptr(), c"/sys/fs/bpf".as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null())
        };
        if result != 0 {
            return Err(PinsError::NoBpffs { path: self.root.clone(), source: io::Error::last_os_error() });
        }
        Ok(true)
    }

    /// Refuses pins of another version, which this one can neither adopt nor replace without a gap.
    fn check_version(&self) -> Result<(), PinsError> {
        match self.versions().into_iter().find(|directory| *directory != self.directory()) {
            Some(other) => Err(PinsError::OtherVersion { path: self.root.clone(), found: file_name(&other) }),
            None => Ok(()),
        }
    }

    /// The directories of maps and links, of every version.
    pub fn versions(&self) -> Vec<PathBuf> {
        let mut versions = entries(&self.root);
        versions.retain(|path| file_name(path).starts_with("abi-"));
        versions
    }

    /// Whether all maps are pinned.
    pub fn is_loaded(&self) -> bool {
        NAMES.iter().all(|name| self.directory().join(name).exists())
    }

    /// The directory of the maps of a program that is loaded.
    pub fn loaded(&self) -> Result<PathBuf, PinsError> {
        self.check_version()?;
        if !self.is_loaded() {
            return Err(PinsError::NotLoaded { path: self.directory() });
        }
        Ok(self.directory())
    }

    /// All pinned links, by interface number.
    pub fn links(&self) -> Vec<LinkPin> {
        let mut links: Vec<_> = entries(&self.directory()).into_iter().filter_map(LinkPin::parse).collect();
        links.sort_by_key(|link| link.interface_index);
        links
    }

    /// The pins of links, of every version.
    pub fn links_of_every_version(&self) -> Vec<PathBuf> {
        self.pins().into_iter().filter(|path| is_link(path)).collect()
    }

    fn pins(&self) -> Vec<PathBuf> {
        self.versions().iter().flat_map(|version| entries(version)).collect()
    }

    /// All pinned links and where their interfaces are, seen from a namespace.
    pub fn places(&self, from: Namespace) -> Result<Vec<(LinkPin, Place)>, PinsError> {
        let place = |link: LinkPin| match link.place(from) {
            Ok(place) => Some(Ok((link, place))),
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => Some(Err(PinsError::Io { what: "read the link", path: link.path, source })),
        };
        self.links().into_iter().filter_map(place).collect()
    }

    /// Refuses links that hold an interface of another network namespace: a daemon here can neither adopt them nor tell
    /// whether they are still wanted.
    pub fn check_namespace(&self, own: Namespace) -> Result<(), PinsError> {
        let places = self.places(own)?;
        let other = |(link, place): &(LinkPin, Place)| link.namespace != own && *place == Place::Elsewhere;
        if places.iter().any(other) {
            return Err(PinsError::OtherNamespace { path: self.root.clone() });
        }
        Ok(())
    }

    /// Removes every pin, of every version: what nobody else holds is gone. The links first, so that no packet meets half
    /// a program; the locks last, so that nobody starts over what is being removed.
    pub fn remove(&self) -> Result<(), PinsError> {
        let versions = self.versions();
        let (links, maps): (Vec<_>, Vec<_>) = self.pins().into_iter().partition(|path| is_link(path));
        links.iter().chain(&maps).try_for_each(|path| remove_file(path))?;
        versions.iter().try_for_each(|version| remove_directory(version))?;
        remove_directory(&self.lock_path("policy"))?;
        remove_directory(&self.lock_path("daemon"))?;
        match remove_directory(&self.root) {
            // Of a daemon that starts at this moment.
            Err(PinsError::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other,
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join(format!("lock-{name}"))
    }

    /// Removes the pins of maps and leaves links: what a crash left incomplete is of no use to a successor.
    pub fn remove_maps(&self) -> Result<(), PinsError> {
        NAMES.iter().try_for_each(|name| remove_file(&self.directory().join(name)))
    }

    /// Keeps daemons away while everything is removed; `None`: there is nothing to remove.
    pub fn lock_for_removal(&self) -> Result<Option<Lock>, PinsError> {
        let path = self.lock_path("daemon");
        let make_lock = || match fs::create_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(PinsError::Io { what: "make", path: path.clone(), source })
            }
            _ => Ok(()),
        };
        if self.versions().is_empty() {
            return Ok(None);
        }
        match self.lock_daemon(make_lock) {
            // Somebody else removed the last of it.
            Err(_) if self.versions().is_empty() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Locks the daemon's directory, made before. Tries for a while: [`Self::is_daemon_alive`] holds the lock for a
    /// moment, and who unloads takes directory and lock away.
    fn lock_daemon(&self, make: impl Fn() -> Result<(), PinsError>) -> Result<Lock, PinsError> {
        let (what, help) = ("daemon runs here", "stop it first, or give this one its own place with --pins");
        let attempt = || {
            make()?;
            let lock = lock(self.lock_path("daemon"), what, help)?;
            // Under the lock nobody removes directories: they were made again, or are gone.
            make()?;
            if lock.is_current() { Ok(lock) } else { Err(lock.removed()) }
        };
        let mut result = attempt();
        for _ in 0..LOCK_ATTEMPTS {
            match &result {
                Err(PinsError::Locked { .. }) => {}
                Err(error) if error.is_gone() => {}
                _ => return result,
            }
            std::thread::sleep(LOCK_PAUSE);
            result = attempt();
        }
        result
    }

    /// Whether a daemon lives.
    pub fn is_daemon_alive(&self) -> bool {
        // Shared, so that two who ask at once do not take each other for a daemon.
        let path = self.lock_path("daemon");
        path.exists() && flock(&path, libc::LOCK_SH).is_ok_and(|lock| lock.is_none())
    }

    /// Held while a policy is changed. Waits for who changes it now: a large policy takes a second.
    pub fn lock_policy(&self) -> Result<Lock, PinsError> {
        self.lock_policy_within(POLICY_LOCK_ATTEMPTS)
    }

    /// As [`Self::lock_policy`], for who can do without and looks again later.
    pub fn try_lock_policy(&self) -> Result<Lock, PinsError> {
        self.lock_policy_within(1)
    }

    fn lock_policy_within(&self, attempts: u32) -> Result<Lock, PinsError> {
        let attempt =
            || lock(self.lock_path("policy"), "is changing the policy", "try again when it is done");
        let mut result = attempt();
        for _ in 1..attempts {
            if !matches!(result, Err(PinsError::Locked { .. })) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
            result = attempt();
        }
        result
    }
}

/// What is in a directory, by name.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The last part of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove_directory(path: &Path) -> Result<(), PinsError> {
    removed(path, fs::remove_dir(path))
}

/// Removes a pin; it may be gone already.
pub fn remove_file(path: &Path) -> Result<(), PinsError> {
    removed(path, fs::remove_file(path))
}

fn removed(path: &Path, result: io::Result<()>) -> Result<(), PinsError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PinsError::Io { what: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn lock(path: PathBuf, what: &'static str, help: &'static str) -> Result<Lock, PinsError> {
    match flock(&path, libc::LOCK_EX) {
        Ok(Some(directory)) => Ok(Lock { directory, path }),
        Ok(None) => Err(PinsError::Locked { path, what, help }),
        Err(source) => Err(PinsError::Io { what: "lock", path, source }),
    }
}

/// Locks a directory; `None`: somebody else has it.
fn flock(path: &Path, operation: i32) -> io::Result<Option<fs::File>> {
    let directory = fs::File::open(path)?;
    // SAFETY: a descriptor that is open for the time of the call.
    if unsafe { libc::flock(directory.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
        return Ok(Some(directory));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a terminated path and room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the answer is written.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_type & 0xffff_ffff == BPF_FS_MAGIC)
}
