//! The clients: what they are made of, and how they connect.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use detector_tests::{netns::Namespace, process::run};

/// What clients call the server. Its certificate is of another name, which is nothing that is asked here.
const NAME: &str = "edge.example";

/// Where a client is, and what it is to do.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Where it runs.
    pub namespace: &'a Namespace,
    /// A directory for its files.
    pub files: &'a Path,
    /// Where it connects to.
    pub server: SocketAddr,
    /// How often, one connection after the other or all at once.
    pub connections: usize,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it is.
    pub name: &'static str,
    /// The program that has to be there.
    pub program: &'static str,
    /// What brings that program.
    pub package: &'static str,
    /// Makes the connections.
    pub connect: fn(&Place) -> Result<()>,
}

impl Client {
    /// Whether its program is there.
    pub(crate) fn is_installed(&self) -> bool {
        find(self.program).is_some()
    }
}

/// curl, on OpenSSL.
pub(crate) const CURL: Client = Client {
    name: "curl",
    program: "curl",
    package: "Debian's package curl",
    connect: |place| {
        let resolve = format!("{NAME}:443:{}", place.server.ip());
        let url = format!("https://{NAME}/");
        let arguments = ["--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "30"];
        each(place, "curl", &[&arguments[..], &["--resolve", &resolve, &url]].concat())
    },
};

/// OpenSSL's own client.
pub(crate) const OPENSSL: Client = Client {
    name: "openssl s_client",
    program: "openssl",
    package: "Debian's package openssl",
    connect: |place| {
        let server = place.server.to_string();
        each(place, "openssl", &["s_client", "-brief", "-connect", &server, "-servername", NAME])
    },
};

/// Runs a program for each connection.
fn each(place: &Place, program: &str, arguments: &[&str]) -> Result<()> {
    for _ in 0..place.connections {
        run(place.namespace.command(program)?.args(arguments))?;
    }
    Ok(())
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}
