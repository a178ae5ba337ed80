//! What passes the interfaces of a namespace, as a capture.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// Bytes of a frame that are kept: more than there are, also where the kernel left it to the card to cut what was sent.
const FRAME_BYTES_MAX: usize = 1 << 17;

/// A tap at every interface of a namespace.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Taps from now on.
    ///
    /// # Errors
    ///
    /// Not root.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        let open = || {
            let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: no precondition.
            let socket = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
            if socket < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a descriptor that nobody else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(socket) })
        };
        Ok(Self { socket: namespace.within(open)?.context("opening a packet socket")? })
    }

    /// Writes what has passed since the start, or since this was asked last, to a pcap file. How many frames there were.
    ///
    /// # Errors
    ///
    /// The disk is full.
    pub fn write(&self, path: &Path) -> Result<usize> {
        let mut file = [[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0], [0; 8], [0, 0, 4, 0, 1, 0, 0, 0]].concat();
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let mut frames = 0_usize;
        while let Some(bytes) = self.receive(&mut frame)? {
            let time_us = u32::try_from(frames)?.to_le_bytes();
            let length = u32::try_from(bytes)?.to_le_bytes();
            file.extend([[0; 4], time_us, length, length].concat());
            file.extend(&frame[..bytes]);
            frames += 1;
        }
        fs::write(path, file).with_context(|| format!("writing {}", path.display()))?;
        Ok(frames)
    }

    /// The next frame's length; `None`: there is none yet.
    fn receive(&self, frame: &mut [u8]) -> Result<Option<usize>> {
        // SAFETY: as many bytes as there is room for.
        let bytes = unsafe { libc::recv(self.socket.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        match usize::try_from(bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error).context("receiving a frame"),
            },
        }
    }
}
