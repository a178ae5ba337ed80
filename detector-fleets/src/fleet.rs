//! A fleet, as far as it is known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    cells::Cell,
    cut::COLLATERAL_MAX,
    explanation::Explanation,
    limits::SOURCES_OF_CELL_MIN,
    observation::ServiceId,
    source::Source,
    traits::{Key, Traits},
    usage::{self, Usage},
};

/// What two fleets have in common, [`Traits::similarity`], from which on they are one.
pub const SIMILARITY_MIN: f64 = 0.5;

/// Members that a fleet has when it begins, and while it may be acted on, at least.
pub const MEMBERS_MIN: usize = SOURCES_OF_CELL_MIN as usize;

const DAY_S: u64 = 24 * 3600;

/// A fleet that was not seen for so long is asked for no more members: what it was known by is not there any more.
pub const QUIET_S: u64 = DAY_S;

/// A fleet that was not seen for so long is forgotten.
pub const FORGOTTEN_S: u64 = 14 * DAY_S;

/// The part of the most members that it had lately which has to be active in a window if the fleet is to be there without an alarm: of users
/// that were taken for members there are fewer.
pub const PRESENT_MIN: f64 = 0.1;

/// What is kept of [`Fleet::most`] from one look at a window that has all of it to the next: for those of a day, an hour later.
const MOST_KEPT: f64 = 47.0 / 48.0;

/// The number of a fleet: no other one has it, and it keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FleetId(pub u64);

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// When it was last active at the service, seconds since the Unix epoch, to the minute.
    pub last_s: u64,
    /// When most of what it sent in an epoch was last dropped, since it is a member; 0: never. What it would have done is not seen, so in a window
    /// with such an epoch it is judged by its clients with a ClientHello only, and not at all where it has none.
    pub refused_s: u64,
    /// Its exchanges in the window in which it was last found to be one.
    pub exchanges: u32,
    /// Its connections in that window, at most 65,535.
    pub connections: u16,
    /// Its different ClientHellos in that window, at most 255.
    pub tls_keys: u8,
    /// Whether it made more connections in it than all but [`BUSY_SHARE`](crate::limits::BUSY_SHARE) of the users, and than
    /// [`BUSY_OF_MEMBERS`](crate::limits::BUSY_OF_MEMBERS) times a member.
    pub is_busy: bool,
}

impl Member {
    /// Whether many clients seem to be behind it, so that what is done to it would be done to all of them.
    pub fn is_shared(&self) -> bool {
        usage::is_shared(self.tls_keys, self.is_busy)
    }
}

/// A source that may be a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Who.
    pub source: Source,
    /// Whether many clients seem to be behind it, as [`Member::is_shared`] has it.
    pub is_shared: bool,
}

/// One actor behind many sources, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// Its number.
    pub id: FleetId,
    /// Numbers of fleets that became part of it, in their order, the newest [`JOINED_MAX`](crate::limits::JOINED_MAX).
    pub joined: Vec<FleetId>,
    /// Its target.
    pub service: ServiceId,
    /// When one in twenty of its first members had come, seconds since the Unix epoch: users among them were there earlier.
    pub first_seen_s: u64,
    /// The first alarm: the end of the window.
    pub alarmed_at_s: u64,
    /// The last one.
    pub last_alarm_s: u64,
    /// When it was last seen: the end of the last window with an alarm, or with [`PRESENT_MIN`] of its members. Sources are new for a day only,
    /// and alarms are about new ones, so a fleet that keeps its sources has none after some days, and is there all the same.
    pub last_seen_s: u64,
    /// The most members that were active in a window that had all of it; half of that is forgotten in 33 looks at such windows.
    pub most: f64,
    /// Members by source. One that is not active for [`MEMBER_S`](crate::limits::MEMBER_S) is none any more.
    pub members: BTreeMap<Source, Member>,
    /// Sources that may be members, in their order: those of the last look that are above the lower cut only.
    pub suspects: Vec<Suspect>,
    /// Users that are expected among the members that a look found: the last one at a window that had all of it, most of which was asked.
    pub innocents: f64,
    /// The share of users' connections that is expected to be theirs: what acting on members would cost.
    pub collateral: f64,
    /// Sources at the service in that look that are users.
    pub users: f64,
    /// What it uses, what its population normally did, and what acting on it would cost others.
    pub usage: Usage,
    /// Fingerprints that members are known by, where nearly nobody else has them.
    pub key: Option<Key>,
    /// What members have in common; `None`: none was found.
    pub traits: Option<Traits>,
    /// Until when it was said of all sources whether they are members: the end of the last window that had all of it.
    pub decided_s: u64,
    /// Cells with an alarm, at the last one.
    pub cells: Vec<Cell>,
    /// Why it is taken for a fleet, at the last alarm that could not be people behind a relay, if there was one.
    pub explanation: Explanation,
}

impl Fleet {
    /// Exchanges in a day: of its members that were active in the last one that any was, each in the window in which it was last found to be one.
    pub fn exchanges(&self) -> u64 {
        let last_s = self.members.values().map(|member| member.last_s).max().unwrap_or(0);
        let of_day = self.members.values().filter(|member| member.last_s + DAY_S > last_s);
        of_day.map(|member| u64::from(member.exchanges)).sum()
    }

    /// Whether what is known of it allows acting on its members: it is no new uniform population, it has [`MEMBERS_MIN`] of them, and that would
    /// cost at most [`COLLATERAL_MAX`]. Who acts has more guardrails.
    pub fn may_be_acted_on(&self) -> bool {
        !self.explanation.is_new_uniform_population
            && self.members.len() >= MEMBERS_MIN
            && self.collateral <= COLLATERAL_MAX
    }

    /// Whether it was seen not too long ago.
    pub fn is_live(&self, now_s: u64) -> bool {
        self.last_seen_s + QUIET_S > now_s
    }

    /// Looks whether it is there, in a window that has all of it.
    pub(crate) fn look(&mut self, start_s: u64, end_s: u64) {
        let active = self.members.values().filter(|member| member.last_s >= start_s).count();
        self.most = (active as f64).max(self.most * MOST_KEPT);
        if active >= MEMBERS_MIN && active as f64 >= PRESENT_MIN * self.most {
            self.last_seen_s = self.last_seen_s.max(end_s);
        }
    }

    /// Whether a group without known members is of this fleet all the same: it is alike, or has an alarm of the same cell where one of them has no
    /// members to compare.
    pub(crate) fn is_like(&self, traits: Option<&Traits>, cells: &[Cell]) -> bool {
        match (&self.traits, traits) {
            (Some(own), Some(traits)) => own.similarity(traits) >= SIMILARITY_MIN,
            _ => cells.iter().any(|cell| self.cells.contains(cell)),
        }
    }
}
