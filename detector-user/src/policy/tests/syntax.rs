//! TOML itself.

use super::refused;

refused! {
    number_with_a_slip: "version = 1.x
" => [
        "1:11: error: invalid TOML, invalid float: found 1.x, expected a value, or a text in quotes",
        "1:13: error: invalid TOML, invalid fraction: found `x`, expected digits",
    ];
    addresses_and_ports_without_quotes: r#"version = 1
[[service]]
name = “a”
addresses = [203.0.113.10, 192.0.2.0/24]
ports = [tcp/443, 80/tcp]
"# => [
        r#"3:8: error: invalid TOML, string values must be quoted: found “a”, expected a value, or a text in quotes [write "a"]"#,
        r#"4:14: error: invalid TOML, string values must be quoted: found 203.0.113.10, expected a value, or a text in quotes [write "203.0.113.10"]"#,
        r#"4:28: error: invalid TOML, string values must be quoted: found 192.0.2.0/24, expected a value, or a text in quotes [write "192.0.2.0/24"]"#,
        r#"5:10: error: invalid TOML, string values must be quoted: found tcp/443, expected a value, or a text in quotes [write "tcp/443"]"#,
        r#"5:19: error: invalid TOML, string values must be quoted: found 80/tcp, expected a value, or a text in quotes [write "80/tcp"]"#,
    ];

    missing_value: "version = 1
[defaults]
mode =
" => [
        "3:7: error: invalid TOML, missing value: found end of line, expected a value after `=`",
    ];
    unquoted_value: "version = 1
[defaults]
mode = enforce
" => [
        r#"3:8: error: invalid TOML, string values must be quoted: found enforce, expected a value, or a text in quotes [write "enforce"]"#,
    ];
    missing_assignment: "version = 1
defaults
" => [
        "2:9: error: invalid TOML, key with no value: found end of line, expected `=`",
    ];
    unclosed_string: r#"version = 1
[defaults]
mode = "shadow
"# => [
        r#"3:15: error: invalid TOML, invalid basic string: found end of line, expected `"`"#,
    ];
    unclosed_array: r#"version = 1
[defaults]
allow = ["192.0.2.1""# => [
        "3:21: error: invalid TOML, unclosed array: found end of file, expected `]`",
    ];
    unclosed_table: r#"version = 1
[defaults
mode = "shadow"
"# => [
        "2:10: error: invalid TOML, unclosed table: found end of line, expected `]`",
    ];
    invalid_escape: r#"version = 1
[defaults]
mode = "\q"
"# => [
        r#"3:10: error: invalid TOML, missing escaped value: found `q`, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`"#,
    ];
    invalid_key: "version = 1
dé = 1
" => [
        "2:2: error: invalid TOML, invalid unquoted key: found é, expected letters, numbers, `-`, `_`",
    ];
    invalid_number: "version = 01\n" => [
        "1:11: error: invalid TOML, unexpected leading zero: found 0, expected nothing",
    ];
    several_syntax_errors: "version =
[defaults]
mode = shadow
" => [
        "1:10: error: invalid TOML, missing value: found end of line, expected a value after `=`",
        r#"3:8: error: invalid TOML, string values must be quoted: found shadow, expected a value, or a text in quotes [write "shadow"]"#,
    ];
    columns_count_characters: r#"version = 1 # é
[defaults]
"é" = é
"# => [
        r#"3:7: error: invalid TOML, string values must be quoted: found é, expected a value, or a text in quotes [write "é"]"#,
    ];
    a_byte_order_mark_has_no_column: "\u{feff}version = 2\n" => [
        "1:11: error: unsupported version of the policy language: found 2, expected version = 1",
    ];
    duplicate_key: r#"version = 1
[defaults]
mode = "shadow"
mode = "enforce"
"# => [
        "4:1: error: duplicate key `mode`: found it a second time, expected each key once",
    ];
    duplicate_table: "version = 1
[defaults]
[defaults]
" => [
        "3:2: error: duplicate key `defaults`: found it a second time, expected each key once",
    ];
    duplicate_profile: r#"version = 1
[profile.p]
packets = "9/s"
[profile.p]
"# => [
        "4:10: error: duplicate key `p`: found it a second time, expected each key once",
    ];
    errors_are_looked_for_behind_duplicate_keys: r#"version = 1
version = 1
[defaults]
mode = "shadwo"
"# => [
        "2:1: error: duplicate key `version`: found it a second time, expected each key once",
        r#"4:8: error: unknown mode: found "shadwo", expected "enforce", "shadow" or { enforce = PERCENT } [did you mean `shadow`?]"#,
    ];
    dotted_key_through_a_value: "version = 1
[version.x]
" => [
        "2:2: error: invalid TOML, cannot extend value of type integer with a dotted key: found version, expected valid TOML",
    ];
    recursion_is_bounded: format!("x = {}{}\n", "[".repeat(100), "]".repeat(100)) => [
        "1:85: error: invalid TOML, cannot recurse further; max recursion depth met: found [, expected valid TOML",
    ];
    carriage_returns_end_lines: "version = 1\r\n[defaults]\r\nmode = 1\r\n" => [
        r#"3:8: error: wrong type for `mode`: found the integer 1, expected "enforce", "shadow" or { enforce = PERCENT }"#,
    ];
}
