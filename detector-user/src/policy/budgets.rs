//! Budgets and profiles.

use toml::de::DeValue;

use super::fields::{Field, Fields, Schema};
use super::model::{Budget, Budgets, ParentBudgets, Parents, Profile, Rate};
use super::rate::{self, Quantity};
use super::spelling::meant;
use super::text::{At, Issue, Report, Span};
use super::{BURST_BYTES_MIN, REFILL_NS_MAX};

/// Packets a TCP client sends at once from its handshake to the end of a connection: SYN, ACK, data, FIN.
const TCP_PACKETS_MIN: u64 = 4;
/// The longest headers of Ethernet with a VLAN tag, IPv4 and TCP.
const TCP_HEADERS_MAX: u64 = 14 + 4 + 60 + 60;
const _: () =
    assert!(TCP_PACKETS_MIN * TCP_HEADERS_MAX <= BURST_BYTES_MIN, "bytes always suffice for a handshake");
/// A tick of the kernel's coarse clock at 250 Hz, a common build of it.
const TICK_NS: u64 = 4_000_000;
const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_DAY: u64 = 86_400 * NS_PER_S;
/// A burst that takes longer to fill is warned of.
const LONG_BURST_NS: u64 = 3_600 * NS_PER_S;

pub(super) const PROFILE: Schema = Schema {
    what: "a profile",
    known: &["packets", "bytes", "connections", "handshakes", "parents"],
    later: &[],
};
pub(super) const PARENTS: Schema =
    Schema { what: "a profile's parents", known: &["v4_24", "v6_56", "v6_48"], later: &[] };
pub(super) const PARENT: Schema = Schema {
    what: "a parent's budgets",
    known: &["packets", "bytes", "connections", "new_sources"],
    later: &["handshakes"],
};
pub(super) const BUDGET: Schema = Schema { what: "a budget", known: &["rate", "burst"], later: &[] };

/// Reads a `[profile.NAME]`.
pub(super) fn profile(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<Profile> {
    let fields = field.table(&PROFILE, report)?;
    let handshakes = optional(&fields, Quantity::Handshakes, report);
    let budgets = Budgets { handshakes, ..budgets(&fields, report) };
    let parents = fields.field("parents").and_then(|parents| parents.table(&PARENTS, report));
    let parents = parents.map(|fields| Parents {
        v4_24: fields.field("v4_24").and_then(|field| parent(field, report)),
        v6_56: fields.field("v6_56").and_then(|field| parent(field, report)),
        v6_48: fields.field("v6_48").and_then(|field| parent(field, report)),
    });
    Some(Profile { budgets, parents: parents.unwrap_or_default() })
}

fn parent(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<ParentBudgets> {
    let fields = field.table(&PARENT, report)?;
    let budgets = budgets(&fields, report);
    let new_sources = optional(&fields, Quantity::NewSources, report);
    Some(ParentBudgets { budgets, new_sources })
}

fn budgets(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Budgets {
    Budgets {
        packets: optional(fields, Quantity::Packets, report),
        bytes: optional(fields, Quantity::Bytes, report),
        connections: optional(fields, Quantity::Connections, report),
        handshakes: None,
    }
}

fn optional(fields: &Fields<'_, '_>, quantity: Quantity, report: &mut Report<'_>) -> Option<Budget> {
    let field = fields.field(quantity.field())?;
    budget(field, quantity, report)
}

/// Reads `"100/s"` or `{ rate = "100/s", burst = 200 }`.
fn budget(field: Field<'_, '_>, quantity: Quantity, report: &mut Report<'_>) -> Option<Budget> {
    let parse_rate = |text: &str| rate::parse(text, quantity);
    let (rate, burst_field) = match field.value.get_ref() {
        DeValue::String(_) => (field.parsed(quantity.rate_expected(), parse_rate, report), None),
        DeValue::Table(_) => {
            let fields = field.table(&BUDGET, report)?;
            let rate = fields.required("rate", quantity.rate_expected(), report);
            let rate = rate.and_then(|rate| rate.parsed(quantity.rate_expected(), parse_rate, report));
            (rate, fields.field("burst"))
        }
        value => {
            let expected = format!("{}, or a table with `rate` and `burst`", quantity.rate_expected());
            let integer = value.as_integer().map(|integer| format!("{integer}/s"));
            let help = meant(integer, |text| parse_rate(text));
            report.error(field.span(), field.wrong_type_issue(&expected).help(help));
            return None;
        }
    };

    // The burst is read even without a usable rate, for what may be wrong with it.
    let written = match burst_field {
        Some(field) => Some(burst(field, quantity, report)?),
        None => None,
    };
    let rate = rate?;
    if let Some(burst) = &written {
        warn_below_two_ticks(rate.value, burst, report);
        warn_of_long_burst(rate.value, burst, report);
    }
    let burst = written.unwrap_or_else(|| At {
        value: rate.value.over_ns_ceil(NS_PER_S).max(quantity.burst_default_min()),
        span: rate.span.clone(),
    });
    if quantity == Quantity::Packets {
        warn_below_handshake(&burst, report);
    }
    refilled_in_time(Budget { rate: rate.value, burst: burst.value }, burst.span, report)
}

/// Reads a burst: an integer, or for bytes a size as well.
fn burst(field: Field<'_, '_>, quantity: Quantity, report: &mut Report<'_>) -> Option<At<u64>> {
    let burst_min = quantity.burst_min();
    let burst = match (field.value.get_ref(), quantity) {
        (DeValue::String(_), Quantity::Bytes) => field.parsed("a size", rate::parse_bytes, report)?,
        (_, Quantity::Bytes) => {
            let expected = format!("at least {burst_min} bytes, as an integer or a size such as \"16MB\"");
            field.unsigned(&expected, report)?
        }
        (DeValue::String(text), _) if text.parse::<u64>().is_ok() => {
            let issue = field.wrong_type_issue(&format!("an integer of at least {burst_min}"));
            report.error(field.span(), issue.help(format!("write {text} without quotes")));
            return None;
        }
        _ => field.unsigned(&format!("an integer of at least {burst_min}"), report)?,
    };
    if burst.value < burst_min {
        let unit = if quantity == Quantity::Bytes { ", a full frame" } else { "" };
        report.error(burst.span, Issue::new("burst too small", format!("at least {burst_min}{unit}")));
        return None;
    }
    Some(burst)
}

fn refilled_in_time(budget: Budget, span: Span, report: &mut Report<'_>) -> Option<Budget> {
    let spent = u128::from(budget.burst) * u128::from(budget.rate.per_ns);
    if spent <= u128::from(REFILL_NS_MAX) * u128::from(budget.rate.count) {
        return Some(budget);
    }
    let burst_max =
        u128::from(REFILL_NS_MAX) * u128::from(budget.rate.count) / u128::from(budget.rate.per_ns);
    let days = spent / u128::from(budget.rate.count) / u128::from(NS_PER_DAY);
    let issue = Issue::new(
        format!("a burst of {} takes at least {days} days to fill at this rate", budget.burst),
        format!("at most {} days", REFILL_NS_MAX / NS_PER_DAY),
    );
    let help = (burst_max > 0).then(|| format!("at this rate a burst may be at most {burst_max}"));
    report.error(span, issue.help(help));
    None
}

fn warn_below_two_ticks(rate: Rate, burst: &At<u64>, report: &mut Report<'_>) {
    let raised = rate.over_ns_ceil(2 * TICK_NS);
    if burst.value >= raised {
        return;
    }
    let issue = Issue::remark(format!(
        "burst smaller than two clock ticks: on a kernel whose coarse clock ticks every 4 ms it is raised to {raised}"
    ));
    report.warning(burst.span.clone(), issue.help(format!("write {raised} or more")));
}

/// A burst is what a source may send at once: as long as it lasts there is no limit.
fn warn_of_long_burst(rate: Rate, burst: &At<u64>, report: &mut Report<'_>) {
    let fill_ns = u128::from(burst.value) * u128::from(rate.per_ns) / u128::from(rate.count);
    // "10/d" with a burst of 10 is as slow as its rate says; beyond the bound it is an error.
    let is_long = fill_ns > u128::from(LONG_BURST_NS.max(rate.per_ns));
    if !is_long || fill_ns > u128::from(REFILL_NS_MAX) {
        return;
    }
    let hours = fill_ns / u128::from(LONG_BURST_NS);
    let issue = Issue::remark(format!(
        "large burst: a source may send at once what its rate gives in more than {hours} h"
    ));
    report.warning(burst.span.clone(), issue.help("without `burst` it is one second of the rate".to_owned()));
}

fn warn_below_handshake(burst: &At<u64>, report: &mut Report<'_>) {
    if burst.value >= TCP_PACKETS_MIN {
        return;
    }
    let issue = Issue::new(
        "packets below what one TCP handshake needs",
        format!("a burst of at least {TCP_PACKETS_MIN}"),
    );
    report.warning(burst.span.clone(), issue.found(format!("a burst of {}", burst.value)));
}
