//! The document's sections, each value read by itself and with its place.
//!
//! What could not be read is absent here: it has been reported, and no policy is made of it.

use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::context::Context;
use super::fields::{Field, Fields, Schema, missing};
use super::fleets::{self, FLEETS, FleetMode, FleetSettings};
use super::model::{Action, Mode, Ports, Profile};
use super::patterns::{Ja4Pattern, PATTERNS_MAX, Patterns, SynPattern, ja4, syn};
use super::spelling::{did_you_mean, synonym};
use super::text::{At, Issue, Report};
use super::{
    NAME_CHARS_MAX, NAME_RESERVED, REASON_CHARS_MAX, VERSION, budgets, mode, ports, prefix, source_file,
    until,
};

pub(super) const ROOT: Schema = Schema {
    what: "the policy",
    known: &["version", "defaults", "service", "profile", "rule", "fleets"],
    later: &[],
};
pub(super) const DEFAULTS: Schema =
    Schema { what: "`defaults`", known: &["mode", "allow", "unknown"], later: &[] };
pub(super) const SERVICE: Schema =
    Schema { what: "a service", known: &["name", "addresses", "ports", "profile", "fleets"], later: &[] };
pub(super) const RULE: Schema = Schema {
    what: "a rule",
    known: &["name", "service", "source", "source_file", "ja4", "syn", "action", "mode", "until", "reason"],
    later: &[],
};
pub(super) const LIMIT: Schema = Schema { what: "an action", known: &["limit", "shared"], later: &[] };

const ACTION_EXPECTED: &str = "\"allow\", \"drop\" or { limit = \"PROFILE\" }";
/// What other tools call it.
const ACTION_SYNONYMS: [(&str, &str); 8] = [
    ("deny", "drop"),
    ("block", "drop"),
    ("reject", "drop"),
    ("ban", "drop"),
    ("pass", "allow"),
    ("accept", "allow"),
    ("permit", "allow"),
    ("throttle", "{ limit = \"PROFILE\" }"),
];

/// A policy as written.
#[derive(Default)]
pub(super) struct RawPolicy {
    /// When it is read, seconds since the Unix epoch.
    pub(super) now_unix_s: u64,
    pub(super) mode: Mode,
    pub(super) allow: Vec<At<IpNet>>,
    pub(super) services: Vec<RawService>,
    pub(super) profiles: Vec<RawProfile>,
    pub(super) rules: Vec<RawRule>,
    pub(super) fleets: FleetSettings,
}

pub(super) struct RawService {
    pub(super) name: Option<At<String>>,
    pub(super) addresses: Vec<At<IpNet>>,
    pub(super) ports: Vec<At<Ports>>,
    pub(super) profile: Option<At<String>>,
    pub(super) fleets: Option<At<FleetMode>>,
}

pub(super) struct RawProfile {
    pub(super) name: At<String>,
    pub(super) profile: Profile,
    /// What it names, also what could not be read.
    pub(super) fields: Vec<String>,
}

pub(super) struct RawRule {
    pub(super) name: Option<At<String>>,
    pub(super) service: Option<At<String>>,
    pub(super) sources: Vec<At<IpNet>>,
    pub(super) ja4: Vec<At<Ja4Pattern>>,
    pub(super) syn: Vec<At<SynPattern>>,
    /// The place is that of the profile where there is one.
    pub(super) action: Option<At<Action>>,
    pub(super) mode: Option<Mode>,
    pub(super) until: Option<At<u64>>,
    pub(super) reason: Option<String>,
}

impl RawRule {
    /// Whether it is about fingerprints, not about sources.
    pub(super) fn is_about_fingerprints(&self) -> bool {
        !self.ja4.is_empty() || !self.syn.is_empty()
    }

    /// The fingerprints that it is about; none where it is about sources.
    pub(super) fn patterns(&self) -> Patterns {
        let ja4 = self.ja4.iter().map(|pattern| pattern.value.clone());
        let syn = self.syn.iter().map(|pattern| pattern.value.clone());
        Patterns { ja4: ja4.collect(), syn: syn.collect() }
    }

    /// Whether it decides about nothing any more.
    pub(super) fn has_ended(&self, now_unix_s: u64) -> bool {
        self.until.as_ref().is_some_and(|until| until.value <= now_unix_s)
    }
}

/// Reads the whole document; nothing if it is of another version, for then nothing else is known about it.
pub(super) fn policy(
    document: &DeTable<'_>,
    context: &Context<'_>,
    report: &mut Report<'_>,
) -> Option<RawPolicy> {
    version(document, report)?;
    let root = Fields::new(document, 0..0, &ROOT, report);
    let mut policy = RawPolicy { now_unix_s: context.now_unix_s, ..RawPolicy::default() };
    if let Some(fields) = root.field("defaults").and_then(|field| field.table(&DEFAULTS, report)) {
        defaults(&fields, &mut policy, report);
    }
    if let Some(field) = root.field("service") {
        let tables = field.tables(&SERVICE, report);
        policy.services = tables.iter().map(|fields| service(fields, report)).collect();
    }
    if let Some(field) = root.field("profile") {
        policy.profiles = profiles(field, report);
    }
    if let Some(field) = root.field("rule") {
        let tables = field.tables(&RULE, report);
        policy.rules = tables.iter().map(|fields| rule(fields, context, report)).collect();
    }
    if let Some(fields) = root.field("fleets").and_then(|field| field.table(&FLEETS, report)) {
        policy.fleets = fleets::parse(&fields, report);
    }
    Some(policy)
}

/// A missing version is reported and taken for this one.
fn version(document: &DeTable<'_>, report: &mut Report<'_>) -> Option<()> {
    let expected = format!("version = {VERSION}");
    let Some(value) = document.get("version") else {
        report.error(0..0, missing(ROOT.what, "version", &expected));
        return Some(());
    };
    let field = Field { name: "version", value };
    let version = field.unsigned(&expected, report)?;
    if version.value == VERSION {
        return Some(());
    }
    report.error(version.span, Issue::new("unsupported version of the policy language", expected));
    None
}

fn defaults(fields: &Fields<'_, '_>, policy: &mut RawPolicy, report: &mut Report<'_>) {
    if let Some(field) = fields.field("mode") {
        policy.mode = mode::parse(field, report).unwrap_or_default();
    }
    if let Some(field) = fields.field("allow") {
        policy.allow = field.parsed_any(prefix::EXPECTED, prefix::parse, report);
    }
    if let Some(field) = fields.field("unknown") {
        let pass = |text: &str| match text {
            "pass" => Ok(()),
            _ => Err(Issue::new("unknown way to treat packets of no service", "\"pass\"")),
        };
        field.parsed("\"pass\"", pass, report);
    }
}

fn service(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> RawService {
    let name = required_name(fields, report);
    let addresses = fields.required("addresses", prefix::EXPECTED, report);
    let addresses = addresses.map(|field| field.parsed_each(prefix::EXPECTED, prefix::parse, report));
    let ports = match fields.field("ports") {
        None => vec![At { value: Ports::Any, span: fields.span.clone() }],
        Some(field) => {
            let sets = field.parsed_each(ports::EXPECTED, ports::parse, report);
            let each = |set: At<Vec<Ports>>| {
                set.value.into_iter().map(move |value| At { value, span: set.span.clone() })
            };
            sets.into_iter().flat_map(each).collect()
        }
    };
    let profile = fields.field("profile").and_then(|field| reference(field, "the name of a profile", report));
    let fleets = fields.field("fleets").and_then(|field| fleets::mode(field, report));
    RawService { name, addresses: addresses.unwrap_or_default(), ports, profile, fleets }
}

fn profiles(field: Field<'_, '_>, report: &mut Report<'_>) -> Vec<RawProfile> {
    let Some(table) = field.value.get_ref().as_table() else {
        field.wrong_type("a table of profiles, each written as [profile.NAME]", report);
        return Vec::new();
    };
    let mut profiles = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if let Err(issue) = checked_name(&name) {
            report.error(key.span(), issue);
        }
        let field = Field { name: key.get_ref(), value };
        let fields = value.get_ref().as_table().into_iter().flat_map(|table| table.keys());
        let fields = fields.map(|key| key.get_ref().to_string()).collect();
        // A profile that cannot be read is still one that exists: nothing that names it is wrong.
        let profile = budgets::profile(field, report).unwrap_or_default();
        profiles.push(RawProfile { name: At { value: name, span: key.span() }, profile, fields });
    }
    profiles.sort_by_key(|profile| profile.name.span.start);
    profiles
}

fn rule(fields: &Fields<'_, '_>, context: &Context<'_>, report: &mut Report<'_>) -> RawRule {
    let name = required_name(fields, report);
    let service = fields.field("service").and_then(|field| reference(field, "the name of a service", report));
    let about_fingerprints = whom(fields, report);
    let source_file = fields.field("source_file");
    let source = fields.field("source");
    let sources = source.map(|field| field.parsed_each(prefix::EXPECTED, prefix::parse, report));
    let mut sources = sources.unwrap_or_default();
    if let Some(field) = source_file {
        source_file::read(field, context, report, &mut sources);
    }
    let ja4 = fields.field("ja4").map(|field| field.parsed_one_or_each(ja4::EXPECTED, ja4::parse, report));
    let syn = fields.field("syn").map(|field| field.parsed_one_or_each(syn::EXPECTED, syn::parse, report));
    let (ja4, syn) = (ja4.unwrap_or_default(), syn.unwrap_or_default());
    few_enough(&ja4, report);
    few_enough(&syn, report);
    let action = fields.required("action", ACTION_EXPECTED, report);
    RawRule {
        name,
        service,
        sources,
        ja4,
        syn,
        action: action.and_then(|field| self::action(field, about_fingerprints, report)),
        mode: fields.field("mode").and_then(|field| mode::parse(field, report)),
        until: fields.field("until").and_then(|field| until::parse(field, report)),
        reason: fields.field("reason").and_then(|field| reason(field, report)),
    }
}

/// Whether a rule is about fingerprints, by the fields that it has. Reports that it is about nobody, or about both.
fn whom(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> bool {
    const SOURCES: [&str; 2] = ["source", "source_file"];
    const FINGERPRINTS: [&str; 2] = ["ja4", "syn"];
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| fields.field(name));
    match (first(SOURCES), first(FINGERPRINTS)) {
        (None, None) if !fields.is_misspelt(&SOURCES) && !fields.is_misspelt(&FINGERPRINTS) => {
            let issue = missing(RULE.what, "source", prefix::EXPECTED);
            let help =
                "a rule names sources by `source` or `source_file`, or clients by `ja4` or `syn`".to_owned();
            report.error(fields.span.clone(), issue.help(help));
        }
        (Some(source), Some(fingerprint)) => {
            let issue = Issue::new("a rule about both sources and fingerprints", "one of them");
            let found = format!("`{}` beside `{}`", fingerprint.name, source.name);
            let help = "write two rules: one about sources acts on their packets, one about fingerprints on handshakes";
            report.error(fingerprint.span(), issue.found(found).help(help.to_owned()));
        }
        _ => {}
    }
    first(FINGERPRINTS).is_some()
}

fn few_enough<T>(patterns: &[At<T>], report: &mut Report<'_>) {
    if let Some(beyond) = patterns.get(PATTERNS_MAX) {
        let issue = Issue::new("too many patterns in one rule", format!("at most {PATTERNS_MAX}"));
        report.error(beyond.span.clone(), issue.found(format!("{}", patterns.len())));
    }
}

fn action(field: Field<'_, '_>, about_fingerprints: bool, report: &mut Report<'_>) -> Option<At<Action>> {
    let parse = |text: &str| match text {
        "allow" => Ok(Action::Allow),
        "drop" => Ok(Action::Drop),
        "limit" => Err(Issue::new("a limit without a profile", "{ limit = \"PROFILE\" }")),
        _ => {
            let help = synonym(text, &ACTION_SYNONYMS).or_else(|| did_you_mean(text, ["allow", "drop"]));
            Err(Issue::new("unknown action", ACTION_EXPECTED).help(help))
        }
    };
    match field.value.get_ref() {
        DeValue::Table(_) => {
            let fields = field.table(&LIMIT, report)?;
            let shared = fields.field("shared").and_then(|field| field.boolean(report));
            let shared = shared.filter(|shared| shared.value);
            if let Some(shared) = shared.as_ref().filter(|_| !about_fingerprints) {
                let issue = Issue::new("a shared budget of sources", "no `shared` in a rule about sources");
                let help = "the `parents` of a profile are budgets that sources share; `shared` is for rules with `ja4` or `syn`";
                report.error(shared.span.clone(), issue.help(help.to_owned()));
            }
            let limit = fields.required("limit", "{ limit = \"PROFILE\" }", report)?;
            let profile = reference(limit, "the name of a profile", report)?;
            let action = if shared.is_some() { Action::LimitShared } else { Action::Limit };
            Some(At { value: action(profile.value), span: profile.span })
        }
        _ => field.parsed(ACTION_EXPECTED, parse, report),
    }
}

fn reason(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let expected = format!("a line of at most {REASON_CHARS_MAX} characters");
    let parse = |text: &str| {
        let fits = text.chars().count() <= REASON_CHARS_MAX && !text.contains(char::is_control);
        if fits {
            Ok(text.to_owned())
        } else {
            Err(Issue::new("reason that is not a short line", &*expected))
        }
    };
    field.parsed(&expected, parse, report).map(|reason| reason.value)
}

fn required_name(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<At<String>> {
    let expected = format!("a name of {NAME_EXPECTED}");
    let field = fields.required("name", &expected, report)?;
    let text = field.text(&expected, report)?;
    if let Err(issue) = checked_name(text.value) {
        report.error(text.span.clone(), issue);
    }
    Some(At { value: text.value.to_owned(), span: text.span })
}

const NAME_EXPECTED: &str = "1 to 63 letters, digits, `_`, `.`, `:` or `-`";
const _: () = assert!(NAME_CHARS_MAX == 63);

fn checked_name(name: &str) -> Result<(), Issue> {
    if name == NAME_RESERVED {
        return Err(Issue::new(
            format!("`{NAME_RESERVED}` is the name of what has none"),
            format!("another name of {NAME_EXPECTED}"),
        ));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(allowed) {
        return Err(Issue::new("invalid name", NAME_EXPECTED));
    }
    Ok(())
}

/// A name of something else in the policy.
fn reference(field: Field<'_, '_>, expected: &str, report: &mut Report<'_>) -> Option<At<String>> {
    let name = field.text(expected, report)?;
    Some(At { value: name.value.to_owned(), span: name.span })
}
