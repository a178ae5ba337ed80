//! One frame, up to millions of times a second, out of an interface.

use anyhow::{Context as _, Result};

use super::{Load, Pace, Sent};
use crate::{
    bpf::{Action, Attached, Mode, Program},
    netns::{Namespace, index_of},
};

/// Frames that one system call sends at most: some 10 ms' worth, so that a flood stops soon.
const CALL_MAX: u32 = 50_000;

/// A flood that runs. It stops when this is dropped.
#[derive(Debug)]
pub struct Flood {
    load: Load,
    _parking: Parking,
}

impl Flood {
    /// Sends a frame out of an interface of a namespace, over and over: no socket, no qdisc, one core at most. The far
    /// end must have an XDP program, which is what makes a veth take frames this way.
    ///
    /// # Errors
    ///
    /// The program cannot be loaded.
    pub fn start(namespace: &Namespace, interface: &str, frame: Vec<u8>, pace: Pace) -> Result<Self> {
        let program = Program::new(Action::Transmit)?;
        let parking = Parking::new(&program)?;
        let index = namespace.within(|| index_of(interface))??;
        let (mut load, run) = Load::pacing(pace, CALL_MAX, move |count| {
            program.run_live(&frame, index, count)?;
            Ok(count)
        });
        load.thread = Some(namespace.spawn(run)?);
        Ok(Self { load, _parking: parking })
    }

    /// Packets sent so far, those included that found the far end's queue full.
    pub fn packets(&self) -> u64 {
        self.load.packets()
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// Sending failed.
    pub fn stop(mut self) -> Result<Sent> {
        self.load.finish()
    }
}

/// Keeps a program attached where no packet comes.
///
/// A test run puts its program into the kernel's dispatcher of XDP programs and takes it out again, which waits for two
/// grace periods, 20 ms in all; a program that is attached somewhere is there already.
#[derive(Debug)]
struct Parking {
    _attached: Attached,
    _namespace: Namespace,
}

impl Parking {
    fn new(program: &Program) -> Result<Self> {
        let namespace = Namespace::new("parking")?;
        let attach = || index_of("lo").and_then(|index| program.attach(index, Mode::Generic));
        let attached = namespace.within(attach)?.context("parking a program")?;
        Ok(Self { _attached: attached, _namespace: namespace })
    }
}
