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
    load::chain,
    pins::{LinkMode, LinkPin, Pins},
};

/// A program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its number.
    pub index: u32,
    /// How the program runs.
    pub mode: LinkMode,
    /// Whether the link of a predecessor was taken over, without a gap.
    pub adopted: bool,
    /// Why it does not run natively, where it does not.
    pub fallback: Option<String>,
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
pub fn attach(program: &mut Xdp, interface: &str, pins: &Pins) -> Result<Attachment, AttachError> {
    let index = index_of(interface)?;
    if let Some(pin) = pins.links().into_iter().find(|pin| pin.interface_index == index)
        && adopt(program, interface, &pin)?
    {
        let (mode, interface) = (pin.mode, interface.to_owned());
        return Ok(Attachment { interface, index, mode, adopted: true, fallback: None });
    }
    let (mode, fallback) = match attach_new(program, interface, index, LinkMode::Native, pins) {
        Ok(()) => (LinkMode::Native, None),
        Err(AttachError::Refused { reason, .. }) => {
            attach_new(program, interface, index, LinkMode::Generic, pins)?;
            (LinkMode::Generic, Some(reason))
        }
        Err(error) => return Err(error),
    };
    Ok(Attachment { interface: interface.to_owned(), index, mode, adopted: false, fallback })
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
            detach(pin).map_err(|error| failed(error.to_string()))?;
            Ok(false)
        }
        Err(error) => Err(failed(chain(&error))),
    }
}

fn attach_new(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    mode: LinkMode,
    pins: &Pins,
) -> Result<(), AttachError> {
    let xdp_mode = match mode {
        LinkMode::Native => XdpMode::Driver,
        LinkMode::Generic => XdpMode::Skb,
    };
    let link = program
        .attach_to_if_index(index, xdp_mode)
        .and_then(|id| program.take_link(id))
        .map_err(|error| refused(interface, &error))?;
    let pin = pins.link(index, mode);
    let failed = |reason: String| AttachError::Pin {
        name: interface.to_owned(),
        path: pin.path.display().to_string(),
        reason,
    };
    // Without a link object (aya then used netlink) the attachment would die with this process: not accepted, and
    // taken back by dropping the link.
    let link = FdLink::try_from(link).map_err(|error| failed(chain(&error)))?;
    link.pin(&pin.path).map_err(|error| failed(chain(&error)))?;
    Ok(())
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
pub fn detach(pin: &LinkPin) -> io::Result<()> {
    std::fs::remove_file(&pin.path)
}
