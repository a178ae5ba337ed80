//! Versions in the database: written before the kernel is asked, and finished after it.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, named_params, params};
use sha2::{Digest as _, Sha256};

use super::{
    Author, Content, Entry, History, HistoryError, NewVersion, Origin, SourceFile, State, Version, audit,
    prune, standing::InKernel,
};

const COLUMNS: &str = "version, time_s, author, uid, origin, file, digest, reason, forced, confirm_s, replaced, again, state, \
     failure";

impl History {
    /// Writes a version that is about to be put into the kernel, and tells its number.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn begin(&self, new: &NewVersion<'_>) -> Result<u64, HistoryError> {
        self.write(|transaction| {
            let text = put_blob(transaction, new.text.as_bytes())?;
            transaction.execute(
                "INSERT INTO versions (pins, time_s, author, uid, origin, file, text, digest, reason, forced, confirm_s, \
                 replaced, again, state) VALUES (:pins, :time_s, :author, :uid, :origin, :file, :text, :digest, :reason, :forced, \
                 :confirm_s, :replaced, :again, :state)",
                named_params! {
                    ":pins": self.pins,
                    ":time_s": signed(new.time_s),
                    ":author": new.author.name,
                    ":uid": new.author.uid,
                    ":origin": new.origin,
                    ":file": new.file,
                    ":text": text,
                    ":digest": new.digest,
                    ":reason": new.reason,
                    ":forced": new.forced,
                    ":confirm_s": new.confirm_s.map(signed),
                    ":replaced": new.replaced.map(signed),
                    ":again": new.again.map(signed),
                    ":state": State::Applying,
                },
            )?;
            let version = transaction.last_insert_rowid();
            for SourceFile { name, bytes } in new.sources {
                let content = put_blob(transaction, bytes)?;
                let insert = "INSERT OR IGNORE INTO sources (version, name, content) VALUES (?, ?, ?)";
                transaction.execute(insert, params![version, name, content])?;
            }
            Ok(version as u64)
        })
    }

    /// Writes what became of a version that was begun and the audit entry about it, and forgets what is too old.
    /// `active`: versions that are not, besides the last one of every instance.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn finish(
        &self,
        version: u64,
        state: State,
        entry: &Entry<'_>,
        active: &[u64],
    ) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let change = "UPDATE versions SET state = ?, failure = ? WHERE version = ? AND pins = ?";
            transaction.execute(change, params![state, entry.refusal, signed(version), self.pins])?;
            audit::insert(transaction, &self.pins, entry)?;
            prune::prune(transaction, &self.bounds, active)
        })
    }

    /// Writes that the policy that was active already was applied once more.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn repeat(&self, version: u64, forced: bool, entry: &Entry<'_>) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let change = "UPDATE versions SET forced = forced OR ? WHERE version = ? AND pins = ?";
            transaction.execute(change, params![forced, signed(version), self.pins])?;
            audit::insert(transaction, &self.pins, entry)
        })
    }

    /// Writes down what the kernel did by itself, or what a process could not write any more: trials that were taken back or
    /// confirmed, and versions that were begun and not finished. The numbers of trials that were taken back.
    ///
    /// The caller keeps other writers of policies away. `now_s`: seconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn reconcile(&self, kernel: Option<&InKernel>, now_s: u64) -> Result<Vec<u64>, HistoryError> {
        // Most often there is nothing to write, and nobody to wait for.
        let has_open = |connection: &Connection| Ok(!self.open_versions(connection)?.is_empty());
        if !self.read(|| Ok(false), has_open)? {
            return Ok(Vec::new());
        }
        self.write(|transaction| {
            let mut taken_back = Vec::new();
            for version in self.open_versions(transaction)? {
                let is_active = kernel.is_some_and(|kernel| kernel.is(&version));
                let on_trial = kernel.is_some_and(|kernel| kernel.on_trial);
                let (state, failure) = match (version.state, is_active) {
                    (_, true) if on_trial => (State::Trial, None),
                    (_, true) => (State::Applied, None),
                    (State::Applying, false) => (State::Failed, Some("whoever applied it did not finish")),
                    (_, false) => (State::TakenBack, None),
                };
                if state == version.state {
                    continue;
                }
                let change = "UPDATE versions SET state = ?, failure = ? WHERE version = ?";
                transaction.execute(change, params![state, failure, signed(version.version)])?;
                if state == State::TakenBack {
                    let over_s = version.time_s.saturating_add(version.confirm_s.unwrap_or(0)).min(now_s);
                    let target = format!("version {}", version.version);
                    let author = Author::kernel();
                    let entry = Entry::new(over_s, &author, Origin::Kernel, "take_back", &target);
                    audit::insert(transaction, &self.pins, &entry)?;
                    taken_back.push(version.version);
                }
            }
            Ok(taken_back)
        })
    }

    /// Versions whose end is not known yet.
    fn open_versions(&self, connection: &Connection) -> Result<Vec<Version>, HistoryError> {
        let mut statement = connection
            .prepare(&format!("SELECT {COLUMNS} FROM versions WHERE pins = ? AND state IN (?, ?)"))?;
        let rows = statement.query_map(params![self.pins, State::Applying, State::Trial], version)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The last versions, the newest first.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn versions(&self, limit: usize) -> Result<Vec<Version>, HistoryError> {
        self.read(
            || Ok(Vec::new()),
            |connection| {
                let mut statement = connection.prepare(&format!(
                    "SELECT {COLUMNS} FROM versions WHERE pins = ? ORDER BY version DESC LIMIT ?"
                ))?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = statement.query_map(params![self.pins, limit], version)?;
                Ok(rows.collect::<Result<_, _>>()?)
            },
        )
    }

    /// One version.
    ///
    /// # Errors
    ///
    /// There is none of this number; the database cannot be read.
    pub fn version(&self, number: u64) -> Result<Version, HistoryError> {
        let missing = || HistoryError::NoVersion { version: number, pins: self.pins.clone() };
        let found = self.find_by("version = :number", &[(":number", &signed(number))])?;
        found.ok_or_else(missing)
    }

    /// The newest version before one that became active to stay and is of another content; `None`: there is none.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn before_differing(&self, number: u64, digest: &str) -> Result<Option<Version>, HistoryError> {
        let condition = "version < :number AND state = 'applied' AND digest != :digest";
        self.find_by(condition, &[(":number", &signed(number)), (":digest", &digest)])
    }

    /// The last version that became active to stay; `None`: none did.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn last_applied(&self) -> Result<Option<Version>, HistoryError> {
        self.find_by("state = 'applied'", &[])
    }

    /// Whether a policy of this content was applied with `--force`, and not taken back.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn was_forced(&self, digest: &str) -> Result<bool, HistoryError> {
        let condition = "digest = :digest AND forced AND state IN ('applied', 'trial')";
        Ok(self.find_by(condition, &[(":digest", &digest)])?.is_some())
    }

    /// What a version is made of.
    ///
    /// # Errors
    ///
    /// There is none of this number; the database cannot be read.
    pub fn content(&self, number: u64) -> Result<Content, HistoryError> {
        let missing = || HistoryError::NoVersion { version: number, pins: self.pins.clone() };
        self.read(
            || Err(missing()),
            |connection| {
                let text: Option<Vec<u8>> = connection
                    .query_row(
                        "SELECT bytes FROM versions JOIN blobs ON blobs.digest = text WHERE version = ? AND pins = ?",
                        params![signed(number), self.pins],
                        |row| row.get(0),
                    )
                    .optional()?;
                let text = text.ok_or_else(missing)?;
                let mut statement = connection.prepare(
                    "SELECT name, bytes FROM sources JOIN blobs ON blobs.digest = content WHERE version = ? ORDER BY name",
                )?;
                let source = |row: &Row<'_>| Ok(SourceFile { name: row.get(0)?, bytes: row.get(1)? });
                let sources = statement.query_map([signed(number)], source)?.collect::<Result<_, _>>()?;
                // It was text when it was written.
                Ok(Content { text: String::from_utf8_lossy(&text).into_owned(), sources })
            },
        )
    }

    /// The newest version for which a condition holds.
    fn find_by(
        &self,
        condition: &str,
        values: &[(&str, &dyn rusqlite::ToSql)],
    ) -> Result<Option<Version>, HistoryError> {
        self.read(
            || Ok(None),
            |connection| {
                let mut statement = connection.prepare(&format!(
                    "SELECT {COLUMNS} FROM versions WHERE pins = :pins AND {condition} ORDER BY version DESC LIMIT 1"
                ))?;
                let pins: (&str, &dyn rusqlite::ToSql) = (":pins", &self.pins);
                let values: Vec<_> = values.iter().copied().chain([pins]).collect();
                Ok(statement.query_row(&*values, version).optional()?)
            },
        )
    }
}

/// Stores a content unless it is there, and tells its digest.
fn put_blob(transaction: &Transaction<'_>, bytes: &[u8]) -> Result<Vec<u8>, HistoryError> {
    let digest = Sha256::digest(bytes).to_vec();
    let known = transaction
        .query_row("SELECT 1 FROM blobs WHERE digest = ?", [&digest], |_| Ok(()))
        .optional()?
        .is_some();
    if !known {
        let insert = "INSERT INTO blobs (digest, size, bytes) VALUES (?, ?, ?)";
        transaction.execute(insert, params![digest, bytes.len() as i64, bytes])?;
    }
    Ok(digest)
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    let optional = |name| row.get::<_, Option<i64>>(name).map(|number| number.map(unsigned));
    Ok(Version {
        version: unsigned(row.get("version")?),
        time_s: unsigned(row.get("time_s")?),
        author: Author { name: row.get("author")?, uid: row.get("uid")? },
        origin: row.get("origin")?,
        file: row.get("file")?,
        digest: row.get("digest")?,
        reason: row.get("reason")?,
        forced: row.get("forced")?,
        confirm_s: optional("confirm_s")?,
        replaced: optional("replaced")?,
        again: optional("again")?,
        state: row.get("state")?,
        failure: row.get("failure")?,
    })
}

/// SQLite has signed numbers. Times and versions beyond are none.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Nothing of ours writes a negative number.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
