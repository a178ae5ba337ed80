//! Rules about fingerprints: what they say, what is refused, and what is warned of.

use super::{accepted, assert_refused, assert_warned, refused};
use crate::policy::compile::{FingerprintRule, Manifest, Tables, compile};
use crate::policy::patterns::Patterns;
use crate::policy::{Action, Matches};
use detector_common::policy::{Action as ClassAction, Class};

const SERVICES: &str = r#"version = 1
[[service]]
name = "api"
addresses = ["203.0.113.0/24"]
profile = "each"
[[service]]
name = "web"
addresses = ["203.0.114.0/24"]
[profile.each]
packets = "9/s"
connections = "8/s"
handshakes = "7/s"
"#;

const CHROME: &str = "t13d1516h2_8daaf6152771_b186095e22b6";
const LINUX: &str = "4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0";

/// Rules after those of [`SERVICES`], the first of which is named on line 14.
fn with_rules(rules: &[&str]) -> String {
    let tables =
        rules.iter().enumerate().map(|(index, rule)| format!("[[rule]]\nname = \"r{index}\"\n{rule}\n"));
    format!("{SERVICES}{}", tables.collect::<String>())
}

fn patterns(ja4: &[&str], syn: &[&str]) -> Patterns {
    let (ja4, syn) =
        (ja4.iter().map(|text| text.parse().unwrap()), syn.iter().map(|text| text.parse().unwrap()));
    Patterns { ja4: ja4.collect(), syn: syn.collect() }
}

#[test]
fn a_rule_names_one_pattern_or_a_list_of_either_kind_or_both() {
    let text = with_rules(&[
        &format!("ja4 = \"{CHROME}\"\naction = \"drop\""),
        &format!("syn = [\"{LINUX}\", \"6:*:*:*:*:*:*:*\"]\naction.limit = \"each\""),
        &format!("ja4 = [\"t13*_*_*\"]\nsyn = \"{LINUX}\"\naction = {{ limit = \"each\", shared = true }}"),
        &format!(
            "ja4 = \"{CHROME}\"\nservice = \"web\"\naction = {{ limit = \"each\", shared = false }}\nmode = \"shadow\""
        ),
    ]);
    let rules = accepted(&text).policy.rules;
    let each = || "each".to_owned();
    let expected = [
        (patterns(&[CHROME], &[]), Action::Drop),
        (patterns(&[], &[LINUX, "6:*:*:*:*:*:*:*"]), Action::Limit(each())),
        (patterns(&["t13*_*_*"], &[LINUX]), Action::LimitShared(each())),
        (patterns(&[CHROME], &[]), Action::Limit(each())),
    ];
    for (rule, (patterns, action)) in rules.iter().zip(expected) {
        assert_eq!((&rule.matches, &rule.action), (&Matches::Fingerprints(patterns), &action));
    }
}

fn compiled(text: &str) -> Tables {
    compile(&accepted(text).policy, &Manifest::default(), 4_000_000).expect("it fits")
}

#[test]
fn the_most_specific_comes_first() {
    let tables = compiled(&with_rules(&[
        "syn = \"4:*:*:*:*:*:*:*\"\naction = \"allow\"",
        "ja4 = \"t13*_*_*\"\naction.limit = \"each\"",
        "ja4 = \"t12*_*_*\"\naction = \"drop\"",
        "ja4 = \"t11*_*_*\"\naction = \"allow\"",
        "ja4 = \"t10*_*_*\"\naction = \"drop\"",
        &format!("ja4 = \"{CHROME}\"\naction.limit = \"each\""),
        "ja4 = \"t*_*_*\"\nsyn = \"4:*:*:*:*:*:*:*\"\naction.limit = \"each\"",
        &format!("ja4 = [\"{CHROME}\", \"*h2_*_*\"]\naction = \"allow\""),
        "source = [\"192.0.2.0/24\"]\naction = \"drop\"",
    ]));
    let order: Vec<_> = tables.manifest.fingerprint_rules.iter().map(|rule| rule.rule).collect();
    assert_eq!(order, [6, 5, 3, 2, 4, 1, 7, 0]);
}

#[test]
fn a_rule_has_one_class_with_the_budget_that_it_charges() {
    let tables = compiled(&with_rules(&[
        "syn = \"4:*:*:*:*:*:*:*\"\naction.limit = \"each\"",
        "ja4 = \"t13*_*_*\"\nservice = \"web\"\naction = { limit = \"each\", shared = true }\nmode = { enforce = 10 }",
        "ja4 = \"t12*_*_*\"\naction = \"drop\"",
        "ja4 = \"t11*_*_*\"\naction = \"allow\"\nmode = \"shadow\"",
        "source = [\"192.0.2.0/24\"]\naction.limit = \"each\"",
    ]));
    let of = |number: u16| -> (&FingerprintRule, Class) {
        let mut rules = tables.manifest.fingerprint_rules.iter();
        let rule = rules.find(|rule| rule.rule == number).expect("a rule about fingerprints");
        (rule, tables.classes[usize::from(rule.class)])
    };
    let limits = |class: &Class| {
        [class.packets, class.bytes, class.connections, class.handshakes].map(|budget| budget.is_limited())
    };
    let (syn, class) = of(0);
    assert_eq!((syn.service, syn.is_shared, syn.is_about(1), syn.is_about(2)), (None, false, true, true));
    assert_eq!(
        (limits(&class), class.is_shared, class.enforced_percent),
        ([false, false, true, false], 0, 100)
    );
    let (hello, class) = of(1);
    assert_eq!(
        (hello.service, hello.is_shared, hello.is_about(1), hello.is_about(2)),
        (Some(2), true, false, true)
    );
    assert_eq!(
        (limits(&class), class.is_shared, class.enforced_percent),
        ([false, false, false, true], 1, 10)
    );
    let actions = [1, 2, 3].map(|number| of(number).1.action);
    assert_eq!(
        actions,
        [ClassAction::Limit, ClassAction::Deny, ClassAction::Allow].map(|action| action as u8)
    );
    for number in 0..4 {
        let (rule, class) = of(number);
        let counter = tables.manifest.rules[usize::from(number)].counter;
        assert_eq!((class.rule, class.rule_counter, class.until, class.next), (number, counter, 0, 0));
        let number = u32::from(rule.class);
        assert!(tables.cells.iter().all(|cell| cell.class != number), "no source is given it");
    }
    assert_eq!(tables.manifest.fingerprint_rules.len(), 4);
    assert_eq!((tables.header.rules_v4, tables.header.rules_v6), (1, 0));
    let json = serde_json::to_vec(&tables.manifest).unwrap();
    assert_eq!(serde_json::from_slice::<Manifest>(&json).unwrap(), tables.manifest);
}

#[test]
fn a_rule_about_fingerprints_ends_as_others_do() {
    let ending = |until: &str| format!("ja4 = \"t13*_*_*\"\naction = \"drop\"\nuntil = {until}");
    let text = with_rules(&[&ending("1970-01-01T00:00:10Z"), &ending("1970-01-01T00:01:00Z")]);
    let clocks = crate::policy::compile::Clocks { tick_ns: 0, kernel_ns: 0, unix_ns: 20_000_000_000 };
    let tables = compile(&accepted(&text).policy, &Manifest::default(), clocks).unwrap();
    let class = |index: usize| tables.classes[usize::from(tables.manifest.fingerprint_rules[index].class)];
    let at = |seconds: u64| detector_common::budget::ticks(seconds * 1_000_000_000);
    assert!(class(0).has_ended(at(1)), "it has ended");
    assert!(!class(1).has_ended(at(39)) && class(1).has_ended(at(40)), "20 s are past");
}

#[test]
fn more_pairs_than_there_are_bits_do_not_fit() {
    let pair = |index: usize| format!("ja4 = \"t13d{index:02}*_*_*\"\nsyn = \"{LINUX}\"\naction = \"drop\"");
    let rules: Vec<_> = (0..65).map(pair).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    compiled(&with_rules(&rules[..64]));
    let text = with_rules(&rules);
    let error = compile(&accepted(&text).policy, &Manifest::default(), 0).unwrap_err();
    assert_eq!(
        error.diagnostic(&text).to_string(),
        "334:8: error: too many rules with both `ja4` and `syn`: found 65 of them, expected at most 64"
    );
}

#[test]
fn patterns_take_room_in_the_manifest() {
    let many: Vec<_> =
        (0..200).map(|index| format!("\"t13d{index:04}h2_8daaf6152771_b186095e22b6\"")).collect();
    let rule = format!("ja4 = [{}]\naction = \"drop\"", many.join(", "));
    let text = with_rules(&[&*rule; 40]);
    let error = compile(&accepted(&text).policy, &Manifest::default(), 0).unwrap_err();
    let told = error.diagnostic(&text).to_string();
    assert!(told.contains("error: names, reasons and patterns of the policy take too much room"), "{told}");
    assert!(told.starts_with("142:8: "), "{told}");
}

#[test]
fn a_fingerprint_counts_as_something_that_drops() {
    let service = "version = 1\n[[service]]\nname = \"a\"\naddresses = [\"192.0.2.0/24\"]\n";
    let rule = "[[rule]]\nname = \"r\"\nja4 = \"t13*_*_*\"\n";
    assert_warned(&format!("{service}{rule}action = \"drop\"\n"), &[]);
    assert_warned(
        &format!("{service}{rule}action = \"allow\"\n"),
        &[
            "3:8: warning: nothing is limited: no service has a profile that limits, and no rule drops or limits \
           [give a service a profile with budgets]",
        ],
    );
}

#[test]
fn quic_and_repeated_patterns_are_warned_of() {
    assert_warned(
        &with_rules(&[
            "ja4 = [\"q13*_*_*\", \"t13*_*_*\", \"*_*_b*\", \"t**13*_*_*\", \"t*13*_*_*\"]\naction = \"drop\"",
        ]),
        &[
            "15:8: warning: has no effect: the kernel reads the ClientHello of TCP only, and this is one of QUIC or DTLS \
             [leave the packets of such clients to the service's profile, or name their sources]",
            "15:56: warning: the rule names t*13*_*_* again [once is enough]",
        ],
    );
}

#[test]
fn budgets_that_nothing_charges_are_warned_of() {
    let limit = "ja4 = \"t13*_*_*\"\naction.limit = \"each\"";
    assert_warned(&with_rules(&[limit]), &[]);
    let alone = with_rules(&[limit]).replace("profile = \"each\"\n", "");
    assert_warned(
        &alone,
        &["8:10: warning: nothing is charged to `connections` and `packets` of profile `each` \
           [only rules about fingerprints use it, and they charge `handshakes`]"],
    );
    let both =
        alone.clone() + "[[rule]]\nname = \"more\"\nsyn = \"4:*:*:*:*:*:*:*\"\naction.limit = \"each\"\n";
    assert_warned(
        &both,
        &["8:10: warning: nothing is charged to `packets` of profile `each` \
           [only rules about fingerprints use it, and they charge `connections` and `handshakes`]"],
    );
    assert_warned(
        &(both + "[[rule]]\nname = \"last\"\nsource = [\"192.0.2.1\"]\naction.limit = \"each\"\n"),
        &[],
    );
}

#[test]
fn a_rule_about_what_earlier_ones_decide_about_never_fires() {
    let rule = |lines: &str| format!("{lines}\naction = \"drop\"");
    let until = |lines: &str| format!("{lines}\naction = \"drop\"\nuntil = 2036-01-01T00:00:00Z");
    let (two, one) = ("ja4 = [\"t13*_*_*\", \"t12*_*_*\"]", "ja4 = \"t12*_*_*\"");
    assert_warned(
        &with_rules(&[&rule(two), &rule(one)]),
        &[
            "18:8: warning: rule `r1` can never fire: rule `r0` of line 14 decides about its fingerprints before it",
        ],
    );
    // An end, another service, more patterns: each keeps something for the later one.
    assert_warned(&with_rules(&[&until(two), &rule(one)]), &[]);
    assert_warned(&with_rules(&[&rule(&format!("{two}\nservice = \"api\"")), &rule(one)]), &[]);
    assert_warned(&with_rules(&[&rule(one), &rule(two)]), &[]);
    assert_warned(
        &with_rules(&[&rule(two), &rule(&format!("{one}\nservice = \"api\""))]),
        &[
            "18:8: warning: rule `r1` can never fire: rule `r0` of line 14 decides about its fingerprints before it",
        ],
    );
    let (pair, reversed) = (
        "ja4 = [\"t13*_*_*\", \"t12*_*_*\"]\nsyn = \"4:*:*:*:*:*:*:*\"",
        "ja4 = [\"t12*_*_*\", \"t13*_*_*\"]\nsyn = \"4:*:*:*:*:*:*:*\"",
    );
    assert_warned(
        &with_rules(&[&rule(pair), &rule(reversed), &rule(two)]),
        &[
            "19:8: warning: rule `r1` can never fire: rule `r0` of line 14 decides about its fingerprints before it",
        ],
    );
}

refused! {
    both_sources_and_fingerprints: with_rules(&["source = [\"192.0.2.1\"]\nja4 = \"t13*_*_*\"\naction = \"drop\""]) => [
        "16:7: error: a rule about both sources and fingerprints: found `ja4` beside `source`, expected one of them \
         [write two rules: one about sources acts on their packets, one about fingerprints on handshakes]",
    ];
    about_nobody: with_rules(&["action = \"drop\""]) => [
        "13:1: error: missing field in a rule: found no `source`, expected addresses or prefixes such as \"192.0.2.1\", \
         \"192.0.2.0/24\" or \"2001:db8::/32\" [a rule names sources by `source` or `source_file`, or clients by `ja4` or `syn`]",
    ];
    misspelt: with_rules(&["ja3 = \"t13*_*_*\"\naction = \"drop\""]) => [
        "15:1: error: unknown field in a rule: found `ja3`, expected `name`, `service`, `source`, `source_file`, `ja4`, `syn`, \
         `action`, `mode`, `until` or `reason` [did you mean `ja4`?]",
    ];
    ja3: with_rules(&["ja4 = \"cd08e31494f9531f560d64c695473da9\"\naction = \"drop\""]) => [
        "15:7: error: a JA3 hash, not a JA4: found \"cd08e31494f9531f560d64c695473da9\", expected a JA4 such as \
         \"t13d1516h2_8daaf6152771_b186095e22b6\", parts with `*` [JA3 is another fingerprint: `detector top fingerprints` \
         shows the JA4 of clients]",
    ];
    upper_case: with_rules(&["ja4 = [\"t13*_*_*\", \"t13d1516h2_8DAAF6152771_*\"]\naction = \"drop\""]) => [
        "15:20: error: no JA4 has such a second part: found `8DAAF6152771`, expected 12 hexadecimal digits in lower case, \
         or fewer with `*` [did you mean \"t13d1516h2_8daaf6152771_*\"?]",
    ];
    missing_parts: with_rules(&["ja4 = \"t13d1516h2_8daaf6152771\"\naction = \"drop\""]) => [
        "15:7: error: not three parts with `_` between them: found \"t13d1516h2_8daaf6152771\", expected a JA4 such as \
         \"t13d1516h2_8daaf6152771_b186095e22b6\", parts with `*` [did you mean \"t13d1516h2_8daaf6152771_*\"?]",
    ];
    part_too_long: with_rules(&["ja4 = \"t13d1516h22_*_*\"\naction = \"drop\""]) => [
        "15:7: error: no JA4 has such a first part: found `t13d1516h22`, expected 10 characters such as t13d1516h2, or fewer \
         with `*`",
    ];
    lists_instead_of_hashes: with_rules(&["ja4 = \"t13d1516h2_1301,1302_*\"\naction = \"drop\""]) => [
        "15:7: error: a JA4 with lists instead of hashes: found \"t13d1516h2_1301,1302_*\", expected a JA4 such as \
         \"t13d1516h2_8daaf6152771_b186095e22b6\", parts with `*` [write the JA4 itself, with the hashes of the lists]",
    ];
    every_ja4: with_rules(&["ja4 = \"*_**_*\"\naction = \"drop\""]) => [
        "15:7: error: a pattern of every JA4: found \"*_**_*\", expected at least one character that is not `*` \
         [to limit every client, give the service a profile]",
    ];
    ja4_of_another_type: with_rules(&["ja4 = 13\naction = \"drop\""]) => [
        "15:7: error: wrong type for `ja4`: found the integer 13, expected a JA4 such as \
         \"t13d1516h2_8daaf6152771_b186095e22b6\", parts with `*`",
    ];
    no_pattern: with_rules(&["syn = []\naction = \"drop\""]) => [
        "15:7: error: empty `syn`: found [], expected at least one: a SYN as p0f writes it, such as \
         \"4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0\", fields with `*`",
    ];
    every_syn: with_rules(&["syn = \"*:*:*:*:*,*:*:*:*\"\naction = \"drop\""]) => [
        "15:7: error: a pattern of every SYN: found \"*:*:*:*:*,*:*:*:*\", expected at least one field that is not `*` \
         [to limit every client, give the service a profile]",
    ];
    too_few_fields: with_rules(&["syn = \"4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+\"\naction = \"drop\""]) => [
        "15:7: error: not eight fields with `:` between them: found \"4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+\", expected \
         a SYN as p0f writes it, such as \"4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0\", fields with `*` \
         [did you mean \"4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:*\"?]",
    ];
    hop_limit_on_the_way: with_rules(&["syn = \"4:57+7:*:*:*:*:*:*\"\naction = \"drop\""]) => [
        "15:7: error: invalid initial hop limit: found `57+7`, expected 32, 64, 128, 255 or `*` \
         [write 64, the hop limit that the packet started with]",
    ];
    fields_of_a_syn: with_rules(&["syn = [\"5:*:*:*:*:*:*:*\", \"*:*:*:70000:*:*:*:*\", \"*:*:*:*:8192:*:*:*\", \"*:*:*:*:%8192,*:*:*:*\", \
        \"*:*:*:*:*:mss,wscale:*:*\", \"*:*:*:*:*:eol+1,nop:*:*\", \"*:*:*:*:*:*:dff:*\", \"6:*:*:*:*:*:df:*\", \"*:*:*:*:*:*:*:1\"]\n\
        action = \"drop\""]) => [
        "15:8: error: invalid version of IP: found `5`, expected 4, 6 or `*`",
        "15:27: error: invalid maximum segment size: found `70000`, expected a number from 0 to 65535 or `*`",
        "15:50: error: invalid window and its scale: found `8192`, expected such as mss*44,7 or 64240,* or `*`",
        "15:72: error: invalid window: found `%8192`, expected a number up to 65535, mss*N, mtu*N or `*`",
        "15:97: error: invalid option: found `wscale`, expected nop, mss, ws, sok, sack, ts, ?N for another kind, or eol+N \
         [did you mean `ws`?]",
        "15:125: error: invalid layout of options: found `nop`, expected nothing after the end of the options",
        "15:152: error: invalid quirk: found `dff`, expected quirks of p0f: df, id+, id-, ecn, 0+, flow, seq-, ack+, ack-, uptr+, \
         urgf+, pushf+, ts1-, ts2+, opt+, exws, bad [did you mean `df`?]",
        "15:173: error: quirks of the other version of IP: found `df`, expected quirks that a SYN over IPv6 can have",
        "15:193: error: invalid class of the payload: found `1`, expected 0 for none, + for some or `*`",
    ];
    shared_budget_of_sources: with_rules(&["source = [\"192.0.2.1\"]\naction = { limit = \"each\", shared = true }"]) => [
        "16:37: error: a shared budget of sources: found true, expected no `shared` in a rule about sources [the `parents` of a \
         profile are budgets that sources share; `shared` is for rules with `ja4` or `syn`]",
    ];
    shared_of_another_type: with_rules(&["ja4 = \"t13*_*_*\"\naction = { limit = \"each\", shared = 1 }"]) => [
        "16:37: error: wrong type for `shared`: found the integer 1, expected true or false",
    ];
    no_such_profile: with_rules(&["ja4 = \"t13*_*_*\"\naction.limit = \"eech\""]) => [
        "16:16: error: undefined profile: found \"eech\", expected `each` [did you mean `each`?]",
    ];
    no_budget_of_handshakes: with_rules(&["ja4 = \"t13*_*_*\"\nsyn = \"4:*:*:*:*:*:*:*\"\naction.limit = \"each\""])
        .replace("handshakes = \"7/s\"\n", "") => [
        "16:16: error: profile `each` has no budget of handshakes: found \"each\", expected a profile with `handshakes` \
         [write handshakes = \"10/s\" or the like into [profile.each]: a rule with `ja4` charges it at the ClientHello]",
    ];
    no_budget_of_connections: with_rules(&["syn = \"4:*:*:*:*:*:*:*\"\naction.limit = \"each\""])
        .replace("connections = \"8/s\"\n", "") => [
        "15:16: error: profile `each` has no budget of connections: found \"each\", expected a profile with `connections` \
         [write connections = \"10/s\" or the like into [profile.each]: a rule with `syn` alone charges it at the SYN]",
    ];
    a_budget_that_cannot_be_read_is_there: with_rules(&["ja4 = \"t13*_*_*\"\naction.limit = \"each\""])
        .replace("handshakes = \"7/s\"\n", "handshakes = \"7\"\n") => [
        "12:14: error: not a rate: found \"7\", expected a rate such as \"2000/s\", \"1.5M/s\", \"100/min\", \"10/h\" or \"10/d\" \
         [did you mean \"7/s\"?]",
    ];
}

#[test]
fn a_rule_has_few_enough_patterns() {
    let many = vec!["\"t13*_*_*\""; 257].join(",");
    assert_refused(
        &with_rules(&[&format!("ja4 = [{many}]\naction = \"drop\"")]),
        &["15:2824: error: too many patterns in one rule: found 257, expected at most 256"],
    );
}
