//! Which services the numbers in the tables stand for. A number belongs to a policy: a later one may give it to another name.

use std::collections::{BTreeMap, BTreeSet};

use detector_fleets::observation::{ServiceId, Services};

use crate::{
    kernel::{
        maps::Maps,
        read::{self, ReadError},
    },
    policy::compile::Manifest,
};

/// The name of what was sent to a service that a policy took away since.
pub const NO_SERVICE: &str = "none";

/// Services by the numbers that the tables have, each with a number of ours, which its name keeps.
#[derive(Debug, Default)]
pub struct Numbering {
    services: Services,
    generation: Option<u64>,
    manifest: Manifest,
    names: BTreeMap<u16, String>,
    numbers: BTreeMap<u16, ServiceId>,
    /// Numbers that another name had at the look before: what was counted since is of both.
    handed_over: BTreeSet<u16>,
}

impl Numbering {
    /// One in which services have the numbers that they had before.
    pub fn of(services: Services) -> Self {
        Self { services, ..Self::default() }
    }

    /// Reads the names of the active policy, where it is another one than at the time before. To be called before each look.
    ///
    /// # Errors
    ///
    /// They cannot be read; those that were known stay.
    pub fn refresh(&mut self, maps: &Maps) -> Result<(), ReadError> {
        let generation = read::settings(maps).active;
        self.handed_over.clear();
        if self.generation == Some(generation) {
            return Ok(());
        }
        let manifest = read::consistently(maps, |active| active.manifest())?.unwrap_or_default();
        self.take(&manifest);
        self.manifest = manifest;
        self.generation = Some(generation);
        Ok(())
    }

    fn take(&mut self, manifest: &Manifest) {
        let named = manifest.retired.iter().chain(&manifest.services);
        for (name, number) in named {
            let before = self.names.insert(*number, name.clone());
            if before.is_some_and(|before| before != *name) {
                self.handed_over.insert(*number);
            }
            match self.services.number(name) {
                Some(service) => drop(self.numbers.insert(*number, service)),
                None => drop(self.numbers.remove(number)),
            }
        }
    }

    /// The service of a number in the tables. `None`: since the last look it was given to another name, or there are more names than
    /// numbers.
    pub fn service(&mut self, number: u16) -> Option<ServiceId> {
        if self.handed_over.contains(&number) {
            return None;
        }
        match self.numbers.get(&number) {
            Some(service) => Some(*service),
            None => self.services.number(NO_SERVICE),
        }
    }

    /// The names of the policy that was active when they were read last.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All services that were ever seen.
    pub const fn services(&self) -> &Services {
        &self.services
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(services: &[(&str, u16)], retired: &[(&str, u16)]) -> Manifest {
        let numbers =
            |of: &[(&str, u16)]| of.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        Manifest { services: numbers(services), retired: numbers(retired), ..Manifest::default() }
    }

    #[test]
    fn a_name_keeps_its_number_and_what_was_counted_while_a_number_changed_hands_is_nobodys() {
        let mut numbering = Numbering::default();
        numbering.take(&manifest(&[("api", 1), ("web", 2)], &[]));
        let (api, web) = (numbering.service(1), numbering.service(2));
        assert!(api != web && api.is_some());
        // `api` goes, and its number is kept for it; then another one gets the number.
        numbering.take(&manifest(&[("web", 2)], &[("api", 1)]));
        assert_eq!(numbering.service(1), api);
        numbering.take(&manifest(&[("shop", 1), ("web", 2)], &[]));
        assert_eq!((numbering.service(1), numbering.service(2)), (None, web), "of both");
        numbering.handed_over.clear();
        let shop = numbering.service(1);
        assert_eq!(shop.map(|shop| numbering.services().name(shop)), Some("shop"));
        assert!(shop != api && shop != web);
        numbering.take(&manifest(&[("api", 3), ("shop", 1)], &[("web", 2)]));
        assert_eq!(
            (numbering.service(3), numbering.service(1)),
            (api, shop),
            "under another number it is itself"
        );
        let none = numbering.service(9).map(|none| numbering.services().name(none).to_owned());
        assert_eq!(none.as_deref(), Some(NO_SERVICE));
    }
}
