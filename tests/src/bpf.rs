//! The smallest BPF programs, without a compiler.
//!
//! An XDP program that returns one action for every frame: with `XDP_TX` and live frames
//! (Documentation/bpf/bpf_prog_run.rst) it is the load generator, with `XDP_PASS` the foreign program on an interface.
//! Two programs for `tc` that put a VLAN tag on frames and take it off: not every kernel of a test machine has VLAN
//! interfaces.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, Result};

/// What a program returns, as linux/bpf.h numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Action {
    /// On to the network stack.
    Pass = 2,
    /// Out of the interface it came from.
    Transmit = 3,
}

/// How an XDP program is attached, by the flags of linux/if_link.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// After the kernel allocated a socket buffer.
    Generic = 1 << 1,
    /// In the driver.
    Native = 1 << 2,
}

/// Frames that one system call may send; the kernel stops between batches when a signal comes.
const BATCH: u32 = 64;

/// Commands and constants of linux/bpf.h.
const BPF_PROG_LOAD: i32 = 5;
const BPF_OBJ_PIN: i32 = 6;
const BPF_PROG_TEST_RUN: i32 = 10;
const BPF_LINK_CREATE: i32 = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
const BPF_ALU64_MOV_K: u8 = 0xb7;
const BPF_JMP_CALL: u8 = 0x85;
const BPF_JMP_EXIT: u8 = 0x95;
const BPF_FUNC_SKB_VLAN_PUSH: i32 = 18;
const BPF_FUNC_SKB_VLAN_POP: i32 = 19;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Default)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const EXIT: Self = Self { code: BPF_JMP_EXIT, registers: 0, offset: 0, immediate: 0 };

    const fn set(register: u8, immediate: i32) -> Self {
        Self { code: BPF_ALU64_MOV_K, registers: register, offset: 0, immediate }
    }

    const fn call(function: i32) -> Self {
        Self { code: BPF_JMP_CALL, registers: 0, offset: 0, immediate: function }
    }
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// … for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    return_value: u32,
    data_in_bytes: u32,
    data_out_bytes: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    _padding: u32,
}

/// … for `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// … for `BPF_OBJ_PIN`.
#[repr(C)]
#[derive(Default)]
struct PinAttributes {
    path: u64,
    object: u32,
    flags: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_interface: u32,
    receive_queue: u32,
    egress_interface: u32,
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

/// A program on an interface, as long as this lives.
#[derive(Debug)]
pub struct Attached(#[expect(dead_code, reason = "held, not read")] OwnedFd);

impl Program {
    /// Loads the program that returns an action.
    ///
    /// # Errors
    ///
    /// The kernel refuses: not root, for one.
    pub fn new(action: Action) -> Result<Self> {
        Self::load(BPF_PROG_TYPE_XDP, BPF_XDP, &[Instruction::set(0, action as i32), Instruction::EXIT])
    }

    /// Loads the program for `tc` that puts a VLAN tag on every frame.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn tagging(vlan: u16) -> Result<Self> {
        // Register 1 is the packet from the start; the protocol is a big-endian word.
        let protocol = i32::from(0x8100_u16.to_be());
        let push = Instruction::call(BPF_FUNC_SKB_VLAN_PUSH);
        let (protocol, vlan) = (Instruction::set(2, protocol), Instruction::set(3, vlan.into()));
        let program = [protocol, vlan, push, Instruction::set(0, 0), Instruction::EXIT];
        Self::load(BPF_PROG_TYPE_SCHED_CLS, 0, &program)
    }

    /// Loads the program for `tc` that takes a VLAN tag off every frame that has one.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn untagging() -> Result<Self> {
        let pop = Instruction::call(BPF_FUNC_SKB_VLAN_POP);
        Self::load(BPF_PROG_TYPE_SCHED_CLS, 0, &[pop, Instruction::set(0, 0), Instruction::EXIT])
    }

    fn load(program_type: u32, attach_type: u32, instructions: &[Instruction]) -> Result<Self> {
        let mut attributes = LoadAttributes {
            program_type,
            instruction_count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            name: *b"det_test\0\0\0\0\0\0\0\0",
            attach_type,
            ..LoadAttributes::default()
        };
        let fd =
            bpf(BPF_PROG_LOAD, &mut attributes).context("loading a BPF program of a few instructions")?;
        // SAFETY: a new descriptor that nobody else knows.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Attaches it to an interface of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Another program is there.
    pub fn attach(&self, interface_index: u32, mode: Mode) -> Result<Attached> {
        let mut attributes = LinkAttributes {
            program: self.number(),
            target: interface_index,
            attach_type: BPF_XDP,
            flags: mode as u32,
        };
        let fd = bpf(BPF_LINK_CREATE, &mut attributes).context("attaching an XDP program")?;
        // SAFETY: a new descriptor that nobody else knows.
        Ok(Attached(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Pins it, so that `ip link set … xdp pinned` can have it.
    ///
    /// # Errors
    ///
    /// The place is taken, or is no bpffs.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let text = CString::new(path.to_string_lossy().as_bytes()).context("paths hold no zero")?;
        let mut attributes =
            PinAttributes { path: text.as_ptr() as u64, object: self.number(), ..PinAttributes::default() };
        bpf(BPF_OBJ_PIN, &mut attributes)
            .map(drop)
            .with_context(|| format!("pinning a program at {}", path.display()))
    }

    /// Runs it on `count` live copies of a frame, as if they had come in on an interface of the calling thread's
    /// namespace. With [`Action::Transmit`] they leave there.
    ///
    /// # Errors
    ///
    /// The kernel refuses the frame or the interface.
    pub fn run_live(&self, frame: &[u8], interface_index: u32, count: u32) -> Result<()> {
        let context = Context {
            data_end: frame.len() as u32,
            ingress_interface: interface_index,
            ..Context::default()
        };
        let mut attributes = RunAttributes {
            program: self.number(),
            data_in_bytes: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: count,
            context_in_bytes: size_of::<Context>() as u32,
            context_in: address(&context),
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch: BATCH,
            ..RunAttributes::default()
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes).map(drop).context("sending live frames")
    }

    fn number(&self) -> u32 {
        self.0.as_raw_fd() as u32
    }
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

fn bpf<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    let size = size_of::<T>() as u32;
    // SAFETY: every `…Attributes` above begins like the union's member for its command; what its addresses point to
    // outlives the call and is only read.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}
