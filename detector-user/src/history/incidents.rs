//! The incident rules in force: they outlive the maps.

use rusqlite::{OptionalExtension as _, params};

use super::{History, HistoryError};
use crate::policy::incident::Incidents;

impl History {
    /// Keeps the incident rules that are in force.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn keep_incidents(&self, incidents: &Incidents) -> Result<(), HistoryError> {
        let rules = serde_json::to_string(incidents).map_err(not_json)?;
        self.write(|transaction| {
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
        self.read(
            || Ok(Incidents::default()),
            |connection| {
                let sql = "SELECT rules FROM incidents WHERE pins = ?1";
                let rules: Option<String> =
                    connection.query_row(sql, params![self.pins], |row| row.get(0)).optional()?;
                rules.map_or_else(
                    || Ok(Incidents::default()),
                    |rules| serde_json::from_str(&rules).map_err(not_json),
                )
            },
        )
    }
}

/// What cannot be read back is for the caller like any other broken value.
fn not_json(error: serde_json::Error) -> HistoryError {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into()
}
