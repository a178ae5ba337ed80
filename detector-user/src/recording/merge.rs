//! Rows of several recordings in order of time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use detector_fleets::observation::{Observation, Services};

use super::{error::RecordingError, names::Names, reader::Recording};

/// Several recordings as one. A recording is read from when its time has come, some rows at a time, so those of weeks take the memory of a
/// few.
pub struct Merged {
    /// Those that have not begun, the first last, with the time of their first row.
    waiting: Vec<(u64, PathBuf)>,
    open: Vec<Input>,
    services: Services,
    names: Names,
}

/// A recording that is being read.
struct Input {
    recording: Recording,
    rows: Vec<Observation>,
    /// Which of the rows is the next one.
    at: usize,
}

impl Input {
    /// `None`: it has no rows.
    fn open(path: &Path, services: &mut Services) -> Result<Option<Self>, RecordingError> {
        let (mut recording, mut rows) = (Recording::open(path)?, Vec::new());
        Ok(recording.read(services, &mut rows)?.then_some(Self { recording, rows, at: 0 }))
    }

    /// When its next row is of.
    fn time_s(&self) -> u64 {
        self.rows[self.at].time_s
    }

    /// Puts the next row into `rows`, which are empty, and those after it that are there and are of no later time than `until_s`. Whether it has more.
    fn take(
        &mut self,
        until_s: u64,
        services: &mut Services,
        rows: &mut Vec<Observation>,
    ) -> Result<bool, RecordingError> {
        let there = &self.rows[self.at..];
        let count = 1 + there[1..].iter().take_while(|row| row.time_s <= until_s).count();
        // All that were read, none of which was taken before.
        if count == self.rows.len() {
            std::mem::swap(rows, &mut self.rows);
        } else {
            rows.extend_from_slice(&there[..count]);
            self.at += count;
            if self.at < self.rows.len() {
                return Ok(true);
            }
        }
        self.at = 0;
        self.recording.read(services, &mut self.rows)
    }
}

impl Merged {
    /// Of files, and of the recordings in directories: what ends with `.parquet`.
    ///
    /// # Errors
    ///
    /// One is not there or is no recording, or a directory has none.
    pub fn open(paths: &[PathBuf]) -> Result<Self, RecordingError> {
        let (mut waiting, mut names) = (Vec::new(), Names::default());
        for path in paths {
            let is_directory = path.is_dir();
            let files = if is_directory { recordings_in(path)? } else { vec![path.clone()] };
            if files.is_empty() {
                let found = "there is no recording in it".to_owned();
                return Err(RecordingError::Foreign { path: path.clone(), found });
            }
            for file in files {
                // Without a row it has no time.
                let recording = Recording::open(&file)?;
                names.add(recording.names().clone());
                if let Some(start_s) = recording.start_s()? {
                    waiting.push((start_s, file));
                }
            }
        }
        waiting.sort();
        waiting.dedup();
        waiting.reverse();
        Ok(Self { waiting, open: Vec::new(), services: Services::default(), names })
    }

    /// Puts the next rows by time in the place of those in `rows`; among those of one time, first those of the recording that began first. Whether
    /// there are any: none are left at the end.
    ///
    /// # Errors
    ///
    /// A recording cannot be read.
    pub fn read(&mut self, rows: &mut Vec<Observation>) -> Result<bool, RecordingError> {
        rows.clear();
        let first = |open: &[Input]| (0..open.len()).min_by_key(|&number| (open[number].time_s(), number));
        let mut number = first(&self.open);
        while let Some((start_s, _)) = self.waiting.last()
            && number.is_none_or(|number| *start_s < self.open[number].time_s())
            && let Some((_, path)) = self.waiting.pop()
        {
            self.open.extend(Input::open(&path, &mut self.services)?);
            number = first(&self.open);
        }
        let Some(number) = number else { return Ok(false) };
        // Until another recording has earlier rows, or rows of the same time that come first. One before this in `open` is at a later time, or its row
        // would be the next one: so 1 can be taken from it.
        let others = (0..self.open.len()).filter(|other| *other != number);
        let until = others.map(|other| self.open[other].time_s() - u64::from(other < number));
        let until_s = until.chain(self.waiting.last().map(|(start_s, _)| *start_s)).min();
        let has_more = self.open[number].take(until_s.unwrap_or(u64::MAX), &mut self.services, rows)?;
        if !has_more {
            self.open.remove(number);
        }
        Ok(true)
    }

    /// What fingerprints in all of them are called; of two names the one of the recording that was named first.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// The names of services.
    pub const fn services(&self) -> &Services {
        &self.services
    }
}

fn recordings_in(directory: &Path) -> Result<Vec<PathBuf>, RecordingError> {
    let unread = |error: io::Error| RecordingError::Open { path: directory.to_owned(), source: error };
    let mut files = Vec::new();
    for file in fs::read_dir(directory).map_err(unread)? {
        let path = file.map_err(unread)?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{fixtures::row, writer::Writer};
    use proptest::prelude::*;

    fn write(path: &Path, rows: &[(u64, u64)]) {
        let mut writer = Writer::new(fs::File::create(path).expect("a file"), "edge").expect("a writer");
        writer.write(rows.iter().map(|&(time_s, number)| row(time_s, number)), |_| "api").expect("written");
        writer.finish().expect("finished");
    }

    fn read(paths: &[PathBuf]) -> Result<Vec<(u64, u64)>, RecordingError> {
        let (mut merged, mut rows, mut some) = (Merged::open(paths)?, Vec::new(), Vec::new());
        while merged.read(&mut some)? {
            rows.extend(some.iter().map(|row| (row.time_s, row.kind.tls_key)));
        }
        Ok(rows)
    }

    #[test]
    fn rows_come_by_time_whatever_the_order_of_the_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, two, three, empty] =
            ["c", "b", "a", "d"].map(|name| directory.path().join(format!("{name}.parquet")));
        write(&one, &[(60, 1), (120, 2), (240, 3)]);
        write(&two, &[(120, 4), (180, 5), (240, 8), (300, 6)]);
        write(&three, &[(600, 7)]);
        write(&empty, &[]);
        fs::write(directory.path().join("notes.txt"), "no recording").expect("a file");
        let expected = [(60, 1), (120, 2), (120, 4), (180, 5), (240, 3), (240, 8), (300, 6), (600, 7)];
        assert_eq!(read(&[directory.path().to_owned()]).expect("rows"), expected);
        assert_eq!(
            read(&[three.clone(), two, one.clone(), one]).expect("rows"),
            expected,
            "one that is named twice is read once"
        );
        assert_eq!(read(&[three]).expect("rows"), [(600, 7)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Also while a file is read in several pieces.
        #[test]
        fn rows_of_many_files_come_as_if_they_were_sorted(
            files in proptest::collection::vec((0_u64..50, proptest::collection::vec(0_u64..3, 1..3000)), 1..4),
        ) {
            let directory = tempfile::tempdir().expect("a directory");
            let mut expected = Vec::new();
            let mut paths = Vec::new();
            for (file, (start, steps)) in files.iter().enumerate() {
                let path = directory.path().join(format!("{file}.parquet"));
                let mut time = *start;
                let rows: Vec<_> = steps.iter().enumerate().map(|(row, step)| {
                    time += step;
                    (time * 60, (file * 10_000 + row) as u64)
                }).collect();
                write(&path, &rows);
                expected.push((rows[0].0, rows));
                paths.push(path);
            }
            // Of one time those of the recording that began first come first, of those that began at once the one of the lower name.
            expected.sort_by_key(|(start_s, _)| *start_s);
            let mut expected: Vec<_> = expected.into_iter().flat_map(|(_, rows)| rows).collect();
            expected.sort_by_key(|(time_s, _)| *time_s);
            prop_assert_eq!(read(&paths).expect("rows"), expected);
        }
    }

    #[test]
    fn a_directory_without_recordings_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = read(&[directory.path().to_owned()]).expect_err("refused").to_string();
        assert!(error.contains("there is no recording in it"), "{error}");
    }
}
