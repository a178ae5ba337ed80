//! Addresses and prefixes.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::spelling::quoted;
use super::text::Issue;

/// What a list of prefixes holds, for messages.
pub(super) const EXPECTED: &str =
    "addresses or prefixes such as \"192.0.2.1\", \"192.0.2.0/24\" or \"2001:db8::/32\"";

/// Bits of the prefix that holds the IPv4-mapped IPv6 addresses, `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

/// Reads a prefix, or an address as the prefix of that address alone.
pub(super) fn parse(text: &str) -> Result<IpNet, Issue> {
    let (address_text, bits_text) =
        text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address_text.parse::<IpAddr>() else {
        let wrong = if address_text.contains('%') { "an address with a zone" } else { "not an address" };
        let issue = Issue::new(wrong, "an address or a prefix such as \"192.0.2.1\" or \"2001:db8::/32\"");
        return Err(issue.help(instead(text)));
    };
    let (family, bits_max) = if address.is_ipv4() { ("IPv4", 32) } else { ("IPv6", 128) };
    let invalid_length = || {
        Issue::new(format!("invalid length of an {family} prefix"), format!("a length from 0 to {bits_max}"))
    };
    let Some(bits) = bits_text.map_or(Some(bits_max), |bits| length(bits, bits_max)) else {
        let bits = quoted(bits_text.unwrap_or_default());
        return Err(invalid_length().found(format!("`/{bits}`")));
    };
    let Ok(prefix) = IpNet::new(address, bits) else { return Err(invalid_length()) };

    if let Some(v4) = mapped(prefix) {
        return Err(Issue::new("an IPv4-mapped IPv6 prefix matches no packet", format!("\"{v4}\", in IPv4")));
    }
    if prefix.trunc() != prefix {
        let network = prefix.trunc();
        return Err(Issue::new(
            "prefix with bits set after its length",
            format!("\"{network}\", the network it is in"),
        )
        .help(format!("for this address alone write \"{address}\"")));
    }
    Ok(prefix)
}

/// What to write for something that stands for addresses elsewhere.
fn instead(text: &str) -> Option<String> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(format!("write \"{}\"; a port goes into the `ports` of a service", socket.ip()));
    }
    let is_address = |text: &str| text.trim().parse::<IpAddr>().is_ok();
    if let Some((first, last)) = text.split_once('-')
        && is_address(first)
        && is_address(last)
    {
        return Some("write a range as the prefixes that it is made of".to_owned());
    }
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    if bare != text && is_address(bare) {
        return Some(format!("write \"{bare}\""));
    }
    if let Some(dotted) = text.strip_suffix(".*")
        && is_address(&format!("{dotted}.0"))
    {
        return Some(format!("write \"{dotted}.0/24\""));
    }
    let is_name = text.contains('.') && text.chars().any(|character| character.is_ascii_alphabetic());
    (is_name && !text.contains([':', '/']))
        .then(|| "host names are not looked up: write the addresses".to_owned())
}

fn length(text: &str, bits_max: u8) -> Option<u8> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|bits| *bits <= bits_max)
}

/// The IPv4 prefix an IPv4-mapped IPv6 one stands for.
fn mapped(prefix: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(prefix) = prefix else { return None };
    let bits = prefix.prefix_len().checked_sub(MAPPED_BITS)?;
    Some(Ipv4Net::new(prefix.addr().to_ipv4_mapped()?, bits).ok()?.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_prefix_of_itself() {
        assert_eq!(parse("192.0.2.1"), Ok("192.0.2.1/32".parse().unwrap()));
        assert_eq!(parse("2001:DB8::1"), Ok("2001:db8::1/128".parse().unwrap()));
        assert_eq!(parse("0.0.0.0/0"), Ok("0.0.0.0/0".parse().unwrap()));
        assert_eq!(parse("::/0"), Ok("::/0".parse().unwrap()));
        assert!(parse("::ffff:0:0/95").is_err());
        assert_eq!(parse("::fffe:0:0/95"), Ok("::fffe:0:0/95".parse().unwrap()));
    }

    #[test]
    fn lengths_are_plain_digits_in_range() {
        for text in
            ["192.0.2.0/33", "192.0.2.0/+24", "192.0.2.0/", "192.0.2.0/ 24", "::/129", "::/999999", "::/8/8"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_addresses_are_addresses() {
        for text in
            ["", "/24", "192.0.2", "192.0.2.01", " 192.0.2.1", "fe80::1%eth0", "example.org", "192.0.2.1:80"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
