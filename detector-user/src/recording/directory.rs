//! A directory of recordings: a file for each quarter of an hour, the oldest of which make room.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use detector_fleets::observation::{Observation, ServiceId};
use humantime::format_rfc3339_seconds;
use std::time::{Duration, UNIX_EPOCH};

use super::{error::RecordingError, names::Names, writer::Writer};

/// How the names of recordings start and end. Between them stands when their first epoch began, in UTC, so they are in order.
const NAME: (&str, &str) = ("observations-", ".parquet");

/// Ends the name of a recording that is being written: without its last bytes it cannot be read.
const PART: &str = ".part";

/// A directory that is recorded to.
pub struct Directory {
    path: PathBuf,
    node: String,
    file_s: u64,
    bytes_max: u64,
    open: Option<Open>,
}

/// The recording that is being written.
struct Open {
    /// When another one begins, seconds since the Unix epoch.
    until_s: u64,
    part: PathBuf,
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
}

/// What became of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Recordings that made room.
    pub removed: Vec<PathBuf>,
}

impl Directory {
    /// One for a node, with a file for each time of so many seconds, and at most so many bytes of them that are finished. It is made if it
    /// is not there. Also says which recordings of an earlier run were never finished: they cannot be read, and are removed.
    ///
    /// # Errors
    ///
    /// It cannot be made, read, or tidied.
    pub fn open(
        path: &Path,
        node: &str,
        file_s: u64,
        bytes_max: u64,
    ) -> Result<(Self, Vec<PathBuf>), RecordingError> {
        fs::create_dir_all(path).map_err(|error| unwritten(path, error))?;
        let mut unfinished = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| unwritten(path, error))? {
            let file = entry.map_err(|error| unwritten(path, error))?.path();
            if is_recording(&file, PART) {
                fs::remove_file(&file).map_err(|error| unwritten(&file, error))?;
                unfinished.push(file);
            }
        }
        unfinished.sort();
        let directory = Self { path: path.to_owned(), node: node.to_owned(), file_s, bytes_max, open: None };
        Ok((directory, unfinished))
    }

    /// Adds the rows of an epoch, and what fingerprints in them are called, to another file where its time has come.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn write<'a>(
        &mut self,
        start_s: u64,
        rows: Vec<Observation>,
        names: Names,
        service: impl Fn(ServiceId) -> &'a str,
    ) -> Result<Tidied, RecordingError> {
        let mut tidied = Tidied::default();
        if self.open.as_ref().is_some_and(|open| start_s >= open.until_s) {
            tidied = self.finish()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(start_s)?,
        };
        open.writer.name(names);
        let written = open.writer.write(rows, service);
        let part = open.part.clone();
        self.open = Some(open);
        written.map_err(|source| RecordingError::Write { path: part, source })?;
        Ok(tidied)
    }

    /// Ends the recording that is being written, so that it can be read, and makes room.
    ///
    /// # Errors
    ///
    /// It cannot be written, or older ones cannot be removed.
    pub fn finish(&mut self) -> Result<Tidied, RecordingError> {
        let Some(Open { part, path, writer, .. }) = self.open.take() else { return Ok(Tidied::default()) };
        let failed = |source| RecordingError::Write { path: part.clone(), source };
        let file = writer.finish().map_err(failed)?;
        let file = file.into_inner().map_err(|error| unwritten(&part, error.into_error()))?;
        file.sync_all().map_err(|error| unwritten(&part, error))?;
        fs::rename(&part, &path).map_err(|error| unwritten(&path, error))?;
        self.make_room(&path)
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
        let mut part = path.clone().into_os_string();
        part.push(PART);
        let part = PathBuf::from(part);
        let file = File::create_new(&part).map_err(|error| unwritten(&part, error))?;
        let writer = Writer::new(BufWriter::new(file), &self.node);
        let writer = writer.map_err(|source| RecordingError::Write { path: part.clone(), source })?;
        let until_s = start_s - start_s % self.file_s.max(1) + self.file_s;
        Ok(Open { until_s, part, path, writer })
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

fn is_recording(path: &Path, more: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(NAME.0));
    rest.and_then(|rest| rest.strip_suffix(more)).is_some_and(|rest| rest.ends_with(NAME.1))
}

fn unwritten(path: &Path, error: io::Error) -> RecordingError {
    RecordingError::Write { path: path.to_owned(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{fixtures::row, reader::Recording};
    use detector_fleets::observation::Services;

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
        let rows = recording.next_group(&mut Services::default()).expect("rows").expect("a group");
        rows.iter().map(|row| row.time_s).collect()
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
