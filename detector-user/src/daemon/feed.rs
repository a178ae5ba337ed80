//! What happens, for whoever follows: the API's followers, each behind a bounded queue.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{Receiver, Sender, channel};
use utoipa::ToSchema;

use crate::clock;

/// Events that wait for a follower at most; one that lags further is told how many it missed.
pub const EVENTS_QUEUED_MAX: usize = 1024;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum EventKind {
    /// A packet was dropped, or would have been; sampled in the kernel.
    Drop,
    /// The daemon read its policy file again.
    Reload,
    /// Another policy is active, whoever applied it.
    PolicyApplied,
    /// A policy is on trial no more.
    TrialEnded,
    /// The end of a rule has come.
    RuleEnded,
    /// A responder added a rule.
    IncidentAdded,
    /// A responder took a rule back.
    IncidentUndone,
    /// Clients of a service show a fingerprint that is new there.
    Fingerprint,
    /// A fingerprint is another client's too: no rule about ClientHellos acts on it.
    FingerprintConflict,
    /// A fleet was found, grew, has an alarm again, has others as its parts, or ended; or something else is done about it.
    Fleet,
    /// Something needs a hand, see `detector status`.
    Degraded,
    /// It needs none any more.
    Recovered,
    /// The follower was too slow.
    Missed,
}

impl EventKind {
    /// As JSON and the command line write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reload => "reload",
            Self::PolicyApplied => "policy_applied",
            Self::TrialEnded => "trial_ended",
            Self::RuleEnded => "rule_ended",
            Self::IncidentAdded => "incident_added",
            Self::IncidentUndone => "incident_undone",
            Self::Fingerprint => "fingerprint",
            Self::FingerprintConflict => "fingerprint_conflict",
            Self::Fleet => "fleet",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::Missed => "missed",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A packet was dropped, or would have been; sampled in the kernel.
    Drop(Dropped),
    /// The daemon read its policy file again.
    Reload {
        /// Whether it was applied.
        applied: bool,
        /// The file.
        file: String,
        /// Why it was not.
        error: Option<String>,
    },
    /// Another policy is active, whoever applied it.
    PolicyApplied {
        /// Its number.
        epoch: u32,
        /// Where it came from.
        file: String,
        /// Seconds until it is taken back unless it is confirmed; none: it stays.
        confirm_in_s: Option<u64>,
    },
    /// A policy is on trial no more.
    TrialEnded {
        /// Whether it stays; else it was taken back.
        confirmed: bool,
        /// The policy that is active now.
        epoch: u32,
    },
    /// The end of a rule has come.
    RuleEnded {
        /// Its name; `incident N` for one that a responder added.
        rule: String,
    },
    /// A responder added a rule.
    IncidentAdded {
        /// Its number.
        id: u64,
        /// `allow`, `block`, or `throttle` with its rates.
        action: String,
        /// The first of its targets.
        target: String,
        /// How many there are.
        target_count: usize,
        /// When it ends, seconds since the Unix epoch; none: when it is undone.
        until_s: Option<u64>,
        /// Who added it.
        by: String,
        /// Why.
        reason: String,
    },
    /// A responder took a rule back.
    IncidentUndone {
        /// Its number.
        id: u64,
    },
    /// Clients of a service show a fingerprint that is new there. At most ten a second are told.
    Fingerprint {
        /// The service.
        service: String,
        /// `tcp` or `quic`.
        transport: String,
        /// Its key, hexadecimal, see `detector top fingerprints`. Over QUIC that of the shape of its first packets, which others may
        /// have too.
        key: String,
        /// The JA4 of its ClientHello without the extensions that come and go.
        stable_ja4: String,
        /// The JA4 with them.
        ja4: String,
        /// What software is known to have such a JA4.
        label: Option<String>,
    },
    /// A ClientHello has the key of another client, which takes somebody who makes one up: no rule acts on the JA4 of either any more,
    /// until the key is not counted any longer. To limit its sources, or its SYN, does help. Told once, of those that rules are about.
    FingerprintConflict {
        /// The service where it was seen.
        service: String,
        /// The key, hexadecimal, see `detector top fingerprints`.
        key: String,
        /// The stable JA4 that it has.
        stable_ja4: String,
        /// That of the other client.
        other_stable_ja4: String,
        /// The rules that stop acting on it; `incident N` for one that a responder added.
        rules: Vec<String>,
    },
    /// What is new of a fleet, or of what is done about it.
    Fleet(FleetEvent),
    /// Something needs a hand.
    Degraded {
        /// What.
        what: Need,
        /// The interface, or the table.
        subject: String,
        /// What to do.
        reason: String,
    },
    /// It needs none any more.
    Recovered {
        /// What did.
        what: Need,
        /// The interface, or the table.
        subject: String,
    },
    /// The follower was too slow.
    Missed {
        /// How many events it does not get.
        events: u64,
    },
}

/// What needs a hand while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// An interface was deleted, or the program was unloaded: nothing is limited on it.
    InterfaceLost,
    /// A table holds more entries that are being limited than it is sized for: newcomers share budgets.
    TableFull,
    /// There is no room to follow handshakes, or to count fingerprints: some are not known.
    HandshakesUnseen,
}

/// What is new of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FleetNews {
    /// It is there for the first time.
    Found,
    /// It has half as many members again as were told last, or more.
    Grown,
    /// It has an alarm six hours of detection after the last one that was told.
    AlarmAgain,
    /// Others were found to be parts of it, and are no fleets any more.
    Joined,
    /// It was not seen for a day of detection.
    Ended,
    /// It is shown with the command that would throttle it.
    Suggested,
    /// It is throttled from now on, or otherwise than before.
    Throttled,
    /// Its budgets are smaller.
    Tightened,
    /// It is throttled no more.
    Released,
}

impl FleetNews {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Grown => "grown",
            Self::AlarmAgain => "alarm again",
            Self::Joined => "joined",
            Self::Ended => "ended",
            Self::Suggested => "suggested",
            Self::Throttled => "throttled",
            Self::Tightened => "tightened",
            Self::Released => "released",
        }
    }
}

/// A fleet, in short; `detector fleets ID` has all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetEvent {
    /// What is new of it.
    pub news: FleetNews,
    /// Its number.
    pub id: String,
    /// Its target.
    pub service: String,
    /// Sources that belong to it.
    pub members: u64,
    /// Sources that may.
    pub suspects: u64,
    /// Exchanges of its members, in a day of detection at most.
    pub exchanges: u64,
    /// When one in twenty of its first members had come: users among them were there earlier.
    pub first_seen: String,
    /// Its last alarm.
    pub last_alarm: String,
    /// The strongest evidence, in a sentence; of what is done, why; where others are parts of it now, which.
    pub says: String,
    /// Nothing tells it from devices or an app that were launched, or another innocent explanation.
    pub is_new_uniform_population: bool,
    /// Share of the users' connections at the service that acting on it would hit.
    pub predicted_collateral: f64,
}

/// A dropped packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// Its source address.
    #[schema(value_type = String)]
    pub source: std::net::IpAddr,
    /// Its source port; 0 where there is none.
    pub source_port: u16,
    /// Its destination address.
    #[schema(value_type = String)]
    pub destination: std::net::IpAddr,
    /// Its destination port; 0 where there is none.
    pub destination_port: u16,
    /// Its protocol number.
    pub protocol: u8,
    /// Bytes of its frame.
    pub bytes: u32,
    /// Number of the interface that it came in by.
    pub interface: u32,
    /// The service that it was sent to.
    pub service: String,
    /// Why.
    pub reason: String,
    /// The rule that decided; `incident N` for one that a responder added; none: no rule did.
    pub rule: Option<String>,
    /// Whether it passed all the same, since the mode is `shadow`.
    pub shadow: bool,
}

impl Event {
    /// Its kind.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Drop(_) => EventKind::Drop,
            Self::Reload { .. } => EventKind::Reload,
            Self::PolicyApplied { .. } => EventKind::PolicyApplied,
            Self::TrialEnded { .. } => EventKind::TrialEnded,
            Self::RuleEnded { .. } => EventKind::RuleEnded,
            Self::IncidentAdded { .. } => EventKind::IncidentAdded,
            Self::IncidentUndone { .. } => EventKind::IncidentUndone,
            Self::Fingerprint { .. } => EventKind::Fingerprint,
            Self::FingerprintConflict { .. } => EventKind::FingerprintConflict,
            Self::Fleet(_) => EventKind::Fleet,
            Self::Degraded { .. } => EventKind::Degraded,
            Self::Recovered { .. } => EventKind::Recovered,
            Self::Missed { .. } => EventKind::Missed,
        }
    }
}

/// An event and when it was noticed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    /// An event of now.
    pub fn now(event: Event) -> Self {
        Self { at_ms: clock::unix_ns() / 1_000_000, event }
    }
}

/// Where events are told. Drops have a queue of their own: there are so many of them that a follower may miss some, and
/// nothing else for that.
#[derive(Debug, Clone)]
pub struct Feed {
    drops: Sender<Entry>,
    others: Sender<Entry>,
}

impl Feed {
    /// Nobody follows yet.
    pub fn new() -> Self {
        Self { drops: channel(EVENTS_QUEUED_MAX).0, others: channel(EVENTS_QUEUED_MAX).0 }
    }

    /// Whether anybody follows the drops.
    pub fn has_drops_followed(&self) -> bool {
        self.drops.receiver_count() > 0
    }

    /// Tells those who follow.
    pub fn tell(&self, event: Event) {
        let queue = if event.kind() == EventKind::Drop { &self.drops } else { &self.others };
        // An error says only that nobody follows.
        let _ = queue.send(Entry::now(event));
    }

    /// Follows the drops from now on.
    pub fn follow_drops(&self) -> Receiver<Entry> {
        self.drops.subscribe()
    }

    /// Follows everything but drops from now on.
    pub fn follow_others(&self) -> Receiver<Entry> {
        self.others.subscribe()
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_displace_nothing_else_and_are_told_to_those_who_want_them() {
        let feed = Feed::new();
        let mut others = feed.follow_others();
        assert!(!feed.has_drops_followed());
        let applied = Event::PolicyApplied { epoch: 1, file: String::new(), confirm_in_s: None };
        feed.tell(applied.clone());
        let mut drops = feed.follow_drops();
        assert!(feed.has_drops_followed());
        let dropped = Event::Drop(Dropped {
            source: [192, 0, 2, 1].into(),
            source_port: 1,
            destination: [192, 0, 2, 2].into(),
            destination_port: 443,
            protocol: 17,
            bytes: 60,
            interface: 1,
            service: "api".to_owned(),
            reason: "packets".to_owned(),
            rule: None,
            shadow: false,
        });
        for _ in 0..=EVENTS_QUEUED_MAX {
            feed.tell(dropped.clone());
        }
        assert_eq!(others.try_recv().unwrap().event, applied);
        assert!(others.try_recv().is_err(), "no drop");
        assert!(drops.try_recv().is_err(), "some are missing");
        assert_eq!(drops.try_recv().unwrap().event, dropped);
    }
}
