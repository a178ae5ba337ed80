//! Audit entries: every change, and every change that was refused.

use rusqlite::{Connection, Row, named_params, params};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Author, History, HistoryError, Origin, prune,
    versions::{signed, unsigned},
};

/// The result of a change that was made.
const DONE: &str = "done";

/// An audit entry to be written. [`Entry::new`] makes one of a change that was made; set what else is known.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The time now, seconds since the Unix epoch.
    pub time_s: u64,
    /// By whom.
    pub author: &'a Author,
    /// By which way.
    pub origin: Origin,
    /// What was done: `apply`, `confirm`, `rollback`, `throttle`, …
    pub action: &'a str,
    /// To what: a version, a prefix, interfaces.
    pub target: &'a str,
    /// How it was.
    pub before: Option<Value>,
    /// How it is since.
    pub after: Option<Value>,
    /// Why.
    pub reason: Option<&'a str>,
    /// Why it was refused; none: it was done.
    pub refusal: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// About a change that was made.
    pub fn new(time_s: u64, author: &'a Author, origin: Origin, action: &'a str, target: &'a str) -> Self {
        let (before, after, reason, refusal) = (None, None, None, None);
        Self { time_s, author, origin, action, target, before, after, reason, refusal }
    }
}

/// An audit entry as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Recorded {
    /// Its number: 1, 2, ….
    pub entry: u64,
    /// When, seconds since the Unix epoch.
    pub time_s: u64,
    /// By whom.
    pub author: Author,
    /// By which way.
    pub origin: Origin,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// How it was.
    pub before: Option<Value>,
    /// How it is since.
    pub after: Option<Value>,
    /// Why.
    pub reason: Option<String>,
    /// `done`, or why it was refused.
    pub result: String,
}

impl Recorded {
    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        self.result == DONE
    }
}

impl History {
    /// Writes an audit entry.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn record(&self, entry: &Entry<'_>) -> Result<(), HistoryError> {
        self.write(|transaction| {
            insert(transaction, &self.pins, entry)?;
            prune::entries(transaction, &self.bounds)
        })
    }

    /// The last audit entries, the newest first.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn entries(&self, limit: usize) -> Result<Vec<Recorded>, HistoryError> {
        self.read(
            || Ok(Vec::new()),
            |connection| {
                let mut statement = connection.prepare(
                    "SELECT entry, time_s, author, uid, origin, action, target, before, after, reason, result FROM audit \
                     WHERE pins = ? ORDER BY entry DESC LIMIT ?",
                )?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = statement.query_map(params![self.pins, limit], recorded)?;
                Ok(rows.collect::<Result<_, _>>()?)
            },
        )
    }
}

pub(super) fn insert(connection: &Connection, pins: &str, entry: &Entry<'_>) -> Result<(), HistoryError> {
    let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    connection.execute(
        "INSERT INTO audit (pins, time_s, author, uid, origin, action, target, before, after, reason, result) VALUES \
         (:pins, :time_s, :author, :uid, :origin, :action, :target, :before, :after, :reason, :result)",
        named_params! {
            ":pins": pins,
            ":time_s": signed(entry.time_s),
            ":author": entry.author.name,
            ":uid": entry.author.uid,
            ":origin": entry.origin,
            ":action": entry.action,
            ":target": entry.target,
            ":before": json(&entry.before),
            ":after": json(&entry.after),
            ":reason": entry.reason,
            ":result": entry.refusal.unwrap_or(DONE),
        },
    )?;
    Ok(())
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let json = |name| {
        let text: rusqlite::Result<Option<String>> = row.get(name);
        // What is no JSON was not written by this program: shown as it is.
        let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        text.map(|text| text.map(value))
    };
    Ok(Recorded {
        entry: unsigned(row.get("entry")?),
        time_s: unsigned(row.get("time_s")?),
        author: Author { name: row.get("author")?, uid: row.get("uid")? },
        origin: row.get("origin")?,
        action: row.get("action")?,
        target: row.get("target")?,
        before: json("before")?,
        after: json("after")?,
        reason: row.get("reason")?,
        result: row.get("result")?,
    })
}
