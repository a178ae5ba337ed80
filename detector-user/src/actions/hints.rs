//! What the application says of sources: it knows accounts, and this program does not.
//!
//! A *customer* is never a member that is acted on, and many of them among the members stop the action. *Confirmed abuse* makes a suspect a
//! member, and nobody else: that a source did wrong does not make it one of a fleet. Where both are said of a source it is a customer.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    limits::{ABUSE_BITS_V4_MIN, ABUSE_BITS_V6_MIN, HINT_BY_CHARS_MAX, HINT_S_MAX, HINTS_MAX},
    prefixes::Prefixes,
};
use crate::policy::incident::is_broad;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Of whom.
    pub prefix: IpNet,
    /// What.
    pub label: Label,
    /// Who says so, 1 to [`HINT_BY_CHARS_MAX`] characters.
    pub by: String,
    /// Since when, seconds since the Unix epoch.
    pub at_s: u64,
    /// Until when, likewise; at most [`HINT_S_MAX`] later.
    pub until_s: u64,
}

/// Why a hint is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There are too many.
    #[error(
        "{HINTS_MAX} hints are kept already: expected at most so many; take some back, or give them an earlier end"
    )]
    Full,
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

/// All hints, one for a prefix and label: who says it last is who is asked about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    hints: BTreeMap<(IpNet, Label), Hint>,
}

impl Hints {
    /// Takes a hint; the one about the same that it takes the place of.
    ///
    /// # Errors
    ///
    /// It has no end, nobody gave it, it is about too many, or there are too many; nothing has changed then.
    pub fn take(&mut self, hint: Hint) -> Result<Option<Hint>, Refused> {
        let Hint { prefix, label, ref by, at_s, until_s } = hint;
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
        let key = (prefix.trunc(), label);
        if self.hints.len() >= HINTS_MAX && !self.hints.contains_key(&key) {
            return Err(Refused::Full);
        }
        Ok(self.hints.insert(key, Hint { prefix: prefix.trunc(), ..hint }))
    }

    /// Takes a hint back, if it is there.
    pub fn take_back(&mut self, prefix: IpNet, label: Label) -> Option<Hint> {
        self.hints.remove(&(prefix.trunc(), label))
    }

    /// Time has come to this: hints that have ended are forgotten, and how many they were.
    pub fn forget(&mut self, now_s: u64) -> usize {
        let before = self.hints.len();
        self.hints.retain(|_, hint| hint.until_s > now_s);
        before - self.hints.len()
    }

    /// All of them, by prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Hint> {
        self.hints.values()
    }

    /// The sources of which something is said at a time.
    pub fn labelled(&self, now_s: u64) -> Labelled {
        let of = |label| {
            let hints = self.iter().filter(|hint| hint.label == label && hint.until_s > now_s);
            Prefixes::of(hints.map(|hint| hint.prefix))
        };
        Labelled { customers: of(Label::Customer), abuse: of(Label::Abuse) }
    }
}

/// Sources of which something is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labelled {
    /// Customers.
    pub customers: Prefixes,
    /// Those whose abuse is confirmed.
    pub abuse: Prefixes,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(prefix: &str, label: Label, until_s: u64) -> Hint {
        Hint { prefix: prefix.parse().unwrap(), label, by: "billing".to_owned(), at_s: 100, until_s }
    }

    #[test]
    fn a_hint_holds_until_its_end_and_the_last_one_counts() {
        let mut hints = Hints::default();
        assert_eq!(hints.take(hint("192.0.2.7/32", Label::Customer, 200)), Ok(None));
        assert_eq!(hints.take(hint("192.0.2.0/24", Label::Abuse, 300)), Ok(None));
        let source = "192.0.2.7".parse().unwrap();
        let labels = |hints: &Hints, now_s| {
            let labelled = hints.labelled(now_s);
            (labelled.customers.touch(source), labelled.abuse.touch(source))
        };
        assert_eq!(labels(&hints, 199), (true, true));
        assert_eq!(labels(&hints, 200), (false, true));
        let longer = hint("192.0.2.7/32", Label::Customer, 400);
        let before = hints.take(longer).unwrap().expect("it takes a place");
        assert_eq!(before.until_s, 200);
        assert_eq!((hints.forget(300), hints.iter().count()), (1, 1));
        assert_eq!(labels(&hints, 300), (true, false));
        assert!(hints.take_back("192.0.2.7/32".parse().unwrap(), Label::Customer).is_some());
        assert_eq!(labels(&hints, 300), (false, false));
    }

    #[test]
    fn what_is_no_hint_is_refused_with_what_was_expected() {
        let mut hints = Hints::default();
        let mut refused = |hint: Hint| hints.take(hint).unwrap_err().to_string();
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
        assert_eq!(hints, Hints::default());
        hints.take(hint("10.0.0.0/8", Label::Customer, 200)).unwrap();
        hints.take(hint("192.0.2.0/24", Label::Abuse, 200)).unwrap();
    }

    #[test]
    fn hints_have_a_bound() {
        let mut hints = Hints::default();
        for number in 0..HINTS_MAX as u32 {
            let prefix = format!("{}/32", std::net::Ipv4Addr::from(number));
            hints.take(hint(&prefix, Label::Customer, 200)).unwrap();
        }
        assert_eq!(hints.take(hint("192.0.2.7/32", Label::Customer, 200)), Err(Refused::Full));
        assert!(hints.take(hint("0.0.0.7/32", Label::Customer, 300)).is_ok(), "one that takes a place");
    }
}
