//! `detector fingerprint`: who the clients in captures are, by what their software says first.

use std::{
    cell::RefCell,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use detector_common::hello::Transport;
use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json_line, print_line, table};
use crate::{
    capture::Reader,
    cli::FingerprintArgs,
    fingerprint::{
        self,
        flows::{Flow, Flows},
        labels,
    },
    replay::keys::{Keys, Program},
};

/// What `fingerprint` answers.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Capture by capture, in the order in which they begin.
    pub flows: Vec<ClientFlow>,
    /// Why the kernel's program could not be asked; none: it was.
    pub without_kernel: Option<String>,
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
    /// The signature of its SYN, in the form of p0f.
    pub syn: Option<String>,
    /// The key of that, hexadecimal.
    pub syn_key: Option<String>,
    /// The key of its ClientHello, hexadecimal.
    pub tls_key: Option<String>,
    /// Whether the kernel's program came to that key by the packets of the flow.
    pub in_kernel: bool,
    /// What software is known to have such a JA4.
    pub label: Option<&'static str>,
}

/// Tells the client flows of captures.
pub fn fingerprint(args: &FingerprintArgs) -> Result<u8, Failure> {
    let answer = answer(&args.captures, args.all)?;
    if let Some(reason) = &answer.without_kernel {
        anstream::eprintln!(
            "warning: keys are computed without the kernel's program: {reason}; run as root to have both"
        );
    }
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
/// A capture cannot be read to its end, or the kernel does not run the program.
pub fn answer(captures: &[PathBuf], all: bool) -> Result<Answer, Failure> {
    // All of them, so that a wrong path is told before the work.
    let readers = captures.iter().map(|path| Reader::open(path)).collect::<Result<Vec<_>, _>>()?;
    let (mut program, without_kernel) = match Program::load() {
        Ok(program) => (Some(program), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut clients = Vec::new();
    for (path, mut reader) in captures.iter().zip(readers) {
        let found = RefCell::new(Vec::new());
        let mut flows = Flows::new(|flow: Flow| {
            if flow.hello.is_some() || all {
                found.borrow_mut().push(flow);
            }
        });
        let mut of_capture = Vec::new();
        let mut take = |program: &mut Option<Program>| {
            for flow in found.take() {
                of_capture.push((flow.number, of(path, &flow, program)?));
            }
            Ok::<_, Failure>(())
        };
        while let Some(frame) = reader.next_frame()? {
            if let Some(program) = &mut program {
                program.take(&frame)?;
            }
            flows.take(&frame.data, frame.captured_bytes);
            take(&mut program)?;
        }
        flows.end();
        take(&mut program)?;
        if let Some(program) = &mut program {
            program.forget();
        }
        of_capture.sort_by_key(|(number, _)| *number);
        clients.extend(of_capture.into_iter().map(|(_, client)| client));
    }
    Ok(Answer { flows: clients, without_kernel })
}

fn of(capture: &Path, flow: &Flow, program: &mut Option<Program>) -> Result<ClientFlow, Failure> {
    let failed = |text: String| Failure::failed(format_args!("{}: {text}", capture.display()));
    let hello = flow.hello.as_deref();
    let ja4 = hello.map(|hello| fingerprint::ja4(hello, flow.transport)).transpose();
    let ja4 = ja4.map_err(|error| failed(error.to_string()))?;
    let label = ja4.as_ref().and_then(|ja4| labels::label(&ja4.stable().to_string()));
    let tls_key = hello.and_then(|hello| fingerprint::key(hello, flow.transport));
    let in_kernel = match (program, flow.transport) {
        (Some(program), Transport::Tcp) => program.keys(flow.source, flow.destination),
        _ => Keys::default(),
    };
    let syn_key = flow.syn.map(|syn| syn.key());
    let ends = format!("{} to {}", flow.source, flow.destination);
    for (what, kernel, own) in [("SYN", in_kernel.syn, syn_key), ("ClientHello", in_kernel.tls, tls_key)] {
        if let (1.., Some(own)) = (kernel, own)
            && kernel != own
        {
            return Err(failed(format!(
                "the kernel has the key {kernel:016x} for the {what} of {ends}, expected {own:016x}: this is a defect of \
                 detector, please report it with the capture"
            )));
        }
    }
    let hex = |key: u64| format!("{key:016x}");
    Ok(ClientFlow {
        capture: capture.display().to_string(),
        source: flow.source,
        destination: flow.destination,
        transport: flow.transport.name(),
        ja4: ja4.as_ref().map(ToString::to_string),
        ja4_raw: ja4.as_ref().map(|ja4| ja4.raw()),
        syn: flow.syn.map(|syn| syn.to_string()),
        syn_key: syn_key.map(hex),
        tls_key: tls_key.map(hex),
        in_kernel: in_kernel.tls != 0,
        label,
    })
}

fn text(answer: &Answer, captures: usize, all: bool) -> String {
    if answer.flows.is_empty() {
        return match all {
            true => "no client flows".to_owned(),
            false => "no client flow with a whole ClientHello; --all lists other TCP flows".to_owned(),
        };
    }
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let rows = answer.flows.iter().map(|flow| {
        let capture = (captures > 1).then(|| flow.capture.clone());
        let ends = [flow.source.to_string(), flow.destination.to_string()];
        capture
            .into_iter()
            .chain(ends)
            .chain([flow.ja4.as_deref(), flow.syn.as_deref(), flow.label].map(or_dash))
            .collect()
    });
    let header = ["CAPTURE", "SOURCE", "DESTINATION", "JA4", "SYN", "LABEL"];
    table(&header[usize::from(captures == 1)..], &[], rows)
}
