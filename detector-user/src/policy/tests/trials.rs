//! What is tried on a part of the sources, or for a time.

use super::{accepted, assert_warned, lines, parse_with, refused};
use crate::policy::{Mode, parse};

const END: &str = "2026-12-01T06:00:00Z";
const END_S: u64 = 1_796_104_800;

fn with(rule: &str) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"s\"\naddresses = [\"203.0.113.1\"]\n[[rule]]\nname = \"r\"\n\
         source = [\"192.0.2.0/24\"]\naction = \"drop\"\n{rule}\n"
    )
}

refused! {
    percent_of_none: with("mode = { enforce = 0 }") => [
        r#"9:20: error: 0 percent is none of the sources: found 0, expected a whole number of percent of the sources, from 1 to 99 [write mode = "shadow"]"#,
    ];
    percent_of_all: with("mode = { enforce = 100 }") => [
        r#"9:20: error: 100 percent is all of the sources: found 100, expected a whole number of percent of the sources, from 1 to 99 [write mode = "enforce"]"#,
    ];
    percent_above_all: with("mode = { enforce = 101 }") => [
        "9:20: error: not a part of the sources: found 101, expected a whole number of percent of the sources, from 1 to 99",
    ];
    percent_below_none: with("mode = { enforce = -1 }") => [
        "9:20: error: `enforce` is out of range: found -1, expected a whole number of percent of the sources, from 1 to 99",
    ];
    percent_as_text: with("mode = { enforce = \"10%\" }") => [
        r#"9:20: error: wrong type for `enforce`: found the text "10%", expected a whole number of percent of the sources, from 1 to 99 [write 10, without quotes and unit]"#,
    ];
    percent_with_a_fraction: with("mode = { enforce = 0.5 }") => [
        "9:20: error: wrong type for `enforce`: found the number 0.5, expected a whole number of percent of the sources, from 1 to 99",
    ];
    percent_of_something_else: with("mode = { shadow = 10 }") => [
        "9:8: error: missing field in a mode: found no `enforce`, expected a whole number of percent of the sources, from 1 to 99",
        "9:10: error: unknown field in a mode: found `shadow`, expected `enforce`",
    ];
    percent_alone: with("mode = 10") => [
        r#"9:8: error: wrong type for `mode`: found the integer 10, expected "enforce", "shadow" or { enforce = PERCENT }"#,
    ];
    until_without_an_offset: with("until = 2026-12-01T06:00:00") => [
        "9:9: error: `until` without an offset: found 2026-12-01T06:00:00, expected a date and time with an offset, such as 2026-12-01T06:00:00Z [write 2026-12-01T06:00:00Z for UTC, or 2026-12-01T06:00:00+02:00 where clocks are two hours ahead]",
    ];
    until_without_a_time: with("until = 2026-12-01") => [
        "9:9: error: `until` without a time and an offset: found 2026-12-01, expected a date and time with an offset, such as 2026-12-01T06:00:00Z [write 2026-12-01T00:00:00Z for UTC, or 2026-12-01T00:00:00+02:00 where clocks are two hours ahead]",
    ];
    until_without_a_date: with("until = 06:00:00") => [
        "9:9: error: `until` without a date and an offset: found 06:00:00, expected a date and time with an offset, such as 2026-12-01T06:00:00Z",
    ];
    until_in_quotes: with("until = \"2026-12-01T06:00:00Z\"") => [
        r#"9:9: error: wrong type for `until`: found the text "2026-12-01T06:00:00Z", expected a date and time with an offset, such as 2026-12-01T06:00:00Z [write 2026-12-01T06:00:00Z without quotes]"#,
    ];
    until_as_a_span: with("until = \"30m\"") => [
        r#"9:9: error: wrong type for `until`: found the text "30m", expected a date and time with an offset, such as 2026-12-01T06:00:00Z"#,
    ];
    until_on_no_day: with("until = 2026-02-30T06:00:00Z") => [
        "9:9: error: invalid TOML, invalid date: found 2026-02-30T06:00:00Z, expected day between 01 and 28",
    ];
}

#[test]
fn percent_of_a_rule_and_of_everything() {
    for (written, percent) in [("1", 1), ("10", 10), ("0x63", 99)] {
        let checked = accepted(&with(&format!("mode = {{ enforce = {written} }}")));
        assert_eq!(checked.policy.rules[0].mode, Some(Mode::Percent(percent)));
        let checked = accepted(&with(&format!("[defaults]\nmode = {{ enforce = {written} }}")));
        assert_eq!((checked.policy.mode, checked.policy.rules[0].mode), (Mode::Percent(percent), None));
    }
    let of = [Mode::Enforce, Mode::Shadow, Mode::Percent(10)].map(Mode::enforced_percent);
    assert_eq!(of, [100, 0, 10]);
}

#[test]
fn a_rule_ends() {
    let text = with(&format!("until = {END}"));
    assert_eq!(parse(&text).unwrap().policy.rules[0].until_s, Some(END_S));
    let warnings_at = |now| lines(&parse_with(now, &[], &text).unwrap().warnings);
    assert_eq!(warnings_at(END_S - 1), [""; 0]);
    assert_eq!(
        warnings_at(END_S),
        [
            "3:8: warning: nothing is limited: no service has a profile that limits, and no rule drops or limits \
             [give a service a profile with budgets]",
            "9:9: warning: rule `r` has ended and does nothing [remove it, or write a later `until`]",
        ]
    );
}

const TWO: &str = r#"version = 1
[[service]]
name = "s"
addresses = ["203.0.113.1"]
[[rule]]
name = "one"
source = ["192.0.2.0/24"]
action = "drop"
[[rule]]
name = "two"
source = ["192.0.2.0/24"]
action = "drop"
"#;

#[test]
fn a_rule_that_ends_keeps_no_other_from_firing() {
    let ends = format!("action = \"drop\"\nuntil = {END}\n");
    assert_warned(
        TWO,
        &[
            "10:8: warning: rule `two` can never fire: rule `one` of line 6 decides about 192.0.2.0/24 before it",
        ],
    );
    assert_warned(&TWO.replacen("action = \"drop\"\n", &ends, 1), &[]);
    // One that ends can itself be kept from firing, and a part of the sources is decided about as all of them.
    let told = "rule `two` can never fire: rule `one` of line 6 decides about 192.0.2.0/24 before it";
    assert_warned(&format!("{TWO}until = {END}\n"), &[&format!("10:8: warning: {told}")]);
    let shadow = TWO.replacen("\"drop\"\n", "\"drop\"\nmode = { enforce = 10 }\n", 1);
    assert!(lines(&accepted(&shadow).warnings).contains(&format!("11:8: warning: {told}")));
    // The same for the parts of a prefix.
    let parts = TWO.replacen("\"192.0.2.0/24\"", "\"192.0.2.0/25\", \"192.0.2.128/25\"", 1);
    let made_up = "rule `two` can never fire: more specific prefixes of rules make up all of 192.0.2.0/24";
    assert_warned(&parts, &[&format!("10:8: warning: {made_up}")]);
    assert_warned(&parts.replacen("action = \"drop\"\n", &ends, 1), &[]);
}

#[test]
fn what_is_enforced_in_part_lifts_the_rest() {
    let inner =
        |mode: &str| TWO.replacen("\"192.0.2.0/24\"", "\"192.0.2.0/25\"", 1).replacen("\"drop\"\n", mode, 1);
    let lifts = |mode: &str, passing: &str| {
        format!(
            "6:8: warning: rule `one` {mode} lifts what rule `two` of line {} enforces on 192.0.2.0/25 [one rule or \
             profile decides about a source: while this one is tried, {passing} without a limit]",
            11
        )
    };
    let of_shadow = lifts("in mode shadow", "it passes");
    let of_percent = lifts("enforced for 10 %", "the other sources pass");
    let (shadow, percent) = ("\"drop\"\nmode = \"shadow\"\n", "\"drop\"\nmode = { enforce = 10 }\n");
    assert_warned(&inner(shadow), &[&of_shadow]);
    assert_warned(&inner(percent), &[&of_percent]);
    // What is around is enforced in part: lifted where that is the larger one.
    assert_warned(&format!("{}mode = {{ enforce = 5 }}\n", inner(shadow)), &[&of_shadow]);
    assert_warned(&format!("{}mode = {{ enforce = 11 }}\n", inner(percent)), &[&of_percent]);
    assert_warned(&format!("{}mode = {{ enforce = 10 }}\n", inner(percent)), &[]);
    // Also for as long as it is enforced.
    let text = format!("{}until = {END}\n", inner(percent));
    assert_warned(&text, &[&of_percent]);
    let after = lines(&parse_with(END_S, &[], &text).unwrap().warnings);
    assert_eq!(
        after,
        ["14:9: warning: rule `two` has ended and does nothing [remove it, or write a later `until`]"]
    );
}

#[test]
fn what_ends_between_two_rules_hides_the_wider_for_a_time() {
    let around = r#"[[rule]]
name = "between"
source = ["192.0.2.0/25"]
action = "allow"
"#;
    let inner = TWO.replacen("[\"192.0.2.0/24\"]", "[\"192.0.2.0/26\"]\nmode = \"shadow\"", 1);
    let told = |text: String| lines(&accepted(&text).warnings).len();
    assert_eq!(told(inner.clone()), 1);
    assert_eq!(told(format!("{inner}{around}")), 0);
    assert_eq!(told(format!("{inner}{around}until = {END}\n")), 1);
}
