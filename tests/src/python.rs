//! Programs in Python that tests use, which `cargo xtask setup` installs.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// A program of the tests' Python environment.
///
/// # Errors
///
/// It is not installed.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("looking for our own executable")?;
    // target/release/deps/api-1234.
    let target = own.ancestors().nth(3).context("a test stands in cargo's target directory")?;
    let program = target.join("python/bin").join(name);
    if !program.is_file() {
        bail!("there is no {}: `cargo xtask setup` installs it", program.display());
    }
    Ok(program)
}
