//! Requests of many addresses by one curl: real ClientHellos, each on a connection of its own.

use std::{
    io::Write as _,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::{
    exits::{EXIT_HEADER, PROXY},
    scene::SERVICE,
};
use crate::process::ours;

/// What a client is: options of curl that its ClientHello follows from.
pub(super) type Program = &'static [&'static str];

/// Programs of people.
pub(super) const PROGRAMS: [Program; 6] = [
    &[],
    &["no-alpn"],
    &["http1.1"],
    &["tls-max = 1.2"],
    &["curves = X25519:P-256"],
    &["ciphers = ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305", "curves = P-256"],
];

/// The program of the one actor.
pub(super) const SDK: Program =
    &["no-alpn", "ciphers = ECDHE-ECDSA-AES128-GCM-SHA256", "tls13-ciphers = TLS_AES_128_GCM_SHA256"];

/// A request that is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// The address that it is to come from.
    pub(super) source: Ipv4Addr,
    /// Whether that is an exit of the proxy.
    pub(super) by_proxy: bool,
    pub(super) program: Program,
    /// Which of the pages of the service.
    pub(super) page: usize,
    /// Bytes that the request is longer than it has to be.
    pub(super) more: usize,
    /// How long an answer is waited for.
    pub(super) patience_s: u32,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) source: Ipv4Addr,
    /// What went wrong; `None`: nothing.
    pub(super) complaint: Option<String>,
}

/// Makes requests all at once, with curl in the namespace that the command is for, and says how each ended.
///
/// # Errors
///
/// curl cannot be started, or does not say how requests ended.
pub(super) fn fetch(mut curl: Command, certificate: &Path, requests: &[Request]) -> Result<Vec<Answer>> {
    let sections: Vec<_> = requests.iter().map(|request| section(request, certificate)).collect();
    let most = requests.len().max(1).to_string();
    curl.args(["--disable", "--no-progress-meter", "--parallel", "--parallel-immediate"]).args([
        "--parallel-max",
        &most,
        "--config",
        "-",
    ]);
    let piped = ours(&mut curl).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = piped.spawn().context("cannot start curl: `cargo xtask setup` installs it")?;
    let mut input = child.stdin.take().context("curl's input")?;
    input.write_all(sections.join("next\n").as_bytes()).context("telling curl what to do")?;
    drop(input);
    // It fails if one of many requests does: each of them says so itself.
    let output = child.wait_with_output().context("waiting for curl")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<_> = said.lines().map(answer).collect::<Result<_>>()?;
    anyhow::ensure!(
        answers.len() == requests.len(),
        "curl ({}) told of {} requests of {}",
        output.status,
        answers.len(),
        requests.len()
    );
    Ok(answers)
}

fn section(request: &Request, certificate: &Path) -> String {
    let Request { source, by_proxy, program, page, more, patience_s } = request;
    let from = if *by_proxy {
        format!("proxy = \"http://{PROXY}\"\nproxytunnel\nproxy-header = \"{EXIT_HEADER}: {source}\"\n")
    } else {
        format!("noproxy = \"*\"\ninterface = \"host!{source}\"\n")
    };
    let options: String = program.iter().map(|option| format!("{option}\n")).collect();
    format!(
        "url = \"https://{SERVICE}/pages/{page}\"\noutput = /dev/null\nfail\nno-sessionid\nmax-time = {patience_s}\n\
         cacert = \"{}\"\nheader = \"connection: close\"\nheader = \"cookie: {}\"\n{from}{options}\
         write-out = \"{source} %{{exitcode}} %{{errormsg}}\\n\"\n",
        certificate.display(),
        "x".repeat(*more),
    )
}

fn answer(line: &str) -> Result<Answer> {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().with_context(|| format!("curl says {line:?}"));
    let source = word()?.parse().with_context(|| format!("an address in {line:?}"))?;
    let code = word()?;
    let said = words.next().unwrap_or_default();
    let complaint = (code != "0").then(|| format!("curl ends with {code}: {said}"));
    Ok(Answer { source, complaint })
}
