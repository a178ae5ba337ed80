//! Bytes of a stream that come in any order, twice, or never: of TCP segments and of QUIC's CRYPTO frames.

/// How much an [`Assembly`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes from the start of the stream on; what comes behind them is left out.
    pub bytes: usize,
    /// Runs of bytes with gaps between them; a piece that would make one more is left out.
    pub runs: usize,
}

/// The start of a stream, as far as it came. Of bytes that come twice the first ones stay.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    /// Ordered, with gaps between them.
    runs: Vec<Run>,
    held_bytes: usize,
}

#[derive(Clone, Debug)]
struct Run {
    start: usize,
    bytes: Vec<u8>,
}

impl Run {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }
}

impl Assembly {
    /// Takes what came at an offset from the stream's start.
    pub fn insert(&mut self, offset: usize, bytes: &[u8], bounds: Bounds) {
        let kept = bytes.len().min(bounds.bytes.saturating_sub(offset));
        let bytes = &bytes[..kept];
        if bytes.is_empty() {
            return;
        }
        let end = offset + kept;
        // Those that overlap it, or stand at its ends.
        let first = self.runs.partition_point(|run| run.end() < offset);
        let last = self.runs.partition_point(|run| run.start <= end);
        let before: usize = self.runs[first..last].iter().map(|run| run.bytes.len()).sum();
        let is_full = self.runs.len() >= bounds.runs;
        match &mut self.runs[first..last] {
            [] if is_full => return,
            [] => self.runs.insert(first, Run { start: offset, bytes: bytes.to_vec() }),
            [run] if run.start <= offset => {
                let known = run.end().min(end) - offset;
                run.bytes.extend_from_slice(&bytes[known..]);
            }
            [..] => {
                let between = self.runs.drain(first..last).collect();
                self.runs.insert(first, joined(between, offset, bytes));
            }
        }
        self.held_bytes = self.held_bytes + self.runs[first].bytes.len() - before;
    }

    /// The bytes from the start on, up to the first gap.
    pub fn start(&self) -> &[u8] {
        match self.runs.first() {
            Some(run) if run.start == 0 => &run.bytes,
            _ => &[],
        }
    }

    /// Where the last byte that came ends.
    pub fn end(&self) -> usize {
        self.runs.last().map_or(0, Run::end)
    }

    /// Makes room before the start: what was at offset 0 is at `bytes` then.
    pub fn shift(&mut self, bytes: usize) {
        for run in &mut self.runs {
            run.start += bytes;
        }
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// Runs that a piece joins, with it.
fn joined(runs: Vec<Run>, offset: usize, piece: &[u8]) -> Run {
    let start = runs.first().map_or(offset, |run| run.start.min(offset));
    let mut bytes = Vec::new();
    for run in runs {
        let at = start + bytes.len();
        if at < run.start {
            bytes.extend_from_slice(&piece[at - offset..run.start - offset]);
        }
        bytes.extend_from_slice(&run.bytes);
    }
    let at = start + bytes.len();
    bytes.extend_from_slice(piece.get(at - offset..).unwrap_or_default());
    Run { start, bytes }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec as many, prelude::*};

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 64, runs: 3 };

    #[test]
    fn pieces_are_joined_and_the_first_stay() {
        let mut assembly = Assembly::default();
        assembly.insert(4, b"ef", BOUNDS);
        assert_eq!((assembly.start(), assembly.end(), assembly.held_bytes()), (&b""[..], 6, 2));
        assembly.insert(0, b"ab", BOUNDS);
        assert_eq!(assembly.start(), b"ab");
        assembly.insert(1, b"XcdXXg", BOUNDS);
        assert_eq!((assembly.start(), assembly.end(), assembly.held_bytes()), (&b"abcdefg"[..], 7, 7));
        assembly.insert(7, b"h", BOUNDS);
        assembly.insert(2, b"zz", BOUNDS);
        assert_eq!(assembly.start(), b"abcdefgh");
        assembly.shift(3);
        assembly.insert(0, b"123", BOUNDS);
        assert_eq!(assembly.start(), b"123abcdefgh");
    }

    #[test]
    fn bounds_hold() {
        let mut assembly = Assembly::default();
        assembly.insert(62, b"xyz", BOUNDS);
        assembly.insert(64, b"z", BOUNDS);
        assembly.insert(usize::MAX, b"z", BOUNDS);
        assert_eq!((assembly.end(), assembly.held_bytes()), (64, 2));
        for offset in [10, 20, 30] {
            assembly.insert(offset, b"a", BOUNDS);
        }
        assert_eq!((assembly.runs.len(), assembly.held_bytes()), (3, 4));
        // What fills a gap is taken.
        assembly.insert(0, &[7; 64], BOUNDS);
        assert_eq!((assembly.runs.len(), assembly.start().len()), (1, 64));
    }

    proptest! {
        #[test]
        fn it_holds_what_came_first_at_every_place(
            pieces in many((0..80_usize, many(any::<u8>(), 0..30)), 0..20),
        ) {
            let mut model = [None; 64];
            let mut assembly = Assembly::default();
            for (offset, bytes) in &pieces {
                assembly.insert(*offset, bytes, Bounds { bytes: 64, runs: 64 });
                for (place, byte) in (*offset..64).zip(bytes) {
                    model[place].get_or_insert(*byte);
                }
            }
            let start: Vec<u8> = model.iter().map_while(|byte| *byte).collect();
            prop_assert_eq!(assembly.start(), &start);
            prop_assert_eq!(assembly.held_bytes(), model.iter().flatten().count());
            prop_assert_eq!(assembly.end(), 64 - model.iter().rev().take_while(|byte| byte.is_none()).count());
        }
    }
}
