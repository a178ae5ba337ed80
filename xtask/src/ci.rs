//! `cargo xtask ci`: what continuous integration does, for a person.

use anyhow::Result;

use crate::command::{command, run};
use crate::paths;

/// Sets up, checks, tests, runs the lab, by the script that continuous integration runs too; its last line sums the
/// tests up.
pub(crate) fn ci() -> Result<()> {
    let script = paths::root().join(".ci/run");
    run(
        "doing what continuous integration does",
        &mut command(&script.to_string_lossy()),
        "mend what is named above",
    )
}
