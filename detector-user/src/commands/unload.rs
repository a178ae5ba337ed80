//! `detector unload`: nothing of detector stays in the kernel.

use std::path::PathBuf;

use serde::Serialize;

use serde_json::json;

use super::{EXIT_DONE, Failure, print_json, print_line, warn};
use crate::{
    cli::UnloadArgs,
    clock,
    history::{Author, Entry, History, HistoryError, Origin},
    kernel::{
        links::{LinkPin, Namespace, Place},
        pins::{PinsError, file_name},
        probe::probe,
    },
};

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    unloaded: bool,
    interfaces: Vec<String>,
    /// The directories of pins, one of each version.
    versions: Vec<String>,
    /// Why the history does not have it.
    unrecorded: Option<String>,
}

/// Detaches and removes the pins.
pub fn unload(args: &UnloadArgs) -> Result<u8, Failure> {
    probe()?;
    let pins = args.write.pins();
    // Until everything is removed: a daemon that starts meanwhile waits, and finds nothing.
    let (lock, is_there) = match pins.lock_for_removal() {
        Err(PinsError::Locked { .. }) if args.force => (None, true),
        Err(PinsError::Locked { .. }) => {
            return Err(Failure::failed(format_args!(
                "a daemon runs on {}: stop it (it detaches on SIGTERM), or unload under it with --force",
                pins.root().display()
            )));
        }
        lock => {
            let lock = lock?;
            let is_there = lock.is_some();
            (lock, is_there)
        }
    };
    // Where there was nothing nothing is looked for: what is there now is of a daemon that has started since, and holds the lock.
    let (links, versions) =
        if is_there { (pins.links_of_every_version(), pins.versions()) } else { (Vec::new(), Vec::new()) };
    let own = Namespace::own()?;
    let interfaces: Vec<_> = links.into_iter().map(|link| name(link, own)).collect();
    let versions: Vec<_> = versions.iter().map(|directory| file_name(directory)).collect();
    let was_there = !versions.is_empty();
    // Also where another removed the rest and the lock is what is left.
    if was_there || lock.is_some() {
        pins.remove()?;
    }
    drop(lock);
    let recorded = if was_there { record(&args.write.history(), &interfaces, &versions) } else { Ok(()) };
    let unrecorded = recorded.err().map(|error| error.to_string());
    if args.write.read.json {
        print_json(&Answer { unloaded: was_there, interfaces, versions, unrecorded })?;
        return Ok(EXIT_DONE);
    }
    if let Some(why) = unrecorded {
        warn(&format!("unloaded, but not recorded: {why}"));
    }
    if !was_there {
        print_line(&format!("nothing to unload in {}", pins.root().display()));
    } else {
        let from = if interfaces.is_empty() { "no interface".to_owned() } else { interfaces.join(", ") };
        print_line(&format!("unloaded {}: detached from {from}, pins removed", versions.join(", ")));
    }
    Ok(EXIT_DONE)
}

fn record(history: &History, interfaces: &[String], versions: &[String]) -> Result<(), HistoryError> {
    let author = Author::current();
    let target = interfaces.join(", ");
    let entry = Entry::new(clock::unix_s(), &author, Origin::Command, "unload", &target);
    history.record(&Entry { before: Some(json!({ "versions": versions })), ..entry })?;
    // A trial ends with what it was tried on.
    history.reconcile(None, clock::unix_s()).map(drop)
}

fn name(path: PathBuf, own: Namespace) -> String {
    let Some(link) = LinkPin::parse(path.clone()) else {
        // Another version named it.
        return format!("the interface of {}", file_name(&path));
    };
    let index = link.interface_index;
    match link.place(own) {
        Ok(Place::Here { name, .. }) => name,
        Ok(Place::Elsewhere) => format!("interface {index} of another network namespace"),
        Ok(Place::Gone) => format!("interface {index}, which is gone"),
        // It goes with all others; what cannot be removed is told then.
        Err(_) => format!("interface {index}"),
    }
}
