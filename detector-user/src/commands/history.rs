//! `detector history`: versions, what one of them changed, and audit entries.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, print_json, print_line, table, time};
use crate::{
    change::in_kernel,
    cli::HistoryArgs,
    history::{
        Content, History, HistoryError, Recorded, Version,
        change::{Changes, changes, diff},
        standing::{InKernel, Standing},
    },
    kernel::{
        mapped::Access,
        maps::Maps,
        pins::{Pins, PinsError},
        probe::probe,
    },
};

/// Versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Versions)]
pub struct Answer {
    /// The newest first.
    pub versions: Vec<Listed>,
}

/// A version and how it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedVersion)]
pub struct Listed {
    /// What is known of it.
    #[serde(flatten)]
    pub version: Version,
    /// What it is now.
    pub standing: Standing,
    /// How many lines differ from the version that was active before.
    pub changes: Changes,
}

/// What a version changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionDifference)]
pub struct Difference {
    /// The version.
    #[serde(flatten)]
    pub listed: Listed,
    /// The version that was active before; none: there was none, or the history does not have it any more.
    pub before: Option<u64>,
    /// Unified, of the text and of the source files.
    pub diff: String,
}

/// Audit entries.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLog)]
pub struct Audit {
    /// The newest first.
    pub entries: Vec<Recorded>,
}

/// Tells what was changed.
pub fn history(args: &HistoryArgs) -> Result<u8, Failure> {
    let history = args.write.history();
    let json = args.write.read.json;
    if args.audit {
        let audit = audit(&history, args.limit)?;
        if json {
            print_json(&audit)?;
        } else {
            print_line(&audit_text(&audit));
        }
        return Ok(EXIT_DONE);
    }
    let kernel = kernel(&args.write.pins())?;
    if let Some(version) = args.version {
        let difference = difference(&history, kernel.as_ref(), version)?;
        if json {
            print_json(&difference)?;
        } else {
            print_line(&difference_text(&difference));
        }
        return Ok(EXIT_DONE);
    }
    let answer = answer(&history, kernel.as_ref(), args.limit)?;
    if json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer));
    }
    Ok(EXIT_DONE)
}

/// What is active; `None`: nothing is loaded, or no policy applied.
fn kernel(pins: &Pins) -> Result<Option<InKernel>, Failure> {
    match pins.loaded() {
        Ok(directory) => {
            probe()?;
            Ok(in_kernel(&Maps::pinned(&directory, Access::Read)?)?)
        }
        // What another version of detector has loaded is no version of this history that could be told.
        Err(PinsError::NotLoaded { .. } | PinsError::OtherVersion { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The last versions.
///
/// # Errors
///
/// The history cannot be read.
pub fn answer(history: &History, kernel: Option<&InKernel>, limit: usize) -> Result<Answer, Failure> {
    let versions = history.versions(limit)?.into_iter();
    let listed = versions.map(|version| Ok(list(history, kernel, version)?.0));
    Ok(Answer { versions: listed.collect::<Result<_, Failure>>()? })
}

/// What a version changed.
///
/// # Errors
///
/// There is none of this number; the history cannot be read.
pub fn difference(history: &History, kernel: Option<&InKernel>, version: u64) -> Result<Difference, Failure> {
    let (listed, compared) = list(history, kernel, history.version(version)?)?;
    let Compared { before, earlier, later } = compared;
    let from = before.map_or("nothing".to_owned(), |before| format!("version {before}"));
    let diff = diff(earlier.as_ref(), &later, [&from, &format!("version {version}")]);
    Ok(Difference { listed, before, diff })
}

/// The last audit entries.
///
/// # Errors
///
/// The history cannot be read.
pub fn audit(history: &History, limit: usize) -> Result<Audit, Failure> {
    Ok(Audit { entries: history.entries(limit)? })
}

/// What a version is held against.
struct Compared {
    before: Option<u64>,
    earlier: Option<Content>,
    later: Content,
}

fn list(
    history: &History,
    kernel: Option<&InKernel>,
    version: Version,
) -> Result<(Listed, Compared), Failure> {
    let later = history.content(version.version)?;
    let earlier = match version.replaced.map(|replaced| history.content(replaced)).transpose() {
        Err(HistoryError::NoVersion { .. }) => None,
        earlier => earlier?,
    };
    let before = version.replaced.filter(|_| earlier.is_some());
    let changes = changes(earlier.as_ref(), &later);
    let standing = Standing::of(&version, kernel);
    Ok((Listed { version, standing, changes }, Compared { before, earlier, later }))
}

fn text(answer: &Answer) -> String {
    if answer.versions.is_empty() {
        return "no version is recorded: the next `detector apply` or `detector run` writes the first"
            .to_owned();
    }
    let rows = answer.versions.iter().map(|Listed { version, standing, changes }| {
        vec![
            version.version.to_string(),
            time(version.time_s),
            version.author.name.clone(),
            version.file.clone(),
            what_changed(version, changes),
            version.reason.clone().unwrap_or_default(),
            standing.words().to_owned(),
        ]
    });
    table(&["VERSION", "WHEN (UTC)", "WHO", "FILE", "CHANGES", "REASON", "STATE"], &[0], rows)
}

fn what_changed(version: &Version, changes: &Changes) -> String {
    match version.again {
        Some(again) => format!("{changes} (= version {again})"),
        None => changes.to_string(),
    }
}

fn difference_text(difference: &Difference) -> String {
    let Difference { listed: Listed { version, standing, changes }, before, diff } = difference;
    let mut lines = vec![
        format!("version {}, {}: {}", version.version, standing.words(), what_changed(version, changes)),
        format!("when:   {} UTC", time(version.time_s)),
        format!("who:    {}, by {}", version.author, version.origin.name()),
        format!("file:   {}", version.file),
    ];
    let forced = version.forced.then(|| "forced: yes".to_owned());
    let trial = version.confirm_s.map(|seconds| format!("trial:  {seconds} s to confirm it in"));
    let reason = version.reason.as_ref().map(|reason| format!("reason: {reason}"));
    let failure = version.failure.as_ref().map(|failure| format!("failed: {failure}"));
    lines.extend([reason, forced, trial, failure].into_iter().flatten());
    lines.push(String::new());
    lines.push(match (diff.is_empty(), before) {
        (true, Some(before)) => format!("the same as version {before}"),
        _ => colored(diff.trim_end_matches('\n')),
    });
    lines.join("\n")
}

/// A diff in the colours that people know; they are left out where no terminal is.
fn colored(diff: &str) -> String {
    use anstyle::{AnsiColor, Style};
    let line = |line: &str| {
        let color = match line.as_bytes().first() {
            Some(b'+') => AnsiColor::Green,
            Some(b'-') => AnsiColor::Red,
            Some(b'@') => AnsiColor::Cyan,
            _ => return line.to_owned(),
        };
        let style = Style::new().fg_color(Some(color.into()));
        format!("{style}{line}{style:#}")
    };
    diff.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn audit_text(audit: &Audit) -> String {
    if audit.entries.is_empty() {
        return "no change is recorded".to_owned();
    }
    let version = |value: &Option<serde_json::Value>| {
        let version = value.as_ref().and_then(|value| value["version"].as_u64());
        version.map_or("-".to_owned(), |version| version.to_string())
    };
    let rows = audit.entries.iter().map(|entry| {
        // Of a refusal the first line: the rest are places in a policy.
        let result = entry.result.lines().next().unwrap_or_default();
        vec![
            time(entry.time_s),
            entry.author.name.clone(),
            entry.origin.name().to_owned(),
            entry.action.clone(),
            entry.target.clone(),
            format!("{} → {}", version(&entry.before), version(&entry.after)),
            entry.reason.clone().unwrap_or_default(),
            if entry.is_done() { result.to_owned() } else { format!("refused: {result}") },
        ]
    });
    let header = ["WHEN (UTC)", "WHO", "BY", "ACTION", "TARGET", "VERSION", "REASON", "RESULT"];
    table(&header, &[], rows)
}
