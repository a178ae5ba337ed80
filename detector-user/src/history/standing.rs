//! What a version is now: what was written of it, held to what the kernel has.

use serde::Serialize;
use utoipa::ToSchema;

use super::{State, Version};
use crate::policy::compile::Manifest;

/// What the kernel says of the version that it judges packets by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InKernel {
    /// Its number; 0: it was not recorded.
    pub version: u64,
    /// What it is made of: numbers of two histories may be the same.
    pub digest: String,
    /// Whether it is taken back unless it is confirmed.
    pub on_trial: bool,
}

impl InKernel {
    /// By the manifest of the active policy.
    pub fn new(manifest: &Manifest, on_trial: bool) -> Self {
        Self { version: manifest.version, digest: manifest.digest.clone(), on_trial }
    }

    /// Whether a version is this one.
    pub fn is(&self, version: &Version) -> bool {
        self.version == version.version && self.digest == version.digest
    }
}

/// What a version is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = VersionStanding)]
pub enum Standing {
    /// Packets are judged by it.
    Active,
    /// Packets are judged by it, until it is taken back unless it is confirmed.
    Trial,
    /// It was on trial, and taken back.
    TakenBack,
    /// It was active before.
    Past,
    /// The kernel did not take it.
    Failed,
    /// It is being put into the kernel, or whoever did so was ended.
    Applying,
}

impl Standing {
    /// Of a version; `kernel`: nothing, where nothing is loaded.
    pub fn of(version: &Version, kernel: Option<&InKernel>) -> Self {
        if let Some(kernel) = kernel.filter(|kernel| kernel.is(version)) {
            return if kernel.on_trial { Self::Trial } else { Self::Active };
        }
        match version.state {
            State::Applying => Self::Applying,
            State::Failed => Self::Failed,
            // Were it not taken back, it would be the one in the kernel.
            State::Trial | State::TakenBack => Self::TakenBack,
            State::Applied => Self::Past,
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Trial => "trial",
            Self::TakenBack => "taken back",
            Self::Past => "past",
            Self::Failed => "failed",
            Self::Applying => "applying",
        }
    }
}
