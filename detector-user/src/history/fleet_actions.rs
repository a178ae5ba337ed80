//! What people say about fleets, and what is in force: for the daemon, which acts on it, and for the next one.

use detector_fleets::fleet::FleetId;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{
    Entry, History, HistoryError, audit,
    incidents::not_json,
    prune,
    versions::{signed, unsigned},
};
use crate::actions::{
    limits::ORDERS_MAX,
    order::{Order, Stop, Wanted},
    standing::Standing,
};

/// What [`Standing`] is written as. One of another program is not read: what was in force is decided anew.
const STANDING_FORMAT: u32 = 1;

impl History {
    /// Takes orders about fleets, each in the place of those about it before, all of them or none; their numbers.
    ///
    /// # Errors
    ///
    /// So many hold already that there is no room, or the database cannot be written.
    pub fn order_fleets(&self, orders: &[Order]) -> Result<Vec<u64>, HistoryError> {
        self.write(|transaction| {
            let ids =
                orders.iter().map(|order| self.order_fleet(transaction, order)).collect::<Result<_, _>>()?;
            let sql = "SELECT count(*) FROM fleet_orders WHERE pins = ?1";
            let count: i64 = transaction.query_row(sql, params![self.pins], |row| row.get(0))?;
            if count > ORDERS_MAX as i64 {
                let next = "take one back with `detector undo fleet:ID`, or wait for the end of one";
                return Err(HistoryError::Full { what: "orders about fleets", most: ORDERS_MAX, next });
            }
            note_said(transaction, &self.pins)?;
            Ok(ids)
        })
    }

    fn order_fleet(&self, transaction: &Transaction<'_>, order: &Order) -> Result<u64, HistoryError> {
        let wanted = serde_json::to_string(&order.wanted).map_err(not_json)?;
        let sql = "DELETE FROM fleet_orders WHERE pins = ?1 AND (fleet = ?2 OR until_s <= ?3)";
        transaction.execute(sql, params![self.pins, signed(order.fleet.0), signed(order.at_s)])?;
        let sql = "INSERT INTO fleet_orders (pins, fleet, wanted, force, by_whom, reason, at_s, until_s) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let (fleet, at_s, until_s) = (signed(order.fleet.0), signed(order.at_s), signed(order.until_s));
        let values = params![self.pins, fleet, wanted, order.force, order.by, order.reason, at_s, until_s];
        transaction.execute(sql, values)?;
        Ok(transaction.last_insert_rowid() as u64)
    }

    /// Takes back the orders about fleets that hold at a time, of all of these fleets or of none; their numbers.
    ///
    /// # Errors
    ///
    /// There is none about one of them, or the database cannot be written.
    pub fn take_back_orders(&self, fleets: &[u64], now_s: u64) -> Result<Vec<u64>, HistoryError> {
        self.write(|transaction| {
            let sql = "DELETE FROM fleet_orders WHERE pins = ?1 AND fleet = ?2 AND until_s > ?3 RETURNING id";
            let mut ids = Vec::with_capacity(fleets.len());
            for &fleet in fleets {
                let values = params![self.pins, signed(fleet), signed(now_s)];
                let id = transaction.query_row(sql, values, |row| row.get(0)).optional()?;
                ids.push(unsigned(id.ok_or(HistoryError::NoOrder { fleet })?));
            }
            note_said(transaction, &self.pins)?;
            Ok(ids)
        })
    }

    /// A number that is another one whenever something was said of fleets; `None`: nothing ever was.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn fleets_said(&self) -> Result<Option<i64>, HistoryError> {
        self.read(
            || Ok(None),
            |connection| {
                let sql = "SELECT mark FROM fleet_said WHERE pins = ?1";
                Ok(connection.query_row(sql, params![self.pins], |row| row.get(0)).optional()?)
            },
        )
    }

    /// The orders that hold at a time, seconds since the Unix epoch; by number.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn fleet_orders(&self, now_s: u64) -> Result<Vec<Order>, HistoryError> {
        self.read(
            || Ok(Vec::new()),
            |connection| {
                let sql = "SELECT id, fleet, wanted, force, by_whom, reason, at_s, until_s FROM fleet_orders \
                           WHERE pins = ?1 AND until_s > ?2 ORDER BY id";
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map(params![self.pins, signed(now_s)], |row| {
                    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
                    let order = Order {
                        id: number(0)?,
                        fleet: FleetId(number(1)?),
                        wanted: Wanted::Leave,
                        force: row.get(3)?,
                        by: row.get(4)?,
                        reason: row.get(5)?,
                        at_s: number(6)?,
                        until_s: number(7)?,
                    };
                    Ok((order, row.get::<_, String>(2)?))
                })?;
                let mut orders = Vec::new();
                for row in rows {
                    let (order, wanted) = row?;
                    orders.push(Order { wanted: serde_json::from_str(&wanted).map_err(not_json)?, ..order });
                }
                Ok(orders)
            },
        )
    }

    /// Turns the switch of all actions on fleets: on, with who did and why, or off.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn stop_fleets(&self, stop: Option<&Stop>) -> Result<(), HistoryError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM fleet_stop WHERE pins = ?1", params![self.pins])?;
            if let Some(Stop { by, reason, at_s }) = stop {
                let sql = "INSERT INTO fleet_stop (pins, by_whom, reason, at_s) VALUES (?1, ?2, ?3, ?4)";
                transaction.execute(sql, params![self.pins, by, reason, signed(*at_s)])?;
            }
            note_said(transaction, &self.pins)
        })
    }

    /// Takes back one turn of the switch of all actions on fleets, and none that came after it.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn end_stop(&self, stop: &Stop) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let sql = "DELETE FROM fleet_stop WHERE pins = ?1 AND at_s = ?2";
            transaction.execute(sql, params![self.pins, signed(stop.at_s)])?;
            note_said(transaction, &self.pins)
        })
    }

    /// The switch, where it is turned.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn fleets_stopped(&self) -> Result<Option<Stop>, HistoryError> {
        self.read(
            || Ok(None),
            |connection| {
                let sql = "SELECT by_whom, reason, at_s FROM fleet_stop WHERE pins = ?1";
                let stop = connection.query_row(sql, params![self.pins], |row| {
                    Ok(Stop { by: row.get(0)?, reason: row.get(1)?, at_s: row.get::<_, i64>(2)? as u64 })
                });
                Ok(stop.optional()?)
            },
        )
    }

    /// Keeps what is in force about fleets, with the audit entries of what changes by that: both or neither.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn keep_fleet_standing(
        &self,
        standing: &[Standing],
        changes: &[Entry<'_>],
    ) -> Result<(), HistoryError> {
        let bytes = postcard::to_allocvec(&(STANDING_FORMAT, standing)).map_err(not_bytes)?;
        self.write(|transaction| {
            let sql = "INSERT OR REPLACE INTO fleet_standing (pins, standing) VALUES (?1, ?2)";
            transaction.execute(sql, params![self.pins, bytes])?;
            for entry in changes {
                audit::insert(transaction, &self.pins, entry)?;
            }
            if changes.is_empty() { Ok(()) } else { prune::entries(transaction, &self.bounds) }
        })
    }

    /// What was in force about fleets when it was kept last.
    ///
    /// # Errors
    ///
    /// The database cannot be read, or another version of this program wrote it.
    pub fn fleet_standing(&self) -> Result<Vec<Standing>, HistoryError> {
        self.read(
            || Ok(Vec::new()),
            |connection| {
                let sql = "SELECT standing FROM fleet_standing WHERE pins = ?1";
                let bytes: Option<Vec<u8>> =
                    connection.query_row(sql, params![self.pins], |row| row.get(0)).optional()?;
                let Some(bytes) = bytes else { return Ok(Vec::new()) };
                let (format, rest): (u32, _) = postcard::take_from_bytes(&bytes).map_err(not_bytes)?;
                if format != STANDING_FORMAT {
                    return Err(not_bytes(postcard::Error::DeserializeBadEncoding));
                }
                postcard::from_bytes(rest).map_err(not_bytes)
            },
        )
    }
}

/// Notes that something was said of fleets, for who asks only for that.
pub(super) fn note_said(transaction: &Transaction<'_>, pins: &str) -> Result<(), HistoryError> {
    let sql = "INSERT OR REPLACE INTO fleet_said (pins, mark) VALUES (?1, random())";
    transaction.execute(sql, params![pins])?;
    Ok(())
}

fn not_bytes(error: postcard::Error) -> HistoryError {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        actions::fixtures,
        history::{Author, Origin},
    };

    fn order(fleet: u64, wanted: Wanted, at_s: u64, until_s: u64) -> Order {
        let (by, reason) = ("ann".to_owned(), "INC-4711".to_owned());
        Order { id: 0, fleet: FleetId(fleet), wanted, force: true, by, reason, at_s, until_s }
    }

    #[test]
    fn what_is_said_of_fleets_is_read_back_by_its_instance_until_it_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        let other = History::new(directory.path(), Path::new("/sys/fs/bpf/two"));
        assert!(
            history.fleet_orders(0).expect("none").is_empty()
                && history.fleets_stopped().expect("no").is_none()
        );
        let take = |order| history.order_fleets(&[order]).expect("taken")[0];
        let first = take(order(3, Wanted::Leave, 100, 500));
        let second = take(order(3, Wanted::THROTTLE, 110, 300));
        let third = take(order(4, Wanted::Leave, 120, 200));
        assert!(first < second && second < third);
        let told = |now_s| -> Vec<_> {
            let orders = history.fleet_orders(now_s).expect("read");
            orders.into_iter().map(|order| (order.id, order.fleet.0, order.wanted, order.force)).collect()
        };
        assert_eq!(told(199), [(second, 3, Wanted::THROTTLE, true), (third, 4, Wanted::Leave, true)]);
        assert_eq!(told(200), [(second, 3, Wanted::THROTTLE, true)]);

        let stop = Stop { by: "ann".to_owned(), reason: "too much".to_owned(), at_s: 5 };
        history.stop_fleets(Some(&stop)).expect("stopped");
        assert_eq!(
            (history.fleets_stopped().expect("read"), other.fleets_stopped().expect("read")),
            (Some(stop.clone()), None)
        );
        history.end_stop(&Stop { at_s: stop.at_s + 1, ..stop.clone() }).expect("another one");
        assert_eq!(history.fleets_stopped().expect("read"), Some(stop.clone()));
        history.end_stop(&stop).expect("that one");
        assert_eq!(history.fleets_stopped().expect("read"), None);
        history.stop_fleets(Some(&stop)).expect("stopped again");
        history.stop_fleets(None).expect("goes on");
        assert_eq!(history.fleets_stopped().expect("read"), None);

        let standing = vec![fixtures::standing()];
        let author = Author { name: "ann".to_owned(), uid: None };
        let entry = Entry::new(5, &author, Origin::Daemon, "throttle", "fleet:3");
        history.keep_fleet_standing(&standing, &[entry]).expect("kept");
        assert_eq!(history.fleet_standing().expect("read"), standing);
        let entries = history.entries(9).expect("read");
        assert_eq!(entries.iter().map(|entry| &*entry.target).collect::<Vec<_>>(), ["fleet:3"]);
        let of_another = postcard::to_allocvec(&(STANDING_FORMAT + 1, &standing)).expect("bytes");
        history
            .write(|transaction| {
                Ok(transaction.execute("UPDATE fleet_standing SET standing = ?1", params![of_another])?)
            })
            .expect("written");
        assert!(history.fleet_standing().is_err(), "another program's is not guessed at");
        assert!(
            other.fleet_standing().expect("read").is_empty()
                && other.fleet_orders(0).expect("read").is_empty()
        );
    }

    #[test]
    fn no_order_takes_the_place_of_one_about_another_fleet_that_holds() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        let many: Vec<_> =
            (1..=ORDERS_MAX as u64).map(|fleet| order(fleet, Wanted::Leave, 100, 500)).collect();
        history.order_fleets(&many).expect("taken");
        let next = order(ORDERS_MAX as u64 + 1, Wanted::THROTTLE, 200, 500);
        let refused = history.order_fleets(std::slice::from_ref(&next)).expect_err("it is full").to_string();
        assert!(refused.contains("256 orders") && refused.contains("undo fleet:ID"), "{refused}");
        assert_eq!(history.fleet_orders(100).expect("read").len(), ORDERS_MAX, "nothing has changed");
        history.order_fleets(&[order(7, Wanted::THROTTLE, 200, 500)]).expect("in the place of its own");
        history.take_back_orders(&[7], 200).expect("it is there");
        history.order_fleets(std::slice::from_ref(&next)).expect("there is room");
        let later = Order { at_s: 500, until_s: 600, ..next };
        history.order_fleets(&[Order { fleet: FleetId(9999), ..later }]).expect("those have ended");
        assert_eq!(history.fleet_orders(500).expect("read").len(), 1);
    }

    #[test]
    fn orders_are_taken_back_all_or_none_and_whatever_is_said_makes_another_mark() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        let mut marks = vec![history.fleets_said().expect("none")];
        assert_eq!(marks[0], None);
        let mut mark = || marks.push(history.fleets_said().expect("read"));
        history.order_fleets(&[3, 4].map(|fleet| order(fleet, Wanted::Leave, 100, 500))).expect("taken");
        mark();
        let refused = history.take_back_orders(&[3, 5], 100).expect_err("none about 5").to_string();
        assert!(refused.contains("no order about fleet 5"), "{refused}");
        assert!(history.take_back_orders(&[3], 500).is_err(), "it has ended");
        assert_eq!(history.fleet_orders(100).expect("read").len(), 2);
        history.take_back_orders(&[3, 4], 100).expect("they are there");
        assert!(history.fleet_orders(100).expect("read").is_empty());
        mark();
        history.stop_fleets(None).expect("goes on");
        mark();
        assert!(marks.windows(2).all(|two| two[0] != two[1]), "{marks:?}");
        assert_eq!(history.fleets_said().expect("read"), marks[3], "nothing was said");
    }
}
