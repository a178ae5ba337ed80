//! `detector events`: following what happens, as a client of the daemon's API.

use std::{
    io::{self, Write as _},
    path::Path,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::handshake,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{EXIT_DONE, Failure};
use crate::{
    cli::EventsArgs,
    daemon::feed::{Dropped, Entry, Event, FleetEvent, FleetNews, Need},
};

/// Bytes that a refusal and a line may have.
const BYTES_MAX: usize = 1 << 20;

/// Follows what happens, until the daemon ends or nobody reads it any more.
pub fn events(args: &EventsArgs) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime =
        runtime.map_err(|error| Failure::failed(format_args!("cannot wait for events: {error}")))?;
    runtime.block_on(follow(args))
}

async fn follow(args: &EventsArgs) -> Result<u8, Failure> {
    let mut response = ask(&args.path, &path(args)).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    let mut received = Vec::new();
    while let Some(frame) = response.body_mut().frame().await {
        let frame = frame.map_err(|error| Failure::failed(format_args!("the daemon ended: {error}")))?;
        received.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            match print(&line[..end], args.json) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(EXIT_DONE),
                Err(error) => return Err(Failure::failed(format_args!("cannot print an event: {error}"))),
            }
        }
        if received.len() > BYTES_MAX {
            return Err(Failure::failed("the daemon sends a line without an end: is it another version?"));
        }
    }
    Err(Failure::failed("the daemon ended: start `detector run` again"))
}

fn path(args: &EventsArgs) -> String {
    let kinds: Vec<_> = args.kinds.iter().map(|kind| kind.name()).collect();
    let kinds = (!kinds.is_empty()).then(|| format!("kind={}", kinds.join(",")));
    let service = args.service.as_ref().map(|service| format!("service={}", escaped(service)));
    let query: Vec<_> = kinds.into_iter().chain(service).collect();
    format!("/v1/events?{}", query.join("&"))
}

/// A text as a part of a query.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

async fn ask(socket: &Path, path: &str) -> Result<Response<Incoming>, Failure> {
    let place = socket.display();
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        Failure::failed(format_args!(
            "no daemon answers at {place}: {error}; start `detector run`, or name its socket with --api"
        ))
    })?;
    let unanswered = |error: hyper::Error| {
        Failure::failed(format_args!("the daemon at {place} does not answer: {error}; look at its log"))
    };
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(unanswered)?;
    // What goes wrong with the connection is an error of the request, too.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path).header(HOST, "detector").body(Empty::<Bytes>::new());
    let request =
        request.map_err(|error| Failure::invalid(format_args!("cannot ask for {path}: {error}")))?;
    sender.send_request(request).await.map_err(unanswered)
}

/// What the daemon said instead.
async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let told: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    match told.as_ref().and_then(|told| told["error"].as_str()) {
        Some(error) if status.is_client_error() => Failure::invalid(error),
        Some(error) => Failure::failed(error),
        None => Failure::failed(format_args!("the daemon answers with {status}")),
    }
}

fn print(line: &[u8], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        out.write_all(line)?;
    } else {
        let entry: Entry = serde_json::from_slice(line).map_err(io::Error::other)?;
        out.write_all(text(&entry).as_bytes())?;
    }
    out.write_all(b"\n")?;
    out.flush()
}

/// A line for people. The time is that of the day, UTC.
fn text(entry: &Entry) -> String {
    let seconds = entry.at_ms / 1000 % 86_400;
    let time = format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        entry.at_ms % 1000
    );
    let what = match &entry.event {
        Event::Drop(dropped) => drop_text(dropped),
        Event::Reload { applied: true, file, .. } => format!("reload: {file} was read again and applied"),
        Event::Reload { file, error, .. } => {
            format!("reload: {file} was not applied: {}", error.as_deref().unwrap_or("no reason"))
        }
        Event::PolicyApplied { epoch, file, confirm_in_s: None } => {
            format!("policy {epoch} from {file} is active")
        }
        Event::PolicyApplied { epoch, file, confirm_in_s: Some(left_s) } => {
            format!("policy {epoch} from {file} is active, on trial for {left_s} s more")
        }
        Event::TrialEnded { confirmed: true, epoch } => format!("policy {epoch} was confirmed"),
        Event::TrialEnded { epoch, .. } => {
            format!("the policy on trial was taken back: policy {epoch} is active")
        }
        Event::RuleEnded { rule } => format!("rule {rule} has ended"),
        Event::IncidentAdded { id, action, target, target_count, by, reason, .. } => {
            let more = match target_count {
                0 | 1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            format!("incident rule {id} by {by}: {action} {target}{more}: {reason}")
        }
        Event::IncidentUndone { id } => format!("incident rule {id} was undone"),
        Event::Fingerprint { service, stable_ja4, key, label, .. } => {
            let label = label.as_deref().map(|label| format!(", as {label} has")).unwrap_or_default();
            format!(
                "fingerprint {key} is new at service {service}: JA4 {stable_ja4} but for what comes and goes{label}"
            )
        }
        Event::FingerprintConflict { service, key, stable_ja4, other_stable_ja4, rules } => format!(
            "fingerprint {key} of {stable_ja4} at service {service} is that of {other_stable_ja4} too: {} on it no more; name its sources \
             (`detector explain ADDRESS`) or its SYN (`syn:`) instead",
            match &rules[..] {
                [rule] => format!("rule {rule} acts"),
                rules => format!("rules {} act", rules.join(", ")),
            }
        ),
        Event::Fleet(fleet) => fleet_text(fleet),
        Event::Degraded { what, subject, reason } => format!("{}: {reason}", need_text(*what, subject)),
        Event::Recovered { what, subject } => format!("no more: {}", need_text(*what, subject)),
        Event::Missed { events } => format!("{events} events were missed: this follower is too slow"),
    };
    format!("{time} {what}")
}

fn fleet_text(fleet: &FleetEvent) -> String {
    let uniform = if fleet.is_new_uniform_population {
        " (maybe innocent: devices that were launched, or the like)"
    } else {
        ""
    };
    let FleetEvent { id, service, members, news, says, .. } = fleet;
    match news {
        FleetNews::Ended => {
            format!("fleet {id} at service {service} ended: it was not seen for a day of detection")
        }
        news => {
            format!("fleet {id} at service {service}: {}, {members} members{uniform}: {says}", news.name())
        }
    }
}

fn need_text(what: Need, subject: &str) -> String {
    match what {
        Need::InterfaceLost => format!("interface {subject} is limited no more"),
        Need::TableFull => format!("the table of {subject} is full"),
        Need::HandshakesUnseen => format!("there is no room for all {subject}"),
    }
}

fn drop_text(dropped: &Dropped) -> String {
    let Dropped { source, source_port, destination, destination_port, service, reason, bytes, .. } = dropped;
    let verb = if dropped.shadow { "would drop" } else { "drop" };
    let protocol = match dropped.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    };
    let end = |address: &std::net::IpAddr, port: u16| match port {
        0 => address.to_string(),
        port => std::net::SocketAddr::new(*address, port).to_string(),
    };
    let (from, to) = (end(source, *source_port), end(destination, *destination_port));
    let by = dropped.rule.as_ref().map(|rule| format!(" by rule {rule}")).unwrap_or_default();
    format!("{verb} {from} > {to} {protocol}, {bytes} bytes, service {service}: {reason}{by}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_people() {
        let dropped = Dropped {
            source: "198.51.100.7".parse().unwrap(),
            source_port: 4711,
            destination: "2001:db8::1".parse().unwrap(),
            destination_port: 443,
            protocol: 6,
            bytes: 60,
            interface: 2,
            service: "api".to_owned(),
            reason: "fingerprint".to_owned(),
            rule: Some("INC-4712".to_owned()),
            shadow: false,
        };
        let entry = Entry { at_ms: 86_400_000 + 3_661_007, event: Event::Drop(dropped) };
        assert_eq!(
            text(&entry),
            "01:01:01.007Z drop 198.51.100.7:4711 > [2001:db8::1]:443 tcp, 60 bytes, service api: fingerprint by rule INC-4712"
        );
        let json = serde_json::to_string(&entry).unwrap();
        assert!(json.contains("\"kind\":\"drop\"") && json.contains("\"at_ms\":"), "{json}");
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn what_is_asked_for_is_a_query() {
        use crate::daemon::feed::EventKind;
        let mut args = EventsArgs {
            kinds: vec![EventKind::Drop, EventKind::RuleEnded],
            service: Some("a b&c".to_owned()),
            path: "/x".into(),
            json: true,
        };
        assert_eq!(path(&args), "/v1/events?kind=drop,rule_ended&service=a%20b%26c");
        (args.kinds, args.service) = (Vec::new(), None);
        assert_eq!(path(&args), "/v1/events?");
    }
}
