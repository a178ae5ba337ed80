//! `[fleets]`: whether fleets are looked for, and how far an action on one may go; and `fleets` of a service.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::fields::{Field, Fields, Schema};
use super::spelling::{did_you_mean, synonym};
use super::text::{At, Issue, Report};

pub(super) const FLEETS: Schema = Schema {
    what: "`fleets`",
    known: &[
        "mode",
        "hold_out",
        "members_max",
        "new_members_max",
        "collateral_max",
        "factor",
        "share",
        "for",
        "tighten",
    ],
    later: &[],
};
pub(super) const TIGHTEN: Schema = Schema { what: "`tighten`", known: &["after", "factor"], later: &[] };

/// How modes are written.
pub(super) const MODES: [(&str, FleetMode); 4] = [
    ("off", FleetMode::Off),
    ("observe", FleetMode::Observe),
    ("suggest", FleetMode::Suggest),
    ("throttle", FleetMode::Throttle),
];

const MODE_EXPECTED: &str = "\"off\", \"observe\", \"suggest\" or \"throttle\"";
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

/// Percent of the members that may be held out.
pub(super) const HOLD_OUT_MIN: u64 = 1;
/// See [`HOLD_OUT_MIN`].
pub(super) const HOLD_OUT_MAX: u64 = 50;
/// Members that `members_max` and `new_members_max` may say.
pub(super) const MEMBERS_MAX: u64 = 1 << 20;
/// The shortest and the longest time of an action, s: a minute and a week.
pub(super) const FOR_S_MIN: u64 = 60;
/// See [`FOR_S_MIN`].
pub(super) const FOR_S_MAX: u64 = 7 * 86_400;

const MILLION: u32 = 1_000_000;
const PART_EXPECTED: &str = "a percentage such as \"5 %\" or \"0.01 %\"";
const TIME_EXPECTED: &str = "a time from \"1min\" to \"7d\", such as \"90s\", \"30min\" or \"1h\"";

/// A part of something, in millionths; more than all of it is possible where that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part(pub u32);

impl Part {
    /// So many hundredths.
    pub const fn of_percent(percent: u32) -> Self {
        Self(percent * (MILLION / 100))
    }

    /// As a number; 1 is all.
    pub fn of(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }
}

/// As it is written: `5 %`.
impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} %", f64::from(self.0) / f64::from(MILLION / 100))
    }
}

/// What is done about fleets: each step does what those before it do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FleetMode {
    /// Nobody looks for them.
    Off,
    /// They are found and told.
    #[default]
    Observe,
    /// They are shown with the command that would throttle them.
    Suggest,
    /// They are throttled, where every guard lets them be.
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

/// What is done about fleets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSettings {
    /// How far actions go, at services that say nothing else.
    pub mode: FleetMode,
    /// Percent of a fleet's members that are left alone, so that the effect on the others can be measured; 1 to 50.
    pub hold_out_percent: u8,
    /// Members of a fleet that is acted on, at most; 1 to 1,048,576.
    pub members_max: u32,
    /// Members that may come to one in an hour, after those that it had at first; 1 to 1,048,576.
    pub new_members_max: u32,
    /// The share of the service's legitimate exchanges that an action may cost.
    pub collateral_max: Part,
    /// What a fleet may use, of what its population normally used.
    pub factor: Part,
    /// What a fleet may use at most, of what it uses.
    pub share: Part,
    /// How long an action lasts after its last evidence, s; 60 to 604,800.
    pub for_s: u64,
    /// When an action without effect gets smaller budgets; never without.
    pub tighten: Option<Tighten>,
}

/// When an action gets smaller budgets, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tighten {
    /// After so long without effect, s; 60 to 604,800.
    pub after_s: u64,
    /// The factor from then on, below that of before.
    pub factor: Part,
}

impl FleetSettings {
    /// Whether it says what holds without it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// As differences tell it: the mode, and what is said of an action.
impl fmt::Display for FleetSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode, hold_out_percent, members_max, new_members_max, collateral_max, factor, share, ..
        } = self;
        write!(
            formatter,
            "{mode}, hold out {hold_out_percent} %, members {members_max}, new {new_members_max}/h, collateral {collateral_max}, "
        )?;
        write!(formatter, "factor {factor}, share {share}, for {}", time_text(self.for_s))?;
        match self.tighten {
            Some(Tighten { after_s, factor }) => {
                write!(formatter, ", tighten to {factor} after {}", time_text(after_s))
            }
            None => Ok(()),
        }
    }
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            mode: FleetMode::default(),
            hold_out_percent: 5,
            members_max: 100_000,
            new_members_max: 20_000,
            collateral_max: Part(100),
            factor: Part::of_percent(200),
            share: Part::of_percent(1),
            for_s: 3600,
            tighten: None,
        }
    }
}

/// Reads `[fleets]`.
pub(super) fn parse(fields: &Fields<'_, '_>, report: &mut Report<'_>) -> FleetSettings {
    let default = FleetSettings::default();
    let percent = Part::of_percent;
    let part = |name, least, most, report: &mut Report<'_>| {
        fields.field(name).and_then(|field| part(field, least, most, report))
    };
    let mode = fields.required("mode", MODE_EXPECTED, report).and_then(|field| mode(field, report));
    let collateral_max = part("collateral_max", Part(0), percent(1), report);
    let factor_part = part("factor", percent(1), percent(1000), report);
    let share = part("share", Part(1), percent(50), report);
    let factor = factor_part.as_ref().map_or(default.factor, |factor| factor.value);
    let hold_out = count(fields, "hold_out", HOLD_OUT_MIN..=HOLD_OUT_MAX, report);
    let members = count(fields, "members_max", 1..=MEMBERS_MAX, report);
    let new_members = count(fields, "new_members_max", 1..=MEMBERS_MAX, report);
    let for_s = fields.field("for").and_then(|field| time(field, report));
    let tighten = fields.field("tighten").and_then(|field| tighten(field, factor, report));
    FleetSettings {
        mode: mode.map_or(default.mode, |mode| mode.value),
        hold_out_percent: hold_out
            .and_then(|count| count.try_into().ok())
            .unwrap_or(default.hold_out_percent),
        members_max: members.and_then(|count| count.try_into().ok()).unwrap_or(default.members_max),
        new_members_max: new_members
            .and_then(|count| count.try_into().ok())
            .unwrap_or(default.new_members_max),
        collateral_max: collateral_max.map_or(default.collateral_max, |part| part.value),
        factor,
        share: share.map_or(default.share, |part| part.value),
        for_s: for_s.unwrap_or(default.for_s),
        tighten,
    }
}

/// Reads a mode.
pub(super) fn mode(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<At<FleetMode>> {
    let parse = |text: &str| {
        let found = MODES.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode);
        found.ok_or_else(|| {
            let help = synonym(text, &SYNONYMS).or_else(|| did_you_mean(text, MODES.map(|(name, _)| name)));
            Issue::new("unknown mode of `fleets`", MODE_EXPECTED).help(help)
        })
    };
    field.parsed(MODE_EXPECTED, parse, report)
}

fn tighten(field: Field<'_, '_>, before: Part, report: &mut Report<'_>) -> Option<Tighten> {
    let fields = field.table(&TIGHTEN, report)?;
    let after = fields.required("after", TIME_EXPECTED, report);
    let factor = fields.required("factor", PART_EXPECTED, report);
    let after_s = after.and_then(|field| time(field, report));
    let factor = factor.and_then(|field| part(field, Part(1), Part::of_percent(1000), report))?;
    if factor.value >= before {
        let issue = Issue::new("a `tighten` that does not tighten", format!("a factor below \"{before}\""));
        report.error(factor.span, issue);
        return None;
    }
    Some(Tighten { after_s: after_s?, factor: factor.value })
}

fn count(
    fields: &Fields<'_, '_>,
    name: &'static str,
    range: std::ops::RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let count = fields.field(name)?.unsigned(&expected, report)?;
    if range.contains(&count.value) {
        return Some(count.value);
    }
    report.error(count.span, Issue::new(format!("`{name}` is out of range"), expected));
    None
}

/// A percentage, exactly, with at most four decimals.
fn part(field: Field<'_, '_>, least: Part, most: Part, report: &mut Report<'_>) -> Option<At<Part>> {
    if let DeValue::Integer(number) = field.value.get_ref() {
        let help = format!("write \"{number} %\"");
        report.error(field.span(), field.wrong_type_issue(PART_EXPECTED).help(help));
        return None;
    }
    let parse = |text: &str| {
        let part = percentage(text).ok_or_else(|| Issue::new("not a percentage", PART_EXPECTED))?;
        let expected = format!("from \"{least}\" to \"{most}\"");
        if (least..=most).contains(&part) {
            Ok(part)
        } else {
            Err(Issue::new("percentage out of range", expected))
        }
    };
    field.parsed(PART_EXPECTED, parse, report)
}

fn percentage(text: &str) -> Option<Part> {
    const DECIMALS: usize = 4;
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > DECIMALS {
        return None;
    }
    format!("{whole}{decimals:0<DECIMALS$}").parse().ok().map(Part)
}

fn time(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<u64> {
    let parse = |text: &str| {
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(digits);
        let unit_s = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, unit_s)| *unit_s);
        let time_s =
            unit_s.zip(count.parse::<u64>().ok()).map(|(unit_s, count)| count.saturating_mul(unit_s));
        let time_s = time_s.ok_or_else(|| Issue::new("not a time", TIME_EXPECTED))?;
        if (FOR_S_MIN..=FOR_S_MAX).contains(&time_s) {
            Ok(time_s)
        } else {
            Err(Issue::new("time out of range", TIME_EXPECTED))
        }
    };
    field.parsed(TIME_EXPECTED, parse, report).map(|time| time.value)
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];

/// A time as it is written, in the longest unit that leaves it whole.
pub fn time_text(time_s: u64) -> String {
    let whole = UNITS.iter().find(|(_, unit_s)| time_s > 0 && time_s.is_multiple_of(*unit_s));
    whole.map_or_else(|| "0s".to_owned(), |(name, unit_s)| format!("{}{name}", time_s / unit_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;

    fn settings(text: &str) -> FleetSettings {
        let text = format!("version = 1\n[fleets]\nmode = \"throttle\"\n{text}\n");
        policy::parse(&text).unwrap_or_else(|wrong| panic!("{wrong:?}")).policy.fleets
    }

    fn refused(text: &str) -> String {
        let text = format!("version = 1\n[fleets]\nmode = \"throttle\"\n{text}\n");
        let wrong = policy::parse(&text).expect_err("it is refused");
        policy::render("p", &text, &wrong).lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn what_is_not_written_is_as_documented() {
        let written = FleetSettings { mode: FleetMode::Throttle, ..FleetSettings::default() };
        assert_eq!(settings(""), written);
        assert_eq!(policy::parse("version = 1\n").unwrap().policy.fleets, FleetSettings::default());
    }

    #[test]
    fn all_that_can_be_written_is_read() {
        let text = r#"
            hold_out = 10
            members_max = 50000
            new_members_max = 1000
            collateral_max = "0.005 %"
            factor = "150%"
            share = "2.5 %"
            for = "90min"
            tighten = { after = "15min", factor = "50 %" }
        "#;
        let expected = FleetSettings {
            mode: FleetMode::Throttle,
            hold_out_percent: 10,
            members_max: 50_000,
            new_members_max: 1000,
            collateral_max: Part(50),
            factor: Part::of_percent(150),
            share: Part(25_000),
            for_s: 5400,
            tighten: Some(Tighten { after_s: 900, factor: Part::of_percent(50) }),
        };
        assert_eq!(settings(text), expected);
        assert_eq!((expected.share.to_string(), time_text(5400)), ("2.5 %".to_owned(), "90min".to_owned()));
        assert_eq!((Part(50).to_string(), time_text(7200)), ("0.005 %".to_owned(), "2h".to_owned()));
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_what_was_expected() {
        for (text, says) in [
            ("hold_out = 0", "`hold_out` is out of range: found 0, expected a whole number from 1 to 50"),
            ("hold_out = \"5 %\"", "wrong type for `hold_out`"),
            ("members_max = 0", "`members_max` is out of range"),
            (
                "collateral_max = \"2 %\"",
                "percentage out of range: found \"2 %\", expected from \"0 %\" to \"1 %\"",
            ),
            ("collateral_max = 1", "wrong type for `collateral_max`"),
            ("share = \"0.00001 %\"", "not a percentage"),
            ("factor = \"all\"", "not a percentage"),
            ("for = \"59s\"", "time out of range"),
            ("for = \"1y\"", "not a time"),
            ("tighten = { after = \"15min\", factor = \"200 %\" }", "a `tighten` that does not tighten"),
            ("tighten = { factor = \"20 %\" }", "missing field in `tighten`"),
        ] {
            let told = refused(text);
            assert!(told.contains(says), "{text}: {told}");
        }
    }
}
