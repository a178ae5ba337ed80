//! What the fingerprints in a recording are called: kept in the file's metadata, for whoever has the recording and not the maps.

use std::collections::{BTreeMap, HashSet};

use detector_common::fingerprint::{Kind, Name, ja4_text};
use detector_fleets::observation::Observation;
use serde::{Deserialize, Serialize};

/// The longest name that is read; those of the program are shorter.
const NAME_BYTES_MAX: usize = 256;

/// The key of the metadata.
pub(super) const METADATA: &str = "detector.fingerprints";

/// Names of fingerprints by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// JA4 by `tls_key`.
    ja4: BTreeMap<u64, String>,
    /// Signatures of SYNs by `syn_key`.
    syn: BTreeMap<u64, String>,
}

impl Names {
    /// Those of the clients in rows, as far as they are known.
    pub fn of(rows: &[Observation], known: impl IntoIterator<Item = Name>) -> Self {
        let tls: HashSet<u64> = rows.iter().map(|row| row.kind.tls_key).collect();
        let syn: HashSet<u64> = rows.iter().map(|row| row.kind.syn_key).collect();
        let mut names = Self::default();
        for name in known {
            if name.kind == Kind::Syn as u8 {
                if syn.contains(&name.key) {
                    names.syn.insert(name.key, name.syn.to_string());
                }
            } else if tls.contains(&name.key)
                && let Some(ja4) = ja4_text(&name.ja4)
            {
                names.ja4.insert(name.key, ja4.to_owned());
            }
        }
        names
    }

    /// Those in the metadata of a file, whoever wrote it: what no name can be is left out, since names are shown on terminals.
    pub(super) fn of_json(json: &str) -> serde_json::Result<Self> {
        let mut names: Self = serde_json::from_str(json)?;
        for names in [&mut names.ja4, &mut names.syn] {
            names.retain(|_, name| {
                name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic())
            });
        }
        Ok(names)
    }

    /// Adds others. What has a name keeps it.
    pub fn add(&mut self, others: Self) {
        for (key, name) in others.ja4 {
            self.ja4.entry(key).or_insert(name);
        }
        for (key, name) in others.syn {
            self.syn.entry(key).or_insert(name);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ja4.is_empty() && self.syn.is_empty()
    }

    /// The JA4 of a `tls_key`, also of a shape over QUIC.
    pub fn ja4(&self, tls_key: u64) -> Option<&str> {
        self.ja4.get(&tls_key).map(String::as_str)
    }

    /// The signature of a `syn_key`.
    pub fn syn(&self, syn_key: u64) -> Option<&str> {
        self.syn.get(&syn_key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fixtures::row;
    use detector_common::fingerprint::ja4_bytes;

    #[test]
    fn names_are_those_of_the_clients_in_the_rows() {
        let named = |kind: Kind, key, ja4| Name { key, kind: kind as u8, ja4: ja4_bytes(ja4), ..Name::NONE };
        let rows = [row(60, 3), row(60, 4)];
        let known = [
            named(Kind::Tls, 3, "t13d1516h2_8daaf6152771_02713d6af862"),
            named(Kind::Initial, 4, "q13d0310h3_55b375c5d22e_cd85d2d88918"),
            named(Kind::Tls, 5, "t13d190900_9dc949149365_97f8aa674fd9"),
            named(Kind::Syn, u64::MAX - 3, ""),
            named(Kind::Syn, 3, ""),
        ];
        let mut names = Names::of(&rows, known);
        assert_eq!(names.ja4(3), Some("t13d1516h2_8daaf6152771_02713d6af862"));
        assert_eq!(names.ja4(4), Some("q13d0310h3_55b375c5d22e_cd85d2d88918"));
        assert_eq!((names.ja4(5), names.syn(3)), (None, None), "nobody in the rows has them");
        assert!(names.syn(u64::MAX - 3).is_some());
        names.add(Names::of(&[row(60, 3)], [named(Kind::Tls, 3, "t12d190900_9dc949149365_97f8aa674fd9")]));
        assert_eq!(names.ja4(3), Some("t13d1516h2_8daaf6152771_02713d6af862"), "it keeps its name");
    }

    #[test]
    fn what_is_shown_on_a_terminal_is_a_name() {
        let names =
            Names::of_json(r#"{"ja4":{"1":"t13i1516h2","2":"\u001b[2J"},"syn":{"3":"a b"}}"#).expect("JSON");
        assert_eq!((names.ja4(1), names.ja4(2), names.syn(3)), (Some("t13i1516h2"), None, None));
        assert!(Names::of_json("{}").is_err() && Names::of_json("[").is_err());
    }
}
