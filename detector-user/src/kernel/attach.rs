//! Attaching the program to interfaces, by links that are pinned and adopted.

use std::{
    ffi::{CStr, CString},
    io,
};

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use thiserror::Error;

use super::{
    links::{LinkMode, LinkPin, Namespace, Place},
    load::chain,
    pins::{Pins, PinsError, remove_file},
};

/// A program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its link.
    pub pin: LinkPin,
    /// Whether the link of a predecessor was taken over, without a gap.
    pub adopted: bool,
    /// Why it does not run natively, where it does not.
    pub fallback: Option<String>,
}

impl Attachment {
    /// Whether the program still runs there: not after the interface was deleted, or the link unpinned.
    pub fn is_attached(&self) -> Result<bool, PinsError> {
        match self.pin.attached_index() {
            Ok(index) => Ok(index != 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(PinsError::Io { what: "read the link", path: self.pin.path.clone(), source }),
        }
    }
}

/// Why a program cannot be attached. Nothing is left behind.
#[derive(Debug, Error)]
pub enum AttachError {
    /// No such interface.
    #[error("there is no interface {name}; there are: {existing}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        existing: String,
    },
    /// Another XDP program is there.
    #[error(
        "another XDP program is attached to {name}: see it with `ip -details link show dev {name}`, remove it with \
         `ip link set dev {name} xdp off` or by its own tool, then try again"
    )]
    Foreign {
        /// The interface.
        name: String,
    },
    /// The kernel refuses.
    #[error("cannot attach to {name}: {reason}")]
    Refused {
        /// The interface.
        name: String,
        /// What the kernel said.
        reason: String,
    },
    /// The links of a predecessor cannot be read, or not removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The attachment cannot be kept.
    #[error("cannot pin the link of {name} at {path}: {reason}")]
    Pin {
        /// The interface.
        name: String,
        /// The pin.
        path: String,
        /// What the kernel said.
        reason: String,
    },
}

/// The number of an interface in this network namespace.
pub fn index_of(name: &str) -> Result<u32, AttachError> {
    let missing = || AttachError::NoInterface { name: name.to_owned(), existing: names().join(", ") };
    let c_name = CString::new(name).map_err(|_| missing())?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(missing()),
        index => Ok(index),
    }
}

/// The name of an interface's number in this network namespace; `None` where there is none.
pub fn name_of(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: room for the longest name and its terminator.
    let result = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if result.is_null() {
        return None;
    }
    CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(str::to_owned)
}

fn names() -> Vec<String> {
    // Numbers are dense from 1 in a namespace, so a bounded walk finds the names; a gap of that size ends it.
    (1..=4096).filter_map(name_of).collect()
}

/// Attaches the program to an interface: over the pinned link of a predecessor, else natively, else generically.
pub fn attach(
    program: &mut Xdp,
    interface: &str,
    pins: &Pins,
    own: Namespace,
) -> Result<Attachment, AttachError> {
    let index = index_of(interface)?;
    let name = interface.to_owned();
    for (pin, place) in pins.places(own)? {
        if matches!(place, Place::Here { index: held, .. } if held == index) {
            if adopt(program, interface, &pin)? {
                return Ok(Attachment { interface: name, pin, adopted: true, fallback: None });
            }
        } else if (pin.namespace, pin.interface_index) == (own, index) {
            // Of an interface that had the number before: its pin is in the way of the new one's.
            detach(&pin)?;
        }
    }
    let new = |mode| LinkPin::new(&pins.directory(), own, index, mode);
    let native = new(LinkMode::Native);
    let (pin, fallback) = match attach_new(program, interface, index, &native) {
        Ok(()) => (native, None),
        Err(AttachError::Refused { reason, .. }) => {
            let generic = new(LinkMode::Generic);
            attach_new(program, interface, index, &generic)?;
            (generic, Some(reason))
        }
        Err(error) => return Err(error),
    };
    Ok(Attachment { interface: name, pin, adopted: false, fallback })
}

/// Replaces the program behind a pinned link. `false`: the link is dead (its interface went away); its pin is removed.
fn adopt(program: &mut Xdp, interface: &str, pin: &LinkPin) -> Result<bool, AttachError> {
    let failed = |reason: String| AttachError::Refused { name: interface.to_owned(), reason };
    let link = PinnedLink::from_pin(&pin.path)
        .and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)))
        .map_err(|error| failed(chain(&error)))?;
    match program.attach_to_link(link).and_then(|id| program.take_link(id)) {
        // Dropping the link closes a descriptor; the pin holds the attachment.
        Ok(_link) => Ok(true),
        Err(error) if os_error(&error) == Some(libc::ENOLINK) => {
            detach(pin)?;
            Ok(false)
        }
        Err(error) => Err(failed(chain(&error))),
    }
}

fn attach_new(program: &mut Xdp, interface: &str, index: u32, pin: &LinkPin) -> Result<(), AttachError> {
    let xdp_mode = match pin.mode {
        LinkMode::Native => XdpMode::Driver,
        LinkMode::Generic => XdpMode::Skb,
    };
    let link = program
        .attach_to_if_index(index, xdp_mode)
        .and_then(|id| program.take_link(id))
        .map_err(|error| refused(interface, &error))?;
    // Without a link object (aya then used netlink) the attachment would die with this process: not accepted, and
    // taken back by dropping the link.
    let link = FdLink::try_from(link).map_err(|error| pin_failed(interface, pin, chain(&error)))?;
    link.pin(&pin.path).map_err(|error| pin_failed(interface, pin, chain(&error)))?;
    Ok(())
}

fn pin_failed(interface: &str, pin: &LinkPin, reason: String) -> AttachError {
    AttachError::Pin { name: interface.to_owned(), path: pin.path.display().to_string(), reason }
}

fn refused(interface: &str, error: &ProgramError) -> AttachError {
    let name = interface.to_owned();
    match os_error(error) {
        Some(libc::EBUSY | libc::EEXIST) => AttachError::Foreign { name },
        _ => AttachError::Refused { name, reason: chain(error) },
    }
}

fn os_error(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        cause = error.source();
    }
    None
}

/// Detaches from an interface: with its pin the last holder of the link goes.
pub fn detach(pin: &LinkPin) -> Result<(), PinsError> {
    remove_file(&pin.path)
}
