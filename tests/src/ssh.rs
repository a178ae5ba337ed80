//! A real SSH session: sshd with a configuration of its own, and a client with a key of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    netns::{Namespace, temporary_directory},
    process::{PATIENCE, Running, run, wait_until},
};

/// Where sshd wants an empty directory, made at boot where it is a service.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// A session may last so long, seconds: what is locked out does not wait for the test's patience.
const SESSION_MAX_S: u32 = 60;

/// sshd; it ends when this is dropped, and its sessions with it.
#[derive(Debug)]
pub struct Sshd {
    _sshd: Running,
    address: SocketAddr,
    files: TempDir,
    _directory: Option<MadeDirectory>,
}

#[derive(Debug)]
struct MadeDirectory(PathBuf);

impl Drop for MadeDirectory {
    fn drop(&mut self) {
        // Another sshd may use it meanwhile.
        let _ = fs::remove_dir(&self.0);
    }
}

impl Sshd {
    /// Starts it on an address of a namespace and waits until it answers.
    ///
    /// # Errors
    ///
    /// OpenSSH is missing, or the address is.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let files = temporary_directory()?;
        let directory = privilege_separation()?;
        for key in ["host", "client"] {
            let path = files.path().join(key);
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path))?;
        }
        let authorized = files.path().join("client.pub");
        fs::set_permissions(&authorized, fs::Permissions::from_mode(0o644))
            .context("opening a public key")?;
        let configuration = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\nPrintMotd no\n",
            files.path().join("host").display(),
            authorized.display()
        );
        let file = files.path().join("sshd_config");
        fs::write(&file, configuration).context("writing sshd's configuration")?;
        let log = files.path().join("sshd.log");
        let to = fs::File::create(&log).context("making a log file")?;
        let mut command = namespace.command(sshd()?)?;
        command.args(["-D", "-e", "-f"]).arg(&file).stdout(to.try_clone()?).stderr(to);
        let mut sshd = Running::start(&mut command)?;
        wait_until("sshd answers", PATIENCE, || {
            if let Some(status) = sshd.ended()? {
                bail!("sshd ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            let reach = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
            Ok(namespace.within(reach)?.ok())
        })?;
        Ok(Self { _sshd: sshd, address, files, _directory: directory })
    }

    /// A client in a namespace, from an address, that will run a command in a session.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn session(&self, namespace: &Namespace, from: IpAddr, remote: &str) -> Result<Command> {
        let mut command = namespace.command("timeout")?;
        command.arg(SESSION_MAX_S.to_string()).args(["ssh", "-F", "none", "-b", &from.to_string()]);
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-i").arg(self.files.path().join("client"));
        command.args(["-p", &self.address.port().to_string()]);
        command.arg(format!("root@{}", self.address.ip())).arg(remote);
        Ok(command)
    }

    /// A session from an address that is there and stays.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub fn open(&self, namespace: &Namespace, from: IpAddr) -> Result<Session> {
        let mut command = self.session(namespace, from, "cat")?;
        let mut client = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let said = BufReader::new(client.stdout.take().context("its output is piped")?);
        let mut session = Session { client, said };
        session.echo("are you there")?;
        Ok(session)
    }
}

/// A session that stays open; it ends when this is dropped, and when we die, since it reads from us.
#[derive(Debug)]
pub struct Session {
    client: Child,
    said: BufReader<ChildStdout>,
}

impl Session {
    /// Hands a line to the client, which sends it.
    ///
    /// # Errors
    ///
    /// The client has ended.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let to = self.client.stdin.as_mut().context("an open session is written to")?;
        writeln!(to, "{line}").context("writing to a session")
    }

    /// Sends a line through the session and back.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub fn echo(&mut self, line: &str) -> Result<()> {
        self.send(line)?;
        let mut back = String::new();
        self.said.read_line(&mut back).context("reading from a session")?;
        ensure!(back.trim_end() == line, "a session says {back:?} to {line:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Both fail only where there is nothing left to do.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// Its whole path, with which it wants to be started.
fn sshd() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut programs = directories.map(|directory| directory.join("sshd"));
    programs.find(|program| program.is_file()).context("there is no sshd: `cargo xtask setup` installs it")
}

fn privilege_separation() -> Result<Option<MadeDirectory>> {
    let path = Path::new(PRIVILEGE_SEPARATION);
    if path.exists() {
        return Ok(None);
    }
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("making {PRIVILEGE_SEPARATION}"))?;
    Ok(Some(MadeDirectory(path.to_owned())))
}
