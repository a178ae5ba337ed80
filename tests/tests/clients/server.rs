//! The servers that clients connect to.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, bail};
use detector_common::hello::Transport;
use detector_tests::{
    https::Https,
    netns::Namespace,
    process::{PATIENCE, Running, wait_until},
    python,
};

use crate::software::script;

/// A server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// nginx; of QUIC, whose certificate it is.
    pub(crate) https: Https,
    _quic: Option<Running>,
}

impl Server {
    /// Starts what answers over a transport at an address.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub(crate) fn start(
        namespace: &Namespace,
        address: SocketAddr,
        transport: Transport,
        files: &Path,
    ) -> Result<Self> {
        let https = Https::start(namespace, &[address])?;
        let quic = match transport {
            Transport::Tcp => None,
            Transport::Quic => Some(quic(namespace, address, &https, files)?),
        };
        Ok(Self { https, _quic: quic })
    }
}

fn quic(namespace: &Namespace, address: SocketAddr, https: &Https, files: &Path) -> Result<Running> {
    let log = files.join("quic-server.log");
    let file = fs::File::create(&log).context("making a log file")?;
    let mut command = namespace.command(python::program("python")?)?;
    command
        .arg(script("quic_server.py"))
        .args([address.ip().to_string(), address.port().to_string()])
        .args([https.certificate(), https.key()])
        .stdout(file.try_clone().context("duplicating a descriptor")?)
        .stderr(file);
    let mut server = Running::start(&mut command)?;
    wait_until("the QUIC server listens", PATIENCE, || {
        let said = fs::read_to_string(&log).context("reading the log of the QUIC server")?;
        if let Some(status) = server.ended()? {
            bail!("it ended ({status}): {said}");
        }
        Ok(said.contains("listens").then_some(()))
    })?;
    Ok(server)
}
