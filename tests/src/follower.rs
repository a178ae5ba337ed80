//! Following what happens, as `detector events` prints it.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    daemon::Site,
    netns::unique,
    process::{PATIENCE, Running, wait_until},
};

/// `detector events` that runs, and what it prints.
#[derive(Debug)]
pub struct Follower {
    /// It.
    pub process: Running,
    printed: PathBuf,
}

impl Follower {
    /// Starts it with arguments beside `--api`.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(site: &Site<'_>, arguments: &[&str]) -> Result<Self> {
        let printed = site.files().join(unique("events"));
        let file = fs::File::create(&printed).context("making a file for events")?;
        let mut command = site.detector(&["events", "--api"])?;
        command.arg(site.api()).args(arguments).stdout(file.try_clone()?).stderr(file);
        Ok(Self { process: Running::start(&mut command)?, printed })
    }

    /// What it printed so far, errors too.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.printed).unwrap_or_default()
    }

    /// The events that it told so far; it runs with `--json`.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an event that has these fields.
    ///
    /// # Errors
    ///
    /// None comes.
    pub fn expect(&self, fields: &Value) -> Result<Value> {
        let has = |event: &Value| {
            fields.as_object().is_some_and(|fields| fields.iter().all(|(name, value)| event[name] == *value))
        };
        wait_until(&format!("{fields} is told"), PATIENCE, || Ok(self.events().into_iter().find(has)))
            .with_context(|| self.text())
    }
}
