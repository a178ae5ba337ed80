//! `detector show`: the active policy or another version, as it was applied.

use serde::Serialize;
use utoipa::ToSchema;

use super::{EXIT_DONE, Failure, effective, print_json, print_line};
use crate::{
    change::in_kernel,
    cli::ShowArgs,
    history::{Content, History, HistoryError, Version},
    kernel::{mapped::Access, maps::Maps, probe::probe, read},
};

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionText)]
pub struct Answer {
    /// What is known of the version.
    #[serde(flatten)]
    pub version: Version,
    /// The text of the policy.
    pub text: String,
    /// Its source files.
    pub sources: Vec<Source>,
}

/// A source file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VersionSourceFile)]
pub struct Source {
    /// As the policy names it, from its folder on.
    pub name: String,
    /// What it held.
    pub text: String,
}

/// Shows a policy.
pub fn show(args: &ShowArgs) -> Result<u8, Failure> {
    let json = args.write.read.json;
    let pinned = || -> Result<Maps, Failure> {
        probe()?;
        Ok(Maps::pinned(&args.write.pins().loaded()?, Access::Read)?)
    };
    if args.effective {
        let answer = effective::answer(&pinned()?)?;
        if json {
            print_json(&answer)?;
        } else {
            print_line(&effective::text(&answer));
        }
        return Ok(EXIT_DONE);
    }
    let history = args.write.history();
    let answer = match args.version {
        Some(version) => answer(&history, version)?,
        None => active(&pinned()?, &history)?,
    };
    if json {
        print_json(&answer)?;
    } else {
        // As it was, so that it can be applied again.
        print_line(answer.text.strip_suffix('\n').unwrap_or(&answer.text));
    }
    Ok(EXIT_DONE)
}

/// The text of a version.
///
/// # Errors
///
/// There is none of this number; the history cannot be read.
pub fn answer(history: &History, version: u64) -> Result<Answer, Failure> {
    let Content { text, sources } = history.content(version)?;
    let sources = sources.into_iter().map(|source| Source {
        name: source.name,
        text: String::from_utf8_lossy(&source.bytes).into_owned(),
    });
    Ok(Answer { version: history.version(version)?, text, sources: sources.collect() })
}

/// The text of the active version.
///
/// # Errors
///
/// No policy is active, or the history does not have it.
pub fn active(maps: &Maps, history: &History) -> Result<Answer, Failure> {
    let Some(kernel) = in_kernel(maps)? else {
        return Err(Failure::unavailable("no policy is applied: `detector apply FILE`"));
    };
    let file = read::consistently(maps, |active| active.manifest())?.unwrap_or_default().file;
    let unknown = |why: &str| {
        Failure::failed(format_args!(
            "the text of the active policy is not in the history {} ({why}): it came from {file}; `detector show --effective` \
             tells what the kernel makes of it",
            history.path().display()
        ))
    };
    if kernel.version == 0 {
        return Err(unknown("it could not be recorded when it was applied"));
    }
    match history.version(kernel.version) {
        Ok(version) if kernel.is(&version) => answer(history, kernel.version),
        Ok(_) | Err(HistoryError::NoVersion { .. }) => Err(unknown("another --state has it, or it is gone")),
        Err(error) => Err(unknown(&error.to_string())),
    }
}
