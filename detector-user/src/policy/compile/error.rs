//! What of a policy does not fit, and where that stands in its file.

use detector_common::limits::INCIDENT_RULES_MAX;
use thiserror::Error;

use crate::policy::{
    Context, Diagnostic, Severity,
    raw::{self, RawPolicy},
    text::{self, Issue, Report, Span},
};

/// A policy that is well formed but larger than the kernel's tables.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{message}: found {found}, expected {expected}; {help}")]
pub struct CompileError {
    /// What the policy says too much with.
    pub(super) place: Place,
    /// What there is too much of.
    pub(super) message: &'static str,
    /// How much of it.
    pub(super) found: String,
    /// How much there may be.
    pub(super) expected: String,
    /// What to do.
    pub(super) help: String,
}

/// Something in a policy, by its number in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An entry of a service's `addresses`.
    Address { service: usize, entry: usize },
    /// One of the sets that a service's `ports` stand for.
    Ports { service: usize, entry: usize },
    /// A profile that names parents, counted among those.
    Lineage(usize),
    /// A rule.
    Rule(usize),
}

impl Place {
    fn span(self, raw: &RawPolicy) -> Option<Span> {
        Some(match self {
            Self::Address { service, entry } => raw.services.get(service)?.addresses.get(entry)?.span.clone(),
            Self::Ports { service, entry } => raw.services.get(service)?.ports.get(entry)?.span.clone(),
            Self::Lineage(number) => {
                let has_parents =
                    |raw: &&raw::RawProfile| raw.profile.parents.levels().iter().any(Option::is_some);
                raw.profiles.iter().filter(has_parents).nth(number)?.name.span.clone()
            }
            Self::Rule(number) => raw.rules.get(number)?.name.as_ref()?.span.clone(),
        })
    }
}

impl CompileError {
    /// More incident rules than there may be.
    pub(crate) fn too_many_incidents(count: usize) -> Self {
        Self {
            place: Place::Rule(0),
            message: "too many incident rules",
            found: format!("{count} of them"),
            expected: format!("at most {INCIDENT_RULES_MAX}"),
            help: "name several targets in one rule, or undo some: `detector rules` lists them".to_owned(),
        }
    }

    /// The error with its place in `text`, which the policy was read from. The text is read again for it: a policy that
    /// fits carries no places.
    pub fn diagnostic(&self, text: &str) -> Diagnostic {
        let mut report = Report::new(text);
        let document = text::document(&mut report);
        let raw = document.and_then(|document| raw::policy(&document, &Context::alone(), &mut report));
        let span = raw.and_then(|raw| self.place.span(&raw)).unwrap_or_default();
        let issue = Issue::new(self.message, &*self.expected).found(&*self.found).help(self.help.clone());
        report.place(&span, Severity::Error, &issue)
    }
}
