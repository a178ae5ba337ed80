//! A directory of recordings: a file for each quarter of an hour, the oldest of which make room.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use detector_fleets::observation::{Observation, ServiceId};
use humantime::format_rfc3339_seconds;
use parquet::errors::ParquetError;
use std::time::{Duration, UNIX_EPOCH};

use super::{
    error::RecordingError,
    names::Names,
    part::{PART, Part, unwritten},
    writer::Writer,
};

/// How the names of recordings start and end. Between them stands when their first epoch began, in UTC, so they are in order.
const NAME: (&str, &str) = ("observations-", ".parquet");

/// A directory that is recorded to.
pub struct Directory {
    path: PathBuf,
    /// Free again when its holder dies.
    _lock: File,
    node: String,
    file_s: u64,
    bytes_max: u64,
    open: Option<Open>,
}

/// The recording that is being written.
struct Open {
    /// When another one begins, seconds since the Unix epoch.
    until_s: u64,
    /// Rows that were given to it; those of the last row group are not in the file.
    rows: u64,
    writer: Writer<Vec<u8>>,
    part: Part,
}

/// What became of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Recordings that made room.
    pub removed: Vec<PathBuf>,
}

impl Directory {
    /// One for a node, with a file for each time of so many seconds, and at most so many bytes of them that are finished. It is made if it
    /// is not there. Also says which recordings of an earlier run were never finished: they are removed.
    ///
    /// # Errors
    ///
    /// It cannot be made, read, or tidied, or is another's who lives.
    pub fn open(
        path: &Path,
        node: &str,
        file_s: u64,
        bytes_max: u64,
    ) -> Result<(Self, Vec<PathBuf>), RecordingError> {
        fs::create_dir_all(path).map_err(|error| unwritten(path, error))?;
        let lock = lock(path)?;
        let mut unfinished = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| unwritten(path, error))? {
            let file = entry.map_err(|error| unwritten(path, error))?.path();
            if is_recording(&file, PART) {
                fs::remove_file(&file).map_err(|error| unwritten(&file, error))?;
                unfinished.push(file);
            }
        }
        unfinished.sort();
        let (path, node) = (path.to_owned(), node.to_owned());
        Ok((Self { path, _lock: lock, node, file_s, bytes_max, open: None }, unfinished))
    }

    /// Adds the rows of an epoch, and what fingerprints in them are called, to another file where its time has come.
    ///
    /// # Errors
    ///
    /// They cannot be written: the recording ends with what was written before, and the error says how many rows are lost.
    pub fn write<'a>(
        &mut self,
        start_s: u64,
        rows: Vec<Observation>,
        names: Names,
        service: impl Fn(ServiceId) -> &'a str,
    ) -> Result<Tidied, RecordingError> {
        let count = rows.len() as u64;
        let mut tidied = Tidied::default();
        if self.open.as_ref().is_some_and(|open| start_s >= open.until_s) {
            tidied = self.finish().map_err(|error| error.and_lost(count))?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(start_s).map_err(|error| error.and_lost(count))?,
        };
        open.rows += count;
        open.writer.name(names);
        if let Err(source) = open.writer.write(rows, service).and_then(|()| open.append()) {
            return Err(open.part.cut(open.rows, source));
        }
        self.open = Some(open);
        Ok(tidied)
    }

    /// Ends the recording that is being written, so that it can be read, and makes room.
    ///
    /// # Errors
    ///
    /// It cannot be written, as in [`Self::write`], or older ones cannot be removed.
    pub fn finish(&mut self) -> Result<Tidied, RecordingError> {
        let Some(Open { rows, writer, mut part, .. }) = self.open.take() else {
            return Ok(Tidied::default());
        };
        if let Err(source) = writer.finish().and_then(|rest| Ok(part.append(&rest, Vec::new(), rows)?)) {
            return Err(part.cut(rows, source));
        }
        self.make_room(&part.finish()?)
    }

    fn begin(&self, start_s: u64) -> Result<Open, RecordingError> {
        let time: String = format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(start_s))
            .to_string()
            .chars()
            .filter(|letter| !matches!(letter, '-' | ':'))
            .collect();
        let name = |more: &str| self.path.join(format!("{}{time}{more}{}", NAME.0, NAME.1));
        // One that was begun in the same epoch, by an earlier run.
        let names = std::iter::once(String::new()).chain((2..).map(|number| format!("-{number}")));
        let path = names.map(|more| name(&more)).find(|path| !path.exists()).unwrap_or_else(|| name(""));
        let part = Part::create(path)?;
        let writer = match Writer::new(Vec::new(), &self.node) {
            Ok(writer) => writer,
            Err(source) => return Err(part.cut(0, source)),
        };
        let until_s = start_s - start_s % self.file_s.max(1) + self.file_s;
        Ok(Open { until_s, rows: 0, writer, part })
    }

    /// Removes the oldest recordings until the others fit; never the newest, nor what is no recording.
    fn make_room(&self, newest: &Path) -> Result<Tidied, RecordingError> {
        let mut tidied = Tidied::default();
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|error| unwritten(&self.path, error))? {
            let file = entry.map_err(|error| unwritten(&self.path, error))?.path();
            if is_recording(&file, "") {
                let bytes = fs::metadata(&file).map_err(|error| unwritten(&file, error))?.len();
                files.push((file, bytes));
            }
        }
        files.sort();
        let mut sum: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        for (file, bytes) in files {
            if sum <= self.bytes_max || file == newest {
                break;
            }
            fs::remove_file(&file).map_err(|error| unwritten(&file, error))?;
            sum -= bytes;
            tidied.removed.push(file);
        }
        Ok(tidied)
    }
}

impl Open {
    /// Writes the row groups that are complete to the file.
    fn append(&mut self) -> Result<(), ParquetError> {
        let rows = self.writer.grouped();
        if rows > self.part.kept() {
            let (groups, footer) = self.writer.take()?;
            self.part.append(&groups, footer, rows)?;
        }
        Ok(())
    }
}

/// Locks a directory. The directory itself is locked, so that nothing is in it but recordings.
fn lock(path: &Path) -> Result<File, RecordingError> {
    let unlocked = |source| RecordingError::Open { path: path.to_owned(), source };
    let directory = File::open(path).map_err(unlocked)?;
    match directory.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let held =
                "another `detector record` writes there; record to another directory, or stop that one";
            Err(unlocked(io::Error::new(io::ErrorKind::WouldBlock, held)))
        }
        // NFS cannot lock a directory: there nobody is told of another.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(directory),
    }
}

fn is_recording(path: &Path, more: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(NAME.0));
    rest.and_then(|rest| rest.strip_suffix(more)).is_some_and(|rest| rest.ends_with(NAME.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{fixtures::row, reader::Recording, writer::GROUP_ROWS};
    use detector_fleets::observation::Services;
    use std::io::Read as _;

    const START_S: u64 = 1_763_816_400;

    fn names(directory: &Path) -> Vec<String> {
        let files = fs::read_dir(directory).expect("the directory");
        let mut names: Vec<_> =
            files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn times(path: &Path) -> Vec<u64> {
        let mut recording = Recording::open(path).expect("a recording");
        let (mut services, mut rows, mut times) = (Services::default(), Vec::new(), Vec::new());
        while recording.read(&mut services, &mut rows).expect("rows") {
            times.extend(rows.iter().map(|row| row.time_s));
        }
        times
    }

    #[test]
    fn a_file_is_there_when_its_time_is_over_and_has_its_rows() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut to, unfinished) = Directory::open(directory.path(), "edge", 900, u64::MAX).expect("it");
        assert_eq!(unfinished, <[PathBuf; 0]>::default());
        for minute in [0, 1, 14, 15] {
            let rows = vec![row(START_S + minute * 60, minute)];
            assert_eq!(
                to.write(START_S + minute * 60, rows, Names::default(), |_| "api").expect("written"),
                Tidied::default()
            );
        }
        let [first, second] =
            ["observations-20251122T130000Z.parquet", "observations-20251122T131500Z.parquet"];
        assert_eq!(names(directory.path()), [first.to_owned(), format!("{second}.part")]);
        assert_eq!(times(&directory.path().join(first)), [0, 1, 14].map(|minute| START_S + minute * 60));
        to.finish().expect("finished");
        assert_eq!(names(directory.path()), [first, second]);
        assert_eq!(times(&directory.path().join(second)), [START_S + 900]);
    }

    #[test]
    fn what_was_not_finished_is_told_and_another_run_in_the_same_epoch_has_a_file_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let record = |finished: bool| {
            let (mut to, unfinished) = Directory::open(directory.path(), "edge", 900, u64::MAX).expect("it");
            to.write(START_S, vec![row(START_S, 0)], Names::default(), |_| "api").expect("written");
            if finished {
                to.finish().expect("finished");
            }
            unfinished.len()
        };
        assert_eq!([record(true), record(false), record(true)], [0, 0, 1]);
        let expected = ["observations-20251122T130000Z-2.parquet", "observations-20251122T130000Z.parquet"];
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn a_directory_is_one_recorders_until_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Directory::open(directory.path(), "edge", 900, u64::MAX);
        let (mut first, _) = open().expect("it");
        first.write(START_S, vec![row(START_S, 0)], Names::default(), |_| "api").expect("written");
        let error = open().map(|(_, unfinished)| unfinished).expect_err("refused").to_string();
        assert_eq!(
            error,
            format!(
                "cannot open {}: another `detector record` writes there; record to another directory, or stop that one",
                directory.path().display()
            )
        );
        first.finish().expect("finished");
        assert_eq!(names(directory.path()), ["observations-20251122T130000Z.parquet"]);
        drop(first);
        open().expect("free again");
    }

    #[test]
    fn on_a_full_disk_what_was_written_is_kept_and_what_is_lost_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut to, _) = Directory::open(directory.path(), "edge", 900, u64::MAX).expect("it");
        let rows = |count: u64| (0..count).map(|_| row(START_S, 1)).collect::<Vec<_>>();
        let group = GROUP_ROWS as u64;
        to.write(START_S, rows(group + 5), Names::default(), |_| "api").expect("written");
        let mut full = to.open.as_mut().expect("a recording").part.fill_disk();
        to.write(START_S, rows(7), Names::default(), |_| "api").expect("nothing is written yet");
        let error = to.write(START_S, rows(group), Names::default(), |_| "api").expect_err("no room");
        let path = directory.path().join("observations-20251122T130000Z.parquet");
        let error = error.to_string();
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        let loss = format!("; its first {group} rows are kept; {} rows are lost; make room", group + 12);
        assert!(error.contains(&loss), "{error}");
        assert_eq!(times(&path).len(), GROUP_ROWS);
        let mut left = Vec::new();
        full.read_to_end(&mut left).expect("the file");
        assert!(left == fs::read(path).expect("bytes"), "as it was before");
        // The next one has a file of its own.
        to.write(START_S, rows(3), Names::default(), |_| "api").expect("written");
        to.open.as_mut().expect("a recording").part.fill_disk();
        let error = to.finish().expect_err("no room").to_string();
        assert!(error.contains("; 3 rows are lost; make room"), "{error}");
    }

    #[test]
    fn the_oldest_make_room_and_other_files_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("notes.txt"), vec![0; 100_000]).expect("a file");
        let (mut to, _) = Directory::open(directory.path(), "edge", 60, 1).expect("it");
        let mut removed = Vec::new();
        for minute in 0..3 {
            let time_s = START_S + minute * 60;
            removed.extend(
                to.write(time_s, vec![row(time_s, 0)], Names::default(), |_| "api").expect("written").removed,
            );
        }
        removed.extend(to.finish().expect("finished").removed);
        let names_of: Vec<_> = removed.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(
            names_of,
            ["observations-20251122T130000Z.parquet", "observations-20251122T130100Z.parquet"]
        );
        assert_eq!(names(directory.path()), ["notes.txt", "observations-20251122T130200Z.parquet"]);
    }
}
