//! Which sources come to a rule, and which leave it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use detector_common::policy::{Action, Class, NO_RULE, RuleValue};
use serde::Serialize;
use utoipa::ToSchema;

use crate::policy::compile::{Run, Tables, pieces, prefixes_of_run};

/// Prefixes that are named, of those that come and of those that leave.
const NAMED: usize = 5;

/// What [`SourceChange::name`] says of sources that always pass.
const DEFAULTS_ALLOW: &str = "defaults.allow";

/// Sources that come to a rule, and that leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PolicySourceChange)]
pub struct SourceChange {
    /// The rule, or `defaults.allow`.
    pub name: String,
    /// The fewest prefixes that make up the addresses it decides about only then, at one service at least.
    pub added: usize,
    /// The fewest that make up those it decides about only now.
    pub removed: usize,
    /// The first of those that come.
    pub first_added: Vec<String>,
    /// The first of those that leave.
    pub first_removed: Vec<String>,
}

/// Runs that come and that leave.
type Moved = [Vec<Run>; 2];

pub(super) fn changes(before: &Tables, after: &Tables, now: u64) -> Vec<SourceChange> {
    let mut known: HashMap<(u32, u32), [Vec<String>; 2]> = HashMap::new();
    let mut moved: BTreeMap<String, Moved> = BTreeMap::new();
    for piece in pieces(before, after) {
        let rows = (piece.before.first_cell(), piece.after.first_cell());
        let names = known.entry(rows).or_insert_with(|| {
            let (was, is) = (deciding(before, rows.0, now), deciding(after, rows.1, now));
            [is.difference(&was), was.difference(&is)].map(|names| names.cloned().collect())
        });
        for (direction, names) in names.iter().enumerate() {
            for name in names {
                push(&mut moved.entry(name.clone()).or_default()[direction], piece.run);
            }
        }
    }
    moved.into_iter().map(|(name, moved)| of(name, &moved)).collect()
}

/// The rules that decide in a row, about one service at least.
fn deciding(tables: &Tables, first_cell: u32, now: u64) -> BTreeSet<String> {
    let row = RuleValue::new(first_cell, true);
    let classes = tables.manifest.services.values().filter_map(|&service| tables.class_in(row, service, now));
    let name = |class: &Class| match tables.rule_of(class) {
        Some(rule) => Some(rule.name.clone()),
        None if class.action == Action::Allow as u8 && class.rule == NO_RULE => {
            Some(DEFAULTS_ALLOW.to_owned())
        }
        None => None,
    };
    classes.filter_map(name).collect()
}

fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.family == run.family && last.last.checked_add(1) == Some(run.first) => {
            last.last = run.last;
        }
        _ => runs.push(run),
    }
}

fn of(name: String, [added, removed]: &Moved) -> SourceChange {
    let count = |runs: &[Run]| runs.iter().map(|&run| prefixes_of_run(run).count()).sum();
    let first = |runs: &[Run]| {
        let prefixes = runs.iter().copied().flat_map(prefixes_of_run);
        prefixes.take(NAMED).map(|prefix| prefix.to_string()).collect()
    };
    SourceChange {
        name,
        added: count(added),
        removed: count(removed),
        first_added: first(added),
        first_removed: first(removed),
    }
}
