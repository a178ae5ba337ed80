//! Tests that cannot run here.

use std::env;

use anyhow::{Result, bail};

/// Says that nothing that `cargo xtask setup` installs may be missing; `cargo xtask test` sets it.
pub const NO_SKIP: &str = "DETECTOR_NO_SKIP";

/// Says that a test is skipped, since it needs something that is not there, though `cargo xtask setup` installs it.
///
/// # Errors
///
/// [`NO_SKIP`] is set, which makes it a failure.
pub fn skip(missing: &str) -> Result<()> {
    skip_if(env::var_os(NO_SKIP).is_none(), missing)
}

fn skip_if(may_skip: bool, missing: &str) -> Result<()> {
    if !may_skip {
        bail!(
            "{missing}\n  next: `cargo xtask setup`; without {NO_SKIP} in the environment the test is skipped"
        );
    }
    println!("skipped: {missing}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_there_fails_where_it_is_missing() {
        let error = skip_if(false, "no chromium").unwrap_err().to_string();
        assert!(error.contains("no chromium\n  next: `cargo xtask setup`"), "{error}");
    }
}
