//! What the daemon looks at every second: the interfaces, the clocks, and the policy that others may have changed.

use std::collections::BTreeSet;

use super::{Running, feed::Event, watch::Watch};
use crate::{
    change::{clocks, note_ends},
    clock,
    kernel::{
        apply::{is_trial_over, retime},
        incidents::change,
        read,
    },
};

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Looks {
    lost: BTreeSet<String>,
    kept: Kept,
    watch: Watch,
}

/// For which policy, and with how many nanoseconds between the two clocks, the ends of rules were looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    generation: u64,
    between_ns: u64,
}

/// The coarse clock steps behind the other one; more than this between two looks is a clock that was set.
const CLOCKS_APART_NS_MAX: u64 = 500_000_000;

impl Looks {
    /// Looks.
    pub(super) fn look(&mut self, running: &Running) {
        self.look_at_interfaces(running);
        self.keep_time(running);
        self.watch.look(&running.maps, &running.feed);
        if self.watch.has_ended_incidents() {
            forget_ended(running);
        }
    }

    /// Says once of each interface that it is lost.
    fn look_at_interfaces(&mut self, running: &Running) {
        for attachment in &running.attachments {
            // What cannot be read now can at the next look, and is an error of the metrics meanwhile.
            let is_lost = running.is_attached(attachment).is_ok_and(|is_attached| !is_attached);
            if !is_lost || !self.lost.insert(attachment.interface.clone()) {
                continue;
            }
            let interface = &attachment.interface;
            running.feed.tell(Event::InterfaceLost { interface: interface.clone() });
            if running.lock.is_current() {
                tracing::warn!(
                    interface = %interface,
                    "the interface was deleted, nothing is limited on it: when it is there again, restart detector"
                );
            } else {
                tracing::warn!(
                    interface = %interface,
                    "the program was unloaded under this daemon, which limits nothing any more: end or restart it"
                );
            }
        }
    }

    /// Writes down that a trial is over, which the program sees by itself, and moves the ends of rules when the clock of the
    /// wall was set.
    fn keep_time(&mut self, running: &Running) {
        let kept = &mut self.kept;
        let clocks = clocks(&running.maps);
        let between_ns = clocks.unix_ns.saturating_sub(clocks.kernel_ns);
        let is_kept = kept.generation == read::settings(&running.maps).active
            && kept.between_ns.abs_diff(between_ns) < CLOCKS_APART_NS_MAX
            && !is_trial_over(&running.maps);
        if is_kept {
            return;
        }
        // Who applies a policy at this moment does both; what is left to do is done at the next look.
        let Ok(_lock) = running.pins.try_lock_policy() else { return };
        match note_ends(&running.maps, &running.history) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("that a trial ended is not recorded: {error}"),
            Err(error) => tracing::error!("cannot tell which policy is active: {error}"),
        }
        match retime(&running.maps, clocks) {
            Ok(0) => {}
            Ok(moved) => tracing::warn!("the clock was set: the ends of rules were moved ({moved} classes)"),
            Err(error) => tracing::error!("cannot keep the ends of rules: {error}"),
        }
        *kept = Kept { generation: read::settings(&running.maps).active, between_ns };
    }
}

/// Lets incident rules go that have ended: the program passes them over by itself.
fn forget_ended(running: &Running) {
    // Who changes the policy at this moment does it too.
    let Ok(_lock) = running.pins.try_lock_policy() else { return };
    let changed = running.maps_to_change().and_then(|mut maps| {
        let clocks = clocks(&maps);
        let changed = change(&mut maps, clocks, Vec::new(), |_| false)?;
        let in_force = read::incidents(&maps)?;
        if let Err(error) = running.history.keep_incidents(&in_force, &[], clock::unix_s()) {
            tracing::warn!("that incident rules have ended is not kept: {error}");
        }
        Ok(changed)
    });
    match changed {
        Ok(changed) => {
            for incident in changed.removed {
                let (id, action) = (incident.id, incident.action.to_string());
                tracing::info!(incident = id, action, reason = %incident.reason, "an incident rule has ended");
            }
        }
        Err(failure) => tracing::error!("incident rules that have ended stay listed: {}", failure.message),
    }
}
