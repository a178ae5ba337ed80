use std::{fs, ops::Range, path::Path, sync::OnceLock};

use proptest::prelude::*;

use super::*;
use crate::fleets::{
    fixtures::{self, FLEET, QUIET_EPOCHS},
    report::{Report, no_names},
};

/// Epochs of the world in all: the last ones see the fleet.
const EPOCHS: u64 = QUIET_EPOCHS + 6;

/// What a memory is, in bytes.
fn bytes(memory: &Memory) -> Vec<u8> {
    postcard::to_stdvec(memory).expect("bytes")
}

fn taken(memory: &mut Memory, epochs: Range<u64>) {
    for number in epochs {
        let _ = memory.take(&fixtures::epoch(number));
    }
}

/// One that was never stopped.
fn whole() -> &'static (Vec<u8>, Report) {
    static WHOLE: OnceLock<(Vec<u8>, Report)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let mut memory = fixtures::memory(Scale::MINUTE);
        taken(&mut memory, 0..EPOCHS);
        (bytes(&memory), Report::of(&memory, &no_names))
    })
}

/// The memory after some epochs, without what went before.
fn until(epochs: u64) -> Memory {
    let mut memory = fixtures::memory(Scale::MINUTE);
    taken(&mut memory, 0..epochs);
    memory
}

fn open(directory: &Path, scale: Scale) -> (Store, Memory, Restored) {
    Store::open(directory, scale, 0, || fixtures::memory(scale)).expect("a store")
}

#[test]
fn the_world_has_a_fleet() {
    let report = &whole().1;
    let [fleet] = report.fleets.as_slice() else { panic!("{:#?}", report.fleets) };
    assert_eq!((fleet.service.as_str(), fleet.id.as_str()), ("api", "1"));
    let own = fleet.members.iter().filter(|member| member.starts_with("198.51.")).count();
    assert!(
        own as u32 >= FLEET * 9 / 10 && fleet.members.len() - own < 10,
        "{own} of {}",
        fleet.members.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    /// Stopped anywhere, saved a while before, and started again: the same as if it had never been stopped, to the last bit.
    #[test]
    fn what_is_restored_goes_on_as_if_it_had_never_been_stopped(saved in 1..EPOCHS, more in 0..12_u64) {
        let directory = tempfile::tempdir().expect("a directory");
        let stopped = (saved + more).min(EPOCHS);
        let mut memory = until(saved);
        {
            let (mut store, _, restored) = open(directory.path(), Scale::MINUTE);
            prop_assert!(matches!(restored, Restored::New));
            store.save(&memory, 0).expect("saved");
            for number in saved..stopped {
                let epoch = fixtures::epoch(number);
                store.keep(&epoch).expect("kept");
                let _ = memory.take(&epoch);
            }
        }
        let (_, mut restored, how) = open(directory.path(), Scale::MINUTE);
        prop_assert!(matches!(how, Restored::Memory { epochs, damage: None } if epochs as u64 == stopped - saved), "{:?}", how);
        prop_assert!(bytes(&restored) == bytes(&memory), "at once");
        taken(&mut restored, stopped..EPOCHS);
        prop_assert!(bytes(&restored) == whole().0, "at the end");
        prop_assert_eq!(&Report::of(&restored, &no_names), &whole().1);
    }
}

/// A directory with a memory and two epochs after it.
fn kept() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = until(3);
    let (mut store, ..) = open(directory.path(), Scale::MINUTE);
    store.save(&memory, 0).expect("saved");
    (3..5).for_each(|number| store.keep(&fixtures::epoch(number)).expect("kept"));
    directory
}

#[test]
fn a_damaged_memory_is_kept_aside_wherever_the_damage_is() {
    let directory = kept();
    let path = memory_in(directory.path());
    let (whole, epochs) =
        (fs::read(&path).expect("bytes"), fs::read(journal_in(directory.path())).expect("bytes"));
    let step = whole.len() / 97;
    let damages = (0..whole.len()).step_by(step.max(1)).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = (0..whole.len()).step_by(step.max(1)).map(|at| whole[..at].to_vec());
    for damaged in damages.chain(cuts).chain([[whole.as_slice(), b"x"].concat()]) {
        fs::write(&path, &damaged).expect("written");
        fs::write(journal_in(directory.path()), &epochs).expect("written");
        let (_, memory, restored) = open(directory.path(), Scale::MINUTE);
        let Restored::Refused { why: StoreError::Damaged { .. }, kept } = restored else {
            panic!("{restored:?}")
        };
        assert_eq!(memory.rows(), 0);
        assert_eq!(fs::read(kept).expect("it"), damaged);
        assert!(matches!(
            open(directory.path(), Scale::MINUTE).2,
            Restored::Memory { epochs: 0, damage: None }
        ));
    }
}

#[test]
fn of_damaged_epochs_those_before_the_damage_are_restored() {
    let directory = kept();
    let (memory, journal) = (memory_in(directory.path()), journal_in(directory.path()));
    let (memory_bytes, whole) = (fs::read(&memory).expect("bytes"), fs::read(&journal).expect("bytes"));
    let expected: Vec<_> = (3..=5).map(|epochs| bytes(&until(epochs))).collect();
    for at in (0..whole.len()).step_by(whole.len() / 89) {
        for damaged in [
            whole[..at].to_vec(),
            whole
                .iter()
                .enumerate()
                .map(|(place, byte)| if place == at { byte ^ 1 } else { *byte })
                .collect(),
        ] {
            fs::write(&memory, &memory_bytes).expect("written");
            fs::write(&journal, &damaged).expect("written");
            let (_, memory, restored) = open(directory.path(), Scale::MINUTE);
            let Restored::Memory { epochs, .. } = restored else { panic!("{restored:?}") };
            assert!(epochs < 2, "damage at {at}");
            assert!(bytes(&memory) == expected[epochs], "damage at {at}");
        }
    }
}

#[test]
fn a_journal_of_the_memory_before_is_passed_over() {
    let directory = kept();
    let journal = journal_in(directory.path());
    let older = fs::read(&journal).expect("bytes");
    // Ended between the two: the memory is the new one.
    let (_, memory, _) = open(directory.path(), Scale::MINUTE);
    let mut later = memory;
    taken(&mut later, 5..6);
    saved::write(&memory_in(directory.path()), &later).expect("written");
    fs::write(&journal, older).expect("written");
    let (_, memory, restored) = open(directory.path(), Scale::MINUTE);
    assert!(matches!(restored, Restored::Memory { epochs: 0, damage: None }), "{restored:?}");
    assert!(bytes(&memory) == bytes(&until(6)));
}

/// Where the disk is full between the memory and its journal.
#[test]
fn no_epoch_follows_a_memory_that_it_is_not_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut store, mut memory, _) = open(directory.path(), Scale::MINUTE);
    taken(&mut memory, 0..3);
    let in_the_way = directory.path().join("epochs.new");
    fs::create_dir(&in_the_way).expect("made");
    assert!(store.save(&memory, 0).is_err() && store.keep(&fixtures::epoch(3)).is_err());
    fs::remove_dir(&in_the_way).expect("removed");
    store.keep(&fixtures::epoch(3)).expect("it is kept");
    taken(&mut memory, 3..4);
    let (_, restored, how) = open(directory.path(), Scale::MINUTE);
    assert!(matches!(how, Restored::Memory { epochs: 1, damage: None }), "{how:?}");
    assert!(bytes(&restored) == bytes(&memory));
}

/// A full disk when a daemon starts costs nothing that was learned: neither what is on the disk nor what was read of it.
#[test]
fn a_memory_that_cannot_be_written_again_is_there_and_saved_when_it_can_be() {
    let directory = kept();
    let before = open(directory.path(), Scale::MINUTE).1;
    // Root may write everywhere, but not a file where a directory is.
    let in_the_way = directory.path().join("memory.new");
    fs::create_dir(&in_the_way).expect("a directory");
    let (mut store, mut memory, restored) = open(directory.path(), Scale::MINUTE);
    assert!(matches!(restored, Restored::Memory { damage: None, .. }), "{restored:?}");
    assert!(bytes(&memory) == bytes(&before) && store.unsaved().is_some() && store.is_due(SAVE_EVERY_S));
    let epoch = fixtures::epoch(5);
    store.keep(&epoch).expect("nothing follows a memory that is not there");
    let _ = memory.take(&epoch);
    store.save(&memory, 9).expect_err("the disk is as it was");
    assert!(!store.is_due(10), "it is not tried all the time");
    let again = open(directory.path(), Scale::MINUTE).1;
    assert!(bytes(&again) == bytes(&before), "what is on the disk is what it was");
    fs::remove_dir(&in_the_way).expect("there is room");
    store.save(&memory, 9).expect("saved");
    assert!(store.unsaved().is_none());
    store.keep(&fixtures::epoch(6)).expect("kept");
    let (_, restored, how) = open(directory.path(), Scale::MINUTE);
    assert!(matches!(how, Restored::Memory { epochs: 1, damage: None }), "{how:?}");
    let _ = memory.take(&fixtures::epoch(6));
    assert!(bytes(&restored) == bytes(&memory));
}

#[test]
fn epochs_of_another_length_begin_anew() {
    let directory = kept();
    let second = "1s".parse().expect("a scale");
    let (_, memory, restored) = open(directory.path(), second);
    assert!(matches!(restored, Restored::Refused { why: StoreError::OtherScale { .. }, .. }), "{restored:?}");
    assert_eq!((memory.scale(), memory.rows()), (second, 0));
    assert!(memory_in(directory.path()).with_extension("refused").exists());
}

#[test]
fn instances_have_directories_of_their_own() {
    let of = |pins: &str| Store::directory(Path::new("/var/lib/detector"), Path::new(pins));
    assert_eq!(of("/sys/fs/bpf/detector"), Path::new("/var/lib/detector/fleets/sys-fs-bpf-detector"));
    assert_ne!(of("/sys/fs/bpf/one"), of("/sys/fs/bpf/two"));
}

/// What a memory is made of, names and kinds without values: another shape is another format.
fn shape(value: &serde_json::Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            // Keys of maps are numbers; those of structs are names.
            fields.iter().for_each(|(name, value)| {
                let name = if name.parse::<u64>().is_ok() { "*" } else { name };
                shape(value, &format!("{path}.{name}"), found);
            });
        }
        Value::Array(values) => values.iter().for_each(|value| shape(value, &format!("{path}[]"), found)),
        Value::Null => {}
        Value::Bool(_) => drop(found.insert(format!("{path}: bool"))),
        Value::Number(_) => drop(found.insert(format!("{path}: number"))),
        Value::String(_) => drop(found.insert(format!("{path}: text"))),
    }
}

#[test]
fn another_shape_is_another_format() {
    let memory: Memory = postcard::from_bytes(&whole().0).expect("a memory");
    let mut found = std::collections::BTreeSet::new();
    shape(&serde_json::to_value(&memory).expect("JSON"), "", &mut found);
    let shape: Vec<_> = found.into_iter().collect();
    let found = format!("format {FORMAT}\n{}\n", shape.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fleets/format.txt");
    if std::env::var_os("DETECTOR_WRITE_DOCS").is_some() {
        fs::write(&path, &found).expect("written");
    }
    let expected = fs::read_to_string(path).expect("the shape of this format");
    assert!(
        found == expected,
        "what is remembered has another shape: raise FORMAT in fleets/saved.rs, then write fleets/format.txt anew with \
         DETECTOR_WRITE_DOCS=1\n{found}"
    );
}
