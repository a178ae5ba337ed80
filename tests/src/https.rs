//! A real HTTPS service, nginx, and a real client, curl.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{
    netns::{Namespace, temporary_directory},
    process::{PATIENCE, Running, run, wait_until},
};

/// What the service answers.
pub const GREETING: &str = "hello from the edge";

/// What the certificate calls the service beside its addresses.
pub const NAME: &str = "edge.example";

/// nginx with a certificate of its own, in a temporary directory; it ends when this is dropped.
#[derive(Debug)]
pub struct Https {
    _nginx: Running,
    files: TempDir,
}

impl Https {
    /// Starts it on addresses of a namespace and waits until it answers on each.
    ///
    /// # Errors
    ///
    /// nginx or openssl is missing, or an address is.
    pub fn start(namespace: &Namespace, addresses: &[SocketAddr]) -> Result<Self> {
        let files = temporary_directory()?;
        certificate(&files, addresses)?;
        let directory = files.path().display();
        let listen: String = addresses.iter().map(|address| format!("listen {address} ssl;\n")).collect();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log {directory}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n\
             fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;\n\
             scgi_temp_path {directory}/scgi;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_certificate {directory}/certificate.pem; ssl_certificate_key {directory}/key.pem;\n\
             server {{ {listen} location / {{ return 200 \"{GREETING}\\n\"; }} location /pages/ {{ root {directory}; }} }}\n\
             }}\n"
        );
        let file = files.path().join("nginx.conf");
        fs::write(&file, configuration).context("writing nginx's configuration")?;
        let log = fs::File::create(files.path().join("start.log")).context("making a log file")?;
        let mut command = namespace.command("nginx")?;
        command.arg("-p").arg(files.path()).arg("-c").arg(&file).stdout(log.try_clone()?).stderr(log);
        let mut nginx = Running::start(&mut command)?;
        for &address in addresses {
            let answers = || {
                if let Some(status) = nginx.ended()? {
                    let said = fs::read_to_string(files.path().join("start.log")).unwrap_or_default();
                    bail!("nginx ended ({status}): {said}");
                }
                let reach = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
                Ok(namespace.within(reach)?.ok())
            };
            wait_until(&format!("nginx answers on {address}"), PATIENCE, answers)?;
        }
        Ok(Self { _nginx: nginx, files })
    }

    /// Puts a page of so many bytes at `/pages/NAME`.
    ///
    /// # Errors
    ///
    /// The disk is full.
    pub fn page(&self, name: &str, bytes: usize) -> Result<()> {
        let directory = self.files.path().join("pages");
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join(name), vec![b'.'; bytes]))
            .with_context(|| format!("writing page {name}"))
    }

    /// The certificate that clients trust.
    pub fn certificate(&self) -> PathBuf {
        self.files.path().join("certificate.pem")
    }

    /// The key of the certificate.
    pub fn key(&self) -> PathBuf {
        self.files.path().join("key.pem")
    }

    /// curl from an address of a namespace to an address of the service: one connection, one request, the certificate
    /// checked.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn curl(
        &self,
        namespace: &Namespace,
        from: IpAddr,
        to: SocketAddr,
        patience_s: u32,
    ) -> Result<Command> {
        let mut curl = namespace.command("curl")?;
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
            .args(["--interface", &from.to_string(), "--max-time", &patience_s.to_string()])
            .arg("--cacert")
            .arg(self.certificate())
            .arg(format!("https://{to}/"));
        Ok(curl)
    }

    /// Makes one request and checks the answer.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn request(
        &self,
        namespace: &Namespace,
        from: IpAddr,
        to: SocketAddr,
        patience_s: u32,
    ) -> Result<()> {
        let answer = run(&mut self.curl(namespace, from, to, patience_s)?)?;
        if answer.trim() != GREETING {
            bail!("{to} answered {answer:?}");
        }
        Ok(())
    }
}

fn certificate(files: &TempDir, addresses: &[SocketAddr]) -> Result<()> {
    let names: Vec<_> = addresses.iter().map(|address| format!("IP:{}", address.ip())).collect();
    let names = format!("subjectAltName=DNS:{NAME},{}", names.join(","));
    run(Command::new("openssl")
        .current_dir(files.path())
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=detector edge", "-addext", &names])
        // Strict clients take no authority for a server.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"]))
    .map(drop)
    .context("making a certificate")
}
