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

/// Something that drops, so that the policy does.
const DROP: &str = "[[rule]]\nname = \"drop\"\nsource = [\"192.0.2.99\"]\naction = \"drop\"\n";

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
        &format!("{text}{DROP}"),
        &["8:14: warning: overlaps service `a` of line 3 on 203.0.113.0/24, tcp/90 \
           [tcp/90 there belongs to `a`, whose prefix is more specific]"],
    );
}

#[test]
fn an_overlap_tells_who_has_the_packets() {
    let with = |first: (&str, &str), later: (&str, &str)| {
        format!(
            "version = 1\n[[service]]\nname = \"a\"\naddresses = [\"{}\"]\nports = [{}]\n\
             [[service]]\nname = \"b\"\naddresses = [\"{}\"]\nports = [{}]\n{DROP}",
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
    let service = "[[service]]\nname = \"a\"\naddresses = [\"::1\", \"::1\", \"::/64\"]\n";
    assert_warned(&format!("version = 1\n{service}{DROP}"), &[]);
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
    assert_warned(
        &with_rules(&[limit]),
        &[
            "12:11: warning: limits a very broad prefix: found /0, expected /8 or longer",
            "12:24: warning: limits a very broad prefix: found /0, expected /19 or longer",
        ],
    );
    assert_warned(
        &SERVICES
            .replacen('\n', "\ndefaults.allow = [\"10.0.0.0/8\", \"0.0.0.0/1\"]\n", 1)
            .replace("9/s\"\n", &format!("9/s\"\n[[rule]]\nname = \"r\"\n{LIMIT}\n")),
        &["2:33: warning: never limits a very broad prefix: found /1, expected /8 or longer"],
    );
}

/// Looking at every other source for each would take minutes here.
#[test]
fn a_long_list_of_sources() {
    let sources: String = (0..300_000_u32)
        .map(|number| format!("\"{}\",", std::net::Ipv4Addr::from(0x4000_0000 + number * 2)))
        .collect();
    let all = "source = [\"64.0.0.0/8\"]\naction.limit = \"p\"";
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
        "version = 1\n[profile.p]\n{profile}\n[[rule]]\nname = \"r\"\nsource = [\"2000::/20\"]\naction.limit = \"p\"\n\
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
        &format!(
            "version = 1\n[profile.a]\npackets = \"9/s\"\n[[service]]\nname = \"s\"\naddresses = [\"::/0\"]\n{DROP}"
        ),
        &["2:10: warning: profile `a` is not used"],
    );
    assert_warned(
        &(with_profile("parents.v4_24 = {}") + DROP),
        &["2:10: warning: profile `p` limits nothing"],
    );
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

const UNLIMITED: &str = "4:8: warning: nothing is limited: no service has a profile that limits, and no rule drops or \
                         limits [give a service a profile with budgets]";

#[test]
fn policies_that_limit_nothing() {
    assert_warned(
        "version = 1\n",
        &["1:1: warning: nothing is limited: the policy has no service, so every packet passes \
           [add a [[service]]; addresses = [\"0.0.0.0/0\", \"::/0\"] is every destination]"],
    );
    let with =
        |rest: &str| format!("version = 1\n\n[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\n{rest}");
    let rule = |action| format!("[[rule]]\nname = \"r\"\nsource = [\"192.0.2.9\"]\naction = {action}\n");
    let empty = "[profile.p]\nparents.v4_24 = {}\n";
    let limiting = "[profile.p]\nparents.v4_24.packets = \"9/s\"\n";
    let nothing = "warning: profile `p` limits nothing";
    assert_warned(&with(""), &[UNLIMITED]);
    assert_warned(&with(&rule("\"allow\"")), &[UNLIMITED]);
    assert_warned(&with(&format!("profile = \"p\"\n{empty}")), &[UNLIMITED, &format!("7:10: {nothing}")]);
    let limit = rule("{ limit = \"p\" }");
    assert_warned(&with(&format!("{empty}{limit}")), &[UNLIMITED, &format!("6:10: {nothing}")]);
    for limited in [
        rule("\"drop\""),
        rule("\"drop\"\nmode = \"shadow\""),
        format!("{limiting}{limit}"),
        format!("profile = \"p\"\n{limiting}"),
        format!("profile = \"p\"\n{limiting}[defaults]\nmode = \"shadow\"\n"),
    ] {
        assert_warned(&with(&limited), &[]);
    }
}

/// What warnings say of rules in mode `shadow`: name of the rule, by what it would be limited, where.
#[track_caller]
fn assert_lifts(text: &str, expected: &[&str]) {
    let all = super::lines(&super::accepted(text).warnings);
    let found: Vec<_> = all.iter().filter(|line| line.contains("in mode shadow")).collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|expected| {
            format!("{expected} [one rule or profile decides about a source: while this one is tried, it passes without a limit]")
        })
        .collect();
    assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{all:#?} in:\n{text}");
}

#[test]
fn a_rule_in_shadow_lifts_the_limits_of_a_service() {
    let of_api =
        SERVICES.replacen("[[service]]\nname = \"dns\"", "profile = \"p\"\n[[service]]\nname = \"dns\"", 1);
    let with = |rule: &str| format!("{of_api}[[rule]]\nname = \"r\"\nsource = [\"192.0.2.0/24\"]\n{rule}\n");
    let lifts = "12:8: warning: rule `r` in mode shadow lifts what service `api` enforces on 192.0.2.0/24";
    let shadow = "mode = \"shadow\"";
    for (rule, is_told) in [
        (format!("action = \"drop\"\n{shadow}"), true),
        (format!("action.limit = \"p\"\n{shadow}"), true),
        (format!("action = \"drop\"\nservice = \"api\"\n{shadow}"), true),
        (format!("action = \"drop\"\nservice = \"dns\"\n{shadow}"), false),
        (format!("action = \"allow\"\n{shadow}"), false),
        ("action = \"drop\"".to_owned(), false),
        (format!("action = \"drop\"\n{shadow}\n[defaults]\nallow = [\"192.0.0.0/16\"]"), false),
        (format!("action = \"drop\"\n[defaults]\n{shadow}"), false),
    ] {
        let expected: &[&str] = if is_told { &[lifts] } else { &[] };
        assert_lifts(&with(&rule), expected);
    }
}

#[test]
fn a_rule_in_shadow_lifts_rules_around_it() {
    let rule = |prefix: &str, action: &str, mode: &str| {
        format!("source = [\"{prefix}\"]\naction = \"{action}\"\nmode = \"{mode}\"")
    };
    let wide = rule("10.0.0.0/8", "drop", "enforce");
    let inner = rule("10.1.0.0/16", "drop", "shadow");
    let lifts = "warning: rule `r1` in mode shadow lifts what rule `r0` of line 11 enforces on 10.1.0.0/16";
    assert_lifts(&with_rules(&[&wide, &inner]), &[&format!("16:8: {lifts}")]);
    let shadow = "[defaults]\nmode = \"shadow\"\n";
    assert_lifts(&(with_rules(&[&wide, &inner]) + shadow), &[&format!("16:8: {lifts}")]);
    // Between them one that passes already, for the same services or for one of them.
    let between = rule("10.0.0.0/12", "allow", "enforce");
    assert_lifts(&with_rules(&[&wide, &inner, &between]), &[]);
    let of_one = format!("{between}\nservice = \"api\"");
    assert_lifts(&with_rules(&[&wide, &inner, &of_one]), &[&format!("16:8: {lifts}")]);
    // Of another service.
    let of = |rule: &str, service| format!("{rule}\nservice = \"{service}\"");
    assert_lifts(&with_rules(&[&of(&wide, "api"), &of(&inner, "dns")]), &[]);
    // At the same prefix the order of actions decides.
    let drop = rule("10.0.0.0/8", "drop", "shadow");
    let limit = "source = [\"10.0.0.0/8\"]\naction.limit = \"p\"";
    let same =
        "11:8: warning: rule `r0` in mode shadow lifts what rule `r1` of line 16 enforces on 10.0.0.0/8";
    assert_lifts(&with_rules(&[&drop, limit]), &[same]);
    assert_lifts(&with_rules(&[&wide, &format!("{limit}\nmode = \"shadow\"")]), &[]);
}

#[test]
fn modes_of_fleets_that_would_act_do_not_yet() {
    let text = |section: &str, service: &str| {
        format!("{SERVICES}{DROP}[[rule]]\nname = \"l\"\nsource = [\"192.0.2.98\"]\naction.limit = \"p\"\n[fleets]\nmode = \"{section}\"\n")
                .replacen("name = \"api\"\n", &format!("name = \"api\"\nfleets = \"{service}\"\n"), 1)
    };
    assert_warned(&text("off", "observe"), &[]);
    let not_yet = "fleets are found and told, and nothing is done about them yet";
    let expected = [
        format!("4:10: warning: {not_yet}: expected \"observe\""),
        format!("20:8: warning: {not_yet}: expected \"observe\""),
    ];
    assert_warned(&text("suggest", "throttle"), &expected.each_ref().map(String::as_str));
}
