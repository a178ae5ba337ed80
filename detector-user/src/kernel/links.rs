//! Pinned links: of which interface, in which network namespace, and whether they still hold it.
//!
//! Interfaces are numbered in each network namespace from 1, and a BPF file system may be seen from several of them: a
//! number alone would name the wrong interface. So a pin's name begins with the namespace's cookie, which the kernel
//! gives to no other until it boots again (the inode number of a namespace that ended is given to the next).

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::attach::name_of;

/// How a link runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMode {
    /// In the driver.
    Native,
    /// After the kernel allocated a socket buffer: several times slower.
    Generic,
}

impl LinkMode {
    /// The word of pins, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Nobody says which namespace this is.
#[derive(Debug, Error)]
#[error("cannot tell the network namespace of this process: {0}; its cookie is asked for on a Unix socket")]
pub struct NamespaceError(#[source] io::Error);

/// A network namespace, by its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace(u64);

impl Namespace {
    /// That of this process.
    pub fn own() -> Result<Self, NamespaceError> {
        let socket = UnixDatagram::unbound().map_err(NamespaceError)?;
        let mut cookie = 0_u64;
        let mut bytes = size_of::<u64>() as libc::socklen_t;
        // SAFETY: an open socket, and room for the eight bytes that the kernel writes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut bytes,
            )
        };
        if result == 0 { Ok(Self(cookie)) } else { Err(NamespaceError(io::Error::last_os_error())) }
    }
}

/// A pinned link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPin {
    /// Where it was attached.
    pub namespace: Namespace,
    /// Number of the interface when it was attached.
    pub interface_index: u32,
    /// How it runs.
    pub mode: LinkMode,
    /// The pin.
    pub path: PathBuf,
}

/// Where a link's interface is, as the kernel says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the namespace asked from.
    Here {
        /// Its number there.
        index: u32,
        /// Its name.
        name: String,
    },
    /// In another network namespace.
    Elsewhere,
    /// Nowhere: the interface was deleted. The link is dead, and no interface that is made anew revives it.
    Gone,
}

impl LinkPin {
    pub(super) fn new(directory: &Path, namespace: Namespace, interface_index: u32, mode: LinkMode) -> Self {
        let path = directory.join(format!("link-{}-{interface_index}-{}", namespace.0, mode.name()));
        Self { namespace, interface_index, mode, path }
    }

    /// The pin at a path; `None` where the name is not that of a link.
    pub(crate) fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix("link-")?.to_owned();
        let (namespace, rest) = name.split_once('-')?;
        let (index, mode) = rest.split_once('-')?;
        let mode = match mode {
            "native" => LinkMode::Native,
            "generic" => LinkMode::Generic,
            _ => return None,
        };
        let namespace = Namespace(namespace.parse().ok()?);
        Some(Self { namespace, interface_index: index.parse().ok()?, mode, path })
    }

    /// Where its interface is, seen from a namespace.
    pub fn place(&self, from: Namespace) -> io::Result<Place> {
        Ok(match self.attached_index()? {
            0 => Place::Gone,
            _ if self.namespace != from => Place::Elsewhere,
            // None of that number: it was moved to another namespace.
            index => name_of(index).map_or(Place::Elsewhere, |name| Place::Here { index, name }),
        })
    }

    /// The number that the interface has now, in whatever namespace; 0: it was deleted.
    ///
    /// # Errors
    ///
    /// Nothing is pinned there any more (`NotFound`), or it is no link of an XDP program (`InvalidData`).
    pub fn attached_index(&self) -> io::Result<u32> {
        let link = open(&self.path)?;
        // bpf_xdp_link_show_fdinfo of net/core/dev.c.
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
        let index = text.lines().find_map(|line| line.strip_prefix("ifindex:")?.trim().parse().ok());
        index.ok_or_else(|| {
            let text = format!("{} is no link of an XDP program", self.path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

/// Whether a pin is that of a link, by its name; also one of a version that named links otherwise.
pub(super) fn is_link(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"link-"))
}

/// The beginning of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct GetAttributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Of linux/bpf.h.
const BPF_OBJ_GET: i32 = 7;

/// Opens a pin. aya does so too, and then tells neither the interface nor the descriptor.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = GetAttributes { path: path.as_ptr() as u64, descriptor: 0, flags: 0 };
    // SAFETY: attributes of that command, with a terminated path that outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size_of::<GetAttributes>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_are_read_as_they_are_written() {
        let directory = Path::new("/sys/fs/bpf/detector/abi-1");
        for (namespace, index, mode) in [(1, 2, LinkMode::Native), (u64::MAX, u32::MAX, LinkMode::Generic)] {
            let pin = LinkPin::new(directory, Namespace(namespace), index, mode);
            assert_eq!(LinkPin::parse(pin.path.clone()), Some(pin));
        }
        for other in ["SETTINGS", "link-2-native", "link-1-2-", "link-1-2-offloaded", "link-x-2-native"] {
            assert_eq!(LinkPin::parse(directory.join(other)), None, "{other}");
        }
    }

    #[test]
    fn a_namespace_is_itself() {
        assert_eq!(Namespace::own().unwrap(), Namespace::own().unwrap());
    }
}
