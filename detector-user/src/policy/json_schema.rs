//! The language as a JSON Schema, for editors and for what writes policies.
//!
//! It takes every policy that [`parse`](super::parse) takes. What only the whole policy shows (names that refer to
//! something, bursts that fill in time, numbers of combinations) it does not know.

use serde_json::{Value, json};

use super::fields::Schema;
use super::patterns::PATTERNS_MAX;
use super::rate::Quantity;
use super::{
    NAME_CHARS_MAX, NAME_RESERVED, PROFILES_MAX, REASON_CHARS_MAX, RULES_MAX, SERVICES_MAX, VERSION, budgets,
    fleets, mode, raw,
};

/// The document of `detector schema`.
pub fn json_schema() -> Value {
    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy of detector",
    });
    let definitions = tables().into_iter().map(|table| (table.name.to_owned(), table.value()));
    let definitions: serde_json::Map<String, Value> = definitions.collect();
    if let (Value::Object(root), Value::Object(document)) = (root().value(), &mut document) {
        document.extend(root);
        document.insert("$defs".to_owned(), Value::Object(definitions));
    }
    document
}

/// A table of the language: the fields that its reader knows, and what the schema says of each.
pub(super) struct Table {
    name: &'static str,
    pub(super) schema: &'static Schema,
    description: &'static str,
    pub(super) properties: Value,
    required: Value,
}

impl Table {
    fn value(&self) -> Value {
        // What the reader does not know is in no policy.
        let field = |&name: &&str| Some((name.to_owned(), self.properties.get(name)?.clone()));
        let properties: serde_json::Map<String, Value> = self.schema.known.iter().filter_map(field).collect();
        let mut value = json!({
            "type": "object",
            "description": self.description,
            "additionalProperties": false,
            "required": self.required,
            "properties": properties,
        });
        // The sources of a rule may stand in the policy, in a file, or in both; or it is about fingerprints, of either kind or both.
        if self.name == "rule" {
            let either =
                |one: &str, other: &str| json!({ "anyOf": [{ "required": [one] }, { "required": [other] }] });
            value["oneOf"] = json!([either("source", "source_file"), either("ja4", "syn")]);
        }
        value
    }
}

pub(super) fn root() -> Table {
    let tables = |name: &str, description: &str, items_max: usize| {
        json!({
            "description": description,
            "type": "array",
            "maxItems": items_max,
            "items": reference(name),
        })
    };
    Table {
        name: "policy",
        schema: &raw::ROOT,
        description: "What packets are let through, and how many.",
        properties: json!({
            "version": { "description": "The version of the language.", "const": VERSION },
            "defaults": reference("defaults"),
            "service": tables("service", "Destinations. A packet to none of them passes.", SERVICES_MAX),
            "profile": {
                "description": "Budgets, by the name of the profile.",
                "type": "object",
                "maxProperties": PROFILES_MAX,
                "propertyNames": name("The name of a profile."),
                "additionalProperties": reference("profile"),
            },
            "rule": tables("rule", "Exceptions by source, of which the one with the most specific prefix decides, or by fingerprint.", RULES_MAX),
            "fleets": reference("fleets"),
        }),
        required: json!(["version"]),
    }
}

/// What the root refers to.
pub(super) fn tables() -> Vec<Table> {
    let mut tables = vec![
        defaults(),
        service(),
        profile(),
        parents(),
        parent(),
        rule(),
        limit(),
        percent(),
        fleets(),
        tighten(),
    ];
    tables.extend([Quantity::Packets, Quantity::Bytes].map(budget_table));
    tables
}

fn defaults() -> Table {
    let mut allow = prefixes("Prefixes that always pass, before anything else.");
    allow["minItems"] = json!(0);
    Table {
        name: "defaults",
        schema: &raw::DEFAULTS,
        description: "What holds where nothing else is said.",
        properties: json!({
            "mode": mode("The mode of everything that does not name its own."),
            "allow": allow,
            "unknown": { "description": "What happens to packets of no service.", "const": "pass" },
        }),
        required: json!([]),
    }
}

fn service() -> Table {
    let entry =
        r"^(\*|tcp|udp|icmp|gre|esp|sctp|(tcp|udp)/(\*|0*[0-9]{1,5}(-0*[0-9]{1,5})?)|protocol/0*[0-9]{1,3})$";
    Table {
        name: "service",
        schema: &raw::SERVICE,
        description: "A destination.",
        properties: json!({
            "name": name("Unique among services; budgets belong to a source and the name of a service."),
            "addresses": prefixes("Destination addresses and prefixes; 0.0.0.0/0 and ::/0 for everything."),
            "ports": {
                "description": "Protocols and destination ports; every protocol without.",
                "type": "array",
                "minItems": 1,
                "items": { "type": "string", "pattern": entry },
                "examples": [["tcp/443", "udp/8000-8010", "icmp", "protocol/47", "*"]],
            },
            "profile": name("The profile of sources that no rule names. Without one they are counted, not limited."),
            "fleets": fleet_mode("What is done about fleets at it, instead of what is at others."),
        }),
        required: json!(["name", "addresses"]),
    }
}

fn profile() -> Table {
    Table {
        name: "profile",
        schema: &budgets::PROFILE,
        description: "Budgets of one source: an IPv4 address or an IPv6 /64. What is not named is not limited.",
        properties: json!({
            "packets": budget(Quantity::Packets, "Packets."),
            "bytes": budget(Quantity::Bytes, "Bytes of whole frames, Ethernet header included."),
            "connections": budget(Quantity::Connections, "TCP segments with SYN and without ACK."),
            "handshakes": budget(Quantity::Handshakes, "Handshakes: of TLS over TCP the segment that completes a ClientHello, of QUIC the first Initial."),
            "parents": reference("parents"),
        }),
        required: json!([]),
    }
}

fn parents() -> Table {
    let parent = |bits: &str| json!({ "description": format!("The {bits}."), "$ref": "#/$defs/parent" });
    Table {
        name: "parents",
        schema: &budgets::PARENTS,
        description: "Budgets of the prefixes around a source, shared by the sources in them that have this profile.",
        properties: json!({
            "v4_24": parent("IPv4 /24"),
            "v6_56": parent("IPv6 /56"),
            "v6_48": parent("IPv6 /48"),
        }),
        required: json!([]),
    }
}

fn parent() -> Table {
    Table {
        name: "parent",
        schema: &budgets::PARENT,
        description: "What the sources of one prefix may spend together.",
        properties: json!({
            "packets": budget(Quantity::Packets, "Packets."),
            "bytes": budget(Quantity::Bytes, "Bytes of whole frames, Ethernet header included."),
            "connections": budget(Quantity::Connections, "TCP segments with SYN and without ACK."),
            "new_sources": budget(Quantity::NewSources, "Sources that were not known and get an entry."),
        }),
        required: json!([]),
    }
}

fn rule() -> Table {
    let until = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
    Table {
        name: "rule",
        schema: &raw::RULE,
        description: "What happens to packets from some prefixes, or to handshakes of clients with some fingerprints.",
        properties: json!({
            "name": name("Unique among rules."),
            "service": name("The service it is about; every service without."),
            "source": prefixes("Source addresses and prefixes; for a limit at most /64 in IPv6."),
            "source_file": {
                "description": "A file with a prefix or an address on each line and comments after #. A relative path starts from the folder of the policy.",
                "type": "string",
                "minLength": 1,
                "examples": ["partner.txt"],
            },
            "ja4": patterns(
                "JA4s of the clients that it is about, instead of sources: parts with `*`. With `syn`, clients that match both.",
                r"^[^_,]+_[^_,]+_[^_,]+$",
                "t13d1516h2_8daaf6152771_*",
            ),
            "syn": patterns(
                "SYNs of the clients that it is about, instead of sources, as p0f writes them: fields with `*`.",
                r"^(\*|[46])(:[^:]*){7}$",
                "4:64:0:1460:*:mss,sok,ts,nop,ws:*:0",
            ),
            "action": {
                "description": "Let everything through, let nothing through, or let through what a profile affords.",
                "anyOf": [{ "enum": ["allow", "drop"] }, reference("limit")],
            },
            "mode": mode("Its own mode, instead of the policy's."),
            "until": {
                "description": "When it ends: a TOML date and time with an offset, without quotes.",
                "type": "string",
                "pattern": until,
                "examples": ["2026-12-01T06:00:00Z"],
            },
            "reason": {
                "description": "Why it is there, for people.",
                "type": "string",
                "maxLength": REASON_CHARS_MAX,
                "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
            },
        }),
        required: json!(["name", "action"]),
    }
}

fn limit() -> Table {
    Table {
        name: "limit",
        schema: &raw::LIMIT,
        description: "Let through what a profile affords.",
        properties: json!({
            "limit": name("The name of the profile."),
            "shared": {
                "description": "Of a rule about fingerprints: one budget for all clients that match, instead of one for each source.",
                "type": "boolean",
                "default": false,
            },
        }),
        required: json!(["limit"]),
    }
}

fn percent() -> Table {
    let percent =
        json!({ "description": "Percent of the sources.", "type": "integer", "minimum": 1, "maximum": 99 });
    Table {
        name: "percent",
        schema: &mode::MODE,
        description: "Enforce for a part of the sources, shadow for the others.",
        properties: json!({ "enforce": percent }),
        required: json!(["enforce"]),
    }
}

fn fleet_mode(description: &str) -> Value {
    json!({ "description": description, "enum": fleets::MODES.map(|(name, _)| name) })
}

fn fleets() -> Table {
    let members = |description: &str| whole(description, 1, fleets::MEMBERS_MAX);
    Table {
        name: "fleets",
        schema: &fleets::FLEETS,
        description: "Looking for fleets, and how far actions on them may go.",
        properties: json!({
            "mode": fleet_mode("How far that goes, at services that say nothing else."),
            "hold_out": whole("Percent of a fleet's members that are left alone, to measure the effect on the others.", fleets::HOLD_OUT_MIN, fleets::HOLD_OUT_MAX),
            "members_max": members("Members of a fleet that is acted on, at most."),
            "new_members_max": members("Members that may come to it in an hour."),
            "collateral_max": part("The share of legitimate exchanges that an action may cost; at most 1 %.", "0.01 %"),
            "factor": part("What a fleet may use, of what its population normally used; 1 to 1,000 %.", "200 %"),
            "share": part("What it may use at most, of what it uses; at most 50 %.", "1 %"),
            "for": time("How long an action lasts after its last evidence; 1 minute to 7 days.", "1h"),
            "tighten": reference("tighten"),
        }),
        required: json!(["mode"]),
    }
}

fn tighten() -> Table {
    Table {
        name: "tighten",
        schema: &fleets::TIGHTEN,
        description: "Smaller budgets for an action without effect.",
        properties: json!({
            "after": time("After so long without effect; 1 minute to 7 days.", "15min"),
            "factor": part("The factor from then on, below that of before.", "50 %"),
        }),
        required: json!(["after", "factor"]),
    }
}

fn whole(description: &str, least: u64, most: u64) -> Value {
    json!({ "description": description, "type": "integer", "minimum": least, "maximum": most })
}

fn part(description: &str, example: &str) -> Value {
    let pattern = r"^[0-9]+(\.[0-9]{1,4})?\s*%$";
    json!({ "description": description, "type": "string", "pattern": pattern, "examples": [example] })
}

fn time(description: &str, example: &str) -> Value {
    let pattern = r"^[0-9]+\s*(s|min|h|d)$";
    json!({ "description": description, "type": "string", "pattern": pattern, "examples": [example] })
}

fn budget_table(quantity: Quantity) -> Table {
    let (burst, units) = match quantity {
        Quantity::Bytes => ("Bytes that may be spent at once after a pause.", "a size such as 16MB"),
        _ => ("How many may be spent at once after a pause.", "an integer"),
    };
    let integer = json!({ "type": "integer", "minimum": quantity.burst_min() });
    let size = json!({ "type": "string", "pattern": format!("^{}$", amount(quantity)) });
    let forms = if quantity == Quantity::Bytes { vec![integer, size] } else { vec![integer] };
    Table {
        name: budget_name(quantity),
        schema: &budgets::BUDGET,
        description: "A rate, and how much may be spent at once.",
        properties: json!({
            "rate": rate(quantity),
            "burst": { "description": format!("{burst} One second of the rate without; {units}."), "anyOf": forms },
        }),
        required: json!(["rate"]),
    }
}

fn budget_name(quantity: Quantity) -> &'static str {
    if quantity == Quantity::Bytes { "byte_budget" } else { "budget" }
}

/// A rate alone, or a table.
fn budget(quantity: Quantity, description: &str) -> Value {
    json!({ "description": description, "anyOf": [rate(quantity), reference(budget_name(quantity))] })
}

fn rate(quantity: Quantity) -> Value {
    let example = if quantity == Quantity::Bytes { "8MB/s" } else { "2000/s" };
    json!({
        "description": "So much in every period: s, min, h or d.",
        "type": "string",
        "pattern": format!(r"^{}/\s*(s|min|h|d)\s*$", amount(quantity)),
        "examples": [example],
    })
}

/// The pattern of a decimal and its unit.
fn amount(quantity: Quantity) -> String {
    let units: Vec<_> = quantity.unit_names().collect();
    format!(r"\s*[0-9]+(\.[0-9]+)?\s*({})\s*", units.join("|"))
}

fn mode(description: &str) -> Value {
    json!({ "description": description, "anyOf": [{ "enum": ["enforce", "shadow"] }, reference("percent")] })
}

fn name(description: &str) -> Value {
    let pattern = format!("^[A-Za-z0-9_.:-]{{1,{NAME_CHARS_MAX}}}$");
    json!({ "description": description, "type": "string", "pattern": pattern, "not": { "const": NAME_RESERVED } })
}

fn prefixes(description: &str) -> Value {
    let byte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    let v4 = format!(r"{byte}(\.{byte}){{3}}(/0*(3[0-2]|[12]?[0-9]))?");
    let v6 = "[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(/0*(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?";
    json!({
        "description": description,
        "type": "array",
        "minItems": 1,
        "items": { "type": "string", "pattern": format!("^({v4}|{v6})$") },
        "examples": [["192.0.2.1", "192.0.2.0/24", "2001:db8::/32"]],
    })
}

/// A pattern of fingerprints, or several.
fn patterns(description: &str, pattern: &str, example: &str) -> Value {
    let one = json!({ "type": "string", "pattern": pattern, "examples": [example] });
    let several = json!({ "type": "array", "minItems": 1, "maxItems": PATTERNS_MAX, "items": one });
    json!({ "description": description, "anyOf": [one, several] })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}
