//! Files of source prefixes.

use std::fs;

use super::{lines, parse_with};
use crate::commands::{SourceFiles, parse_policy};
use crate::policy::{Checked, Context, Diagnostic, SOURCE_FILES_BYTES_MAX, in_file, parse, parse_in, render};

const POLICY: &str = r#"version = 1
[[service]]
name = "s"
addresses = ["203.0.113.1"]
[[rule]]
name = "r"
source_file = "list.txt"
action = "drop"
"#;

fn with_list(list: &[u8]) -> Result<Checked, Vec<Diagnostic>> {
    parse_with(0, &[("etc/list.txt", list)], POLICY)
}

fn sources(checked: &Checked) -> Vec<String> {
    checked.policy.rules[0].matches.sources().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_refused(text: &str, files: &[(&str, &[u8])], expected: &[&str]) {
    let diagnostics = parse_with(0, files, text).expect_err("the policy should be refused");
    let placed = |(line, diagnostic): (String, &Diagnostic)| match &diagnostic.source_line {
        Some(source) => format!("{}:{line}", source.file),
        None => line,
    };
    let found: Vec<_> = lines(&diagnostics).into_iter().zip(&diagnostics).map(placed).collect();
    assert_eq!(found, expected, "in:\n{text}");
}

#[track_caller]
fn assert_list_refused(list: &[u8], expected: &[&str]) {
    assert_refused(POLICY, &[("etc/list.txt", list)], expected);
}

#[test]
fn a_prefix_a_line_with_comments() {
    let list = "\u{feff}192.0.2.0/24\r\n# office\r\n\r\n  2001:db8::1\t# é\n#\n10.0.0.0/8#x";
    let checked = with_list(list.as_bytes()).unwrap();
    assert_eq!(sources(&checked), ["192.0.2.0/24", "2001:db8::1/128", "10.0.0.0/8"]);
    assert_eq!(lines(&checked.warnings), [""; 0]);
}

#[test]
fn beside_a_list() {
    let text = POLICY.replacen("source_file", "source = [\"::1\"]\nsource_file", 1);
    let checked = parse_with(0, &[("etc/list.txt", b"::2\n")], &text).unwrap();
    assert_eq!(sources(&checked), ["::1/128", "::2/128"]);
}

#[test]
fn paths_start_from_the_folder_of_the_policy() {
    let with = |path: &str| POLICY.replacen("list.txt", path, 1);
    let files: [(&str, &[u8]); 2] = [("etc/lists/a.txt", b"::1"), ("/srv/b.txt", b"::2")];
    assert_eq!(sources(&parse_with(0, &files, &with("lists/a.txt")).unwrap()), ["::1/128"]);
    assert_eq!(sources(&parse_with(0, &files, &with("/srv/b.txt")).unwrap()), ["::2/128"]);
}

#[test]
fn lines_that_are_no_prefix() {
    let list = "192.0.2.0/24\n192.0.2.1/24 # é\n\u{a0}::1\n \"192.0.2.7\",\r\n1.10.16.0/20 ; SBL256894\nexample.org\n\
                10.0.0.0/8 192.0.2.0/33\n192.0.2.5-192.0.2.9\n";
    let one = "a prefix or an address such as 192.0.2.0/24 or 2001:db8::1, and `#` before comments";
    let any = "an address or a prefix such as `192.0.2.1` or `2001:db8::/32`";
    assert_list_refused(
        list.as_bytes(),
        &[
            "etc/list.txt:2:1: error: prefix with bits set after its length: found 192.0.2.1/24, expected \
             `192.0.2.0/24`, the network it is in [for this address alone write `192.0.2.1`]",
            &format!(
                "etc/list.txt:3:1: error: more on the line than a prefix: found \\u{{a0}}::1, expected {one} [write ::1 alone; comments start with `#`]"
            ),
            &format!(
                "etc/list.txt:4:2: error: more on the line than a prefix: found \"192.0.2.7\",, expected {one} [write 192.0.2.7 alone; comments start with `#`]"
            ),
            &format!(
                "etc/list.txt:5:1: error: more on the line than a prefix: found 1.10.16.0/20 ; SBL256894, expected {one} [write 1.10.16.0/20 alone; comments start with `#`]"
            ),
            &format!(
                "etc/list.txt:6:1: error: not an address: found example.org, expected {any} [host names are not looked up: write the addresses]"
            ),
            &format!(
                "etc/list.txt:7:1: error: more on the line than a prefix: found 10.0.0.0/8 192.0.2.0/33, expected {one} [write 10.0.0.0/8 alone; comments start with `#`]"
            ),
            &format!(
                "etc/list.txt:8:1: error: not an address: found 192.0.2.5-192.0.2.9, expected {any} [write a range as the prefixes that it is made of]"
            ),
        ],
    );
}

#[test]
fn errors_of_the_policy_come_first_and_those_of_a_file_are_bounded() {
    let text = POLICY.replacen("\"drop\"", "\"dorp\"", 1);
    let diagnostics = parse_with(0, &[("etc/list.txt", "x\n".repeat(1000).as_bytes())], &text).unwrap_err();
    let diagnostics = lines(&diagnostics);
    assert_eq!(diagnostics.len(), 21);
    assert!(diagnostics[0].starts_with("8:10: error: unknown action"), "{}", diagnostics[0]);
    assert!(diagnostics[19].starts_with("19:1: error: not an address: found x, "), "{}", diagnostics[19]);
    assert!(
        diagnostics[20].starts_with("20:1: error: 981 times from here on: not an address: found x, "),
        "{}",
        diagnostics[20]
    );
}

#[test]
fn a_file_that_cannot_be_used() {
    let expected = "expected a text file with a prefix or an address on each line";
    assert_refused(
        POLICY,
        &[],
        &[&format!(
            "7:15: error: cannot read the source file etc/list.txt: entity not found: found \"list.txt\", {expected} \
             [a relative path starts from the folder of the policy]"
        )],
    );
    assert_list_refused(
        b"192.0.2.1\n# \xc3\xa9 caf\xe9\n",
        &[&format!(
            "7:15: error: source file etc/list.txt is not UTF-8 text: found the byte 0xe9 at etc/list.txt:2:8, \
             {expected} [save it as UTF-8]"
        )],
    );
    for empty in ["", "\u{feff}# nothing\r\n\n"] {
        assert_list_refused(
            empty.as_bytes(),
            &[
                "7:15: error: source file without a prefix: found \"list.txt\", expected at least one prefix or address",
            ],
        );
    }
    assert_list_refused(
        &vec![b'#'; SOURCE_FILES_BYTES_MAX + 1],
        &[
            "7:15: error: source file etc/list.txt is too large: found more than the 67108864 bytes left of them, \
           expected at most 64 MiB in all source files of the policy [merge neighbouring prefixes into wider ones]",
        ],
    );
    let alone = lines(&parse(POLICY).unwrap_err());
    assert!(alone[0].contains("this policy is read without its files"), "{alone:?}");
}

#[test]
fn paths_that_are_none() {
    for (path, found) in [("", "\"\""), ("a\\nb", "\"a\\\\nb\""), ("\\u202e", "\"\\\\u202e\"")] {
        let text = POLICY.replacen("list.txt", path, 1);
        let expected = "expected a path on one line";
        let line = format!("7:15: error: not the path of a source file: found {found}, {expected}");
        assert_refused(&text, &[], &[&line.replace("\\\\", "\\")]);
    }
    assert_refused(
        &POLICY.replacen("\"list.txt\"", "[\"list.txt\"]", 1),
        &[],
        &["7:15: error: wrong type for `source_file`: found an array, expected the path of a file"],
    );
}

const TWO: &str = r#"[[rule]]
name = "again"
source_file = "list.txt"
action = "drop"
"#;

#[test]
fn a_file_for_two_rules_counts_and_is_told_of_once() {
    let text = format!("{POLICY}{TWO}");
    let half = vec![b'#'; SOURCE_FILES_BYTES_MAX / 2 + 1];
    let half = [&half[..], b"\nx\n"].concat();
    assert_refused(
        &text,
        &[("etc/list.txt", &half)],
        &[
            "etc/list.txt:2:1: error: not an address: found x, expected an address or a prefix such as `192.0.2.1` or \
           `2001:db8::/32`",
        ],
    );
    let other = text.replacen("list.txt", "half.txt", 1);
    let diagnostics =
        lines(&parse_with(0, &[("etc/list.txt", &half), ("etc/half.txt", &half)], &other).unwrap_err());
    assert!(
        diagnostics[0].starts_with("11:15: error: source file etc/list.txt is too large"),
        "{diagnostics:?}"
    );
}

#[test]
fn warnings_and_limits_have_their_place_in_the_file() {
    let limit = POLICY.replacen("\"drop\"", "{ limit = \"p\" }\n[profile.p]\npackets = \"9/s\"", 1);
    assert_refused(
        &limit,
        &[("etc/list.txt", b"# v6\n2001:db8::1\n")],
        &[
            "etc/list.txt:2:1: error: limit on a part of an IPv6 source, whose budgets are those of its /64: found \
           2001:db8::1, expected /64 or shorter [write \"2001:db8::/64\" to limit all of it; \"drop\" and \"allow\" \
           work on longer prefixes]",
        ],
    );
    let checked = with_list(b"# all\n  0.0.0.0/1\n").unwrap();
    assert!(checked.warnings[0].needs_force);
    assert_eq!(
        render("etc/policy.toml", POLICY, &checked.warnings),
        "etc/list.txt:2:3: warning: drops a very broad prefix: found /1, expected /8 or longer\n  |\n\
         2 |   0.0.0.0/1\n  |   ^^^^^^^^^\n"
    );
    let json = serde_json::to_value(in_file("etc/policy.toml", checked.warnings)).unwrap();
    assert_eq!((&json[0]["file"], &json[0]["needs_force"]), (&"etc/list.txt".into(), &true.into()), "{json}");
    assert!(json[0].get("source_line").is_none(), "{json}");
}

#[test]
fn lines_are_shown_in_part() {
    let line = format!("x{}\n", "é".repeat(100_000));
    let diagnostics = with_list(line.as_bytes()).unwrap_err();
    assert_eq!(diagnostics[0].source_line.as_ref().map(|source| source.text.chars().count()), Some(200));
}

#[test]
fn prefixes_named_twice_are_told_of_once() {
    let checked = with_list(b"::1\n192.0.2.1\n::1/128\n192.0.2.1\n192.0.2.1\n192.0.2.0/24\n").unwrap();
    assert_eq!(
        lines(&checked.warnings),
        ["3:1: warning: rule `r` names prefixes again 3 times, first ::1/128 here [once is enough]"]
    );
    let text = POLICY.replacen("source_file", "source = [\"::1\"]\nsource_file", 1);
    let checked = parse_with(0, &[("etc/list.txt", b"::1\n")], &text).unwrap();
    assert_eq!(
        lines(&checked.warnings),
        ["1:1: warning: rule `r` names a prefix again, first ::1/128 here [once is enough]"]
    );
}

#[test]
fn a_real_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    fs::write(folder.path().join("list.txt"), "192.0.2.0/24\n").unwrap();
    let checked = parse_policy(POLICY, SourceFiles::beside(&path)).unwrap();
    assert_eq!(sources(&checked), ["192.0.2.0/24"]);

    let refused = |text: &str| lines(&parse_policy(text, SourceFiles::beside(&path)).unwrap_err()).remove(0);
    let missing = refused(&POLICY.replacen("list.txt", "missing.txt", 1));
    assert!(missing.contains("missing.txt: No such file or directory"), "{missing}");
    let a_folder = refused(&POLICY.replacen("list.txt", ".", 1));
    assert!(a_folder.contains("not a regular file"), "{a_folder}");
    let large = fs::File::create(folder.path().join("large.txt")).unwrap();
    large.set_len(SOURCE_FILES_BYTES_MAX as u64 + 1).unwrap();
    let large = refused(&POLICY.replacen("list.txt", "large.txt", 1));
    assert!(large.contains("is too large"), "{large}");
}

/// The bound that the parser tells the reader.
#[test]
fn no_more_is_read_than_needed() {
    let read = |_: &std::path::Path, bytes_max: usize| {
        assert_eq!(bytes_max, SOURCE_FILES_BYTES_MAX);
        Ok(b"::1".to_vec())
    };
    parse_in(POLICY, &Context { read: &read, ..Context::alone() }).unwrap();
}

#[test]
fn a_million_prefixes_are_no_matter() {
    let mut list = String::new();
    for number in 0..1_000_000_u32 {
        let address = std::net::Ipv4Addr::from(number.wrapping_mul(2_654_435_761) & !0xff);
        list += &format!("{address}/24\n");
    }
    let all = "[[rule]]\nname = \"all\"\nsource = [\"64.0.0.0/8\"]\naction = \"drop\"\n";
    let text = format!("{POLICY}{all}").replacen(
        "[[service]]",
        "[defaults]\nallow = [\"10.0.0.0/8\"]\n[[service]]",
        1,
    );
    let start = std::time::Instant::now();
    let checked = parse_with(0, &[("etc/list.txt", list.as_bytes())], &text).unwrap();
    let took = start.elapsed();
    assert_eq!(checked.policy.rules[0].matches.sources().len(), 1_000_000);
    let told = lines(&checked.warnings);
    assert!(
        told.iter().any(|line| line.contains("times from here on: rule `r` can never fire here")),
        "{told:?}"
    );
    assert!(took.as_secs() < 20, "{took:?}");
}
