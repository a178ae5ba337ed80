//! `detector check`: is this policy good, and would it fit?

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, EXIT_INVALID, Failure, SourceFiles, parse_policy, print_json, print_line, read_text};
use crate::{
    cli::CheckArgs,
    clock,
    policy::{
        self, Diagnostic, FileDiagnostic, Severity,
        compile::{Clocks, Manifest, compile},
        in_file,
    },
};

/// What `check` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Checked)]
pub struct Answer {
    /// Whether `apply` would take it.
    pub valid: bool,
    /// The policy's name.
    pub file: String,
    /// How many it has; 0 unless it is valid.
    pub services: usize,
    /// How many it has; 0 unless it is valid.
    pub rules: usize,
    /// How many its rules name, those of source files included; 0 unless it is valid.
    pub source_prefixes: usize,
    /// Why it is not.
    pub errors: Vec<FileDiagnostic>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<FileDiagnostic>,
}

/// Checks a policy.
pub fn check(args: &CheckArgs) -> Result<u8, Failure> {
    let file = args.file.display().to_string();
    let text = read_text(&args.file)?;
    let answer = answer(&file, &text, SourceFiles::beside(&args.file));
    if args.json {
        print_json(&answer)?;
    } else {
        let diagnostics: Vec<_> = diagnostics(&answer).cloned().collect();
        if !diagnostics.is_empty() {
            anstream::eprintln!("{}", policy::render(&file, &text, &diagnostics).trim_end());
        }
        if answer.valid {
            let Answer { services, rules, source_prefixes, .. } = answer;
            print_line(&format!(
                "{file}: valid; {services} services, {rules} rules, {source_prefixes} source prefixes"
            ));
        }
    }
    Ok(if answer.valid { EXIT_DONE } else { EXIT_INVALID })
}

/// What is to be said of the text of a policy. `file` is only its name.
pub fn answer(file: &str, text: &str, source_files: SourceFiles<'_>) -> Answer {
    let (mut diagnostics, mut policy) = match parse_policy(text, source_files) {
        Ok(checked) => (checked.warnings, Some(checked.policy)),
        Err(diagnostics) => (diagnostics, None),
    };
    let clocks = Clocks { tick_ns: 0, kernel_ns: 0, unix_ns: clock::unix_ns() };
    let fits =
        policy.as_ref().map_or(Ok(()), |policy| compile(policy, &Manifest::default(), clocks).map(drop));
    if let Err(error) = fits {
        diagnostics.push(error.diagnostic(text));
        diagnostics.sort_by(|one, other| one.place().cmp(&other.place()));
        policy = None;
    }
    let (errors, warnings) = in_file(file, diagnostics)
        .into_iter()
        .partition(|placed| placed.diagnostic.severity == Severity::Error);
    let valid = policy.is_some();
    let (services, rules) = policy.map_or((0, Vec::new()), |policy| (policy.services.len(), policy.rules));
    let source_prefixes = rules.iter().map(|rule| rule.matches.sources().len()).sum();
    Answer { valid, file: file.to_owned(), services, rules: rules.len(), source_prefixes, errors, warnings }
}

/// Errors and warnings in the order of the file.
fn diagnostics(answer: &Answer) -> impl Iterator<Item = &Diagnostic> {
    let mut diagnostics: Vec<_> =
        answer.errors.iter().chain(&answer.warnings).map(|placed| &placed.diagnostic).collect();
    diagnostics.sort_by(|one, other| one.place().cmp(&other.place()));
    diagnostics.into_iter()
}
