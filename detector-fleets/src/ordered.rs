//! Hash tables are kept in the order of their keys, so that the same state is the same bytes.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes a table as a list of pairs.
///
/// # Errors
///
/// Those of the serializer.
pub fn serialize<K, V, H, S>(table: &HashMap<K, V, H>, serializer: S) -> Result<S::Ok, S::Error>
where
    K: Ord + Serialize,
    V: Serialize,
    S: Serializer,
{
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_unstable_by_key(|(key, _)| *key);
    serializer.collect_seq(pairs)
}

/// Reads a table from a list of pairs; of pairs with the same key the last one counts.
///
/// # Errors
///
/// Those of the deserializer.
pub fn deserialize<'de, K, V, H, D>(deserializer: D) -> Result<HashMap<K, V, H>, D::Error>
where
    K: Deserialize<'de> + Eq + Hash,
    V: Deserialize<'de>,
    H: BuildHasher + Default,
    D: Deserializer<'de>,
{
    Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
}
