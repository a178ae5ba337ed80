//! The incident rules in force: they outlive the maps.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{History, HistoryError};
use crate::policy::incident::{Incident, Incidents};

impl History {
    /// Keeps the incident rules that are in force, and those kept before that could not be brought back, unless they have
    /// ended by `now_unix_s` or are among `gone`.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn keep_incidents(
        &self,
        in_force: &Incidents,
        gone: &[u64],
        now_unix_s: u64,
    ) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let kept = kept(transaction, &self.pins)?.rules.into_iter();
            let is_new = |kept: &Incident| in_force.rules.iter().all(|incident| incident.id != kept.id);
            let is_missing = |incident: &Incident| is_new(incident) && !gone.contains(&incident.id);
            let kept = kept.filter(|incident| is_missing(incident) && !incident.has_ended(now_unix_s));
            let rules = Incidents { rules: kept.chain(in_force.rules.iter().cloned()).collect() };
            let rules = serde_json::to_string(&rules).map_err(not_json)?;
            let sql = "INSERT INTO incidents (pins, rules) VALUES (?1, ?2) \
                       ON CONFLICT (pins) DO UPDATE SET rules = excluded.rules";
            transaction.execute(sql, params![self.pins, rules])?;
            Ok(())
        })
    }

    /// Those that were kept last.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn kept_incidents(&self) -> Result<Incidents, HistoryError> {
        self.read(|| Ok(Incidents::default()), |connection| kept(connection, &self.pins))
    }
}

fn kept(connection: &Connection, pins: &str) -> Result<Incidents, HistoryError> {
    let sql = "SELECT rules FROM incidents WHERE pins = ?1";
    let rules: Option<String> = connection.query_row(sql, params![pins], |row| row.get(0)).optional()?;
    rules.map_or_else(|| Ok(Incidents::default()), |rules| serde_json::from_str(&rules).map_err(not_json))
}

/// What cannot be read back is for the caller like any other broken value.
pub(super) fn not_json(error: serde_json::Error) -> HistoryError {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into()
}
