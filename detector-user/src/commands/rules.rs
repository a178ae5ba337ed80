//! `detector rules`: what each rule does, refused so far, and when it ends; from the pinned maps alone.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, duration, mode_name, print_json, print_line, table};
use crate::{
    cli::ReadArgs,
    clock,
    kernel::{mapped::Access, maps::Maps, pins::Pins, probe::probe, read},
    policy::compile::{Manifest, ManifestRule},
};

/// What `rules` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rules)]
pub struct Answer {
    /// The active policy; 0: none.
    pub epoch: u32,
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// `allow`, `drop`, or `limit NAME`.
    pub action: String,
    /// `enforce`, `shadow`, or `enforce N %`.
    pub mode: String,
    /// Packets dropped since the rule came.
    pub dropped: u64,
    /// Packets that would have been, had the mode been `enforce` for their source.
    pub would_drop: u64,
    /// When it ends, seconds since the Unix epoch.
    pub until_s: Option<u64>,
    /// Seconds until then; 0: it has ended.
    pub ends_in_s: Option<u64>,
    /// What the policy says of it.
    pub reason: Option<String>,
}

/// Lists the rules.
pub fn rules(args: &ReadArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.pins).loaded()?, Access::Read)?;
    let answer = answer(&maps)?;
    if args.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(EXIT_DONE)
}

/// The rules of the active policy.
///
/// # Errors
///
/// The maps cannot be read.
pub fn answer(maps: &Maps) -> Result<Answer, Failure> {
    read::consistently(maps, |active| {
        let manifest = active.manifest()?.unwrap_or_default();
        let rules = manifest.rules.iter().map(|rule| of(maps, &manifest, rule));
        Ok(Answer { epoch: active.epoch(), rules: rules.collect::<Result<_, _>>()? })
    })
}

fn of(maps: &Maps, manifest: &Manifest, rule: &ManifestRule) -> Result<Rule, Failure> {
    let drops = read::rule_drops(maps, rule.counter)?;
    Ok(Rule {
        name: rule.name.clone(),
        action: rule.action.clone(),
        mode: mode_name(rule.enforced_percent.unwrap_or(manifest.enforced_percent)),
        dropped: drops.dropped,
        would_drop: drops.shadowed,
        until_s: rule.until_s,
        ends_in_s: rule.until_s.map(|until_s| until_s.saturating_sub(clock::unix_s())),
        reason: rule.reason.clone(),
    })
}

fn text(answer: &Answer) -> String {
    if answer.rules.is_empty() {
        return format!("policy {} has no rules", answer.epoch);
    }
    let rows = answer.rules.iter().map(|rule| {
        let ends = match rule.ends_in_s {
            None => "-".to_owned(),
            Some(0) => "ended".to_owned(),
            Some(left_s) => format!("in {}", duration(left_s)),
        };
        vec![
            rule.name.clone(),
            rule.action.clone(),
            rule.mode.clone(),
            rule.dropped.to_string(),
            rule.would_drop.to_string(),
            ends,
            rule.reason.clone().unwrap_or_default(),
        ]
    });
    let header = ["RULE", "ACTION", "MODE", "DROPPED", "WOULD DROP", "ENDS", "REASON"];
    format!("policy {}\n\n{}", answer.epoch, table(&header, &[3, 4], rows))
}
