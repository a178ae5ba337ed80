//! What is warned of, and what is not.

use super::{assert_refused, assert_warned};

const SERVICES: &str = r#"version = 1
[[service]]
name = "api"
addresses = ["203.0.113.0/24"]
[[service]]
name = "dns"
addresses = ["203.0.114.0/24"]
[profile.p]
packets = "9/s"
"#;

fn with_rules(rules: &[&str]) -> String {
    let tables =
        rules.iter().enumerate().map(|(index, rule)| format!("[[rule]]\nname = \"r{index}\"\n{rule}\n"));
    format!("{SERVICES}{}", tables.collect::<String>())
}

/// A limit somewhere else, so that the profile is used.
const LIMIT: &str = "source = [\"192.0.2.99\"]\naction.limit = \"p\"";

#[test]
fn ranks_within_a_prefix_are_allow_drop_limit() {
    let limit = "source = [\"192.0.2.0/24\"]\naction.limit = \"p\"";
    let drop = "source = [\"192.0.2.0/24\"]\naction = \"drop\"";
    let allow = "source = [\"192.0.2.0/24\"]\naction = \"allow\"";
    assert_warned(
        &with_rules(&[limit, drop, allow]),
        &[
            "11:8: warning: rule `r0` can never fire: rule `r2` of line 19 decides about 192.0.2.0/24 before it",
            "15:8: warning: rule `r1` can never fire: rule `r2` of line 19 decides about 192.0.2.0/24 before it",
        ],
    );
}

#[test]
fn of_equal_rules_the_first_fires() {
    let drop = "source = [\"192.0.2.0/24\"]\naction = \"drop\"";
    assert_warned(
        &with_rules(&[LIMIT, drop, drop]),
        &[
            "19:8: warning: rule `r2` can never fire: rule `r1` of line 15 decides about 192.0.2.0/24 before it",
        ],
    );
}

#[test]
fn a_rule_may_be_covered_in_part() {
    let allow = "source = [\"192.0.2.0/24\"]\naction = \"allow\"";
    let drop = "source = [\"198.51.100.0/24\", \"192.0.2.0/24\", \"192.0.2.0/25\"]\naction = \"drop\"";
    assert_warned(
        &with_rules(&[LIMIT, allow, drop]),
        &[
            "20:30: warning: rule `r2` can never fire here: rule `r1` of line 15 decides about 192.0.2.0/24 before it",
        ],
    );
}

#[test]
fn a_rule_for_all_services_covers_one_for_one_and_not_the_other_way_round() {
    let api_allow = "service = \"api\"\nsource = [\"192.0.2.0/24\"]\naction = \"allow\"";
    let dns_limit = "service = \"dns\"\nsource = [\"192.0.2.0/24\"]\naction.limit = \"p\"";
    let all_drop = "source = [\"192.0.2.0/24\"]\naction = \"drop\"";
    assert_warned(
        &with_rules(&[LIMIT, api_allow, dns_limit, all_drop]),
        &[
            "20:8: warning: rule `r2` can never fire: rule `r3` of line 25 decides about 192.0.2.0/24 before it",
        ],
    );
}

#[test]
fn what_is_always_allowed_needs_no_rule() {
    let text = "version = 1\ndefaults.allow = [\"192.0.2.0/28\"]\n[[rule]]\nname = \"r\"\n\
                source = [\"192.0.2.8/29\"]\naction = \"drop\"\n[[rule]]\nname = \"wider\"\n\
                source = [\"192.0.2.0/24\"]\naction = \"drop\"\n[[service]]\nname = \"s\"\naddresses = [\"::/0\"]\n";
    assert_warned(
        text,
        &["4:8: warning: rule `r` can never fire: 192.0.2.0/28 of defaults.allow passes before any rule"],
    );
}

#[test]
fn overlapping_services() {
    let text = r#"version = 1
[[service]]
name = "a"
addresses = ["203.0.113.0/24", "2001:db8::1"]
ports = ["tcp/80-90", "udp"]
[[service]]
name = "b"
addresses = ["203.0.112.0/20", "2001:db8::/32"]
ports = ["icmp", "tcp/90"]
[[service]]
name = "c"
addresses = ["203.0.113.7"]
ports = ["tcp/91"]
"#;
    assert_warned(
        text,
        &["8:14: warning: overlaps service `a` of line 3 on 203.0.113.0/24, tcp/90 \
           [tcp/90 there belongs to `a`, whose prefix is more specific]"],
    );
}

#[test]
fn an_overlap_tells_who_has_the_packets() {
    let with = |first: (&str, &str), later: (&str, &str)| {
        format!(
            "version = 1\n[[service]]\nname = \"a\"\naddresses = [\"{}\"]\nports = [{}]\n\
             [[service]]\nname = \"b\"\naddresses = [\"{}\"]\nports = [{}]\n",
            first.0, first.1, later.0, later.1
        )
    };
    let overlap = "8:14: warning: overlaps service `a` of line 3 on 192.0.2.1/32, ";
    for (first, later, told) in [
        (
            ("192.0.2.0/24", r#""tcp/443""#),
            ("192.0.2.1", r#""*""#),
            "tcp/443 [tcp/443 there belongs to `b`, whose prefix is more specific]",
        ),
        (
            ("192.0.2.1", r#""*""#),
            ("192.0.2.1", r#""tcp", "udp""#),
            "tcp and more [tcp there belongs to `b`, whose ports are more specific]",
        ),
        (
            ("192.0.2.1", r#""tcp""#),
            ("192.0.2.1", r#""*""#),
            "tcp [tcp there belongs to `a`, whose ports are more specific]",
        ),
        (
            ("192.0.2.1", r#""tcp/1-100""#),
            ("192.0.2.1", r#""tcp/80""#),
            "tcp/80 [tcp/80 there belongs to `a`, which comes first]",
        ),
    ] {
        assert_warned(&with(first, later), &[&format!("{overlap}{told}")]);
    }
}

#[test]
fn a_service_may_name_an_address_twice() {
    assert_warned("version = 1\n[[service]]\nname = \"a\"\naddresses = [\"::1\", \"::1\", \"::/64\"]\n", &[]);
}

#[test]
fn broad_prefixes() {
    let drop = "source = [\"0.0.0.0/7\", \"10.0.0.0/8\", \"2000::/18\", \"3000::/19\"]\naction = \"drop\"";
    assert_warned(
        &with_rules(&[LIMIT, drop]),
        &[
            "16:11: warning: drops a very broad prefix: found /7, expected /8 or longer",
            "16:38: warning: drops a very broad prefix: found /18, expected /19 or longer",
        ],
    );
    let allow = "source = [\"0.0.0.0/0\", \"10.0.0.0/8\", \"2000::/3\"]\naction = \"allow\"";
    assert_warned(
        &with_rules(&[LIMIT, allow]),
        &[
            "16:11: warning: does not limit a very broad prefix: found /0, expected /8 or longer",
            "16:38: warning: does not limit a very broad prefix: found /3, expected /19 or longer",
        ],
    );
    let limit = "source = [\"0.0.0.0/0\", \"::/0\"]\naction.limit = \"p\"";
    assert_warned(&with_rules(&[limit]), &[]);
    assert_warned(
        "version = 1\ndefaults.allow = [\"10.0.0.0/8\", \"0.0.0.0/1\"]\n",
        &["2:33: warning: never limits a very broad prefix: found /1, expected /8 or longer"],
    );
}

/// Looking at every other source for each would take minutes here.
#[test]
fn a_long_list_of_sources() {
    let sources: String = (0..300_000_u32)
        .map(|number| format!("\"{}\",", std::net::Ipv4Addr::from(0x4000_0000 + number * 2)))
        .collect();
    let all = "source = [\"0.0.0.0/0\"]\naction.limit = \"p\"";
    assert_warned(&with_rules(&[all, &format!("source = [{sources}]\naction = \"drop\"")]), &[]);
}

#[test]
fn rules_of_a_policy_without_services() {
    assert_warned(
        "version = 1\n[[rule]]\nname = \"r\"\nsource = [\"192.0.2.1\"]\naction = \"drop\"\n",
        &["3:8: warning: no rule can fire: the policy has no service, so every packet passes \
           [add a [[service]]; addresses = [\"0.0.0.0/0\", \"::/0\"] is every destination]"],
    );
}

#[test]
fn a_prefix_may_be_made_up_of_more_specific_ones() {
    let drop = |prefix| format!("source = [\"{prefix}\"]\naction = \"drop\"");
    let warned = |line, prefix| {
        format!(
            "{line}:8: warning: rule `r1` can never fire: more specific prefixes of rules make up all of {prefix}"
        )
    };
    let parts = |parts: &str| format!("source = [{parts}]\naction = \"allow\"");
    let all = parts("\"10.192.0.0/10\", \"10.0.0.0/9\", \"10.128.0.0/10\", \"10.1.0.0/16\"");
    assert_warned(&with_rules(&[LIMIT, &drop("10.0.0.0/8"), &all]), &[&warned(15, "10.0.0.0/8")]);
    let all = parts("\"2001:db8:8000::/33\", \"2001:db8::/33\"");
    assert_warned(&with_rules(&[LIMIT, &drop("2001:db8::/32"), &all]), &[&warned(15, "2001:db8::/32")]);
    let hole = parts("\"10.0.0.0/9\", \"10.128.0.0/11\", \"10.192.0.0/10\"");
    assert_warned(&with_rules(&[LIMIT, &drop("10.0.0.0/8"), &hole]), &[]);
    let no_end = parts("\"10.0.0.0/9\", \"10.128.0.0/10\"");
    assert_warned(&with_rules(&[LIMIT, &drop("10.0.0.0/8"), &no_end]), &[]);
    let no_start = parts("\"10.64.0.0/10\", \"10.128.0.0/9\"");
    assert_warned(&with_rules(&[LIMIT, &drop("10.0.0.0/8"), &no_start]), &[]);
    // What is about one service leaves the others to the rule.
    let of_one = format!("service = \"api\"\n{}", parts("\"10.0.0.0/9\", \"10.128.0.0/9\""));
    assert_warned(&with_rules(&[LIMIT, &drop("10.0.0.0/8"), &of_one]), &[]);
    let also_of_it = format!("service = \"api\"\n{}", drop("10.0.0.0/8"));
    assert_warned(&with_rules(&[LIMIT, &also_of_it, &of_one]), &[&warned(15, "10.0.0.0/8")]);
}

#[test]
fn drops_and_allows_may_be_finer_than_a_source() {
    let rule = |action| format!("source = [\"2001:db8::1\", \"2001:db8:0:1::/65\"]\naction = \"{action}\"");
    assert_warned(&with_rules(&[LIMIT, &rule("drop")]), &[]);
    assert_warned(&with_rules(&[LIMIT, &rule("allow")]), &[]);
}

fn with_profile(profile: &str) -> String {
    format!(
        "version = 1\n[profile.p]\n{profile}\n[[rule]]\nname = \"r\"\nsource = [\"::/0\"]\naction.limit = \"p\"\n\
         [[service]]\nname = \"s\"\naddresses = [\"::/0\"]\n"
    )
}

#[test]
fn packets_below_a_handshake() {
    assert_warned(
        &with_profile("packets = { rate = \"2/s\", burst = 3 }\nparents.v4_24.packets = \"3.5/s\""),
        &["3:35: warning: packets below what one TCP handshake needs: found a burst of 3, \
             expected a burst of at least 4"],
    );
    assert_warned(
        &with_profile("packets = \"2/s\"\nconnections = \"1/s\""),
        &["3:11: warning: packets below what one TCP handshake needs: found a burst of 2, \
             expected a burst of at least 4"],
    );
}

#[test]
fn bursts_below_two_ticks() {
    assert_warned(
        &with_profile(
            "packets = { rate = \"2001/s\", burst = 16 }\nbytes = { rate = \"1GB/s\", burst = \"1MB\" }",
        ),
        &[
            "3:38: warning: burst smaller than two clock ticks: on a kernel whose coarse clock ticks every 4 ms \
             it is raised to 17 [write 17 or more]",
            "4:35: warning: burst smaller than two clock ticks: on a kernel whose coarse clock ticks every 4 ms \
             it is raised to 8000000 [write 8000000 or more]",
        ],
    );
    assert_warned(&with_profile("packets = { rate = \"2000/s\", burst = 16 }"), &[]);
}

#[test]
fn bursts_of_hours() {
    assert_warned(
        &with_profile(
            "packets = { rate = \"1000/s\", burst = 3_600_001 }\nconnections = { rate = \"1/s\", burst = 36000 }",
        ),
        &[
            "3:38: warning: large burst: a source may send at once what its rate gives in more than 1 h \
             [without `burst` it is one second of the rate]",
            "4:39: warning: large burst: a source may send at once what its rate gives in more than 10 h \
             [without `burst` it is one second of the rate]",
        ],
    );
    let slow =
        "packets = { rate = \"1000/s\", burst = 3_600_000 }\nconnections = { rate = \"10/d\", burst = 10 }";
    assert_warned(&with_profile(slow), &[]);
}

#[test]
fn profiles_not_used_or_empty() {
    assert_warned(
        "version = 1\n[profile.a]\npackets = \"9/s\"\n",
        &["2:10: warning: profile `a` is not used"],
    );
    assert_warned(&with_profile("parents.v4_24 = {}"), &["2:10: warning: profile `p` limits nothing"]);
}

#[test]
fn warnings_come_with_errors() {
    assert_refused(
        "version = 1\n[profile.p]\npackets = \"1/s\"\nbytes = \"8\"\n",
        &[
            "3:11: warning: packets below what one TCP handshake needs: found a burst of 1, \
             expected a burst of at least 4",
            "4:9: error: not a rate: found \"8\", expected a rate such as \"8MB/s\", \"500kB/s\", \"8MiB/s\" \
             or \"100Mbit/s\"",
        ],
    );
}
