//! The JSON Schema against the parser: it takes what the parser takes, and knows every field.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;
use toml::Value as Toml;

use super::SAMPLE;
use crate::policy::json_schema::{root, tables};
use crate::policy::{json_schema, parse};

static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::validator_for(&json_schema()).expect("the schema is one"));

/// A policy as tools hand it to a validator: dates and times as texts.
fn json(value: &Toml) -> Value {
    match value {
        Toml::String(text) => Value::from(text.as_str()),
        Toml::Integer(integer) => Value::from(*integer),
        Toml::Float(float) => Value::from(*float),
        Toml::Boolean(boolean) => Value::from(*boolean),
        Toml::Datetime(time) => Value::from(time.to_string()),
        Toml::Array(array) => array.iter().map(json).collect(),
        Toml::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

fn errors(text: &str) -> Vec<String> {
    let value =
        json(&Toml::Table(text.strip_prefix('\u{feff}').unwrap_or(text).parse().expect("valid TOML")));
    VALIDATOR.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Fails if the schema refuses a policy.
#[track_caller]
pub(super) fn assert_takes(text: &str) {
    let errors = errors(text);
    assert!(errors.is_empty(), "{errors:#?} in:\n{text}");
}

/// The blocks of a page that are whole policies.
fn policies(page: &str) -> Vec<&str> {
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("version = 1\n")).collect()
}

#[test]
fn policies_of_the_documentation() {
    let manual = policies(include_str!("../../../../docs/policy.md"));
    let readme = policies(include_str!("../../../../README.md"));
    assert_eq!((manual.len(), readme.len()), (4, 1));
    for text in manual.into_iter().chain(readme) {
        let files: [(&str, &[u8]); 1] = [("etc/scrapers.txt", b"198.18.0.0/15\n")];
        super::parse_with(0, &files, text).unwrap_or_else(|errors| panic!("{:#?}", super::lines(&errors)));
        assert_takes(text);
    }
}

#[test]
fn broken_policies() {
    assert_takes(SAMPLE);
    for (from, to) in [
        ("addresses", "adresses"),
        ("version = 1", "version = 2"),
        ("version = 1", "version = \"1\""),
        ("name = \"api\"", "name = 5"),
        ("name = \"api\"", "name = \"none\""),
        ("name = \"api\"", "name = \"a b\""),
        ("[profile.strict]", "[profile.\"a b\"]"),
        ("[profile.strict]", "[profile.strict]\nhandshakes = \"9\""),
        ("packets.rate = \"0.5k/s\"", "packets.rate = \"0.5kB/s\""),
        ("packets.rate = \"0.5k/s\"", "packets.rate = 500"),
        ("packets.rate = \"0.5k/s\"", ""),
        ("packets.burst = 0x40", "packets.burst = 0"),
        ("packets.burst = 0x40", "packets.burst = \"1MB\""),
        ("\"198.18.0.0/15\"", "\"198.18.0.256\""),
        ("\"198.18.0.0/15\"", "\"198.18.0.0/33\""),
        ("\"198.18.0.0/15\"", "\"::/129\""),
        ("\"198.18.0.0/15\"", "\"example.org\""),
        ("source = [\"198.18.0.0/15\"]", "source = []"),
        ("source = [\"198.18.0.0/15\"]", ""),
        ("source = [\"198.18.0.0/15\"]", "source_file = \"\""),
        ("enforce = 10", "enforce = 0"),
        ("enforce = 10", "enforce = 100"),
        ("mode = { enforce = 10 }", "mode = \"dry-run\""),
        ("2026-12-01T06:00:00Z", "2026-12-01T06:00:00"),
        ("2026-12-01T06:00:00Z", "2026-12-01"),
        ("action = { limit = \"strict\" }", "action = \"limit\""),
        ("reason = \"scraper wave\"", "reason = \"\"\"a\nb\"\"\""),
        ("mode = \"off\"", "mode = \"on\""),
        ("hold_out = 10", "hold_out = 51"),
        ("members_max = 50_000", "members_max = 0"),
        ("share = \"2.5 %\"", "share = \" 2.5 %\""),
        ("factor = \"150%\"", "factor = \"150\""),
        ("for = \"90min\"", "for = \"90min \""),
        ("after = \"15min\", ", ""),
        ("ja4 = [", "source = [\"::1\"]\nja4 = ["),
        ("ja4 = [\"t13d1516h2_8daaf6152771_*\", ", "ja4 = [\"t13d1516h2_8daaf6152771\", "),
        ("ja4 = [\"t13d1516h2_8daaf6152771_*\", \"t13i*_*_*\"]", "ja4 = []"),
        ("syn = \"4:64:0:*:", "syn = \"4:64:0:"),
        ("shared = true", "shared = \"yes\""),
    ] {
        let text = SAMPLE.replacen(from, to, 1);
        assert_ne!(text, SAMPLE, "the sample has {from}");
        assert!(parse(&text).is_err(), "the parser takes {to}");
        assert!(!errors(&text).is_empty(), "the schema takes {to} for {from}");
    }
}

/// A file of sources instead of a list, without which a rule is none.
#[test]
fn a_rule_has_a_list_or_a_file() {
    let rule = "version = 1\n[[rule]]\nname = \"r\"\naction = \"drop\"\n";
    assert_takes(&format!("{rule}source_file = \"a.txt\""));
    assert_takes(&format!("{rule}source_file = \"a.txt\"\nsource = [\"::1\"]"));
    assert!(!errors(rule).is_empty());
}

/// … or fingerprints of either kind, or of both.
#[test]
fn a_rule_is_about_sources_or_about_fingerprints() {
    let rule = "version = 1\n[[rule]]\nname = \"r\"\naction = \"drop\"\n";
    let (ja4, syn) = ("ja4 = \"t13*_*_*\"\n", "syn = [\"4:*:*:*:*:*:*:*\"]\n");
    for fields in [ja4.to_owned(), syn.to_owned(), format!("{ja4}{syn}")] {
        assert_takes(&format!("{rule}{fields}"));
        for source in ["source = [\"::1\"]", "source_file = \"a.txt\""] {
            assert!(!errors(&format!("{rule}{fields}{source}")).is_empty());
        }
    }
}

#[test]
fn every_field_of_every_table_is_described() {
    let tables: Vec<_> = [root()].into_iter().chain(tables()).collect();
    for table in &tables {
        let properties = table.properties.as_object().expect("fields by name");
        let names: Vec<_> = properties.keys().collect();
        assert_eq!(names, table.schema.known, "fields of {}", table.schema.what);
        for (name, property) in properties {
            let is_described = property.get("description").is_some() || property.get("$ref").is_some();
            assert!(is_described, "{name} of {}", table.schema.what);
        }
    }
    // Every list of fields of a reader belongs to one of these tables; the one of budgets to two.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy");
    let files = fs::read_dir(sources).expect("the sources").map(|file| file.expect("a file").path());
    let texts = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let count: usize =
        texts.map(|path| fs::read_to_string(path).expect("a text").matches(": Schema =").count()).sum();
    assert_eq!(tables.len(), count + 1, "a list of fields is not in the schema");
}
