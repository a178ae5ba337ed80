//! Network namespaces of our own, removed whatever happens.
//!
//! Names are `det-PID-NUMBER-LABEL`. Dropping a [`Namespace`] removes it, after a panic too; what a killed process left
//! behind is swept by the next one that makes a namespace, since the name says whose it was.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::TempDir;

use crate::{
    bpf::Program,
    process::{is_alive, run},
};

/// What all names of ours begin with.
const PREFIX: &str = "det-";

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// Where bpffs is.
const BPFFS: &str = "/sys/fs/bpf";

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: fs::File,
}

impl Namespace {
    /// Makes a namespace with a name of its own that ends in `label`, and brings its loopback up.
    ///
    /// # Errors
    ///
    /// `ip` is missing or refuses: not root, for one.
    pub fn new(label: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let name = unique(label);
        run(Command::new("ip").args(["netns", "add", &name])).context("making a network namespace")?;
        let file = match fs::File::open(Path::new(NAMES).join(&name)) {
            Ok(file) => file,
            Err(error) => {
                remove(&name);
                return Err(error).with_context(|| format!("opening the namespace {name}"));
            }
        };
        let namespace = Self { name, file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on it; `arguments` are separated by blanks.
    ///
    /// # Errors
    ///
    /// `ip` refuses.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// A program that will run in it. Other than under `ip netns exec`, it sees the machine's /sys and so its bpffs.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let file = self.file.try_clone().context("duplicating the namespace's descriptor")?;
        let mut command = Command::new(program);
        // SAFETY: the closure makes one system call on a descriptor that it owns and allocates nothing.
        unsafe { command.pre_exec(move || enter(&file)) };
        Ok(command)
    }

    /// Calls a function on a thread in it. Sockets that the function makes stay in it.
    ///
    /// # Errors
    ///
    /// The thread cannot enter.
    ///
    /// # Panics
    ///
    /// The function panics.
    pub fn within<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| enter(&self.file).map(|()| function()));
            match inside.join() {
                Ok(result) => result.with_context(|| format!("entering the namespace {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread in it.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn spawn<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<io::Result<T>>> {
        let file = self.file.try_clone().context("duplicating the namespace's descriptor")?;
        Ok(thread::spawn(move || enter(&file).map(|()| function())))
    }

    /// Number of an interface in it.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub fn index_of(&self, interface: &str) -> Result<u32> {
        self.within(|| index_of(interface))?
    }

    /// Gives an interface an address, usable at once.
    ///
    /// # Errors
    ///
    /// `ip` refuses.
    pub fn address(&self, interface: &str, address: IpAddr, length: u8) -> Result<()> {
        // Duplicate address detection would keep an IPv6 address waiting for a second.
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        self.ip(&format!("addr add {address}/{length} dev {interface} {nodad}")).map(drop)
    }

    /// Puts a VLAN tag on every frame that leaves by an interface.
    ///
    /// A veth pair would hand the tag over beside the frame, where no XDP program sees it, so the interface's offload
    /// is switched off: tags then stand in the frames, as on a wire.
    ///
    /// # Errors
    ///
    /// The driver or `tc` refuses.
    pub fn tag_sent(&self, interface: &str, vlan: u16) -> Result<()> {
        self.within(|| tags_in_frames(interface))??;
        self.classify(interface, "egress", &Program::tagging(vlan)?)
    }

    /// Takes the VLAN tag off every frame that comes in on an interface; XDP sees them before.
    ///
    /// # Errors
    ///
    /// `tc` refuses.
    pub fn untag_received(&self, interface: &str) -> Result<()> {
        self.classify(interface, "ingress", &Program::untagging()?)
    }

    /// Lets a veth interface take frames that a program sends, as one with an XDP program of its own does: with GRO on
    /// it has a queue that is polled.
    ///
    /// # Errors
    ///
    /// The driver refuses.
    pub fn poll_received(&self, interface: &str) -> Result<()> {
        self.within(|| ethtool(interface, ETHTOOL_SGRO, 1))?.map(drop)
    }

    fn classify(&self, interface: &str, direction: &str, program: &Program) -> Result<()> {
        // Not `tc -n`, which remounts /sys and hides the pin.
        let tc = |arguments: &[&str]| run(self.command("tc")?.args(arguments));
        tc(&["qdisc", "add", "dev", interface, "clsact"])?;
        mount_bpffs()?;
        let pin = unique_pins();
        program.pin(&pin)?;
        let text = pin.to_string_lossy();
        let added = tc(&[
            "filter",
            "add",
            "dev",
            interface,
            direction,
            "bpf",
            "direct-action",
            "object-pinned",
            &text,
        ]);
        fs::remove_file(&pin).with_context(|| format!("removing the pin {text}"))?;
        added.map(drop)
    }

    /// Fetches a page over plain HTTP from inside.
    ///
    /// # Errors
    ///
    /// Nobody answers, or not with 200.
    pub fn fetch(&self, server: SocketAddr, path: &str) -> Result<String> {
        self.within(|| fetch(server, path))?.with_context(|| format!("fetching http://{server}{path}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name.
    pub interface: &'a str,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// Makes a veth pair and brings both ends up.
///
/// # Errors
///
/// `ip` refuses.
pub fn veth(left: End<'_>, right: End<'_>, mtu: u32) -> Result<()> {
    let (l, r) = (left.interface, right.interface);
    let (left_mac, right_mac) = (mac_text(left.mac), mac_text(right.mac));
    let peer = right.namespace.name();
    left.namespace.ip(&format!(
        "link add {l} mtu {mtu} address {left_mac} type veth \
         peer name {r} mtu {mtu} address {right_mac} netns {peer}"
    ))?;
    left.namespace.ip(&format!("link set {l} up"))?;
    right.namespace.ip(&format!("link set {r} up"))?;
    Ok(())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Number of an interface, in the namespace of the calling thread.
///
/// # Errors
///
/// There is none of that name.
pub fn index_of(interface: &str) -> Result<u32> {
    let name = std::ffi::CString::new(interface).context("names hold no zero")?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => {
            Err(io::Error::last_os_error()).with_context(|| format!("looking for the interface {interface}"))
        }
        index => Ok(index),
    }
}

/// Tests that make traffic take turns: on two cores they would starve each other.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name of this process that no other has: `det-PID-NUMBER-LABEL`.
pub fn unique(label: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}-{label}", std::process::id())
}

/// A place for pins that no other process has.
pub fn unique_pins() -> PathBuf {
    Path::new(BPFFS).join(unique("pins"))
}

/// A directory that goes with its owner, or is swept.
///
/// # Errors
///
/// The disk is full.
pub fn temporary_directory() -> Result<TempDir> {
    let prefix = format!("{}-", unique("files"));
    TempDir::with_prefix(prefix).context("making a temporary directory")
}

/// Whether we may make namespaces; where not, says that the test is skipped.
pub fn may_run() -> bool {
    let is_root = is_root();
    if !is_root {
        println!("skipped: needs root for network namespaces and XDP");
    }
    is_root
}

/// Whether we are root.
pub fn is_root() -> bool {
    // SAFETY: no precondition.
    unsafe { libc::geteuid() == 0 }
}

/// Mounts bpffs where nobody did: containers and initramfs have none.
fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("reading /proc/mounts")?;
    if mounts.contains(&format!(" {BPFFS} bpf ")) {
        return Ok(());
    }
    run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS])).map(drop)
}

/// Removes what processes of ours left behind that live no more: pins first, which holds nothing then.
fn sweep() {
    let stale = |directory: &str| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| is_stale(name)).collect::<Vec<_>>()
    };
    for name in stale(BPFFS) {
        remove_pins(&Path::new(BPFFS).join(name));
    }
    for name in stale(NAMES) {
        remove(&name);
    }
    let temporary = std::env::temp_dir();
    for name in stale(&temporary.to_string_lossy()) {
        // Somebody else may be sweeping too.
        let _ = fs::remove_dir_all(temporary.join(name));
    }
}

fn is_stale(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    owner.and_then(|id| id.parse().ok()).is_some_and(|id| !is_alive(id))
}

/// Removes pins, whatever they are. Links go with them.
pub fn remove_pins(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_pins(&entry.path());
        } else {
            // What cannot be removed shows when the directory cannot.
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", directory.display());
    }
}

fn remove(name: &str) {
    if let Err(error) = run(Command::new("ip").args(["netns", "del", name])) {
        eprintln!("a namespace is left behind: {error:#}");
    }
}

fn enter(namespace: &fs::File) -> io::Result<()> {
    // SAFETY: a descriptor that is open for the time of the call; it changes the calling thread only.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long one fetch may take.
const FETCH: Duration = Duration::from_secs(10);

fn fetch(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, FETCH)?;
    stream.set_read_timeout(Some(FETCH))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("no header: {answer:?}"))?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("answered {:?}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// `SIOCETHTOOL` and commands and a flag of linux/ethtool.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETH_FLAG_TXVLAN: u32 = 1 << 7;

/// Switches the insertion of VLAN tags by the device off.
fn tags_in_frames(interface: &str) -> Result<()> {
    let flags = ethtool(interface, ETHTOOL_GFLAGS, 0)?;
    ethtool(interface, ETHTOOL_SFLAGS, flags & !ETH_FLAG_TXVLAN)?;
    Ok(())
}

fn ethtool(interface: &str, command: u32, value: u32) -> Result<u32> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").context("opening a socket for ethtool")?;
    let mut exchange = [command, value];
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from as libc::c_char;
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: exchange.as_mut_ptr().cast() },
    };
    // SAFETY: these commands read and write two words, which `exchange` has, for the time of the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw const request) };
    if result != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("changing an offload of {interface}"));
    }
    Ok(exchange[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_dead_are_stale() {
        assert!(!is_stale(&unique("edge")));
        assert!(is_stale("det-4194305-0-edge"), "process numbers end at 2^22");
        assert!(!is_stale("detector") && !is_stale("det-x-0-edge") && !is_stale("other"));
    }
}
