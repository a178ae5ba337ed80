//! `cargo xtask ci`: what continuous integration does, for a person.

use anyhow::Result;

use crate::run;
use crate::setup::setup;
use crate::test;
use crate::tidy::tidy;

/// How long the lab runs.
const SMOKE_SECONDS: u32 = 15;

/// Sets up, checks, tests, runs the lab; the closing line is that of the tests.
pub(crate) fn ci() -> Result<()> {
    setup()?;
    tidy(true)?;
    let tally = test::everything(&[])?;
    if tally.failed == 0 {
        run::smoke(SMOKE_SECONDS)?;
    }
    test::close(tally)
}
