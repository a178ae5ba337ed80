//! All packets of a link, in a pcap file, without a program of others.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::netns::{Namespace, index_of};

/// Room for packets that are not written yet. Loopback and veth merge segments to up to 64 KiB.
const BUFFER_BYTES: i32 = 64 << 20;

/// The longest packet that is kept whole.
const PACKET_BYTES_MAX: usize = 1 << 17;

/// How soon it notices that it is to stop, in ms.
const GLANCE_MS: i32 = 50;

/// The header of a pcap file with times in ns, of Ethernet frames (link type 1).
const HEADER: [u32; 6] = [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, PACKET_BYTES_MAX as u32, 1];

/// `SIOCGSTAMPNS_OLD` of asm-generic/sockios.h: when the packet that was read last came.
const SIOCGSTAMPNS: libc::c_ulong = 0x8907;

/// Writes all packets that an interface sends and receives.
#[derive(Debug)]
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Recorder {
    /// Begins. Every packet from now on will be in the file.
    ///
    /// # Errors
    ///
    /// There is no such interface, or the file cannot be made.
    pub fn start(namespace: &Namespace, interface: &str, file: &Path) -> Result<Self> {
        let socket = namespace.within(|| open(interface))??;
        let mut file = BufWriter::new(
            File::create(file).with_context(|| format!("making the capture {}", file.display()))?,
        );
        for word in HEADER {
            file.write_all(&word.to_le_bytes()).context("writing the head of a capture")?;
        }
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || record(&socket, &mut file, &stopped));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends, with every packet in the file that was sent before: how many there are.
    ///
    /// # Errors
    ///
    /// The disk is full, or packets were lost because the machine was too slow.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it is stopped once")?;
        thread.join().map_err(|_| anyhow!("the recorder panicked"))?
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test that drops it has failed already.
            let _ = thread.join();
        }
    }
}

/// A socket that is handed every packet of an interface.
fn open(interface: &str) -> Result<OwnedFd> {
    const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
    let index = index_of(interface)?;
    let failed = |what: &str| Err(io::Error::last_os_error()).context(format!("{what} a packet socket"));
    // Bound to no protocol yet: it takes nothing before it is bound to the interface.
    // SAFETY: no precondition.
    let number = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if number < 0 {
        return failed("opening");
    }
    // SAFETY: a descriptor that was just opened and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let (bytes, size) = (BUFFER_BYTES, size_of::<i32>() as libc::socklen_t);
    let value = (&raw const bytes).cast();
    // SAFETY: an open descriptor, and a value of the size told.
    if unsafe { libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, size) } != 0 {
        return failed("enlarging");
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ALL,
        sll_ifindex: i32::try_from(index).context("numbers of interfaces are small")?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an open descriptor, and an address of the size told.
    if unsafe { libc::bind(number, (&raw const address).cast(), size) } != 0 {
        return failed("binding");
    }
    Ok(socket)
}

/// Writes packets until it is told to stop and none is left.
fn record(socket: &OwnedFd, file: &mut impl io::Write, stop: &AtomicBool) -> Result<u64> {
    let mut room = vec![0; PACKET_BYTES_MAX];
    let mut packets = 0;
    loop {
        // Looked at before the queue is: what was sent before the stop is in the queue then.
        let is_last = stop.load(Ordering::Relaxed);
        while let Some(packet) = next(socket, &mut room)? {
            write(socket, file, packet).context("writing a capture")?;
            packets += 1;
        }
        if is_last {
            break;
        }
        wait(socket)?;
    }
    file.flush().context("writing a capture")?;
    match lost(socket)? {
        0 => Ok(packets),
        lost => bail!("{lost} packets were lost beside {packets}: the recorder was not scheduled in time"),
    }
}

/// The next packet; none: nothing waits.
fn next<'a>(socket: &OwnedFd, room: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
    // SAFETY: an open descriptor, and room of the size told.
    let length =
        unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    match usize::try_from(length) {
        Ok(length) => Ok(Some(&room[..length])),
        Err(_) => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error => Err(error).context("reading from a packet socket"),
        },
    }
}

fn write(socket: &OwnedFd, file: &mut impl io::Write, packet: &[u8]) -> Result<()> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: this command writes a time, which there is room for.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error()).context("asking when a packet came");
    }
    let length = u32::try_from(packet.len())?;
    for word in [u32::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?, length, length] {
        file.write_all(&word.to_le_bytes())?;
    }
    Ok(file.write_all(packet)?)
}

/// Waits for a packet, not long.
fn wait(socket: &OwnedFd) -> Result<()> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one element, for the time of the call.
    match unsafe { libc::poll(&raw mut poll, 1, GLANCE_MS) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error).context("waiting for a packet"),
        },
        _ => Ok(()),
    }
}

/// Packets that found no room.
fn lost(socket: &OwnedFd) -> Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut size = size_of_val(&statistics) as libc::socklen_t;
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    let value = (&raw mut statistics).cast();
    // SAFETY: an open descriptor, and room of the size told.
    if unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut size) } != 0 {
        return Err(io::Error::last_os_error()).context("asking a packet socket what it lost");
    }
    Ok(statistics.tp_drops)
}
