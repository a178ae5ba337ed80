//! Modes, of the policy and of a rule.

use toml::de::DeValue;

use super::fields::{Field, Schema};
use super::model::Mode;
use super::spelling::{did_you_mean, synonym};
use super::text::{Issue, Report};

pub(super) const MODE: Schema = Schema { what: "a mode", known: &["enforce"], later: &[] };

const EXPECTED: &str = "\"enforce\", \"shadow\" or { enforce = PERCENT }";
const PERCENT_EXPECTED: &str = "a whole number of percent of the sources, from 1 to 99";
/// What other tools call it.
const SYNONYMS: [(&str, &str); 5] = [
    ("dry-run", "shadow"),
    ("observe", "shadow"),
    ("monitor", "shadow"),
    ("off", "shadow"),
    ("on", "enforce"),
];

/// Reads `"enforce"`, `"shadow"` or `{ enforce = 10 }`.
pub(super) fn parse(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<Mode> {
    let parse = |text: &str| match text {
        "enforce" => Ok(Mode::Enforce),
        "shadow" => Ok(Mode::Shadow),
        _ => {
            let help = synonym(text, &SYNONYMS).or_else(|| did_you_mean(text, ["enforce", "shadow"]));
            Err(Issue::new("unknown mode", EXPECTED).help(help))
        }
    };
    match field.value.get_ref() {
        DeValue::Table(_) => {
            let enforce = field.table(&MODE, report)?.required("enforce", PERCENT_EXPECTED, report)?;
            percent(enforce, report)
        }
        _ => field.parsed(EXPECTED, parse, report).map(|mode| mode.value),
    }
}

fn percent(field: Field<'_, '_>, report: &mut Report<'_>) -> Option<Mode> {
    if let DeValue::String(text) = field.value.get_ref() {
        let number = text.trim_end_matches('%').trim_end().parse::<u8>().ok();
        let help = number.map(|number| format!("write {number}, without quotes and unit"));
        report.error(field.span(), field.wrong_type_issue(PERCENT_EXPECTED).help(help));
        return None;
    }
    let percent = field.unsigned(PERCENT_EXPECTED, report)?;
    match u8::try_from(percent.value) {
        Ok(percent @ 1..=99) => return Some(Mode::Percent(percent)),
        Ok(0) => report.error(percent.span, whole("0 percent is none of the sources", "shadow")),
        Ok(100) => report.error(percent.span, whole("100 percent is all of the sources", "enforce")),
        _ => report.error(percent.span, Issue::new("not a part of the sources", PERCENT_EXPECTED)),
    }
    None
}

fn whole(message: &str, mode: &str) -> Issue {
    let issue = Issue::new(message, PERCENT_EXPECTED);
    issue.help(format!("write mode = \"{mode}\""))
}
