//! Rows of several recordings in order of time.

use std::{
    fs, io,
    path::{Path, PathBuf},
    vec,
};

use detector_fleets::observation::{Observation, Services};

use super::{error::RecordingError, names::Names, reader::Recording};

/// Several recordings as one. A recording is read from when its time has come, a row group at a time, so those of weeks take the memory of a
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
    rows: vec::IntoIter<Observation>,
    next: Observation,
}

impl Input {
    /// `None`: it has no rows.
    fn open(path: &Path, services: &mut Services) -> Result<Option<Self>, RecordingError> {
        let mut recording = Recording::open(path)?;
        let Some((rows, next)) = next_of(&mut recording, Vec::new().into_iter(), services)? else {
            return Ok(None);
        };
        Ok(Some(Self { recording, rows, next }))
    }
}

type Rest = (vec::IntoIter<Observation>, Observation);

/// The next row, of the group that is read or of the next one that has rows.
fn next_of(
    recording: &mut Recording,
    mut rows: vec::IntoIter<Observation>,
    services: &mut Services,
) -> Result<Option<Rest>, RecordingError> {
    loop {
        if let Some(next) = rows.next() {
            return Ok(Some((rows, next)));
        }
        match recording.next_group(services)? {
            Some(group) => rows = group.into_iter(),
            None => return Ok(None),
        }
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

    /// The next row by time; among those of one time, first those of the recording that began first.
    ///
    /// # Errors
    ///
    /// A recording cannot be read.
    pub fn next_row(&mut self) -> Result<Option<Observation>, RecordingError> {
        let first = |open: &[Input]| (0..open.len()).min_by_key(|&number| (open[number].next.time_s, number));
        let mut number = first(&self.open);
        while let Some((start_s, _)) = self.waiting.last()
            && number.is_none_or(|number| *start_s < self.open[number].next.time_s)
            && let Some((_, path)) = self.waiting.pop()
        {
            self.open.extend(Input::open(&path, &mut self.services)?);
            number = first(&self.open);
        }
        let Some(number) = number else { return Ok(None) };
        let input = &mut self.open[number];
        let row = input.next;
        let rest = std::mem::take(&mut input.rows);
        match next_of(&mut input.recording, rest, &mut self.services)? {
            Some((rows, next)) => (input.rows, input.next) = (rows, next),
            None => drop(self.open.remove(number)),
        }
        Ok(Some(row))
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

    fn write(path: &Path, rows: &[(u64, u64)]) {
        let mut writer = Writer::new(fs::File::create(path).expect("a file"), "edge").expect("a writer");
        writer.write(rows.iter().map(|&(time_s, number)| row(time_s, number)), |_| "api").expect("written");
        writer.finish().expect("finished");
    }

    fn read(paths: &[PathBuf]) -> Result<Vec<(u64, u64)>, RecordingError> {
        let (mut merged, mut rows) = (Merged::open(paths)?, Vec::new());
        while let Some(row) = merged.next_row()? {
            rows.push((row.time_s, row.kind.tls_key));
        }
        Ok(rows)
    }

    #[test]
    fn rows_come_by_time_whatever_the_order_of_the_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let [one, two, three, empty] =
            ["c", "b", "a", "d"].map(|name| directory.path().join(format!("{name}.parquet")));
        write(&one, &[(60, 1), (120, 2), (240, 3)]);
        write(&two, &[(120, 4), (180, 5), (300, 6)]);
        write(&three, &[(600, 7)]);
        write(&empty, &[]);
        fs::write(directory.path().join("notes.txt"), "no recording").expect("a file");
        let expected = [(60, 1), (120, 2), (120, 4), (180, 5), (240, 3), (300, 6), (600, 7)];
        assert_eq!(read(&[directory.path().to_owned()]).expect("rows"), expected);
        assert_eq!(
            read(&[three.clone(), two, one.clone(), one]).expect("rows"),
            expected,
            "one that is named twice is read once"
        );
        assert_eq!(read(&[three]).expect("rows"), [(600, 7)]);
    }

    #[test]
    fn a_directory_without_recordings_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = read(&[directory.path().to_owned()]).expect_err("refused").to_string();
        assert!(error.contains("there is no recording in it"), "{error}");
    }
}
