//! Entries of `ports`.

use super::model::Ports;
use super::spelling::{did_you_mean, meant, quoted};
use super::text::Issue;

/// What a list of ports holds, for messages.
pub(super) const EXPECTED: &str = "entries such as \"tcp/443\", \"udp/8000-8010\", \"tcp\", \"icmp\", \"gre\", \"esp\", \"sctp\", \"protocol/47\" or \"*\"";

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Words that may stand alone, with what they mean. ICMP is two protocols, one for each version of IP.
const WORDS: [(&str, &[Ports]); 7] = [
    ("*", &[Ports::Any]),
    ("tcp", &[Ports::Protocol(TCP)]),
    ("udp", &[Ports::Protocol(UDP)]),
    ("icmp", &[Ports::Protocol(1), Ports::Protocol(58)]),
    ("gre", &[Ports::Protocol(47)]),
    ("esp", &[Ports::Protocol(50)]),
    ("sctp", &[Ports::Protocol(132)]),
];

/// Words that take a number after a slash.
const WORDS_WITH_NUMBER: [&str; 3] = ["tcp", "udp", "protocol"];

/// Reads one entry, which may stand for several sets.
pub(super) fn parse(text: &str) -> Result<Vec<Ports>, Issue> {
    read(text).map_err(|issue| issue.better_help(instead(text)))
}

/// What to write for something that stands for ports elsewhere.
fn instead(text: &str) -> Option<String> {
    if text.contains(',') {
        return Some("write one entry for each port or range".to_owned());
    }
    let plain = text.to_ascii_lowercase().replace(' ', "").replace(':', "/");
    if let Ok([Ports::Range { .. }]) = read(&format!("tcp/{plain}")).as_deref() {
        return Some(format!("write \"tcp/{plain}\" or \"udp/{plain}\""));
    }
    let swapped = plain.split_once('/').map(|(port, protocol)| format!("{protocol}/{port}"));
    let over_udp = plain.strip_prefix("quic").map(|ports| format!("udp{ports}"));
    let everything = ["any", "all"].contains(&&*plain).then(|| "*".to_owned());
    meant([Some(plain), swapped, over_udp, everything].into_iter().flatten(), read)
}

fn read(text: &str) -> Result<Vec<Ports>, Issue> {
    let Some((word, number)) = text.split_once('/') else {
        let Some((_, ports)) = WORDS.iter().find(|(word, _)| *word == text) else {
            let issue = if text == "protocol" { "`protocol` without a number" } else { "unknown protocol" };
            return Err(
                Issue::new(issue, EXPECTED).help(did_you_mean(text, WORDS.iter().map(|(word, _)| *word)))
            );
        };
        return Ok(ports.to_vec());
    };
    match word {
        "tcp" => with_ports(TCP, number),
        "udp" => with_ports(UDP, number),
        "protocol" => {
            let protocol = decimal(number)
                .and_then(|number| u8::try_from(number).ok())
                .ok_or_else(|| Issue::new("invalid protocol number", "a number from 0 to 255"))?;
            Ok(vec![Ports::Protocol(protocol)])
        }
        _ if WORDS.iter().any(|(known, _)| *known == word) => {
            Err(Issue::new(format!("`{word}` has no ports"), format!("\"{word}\" alone")))
        }
        _ => Err(Issue::new(format!("unknown protocol `{}`", quoted(word)), "`tcp`, `udp` or `protocol`")
            .help(did_you_mean(word, WORDS_WITH_NUMBER))),
    }
}

fn with_ports(protocol: u8, ports: &str) -> Result<Vec<Ports>, Issue> {
    if ports == "*" {
        return Ok(vec![Ports::Protocol(protocol)]);
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (Some(first), Some(last)) = (decimal(first), decimal(last)) else {
        return Err(Issue::new("invalid port", "a port, a range such as `8000-8010`, or `*`"));
    };
    let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else {
        return Err(Issue::new("port out of range", "ports from 0 to 65535"));
    };
    if first > last {
        let name = if protocol == TCP { "tcp" } else { "udp" };
        let expected = format!("\"{name}/{last}-{first}\"");
        return Err(Issue::new("port range that ends before it starts", expected));
    }
    Ok(vec![Ports::Range { protocol, first, last }])
}

/// A number of digits alone; one too large for its type saturates, and so is out of every range here.
fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let range = |protocol, first, last| Ok(vec![Ports::Range { protocol, first, last }]);
        assert_eq!(parse("tcp/443"), range(6, 443, 443));
        assert_eq!(parse("udp/8000-8010"), range(17, 8000, 8010));
        assert_eq!(parse("udp/0-65535"), range(17, 0, 65535));
        assert_eq!(parse("tcp/*"), Ok(vec![Ports::Protocol(6)]));
        assert_eq!(parse("tcp"), Ok(vec![Ports::Protocol(6)]));
        assert_eq!(parse("udp"), Ok(vec![Ports::Protocol(17)]));
        assert_eq!(parse("icmp"), Ok(vec![Ports::Protocol(1), Ports::Protocol(58)]));
        assert_eq!(parse("gre"), Ok(vec![Ports::Protocol(47)]));
        assert_eq!(parse("esp"), Ok(vec![Ports::Protocol(50)]));
        assert_eq!(parse("sctp"), Ok(vec![Ports::Protocol(132)]));
        assert_eq!(parse("protocol/255"), Ok(vec![Ports::Protocol(255)]));
        assert_eq!(parse("*"), Ok(vec![Ports::Any]));
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "/",
            "tcp/",
            "tcp/-",
            "tcp/1-",
            "tcp/-1",
            "tcp/+1",
            "tcp/65536",
            "tcp/9-8",
            "tcp/1-2-3",
            "TCP",
            "protocol",
            "protocol/",
            "protocol/256",
            "protocol/99999999999999",
            "gre/1",
            "sctp/1",
            "*/1",
            "443",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["tcp/443", "udp/8000-8010", "tcp", "udp", "protocol/47", "*"] {
            let shown: Vec<String> = parse(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(shown, [text]);
        }
    }

    #[test]
    fn shared() {
        let shared = |left: &str, right: &str| {
            let (left, right) = (parse(left).unwrap()[0], parse(right).unwrap()[0]);
            assert_eq!(left.shared(right), right.shared(left));
            left.shared(right).map(|ports| ports.to_string())
        };
        let sets =
            [("*", "gre"), ("tcp", "tcp/1"), ("udp/5-9", "udp/8-12"), ("*", "*"), ("tcp/0-65535", "tcp")];
        let found = sets.map(|(left, right)| shared(left, right).unwrap_or_default());
        assert_eq!(found, ["protocol/47", "tcp/1", "udp/8-9", "*", "tcp"]);
        for (left, right) in [("tcp", "udp"), ("tcp/1-4", "tcp/5"), ("tcp/1", "udp/1")] {
            assert_eq!(shared(left, right), None);
        }
    }
}
