//! Fleets and what spoke for them, to be looked up after they were forgotten.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{History, HistoryError, versions::signed};
use crate::fleets::{
    Found,
    limits::{KEPT_FLEETS, KEPT_MEMBERS},
};

impl History {
    /// The highest number that a fleet of this instance has; 0: it has none.
    ///
    /// # Errors
    ///
    /// The history cannot be read.
    pub fn last_fleet(&self) -> Result<u64, HistoryError> {
        let Some(connection) = self.reader()? else { return Ok(0) };
        let last: Option<i64> =
            connection
                .query_row("SELECT max(fleet) FROM fleets WHERE pins = ?", [&self.pins], |row| row.get(0))?;
        Ok(last.unwrap_or(0) as u64)
    }

    /// Keeps fleets as they are now, and what speaks for them. Of the members some are kept by name.
    ///
    /// # Errors
    ///
    /// The history cannot be written.
    pub fn keep_fleets(&self, fleets: &[Found]) -> Result<(), HistoryError> {
        if fleets.is_empty() {
            return Ok(());
        }
        let mut connection = self.writer()?;
        let transaction = connection.transaction()?;
        for fleet in fleets {
            self.keep_fleet(&transaction, fleet)?;
        }
        let kept: i64 =
            transaction
                .query_row("SELECT count(*) FROM fleets WHERE pins = ?", [&self.pins], |row| row.get(0))?;
        if kept <= signed(KEPT_FLEETS) {
            return Ok(transaction.commit()?);
        }
        transaction.execute(
            "DELETE FROM fleets WHERE pins = ?1 AND fleet NOT IN (SELECT fleet FROM fleets WHERE pins = ?1 ORDER BY \
             coalesce(json_extract(told, '$.last_seen'), last_alarm) DESC, fleet DESC LIMIT ?2)",
            params![self.pins, signed(KEPT_FLEETS)],
        )?;
        Ok(transaction.commit()?)
    }

    fn keep_fleet(&self, transaction: &Transaction<'_>, fleet: &Found) -> Result<(), HistoryError> {
        // Numbers are ours, so they are some.
        let Ok(number) = fleet.id.parse::<i64>() else { return Ok(()) };
        let members = fleet.members.len() as i64;
        let some = |sources: &[String]| sources.iter().take(KEPT_MEMBERS).cloned().collect();
        let kept = Found { members: some(&fleet.members), suspects: some(&fleet.suspects), ..fleet.clone() };
        let told = serde_json::to_string(&kept).unwrap_or_default();
        transaction.execute(
            "INSERT INTO fleets (pins, fleet, service, first_seen, alarmed_at, last_alarm, members, members_max, told) VALUES (?1, ?2, \
             ?3, ?4, ?5, ?6, ?7, ?7, ?8) ON CONFLICT (pins, fleet) DO UPDATE SET first_seen = ?4, last_alarm = ?6, members = ?7, \
             members_max = max(members_max, ?7), told = ?8",
            params![
                self.pins,
                number,
                fleet.service,
                fleet.first_seen,
                fleet.alarmed_at,
                fleet.last_alarm,
                members,
                told
            ],
        )?;
        for evidence in &fleet.evidence {
            transaction.execute(
                "INSERT OR REPLACE INTO fleet_evidence (pins, fleet, alarm, family, observed, expected, e_value, says) VALUES (?, ?, ?, \
                 ?, ?, ?, ?, ?)",
                params![
                    self.pins,
                    number,
                    fleet.last_alarm,
                    evidence.family,
                    evidence.observed,
                    evidence.expected,
                    evidence.e_value,
                    evidence.says
                ],
            )?;
        }
        // What spoke for it first, and last.
        transaction.execute(
            "DELETE FROM fleet_evidence WHERE pins = ?1 AND fleet = ?2 AND alarm NOT IN (SELECT min(alarm) FROM fleet_evidence WHERE pins = \
             ?1 AND fleet = ?2 UNION SELECT max(alarm) FROM fleet_evidence WHERE pins = ?1 AND fleet = ?2)",
            params![self.pins, number],
        )?;
        Ok(())
    }

    /// A fleet as it was last, by its number, and how many members it had; `None`: it is not known, or no more.
    ///
    /// # Errors
    ///
    /// The history cannot be read.
    pub fn fleet(&self, number: u64) -> Result<Option<(Found, u64)>, HistoryError> {
        let Some(connection) = self.reader()? else { return Ok(None) };
        let found = connection
            .query_row(
                "SELECT told, members FROM fleets WHERE pins = ? AND fleet = ?",
                params![self.pins, signed(number)],
                |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)),
            )
            .optional()?;
        Ok(found.and_then(|(told, members)| Some((serde_json::from_str(&told).ok()?, members as u64))))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fleets::{Report, Scale, fixtures, report::no_names};

    #[test]
    fn fleets_are_found_long_after_with_what_spoke_for_them_first_and_last() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        assert_eq!(history.last_fleet().expect("none"), 0);
        let mut memory = fixtures::memory(Scale::MINUTE);
        let mut last = None;
        for number in 0..fixtures::QUIET_EPOCHS + 6 {
            memory.take(&fixtures::epoch(number));
            if memory.fleets().next().is_none() {
                continue;
            }
            let report = Report::of(&memory, &no_names);
            history.keep_fleets(&report.fleets).expect("kept");
            last = report.fleets.into_iter().next();
        }
        let last = last.expect("a fleet");
        assert_eq!(history.last_fleet().expect("one"), 1);
        let (found, members) = history.fleet(1).expect("read").expect("the fleet");
        assert_eq!(members, last.members.len() as u64);
        assert_eq!(found.members, last.members[..KEPT_MEMBERS]);
        assert_eq!((&found.evidence, &found.last_alarm), (&last.evidence, &last.last_alarm));
        assert!(history.fleet(2).expect("read").is_none());
        let other = History::new(directory.path(), Path::new("/sys/fs/bpf/two"));
        assert_eq!((other.last_fleet().expect("none"), other.fleet(1).expect("read").is_none()), (0, true));
        let connection = history.writer().expect("a writer");
        let alarms: i64 = connection
            .query_row("SELECT count(DISTINCT alarm) FROM fleet_evidence", [], |row| row.get(0))
            .expect("alarms");
        assert_eq!(alarms, 2);
    }
}
