//! Fingerprints in the kernel.

use std::{fs, path::PathBuf};

use detector_tests::rows::Rig;
use detector_user::capture::Merge;

const OPEN: &str = "version = 1\n[[service]]\nname = \"all\"\naddresses = [\"0.0.0.0/0\", \"::/0\"]\n";

#[test]
fn probe() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    for entry in fs::read_dir(folder).expect("captures") {
        let path = entry.expect("an entry").path();
        if !path.extension().is_some_and(|ext| ext.to_string_lossy().starts_with("pcap")) {
            continue;
        }
        let mut rig = Rig::under(OPEN);
        let mut merge = Merge::open(&[&path]).expect("a capture");
        let mut first = None;
        while let Some(frame) = merge.next_frame().expect("a frame") {
            let first = *first.get_or_insert(frame.time_ns);
            rig.set_ns(3_600_000_000_000 + frame.time_ns.saturating_sub(first));
            let trace = rig.send(&frame.data).trace;
            if trace.syn_key != 0 || trace.tls_key != 0 {
                println!("{} syn {:016x} tls {:016x}", path.display(), trace.syn_key, trace.tls_key);
            }
        }
        for (_, name, _) in detector_common::counters::HANDSHAKE_EVENTS {
            print!("{name} {} ", rig.counter(name));
        }
        println!("{}", path.display());
    }
}
