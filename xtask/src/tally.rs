//! Counting what cargo's tests say about themselves.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran and held.
    pub passed: u32,
    /// Tests that did not hold, and test programs that died.
    pub failed: u32,
    /// Tests that printed a line `skipped: why`, and ignored ones.
    pub skipped: u32,
    /// Their names, with the reason where they tell one.
    pub skips: Vec<String>,
}

impl Tally {
    /// Reads the line with which a test program ends, `test result: ok. 3 passed; 0 failed; …`.
    fn read_result(line: &str) -> Option<Self> {
        let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            match what {
                "passed" => tally.passed = number,
                "failed" => tally.failed = number,
                "ignored" => tally.skipped = number,
                _ => {}
            }
        }
        Some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.skips.extend(other.skips);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Reads the output of test programs as it comes, in pieces of any size.
#[derive(Default)]
pub(crate) struct Counter {
    tally: Tally,
    /// Of the test program that runs: tests that were skipped, which it counts among the passed ones, and why.
    excused: Vec<(String, String)>,
    /// … and ignored ones.
    ignored: Vec<String>,
    /// The test whose output comes, if it is known.
    test: String,
    /// Whether that of failed ones comes.
    is_of_failures: bool,
    line: Vec<u8>,
}

impl Counter {
    /// Takes the next piece of output.
    pub(crate) fn feed(&mut self, output: &[u8]) {
        for &byte in output {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.take_line(&plain(&String::from_utf8_lossy(&line)));
            } else {
                self.line.push(byte);
            }
        }
    }

    /// The sum, when no more output comes.
    pub(crate) fn finish(mut self) -> Tally {
        self.feed(b"\n");
        self.tally
    }

    fn take_line(&mut self, line: &str) {
        // A test that cannot run prints `skipped: why` and returns, and its program counts it among the passed ones.
        if let Some(why) = line.strip_prefix("skipped: ") {
            // A test that failed after it said `skipped: ` is a failure; one that says so twice is skipped once.
            let is_told = !self.test.is_empty() && self.excused.iter().any(|(test, _)| *test == self.test);
            if !self.is_of_failures && !is_told {
                self.excused.push((self.test.clone(), why.to_owned()));
            }
        } else if let Some(test) = shown(line) {
            test.clone_into(&mut self.test);
        } else if line == "failures:" {
            self.is_of_failures = true;
        } else if let Some(test) = ignored(line) {
            self.ignored.push(test.to_owned());
        } else if let Some(mut result) = Tally::read_result(line) {
            let mut excused = std::mem::take(&mut self.excused);
            excused.truncate(result.passed as usize);
            result.passed -= excused.len() as u32;
            result.skipped += excused.len() as u32;
            result.skips = excused.into_iter().map(named).collect();
            result.skips.append(&mut self.ignored);
            self.test.clear();
            self.is_of_failures = false;
            self.tally += result;
        }
    }
}

/// The test whose output a line announces.
fn shown(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// The test that a line says is ignored, and why if it does.
fn ignored(line: &str) -> Option<&str> {
    let line = line.strip_prefix("test ")?;
    line.contains(" ... ignored").then_some(line)
}

fn named((test, why): (String, String)) -> String {
    if test.is_empty() { why } else { format!("{test}: {why}") }
}

/// A line without colours and without the carriage return of a serial console.
fn plain(line: &str) -> String {
    let mut pieces = line.trim_end_matches('\r').split('\x1b');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        // What follows an escape is `[`, numbers, and one letter.
        let text = piece.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &piece[end + 1..]);
        plain.push_str(text);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str) -> Tally {
        let mut counter = Counter::default();
        counter.feed(output.as_bytes());
        counter.finish()
    }

    #[test]
    fn sums_every_program() {
        let output = "\nrunning 3 tests\ntest a ... ok\n\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\n\
            test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s\n";
        assert_eq!(count(output), Tally { passed: 7, failed: 2, skipped: 1, skips: vec![] });
    }

    #[test]
    fn a_skipped_test_did_not_pass() {
        let output = "---- veth stdout ----\nskipped: needs root\n\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
            test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let skips = vec!["veth: needs root".to_owned()];
        assert_eq!(count(output), Tally { passed: 7, failed: 0, skipped: 1, skips });
    }

    #[test]
    fn skipped_tests_are_named_and_counted_once() {
        let output = "test slow ... ignored, takes an hour\n\
            successes:\n\n---- one stdout ----\nskipped: no captures\nskipped: no captures\n\n\
            ---- two stdout ----\nskipped: no captures\n\n\
            successes:\n    one\n    two\n\nfailures:\n\n---- three stdout ----\nskipped: a cat\npanicked\n\n\
            test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n\
            ---- four stdout ----\nskipped: no root\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let skips =
            ["one: no captures", "two: no captures", "slow ... ignored, takes an hour", "four: no root"];
        let skips = skips.map(str::to_owned).to_vec();
        assert_eq!(count(output), Tally { passed: 1, failed: 1, skipped: 4, skips });
    }

    #[test]
    fn colours_and_consoles_do_not_matter() {
        let output = "test result: \x1b[32mok\x1b(B\x1b[m. 2 passed; 0 failed; 0 ignored\r\n";
        assert_eq!(count(output).passed, 2);
        assert_eq!(count("test result: \x1b[32mok\x1b[0m. 9 passed; 0 failed; 0 ignored").passed, 9);
    }

    #[test]
    fn pieces_of_any_size() {
        let output = "test result: ok. 12 passed; 0 failed; 0 ignored\nother\n";
        for size in 1..output.len() {
            let mut counter = Counter::default();
            for piece in output.as_bytes().chunks(size) {
                counter.feed(piece);
            }
            assert_eq!(counter.finish().passed, 12, "pieces of {size} bytes");
        }
    }

    #[test]
    fn only_results_count() {
        assert_eq!(
            count("test result: soon\nresult: ok. 3 passed; 0 failed\nnot skipped: no\n"),
            Tally::default()
        );
    }

    #[test]
    fn the_closing_line() {
        assert_eq!(Tally { passed: 2, ..Tally::default() }.to_string(), "2 passed, 0 failed");
        assert_eq!(
            Tally { passed: 2, failed: 1, skipped: 3, skips: vec![] }.to_string(),
            "2 passed, 1 failed, 3 skipped"
        );
    }
}
