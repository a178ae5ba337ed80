//! `[fleets]`: what is done about fleets, and `fleets` of a service.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{Field, Fields, Schema};
use super::raw::RawPolicy;
use super::spelling::{did_you_mean, synonym};
use super::text::{At, Issue, Report};

pub(super) const FLEETS: Schema = Schema { what: "`fleets`", known: &["mode"], later: &[] };

/// How modes are written.
pub(super) const MODES: [(&str, FleetMode); 4] = [
    ("off", FleetMode::Off),
    ("observe", FleetMode::Observe),
    ("suggest", FleetMode::Suggest),
    ("throttle", FleetMode::Throttle),
];

const EXPECTED: &str = "\"off\", \"observe\", \"suggest\" or \"throttle\"";
/// What other tools call it.
const SYNONYMS: [(&str, &str); 7] = [
    ("on", "observe"),
    ("shadow", "observe"),
    ("monitor", "observe"),
    ("detect", "observe"),
    ("disabled", "off"),
    ("limit", "throttle"),
    ("enforce", "throttle"),
];

/// What is done about fleets: each step does what those before it do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FleetMode {
    /// Nobody looks for them.
    Off,
    /// They are found and told.
    #[default]
    Observe,
    /// And what could be done about them.
    Suggest,
    /// And it is done.
    Throttle,
}

impl FleetMode {
    /// As a policy says it.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for FleetMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a policy says of fleets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleets {
    /// What is done about them at services that say nothing else.
    pub mode: FleetMode,
}

impl Fleets {
    /// Whether it says what holds without it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads the section.
pub(super) fn section(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> Option<At<FleetMode>> {
    fields.required("mode", EXPECTED, report).and_then(|field| mode(field, report))
}

/// Reads a mode.
pub(super) fn mode(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<At<FleetMode>> {
    let parse = |text: &str| {
        let found = MODES.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
        found.ok_or_else(|| {
            let help = synonym(text, &SYNONYMS).or_else(|| did_you_mean(text, MODES.map(|(name, _)| name)));
            Issue::new("unknown mode of `fleets`", EXPECTED).help(help)
        })
    };
    field.parsed(EXPECTED, parse, report)
}

/// Warns of modes that do more than this version does.
pub(super) fn warnings(raw: &RawPolicy, report: &mut Report<'_>) {
    let modes = raw.fleets.iter().chain(raw.services.iter().filter_map(|service| service.fleets.as_ref()));
    for mode in modes.filter(|mode| mode.value > FleetMode::Observe) {
        let issue =
            Issue::new("fleets are found and told, and nothing is done about them yet", "\"observe\"");
        report.warning(mode.span.clone(), issue);
    }
}
