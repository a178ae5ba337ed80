//! What arrives, by source.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::assert_cut;
use crate::{
    netns::Namespace,
    process::{PATIENCE, wait_until},
};

/// Room for what arrives while the receiver is not scheduled: with a page for each short datagram, some 15,000.
const BUFFER_BYTES: i32 = 64 << 20;

/// How soon a receiver notices that it is to stop.
const GLANCE: Duration = Duration::from_millis(50);

/// What arrived from a source.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    packets: u64,
    first: Instant,
    last: Instant,
}

/// A socket that counts. It stops when this is dropped.
#[derive(Debug)]
pub struct Receiver {
    stop: Arc<AtomicBool>,
    arrived: Arc<Mutex<BTreeMap<IpAddr, Arrived>>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Counts what comes to an address of a namespace.
    ///
    /// # Errors
    ///
    /// The address is taken, or not there.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = namespace
            .within(|| UdpSocket::bind(address))?
            .with_context(|| format!("binding a receiver to {address}"))?;
        enlarge(&socket)?;
        socket.set_read_timeout(Some(GLANCE)).context("setting a timeout")?;
        let stop = Arc::<AtomicBool>::default();
        let arrived = Arc::<Mutex<BTreeMap<IpAddr, Arrived>>>::default();
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&arrived));
        let count = move || {
            let mut room = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                // A timeout, or a datagram that is longer than the room: neither is of interest.
                let Ok((_, from)) = socket.recv_from(&mut room) else { continue };
                let now = Instant::now();
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                let new = Arrived { packets: 0, first: now, last: now };
                let arrived = counts.entry(from.ip()).or_insert(new);
                arrived.packets += 1;
                arrived.last = now;
            }
        };
        Ok(Self { stop, arrived, thread: Some(thread::spawn(count)) })
    }

    /// Packets from a source so far.
    pub fn from(&self, source: IpAddr) -> u64 {
        self.arrived(source).map_or(0, |arrived| arrived.packets)
    }

    /// Time between the first and the last packet from a source.
    pub fn span(&self, source: IpAddr) -> Duration {
        self.arrived(source).map_or(Duration::ZERO, |arrived| arrived.last - arrived.first)
    }

    fn arrived(&self, source: IpAddr) -> Option<Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).get(&source).copied()
    }

    /// Asserts that what passed the program has arrived, no more, and that it is what a budget gives to a source that
    /// never rested, within 1 %.
    ///
    /// # Errors
    ///
    /// Less arrives.
    ///
    /// # Panics
    ///
    /// More does, or it is not what the budget gives.
    #[track_caller]
    pub fn assert_cut(&self, source: IpAddr, passed: u64, burst: u64, per_second: u64) -> Result<()> {
        assert_eq!(self.wait_for(source, passed)?, passed, "what passed the program is what arrived");
        assert_cut(passed, self.span(source), burst, per_second);
        Ok(())
    }

    /// Waits until at least so many came from a source; then how many did.
    ///
    /// # Errors
    ///
    /// They did not.
    pub fn wait_for(&self, source: IpAddr, packets: u64) -> Result<u64> {
        wait_until(&format!("{packets} packets from {source} arrive"), PATIENCE, || {
            Ok(Some(self.from(source)).filter(|&seen| seen >= packets))
        })
        .with_context(|| format!("{} came", self.from(source)))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A receiver that panicked counted too little, which its test has noticed.
            let _ = thread.join();
        }
    }
}

fn enlarge(socket: &UdpSocket) -> Result<()> {
    let bytes = BUFFER_BYTES;
    let size = size_of_val(&bytes) as libc::socklen_t;
    let value = (&raw const bytes).cast();
    // SAFETY: an open descriptor, and a value of the size told.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, size) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("enlarging a receive buffer");
    }
    Ok(())
}
