//! Load and its receivers, bounded in time and number, counted on both sides.
//!
//! A [`Flood`] sends one frame as fast as asked, without a socket; a [`Sender`] sends datagrams that are numbered and
//! not too fast for a [`Receiver`] to count every one.

mod flood;
mod frame;
mod receiver;
mod sender;

pub use flood::Flood;
pub use frame::Flow;
pub use receiver::Receiver;
pub use sender::Sender;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

/// How fast, and how long at most.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Packets a second; less when the machine does not keep up.
    pub per_second: u32,
    /// It ends by itself after that.
    pub at_most: Duration,
}

impl Pace {
    /// So many a second, for a minute at most.
    pub const fn per_second(per_second: u32) -> Self {
        Self { per_second, at_most: Duration::from_secs(60) }
    }
}

/// What a load did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sent {
    /// Packets that left.
    pub packets: u64,
    /// Between the first and the last.
    pub elapsed: Duration,
}

impl Sent {
    /// Packets a second.
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// Asserts that a source that never rested for a time got what its budget gives, within 1 %.
///
/// # Panics
///
/// It got more or less.
#[track_caller]
pub fn assert_cut(passed: u64, time: Duration, burst: u64, per_second: u64) {
    let allowed = burst as f64 + per_second as f64 * time.as_secs_f64();
    let error = (passed as f64 - allowed) / allowed;
    println!("{passed} passed in {:.3} s, {allowed:.1} allowed: {:+.3} %", time.as_secs_f64(), error * 100.0);
    assert!(error.abs() <= 0.01, "{passed} passed, {allowed:.1} allowed");
}

/// A thread that sends, and its counter.
#[derive(Debug)]
struct Load {
    stop: Arc<AtomicBool>,
    packets: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<Result<Duration>>>>,
}

/// Looks at the clock in a second, at most: a bite of 2 ms' worth of packets is sent between two.
const BITES_PER_SECOND: u32 = 500;

/// How much of what a load missed it makes up for, seconds: what held it up longer is not to be followed by a burst
/// that nobody asked for.
const CATCH_UP_S: f64 = 0.1;

impl Load {
    /// Makes the loop of a load: `send` is handed how many packets are due, at most `call_max`, and says how many left.
    fn pacing(
        pace: Pace,
        call_max: u32,
        mut send: impl FnMut(u32) -> Result<u32>,
    ) -> (Self, impl FnOnce() -> Result<Duration>) {
        let load = Self { stop: Arc::default(), packets: Arc::default(), thread: None };
        let (stop, packets) = (Arc::clone(&load.stop), Arc::clone(&load.packets));
        let run = move || {
            let start = Instant::now();
            let mut last = start;
            let rate = f64::from(pace.per_second);
            let bite = (pace.per_second / BITES_PER_SECOND).clamp(1, call_max);
            // Packets that were sent, or are forgiven.
            let mut done = 0_f64;
            while !stop.load(Ordering::Relaxed) && start.elapsed() < pace.at_most {
                let due = start.elapsed().as_secs_f64() * rate;
                if done > due {
                    thread::sleep(Duration::from_secs_f64((done - due) / rate));
                    continue;
                }
                done = done.max(due - CATCH_UP_S * rate);
                let count = ((due - done) as u32).clamp(bite, call_max);
                done += f64::from(count);
                packets.fetch_add(u64::from(send(count)?), Ordering::Relaxed);
                last = Instant::now();
            }
            Ok(last.duration_since(start))
        };
        (load, run)
    }

    fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    fn finish(&mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a load is finished once")?;
        let elapsed =
            thread.join().map_err(|_| anyhow!("the thread of a load panicked"))?.context("entering")??;
        Ok(Sent { packets: self.packets(), elapsed })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Only a load that nobody finished: a test that failed, and says why by itself.
            let _ = self.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_keeps_its_pace() {
        let pace = Pace { per_second: 5_000, at_most: Duration::from_millis(200) };
        let (load, run) = Load::pacing(pace, 100, Ok);
        let elapsed = run().expect("nothing to fail");
        let allowed = f64::from(pace.per_second) * elapsed.as_secs_f64();
        assert!(
            load.packets() as f64 <= allowed + f64::from(pace.per_second / BITES_PER_SECOND),
            "{} of {allowed}",
            load.packets()
        );
        assert!(load.packets() > 0);
    }
}
