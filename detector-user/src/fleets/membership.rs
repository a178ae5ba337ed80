//! Who belongs to which fleet, for applications that know accounts: what changes, and all of it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
};

use detector_fleets::{fleet::Suspect, source::Source};
use serde::Serialize;
use utoipa::ToSchema;

use super::memory::Memory;
use crate::commands::rfc3339;

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// It is a member.
    Member,
    /// It may be.
    Suspect,
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It belongs to the fleet from now on, or with another confidence, or did before anybody followed.
    Joined,
    /// It does not any more.
    Left,
}

/// A source that joined a fleet, or left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetMembership)]
pub struct Membership {
    /// Which of the two.
    pub change: Change,
    /// The fleet's number.
    pub fleet: String,
    /// Its target.
    pub service: String,
    /// An IPv4 address as /32, or an IPv6 /64.
    pub source: String,
    /// How sure it is, or was.
    pub confidence: Confidence,
    /// Since when it is said to belong.
    pub since: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Belongs {
    confidence: Confidence,
    since_s: u64,
}

/// A source of a fleet.
type Place = (u64, Source);

/// Who belongs to which fleet.
#[derive(Debug, Clone, Default)]
pub struct Memberships {
    services: BTreeMap<u64, String>,
    belongs: BTreeMap<Place, Belongs>,
}

impl Memberships {
    /// Those of a memory that was restored: each since the fleet's first alarm, as nobody knows better.
    pub fn restored(memory: &Memory) -> Self {
        let mut own = Self::default();
        let scale = memory.scale();
        for fleet in memory.fleets() {
            own.take(fleet.id.0, memory, scale.unix_s(fleet.alarmed_at_s));
        }
        own
    }

    /// Follows what a memory says now, and says what changed, those who left first.
    pub fn follow(&mut self, memory: &Memory, now_s: u64) -> Vec<Membership> {
        let before = std::mem::take(self);
        for fleet in memory.fleets() {
            self.take(fleet.id.0, memory, now_s);
        }
        for (place, belongs) in &mut self.belongs {
            if let Some(earlier) =
                before.belongs.get(place).filter(|earlier| earlier.confidence == belongs.confidence)
            {
                belongs.since_s = earlier.since_s;
            }
        }
        let left = before.belongs.keys().filter(|place| !self.belongs.contains_key(place));
        let mut changes: Vec<_> = left.filter_map(|place| before.told(Change::Left, place)).collect();
        let is_new = |(place, belongs): &(&Place, &Belongs)| {
            before.belongs.get(place).is_none_or(|earlier| earlier.confidence != belongs.confidence)
        };
        let joined = self.belongs.iter().filter(is_new);
        changes.extend(joined.filter_map(|(place, _)| self.told(Change::Joined, place)));
        changes
    }

    fn take(&mut self, number: u64, memory: &Memory, since_s: u64) {
        let Some(fleet) = memory.fleets().find(|fleet| fleet.id.0 == number) else { return };
        self.services.insert(number, memory.services().name(fleet.service).to_owned());
        for source in fleet.members.keys() {
            self.belongs.insert((number, *source), Belongs { confidence: Confidence::Member, since_s });
        }
        for Suspect { source, .. } in &fleet.suspects {
            if let Entry::Vacant(place) = self.belongs.entry((number, *source)) {
                place.insert(Belongs { confidence: Confidence::Suspect, since_s });
            }
        }
    }

    fn told(&self, change: Change, place: &Place) -> Option<Membership> {
        let (fleet, source) = place;
        let belongs = self.belongs.get(place)?;
        Some(Membership {
            change,
            fleet: fleet.to_string(),
            service: self.services.get(fleet).cloned().unwrap_or_default(),
            source: source.to_string(),
            confidence: belongs.confidence,
            since: rfc3339(belongs.since_s),
        })
    }

    /// All that belong to some fleet, by fleet and source.
    pub fn all(&self) -> impl Iterator<Item = Membership> {
        self.belongs.keys().filter_map(|place| self.told(Change::Joined, place))
    }

    /// The same as lines of CSV, with a head.
    pub fn csv(&self) -> String {
        let mut text = "fleet,service,source,confidence,since\n".to_owned();
        for one in self.all() {
            let confidence = match one.confidence {
                Confidence::Member => "member",
                Confidence::Suspect => "suspect",
            };
            // Names of services have no commas or quotes.
            let _ = writeln!(text, "{},{},{},{confidence},{}", one.fleet, one.service, one.source, one.since);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleets::{Scale, fixtures};

    #[test]
    fn who_joins_is_told_once_with_when_and_who_leaves_too() {
        let mut memory = fixtures::memory(Scale::MINUTE);
        let mut memberships = Memberships::default();
        let mut here = std::collections::BTreeSet::new();
        for number in 0..fixtures::QUIET_EPOCHS + 6 {
            memory.take(&fixtures::epoch(number));
            if number < fixtures::QUIET_EPOCHS {
                continue;
            }
            for change in memberships.follow(&memory, 1_763_816_400 + number) {
                // Whoever follows has the same at any time.
                match change.change {
                    Change::Joined => drop(here.insert(change.source)),
                    Change::Left => assert!(here.remove(&change.source), "who was not there has left"),
                }
            }
            assert!(here.iter().eq(
                memberships.all().map(|one| one.source).collect::<std::collections::BTreeSet<_>>().iter()
            ));
        }
        let joined = here.len();
        assert!(joined as u32 >= fixtures::FLEET * 9 / 10, "{joined}");
        assert_eq!(memberships.follow(&memory, 9), [], "nothing happened");
        let csv = memberships.csv();
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!((lines[0], lines.len()), ("fleet,service,source,confidence,since", joined + 1));
        assert!(
            lines[1].starts_with("1,api,") && lines[1].contains(",member,2025-11-22T13:0"),
            "{}",
            lines[1]
        );
        // After two days without it all have left.
        let mut epoch = fixtures::epoch(0);
        (epoch.names, epoch.rows) = (Vec::new(), Vec::new());
        for hour in 0..50 {
            epoch.start_s = fixtures::START_S + (fixtures::QUIET_EPOCHS + 6) * 900 + hour * 3600;
            memory.take(&epoch);
        }
        let changes = memberships.follow(&memory, 9);
        assert_eq!(changes.len(), joined);
        assert!(changes.iter().all(|change| change.change == Change::Left));
        assert_eq!(memberships.all().count(), 0);
    }
}
