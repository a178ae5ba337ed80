use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{
    standing::{InKernel, Standing},
    *,
};

fn history(directory: &TempDir) -> History {
    History::new(directory.path().join("state"), Path::new("/sys/fs/bpf/test"))
}

fn author() -> Author {
    Author { name: "ada".to_owned(), uid: Some(1000) }
}

/// A policy of a text; its digest is the text.
fn new<'a>(author: &'a Author, text: &'a str, sources: &'a [SourceFile]) -> NewVersion<'a> {
    NewVersion {
        time_s: 1_000,
        author,
        origin: Origin::Apply,
        file: "policy.toml",
        text,
        sources,
        digest: text,
        reason: Some("a test"),
        forced: false,
        confirm_s: None,
        replaced: None,
        again: None,
    }
}

fn add(history: &History, new: &NewVersion<'_>, state: State, active: &[u64]) -> u64 {
    let version = history.begin(new).unwrap();
    let entry = Entry::new(new.time_s, new.author, new.origin, "apply", new.file);
    history.finish(version, state, &entry, active).unwrap();
    version
}

fn numbers(history: &History) -> Vec<u64> {
    history.versions(100).unwrap().iter().map(|version| version.version).collect()
}

fn in_kernel(version: u64, digest: &str, on_trial: bool) -> InKernel {
    InKernel { version, digest: digest.to_owned(), on_trial }
}

#[test]
fn a_version_is_told_as_it_was_written_and_is_nobody_elses_business() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    assert_eq!((numbers(&history), history.entries(9).unwrap()), (vec![], vec![]));
    assert!(!history.path().exists(), "reading makes nothing");
    let author = author();
    let sources = [SourceFile { name: "list.txt".into(), bytes: b"192.0.2.0/24\n".to_vec() }];
    let first = new(&author, "one", &sources);
    assert_eq!(add(&history, &first, State::Applied, &[]), 1);
    let again = NewVersion { confirm_s: Some(60), replaced: Some(1), again: Some(1), forced: true, ..first };
    assert_eq!(add(&history, &again, State::Trial, &[]), 2);
    let version = history.version(2).unwrap();
    assert_eq!((version.author, version.origin, version.state), (author, Origin::Apply, State::Trial));
    assert_eq!(
        (version.confirm_s, version.replaced, version.again, version.forced),
        (Some(60), Some(1), Some(1), true)
    );
    assert_eq!((version.reason.as_deref(), version.time_s, &*version.digest), (Some("a test"), 1_000, "one"));
    let content = Content { text: "one".into(), sources: sources.to_vec() };
    assert_eq!((history.content(1).unwrap(), history.content(2).unwrap()), (content.clone(), content));
    assert_eq!(numbers(&history), [2, 1]);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(history.path()), mode(directory.path().join("state"))), (0o600, 0o700));
    assert!(matches!(history.version(3), Err(HistoryError::NoVersion { version: 3, .. })));
    let other = History::new(directory.path().join("state"), Path::new("/sys/fs/bpf/other"));
    assert!(matches!(other.content(1), Err(HistoryError::NoVersion { .. })), "another instance's");
    assert_eq!((numbers(&other), other.entries(9).unwrap()), (vec![], vec![]));
}

#[test]
fn each_content_is_stored_once() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    let (author, bytes) = (author(), vec![b'x'; 3 << 20]);
    let sources = [SourceFile { name: "large".into(), bytes }];
    for text in ["one", "two", "three", "four"] {
        add(&history, &new(&author, text, &sources), State::Applied, &[]);
    }
    let count = |connection: &Connection| {
        Ok(connection
            .query_row("SELECT count(*), sum(size) FROM blobs", [], |row| Ok((row.get(0)?, row.get(1)?)))?)
    };
    let stored: (i64, i64) = history.read(|| panic!("there is one"), count).unwrap();
    assert_eq!(stored, (5, (3 << 20) + 15));
    assert!(fs::metadata(history.path()).unwrap().len() < 4 << 20);
}

#[test]
fn the_oldest_are_forgotten_and_never_the_active_one() {
    let directory = TempDir::new().unwrap();
    let bounds = Bounds { versions: 4, blob_bytes: 1000, entries: 3 };
    let history = History { bounds, ..history(&directory) };
    let author = author();
    let active = add(&history, &new(&author, "active", &[]), State::Applied, &[1]);
    let other = History { pins: "other".to_owned(), ..history.clone() };
    let others = add(&other, &new(&author, "others", &[]), State::Applied, &[active]);
    for number in 0..8 {
        add(&history, &new(&author, &format!("text {number}"), &[]), State::Applied, &[active]);
    }
    assert_eq!(numbers(&history), [10, 9, active]);
    assert_eq!(numbers(&other), [others], "the last one of another instance");
    assert_eq!(history.entries(100).unwrap().len(), 3);
    assert!(history.content(active).is_ok() && history.content(10).is_ok() && other.content(others).is_ok());
    // A version that is larger than all others may have together displaces them, and stays itself.
    let sources = [SourceFile { name: "large".into(), bytes: vec![0; 2000] }];
    let large = add(&history, &new(&author, "large", &sources), State::Applied, &[active]);
    assert_eq!((numbers(&history), numbers(&other)), (vec![large, active], vec![others]));
    let blobs = history.read(
        || Ok(0),
        |connection| Ok(connection.query_row("SELECT count(*) FROM blobs", [], |row| row.get(0))?),
    );
    assert_eq!(blobs.unwrap(), 4);
    assert_eq!(add(&history, &new(&author, "next", &[]), State::Failed, &[large, active]), large + 1);
}

#[test]
fn what_another_instance_may_go_back_to_is_not_forgotten() {
    let directory = TempDir::new().unwrap();
    let history = History { bounds: Bounds { versions: 2, ..Bounds::DEFAULT }, ..history(&directory) };
    let other = History { pins: "other".to_owned(), ..history.clone() };
    let author = author();
    let stayed = add(&other, &new(&author, "stayed", &[]), State::Applied, &[]);
    let trial = add(&other, &new(&author, "trial", &[]), State::Trial, &[stayed]);
    for number in 0..5 {
        add(&history, &new(&author, &format!("text {number}"), &[]), State::Applied, &[]);
    }
    assert_eq!((numbers(&other), numbers(&history)), (vec![trial, stayed], vec![7]));
    assert!(other.content(stayed).is_ok());
}

#[test]
fn a_log_that_is_not_in_the_database_keeps_it_from_being_read_without() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    add(&history, &new(&author(), "one", &[]), State::Applied, &[]);
    let log = directory.path().join("state/history.db-wal");
    assert!(!log.exists() && is_whole(&history.path()).unwrap(), "who closes it last writes it whole");
    fs::write(&log, b"").unwrap();
    assert!(is_whole(&history.path()).unwrap());
    // Another one has it open: what it writes is in the log first.
    let connection = history.writer().unwrap();
    add(&history, &new(&author(), "two", &[]), State::Applied, &[]);
    assert!(!is_whole(&history.path()).unwrap());
    drop(connection);
}

#[test]
fn what_the_kernel_did_by_itself_is_written_down_once() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    let author = author();
    let before = add(&history, &new(&author, "before", &[]), State::Applied, &[]);
    let trial = NewVersion { confirm_s: Some(60), forced: true, ..new(&author, "trial", &[]) };
    let trial = add(&history, &trial, State::Trial, &[]);
    let pending = in_kernel(trial, "trial", true);
    assert_eq!(history.reconcile(Some(&pending), 1_010).unwrap(), [0; 0]);
    assert_eq!(Standing::of(&history.version(trial).unwrap(), Some(&pending)), Standing::Trial);
    assert!(history.was_forced("trial").unwrap());
    let over = in_kernel(before, "before", false);
    assert_eq!(Standing::of(&history.version(trial).unwrap(), Some(&over)), Standing::TakenBack, "unwritten");
    assert_eq!(history.reconcile(Some(&over), 2_000).unwrap(), [trial]);
    assert_eq!(history.reconcile(Some(&over), 3_000).unwrap(), [0; 0]);
    assert_eq!(history.version(trial).unwrap().state, State::TakenBack);
    assert!(!history.was_forced("trial").unwrap(), "taken back");
    let entry = &history.entries(1).unwrap()[0];
    assert_eq!((&*entry.author.name, &*entry.action, &*entry.target), ("kernel", "take_back", "version 2"));
    assert_eq!(entry.time_s, 1_060, "when it was over");
    // Whoever applied these did not finish: one is in the kernel, the other is not.
    let lost = history.begin(&new(&author, "lost", &[])).unwrap();
    let there = history.begin(&new(&author, "there", &[])).unwrap();
    let kernel = in_kernel(there, "there", false);
    assert_eq!(history.reconcile(Some(&kernel), 4_000).unwrap(), [0; 0]);
    let state = |number| history.version(number).unwrap().state;
    assert_eq!((state(lost), state(there)), (State::Failed, State::Applied));
    assert_eq!(Standing::of(&history.version(before).unwrap(), Some(&kernel)), Standing::Past);
    assert_eq!(Standing::of(&history.version(lost).unwrap(), Some(&kernel)), Standing::Failed);
    // A number of another history is none of this one's.
    let foreign = in_kernel(there, "something else", false);
    assert_eq!(Standing::of(&history.version(there).unwrap(), Some(&foreign)), Standing::Past);
}

#[test]
fn a_schema_of_the_future_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    let author = author();
    add(&history, &new(&author, "one", &[]), State::Applied, &[]);
    let connection = Connection::open(history.path()).unwrap();
    let known = schema::MIGRATIONS.len();
    assert_eq!(schema::number(&connection).unwrap(), known);
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    for error in [history.begin(&new(&author, "two", &[])).unwrap_err(), history.versions(1).unwrap_err()] {
        assert!(matches!(error, HistoryError::Newer { found: 99, .. }), "{error}");
    }
    let connection = Connection::open(history.path()).unwrap();
    connection.pragma_update(None, "user_version", known as i64).unwrap();
    drop(connection);
    assert_eq!(numbers(&history), [1]);
}

#[test]
fn an_empty_file_becomes_a_history_and_is_none_before() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    fs::create_dir(directory.path().join("state")).unwrap();
    fs::write(history.path(), b"").unwrap();
    assert_eq!(numbers(&history), [0; 0]);
    assert_eq!(add(&history, &new(&author(), "one", &[]), State::Applied, &[]), 1);
    let mode = |connection: &Connection| {
        Ok(connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?)
    };
    assert_eq!(history.read(|| panic!("there is one"), mode).unwrap(), "wal");
}

#[test]
fn a_broken_file_is_told_with_its_place_and_what_to_do() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    fs::create_dir(directory.path().join("state")).unwrap();
    fs::write(history.path(), [0xa5; 5000]).unwrap();
    for error in [history.begin(&new(&author(), "one", &[])).unwrap_err(), history.entries(1).unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, HistoryError::Broken { .. }), "{text}");
        assert!(text.contains("state/history.db") && text.contains("move it away"), "{text}");
    }
    assert_eq!(fs::read(history.path()).unwrap(), [0xa5; 5000], "left as it was");
}

#[test]
fn a_place_that_is_no_directory_is_told() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), b"").unwrap();
    let history = History::new(directory.path().join("file/state"), Path::new("/sys/fs/bpf/test"));
    let text = history.begin(&new(&author(), "one", &[])).unwrap_err().to_string();
    assert!(text.contains("cannot make") && text.contains("--state"), "{text}");
}

/// Where the child processes of the next test write.
const CHILD_VARIABLE: &str = "DETECTOR_TEST_HISTORY";
const WRITERS: usize = 4;
const ENTRIES: usize = 25;

/// Not a test of its own: what each child process and thread of the next one does.
#[test]
fn writer() {
    let Some(state) = std::env::var_os(CHILD_VARIABLE) else { return };
    write_many(&History::new(state, Path::new("/sys/fs/bpf/test")));
}

fn write_many(history: &History) {
    let author = author();
    for number in 0..ENTRIES {
        let version = add(history, &new(&author, &format!("text {number}"), &[]), State::Applied, &[]);
        assert!(history.content(version).is_ok());
    }
}

#[test]
fn processes_and_threads_write_at_once() {
    let directory = TempDir::new().unwrap();
    let history = history(&directory);
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "history::tests::writer"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env(CHILD_VARIABLE, directory.path().join("state")).spawn().unwrap()
    };
    let children: Vec<_> = (0..WRITERS).map(|_| child()).collect();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| write_many(&history));
        }
    });
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let written = 2 * WRITERS * ENTRIES;
    let all = history.versions(1000).unwrap();
    let numbers: Vec<_> = all.iter().rev().map(|version| version.version as usize).collect();
    assert_eq!(numbers, (1..=written).collect::<Vec<_>>());
    assert_eq!(history.entries(1000).unwrap().len(), written);
}
