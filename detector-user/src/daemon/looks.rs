//! What the daemon looks at every second: the interfaces, the clocks, and the policy that others may have changed.

use std::{collections::BTreeSet, mem::offset_of, sync::atomic::Ordering};

use detector_common::{
    budget::ticks,
    counters::{HandshakeEvent, handshake_event_slot},
    generation::Settings,
};

use super::{
    Running,
    feed::{Event, Need},
    watch::Watch,
};
use crate::{
    change::{clocks, note_ends},
    clock,
    commands::status::{FINGERPRINTS_FULL, FLOWS_FULL, UNSEEN_NS, table_full},
    kernel::{
        apply::{is_trial_over, retime},
        client_rules,
        incidents::change,
        read,
    },
};

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What was told to need a hand. After a look that panics nobody knows: what still needs one is told again, what no
    /// longer does is not.
    needs: BTreeSet<(Need, String)>,
    /// When the tables were looked at.
    tables_ns: Option<u64>,
    unseen: [Unseen; 2],
    named: Option<Named>,
    /// Whether rules about fingerprints could not be brought up to date at the last look.
    is_failing: bool,
    kept: Kept,
    watch: Watch,
}

/// Handshakes that there was no room for, of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Unseen {
    /// How many at the last look.
    count: Option<u64>,
    /// When there were more than at the look before.
    at_ns: u64,
}

/// For which policy, with how many names given, and when it was looked whom the rules about fingerprints are about.
#[derive(Debug, Clone, Copy)]
struct Named {
    generation: u64,
    given: u64,
    at_ns: u64,
}

/// So long after a rule about fingerprints has ended the next one decides, at most, ns.
const RULES_EVERY_NS: u64 = 10_000_000_000;

/// For which policy, and with how many nanoseconds between the two clocks, the ends of rules were looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    generation: u64,
    between_ns: u64,
}

/// Time between two looks at how full the tables are, ns: each takes 8 ms for a million entries.
const TABLES_EVERY_NS: u64 = 10_000_000_000;

/// The coarse clock steps behind the other one; more than this between two looks is a clock that was set.
const CLOCKS_APART_NS_MAX: u64 = 500_000_000;

impl Looks {
    /// Looks.
    pub(super) fn look(&mut self, running: &Running) {
        self.look_at_interfaces(running);
        self.look_at_tables(running);
        self.keep_time(running);
        self.look_at_names(running);
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
            if !is_lost {
                continue;
            }
            let reason = if running.lock.is_current() {
                "the interface was deleted, nothing is limited on it: when it is there again, restart detector"
            } else {
                "the program was unloaded under this daemon, which limits nothing any more: end or restart it"
            };
            self.need(running, Need::InterfaceLost, &attachment.interface, reason);
        }
    }

    /// Says once that a table is too small for what happens, and once that it is not any more.
    fn look_at_tables(&mut self, running: &Running) {
        let now_ns = clock::kernel_ns();
        if self.tables_ns.is_some_and(|before_ns| now_ns.saturating_sub(before_ns) < TABLES_EVERY_NS) {
            return;
        }
        self.tables_ns = Some(now_ns);
        self.look_at_handshakes(running, now_ns);
        for (name, table) in read::budget_tables(&running.maps) {
            let fill = read::fill(table, ticks(now_ns));
            let busy_max = fill.busy_max();
            if fill.busy > busy_max {
                self.need(running, Need::TableFull, name, &table_full(name, fill.busy, busy_max));
            } else if fill.busy <= busy_max - busy_max / 10 {
                self.need_no_more(running, Need::TableFull, name, "the table has room again");
            }
        }
    }

    /// Has the rules about fingerprints act on those that got a name since.
    fn look_at_names(&mut self, running: &Running) {
        let now = Named {
            generation: read::settings(&running.maps).active,
            given: running.exemplars.given.load(Ordering::Relaxed),
            at_ns: clock::kernel_ns(),
        };
        let is_kept = self.named.is_some_and(|before| {
            (before.generation, before.given) == (now.generation, now.given)
                && now.at_ns.saturating_sub(before.at_ns) < RULES_EVERY_NS
        });
        if is_kept {
            return;
        }
        self.named = Some(now);
        if !client_rules::may_be_there(&running.maps) {
            running.client_rules.store(0, Ordering::Relaxed);
            return;
        }
        // Who changes the policy at this moment does it for what has a name then; the rest at the next look.
        let Ok(_lock) = running.pins.try_lock_policy() else {
            self.named = None;
            return;
        };
        let refreshed = running.maps_to_change().and_then(|mut maps| Ok(client_rules::refresh(&mut maps)?));
        match refreshed {
            Ok(count) => {
                running.client_rules.store(count as u64, Ordering::Relaxed);
                self.is_failing = false;
            }
            Err(failure) => {
                // Once, until they can be again.
                if !self.is_failing {
                    tracing::error!("rules act on no further fingerprints: {}", failure.message);
                }
                self.is_failing = true;
            }
        }
    }

    /// Says once that handshakes have no room, and once that for a while they had. It is written down for `status`.
    fn look_at_handshakes(&mut self, running: &Running, now_ns: u64) {
        // What cannot be read now can at the next look.
        let Ok(counters) = read::counters(&running.maps) else { return };
        let kinds = [
            (HandshakeEvent::FlowsFull, offset_of!(Settings, flows_full_ns), "handshakes", FLOWS_FULL),
            (
                HandshakeEvent::FingerprintsFull,
                offset_of!(Settings, fingerprints_full_ns),
                "fingerprints",
                FINGERPRINTS_FULL,
            ),
        ];
        for (place, (event, offset, subject, reason)) in kinds.into_iter().enumerate() {
            let count = counters[handshake_event_slot(event) as usize];
            let unseen = &mut self.unseen[place];
            let has_grown = unseen.count.replace(count).is_some_and(|before| count > before);
            if has_grown {
                unseen.at_ns = now_ns;
                running.maps.settings.write_word(0, offset / size_of::<u64>(), now_ns);
                self.need(running, Need::HandshakesUnseen, subject, reason);
            } else if now_ns.saturating_sub(unseen.at_ns) > UNSEEN_NS {
                self.need_no_more(running, Need::HandshakesUnseen, subject, "there is room again");
            }
        }
    }

    fn need(&mut self, running: &Running, what: Need, subject: &str, reason: &str) {
        if self.needs.insert((what, subject.to_owned())) {
            let (subject, reason) = (subject.to_owned(), reason.to_owned());
            tracing::warn!(%subject, "{reason}");
            running.feed.tell(Event::Degraded { what, subject, reason });
        }
    }

    fn need_no_more(&mut self, running: &Running, what: Need, subject: &str, since: &str) {
        let need = (what, subject.to_owned());
        if self.needs.remove(&need) {
            let (what, subject) = need;
            tracing::info!(%subject, "{since}");
            running.feed.tell(Event::Recovered { what, subject });
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
