//! What the application says of sources: it knows accounts, and this program does not.
//!
//! A *customer* is never a member that is acted on, many of them among the members stop the action, and fingerprints that one of them has
//! are not acted on alone: the program could not tell the customer from others. *Confirmed abuse* makes a suspect a member, and nobody else:
//! that a source did wrong does not make it one of a fleet. Where both are said of a source it is a customer.

use std::collections::BTreeMap;

use detector_fleets::source::Source;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::{
    limits::{ABUSE_BITS_V4_MIN, ABUSE_BITS_V6_MIN, HINT_BY_CHARS_MAX, HINT_S_MAX},
    prefixes::Prefixes,
};
use crate::policy::incident::is_broad;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HintLabel)]
pub enum Label {
    /// A paying customer is there.
    Customer,
    /// What comes from there was looked at, and is abuse.
    Abuse,
}

impl Label {
    /// As JSON writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Abuse => "abuse",
        }
    }

    /// The label that is written so.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Customer, Self::Abuse].into_iter().find(|label| label.name() == name)
    }
}

/// A hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hint {
    /// Its number, by which it is taken back; 0: it was not kept yet.
    pub id: u64,
    /// Of whom: an IPv4 or IPv6 prefix.
    #[schema(value_type = String)]
    pub prefix: IpNet,
    /// What.
    pub label: Label,
    /// At which service; null: at each.
    pub service: Option<String>,
    /// Who says so.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Since when, seconds since the Unix epoch.
    pub at_s: u64,
    /// Until when, likewise.
    pub until_s: u64,
}

/// Why a hint is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// It would hold for nobody, or for too long.
    #[error(
        "a hint about {prefix} that ends at {until_s}: expected an end after {at_s}, within 366 days; say until when it holds"
    )]
    End {
        /// Of whom.
        prefix: IpNet,
        /// When it was given, seconds since the Unix epoch.
        at_s: u64,
        /// Its end, likewise.
        until_s: u64,
    },
    /// The prefix is of more than those that can be known.
    #[error(
        "a hint about {prefix}: expected a prefix of at least {least} bits, since what is wider is of several owners; name the parts of it"
    )]
    Broad {
        /// Of whom.
        prefix: IpNet,
        /// Bits that it has to have.
        least: u8,
    },
    /// Nobody says it.
    #[error(
        "a hint about {prefix} by {by:?}: expected a name of 1 to {HINT_BY_CHARS_MAX} characters on one line; say who gives it"
    )]
    By {
        /// Of whom.
        prefix: IpNet,
        /// Who.
        by: String,
    },
}

impl Hint {
    /// The hint as it is kept, about a whole prefix.
    ///
    /// # Errors
    ///
    /// It has no end, nobody gave it, or it is about too many.
    pub fn checked(self) -> Result<Self, Refused> {
        let Self { prefix, label, ref by, at_s, until_s, .. } = self;
        if until_s <= at_s || until_s - at_s > HINT_S_MAX {
            return Err(Refused::End { prefix, at_s, until_s });
        }
        let is_line = !by.trim().is_empty()
            && by.chars().count() <= HINT_BY_CHARS_MAX
            && !by.contains(char::is_control);
        if !is_line {
            return Err(Refused::By { prefix, by: by.clone() });
        }
        if let Some(least) = least_bits(prefix, label) {
            return Err(Refused::Broad { prefix, least });
        }
        Ok(Self { prefix: prefix.trunc(), ..self })
    }
}

/// The bits that a prefix lacks to be hinted at; `None`: it has them.
fn least_bits(prefix: IpNet, label: Label) -> Option<u8> {
    let least = match (label, prefix) {
        (Label::Abuse, IpNet::V4(_)) => ABUSE_BITS_V4_MIN,
        (Label::Abuse, IpNet::V6(_)) => ABUSE_BITS_V6_MIN,
        (Label::Customer, _) => (prefix.prefix_len()..=prefix.max_prefix_len())
            .find(|&bits| IpNet::new(prefix.network(), bits).is_ok_and(|longer| !is_broad(longer)))?,
    };
    (prefix.prefix_len() < least).then_some(least)
}

/// Sources of which something is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Customers.
    pub customers: Prefixes,
    /// Those whose abuse is confirmed.
    pub abuse: Prefixes,
}

/// The part of a hint that decisions depend on: of whom, what, and at which service.
pub type Said = (IpNet, Label, Option<String>);

/// The sources of which something is said, at each service and at some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hinted {
    everywhere: Labelled,
    at: BTreeMap<String, Labelled>,
}

impl Hinted {
    /// What some hints say.
    pub fn of(hints: impl IntoIterator<Item = Said>) -> Self {
        let mut prefixes: BTreeMap<Option<String>, [Vec<IpNet>; 2]> = BTreeMap::new();
        for (prefix, label, service) in hints {
            prefixes.entry(service).or_default()[label as usize].push(prefix);
        }
        let mut hinted = Self::default();
        for (service, [customers, abuse]) in prefixes {
            let labelled = Labelled { customers: Prefixes::of(customers), abuse: Prefixes::of(abuse) };
            match service {
                None => hinted.everywhere = labelled,
                Some(service) => drop(hinted.at.insert(service, labelled)),
            }
        }
        hinted
    }

    /// The same at every service.
    pub const fn everywhere(labelled: Labelled) -> Self {
        Self { everywhere: labelled, at: BTreeMap::new() }
    }

    /// What holds at a service.
    pub fn at(&self, service: &str) -> Hints<'_> {
        Hints { everywhere: &self.everywhere, here: self.at.get(service) }
    }
}

/// What is said of sources at a service.
#[derive(Debug, Clone, Copy)]
pub struct Hints<'a> {
    everywhere: &'a Labelled,
    here: Option<&'a Labelled>,
}

impl<'a> Hints<'a> {
    /// Whether a customer is there.
    pub fn is_customer(self, source: Source) -> bool {
        self.all().any(|labelled| labelled.customers.touch(source))
    }

    /// Whether what comes from there is abuse.
    pub fn is_abuse(self, source: Source) -> bool {
        self.all().any(|labelled| labelled.abuse.touch(source))
    }

    fn all(self) -> impl Iterator<Item = &'a Labelled> {
        [self.everywhere].into_iter().chain(self.here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(prefix: &str, label: Label, until_s: u64) -> Hint {
        let (prefix, by) = (prefix.parse().unwrap(), "billing".to_owned());
        Hint { id: 0, prefix, label, service: None, by, reason: None, at_s: 100, until_s }
    }

    #[test]
    fn a_hint_holds_at_its_service_or_at_each() {
        let said = |prefix: &str, label, service: Option<&str>| {
            (prefix.parse().unwrap(), label, service.map(str::to_owned))
        };
        let hinted = Hinted::of([
            said("192.0.2.7/32", Label::Customer, Some("api")),
            said("192.0.2.8/32", Label::Customer, None),
            said("192.0.2.0/24", Label::Abuse, Some("web")),
        ]);
        let at = |service, source: &str| {
            let (hints, source) = (hinted.at(service), source.parse().unwrap());
            (hints.is_customer(source), hints.is_abuse(source))
        };
        assert_eq!([at("api", "192.0.2.7"), at("api", "192.0.2.8")], [(true, false); 2]);
        assert_eq!([at("web", "192.0.2.7"), at("web", "192.0.2.8")], [(false, true), (true, true)]);
        assert_eq!([at("dns", "192.0.2.7"), at("dns", "192.0.2.8")], [(false, false), (true, false)]);
    }

    #[test]
    fn what_is_no_hint_is_refused_with_what_was_expected() {
        let refused = |hint: Hint| hint.checked().unwrap_err().to_string();
        let nobody = Hint { by: " ".to_owned(), ..hint("192.0.2.7/32", Label::Abuse, 200) };
        for wrong in [
            hint("192.0.2.7/32", Label::Abuse, 100),
            hint("192.0.2.7/32", Label::Abuse, 101 + HINT_S_MAX),
            hint("192.0.0.0/23", Label::Abuse, 200),
            hint("2001:db8::/47", Label::Abuse, 200),
            hint("0.0.0.0/0", Label::Customer, 200),
            nobody,
        ] {
            assert!(refused(wrong.clone()).contains("expected"), "{wrong:?}");
        }
        assert!(refused(hint("10.0.0.0/7", Label::Customer, 200)).contains("at least 8 bits"));
        hint("10.0.0.0/8", Label::Customer, 200).checked().unwrap();
        let whole = hint("192.0.2.7/24", Label::Abuse, 200).checked().unwrap();
        assert_eq!(whole.prefix.to_string(), "192.0.2.0/24");
    }
}
