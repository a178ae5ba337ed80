//! What people and the application say about fleets, and what is in force: for the daemon, which acts on it, and for the next one.

use detector_fleets::fleet::FleetId;
use rusqlite::{OptionalExtension as _, params};

use super::{History, HistoryError, incidents::not_json, versions::signed};
use crate::actions::{
    hints::{Hint, Hints, Label},
    limits::ORDERS_MAX,
    order::{Order, Stop, Wanted},
    standing::Standing,
};

impl History {
    /// Takes an order about a fleet, in the place of those about it before; its number.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn order_fleet(&self, order: &Order) -> Result<u64, HistoryError> {
        let wanted = serde_json::to_string(&order.wanted).map_err(not_json)?;
        self.write(|transaction| {
            let sql = "DELETE FROM fleet_orders WHERE pins = ?1 AND (fleet = ?2 OR until_s <= ?3)";
            transaction.execute(sql, params![self.pins, signed(order.fleet.0), signed(order.at_s)])?;
            let sql = "INSERT INTO fleet_orders (pins, fleet, wanted, force, by_whom, reason, at_s, until_s) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let (fleet, at_s, until_s) = (signed(order.fleet.0), signed(order.at_s), signed(order.until_s));
            let values =
                params![self.pins, fleet, wanted, order.force, order.by, order.reason, at_s, until_s];
            transaction.execute(sql, values)?;
            let id = transaction.last_insert_rowid();
            let sql = "DELETE FROM fleet_orders WHERE pins = ?1 AND id NOT IN \
                       (SELECT id FROM fleet_orders WHERE pins = ?1 ORDER BY id DESC LIMIT ?2)";
            transaction.execute(sql, params![self.pins, ORDERS_MAX as i64])?;
            Ok(id as u64)
        })
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

    /// Takes a hint of the application, in the place of that about the same.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn keep_hint(&self, hint: &Hint) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let sql = "INSERT OR REPLACE INTO fleet_hints (pins, prefix, label, by_whom, at_s, until_s) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let (prefix, label) = (hint.prefix.to_string(), hint.label.name());
            let (at_s, until_s) = (signed(hint.at_s), signed(hint.until_s));
            transaction.execute(sql, params![self.pins, prefix, label, hint.by, at_s, until_s])?;
            let sql = "DELETE FROM fleet_hints WHERE pins = ?1 AND until_s <= ?2";
            transaction.execute(sql, params![self.pins, at_s])?;
            Ok(())
        })
    }

    /// Takes a hint back; whether it was there.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn take_back_hint(&self, prefix: ipnet::IpNet, label: Label) -> Result<bool, HistoryError> {
        let sql = "DELETE FROM fleet_hints WHERE pins = ?1 AND prefix = ?2 AND label = ?3";
        let values = params![self.pins, prefix.trunc().to_string(), label.name()];
        self.write(|transaction| Ok(transaction.execute(sql, values)? > 0))
    }

    /// The hints that hold at a time, seconds since the Unix epoch. One that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn hints(&self, now_s: u64) -> Result<Hints, HistoryError> {
        self.read(
            || Ok(Hints::default()),
            |connection| {
                let sql = "SELECT prefix, label, by_whom, at_s, until_s FROM fleet_hints WHERE pins = ?1 AND until_s > ?2";
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map(params![self.pins, signed(now_s)], |row| {
                    let (prefix, label): (String, String) = (row.get(0)?, row.get(1)?);
                    let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
                    let (by, at_s, until_s) = (row.get(2)?, number(3)?, number(4)?);
                    let read = || Some((prefix.parse().ok()?, Label::from_name(&label)?));
                    Ok(read().map(|(prefix, label)| Hint { prefix, label, by, at_s, until_s }))
                })?;
                let mut hints = Hints::default();
                for row in rows {
                    if let Some(hint) = row? {
                        // What was taken once is within every bound, unless the bounds have changed since.
                        let _ = hints.take(hint);
                    }
                }
                Ok(hints)
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
            Ok(())
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

    /// Keeps what is in force about fleets.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn keep_fleet_standing(&self, standing: &[Standing]) -> Result<(), HistoryError> {
        let bytes = postcard::to_allocvec(standing).map_err(not_bytes)?;
        self.write(|transaction| {
            let sql = "INSERT OR REPLACE INTO fleet_standing (pins, standing) VALUES (?1, ?2)";
            transaction.execute(sql, params![self.pins, bytes])?;
            Ok(())
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
                bytes.map_or_else(|| Ok(Vec::new()), |bytes| postcard::from_bytes(&bytes).map_err(not_bytes))
            },
        )
    }
}

fn not_bytes(error: postcard::Error) -> HistoryError {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error)).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::actions::fixtures;

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
        let first = history.order_fleet(&order(3, Wanted::Leave, 100, 500)).expect("taken");
        let second = history.order_fleet(&order(3, Wanted::THROTTLE, 110, 300)).expect("taken");
        let third = history.order_fleet(&order(4, Wanted::Leave, 120, 200)).expect("taken");
        assert!(first < second && second < third);
        let told = |now_s| -> Vec<_> {
            let orders = history.fleet_orders(now_s).expect("read");
            orders.into_iter().map(|order| (order.id, order.fleet.0, order.wanted, order.force)).collect()
        };
        assert_eq!(told(199), [(second, 3, Wanted::THROTTLE, true), (third, 4, Wanted::Leave, true)]);
        assert_eq!(told(200), [(second, 3, Wanted::THROTTLE, true)]);

        let prefix = "192.0.2.7/32".parse().expect("a prefix");
        let hint = Hint { prefix, label: Label::Customer, by: "billing".to_owned(), at_s: 100, until_s: 200 };
        history.keep_hint(&hint).expect("kept");
        history.keep_hint(&Hint { until_s: 300, ..hint.clone() }).expect("kept");
        let until =
            |now_s| history.hints(now_s).expect("read").iter().map(|hint| hint.until_s).collect::<Vec<_>>();
        assert_eq!((until(299), until(300)), (vec![300], vec![]));
        assert!(history.take_back_hint(prefix, Label::Customer).expect("gone"));
        assert!(!history.take_back_hint(prefix, Label::Customer).expect("gone") && until(0).is_empty());

        let stop = Stop { by: "ann".to_owned(), reason: "too much".to_owned(), at_s: 5 };
        history.stop_fleets(Some(&stop)).expect("stopped");
        assert_eq!(
            (history.fleets_stopped().expect("read"), other.fleets_stopped().expect("read")),
            (Some(stop), None)
        );
        history.stop_fleets(None).expect("goes on");
        assert_eq!(history.fleets_stopped().expect("read"), None);

        let standing = vec![fixtures::standing()];
        history.keep_fleet_standing(&standing).expect("kept");
        assert_eq!(history.fleet_standing().expect("read"), standing);
        assert!(
            other.fleet_standing().expect("read").is_empty()
                && other.fleet_orders(0).expect("read").is_empty()
        );
    }
}
