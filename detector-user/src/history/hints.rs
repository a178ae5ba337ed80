//! What the application says of sources, until it ends or is taken back.

use std::fmt;

use ipnet::{IpNet, Ipv6Net};
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Type};

use super::{
    History, HistoryError,
    fleet_actions::note_said,
    versions::{signed, unsigned},
};
use crate::{
    actions::{
        hints::{Hint, Hinted, Label},
        limits::HINTS_MAX,
    },
    policy::SOURCE_BITS_V6,
};

/// What all hints say together, and until when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// What they say.
    pub hinted: Hinted,
    /// When the first of them ends, seconds since the Unix epoch; none: there are none.
    pub until_s: Option<u64>,
}

/// Which hints to list.
#[derive(Debug, Clone, Copy)]
pub struct Which {
    /// Those that say something of these sources.
    pub about: Option<IpNet>,
    /// Those with this label.
    pub label: Option<Label>,
    /// Those with a higher number.
    pub after: u64,
    /// So many at most.
    pub rows: usize,
}

impl Which {
    fn has(&self, hint: &Hint) -> bool {
        let about = self.about.map(of_sources);
        let is_about = about.is_none_or(|about| {
            let prefix = of_sources(hint.prefix);
            prefix.contains(&about) || about.contains(&prefix)
        });
        is_about && self.label.is_none_or(|label| label == hint.label)
    }
}

/// All sources that a prefix touches: one within a /64 of IPv6 is about all of it.
fn of_sources(prefix: IpNet) -> IpNet {
    match prefix {
        IpNet::V6(longer) if longer.prefix_len() > SOURCE_BITS_V6 => {
            let source = Ipv6Net::new(longer.addr(), SOURCE_BITS_V6);
            source.map_or(prefix, |source| source.trunc().into())
        }
        _ => prefix,
    }
}

impl History {
    /// Takes hints, each in the place of that about the same, which keeps its number; all of them or none. Those that have ended are
    /// forgotten. Their numbers.
    ///
    /// # Errors
    ///
    /// There is no room for all of them, or the database cannot be written.
    pub fn keep_hints(&self, hints: &[Hint], now_s: u64) -> Result<Vec<u64>, HistoryError> {
        self.write(|transaction| {
            let sql = "DELETE FROM fleet_hints WHERE pins = ?1 AND until_s <= ?2";
            transaction.execute(sql, params![self.pins, signed(now_s)])?;
            let mut ids = Vec::with_capacity(hints.len());
            let mut statement = transaction.prepare(
                "INSERT INTO fleet_hints (pins, prefix, label, service, by_whom, reason, at_s, until_s) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (pins, prefix, label, service) DO UPDATE SET \
                 by_whom = ?5, reason = ?6, at_s = ?7, until_s = ?8 RETURNING id",
            )?;
            for hint in hints {
                let (prefix, label) = (hint.prefix.trunc().to_string(), hint.label.name());
                let service = hint.service.as_deref().unwrap_or_default();
                let (at_s, until_s) = (signed(hint.at_s), signed(hint.until_s));
                let values = params![self.pins, prefix, label, service, hint.by, hint.reason, at_s, until_s];
                ids.push(unsigned(statement.query_row(values, |row| row.get(0))?));
            }
            if count(transaction, &self.pins)? > HINTS_MAX as u64 {
                let next = "take some back, or give them earlier ends";
                return Err(HistoryError::Full { what: "hints", most: HINTS_MAX, next });
            }
            note_said(transaction, &self.pins)?;
            Ok(ids)
        })
    }

    /// Takes a hint back by its number; the one that it was.
    ///
    /// # Errors
    ///
    /// There is none with this number, or the database cannot be written.
    pub fn take_back_hint(&self, id: u64) -> Result<Hint, HistoryError> {
        self.write(|transaction| {
            let sql = format!("DELETE FROM fleet_hints WHERE pins = ?1 AND id = ?2 RETURNING {COLUMNS}");
            let gone = transaction.query_row(&sql, params![self.pins, signed(id)], hint).optional()?;
            let gone = gone.ok_or(HistoryError::NoHint { id })?;
            note_said(transaction, &self.pins)?;
            Ok(gone)
        })
    }

    /// The hints that hold at a time, seconds since the Unix epoch: how many there are, and those that are asked for, by number.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn hints(&self, now_s: u64, which: &Which) -> Result<(u64, Vec<Hint>), HistoryError> {
        self.read(
            || Ok((0, Vec::new())),
            |connection| {
                let sql = "SELECT count(*) FROM fleet_hints WHERE pins = ?1 AND until_s > ?2";
                let all: i64 =
                    connection.query_row(sql, params![self.pins, signed(now_s)], |row| row.get(0))?;
                let sql = format!(
                    "SELECT {COLUMNS} FROM fleet_hints WHERE pins = ?1 AND until_s > ?2 AND id > ?3 ORDER BY id"
                );
                let mut statement = connection.prepare(&sql)?;
                let values = params![self.pins, signed(now_s), signed(which.after)];
                let rows = statement.query_map(values, hint)?;
                let asked = rows.filter(|hint| hint.as_ref().map_or(true, |hint| which.has(hint)));
                Ok((unsigned(all), asked.take(which.rows).collect::<Result<_, _>>()?))
            },
        )
    }

    /// What the hints that hold at a time say together.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn hinted(&self, now_s: u64) -> Result<Heard, HistoryError> {
        self.read(
            || Ok(Heard::default()),
            |connection| {
                let sql =
                    "SELECT prefix, label, service, until_s FROM fleet_hints WHERE pins = ?1 AND until_s > ?2";
                let mut statement = connection.prepare(sql)?;
                let mut first_s: Option<u64> = None;
                let rows = statement.query_map(params![self.pins, signed(now_s)], |row| {
                    let until_s = unsigned(row.get(3)?);
                    first_s = Some(first_s.map_or(until_s, |first_s| first_s.min(until_s)));
                    Ok((parsed(row, 0)?, label(row, 1)?, service(row, 2)?))
                })?;
                let said: Vec<_> = rows.collect::<Result<_, _>>()?;
                Ok(Heard { hinted: Hinted::of(said), until_s: first_s })
            },
        )
    }
}

/// As [`hint`] reads them.
const COLUMNS: &str = "id, prefix, label, service, by_whom, reason, at_s, until_s";

fn hint(row: &Row<'_>) -> rusqlite::Result<Hint> {
    Ok(Hint {
        id: unsigned(row.get(0)?),
        prefix: parsed(row, 1)?,
        label: label(row, 2)?,
        service: service(row, 3)?,
        by: row.get(4)?,
        reason: row.get(5)?,
        at_s: unsigned(row.get(6)?),
        until_s: unsigned(row.get(7)?),
    })
}

fn parsed(row: &Row<'_>, column: usize) -> rusqlite::Result<IpNet> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| foreign(column, format!("no prefix: {text:?}: {error}")))
}

fn label(row: &Row<'_>, column: usize) -> rusqlite::Result<Label> {
    let text: String = row.get(column)?;
    Label::from_name(&text).ok_or_else(|| foreign(column, format!("no label of a hint: {text:?}")))
}

fn service(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(Some(row.get(column)?).filter(|name: &String| !name.is_empty()))
}

/// What this program did not write.
fn foreign(column: usize, found: impl fmt::Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, found.to_string().into())
}

fn count(connection: &Connection, pins: &str) -> Result<u64, HistoryError> {
    let sql = "SELECT count(*) FROM fleet_hints WHERE pins = ?1";
    Ok(unsigned(connection.query_row(sql, params![pins], |row| row.get(0))?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hint(prefix: &str, label: Label, service: Option<&str>, until_s: u64) -> Hint {
        let (prefix, by) = (prefix.parse().expect("a prefix"), "billing".to_owned());
        let (service, reason) = (service.map(str::to_owned), Some("account 7".to_owned()));
        Hint { id: 0, prefix, label, service, by, reason, at_s: 100, until_s }
    }

    fn histories() -> (tempfile::TempDir, [History; 2]) {
        let directory = tempfile::tempdir().expect("a directory");
        let of = |pins| History::new(directory.path(), Path::new(pins));
        let histories = [of("/sys/fs/bpf/one"), of("/sys/fs/bpf/two")];
        (directory, histories)
    }

    const ALL: Which = Which { about: None, label: None, after: 0, rows: 100 };

    #[test]
    fn hints_are_read_back_by_their_instance_until_they_end_or_are_taken_back() {
        let (_directory, [history, other]) = histories();
        assert_eq!(history.hinted(0).expect("none"), Heard::default());
        let kept = [
            hint("192.0.2.7/32", Label::Customer, None, 200),
            hint("192.0.2.7/32", Label::Customer, Some("api"), 400),
            hint("192.0.2.0/24", Label::Abuse, None, 500),
        ];
        let ids = history.keep_hints(&kept, 100).expect("kept");
        let again = Hint { until_s: 300, by: "sales".to_owned(), ..kept[0].clone() };
        assert_eq!(history.keep_hints(&[again], 100).expect("kept"), ids[..1], "it keeps its number");
        let (all, listed) = history.hints(100, &ALL).expect("read");
        let told: Vec<_> = listed.iter().map(|hint| (hint.id, &*hint.by, hint.until_s)).collect();
        let expected = [(ids[0], "sales", 300), (ids[1], "billing", 400), (ids[2], "billing", 500)];
        assert_eq!((all, &told[..]), (3, &expected[..]));
        assert_eq!(listed[1], Hint { id: ids[1], ..kept[1].clone() });

        let source = "192.0.2.7".parse().expect("a source");
        let said = |now_s| {
            let heard = history.hinted(now_s).expect("read");
            let hints = heard.hinted.at("api");
            (hints.is_customer(source), hints.is_abuse(source), heard.until_s)
        };
        assert_eq!(said(100), (true, true, Some(300)));
        assert_eq!(
            [said(300), said(400), said(500)],
            [(true, true, Some(400)), (false, true, Some(500)), (false, false, None)]
        );
        let gone = history.take_back_hint(ids[2]).expect("it is there");
        assert_eq!((gone.label, said(100)), (Label::Abuse, (true, false, Some(300))));
        let refused = history.take_back_hint(ids[2]).expect_err("it has gone").to_string();
        assert!(refused.contains("no hint 3"), "{refused}");
        assert_eq!(other.hints(0, &ALL).expect("read"), (0, vec![]));
        assert!(other.take_back_hint(ids[0]).is_err(), "of another instance");
    }

    #[test]
    fn hints_are_listed_by_what_they_are_about() {
        let (_directory, [history, _]) = histories();
        let kept = [
            hint("192.0.2.0/24", Label::Abuse, None, 200),
            hint("192.0.2.7/32", Label::Customer, None, 200),
            hint("2001:db8:1:2::7/128", Label::Customer, None, 200),
        ];
        let ids = history.keep_hints(&kept, 100).expect("kept");
        let of = |about: &str, label, after, rows| -> Vec<u64> {
            let about = Some(about.parse().expect("a prefix"));
            let (_, hints) = history.hints(100, &Which { about, label, after, rows }).expect("read");
            hints.into_iter().map(|hint| hint.id).collect()
        };
        assert_eq!(of("192.0.2.7/32", None, 0, 9), ids[..2]);
        assert_eq!(of("192.0.2.7/32", None, 0, 1), ids[..1]);
        assert_eq!(of("192.0.2.7/32", None, ids[0], 9), ids[1..2]);
        assert_eq!(of("192.0.2.7/32", Some(Label::Abuse), 0, 9), ids[..1]);
        assert_eq!(of("192.0.2.8/32", None, 0, 9), ids[..1]);
        assert_eq!(of("192.0.0.0/16", None, 0, 9), ids[..2]);
        assert_eq!(of("2001:db8:1:2::8/128", None, 0, 9), ids[2..], "of the same source");
        assert!(of("2001:db8:1:3::7/128", None, 0, 9).is_empty());
    }

    #[test]
    fn hints_have_a_bound_and_those_that_ended_leave_room() {
        let (_directory, [history, other]) = histories();
        let numbered = |number: u32, until_s| {
            hint(&format!("{}/32", std::net::Ipv4Addr::from(number)), Label::Customer, None, until_s)
        };
        let many: Vec<_> = (0..HINTS_MAX as u32).map(|number| numbered(number, 200)).collect();
        history.keep_hints(&many, 100).expect("kept");
        let mark = history.fleets_said().expect("read");
        let one_more = [numbered(7, 300), numbered(u32::MAX, 300)];
        let refused = history.keep_hints(&one_more, 100).expect_err("it is full").to_string();
        assert!(refused.contains("100000 hints") && refused.contains("take some back"), "{refused}");
        assert_eq!(history.hinted(100).expect("read").until_s, Some(200), "none of them was taken");
        assert_eq!(history.fleets_said().expect("read"), mark, "nothing was said");
        history.keep_hints(&one_more[..1], 100).expect("in the place of another");
        other.keep_hints(&one_more, 100).expect("another instance has its own");
        history.keep_hints(&one_more, 200).expect("the others have ended");
        assert_eq!(history.hints(200, &ALL).expect("read").0, 2);
    }
}
