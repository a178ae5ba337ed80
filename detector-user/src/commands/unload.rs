//! `detector unload`: nothing of detector stays in the kernel.

use serde::Serialize;

use super::{EXIT_DONE, Failure, print_json, print_line};
use crate::{
    cli::UnloadArgs,
    kernel::{
        links::{LinkPin, Namespace, Place},
        pins::Pins,
        probe::probe,
    },
};

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    unloaded: bool,
    interfaces: Vec<String>,
}

/// Detaches and removes the pins.
pub fn unload(args: &UnloadArgs) -> Result<u8, Failure> {
    probe()?;
    let pins = Pins::new(&args.read.pins);
    if pins.is_daemon_alive() && !args.force {
        return Err(Failure::failed(format_args!(
            "a daemon runs on {}: stop it (it detaches on SIGTERM), or unload under it with --force",
            pins.root().display()
        )));
    }
    let own = Namespace::own()?;
    let interfaces: Vec<_> = pins.links().iter().map(|link| name(link, own)).collect();
    let was_there = pins.directory().exists();
    if was_there {
        pins.remove()?;
    }
    if args.read.json {
        print_json(&Answer { unloaded: was_there, interfaces })?;
    } else if !was_there {
        print_line(&format!("nothing to unload in {}", pins.root().display()));
    } else {
        let from = if interfaces.is_empty() { "no interface".to_owned() } else { interfaces.join(", ") };
        print_line(&format!("unloaded: detached from {from}, pins removed"));
    }
    Ok(EXIT_DONE)
}

fn name(link: &LinkPin, own: Namespace) -> String {
    let index = link.interface_index;
    match link.place(own) {
        Ok(Place::Here { name, .. }) => name,
        Ok(Place::Elsewhere) => format!("interface {index} of another network namespace"),
        Ok(Place::Gone) => format!("interface {index}, which is gone"),
        // It goes with all others; what cannot be removed is told then.
        Err(_) => format!("interface {index}"),
    }
}
