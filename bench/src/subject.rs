//! The product's own program, loaded as the daemon loads it but with maps of its own.

use anyhow::{Context as _, Result};
use aya::programs::ProgramFd;
use detector_common::{
    address::Address,
    budget::ticks,
    table::{Key, Set, Unit},
    way::{Meta, Way},
};
use detector_tests::random::Random;
use detector_user::{
    clock,
    kernel::{
        apply::apply,
        load::{Clock, LoadOptions, Loaded, load},
    },
    policy::{self, compile::compile},
};

/// Step of the virtual clock, ns.
pub(crate) const CLOCK_TICK_NS: u64 = 4_000_000;

/// The product's program under a policy.
pub(crate) struct Subject {
    /// The program and its maps.
    pub(crate) loaded: Loaded,
}

impl Subject {
    /// Loads it for a number of sources.
    pub(crate) fn new(sources: u32, clock: Clock, policy_text: &str) -> Result<Self> {
        Self::loaded(&LoadOptions { clock, ..LoadOptions::isolated(sources) }, policy_text)
    }

    fn loaded(options: &LoadOptions, policy_text: &str) -> Result<Self> {
        let mut subject = Self { loaded: load(options)? };
        subject.apply(policy_text)?;
        Ok(subject)
    }

    /// Loads it as [`Self::new`] does, with a table that has been in use since the machine started: every way had an owner,
    /// idle since some moment.
    pub(crate) fn worn(sources: u32, follows_handshakes: bool, policy_text: &str) -> Result<Self> {
        let options =
            LoadOptions { clock: Clock::Kernel, follows_handshakes, ..LoadOptions::isolated(sources) };
        let subject = Self::loaded(&options, policy_text)?;
        let owner = Key::new(Address::v4([255; 4]), Unit::V4Source, 1);
        let meta = Meta(0).claimed().owned(owner.tag, 1, 0).0;
        let mut random = Random::new(1);
        let now = ticks(clock::kernel_ns());
        let mut idle_way =
            || Way { prefix: owner.prefix, meta, packets_tat: 1 + random.below(now), ..Way::default() };
        let table = &subject.loaded.maps.sources;
        (0..table.len())
            .for_each(|number| table.write(number, &Set { ways: std::array::from_fn(|_| idle_way()) }));
        Ok(subject)
    }

    /// Applies a policy.
    pub(crate) fn apply(&mut self, policy_text: &str) -> Result<()> {
        let checked = policy::parse(policy_text)
            .map_err(|errors| anyhow::anyhow!(policy::render("policy of the bench", policy_text, &errors)))?;
        let maps = &mut self.loaded.maps;
        let previous = detector_user::kernel::read::consistently(maps, |active| active.manifest())?;
        let tables = compile(&checked.policy, &previous.unwrap_or_default(), clock::kernel_tick_ns())?;
        apply(maps, &tables)?;
        Ok(())
    }

    /// The program, to be called by another one.
    pub(crate) fn program(&mut self) -> Result<ProgramFd> {
        Ok(self.loaded.program()?.fd().context("the program is loaded")?.try_clone()?)
    }
}
