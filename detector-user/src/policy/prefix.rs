//! Addresses and prefixes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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
    let Some(address) = groups(address_text).or_else(|| address_text.parse().ok()) else {
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

/// Reads an IPv6 address that ends in no IPv4 address, if the text is one. The standard library reads the same, but looks
/// for an IPv4 address at each group: in a list of a million, that takes a third of the time of reading it.
fn groups(text: &str) -> Option<IpAddr> {
    let colons = text.as_bytes().windows(2).position(|two| two == b"::");
    let (head, tail) = colons.map_or((text, ""), |at| (&text[..at], &text[at + 2..]));
    let ((head, head_groups), (tail, tail_groups)) = (hexadecimal(head)?, hexadecimal(tail)?);
    let missing = 8_u32.checked_sub(head_groups + tail_groups)?;
    // Two colons stand for at least one group.
    if (missing > 0) != colons.is_some() {
        return None;
    }
    let bits = head.checked_shl(16 * (8 - head_groups)).unwrap_or(0) | tail;
    Some(Ipv6Addr::from_bits(bits).into())
}

/// Groups of one to four digits with colons between them, and how many there are.
fn hexadecimal(text: &str) -> Option<(u128, u32)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    let (mut bits, mut groups) = (0, 0);
    for group in text.as_bytes().split(|&byte| byte == b':') {
        if group.is_empty() || group.len() > 4 || groups == 8 {
            return None;
        }
        let digit = |&byte: &u8| char::from(byte).to_digit(16);
        let group = group.iter().try_fold(0, |value, byte| Some(value << 4 | digit(byte)?))?;
        (bits, groups) = (bits << 16 | u128::from(group), groups + 1);
    }
    Some((bits, groups))
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
    use proptest::prelude::*;

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

    const PIECES: [&str; 15] =
        ["0", "1", "00ab", "FfFf", "12345", "g", "+1", "é", " ", ":", ":", ":", ":", "::", "1.2.3.4"];

    /// Texts that are nearly addresses, and what the standard library makes of them.
    #[test]
    fn groups_are_read_as_the_standard_library_does() {
        let read = |text: &str| (groups(text), text.parse::<Ipv6Addr>().ok().map(IpAddr::from));
        for text in
            ["", ":", "::", ":::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1:2:3:4::5:6:7:8"]
        {
            let (ours, theirs) = read(text);
            assert_eq!(ours, theirs, "{text}");
        }
        let text = prop::collection::vec(prop::sample::select(&PIECES[..]), 0..18)
            .prop_map(|pieces| pieces.concat());
        let address =
            any::<(u128, u128)>().prop_map(|(bits, mask)| Ipv6Addr::from_bits(bits & mask).to_string());
        let sparse = (any::<u16>(), 0..8_u32, 0..8_u32).prop_map(|(bits, one, other)| {
            let bits = u128::from(bits);
            Ipv6Addr::from_bits(bits << (16 * one) | bits << (16 * other)).to_string()
        });
        proptest!(ProptestConfig::with_cases(20_000), |(text in prop_oneof![text, address, sparse])| {
            let (ours, theirs) = read(&text);
            // What ends in an IPv4 address is left to the standard library.
            prop_assert!(ours == theirs || ours.is_none() && text.contains('.'), "{:?} {:?} {:?}", text, ours, theirs);
        });
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
