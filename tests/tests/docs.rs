//! The generated parts of the documentation are what the code says.

use std::{env, fs, path::PathBuf};

use clap::CommandFactory as _;
use detector_common::{
    counters::{FRAME_KINDS, HANDSHAKE_EVENTS, TABLE_EVENTS},
    verdict::Reason,
};
use detector_user::{
    actions::guard::Guard, api, cli::Cli, daemon::metrics::FAMILIES, kernel::maps, policy,
    recording::columns::COLUMNS,
};
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Compares the block between `<!-- generated: NAME -->` and `<!-- end -->` with what it should be, or writes it.
fn hold(path: &str, name: &str, expected: &str) {
    let text = read(path);
    let head = format!("<!-- generated: {name} -->\n");
    let start = text.find(&head).unwrap_or_else(|| panic!("{path} has no block {name}")) + head.len();
    let end =
        start + text[start..].find("<!-- end -->").unwrap_or_else(|| panic!("block {name} does not end"));
    if env::var_os("DETECTOR_WRITE_DOCS").is_some() {
        let new = format!("{}{expected}{}", &text[..start], &text[end..]);
        fs::write(root().join(path), new).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        return;
    }
    assert_eq!(&text[start..end], expected, "{path}, block {name}: write it anew with DETECTOR_WRITE_DOCS=1");
}

/// Compares a whole file with what it should be, or writes it.
fn hold_file(path: &str, expected: &str) {
    if env::var_os("DETECTOR_WRITE_DOCS").is_some() {
        let written = fs::write(root().join(path), expected);
        return written.unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }
    assert_eq!(read(path), expected, "{path}: write it anew with DETECTOR_WRITE_DOCS=1");
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("\n| {} |\n|{}\n", header.join(" | "), "---|".repeat(header.len()));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text + "\n"
}

/// One test for everything, since two would write to one file at a time.
#[test]
fn the_documentation_says_what_the_code_does() {
    let reasons = Reason::ALL.iter().map(|reason| {
        vec![format!("`{}`", reason.name()), reason.verdict().name().to_owned(), reason.help().to_owned()]
    });
    hold("docs/reference.md", "reasons", &table(&["reason", "verdict", "meaning"], reasons));
    let frames = FRAME_KINDS.iter().map(|(_, name, help)| vec![format!("`{name}`"), (*help).to_owned()]);
    hold("docs/reference.md", "frames", &table(&["kind", "meaning"], frames));
    let events = TABLE_EVENTS.iter().map(|(_, name, help)| vec![format!("`{name}`"), (*help).to_owned()]);
    hold("docs/reference.md", "events", &table(&["event", "meaning"], events));
    let handshakes =
        HANDSHAKE_EVENTS.iter().map(|(_, name, help)| vec![format!("`{name}`"), (*help).to_owned()]);
    hold("docs/reference.md", "handshakes", &table(&["event", "meaning"], handshakes));
    let metrics = FAMILIES.iter().map(|family| {
        let row =
            [format!("`{}`", family.name), family.kind.into(), family.labels.into(), family.help.into()];
        row.to_vec()
    });
    hold("docs/reference.md", "metrics", &table(&["name", "kind", "labels", "meaning"], metrics));
    let columns =
        COLUMNS.iter().map(|(name, of, help)| vec![format!("`{name}`"), of.name(), (*help).to_owned()]);
    hold("docs/reference.md", "columns", &table(&["column", "type", "meaning"], columns));
    hold("docs/reference.md", "commands", &help());
    let guards = Guard::ALL.iter().map(|guard| {
        vec![format!("`{}`", guard.name()), guard.help().to_owned(), guard.otherwise().help().to_owned()]
    });
    hold("docs/fleets.md", "guards", &table(&["guard", "passes where", "otherwise"], guards));
    hold("docs/architecture.md", "maps", &cards());
    hold("README.md", "figures", &figures());
    let openapi = serde_json::to_value(api::document()).expect("a document");
    hold_file("docs/openapi.json", &format!("{openapi:#}\n"));
    hold_file("docs/policy.schema.json", &format!("{:#}\n", policy::json_schema()));
}

/// `--help` of every command, as it is without a terminal.
fn help() -> String {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let mut text = format!("\n```text\n{}```\n", cli.render_help());
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let help = command.render_long_help();
        text += &format!("\n### {}\n\n```text\n{help}```\n", command.get_name());
        let name = command.get_name().to_owned();
        for command in command.get_subcommands_mut() {
            let help = command.render_long_help();
            text += &format!("\n### {name} {}\n\n```text\n{help}```\n", command.get_name());
        }
    }
    text + "\n"
}

/// What the README says of the last run of the bench.
fn figures() -> String {
    let report: Value =
        serde_json::from_str(&read("docs/performance.json")).expect("the report of the bench");
    // A list, or an object with one.
    let rows = |part: &str| {
        let rows = report[part].as_array().or_else(|| report[part].as_object()?.values().next()?.as_array());
        rows.unwrap_or_else(|| panic!("the report has no {part}")).clone()
    };
    let machine = &report["machine"];
    let receivers = ["xdp_drop", "detector", "lru", "nftables", "hashlimit"];
    let pipeline = rows("pipeline");
    let ns = |receiver: &str, sources: u64| {
        let is_it = |row: &&Value| row["receiver"] == receiver && row["sources"] == sources;
        let row = pipeline.iter().find(is_it).unwrap_or_else(|| panic!("no {receiver} at {sources} sources"));
        format!("{:.0}", row["ns_median"].as_f64().expect("a number"))
    };
    let sizes = [(1, "1"), (1 << 10, "1 k"), (1 << 16, "65 k"), (1 << 20, "1 M")];
    let pipeline_rows = sizes.map(|(sources, name)| {
        [name.to_owned()].into_iter().chain(receivers.map(|receiver| ns(receiver, sources))).collect()
    });
    let header = ["sources", "drop all", "detector", "LRU hash in XDP", "nftables set", "iptables hashlimit"];
    let sum =
        |part: &str, field: &str| rows(part).iter().map(|row| row[field].as_u64().expect("a count")).sum();
    let millions = |count: u64| format!("{:.0} M", count as f64 / 1e6);
    let of_ipv4 = |row: &Value| row["family"] == "ipv4";
    let apply = rows("apply")
        .into_iter()
        .filter(of_ipv4)
        .max_by_key(|row| row["prefixes"].as_u64())
        .expect("a change");
    let snapshot = rows("snapshot").into_iter().find(|row| row["way"] == "mapping").expect("a look");
    format!(
        "\nNanoseconds a packet over a veth pair, generator included, one core, live frames from random sources, every source\n\
         above its limit ({}, Linux {}, {}):\n{}\
         - {} packets of random spoofed sources in three floods, each beside 10,000 limited and 10,000 well-behaved sources:\n  \
         {} packets passed beyond a limit, {} of {} well-behaved packets were dropped.\n\
         - {} source prefixes take effect in {:.2} s; of {} packets judged meanwhile {} were misjudged.\n\
         - A table of {:.1} M entries for {:.1} M sources is read in {:.0} ms.\n\n",
        machine["processor"].as_str().expect("a model"),
        machine["kernel"].as_str().expect("a release"),
        machine["date"].as_str().expect("a day"),
        table(&header, pipeline_rows),
        millions(sum("flood", "spoofed_packets")),
        sum("flood", "wrongly_passed"),
        sum("flood", "wrongly_dropped"),
        millions(sum("flood", "good_packets")),
        millions(apply["prefixes"].as_u64().expect("a count")),
        apply["seconds"].as_f64().expect("a time"),
        millions(sum("apply", "packets")),
        sum("apply", "misjudged"),
        snapshot["table_ways"].as_f64().expect("a count") / 1e6,
        snapshot["sources"].as_f64().expect("a count") / 1e6,
        snapshot["ms_median"].as_f64().expect("a time"),
    )
}

/// The cards of `detector-ebpf/src/maps.rs`: the doc comments above its statics.
fn cards() -> String {
    let mut rows = Vec::new();
    let mut comment = String::new();
    for line in read("detector-ebpf/src/maps.rs").lines() {
        if let Some(text) = line.strip_prefix("///") {
            comment += text;
        } else if let Some(definition) = line.strip_prefix("pub(crate) static ") {
            let name = definition.split(':').next().unwrap_or_default();
            rows.push(card(name, &comment));
            comment.clear();
        } else if !line.starts_with("#[") {
            comment.clear();
        }
    }
    let names: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(names, maps::NAMES, "every map has a card, and every card a map");
    table(&["map", "writer", "reader", "size", "when full", "error it introduces"], rows)
}

fn card(name: &str, comment: &str) -> Vec<String> {
    let mut row = vec![format!("`{name}`")];
    let mut rest = comment.trim();
    let words = ["Writer:", "Reader:", "Size:", "Full:", "Error:"];
    for (number, word) in words.iter().enumerate() {
        rest = rest.strip_prefix(word).unwrap_or_else(|| panic!("the card of {name} lacks {word}")).trim();
        let end = words.get(number + 1).and_then(|next| rest.find(next)).unwrap_or(rest.len());
        row.push(rest[..end].trim().trim_end_matches('.').to_owned());
        rest = &rest[end..];
    }
    row
}
