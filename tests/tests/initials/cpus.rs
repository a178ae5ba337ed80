//! Two CPUs that have Initials of one connection at once.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use detector_common::limits::INITIAL_NS_MAX;
use detector_tests::{
    cpus::{bind, usable},
    hello::Hello,
    rows::Rig,
};

use crate::{MS, OPEN, datagram, initials, one};

const CONNECTIONS: usize = 4000;

#[test]
fn two_cpus_with_one_connection_begin_it_once() {
    let cpus = usable();
    let [first, second, ..] = cpus[..] else {
        println!("skipped: needs two CPUs, and this process may use {}", cpus.len());
        return;
    };
    let mut rig = Rig::under(OPEN);
    let sealed = initials(&Hello::browser(300).message(), 800).remove(0);
    let frames: Vec<_> = (0..CONNECTIONS)
        .map(|number| datagram(&format!("198.51.100.{}:{}", number % 200, 1024 + number), &sealed).frame())
        .collect();
    let both = |rig: &mut Rig| {
        let program: &Xdp = rig.bench_mut().loaded.program().expect("the program is loaded");
        let (start, positions) = (Barrier::new(2), [AtomicUsize::new(0), AtomicUsize::new(0)]);
        thread::scope(|scope| {
            for (number, cpu) in [first, second].into_iter().enumerate() {
                let (frames, start, positions) = (&frames, &start, &positions);
                scope.spawn(move || {
                    bind(cpu);
                    start.wait();
                    for (place, frame) in frames.iter().enumerate() {
                        // Side by side: whoever is first waits for the other.
                        positions[number].store(place + 1, Ordering::Release);
                        while positions[1 - number].load(Ordering::Acquire) <= place {
                            thread::yield_now();
                        }
                        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
                        program.test_run(options).expect("a test run");
                    }
                });
            }
        });
        rig.counter("initial_read") as usize
    };
    let begun = both(&mut rig);
    println!("{} of {CONNECTIONS} connections were begun by both", begun - CONNECTIONS);
    // Two that make an entry at the same moment may both have made it: the documented error, here of all connections.
    assert!((CONNECTIONS..=CONNECTIONS + CONNECTIONS / 4).contains(&begun), "{begun} of {CONNECTIONS}");
    assert_eq!(both(&mut rig), begun, "they come again");
    // Between the same ports once more: there is an entry, for which they compete.
    rig.advance(INITIAL_NS_MAX + MS);
    assert_eq!(both(&mut rig), begun + CONNECTIONS);
    assert_eq!(one(&rig).handshakes as usize, begun + CONNECTIONS);
}
