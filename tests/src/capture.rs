//! What passes the interfaces of a namespace, in pcap files, without a program of others: all the time ([`Recorder`]), or what has
//! come until it is asked for ([`Tap`]).

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

/// How soon a recorder notices that it is to stop, in ms.
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
        let queue = namespace.within(|| Queue::open(index_of(interface)?))??;
        let mut file = begin(file)?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || record(&queue, &mut file, &stopped));
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

/// Writes packets until it is told to stop and none is left.
fn record(queue: &Queue, file: &mut impl io::Write, stop: &AtomicBool) -> Result<u64> {
    let mut packets = 0;
    loop {
        // Looked at before the queue is: what was sent before the stop is in the queue then.
        let is_last = stop.load(Ordering::Relaxed);
        packets += queue.drain(file)?;
        if is_last {
            return Ok(packets);
        }
        queue.wait()?;
    }
}

/// Keeps what passes every interface of a namespace, as far as there is room, until it is asked for.
#[derive(Debug)]
pub struct Tap {
    queue: Queue,
}

impl Tap {
    /// Taps from now on.
    ///
    /// # Errors
    ///
    /// Not root.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        const EVERY: u32 = 0;
        Ok(Self { queue: namespace.within(|| Queue::open(EVERY))?? })
    }

    /// Writes what has passed since the start, or since this was asked last, to a pcap file. How many packets there were.
    ///
    /// # Errors
    ///
    /// The disk is full, or packets were lost because there was no room for more.
    pub fn write(&self, file: &Path) -> Result<u64> {
        self.queue.drain(&mut begin(file)?)
    }
}

/// A capture without packets.
fn begin(file: &Path) -> Result<BufWriter<File>> {
    let made = File::create(file).with_context(|| format!("making the capture {}", file.display()))?;
    let mut made = BufWriter::new(made);
    for word in HEADER {
        made.write_all(&word.to_le_bytes()).context("writing the head of a capture")?;
    }
    Ok(made)
}

/// A socket that is handed every packet of an interface.
#[derive(Debug)]
struct Queue {
    socket: OwnedFd,
}

impl Queue {
    /// That of the interface with a number; 0: of all.
    fn open(index: u32) -> Result<Self> {
        const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
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
        Ok(Self { socket })
    }

    /// Writes the packets that wait: how many.
    fn drain(&self, file: &mut impl io::Write) -> Result<u64> {
        let mut room = vec![0; PACKET_BYTES_MAX];
        let mut packets = 0;
        while let Some(packet) = self.next(&mut room)? {
            self.write(file, packet).context("writing a capture")?;
            packets += 1;
        }
        file.flush().context("writing a capture")?;
        match self.lost()? {
            0 => Ok(packets),
            lost => bail!("{lost} packets were lost beside {packets}: the queue was not read in time"),
        }
    }

    /// The next packet; none: nothing waits.
    fn next<'a>(&self, room: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        let (number, flags) = (self.socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: an open descriptor, and room of the size told.
        let length = unsafe { libc::recv(number, room.as_mut_ptr().cast(), room.len(), flags) };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(&room[..length])),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error).context("reading from a packet socket"),
            },
        }
    }

    /// Writes the packet that was read last.
    fn write(&self, file: &mut impl io::Write, packet: &[u8]) -> Result<()> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: this command writes a time, which there is room for.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCGSTAMPNS, &raw mut time) } != 0 {
            return Err(io::Error::last_os_error()).context("asking when a packet came");
        }
        let length = u32::try_from(packet.len())?;
        for word in [u32::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?, length, length] {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(file.write_all(packet)?)
    }

    /// Waits for a packet, not long.
    fn wait(&self) -> Result<()> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one element, for the time of the call.
        match unsafe { libc::poll(&raw mut poll, 1, GLANCE_MS) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error).context("waiting for a packet"),
            },
            _ => Ok(()),
        }
    }

    /// Packets that found no room, since it was asked last.
    fn lost(&self) -> Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut size = size_of_val(&statistics) as libc::socklen_t;
        let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        let value = (&raw mut statistics).cast();
        // SAFETY: an open descriptor, and room of the size told.
        if unsafe { libc::getsockopt(self.socket.as_raw_fd(), level, name, value, &raw mut size) } != 0 {
            return Err(io::Error::last_os_error()).context("asking a packet socket what it lost");
        }
        Ok(statistics.tp_drops)
    }
}
