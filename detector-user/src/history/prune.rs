//! What is forgotten, so that the database has a largest size.

use rusqlite::{Connection, OptionalExtension as _};

use super::{HistoryError, versions::signed};

/// What the database holds at most, of all instances together. Active versions stay whatever the bounds say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Versions.
    pub versions: u64,
    /// Bytes of texts and source files, each distinct one counted once.
    pub blob_bytes: u64,
    /// Audit entries.
    pub entries: u64,
}

impl Bounds {
    /// Those of every history outside of tests.
    pub const DEFAULT: Self = Self { versions: 1000, blob_bytes: 512 << 20, entries: 100_000 };
}

/// Forgets the oldest versions and audit entries beyond the bounds. `active` versions stay, and so do the last one of every
/// instance that the kernel took, and the last one that stayed: who is on trial has to have somewhere to go back to.
pub(super) fn prune(connection: &Connection, bounds: &Bounds, active: &[u64]) -> Result<(), HistoryError> {
    entries(connection, bounds)?;
    let kept = active.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let oldest = format!(
        "SELECT version FROM versions WHERE version NOT IN ({kept}) AND version NOT IN (SELECT max(version) FROM versions \
         WHERE state != 'failed' GROUP BY pins) AND version NOT IN (SELECT max(version) FROM versions WHERE state = 'applied' \
         GROUP BY pins) ORDER BY version LIMIT 1"
    );
    while is_beyond(connection, bounds)? {
        let oldest: Option<i64> = connection.query_row(&oldest, [], |row| row.get(0)).optional()?;
        let Some(oldest) = oldest else { break };
        connection.execute("DELETE FROM versions WHERE version = ?", [oldest])?;
        connection.execute(
            "DELETE FROM blobs WHERE digest NOT IN (SELECT text FROM versions UNION SELECT content FROM sources)",
            [],
        )?;
    }
    Ok(())
}

/// Forgets the oldest audit entries.
pub(super) fn entries(connection: &Connection, bounds: &Bounds) -> Result<(), HistoryError> {
    connection.execute(
        "DELETE FROM audit WHERE entry <= (SELECT max(entry) FROM audit) - ?",
        [signed(bounds.entries)],
    )?;
    Ok(())
}

fn is_beyond(connection: &Connection, bounds: &Bounds) -> Result<bool, HistoryError> {
    let count =
        "SELECT (SELECT count(*) FROM versions) > ? OR (SELECT coalesce(sum(size), 0) FROM blobs) > ?";
    let bounds = [signed(bounds.versions), signed(bounds.blob_bytes)];
    Ok(connection.query_row(count, bounds, |row| row.get(0))?)
}
