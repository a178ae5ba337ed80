//! The tables of the database, and how an older one becomes the present one.

use rusqlite::{Connection, TransactionBehavior};

use super::HistoryError;

/// One step from each schema to the next; the schema's number is how many were taken. Steps are never changed, only added.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    -- Every distinct content once, by its SHA-256.
    CREATE TABLE blobs (
        digest BLOB PRIMARY KEY NOT NULL,
        size INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE INDEX blobs_by_size ON blobs (size);

    -- Numbers are never given again, also not after pruning.
    CREATE TABLE versions (
        version INTEGER PRIMARY KEY AUTOINCREMENT,
        -- Whose: the directory of the pins.
        pins TEXT NOT NULL,
        time_s INTEGER NOT NULL,
        author TEXT NOT NULL,
        uid INTEGER,
        origin TEXT NOT NULL,
        file TEXT NOT NULL,
        text BLOB NOT NULL REFERENCES blobs (digest),
        -- Of the text and all source files: what makes two policies the same.
        digest TEXT NOT NULL,
        reason TEXT,
        forced INTEGER NOT NULL,
        confirm_s INTEGER,
        -- The version that was active before.
        replaced INTEGER,
        -- The version that this one is again.
        again INTEGER,
        state TEXT NOT NULL,
        failure TEXT
    ) STRICT;
    CREATE INDEX versions_by_pins ON versions (pins, version);
    CREATE INDEX versions_by_text ON versions (text);

    CREATE TABLE sources (
        version INTEGER NOT NULL REFERENCES versions (version) ON DELETE CASCADE,
        -- As the policy names it, from its folder on.
        name TEXT NOT NULL,
        content BLOB NOT NULL REFERENCES blobs (digest),
        PRIMARY KEY (version, name)
    ) STRICT;
    CREATE INDEX sources_by_content ON sources (content);

    CREATE TABLE audit (
        entry INTEGER PRIMARY KEY AUTOINCREMENT,
        pins TEXT NOT NULL,
        time_s INTEGER NOT NULL,
        author TEXT NOT NULL,
        uid INTEGER,
        origin TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        before TEXT,
        after TEXT,
        reason TEXT,
        result TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_pins ON audit (pins, entry);
",
    "
    -- The incident rules in force, for the next start with empty maps.
    CREATE TABLE incidents (
        pins TEXT PRIMARY KEY NOT NULL,
        -- As the kernel has them: a list as JSON.
        rules TEXT NOT NULL
    ) STRICT;
",
    "
    -- Fleets that were found. Times are UTC, as RFC 3339: their order is that of text.
    CREATE TABLE fleets (
        pins TEXT NOT NULL,
        -- Never given again.
        fleet INTEGER NOT NULL,
        service TEXT NOT NULL,
        first_seen TEXT NOT NULL,
        alarmed_at TEXT NOT NULL,
        last_alarm TEXT NOT NULL,
        members INTEGER NOT NULL,
        members_max INTEGER NOT NULL,
        -- As it was told last, as JSON, with some of the members.
        told TEXT NOT NULL,
        PRIMARY KEY (pins, fleet)
    ) STRICT;

    -- What spoke for them, at the first alarm that is known and at the last one.
    CREATE TABLE fleet_evidence (
        pins TEXT NOT NULL,
        fleet INTEGER NOT NULL,
        alarm TEXT NOT NULL,
        family TEXT NOT NULL,
        observed REAL NOT NULL,
        expected REAL NOT NULL,
        e_value REAL NOT NULL,
        says TEXT NOT NULL,
        PRIMARY KEY (pins, fleet, alarm, family),
        FOREIGN KEY (pins, fleet) REFERENCES fleets (pins, fleet) ON DELETE CASCADE
    ) STRICT;
",
    "
    -- What operators say of fleets. Times are seconds since the Unix epoch.
    CREATE TABLE fleet_orders (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pins TEXT NOT NULL,
        fleet INTEGER NOT NULL,
        -- What is to be done, as JSON.
        wanted TEXT NOT NULL,
        force INTEGER NOT NULL,
        by_whom TEXT NOT NULL,
        reason TEXT NOT NULL,
        at_s INTEGER NOT NULL,
        until_s INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX fleet_orders_by_pins ON fleet_orders (pins, fleet);

    -- What the application says of sources.
    CREATE TABLE fleet_hints (
        pins TEXT NOT NULL,
        prefix TEXT NOT NULL,
        label TEXT NOT NULL,
        by_whom TEXT NOT NULL,
        at_s INTEGER NOT NULL,
        until_s INTEGER NOT NULL,
        PRIMARY KEY (pins, prefix, label)
    ) STRICT;

    -- The switch that stops all actions on fleets: a row where it is turned.
    CREATE TABLE fleet_stop (
        pins TEXT PRIMARY KEY NOT NULL,
        by_whom TEXT NOT NULL,
        reason TEXT NOT NULL,
        at_s INTEGER NOT NULL
    ) STRICT;

    -- What is in force about fleets, for the next daemon.
    CREATE TABLE fleet_standing (
        pins TEXT PRIMARY KEY NOT NULL,
        -- A list in the format of `postcard`.
        standing BLOB NOT NULL
    ) STRICT;
",
    "
    -- What the application says of sources, and where. Nothing wrote the table that had this name before.
    DROP TABLE fleet_hints;
    CREATE TABLE fleet_hints (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pins TEXT NOT NULL,
        prefix TEXT NOT NULL,
        label TEXT NOT NULL,
        -- Empty: at each.
        service TEXT NOT NULL,
        by_whom TEXT NOT NULL,
        reason TEXT,
        at_s INTEGER NOT NULL,
        until_s INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX fleet_hints_by_source ON fleet_hints (pins, prefix, label, service);

    -- Another number each time that something is said of fleets, by orders, hints or the switch. It is drawn and not counted, so that a
    -- database that was put back does not look like the one that was there.
    CREATE TABLE fleet_said (
        pins TEXT PRIMARY KEY NOT NULL,
        mark INTEGER NOT NULL
    ) STRICT;
",
];

/// Brings the database to the present schema.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), HistoryError> {
    let known = MIGRATIONS.len();
    if number(connection)? == known {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it meanwhile.
    let found = number(&transaction)?;
    if found > known {
        return Err(HistoryError::Newer { found, known });
    }
    for (taken, step) in MIGRATIONS.iter().enumerate().skip(found) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", (taken + 1) as i64)?;
    }
    Ok(transaction.commit()?)
}

/// The number of the database's schema; 0: it is empty.
pub(super) fn number(connection: &Connection) -> Result<usize, HistoryError> {
    let number: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // Nothing of ours writes a negative one.
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}
