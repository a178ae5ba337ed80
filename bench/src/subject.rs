//! The product's own program, loaded as the daemon loads it but with maps of its own.

use anyhow::{Context as _, Result};
use aya::programs::ProgramFd;
use detector_user::{
    kernel::{
        apply::apply,
        load::{Clock, LoadOptions, Loaded, load},
    },
    policy::{self, compile::compile},
};

/// Step of the kernel's coarse clock that budgets are made for, ns.
pub(crate) const CLOCK_TICK_NS: u64 = 4_000_000;

/// The product's program under a policy.
pub(crate) struct Subject {
    /// The program and its maps.
    pub(crate) loaded: Loaded,
}

impl Subject {
    /// Loads it for a number of sources.
    pub(crate) fn new(sources: u32, clock: Clock, policy_text: &str) -> Result<Self> {
        let options = LoadOptions { clock, ..LoadOptions::isolated(sources) };
        let mut subject = Self { loaded: load(&options)? };
        subject.apply(policy_text)?;
        Ok(subject)
    }

    /// Applies a policy.
    pub(crate) fn apply(&mut self, policy_text: &str) -> Result<()> {
        let checked = policy::parse(policy_text)
            .map_err(|errors| anyhow::anyhow!(policy::render("policy of the bench", policy_text, &errors)))?;
        let maps = &mut self.loaded.maps;
        let previous = detector_user::kernel::read::consistently(maps, |active| active.manifest())?;
        let tables = compile(&checked.policy, &previous.unwrap_or_default(), CLOCK_TICK_NS)?;
        apply(maps, &tables)?;
        Ok(())
    }

    /// The program, to be called by another one.
    pub(crate) fn program(&mut self) -> Result<ProgramFd> {
        Ok(self.loaded.program()?.fd().context("the program is loaded")?.try_clone()?)
    }
}
