//! Values of fields.

use super::refused;

refused! {
    unknown_mode: r#"version = 1
defaults.mode = "shadwo"
"# => [
        r#"2:17: error: unknown mode: found "shadwo", expected "enforce", "shadow" or { enforce = PERCENT } [did you mean `shadow`?]"#,
    ];
    mode_of_another_type: "version = 1
defaults.mode = 1.5
" => [
        r#"2:17: error: wrong type for `mode`: found the number 1.5, expected "enforce", "shadow" or { enforce = PERCENT }"#,
    ];
    unknown_treatment: r#"version = 1
defaults.unknown = "drop"
"# => [
        r#"2:20: error: unknown way to treat packets of no service: found "drop", expected "pass""#,
    ];
    name_with_a_blank: r#"version = 1
[[service]]
name = "a b"
addresses = ["192.0.2.1"]
"# => [
        r#"3:8: error: invalid name: found "a b", expected 1 to 63 letters, digits, `_`, `.`, `:` or `-`"#,
    ];
    empty_name: r#"version = 1
[[service]]
name = ""
addresses = ["192.0.2.1"]
"# => [
        r#"3:8: error: invalid name: found "", expected 1 to 63 letters, digits, `_`, `.`, `:` or `-`"#,
    ];
    long_name: format!("version = 1\n[[service]]\nname = \"{}\"\naddresses = [\"192.0.2.1\"]\n", "x".repeat(64)) => [
        r#"3:8: error: invalid name: found "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…, expected 1 to 63 letters, digits, `_`, `.`, `:` or `-`"#,
    ];
    reserved_name: r#"version = 1
[[service]]
name = "none"
addresses = ["192.0.2.1"]
"# => [
        r#"3:8: error: `none` is the name of what has none: found "none", expected another name of 1 to 63 letters, digits, `_`, `.`, `:` or `-`"#,
    ];
    name_of_another_type: r#"version = 1
[[service]]
name = 2026-12-01
addresses = ["192.0.2.1"]
"# => [
        "3:8: error: wrong type for `name`: found the time 2026-12-01, expected a name of 1 to 63 letters, digits, `_`, `.`, `:` or `-`",
    ];
    name_of_a_profile: r#"version = 1
[profile."a/b"]
packets = "9/s"
"# => [
        r#"2:10: error: invalid name: found "a/b", expected 1 to 63 letters, digits, `_`, `.`, `:` or `-`"#,
    ];
    text_is_quoted_safely: "version = 1\n[[service]]\nname = \"a\\u001b[31m\u{202e}\"\naddresses = [\"192.0.2.1\"]\n" => [
        "3:8: error: invalid name: found \"a\\u001b[31m\\u{202e}\", expected 1 to 63 letters, digits, `_`, `.`, `:` or `-`",
    ];
    not_an_address: r#"version = 1
[[service]]
name = "a"
addresses = ["example.org"]
"# => [
        r#"4:14: error: not an address: found "example.org", expected an address or a prefix such as "192.0.2.1" or "2001:db8::/32" [host names are not looked up: write the addresses]"#,
    ];
    address_with_a_zone: r#"version = 1
[[service]]
name = "a"
addresses = ["fe80::1%eth0"]
"# => [
        r#"4:14: error: an address with a zone: found "fe80::1%eth0", expected an address or a prefix such as "192.0.2.1" or "2001:db8::/32""#,
    ];
    prefix_too_long: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1/33"]
"# => [
        "4:14: error: invalid length of an IPv4 prefix: found `/33`, expected a length from 0 to 32",
    ];
    host_bits_v4: r#"version = 1
[[service]]
name = "a"
addresses = ["198.51.100.7/24"]
"# => [
        r#"4:14: error: prefix with bits set after its length: found "198.51.100.7/24", expected "198.51.100.0/24", the network it is in [for this address alone write "198.51.100.7"]"#,
    ];
    host_bits_v6: r#"version = 1
[[service]]
name = "a"
addresses = ["2001:db8::1", "2001:db8::1/64"]
"# => [
        r#"4:29: error: prefix with bits set after its length: found "2001:db8::1/64", expected "2001:db8::/64", the network it is in [for this address alone write "2001:db8::1"]"#,
    ];
    mapped_address: r#"version = 1
[[service]]
name = "a"
addresses = ["::ffff:192.0.2.1"]
"# => [
        r#"4:14: error: an IPv4-mapped IPv6 prefix matches no packet: found "::ffff:192.0.2.1", expected "192.0.2.1/32", in IPv4"#,
    ];
    mapped_prefix: r#"version = 1
[[service]]
name = "a"
addresses = ["::ffff:192.0.2.1/120"]
"# => [
        r#"4:14: error: an IPv4-mapped IPv6 prefix matches no packet: found "::ffff:192.0.2.1/120", expected "192.0.2.0/24", in IPv4"#,
    ];
    addresses_not_an_array: r#"version = 1
[[service]]
name = "a"
addresses = "192.0.2.1"
"# => [
        r#"4:13: error: wrong type for `addresses`: found the text "192.0.2.1", expected an array of addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32" [write ["192.0.2.1"]]"#,
    ];
    address_of_another_type: r#"version = 1
[[service]]
name = "a"
addresses = [192, true]
"# => [
        r#"4:14: error: wrong type for `addresses`: found the integer 192, expected addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32""#,
        r#"4:19: error: wrong type for `addresses`: found the boolean true, expected addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32""#,
    ];
    no_address: r#"version = 1
[[service]]
name = "a"
addresses = []
"# => [
        r#"4:13: error: empty `addresses`: found [], expected at least one: addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32""#,
    ];
    no_source: r#"version = 1
[[rule]]
name = "r"
source = []
action = "drop"
"# => [
        r#"4:10: error: empty `source`: found [], expected at least one: addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32""#,
    ];
    no_ports: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = []
"# => [
        r#"5:9: error: empty `ports`: found [], expected at least one: entries such as "tcp/443", "udp/8000-8010", "tcp", "icmp", "gre", "esp", "sctp", "protocol/47" or "*""#,
    ];
    unknown_protocol: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["ucp"]
"# => [
        r#"5:10: error: unknown protocol: found "ucp", expected entries such as "tcp/443", "udp/8000-8010", "tcp", "icmp", "gre", "esp", "sctp", "protocol/47" or "*" [did you mean `tcp`?]"#,
    ];
    unknown_protocol_with_ports: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["upd/53"]
"# => [
        r#"5:10: error: unknown protocol `upd`: found "upd/53", expected `tcp`, `udp` or `protocol` [did you mean `udp`?]"#,
    ];
    protocol_without_ports: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["gre/1"]
"# => [
        r#"5:10: error: `gre` has no ports: found "gre/1", expected "gre" alone"#,
    ];
    invalid_protocol_number: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["protocol/256"]
"# => [
        r#"5:10: error: invalid protocol number: found "protocol/256", expected a number from 0 to 255"#,
    ];
    protocol_without_a_number: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["protocol"]
"# => [
        r#"5:10: error: `protocol` without a number: found "protocol", expected entries such as "tcp/443", "udp/8000-8010", "tcp", "icmp", "gre", "esp", "sctp", "protocol/47" or "*""#,
    ];
    invalid_port: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["tcp/https"]
"# => [
        r#"5:10: error: invalid port: found "tcp/https", expected a port, a range such as `8000-8010`, or `*`"#,
    ];
    port_out_of_range: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["tcp/65536"]
"# => [
        r#"5:10: error: port out of range: found "tcp/65536", expected ports from 0 to 65535"#,
    ];
    range_the_wrong_way: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
ports = ["tcp/9-8"]
"# => [
        r#"5:10: error: port range that ends before it starts: found "tcp/9-8", expected "tcp/8-9""#,
    ];
    unknown_action: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = "dorp"
"# => [
        r#"5:10: error: unknown action: found "dorp", expected "allow", "drop" or { limit = "PROFILE" } [did you mean `drop`?]"#,
    ];
    limit_without_a_profile: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = "limit"
"# => [
        r#"5:10: error: a limit without a profile: found "limit", expected { limit = "PROFILE" }"#,
    ];
    action_of_another_type: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = ["drop"]
"# => [
        r#"5:10: error: wrong type for `action`: found an array, expected "allow", "drop" or { limit = "PROFILE" }"#,
    ];
    limit_of_another_type: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = { limit = 5 }
"# => [
        "5:20: error: wrong type for `limit`: found the integer 5, expected the name of a profile",
    ];
    long_reason: format!("version = 1\n[[rule]]\nname = \"r\"\nsource = [\"192.0.2.1\"]\naction = \"drop\"\nreason = \"{}\"\n", "x".repeat(256)) => [
        r#"6:10: error: reason that is not a short line: found "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…, expected a line of at most 255 characters"#,
    ];
    not_a_rate: r#"version = 1
[profile.p]
packets = "2000"
"# => [
        r#"3:11: error: not a rate: found "2000", expected a rate such as "2000/s", "1.5M/s", "100/min", "10/h" or "10/d" [did you mean "2000/s"?]"#,
    ];
    rate_not_a_number: r#"version = 1
[profile.p]
packets = "fast/s"
"# => [
        r#"3:11: error: not a number with a unit: found "fast/s", expected a rate such as "2000/s", "1.5M/s", "100/min", "10/h" or "10/d""#,
    ];
    unknown_period: r#"version = 1
[profile.p]
packets = "9/m"
"# => [
        r#"3:11: error: unknown period of a rate: found "9/m", expected `s`, `min`, `h` or `d` after the slash [did you mean "9/min"?]"#,
    ];
    unknown_unit: r#"version = 1
[profile.p]
packets = "9K/s"
"# => [
        r#"3:11: error: unknown unit: found "9K/s", expected a plain number, or one with `k`, `M` or `G` [did you mean `k`?]"#,
    ];
    bytes_without_a_unit: r#"version = 1
[profile.p]
bytes = "9000/s"
"# => [
        r#"3:9: error: number without a unit: found "9000/s", expected `B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`, `bit`, `kbit`, `Mbit`, `Gbit` or `Tbit` [bytes end in `B`, bits in `bit`]"#,
    ];
    unknown_unit_of_bytes: r#"version = 1
[profile.p]
bytes = "8Mb/s"
"# => [
        r#"3:9: error: unknown unit: found "8Mb/s", expected `B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`, `bit`, `kbit`, `Mbit`, `Gbit` or `Tbit` [bytes end in `B`, bits in `bit`]"#,
    ];
    too_many_digits: r#"version = 1
[profile.p]
packets = "0.1234567891/s"
"# => [
        r#"3:11: error: number with too many digits: found "0.1234567891/s", expected at most 15 digits, 9 of them after the point"#,
    ];
    rate_too_fine: r#"version = 1
[profile.p]
packets = "0.000000001/d"
"# => [
        r#"3:11: error: rate too fine to be kept exactly: found "0.000000001/d", expected fewer decimals, or a shorter period"#,
    ];
    rate_of_zero: r#"version = 1
[profile.p]
packets = "0/s"
"# => [
        r#"3:11: error: rate of zero: found "0/s", expected a rate above zero [to let nothing through, use a rule with action = "drop"]"#,
    ];
    packets_too_fast: r#"version = 1
[profile.p]
packets = "1.1G/s"
"# => [
        r#"3:11: error: rate out of range: found "1.1G/s", expected at most 1G/s"#,
    ];
    connections_too_fast: r#"version = 1
[profile.p]
connections = "1000000001/s"
"# => [
        r#"3:15: error: rate out of range: found "1000000001/s", expected at most 1G/s"#,
    ];
    new_sources_too_fast: r#"version = 1
[profile.p]
parents.v6_48.new_sources = "2G/s"
"# => [
        r#"3:29: error: rate out of range: found "2G/s", expected at most 1G/s"#,
    ];
    bytes_too_fast: r#"version = 1
[profile.p]
bytes = "1.1TB/s"
"# => [
        r#"3:9: error: rate out of range: found "1.1TB/s", expected at most 1TB/s"#,
    ];
    bytes_too_slow: r#"version = 1
[profile.p]
bytes = "63B/s"
"# => [
        r#"3:9: error: rate out of range: found "63B/s", expected at least 64B/s"#,
    ];
    budget_of_another_type: "version = 1
[profile.p]
packets = 2000
" => [
        r#"3:11: error: wrong type for `packets`: found the integer 2000, expected a rate such as "2000/s", "1.5M/s", "100/min", "10/h" or "10/d", or a table with `rate` and `burst` [did you mean "2000/s"?]"#,
    ];
    budget_without_a_rate: "version = 1
[profile.p]
packets = { burst = 9 }
" => [
        r#"3:11: error: missing field in a budget: found no `rate`, expected a rate such as "2000/s", "1.5M/s", "100/min", "10/h" or "10/d""#,
    ];
    burst_of_zero: r#"version = 1
[profile.p]
connections = { rate = "9/s", burst = 0 }
"# => [
        "3:39: error: burst too small: found 0, expected at least 1",
    ];
    burst_below_zero: r#"version = 1
[profile.p]
packets = { rate = "9/s", burst = -5 }
"# => [
        "3:35: error: `burst` is out of range: found -5, expected an integer of at least 1",
    ];
    burst_of_another_type: r#"version = 1
[profile.p]
packets = { rate = "9/s", burst = "9" }
"# => [
        r#"3:35: error: wrong type for `burst`: found the text "9", expected an integer of at least 1 [write 9 without quotes]"#,
    ];
    burst_below_a_frame: r#"version = 1
[profile.p]
bytes = { rate = "9kB/s", burst = "1.5kB" }
"# => [
        r#"3:35: error: burst too small: found "1.5kB", expected at least 1514, a full frame"#,
    ];
    burst_not_whole_bytes: r#"version = 1
[profile.p]
bytes = { rate = "9kB/s", burst = "1.0001kB" }
"# => [
        r#"3:35: error: not a whole number of bytes: found "1.0001kB", expected a size such as "16MB" or "64KiB""#,
    ];
    burst_out_of_range: r#"version = 1
[profile.p]
bytes = { rate = "9kB/s", burst = "999999999999TiB" }
"# => [
        r#"3:35: error: size out of range: found "999999999999TiB", expected at most 18446744073709551615 bytes"#,
    ];
    burst_too_slow_to_fill: r#"version = 1
[profile.p]
packets = { rate = "1/d", burst = 31 }
"# => [
        "3:35: error: a burst of 31 takes at least 31 days to fill at this rate: found 31, expected at most 30 days [at this rate a burst may be at most 30]",
    ];
    default_burst_too_slow_to_fill: r#"version = 1
[profile.p]
packets = "0.03/d"
"# => [
        r#"3:11: error: a burst of 1 takes at least 33 days to fill at this rate: found "0.03/d", expected at most 30 days"#,
        "3:11: warning: packets below what one TCP handshake needs: found a burst of 1, expected a burst of at least 4",
    ];
    a_bad_burst_does_not_hide_a_bad_rate: r#"version = 1
[profile.p]
packets = { rate = "9/m", burst = 0 }
"# => [
        r#"3:20: error: unknown period of a rate: found "9/m", expected `s`, `min`, `h` or `d` after the slash [did you mean "9/min"?]"#,
        "3:35: error: burst too small: found 0, expected at least 1",
    ];
}

/// A policy with one value, and the help that comes with its error.
#[track_caller]
fn helped(with: impl Fn(&str) -> String, rows: &[(&str, &str)]) {
    for (value, help) in rows {
        let diagnostics = crate::policy::parse(&with(value)).expect_err(value);
        let said: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.help.as_deref()).collect();
        assert_eq!(said, [Some(*help)], "{value}");
    }
}

#[test]
fn rates_of_other_tools() {
    let packets = |value: &str| format!("version = 1\n[profile.p]\npackets = \"{value}\"\n");
    helped(
        packets,
        &[
            ("2000pps", "did you mean \"2000/s\"?"),
            ("2kpps/s", "did you mean \"2k/s\"?"),
            ("20 per second", "did you mean \"20/s\"?"),
            ("20 / sec", "did you mean \"20 /s\"?"),
            ("1,000/s", "did you mean \"1000/s\"?"),
            ("5/minute", "did you mean \"5/min\"?"),
        ],
    );
    let bytes = |value: &str| format!("version = 1\n[profile.p]\nbytes = \"{value}\"\n");
    helped(
        bytes,
        &[
            ("100Mbps", "did you mean \"100Mbit/s\"?"),
            ("1Gbps/s", "did you mean \"1Gbit/s\"?"),
            ("8MBps", "did you mean \"8MB/s\"?"),
            ("8MB", "did you mean \"8MB/s\"?"),
            // Bits or bytes: no guess.
            ("8Mb/s", "bytes end in `B`, bits in `bit`"),
            ("8000/s", "bytes end in `B`, bits in `bit`"),
        ],
    );
}

#[test]
fn addresses_of_other_tools() {
    let address =
        |value: &str| format!("version = 1\n[[service]]\nname = \"a\"\naddresses = [\"{value}\"]\n");
    helped(
        address,
        &[
            ("192.0.2.1:443", "write \"192.0.2.1\"; a port goes into the `ports` of a service"),
            ("[2001:db8::1]:443", "write \"2001:db8::1\"; a port goes into the `ports` of a service"),
            ("[2001:db8::1]", "write \"2001:db8::1\""),
            (" 192.0.2.1", "write \"192.0.2.1\""),
            ("192.0.2.*", "write \"192.0.2.0/24\""),
            ("192.0.2.1-192.0.2.9", "write a range as the prefixes that it is made of"),
            ("api.example.org", "host names are not looked up: write the addresses"),
        ],
    );
}

#[test]
fn ports_of_other_tools() {
    let ports = |value: &str| {
        format!("version = 1\n[[service]]\nname = \"a\"\naddresses = [\"::1\"]\nports = [\"{value}\"]\n")
    };
    helped(
        ports,
        &[
            ("443", "write \"tcp/443\" or \"udp/443\""),
            ("8000-8010", "write \"tcp/8000-8010\" or \"udp/8000-8010\""),
            ("443/tcp", "did you mean \"tcp/443\"?"),
            ("tcp:443", "did you mean \"tcp/443\"?"),
            ("TCP/443", "did you mean \"tcp/443\"?"),
            ("tcp/80 - 90", "did you mean \"tcp/80-90\"?"),
            ("tcp/80,443", "write one entry for each port or range"),
            ("quic/443", "did you mean \"udp/443\"?"),
            ("any", "did you mean \"*\"?"),
        ],
    );
}

#[test]
fn actions_and_modes_of_other_tools() {
    let action = |value: &str| {
        format!("version = 1\n[[rule]]\nname = \"r\"\nsource = [\"::1\"]\naction = \"{value}\"\n")
    };
    helped(
        action,
        &[
            ("deny", "did you mean `drop`?"),
            ("accept", "did you mean `allow`?"),
            ("throttle", "did you mean `{ limit = \"PROFILE\" }`?"),
        ],
    );
    let mode = |value: &str| format!("version = 1\ndefaults.mode = \"{value}\"\n");
    helped(mode, &[("dry-run", "did you mean `shadow`?"), ("on", "did you mean `enforce`?")]);
}
