//! The maps by name and shape.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray},
};
use detector_common::{
    client::Client,
    fingerprint::{Name, Sightings},
    fleet::{FleetKey, FleetMember, FleetSlot},
    generation::Settings,
    policy::{Cell, Class, ClientRule, ClientRuleKey, ParentClass, PolicyHeader, RuleDrops, Trace},
    service::{DestinationSlot, PortSlot},
    table::Set,
    verdict::ServiceCounters,
};
use thiserror::Error;

use super::mapped::{Access, Mapped};

/// Every map that is pinned, by the name of its pin. All of them: a successor adopts them together or not at all.
pub const NAMES: &[&str] = &[
    "SETTINGS",
    "VIRTUAL_CLOCK",
    "TRACE",
    "SOURCES",
    "PARENTS",
    "CLIENT_BUDGETS",
    "FLOWS",
    "FLOW_STATES",
    "FINGERPRINTS",
    "SIGHTINGS",
    "CLIENT_NAMES",
    "CLIENTS",
    "CLIENT_COUNTS",
    "EXEMPLARS",
    "GATHERED_HELLOS",
    "PROGRAMS",
    "SCRATCH",
    "OVERFLOW",
    "POLICIES",
    "DESTINATIONS",
    "PORTS",
    "RULES_V4",
    "RULES_V6",
    "CELLS",
    "CLASSES",
    "PARENT_CLASSES",
    "CLIENT_RULES",
    "PAIR_CLASSES",
    "RULE_BUDGETS",
    "FLEETS",
    "FLEET_MEMBERS",
    "FLEET_KEYS",
    "VERDICTS",
    "RULE_DROPS",
    "COUNTERS",
    "EVENTS",
    "MANIFEST",
    "INCIDENTS",
];

/// The maps of a loaded program, open. What each is for stands at its definition in `detector-ebpf`.
#[expect(missing_docs, reason = "each field is the map of the same name")]
pub struct Maps {
    pub settings: Mapped<Settings>,
    pub virtual_clock: Mapped<u64>,
    pub trace: Mapped<Trace>,
    pub sources: Mapped<Set>,
    pub parents: Mapped<Set>,
    pub client_budgets: Mapped<Set>,
    pub flows: Mapped<Set>,
    pub fingerprints: Mapped<Set>,
    pub sightings: Mapped<Sightings>,
    pub client_names: Mapped<Name>,
    pub clients: Mapped<Set>,
    pub client_counts: Mapped<Client>,
    pub policies: Mapped<PolicyHeader>,
    pub destinations: Mapped<DestinationSlot>,
    pub ports: Mapped<PortSlot>,
    pub cells: Mapped<Cell>,
    pub classes: Mapped<Class>,
    pub parent_classes: Mapped<ParentClass>,
    pub client_rules: HashMap<MapData, ClientRuleKey, ClientRule>,
    pub pair_classes: Mapped<u64>,
    pub rule_budgets: Mapped<u64>,
    pub fleets: Mapped<FleetSlot>,
    pub fleet_members: HashMap<MapData, FleetMember, u64>,
    pub fleet_keys: HashMap<MapData, FleetKey, u64>,
    pub manifest: Mapped<[u64; 512]>,
    pub rules_v4: ArrayOfMaps<MapData>,
    pub rules_v6: ArrayOfMaps<MapData>,
    pub incidents: ArrayOfMaps<MapData>,
    pub verdicts: PerCpuArray<MapData, ServiceCounters>,
    pub rule_drops: PerCpuArray<MapData, RuleDrops>,
    pub counters: PerCpuArray<MapData, u64>,
}

/// A map that is missing or not what it should be.
#[derive(Debug, Error)]
pub enum MapsError {
    /// The program has no such map.
    #[error("the loaded program has no map {name}: the binary and its eBPF object do not belong together")]
    Missing {
        /// The name.
        name: &'static str,
    },
    /// A pin cannot be opened.
    #[error("cannot open the pinned map {path}: {source}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: MapError,
    },
    /// A map is of another type, or of other elements.
    #[error("map {name} is not what this version expects: {source}")]
    Type {
        /// The name.
        name: &'static str,
        /// What differs.
        source: MapError,
    },
    /// A map cannot be mapped.
    #[error("cannot map {name} into memory: {source}")]
    Mapping {
        /// The name.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Maps {
    /// Takes the maps of a program that was just loaded.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Self::open(Access::Write, |name| ebpf.take_map(name).ok_or(MapsError::Missing { name }))
    }

    /// Opens pinned maps.
    pub fn pinned(directory: &Path, access: Access) -> Result<Self, MapsError> {
        Self::open(access, |name| {
            let path = directory.join(name);
            let data = MapData::from_pin(&path).map_err(|source| MapsError::Pin { path, source })?;
            Map::from_map_data(data).map_err(|source| MapsError::Type { name, source })
        })
    }

    fn open(
        access: Access,
        mut open: impl FnMut(&'static str) -> Result<Map, MapsError>,
    ) -> Result<Self, MapsError> {
        Ok(Self {
            settings: mapped("SETTINGS", access, &mut open)?,
            virtual_clock: mapped("VIRTUAL_CLOCK", access, &mut open)?,
            trace: mapped("TRACE", access, &mut open)?,
            sources: mapped("SOURCES", access, &mut open)?,
            parents: mapped("PARENTS", access, &mut open)?,
            client_budgets: mapped("CLIENT_BUDGETS", access, &mut open)?,
            flows: mapped("FLOWS", access, &mut open)?,
            fingerprints: mapped("FINGERPRINTS", access, &mut open)?,
            sightings: mapped("SIGHTINGS", access, &mut open)?,
            client_names: mapped("CLIENT_NAMES", access, &mut open)?,
            clients: mapped("CLIENTS", access, &mut open)?,
            client_counts: mapped("CLIENT_COUNTS", access, &mut open)?,
            policies: mapped("POLICIES", access, &mut open)?,
            destinations: mapped("DESTINATIONS", access, &mut open)?,
            ports: mapped("PORTS", access, &mut open)?,
            cells: mapped("CELLS", access, &mut open)?,
            classes: mapped("CLASSES", access, &mut open)?,
            parent_classes: mapped("PARENT_CLASSES", access, &mut open)?,
            client_rules: typed("CLIENT_RULES", &mut open)?,
            pair_classes: mapped("PAIR_CLASSES", access, &mut open)?,
            rule_budgets: mapped("RULE_BUDGETS", access, &mut open)?,
            fleets: mapped("FLEETS", access, &mut open)?,
            fleet_members: typed("FLEET_MEMBERS", &mut open)?,
            fleet_keys: typed("FLEET_KEYS", &mut open)?,
            manifest: mapped("MANIFEST", access, &mut open)?,
            rules_v4: typed("RULES_V4", &mut open)?,
            rules_v6: typed("RULES_V6", &mut open)?,
            incidents: typed("INCIDENTS", &mut open)?,
            verdicts: typed("VERDICTS", &mut open)?,
            rule_drops: typed("RULE_DROPS", &mut open)?,
            counters: typed("COUNTERS", &mut open)?,
        })
    }
}

fn mapped<T: aya::Pod>(
    name: &'static str,
    access: Access,
    open: &mut impl FnMut(&'static str) -> Result<Map, MapsError>,
) -> Result<Mapped<T>, MapsError> {
    let Map::Array(data) = open(name)? else {
        return Err(MapsError::Mapping { name, source: io::Error::other("it is no array") });
    };
    Mapped::new(&data, access).map_err(|source| MapsError::Mapping { name, source })
}

fn typed<T: TryFrom<Map, Error = MapError>>(
    name: &'static str,
    open: &mut impl FnMut(&'static str) -> Result<Map, MapsError>,
) -> Result<T, MapsError> {
    T::try_from(open(name)?).map_err(|source| MapsError::Type { name, source })
}
