//! The policy language: what an operator writes, read into what the rest of the daemon may rely on.
//!
//! [`parse`] takes the text of a policy file and gives a [`Checked`] policy, or every error it can find in one
//! pass; [`parse_in`] also reads its source files. It reads no clock, no files but through its [`Context`], and asks no kernel, so `detector check` runs anywhere. The way through is:
//!
//! 1. `text` turns TOML into a table with the place of every value, and collects diagnostics;
//! 2. `raw` (with `budgets`, `rate`, `ports`, `prefix`, `patterns`, `mode`, `until` and `source_file` for the values) walks that table by hand, so that one
//!    broken value does not hide the next;
//! 3. `validate` resolves names and counts, and makes a [`Policy`];
//! 4. `warnings` (with `effect` for the policy as a whole, `firing` for its rules, `sources` for where these lie
//!    to each other, and `fingerprinted` for rules about fingerprints) looks for what is allowed but unlikely to be meant. It needs a policy without errors; warnings
//!    about a single budget are given in any case.
//!
//! [`json_schema()`] says the language for other programs.
//!
//! A [`Policy`] holds these promises: names are unique within their kind and match `[A-Za-z0-9_.:-]{1,63}`, every
//! name referred to exists, every prefix has no bit set after its length and is not an IPv4-mapped IPv6 one, lists
//! of addresses, sources and patterns are not empty, and every number is within the bounds documented at its field.

mod budgets;
pub mod compile;
mod context;
mod diagnostic;
pub mod difference;
mod effect;
mod fields;
mod fingerprinted;
mod firing;
mod fleets;
pub mod incident;
mod json_schema;
mod mode;
mod model;
pub mod patterns;
mod ports;
mod prefix;
mod rate;
mod raw;
mod source_file;
mod sources;
mod spelling;
pub mod target;
mod text;
mod texts;
mod until;
mod validate;
mod warnings;

#[cfg(test)]
mod tests;

pub use context::Context;
pub use diagnostic::{Diagnostic, FileDiagnostic, Located, Severity, SourceLine, in_file, render};
pub use fleets::{FleetMode, FleetSettings, Part, Tighten, time_text};
pub use json_schema::json_schema;
pub use model::{
    Action, Budget, Budgets, Matches, Mode, ParentBudgets, Parents, Policy, Ports, Profile, Rate, Rule,
    Service,
};

pub use until::text as utc_text;

/// The version of the language this module reads, the value of the file's `version`.
pub const VERSION: u64 = 1;
/// Services a policy may have at most.
pub const SERVICES_MAX: usize = 255;
/// Profiles a policy may have at most.
pub const PROFILES_MAX: usize = 1024;
/// Rules a policy may have at most.
pub const RULES_MAX: usize = 2048;
/// Bits of the prefix that is one IPv6 source.
pub const SOURCE_BITS_V6: u8 = 64;
/// Characters a name may have at most.
pub const NAME_CHARS_MAX: usize = 63;
/// Bytes that the source files of a policy may have together.
pub const SOURCE_FILES_BYTES_MAX: usize = 64 << 20;
/// Characters a rule's reason may have at most.
pub const REASON_CHARS_MAX: usize = 255;
/// The name nothing may have: metrics give it to the packets of no service.
pub const NAME_RESERVED: &str = "none";
/// Packets per second, and connections and new sources per second, a rate may be at most.
pub const COUNT_PER_S_MAX: u64 = 1_000_000_000;
/// Bytes per second a rate may be at most.
pub const BYTES_PER_S_MAX: u64 = 1_000_000_000_000;
/// Bytes per second a rate must be at least.
pub const BYTES_PER_S_MIN: u64 = 64;
/// Bytes a burst must be at least: an Ethernet frame of 1500 bytes of IP. A smaller one would never pass it.
pub const BURST_BYTES_MIN: u64 = 1514;
/// Bytes a burst has at least where the file does not say.
pub const BURST_BYTES_DEFAULT_MIN: u64 = 65_536;
/// The time a burst may take to fill again, in nanoseconds: 30 days.
pub const REFILL_NS_MAX: u64 = 30 * 86_400 * 1_000_000_000;

/// A policy without errors, and what an operator should know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The policy.
    pub policy: Policy,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the text of a policy alone: without its source files, and as if nothing had ended.
///
/// # Errors
///
/// Gives every error found, with the warnings found so far, in the order of the file. A source file is an error.
pub fn parse(text: &str) -> Result<Checked, Vec<Diagnostic>> {
    parse_in(text, &Context::alone())
}

/// Reads the text of a policy file and the source files that it names.
///
/// # Errors
///
/// Gives every error found, with the warnings found so far, in the order of the policy and then of each source file.
pub fn parse_in(text: &str, context: &Context<'_>) -> Result<Checked, Vec<Diagnostic>> {
    let mut report = text::Report::new(text);
    let policy = text::document(&mut report)
        .and_then(|document| raw::policy(&document, context, &mut report))
        .and_then(|raw| validate::policy(raw, &mut report));

    let has_errors = report.has_errors();
    let diagnostics = report.finish();
    match policy {
        Some(policy) if !has_errors => Ok(Checked { policy, warnings: diagnostics }),
        _ => Err(diagnostics),
    }
}
