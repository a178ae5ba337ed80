//! The clients: what they are made of, and how they connect.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use detector_common::hello::Transport;
use detector_tests::{
    https::NAME,
    netns::Namespace,
    process::{PATIENCE, Running, run},
    python,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Where a client is, and what it is to do.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Where it runs.
    pub(crate) namespace: &'a Namespace,
    /// A directory for its files.
    pub(crate) files: &'a Path,
    /// Where it connects to.
    pub(crate) server: SocketAddr,
    /// The server's certificate. Most clients do not look at it, which changes nothing in what they say first.
    pub(crate) certificate: PathBuf,
    /// How often, one connection after the other or all at once.
    pub(crate) connections: usize,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it is.
    pub(crate) name: &'static str,
    /// What `detector fingerprint` calls it.
    pub(crate) label: &'static str,
    /// What carries its ClientHello.
    pub(crate) transport: Transport,
    /// Whether it resumes sessions, so that later connections have another JA4.
    pub(crate) resumes: bool,
    /// Whether its extensions come in another order each time.
    pub(crate) shuffles: bool,
    /// What has to be installed.
    needs: &'static [Need],
    /// Makes the connections.
    pub(crate) connect: fn(&Place) -> Result<()>,
}

#[derive(Debug)]
enum Need {
    /// A program and the Debian package that brings it.
    Program(&'static str, &'static str),
    /// A module in the Python environment of the tests.
    Module(&'static str),
}
use Need::{Module, Program};

impl Client {
    /// What is missing, and who brings it.
    pub(crate) fn missing(&self) -> Option<String> {
        self.needs.iter().find_map(Need::missing)
    }
}

impl Need {
    fn missing(&self) -> Option<String> {
        match self {
            Program(program, package) => {
                find(program).is_none().then(|| format!("no {program}: Debian's package {package} brings it"))
            }
            Module(module) => (!has_module(module)).then(|| {
                format!("no {module} in the Python environment of the tests: `cargo xtask setup` installs it")
            }),
        }
    }
}

/// Whether a module is in the Python environment of the tests.
fn has_module(module: &str) -> bool {
    let Ok(python) = python::program("python") else { return false };
    let import = Command::new(python).args(["-c", &format!("import {module}")]).output();
    import.is_ok_and(|import| import.status.success())
}

/// curl, on OpenSSL.
pub(crate) const CURL: Client = Client {
    name: "curl",
    label: "curl/OpenSSL 3",
    transport: Transport::Tcp,
    resumes: false,
    shuffles: false,
    needs: &[Program("curl", "curl")],
    connect: |place| {
        let resolve = format!("{NAME}:{}:{}", place.server.port(), place.server.ip());
        let url = format!("https://{NAME}/");
        each(
            place,
            "curl",
            &["--silent", "--show-error", "--insecure", "--noproxy", "*", "--resolve", &resolve, &url],
        )
    },
};

/// OpenSSL's own client.
pub(crate) const OPENSSL: Client = Client {
    name: "openssl s_client",
    label: "OpenSSL 3",
    transport: Transport::Tcp,
    resumes: false,
    shuffles: false,
    needs: &[Program("openssl", "openssl")],
    connect: |place| {
        let server = place.server.to_string();
        each(place, "openssl", &["s_client", "-brief", "-connect", &server, "-servername", NAME])
    },
};

/// The module `ssl` of Python.
pub(crate) const PYTHON: Client = Client {
    name: "Python ssl",
    label: "Python ssl/OpenSSL 3",
    transport: Transport::Tcp,
    resumes: false,
    shuffles: false,
    needs: &[Program("python3", "python3")],
    connect: |place| {
        let mut python = place.namespace.command("python3")?;
        finish(place, python.arg(script("tls.py")).args(numbers(place)))
    },
};

/// The label of Python's client: where Python was built with the cipher list of OpenSSL, as Debian's is, it speaks like any other program
/// on OpenSSL.
pub(crate) fn label_of_python() -> Result<&'static str> {
    const ASK: &str = "import sysconfig; print(sysconfig.get_config_var('CONFIG_ARGS'))";
    let options = run(Command::new("python3").args(["-c", ASK]))?;
    Ok(if options.contains("--with-ssl-default-suites=openssl") { OPENSSL.label } else { PYTHON.label })
}

/// crypto/tls of Go.
pub(crate) const GO: Client = Client {
    name: "Go crypto/tls",
    label: "Go crypto/tls",
    transport: Transport::Tcp,
    resumes: false,
    shuffles: false,
    needs: &[Program("go", "golang-go")],
    connect: |place| {
        let program = place.files.join("tls-go");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(script("tls.go"));
        // Nothing but what comes with the compiler, and no traces outside of the test.
        build.env("GOCACHE", place.files.join("go-cache")).env("GOPROXY", "off").env("GOTOOLCHAIN", "local");
        finish(place, &mut build)?;
        let mut go = place.namespace.command(program)?;
        finish(place, go.args([&place.server.to_string(), NAME, &place.connections.to_string()]))
    },
};

/// Node's agent for HTTPS.
pub(crate) const NODE: Client = Client {
    name: "Node",
    label: "Node",
    transport: Transport::Tcp,
    resumes: true,
    shuffles: false,
    needs: &[Program("node", "nodejs")],
    connect: |place| {
        let mut node = place.namespace.command("node")?;
        finish(place, node.arg(script("tls.js")).args(numbers(place)))
    },
};

/// GnuTLS' own client.
pub(crate) const GNUTLS: Client = Client {
    name: "GnuTLS",
    label: "GnuTLS",
    transport: Transport::Tcp,
    resumes: false,
    shuffles: false,
    needs: &[Program("gnutls-cli", "gnutls-bin")],
    connect: |place| {
        let (host, port) = (place.server.ip().to_string(), place.server.port().to_string());
        each(place, "gnutls-cli", &["--insecure", "--sni-hostname", NAME, "--port", &port, &host])
    },
};

/// rustls, as this workspace has it.
pub(crate) const RUSTLS: Client = Client {
    name: "rustls",
    label: "rustls",
    transport: Transport::Tcp,
    resumes: true,
    shuffles: true,
    needs: &[],
    connect: |place| place.namespace.within(|| connect_with_rustls(place))?,
};

/// Chromium over TCP.
pub(crate) const CHROMIUM: Client = Client {
    name: "Chromium",
    label: "Chromium",
    transport: Transport::Tcp,
    resumes: false,
    shuffles: true,
    needs: &[Program("chromium", "chromium")],
    connect: |place| open_with_chromium(place, &["--disable-quic", "--ignore-certificate-errors"]),
};

/// Chromium over QUIC, for which it wants to know the key of the certificate that it is to trust.
pub(crate) const CHROMIUM_QUIC: Client = Client {
    name: "Chromium over QUIC",
    label: "Chromium",
    transport: Transport::Quic,
    resumes: false,
    shuffles: true,
    needs: &[Program("chromium", "chromium"), Module("aioquic")],
    connect: |place| {
        let origins: Vec<_> = hosts(place).map(|host| format!("{host}:{}", place.server.port())).collect();
        let trust = format!("--ignore-certificate-errors-spki-list={}", public_key_hash(place)?);
        let quic = format!("--origin-to-force-quic-on={}", origins.join(","));
        open_with_chromium(place, &["--enable-quic", &quic, &trust])
    },
};

/// aioquic, the client that speaks QUIC.
pub(crate) const AIOQUIC: Client = Client {
    name: "aioquic",
    label: "aioquic",
    transport: Transport::Quic,
    resumes: false,
    shuffles: false,
    needs: &[Module("aioquic")],
    connect: |place| {
        let mut python = place.namespace.command(python::program("python")?)?;
        finish(place, python.arg(script("quic_client.py")).args(numbers(place)))
    },
};

/// A program in a language of its own.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// HOST PORT NAME CONNECTIONS, as these programs take them.
fn numbers(place: &Place) -> [String; 4] {
    let (host, port) = (place.server.ip().to_string(), place.server.port().to_string());
    [host, port, NAME.to_owned(), place.connections.to_string()]
}

/// Runs a program for each connection.
fn each(place: &Place, program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<()> {
    (0..place.connections).try_for_each(|_| finish(place, place.namespace.command(program)?.args(arguments)))
}

/// Runs a program to its end, which has to be a good one, and soon.
fn finish(place: &Place, command: &mut Command) -> Result<()> {
    let log = place.files.join("client.log");
    let file = fs::File::create(&log).context("making a log file")?;
    command.stdout(file.try_clone().context("duplicating a descriptor")?).stderr(file);
    let status = Running::start(command)?.end(PATIENCE);
    match status {
        Ok(status) if status.success() => Ok(()),
        ended => bail!("{command:?}: {ended:?}: {}", fs::read_to_string(&log).unwrap_or_default()),
    }
}

fn connect_with_rustls(place: &Place) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&place.certificate).context("reading the certificate")?)?;
    let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    for _ in 0..place.connections {
        let stream = TcpStream::connect_timeout(&place.server, PATIENCE).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).context("setting a timeout")?;
        let connection = ClientConnection::new(Arc::clone(&config), ServerName::try_from(NAME)?)?;
        let mut stream = StreamOwned::new(connection, stream);
        // The tickets with which the next connection resumes come with the answer.
        write!(stream, "GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n").context("asking")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("reading the answer")?;
    }
    Ok(())
}

/// Opens a page with a picture of each of so many hosts, without a window.
fn open_with_chromium(place: &Place, options: &[&str]) -> Result<()> {
    let page = place.files.join("page.html");
    let pictures: String = hosts(place).map(|host| format!("<img src=https://{host}/>")).collect();
    fs::write(&page, pictures).context("writing a page")?;
    let mut chromium = place.namespace.command("chromium")?;
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--dump-dom"])
        .arg(format!("--user-data-dir={}", place.files.join("chromium").display()))
        // It asks for more than the page: that there is not.
        .arg(format!("--host-resolver-rules=MAP *.{NAME} {}, MAP * ~NOTFOUND", place.server.ip()))
        .args(options)
        .arg(page);
    finish(place, &mut chromium)
}

/// A host for each connection: a browser makes one to each.
fn hosts(place: &Place) -> impl Iterator<Item = String> {
    (0..place.connections).map(|number| format!("{number}.{NAME}"))
}

/// SHA-256 of the public key of the server's certificate, in base64.
fn public_key_hash(place: &Place) -> Result<String> {
    const HASH: &str = "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform der \
                        | openssl dgst -sha256 -binary | openssl base64";
    let mut shell = Command::new("sh");
    let hash = run(shell.args(["-c", HASH, "public-key-hash"]).arg(&place.certificate))?;
    Ok(hash.trim().to_owned())
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}
