//! What the kernel's program makes of the packets of captures: the keys of their SYNs and ClientHellos.

use std::net::SocketAddr;

use super::{Bench, ReplayError, Time};
use crate::{
    capture::Frame,
    fingerprint::ends_of,
    policy,
    recent::{Bounds, Held, Recent},
};

/// Every destination is a service.
const POLICY: &str = "version = 1\n[[service]]\nname = \"all\"\naddresses = [\"0.0.0.0/0\", \"::/0\"]\n";

/// Sources that the program's table is sized for.
const SOURCES: u32 = 100_000;

/// Connections whose keys are kept until their ClientHello is found.
const BOUNDS: Bounds = Bounds { flows: 65_536, bytes: usize::MAX };

/// The keys of a connection; 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keys {
    /// That of its SYN.
    pub syn: u64,
    /// That of its ClientHello.
    pub tls: u64,
}

impl Held for Keys {
    fn held_bytes(&self) -> usize {
        0
    }
}

/// The program, loaded apart from any that filters, under the clock of a capture.
pub struct Program {
    bench: Bench,
    time: Time,
    keys: Recent<(SocketAddr, SocketAddr), Keys>,
}

impl Program {
    /// Loads the program.
    ///
    /// # Errors
    ///
    /// The kernel refuses it; who is not root may not load any.
    pub fn load() -> Result<Self, ReplayError> {
        let mut bench = Bench::new(SOURCES)?;
        match policy::parse(POLICY) {
            Ok(checked) => bench.apply(&checked.policy)?,
            Err(diagnostics) => {
                unreachable!("{}", policy::render("the policy of fingerprint", POLICY, &diagnostics))
            }
        };
        Ok(Self { bench, time: Time::default(), keys: Recent::new(BOUNDS) })
    }

    /// Forgets all, for another capture.
    pub fn forget(&mut self) {
        self.bench.forget();
        self.time = Time::default();
        self.keys = Recent::new(BOUNDS);
    }

    /// Gives a frame to the program.
    ///
    /// # Errors
    ///
    /// The kernel does not run it.
    pub fn take(&mut self, frame: &Frame) -> Result<(), ReplayError> {
        self.bench.set_ns(self.time.of(frame));
        // A frame that was cut says something else than it did.
        if frame.captured_bytes < frame.data.len() {
            return Ok(());
        }
        let trace = self.bench.run(&frame.data)?.trace;
        if trace.syn_key == 0 && trace.tls_key == 0 {
            return Ok(());
        }
        let Some(ends) = ends_of(&frame.data) else { return Ok(()) };
        self.keys.with(&ends, |keys| match trace.syn_key {
            0 => keys.tls = trace.tls_key,
            syn => *keys = Keys { syn, tls: 0 },
        });
        while self.keys.excess().is_some() {}
        Ok(())
    }

    /// The keys of a connection from a client to a server.
    pub fn keys(&mut self, client: SocketAddr, server: SocketAddr) -> Keys {
        self.keys.with(&(client, server), |keys| *keys)
    }
}
