//! Sections, fields and names.

use super::{accepted, assert_refused, refused};

refused! {
    missing_version: "" => [
        "1:1: error: missing field in the policy: found no `version`, expected version = 1",
    ];
    unsupported_version_is_the_only_error: "version = 2
new = true
" => [
        "1:11: error: unsupported version of the policy language: found 2, expected version = 1",
    ];
    version_of_another_type: r#"version = "1"
new = true
"# => [
        r#"1:11: error: wrong type for `version`: found the text "1", expected version = 1"#,
    ];
    version_out_of_range: "version = -1\n" => [
        "1:11: error: `version` is out of range: found -1, expected version = 1",
    ];
    unknown_field: r#"version = 1
colour = "red"
"# => [
        "2:1: error: unknown field in the policy: found `colour`, expected `version`, `defaults`, `service`, `profile`, `rule` or `fleets`",
    ];
    unknown_field_with_a_slip: "version = 1
[[servics]]
" => [
        "2:3: error: unknown field in the policy: found `servics`, expected `version`, `defaults`, `service`, `profile`, `rule` or `fleets` [did you mean `service`?]",
    ];
    unknown_field_in_defaults: r#"version = 1
defaults.modes = "shadow"
"# => [
        "2:10: error: unknown field in `defaults`: found `modes`, expected `mode`, `allow` or `unknown` [did you mean `mode`?]",
    ];
    unknown_field_in_a_service: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
adresses = []
"# => [
        "5:1: error: unknown field in a service: found `adresses`, expected `name`, `addresses`, `ports`, `profile` or `fleets` [did you mean `addresses`?]",
    ];
    unknown_field_in_parents: "version = 1
[profile.p]
parents.v4_16 = {}
" => [
        "3:9: error: unknown field in a profile's parents: found `v4_16`, expected `v4_24`, `v6_56` or `v6_48`",
    ];
    unknown_field_in_a_parent: r#"version = 1
[profile.p]
parents.v4_24 = { sources = "1/s" }
"# => [
        "3:19: error: unknown field in a parent's budgets: found `sources`, expected `packets`, `bytes`, `connections` or `new_sources`",
    ];
    unknown_field_in_a_budget: r#"version = 1
[profile.p]
packets = { rate = "9/s", bursts = 9 }
"# => [
        "3:27: error: unknown field in a budget: found `bursts`, expected `rate` or `burst` [did you mean `burst`?]",
    ];
    unknown_field_in_an_action: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = { limits = "p" }
"# => [
        "5:12: error: unknown field in an action: found `limits`, expected `limit` or `shared` [did you mean `limit`?]",
    ];
    unknown_field_in_fleets: r#"version = 1
[fleets]
mode = "off"
size = 3
"# => [
        "4:1: error: unknown field in `fleets`: found `size`, expected `mode`, `hold_out`, `members_max`, `new_members_max`, `collateral_max`, `factor`, `share`, `for` or `tighten`",
    ];
    prefixes_have_no_handshakes: r#"version = 1
[profile.p]
handshakes = "10/s"
[profile.p.parents]
v6_56 = { handshakes = "10/s" }
"# => [
        "5:11: error: `handshakes` is not supported by this version: found `handshakes`, expected `packets`, `bytes`, `connections` or `new_sources` [remove `handshakes`]",
    ];
    unknown_mode_of_fleets: r#"version = 1
[fleets]
mode = "on"
"# => [
        r#"3:8: error: unknown mode of `fleets`: found "on", expected "off", "observe", "suggest" or "throttle" [did you mean `observe`?]"#,
    ];
    unknown_mode_of_fleets_of_a_service: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
fleets = "thottle"
"# => [
        r#"5:10: error: unknown mode of `fleets`: found "thottle", expected "off", "observe", "suggest" or "throttle" [did you mean `throttle`?]"#,
    ];
    fleets_of_a_service_of_another_type: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
fleets = false
"# => [
        r#"5:10: error: wrong type for `fleets`: found the boolean false, expected "off", "observe", "suggest" or "throttle""#,
    ];
    fleets_without_a_mode: "version = 1
[fleets]
" => [
        r#"2:1: error: missing field in `fleets`: found no `mode`, expected "off", "observe", "suggest" or "throttle""#,
    ];
    service_not_an_array: r#"version = 1
[service]
name = "a"
"# => [
        "2:1: error: wrong type for `service`: found a table, expected an array of tables [write [[service]]]",
    ];
    service_element_not_a_table: "version = 1
service = [5]
" => [
        "2:12: error: wrong type for `service`: found the integer 5, expected a table with `name`, `addresses`, `ports`, `profile` or `fleets`",
    ];
    profile_not_a_table: "version = 1
[[profile]]
" => [
        "2:1: error: wrong type for `profile`: found an array, expected a table of profiles, each written as [profile.NAME]",
    ];
    one_profile_not_a_table: r#"version = 1
profile.p = "9/s"
"# => [
        r#"2:13: error: wrong type for `p`: found the text "9/s", expected a table with `packets`, `bytes`, `connections`, `handshakes` or `parents`"#,
    ];
    defaults_not_a_table: "version = 1
defaults = true
" => [
        "2:12: error: wrong type for `defaults`: found the boolean true, expected a table with `mode`, `allow` or `unknown`",
    ];
    missing_fields_of_a_service: "version = 1
[[service]]
" => [
        "2:1: error: missing field in a service: found no `name`, expected a name of 1 to 63 letters, digits, `_`, `.`, `:` or `-`",
        r#"2:1: error: missing field in a service: found no `addresses`, expected addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32""#,
    ];
    missing_fields_of_a_rule: "version = 1
[[rule]]
" => [
        "2:1: error: missing field in a rule: found no `name`, expected a name of 1 to 63 letters, digits, `_`, `.`, `:` or `-`",
        r#"2:1: error: missing field in a rule: found no `source`, expected addresses or prefixes such as "192.0.2.1", "192.0.2.0/24" or "2001:db8::/32" [a rule names sources by `source` or `source_file`, or clients by `ja4` or `syn`]"#,
        r#"2:1: error: missing field in a rule: found no `action`, expected "allow", "drop" or { limit = "PROFILE" }"#,
    ];
    duplicate_service_name: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
[[service]]
name = "a"
addresses = ["192.0.2.2"]
"# => [
        r#"6:8: error: duplicate service name: found "a", expected a name no other service has [`a` is on line 3 already]"#,
    ];
    duplicate_rule_name_on_one_line: r#"version = 1
rule = [{ name = "r", source = ["::1"], action = "drop" }, { name = "r", source = ["::2"], action = "drop" }]
"# => [
        r#"2:69: error: duplicate rule name: found "r", expected a name no other rule has [`r` is on line 2 already]"#,
    ];
    undefined_profile_of_a_service: r#"version = 1
[[service]]
name = "a"
addresses = ["192.0.2.1"]
profile = "strikt"
[profile.strict]
packets = "9/s"
[profile.loose]
packets = "9/s"
"# => [
        r#"5:11: error: undefined profile: found "strikt", expected `loose` or `strict` [did you mean `strict`?]"#,
    ];
    undefined_profile_of_a_rule: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = { limit = "strict" }
"# => [
        r#"5:20: error: undefined profile: found "strict", expected a profile of this policy, which has none"#,
    ];
    limit_on_a_part_of_a_source: r#"version = 1
[profile.p]
packets = "9/s"
[[rule]]
name = "r"
source = ["2001:db8::/64", "192.0.2.1", "2001:db8::1:1", "2001:db8:1:8000::/65"]
action = { limit = "p" }
"# => [
        r#"6:41: error: limit on a part of an IPv6 source, whose budgets are those of its /64: found "2001:db8::1:1", expected /64 or shorter [write "2001:db8::/64" to limit all of it; "drop" and "allow" work on longer prefixes]"#,
        r#"6:58: error: limit on a part of an IPv6 source, whose budgets are those of its /64: found "2001:db8:1:8000::/65", expected /64 or shorter [write "2001:db8:1:8000::/64" to limit all of it; "drop" and "allow" work on longer prefixes]"#,
    ];
    undefined_service: r#"version = 1
[[rule]]
name = "r"
source = ["192.0.2.1"]
action = "drop"
service = "web"
[[service]]
name = "api"
addresses = ["203.0.113.1"]
"# => [
        r#"6:11: error: undefined service: found "web", expected `api`"#,
    ];
}

#[test]
fn too_many_services() {
    let entry = |index| format!("[[service]]\nname = \"s{index}\"\naddresses = [\"10.0.{index}.0/24\"]\n");
    let policy = |count| format!("version = 1\n{}", (0..count).map(entry).collect::<String>());
    accepted(&policy(255));
    assert_refused(&policy(256), &["768:8: error: too many services: found 256, expected at most 255"]);
}

#[test]
fn too_many_profiles() {
    let entry = |index| format!("[profile.p{index}]\npackets = \"9/s\"\n");
    let policy = |count| format!("version = 1\n{}", (0..count).map(entry).collect::<String>());
    accepted(&policy(1024));
    assert_refused(&policy(1030), &["2050:10: error: too many profiles: found 1030, expected at most 1024"]);
}

#[test]
fn too_many_rules() {
    let entry =
        |index| format!("[[rule]]\nname = \"r{index}\"\nsource = [\"::{index}\"]\naction = \"allow\"\n");
    let policy = |count| format!("version = 1\n{}", (1..=count).map(entry).collect::<String>());
    accepted(&policy(2048));
    assert_refused(&policy(2049), &["8195:8: error: too many rules: found 2049, expected at most 2048"]);
}

#[test]
fn of_many_errors_the_last_counts_the_rest() {
    let text =
        format!("version = 1\n{}", (0..1000).map(|index| format!("x{index} = 1\n")).collect::<String>());
    let diagnostics = crate::policy::parse(&text).expect_err("unknown fields are refused");
    assert_eq!(diagnostics.len(), 200);
    let last = diagnostics.last().map(ToString::to_string);
    assert_eq!(
        last.as_deref(),
        Some("201:1: error: 801 more of the kind `error`: found 1000 in all, expected none")
    );
}
