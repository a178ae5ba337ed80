//! `detector fingerprint`: who the clients in captures are, by what their software says first.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use detector_common::{client_hello::HelloError, ja4::Transport};
use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json_line, print_line, table};
use crate::{
    capture::Reader,
    cli::FingerprintArgs,
    fingerprint::{
        self,
        flows::{Flow, follow},
    },
};

/// What `fingerprint` answers.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Capture by capture, in the order in which they begin.
    pub flows: Vec<ClientFlow>,
}

/// What a client and a server say to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientFlow {
    /// The capture, as it was named.
    pub capture: String,
    /// The client.
    pub source: SocketAddr,
    /// The server.
    pub destination: SocketAddr,
    /// `tcp` or `quic`.
    pub transport: &'static str,
    /// The JA4 of its first ClientHello; none: no such is whole in the capture.
    pub ja4: Option<String>,
    /// The same with the lists that it has the hashes of.
    pub ja4_raw: Option<String>,
    /// What the kernel's program makes of the flow.
    #[serde(flatten)]
    pub kernel: InKernel,
}

/// What the kernel's program makes of a flow's packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InKernel {
    /// The signature of its SYN, as text.
    pub syn: Option<String>,
    /// The key of that, hexadecimal.
    pub syn_key: Option<String>,
    /// The key of its ClientHello, hexadecimal.
    pub tls_key: Option<String>,
    /// Whether the program saw all of the ClientHello.
    pub in_kernel: bool,
    /// What is known to have such a SYN.
    pub label: Option<String>,
}

/// Tells the client flows of captures.
pub fn fingerprint(args: &FingerprintArgs) -> Result<u8, Failure> {
    let answer = answer(&args.captures, args.all)?;
    if args.json {
        answer.flows.iter().try_for_each(print_json_line)?;
    } else {
        print_line(&text(&answer, args.captures.len(), args.all));
    }
    Ok(EXIT_DONE)
}

/// The client flows of captures: those with a ClientHello, with `all` other TCP flows too.
///
/// # Errors
///
/// A capture cannot be read to its end.
pub fn answer(captures: &[PathBuf], all: bool) -> Result<Answer, Failure> {
    // All of them, so that a wrong path is told before the work.
    let readers = captures.iter().map(|path| Reader::open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut flows = Vec::new();
    for (path, mut reader) in captures.iter().zip(readers) {
        let mut of_capture = Vec::new();
        let mut unread = None;
        follow(&mut reader, |flow| {
            if flow.hello.is_none() && !all {
                return;
            }
            match of(path, &flow) {
                Ok(client) => of_capture.push((flow.number, client)),
                Err(error) => unread = Some(error),
            }
        })?;
        if let Some(error) = unread {
            return Err(Failure::failed(format_args!("{}: {error}", path.display())));
        }
        of_capture.sort_by_key(|(number, _)| *number);
        flows.extend(of_capture.into_iter().map(|(_, client)| client));
    }
    Ok(Answer { flows })
}

fn of(capture: &Path, flow: &Flow) -> Result<ClientFlow, HelloError> {
    let hello = flow.hello.as_deref();
    let ja4 = hello.map(|hello| fingerprint::ja4(hello, flow.transport)).transpose()?;
    Ok(ClientFlow {
        capture: capture.display().to_string(),
        source: flow.source,
        destination: flow.destination,
        transport: match flow.transport {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
        },
        ja4: ja4.as_ref().map(ToString::to_string),
        ja4_raw: ja4.as_ref().map(|ja4| ja4.raw()),
        // What only the program can say has its place here.
        kernel: InKernel::default(),
    })
}

fn text(answer: &Answer, captures: usize, all: bool) -> String {
    if answer.flows.is_empty() {
        return match all {
            true => "no client flows".to_owned(),
            false => "no client flow with a whole ClientHello; --all lists other TCP flows".to_owned(),
        };
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = answer.flows.iter().map(|flow| {
        let capture = (captures > 1).then(|| flow.capture.clone());
        let InKernel { syn, label, .. } = &flow.kernel;
        let ends = [flow.source.to_string(), flow.destination.to_string()];
        capture.into_iter().chain(ends).chain([&flow.ja4, syn, label].map(or_dash)).collect()
    });
    let header = ["CAPTURE", "SOURCE", "DESTINATION", "JA4", "SYN", "LABEL"];
    table(&header[usize::from(captures == 1)..], &[], rows)
}
