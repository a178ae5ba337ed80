//! Patterns of fingerprints: which clients a rule is about, by how they begin their connections.

pub(super) mod ja4;
pub(super) mod syn;

use std::fmt;

use detector_common::{
    fingerprint::{EARLIER_JA4S, Kind, Name, ja4_text},
    syn::Syn,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use ja4::Ja4Pattern;
pub use syn::SynPattern;

/// Patterns of each kind that a rule may have at most.
pub const PATTERNS_MAX: usize = 256;

/// Which fingerprints a rule is about: those of one pattern of each kind that has some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Patterns {
    /// Patterns of JA4s.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub ja4: Vec<Ja4Pattern>,
    /// Patterns of SYNs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub syn: Vec<SynPattern>,
}

/// What a client's fingerprints are called, as far as they are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// The JA4 of a ClientHello.
    pub ja4: Option<&'a str>,
    /// Other JA4s that it had before.
    pub earlier_ja4: [Option<&'a str>; EARLIER_JA4S],
    /// The same without the extensions that come and go.
    pub stable_ja4: Option<&'a str>,
    /// The signature of the SYN.
    pub syn: Option<&'a Syn>,
}

impl<'a> From<&'a Name> for Names<'a> {
    fn from(name: &'a Name) -> Self {
        match Kind::from_number(name.kind) {
            Some(Kind::Tls) => Self {
                ja4: ja4_text(&name.ja4),
                earlier_ja4: name.earlier_ja4.each_ref().map(ja4_text),
                stable_ja4: ja4_text(&name.stable_ja4),
                ..Self::default()
            },
            Some(Kind::Syn) => Self { syn: Some(&name.syn), ..Self::default() },
            Some(Kind::Initial) | None => Self::default(),
        }
    }
}

/// Where in a handshake a rule acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At the SYN: what it limits is connections.
    Syn,
    /// At the ClientHello: what it limits is handshakes.
    ClientHello,
}

impl Moment {
    /// The budget that a limit charges then.
    pub const fn budget(self) -> &'static str {
        match self {
            Self::Syn => "connections",
            Self::ClientHello => "handshakes",
        }
    }
}

/// How closely a rule says whom it is about; the greatest comes first. Of several patterns of a kind the widest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    /// 2: JA4 and SYN; 1: JA4; 0: SYN.
    kinds: u8,
    /// Characters that are not `*`.
    literals: usize,
}

impl Patterns {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ja4.is_empty() && self.syn.is_empty()
    }

    /// Whether they are of a client. What is not known of it is of no pattern.
    pub fn matches(&self, names: &Names<'_>) -> bool {
        let by_ja4 = self.ja4.is_empty() || self.names_ja4(names);
        let by_syn = self.syn.is_empty() || self.names_syn(names);
        !self.is_empty() && by_ja4 && by_syn
    }

    /// Whether a JA4 of a client, full or stable, is one of a pattern.
    pub fn names_ja4(&self, names: &Names<'_>) -> bool {
        let mut known = [names.ja4, names.stable_ja4].into_iter().chain(names.earlier_ja4).flatten();
        known.any(|ja4| self.ja4.iter().any(|pattern| pattern.matches(ja4)))
    }

    /// Whether the SYN of a client is one of a pattern.
    pub fn names_syn(&self, names: &Names<'_>) -> bool {
        names.syn.is_some_and(|syn| self.syn.iter().any(|pattern| pattern.matches(syn)))
    }

    /// How closely they say whom they are about.
    pub fn specificity(&self) -> Specificity {
        let kinds = match (self.ja4.is_empty(), self.syn.is_empty()) {
            (false, false) => 2,
            (false, true) => 1,
            (true, _) => 0,
        };
        let ja4 = self.ja4.iter().map(Ja4Pattern::literals).min();
        let syn = self.syn.iter().map(SynPattern::literals).min();
        Specificity { kinds, literals: ja4.unwrap_or_default() + syn.unwrap_or_default() }
    }

    /// Where a rule with them acts: where the last of what they ask is known.
    pub fn acts_at(&self) -> Moment {
        if self.ja4.is_empty() { Moment::Syn } else { Moment::ClientHello }
    }

    /// As targets of an incident rule, of which a client has to match one.
    pub fn targets(&self) -> Vec<String> {
        if !self.ja4.is_empty() && !self.syn.is_empty() {
            return vec![self.to_string()];
        }
        let ja4 = self.ja4.iter().map(|pattern| format!("ja4:{pattern}"));
        ja4.chain(self.syn.iter().map(|pattern| format!("syn:{pattern}"))).collect()
    }
}

/// `ja4:PATTERN`, `syn:PATTERN`, or both with `+` between them; several of a kind have `|` between them.
impl fmt::Display for Patterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn joined(patterns: &[impl fmt::Display]) -> String {
            patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
        }
        if !self.ja4.is_empty() {
            write!(formatter, "ja4:{}", joined(&self.ja4))?;
        }
        if !self.ja4.is_empty() && !self.syn.is_empty() {
            formatter.write_str("+")?;
        }
        if !self.syn.is_empty() {
            write!(formatter, "syn:{}", joined(&self.syn))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str = "t13d1516h2_8daaf6152771_b186095e22b6";
    const STABLE: &str = "t13d1514h2_8daaf6152771_02713d6af862";

    fn patterns(ja4: &[&str], syn: &[&str]) -> Patterns {
        Patterns {
            ja4: ja4.iter().map(|text| text.parse().unwrap()).collect(),
            syn: syn.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_client_matches_one_of_each_kind() {
        let syn = Syn { version: 4, initial_ttl: 64, ..Syn::EMPTY };
        let (chrome, four) = ([CHROME], ["4:*:*:*:*:*:*:*"]);
        let whole =
            Names { ja4: Some(CHROME), stable_ja4: Some(STABLE), syn: Some(&syn), ..Names::default() };
        let hello = Names { syn: None, ..whole };
        assert!(patterns(&chrome, &four).matches(&whole));
        assert!(!patterns(&chrome, &four).matches(&hello), "no SYN was seen");
        assert!(!patterns(&chrome, &["6:*:*:*:*:*:*:*"]).matches(&whole));
        assert!(patterns(&["q*_*_*", CHROME], &[]).matches(&hello));
        assert!(patterns(&[STABLE], &[]).matches(&hello), "also by the stable one");
        assert!(!patterns(&["q*_*_*"], &[]).matches(&whole));
        assert!(patterns(&[], &["6:*:*:*:*:*:*:*", "*:64:*:*:*:*:*:*"]).matches(&whole));
        assert!(!Patterns::default().matches(&whole));
    }

    #[test]
    fn names_in_the_maps_are_those_of_their_kind() {
        let ja4 = detector_common::fingerprint::ja4_bytes(CHROME);
        let syn = Syn { version: 4, ..Syn::EMPTY };
        let name = Name { ja4, syn, kind: Kind::Tls as u8, ..Name::NONE };
        let (of_hello, of_syn) = (patterns(&[CHROME], &[]), patterns(&[], &["4:*:*:*:*:*:*:*"]));
        let matches = |name: &Name| [&of_hello, &of_syn].map(|of| of.matches(&Names::from(name)));
        assert_eq!(matches(&name), [true, false]);
        assert_eq!(matches(&Name { kind: Kind::Syn as u8, ..name }), [false, true]);
        assert_eq!(matches(&Name { kind: 0, ..name }), [false, false]);
    }

    #[test]
    fn both_come_before_ja4_before_syn_and_then_more_characters() {
        let order = [
            patterns(&[CHROME], &["4:*:*:*:*:*:*:*"]),
            patterns(&["t*_*_*"], &["4:*:*:*:*:*:*:*"]),
            patterns(&[CHROME], &[]),
            patterns(&["t13d1516h2_*_*"], &[]),
            patterns(&[CHROME, "t13*_*_*"], &[]),
            patterns(&[], &["4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0"]),
            patterns(&[], &["4:*:*:*:*:*:*:*"]),
        ];
        assert!(order.is_sorted_by(|one, next| one.specificity() > next.specificity()), "{order:?}");
    }

    #[test]
    fn they_are_told_as_targets() {
        let both = patterns(&["t*_*_*"], &["4:*:*:*:*:*:*:*"]);
        assert_eq!(both.to_string(), "ja4:t*_*_*+syn:4:*:*:*:*,*:*:*:*");
        assert_eq!(both.targets(), [both.to_string()]);
        assert_eq!(patterns(&["t*_*_*", "q*_*_*"], &[]).targets(), ["ja4:t*_*_*", "ja4:q*_*_*"]);
        let json = serde_json::to_value(&both).unwrap();
        assert_eq!(json, serde_json::json!({ "ja4": ["t*_*_*"], "syn": ["4:*:*:*:*,*:*:*:*"] }));
        assert_eq!(serde_json::from_value::<Patterns>(json).unwrap(), both);
    }
}
