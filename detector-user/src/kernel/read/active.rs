//! The active policy: what it says of a source, and by which names.

use std::sync::atomic::{Ordering, fence};

use aya::maps::{MapData, MapError};
use detector_common::{
    address::{Address, Family},
    budget::Budget,
    generation::Generation,
    limits::{
        CELLS_MAX, CLASSES_MAX, ENDS_MAX, INCIDENT_CELLS_MAX, INCIDENT_CLASSES_MAX, MANIFEST_BYTES,
        PARENT_CLASSES_MAX, POLICY_SLOTS,
    },
    policy::{
        Action, Class, DEFAULT_ROW, ParentClass, RuleValue, incident_cell_place, incident_tree, is_enforced,
        slot_place,
    },
    ranges::{NodeV4, NodeV6, find},
};

use super::{LOOKS_MAX, ReadError, generation, hash, now, settings};
use crate::{
    kernel::{
        mapped::{Access, Mapped},
        maps::Maps,
    },
    policy::{
        compile::{Manifest, ManifestRule, Tables},
        incident::{Incident, Incidents},
    },
};

/// The active policy, during one look at it; [`consistently`] gives it.
pub struct Active<'a> {
    pub(super) maps: &'a Maps,
    generation: Generation,
}

/// Looks at the active policy, again if another one became active meanwhile: what a look returns is of one policy.
///
/// The slot of a generation is filled anew only when the generation is active no more. So if it still is after the look,
/// all that was read is its own.
pub fn consistently<T, E: From<ReadError>>(
    maps: &Maps,
    mut look: impl FnMut(&Active<'_>) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..LOOKS_MAX {
        let active = Active { maps, generation: generation(maps) };
        fence(Ordering::SeqCst);
        // What went wrong in a look at two policies is no error of either.
        let seen = look(&active);
        fence(Ordering::SeqCst);
        if generation(maps) == active.generation {
            return seen;
        }
    }
    Err(ReadError::Restless.into())
}

/// The policy that comes back if the one on trial is not confirmed, with the incident rules beside it; `None`: none is on trial,
/// or none came before it. For who holds the policy's lock.
///
/// # Errors
///
/// A map cannot be read, or the names of the policy.
pub fn tables_before_trial(maps: &Maps) -> Result<Option<Tables>, ReadError> {
    let settings = settings(maps);
    let before = Generation(settings.fallback);
    if settings.deadline == 0 || before.epoch() == 0 {
        return Ok(None);
    }
    Active::of(maps, before).tables()
}

/// The incident rules beside the active policy.
pub fn incidents(maps: &Maps) -> Result<Incidents, ReadError> {
    consistently(maps, |active| active.incidents())
}

impl<'a> Active<'a> {
    /// The policy of a generation that nobody changes now.
    pub(in crate::kernel) fn of(maps: &'a Maps, generation: Generation) -> Self {
        Self { maps, generation }
    }

    /// The maps that it stands in.
    pub(in crate::kernel) fn maps(&self) -> &'a Maps {
        self.maps
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Its epoch; 0: there is no policy yet.
    pub fn epoch(&self) -> u32 {
        self.generation.epoch()
    }

    /// The epoch at which the policy itself came: incident rules beside it change the other one. 0: there is no policy yet.
    pub fn policy_epoch(&self) -> u32 {
        match self.epoch() {
            0 => 0,
            _ => self.maps.policies.read(self.slot() as usize).epoch as u32,
        }
    }

    /// The epoch of the policy before it, also of one that was on trial and is taken back; 0: there was none. Another writer
    /// may be filling its slot, but not while a policy is on trial.
    pub fn policy_epoch_before(&self) -> u32 {
        let slot = (self.slot() as usize + 1) % POLICY_SLOTS;
        self.maps.policies.read(slot).epoch as u32
    }

    /// Its manifest; `None` before the first policy.
    pub fn manifest(&self) -> Result<Option<Manifest>, ReadError> {
        if self.epoch() == 0 {
            return Ok(None);
        }
        let map = &self.maps.manifest;
        let first = slot_place(self.generation.slot(), MANIFEST_BYTES / 4096, 0) as usize;
        let length = map.read(first)[0];
        if length > (MANIFEST_BYTES - size_of::<u64>()) as u64 {
            return Err(ReadError::Manifest(format!("{length} bytes are more than their map has")));
        }
        let json = text(length as usize, |chunk| map.read(first + chunk));
        serde_json::from_slice(&json).map(Some).map_err(|error| ReadError::Manifest(error.to_string()))
    }

    /// The incident rules beside it.
    pub fn incidents(&self) -> Result<Incidents, ReadError> {
        let Some(slot) = self.generation.incidents() else { return Ok(Incidents::default()) };
        let list = mapped::<[u64; 512]>(self.maps.incidents.get(&slot, 0)?)?;
        let length = list.read(0)[0] as usize;
        if length.saturating_add(size_of::<u64>()) > list.len() * 4096 {
            return Err(ReadError::Manifest(format!("{length} bytes are more than their map has")));
        }
        let json = text(length, |chunk| list.read(chunk));
        serde_json::from_slice(&json).map_err(|error| ReadError::Manifest(error.to_string()))
    }

    /// The names of all that may decide about a source.
    pub fn rules(&self) -> Result<Rules, ReadError> {
        Ok(Rules { manifest: self.manifest()?.unwrap_or_default(), incidents: self.incidents()? })
    }

    /// The class of a service's sources that no rule names.
    pub fn standard_class(&self, service: u16) -> Result<Class, ReadError> {
        let cell = self.element(&self.maps.cells, CELLS_MAX, "cell", DEFAULT_ROW + u32::from(service))?;
        self.class(cell.class as u16)
    }

    /// What it says of a source at a service, by the same lookups as the program's; `None` before the first policy.
    pub fn classify(&self, source: Address, service: u16) -> Result<Option<Standing>, ReadError> {
        if self.epoch() == 0 {
            return Ok(None);
        }
        let value = self.rule(self.slot(), source)?;
        let cell = value.first_cell().saturating_add(service.into());
        let cell = self.element(&self.maps.cells, CELLS_MAX, "cell", cell)?;
        let standing = self.lasting(cell.class as u16)?;
        let incident = self.incident_standing(source, service)?;
        let enforced = is_enforced(hash(self.maps, source, service), standing.class.enforced_percent);
        let decides = |incident: &Standing| !standing.class.prevails_over(&incident.class, enforced);
        Ok(Some(incident.filter(decides).unwrap_or(standing)))
    }

    /// What the incident rules say of a source at a service, whether the policy is stricter or not.
    fn incident_standing(&self, source: Address, service: u16) -> Result<Option<Standing>, ReadError> {
        let Some(slot) = self.generation.incidents() else { return Ok(None) };
        let value = self.rule(incident_tree(slot), source)?;
        let number = value.first_cell().saturating_add(service.into());
        if number as usize >= INCIDENT_CELLS_MAX {
            return Err(ReadError::Dangling { what: "cell of incident rules", number });
        }
        let cell = self.maps.cells.read(incident_cell_place(slot, number) as usize);
        let standing = self.lasting(cell.class as u16)?;
        Ok(Some(standing).filter(|standing| standing.class_number != 0))
    }

    /// The value of the most specific source prefix of a tree.
    fn rule(&self, tree: u32, source: Address) -> Result<RuleValue, ReadError> {
        let maps = self.maps;
        Ok(RuleValue(match source.family {
            Family::V4 => {
                let nodes = mapped::<NodeV4>(maps.rules_v4.get(&tree, 0)?)?;
                find::<NodeV4, _>(|number| node(&nodes, number), (source.high >> 32) as u32, DEFAULT_ROW)
            }
            Family::V6 => {
                let nodes = mapped::<NodeV6>(maps.rules_v6.get(&tree, 0)?)?;
                find::<NodeV6, _>(|number| node(&nodes, number), (source.high, source.low), DEFAULT_ROW)
            }
        }))
    }

    /// The class of a number, or the one that follows it where its rule has ended.
    fn lasting(&self, number: u16) -> Result<Standing, ReadError> {
        let mut standing = Standing { class_number: number, class: self.class(number)? };
        let now = now(self.maps);
        for _ in 0..ENDS_MAX {
            if !standing.class.has_ended(now) {
                break;
            }
            let number = standing.class.next;
            standing = Standing { class_number: number, class: self.class(number)? };
        }
        Ok(standing)
    }

    /// The class of a number.
    pub fn class(&self, number: u16) -> Result<Class, ReadError> {
        let number = u32::from(number);
        let classes = CLASSES_MAX + self.generation.incidents().map_or(0, |_| INCIDENT_CLASSES_MAX);
        if number as usize >= classes {
            return Err(ReadError::Dangling { what: "class", number });
        }
        Ok(self.maps.classes.read(self.generation.class_place(number) as usize))
    }

    /// The parent class of a number.
    pub fn parent_class(&self, number: u16) -> Result<ParentClass, ReadError> {
        self.element(&self.maps.parent_classes, PARENT_CLASSES_MAX, "parent class", number.into())
    }

    /// Its classes and those of the incident rules, with their numbers.
    pub fn classes(&self) -> impl Iterator<Item = (u32, Class)> {
        let classes = match (self.epoch(), self.generation.incidents()) {
            (0, _) => 0,
            (_, None) => CLASSES_MAX,
            (_, Some(_)) => CLASSES_MAX + INCIDENT_CLASSES_MAX,
        };
        let place = |number| self.generation.class_place(number) as usize;
        (0..classes as u32).map(move |number| (number, self.maps.classes.read(place(number))))
    }

    /// The classes that can refuse a packet, or could in another mode, now or when other rules have ended.
    pub fn refusing_classes(&self) -> impl Iterator<Item = (u32, Class)> {
        let now = now(self.maps);
        self.classes().filter(move |(_, class)| can_refuse(class) && !class.has_ended(now))
    }

    /// The slot that it stands in.
    pub fn slot(&self) -> u32 {
        self.generation.slot()
    }

    /// The element of a number, of its half of a table.
    pub(in crate::kernel) fn element<T: aya::Pod>(
        &self,
        map: &Mapped<T>,
        size: usize,
        what: &'static str,
        number: u32,
    ) -> Result<T, ReadError> {
        if number as usize >= size {
            return Err(ReadError::Dangling { what, number });
        }
        Ok(map.read(slot_place(self.generation.slot(), size, number) as usize))
    }
}

/// Whether a class can refuse a packet, or could in another mode.
pub fn can_refuse(class: &Class) -> bool {
    let budgets = [class.packets, class.bytes, class.connections, class.handshakes];
    let is_limited = budgets.iter().any(Budget::is_limited);
    let has_parents = [class.v4_24, class.v6_56, class.v6_48].iter().any(|&number| number != 0);
    class.action == Action::Deny as u8 || class.action == Action::Limit as u8 && (is_limited || has_parents)
}

/// The names behind the numbers of classes.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Of the policy.
    pub manifest: Manifest,
    /// Incident rules.
    pub incidents: Incidents,
}

/// The rule of a class.
#[derive(Debug, Clone, Copy)]
pub enum RuleOfClass<'a> {
    /// A rule of the policy.
    Policy(&'a ManifestRule),
    /// An incident rule.
    Incident(&'a Incident),
}

impl Rules {
    /// The rule of a class, by the class's number; `None`: it is that of a service's profile, or of `defaults.allow`.
    pub fn of_class(&self, number: u32, class: &Class) -> Option<RuleOfClass<'_>> {
        let rule = usize::from(class.rule);
        if number as usize >= CLASSES_MAX {
            return self.incidents.rules.get(rule).map(RuleOfClass::Incident);
        }
        self.manifest.rules.get(rule).map(RuleOfClass::Policy)
    }
}

impl<'a> RuleOfClass<'a> {
    /// As people are told: the rule's name, or `incident 7`.
    pub fn name(&self) -> String {
        match self {
            Self::Policy(rule) => rule.name.clone(),
            Self::Incident(incident) => format!("incident {}", incident.id),
        }
    }

    /// When it ends, seconds since the Unix epoch.
    pub fn until_s(&self) -> Option<u64> {
        match self {
            Self::Policy(rule) => rule.until_s,
            Self::Incident(incident) => incident.until_s,
        }
    }

    /// Why it is there.
    pub fn reason(&self) -> Option<&'a str> {
        match self {
            Self::Policy(rule) => rule.reason.as_deref(),
            Self::Incident(incident) => Some(&incident.reason),
        }
    }
}

/// How a source stands with the active policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Number of the class.
    pub class_number: u16,
    /// The class.
    pub class: Class,
}

/// The JSON of so many bytes in chunks whose first word is its length.
fn text(bytes: usize, chunk: impl Fn(usize) -> [u64; 512]) -> Vec<u8> {
    let end = bytes + size_of::<u64>();
    let words = (0..end.div_ceil(4096)).flat_map(chunk);
    words.flat_map(u64::to_ne_bytes).take(end).skip(size_of::<u64>()).collect()
}

pub(super) fn mapped<N: aya::Pod>(tree: MapData) -> Result<Mapped<N>, MapError> {
    Mapped::new(&tree, Access::Read).map_err(MapError::IoError)
}

fn node<N: aya::Pod>(nodes: &Mapped<N>, number: u32) -> Option<N> {
    ((number as usize) < nodes.len()).then(|| nodes.read(number as usize))
}
