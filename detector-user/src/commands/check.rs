//! `detector check`: is this policy good, and would it fit?

use serde::Serialize;

use super::{EXIT_DONE, EXIT_INVALID, Failure, parse_policy, print_json, print_line, read_text};
use crate::{
    cli::CheckArgs,
    clock,
    policy::{
        self, FileDiagnostic, Severity,
        compile::{Clocks, Manifest, compile},
        in_file,
    },
};

/// The answer.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    valid: bool,
    file: &'a str,
    errors: Vec<FileDiagnostic>,
    warnings: Vec<FileDiagnostic>,
}

/// Checks a policy.
pub fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let file = args.file.display().to_string();
    let text = read_text(&args.file)?;
    let (mut diagnostics, mut policy) = match parse_policy(&args.file, &text) {
        Ok(checked) => (checked.warnings, Some(checked.policy)),
        Err(diagnostics) => (diagnostics, None),
    };
    let clocks = Clocks { tick_ns: 0, kernel_ns: 0, unix_ns: clock::unix_ns() };
    let fits =
        policy.as_ref().map_or(Ok(()), |policy| compile(policy, &Manifest::default(), clocks).map(drop));
    if let Err(error) = fits {
        diagnostics.push(error.diagnostic(&text));
        diagnostics.sort_by(|one, other| one.place().cmp(&other.place()));
        policy = None;
    }
    if args.json {
        let (errors, warnings) = in_file(&file, diagnostics)
            .into_iter()
            .partition(|placed| placed.diagnostic.severity == Severity::Error);
        print_json(&Answer { valid: policy.is_some(), file: &file, errors, warnings })?;
    } else if !diagnostics.is_empty() {
        anstream::eprintln!("{}", policy::render(&file, &text, &diagnostics).trim_end());
    }
    let Some(policy) = policy else { return Ok(EXIT_INVALID) };
    if !args.json {
        let (services, rules) = (policy.services.len(), policy.rules.len());
        let prefixes: usize = policy.rules.iter().map(|rule| rule.sources.len()).sum();
        print_line(&format!("{file}: valid; {services} services, {rules} rules, {prefixes} source prefixes"));
    }
    Ok(EXIT_DONE)
}
