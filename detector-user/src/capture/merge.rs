//! Several captures as one stream of frames.

use std::path::{Path, PathBuf};

use super::{CaptureError, Frame, Reader, SPAN_NS_MAX};

/// Several captures as one stream ordered by time.
///
/// Of frames with the same time, those of the capture named first come first. Within a capture its own order is
/// kept, also where its time goes backwards. Holds one frame of each capture.
pub struct Merge {
    sources: Vec<Source>,
    /// The time of the first frame, and its capture.
    first: Option<(u64, PathBuf)>,
}

struct Source {
    reader: Reader,
    head: Option<Frame>,
    ended: bool,
}

impl Merge {
    /// Opens the captures. All of them, so that a wrong path is told before the first frame.
    ///
    /// # Errors
    /// If one cannot be opened or is no capture.
    pub fn open(paths: &[impl AsRef<Path>]) -> Result<Self, CaptureError> {
        let readers = paths.iter().map(|path| Reader::open(path.as_ref()));
        readers.collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    /// Merges captures that are open.
    pub fn new(readers: Vec<Reader>) -> Self {
        let sources = readers.into_iter().map(|reader| Source { reader, head: None, ended: false });
        Self { sources: sources.collect(), first: None }
    }

    /// The next frame. None at the end of all captures and ever after.
    ///
    /// # Errors
    /// As soon as one capture cannot be read further: what it lacks would have its place in the order. Called
    /// again, the other captures go on without it. Also for a frame more than [`SPAN_NS_MAX`] after the first one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        for source in &mut self.sources {
            source.fill()?;
        }
        // `min_by_key` returns the first of equals.
        let with_head = self
            .sources
            .iter_mut()
            .filter_map(|source| source.head.as_ref().map(|f| f.time_ns).map(|t| (t, source)));
        let Some((_, source)) = with_head.min_by_key(|(time_ns, _)| *time_ns) else { return Ok(None) };
        let Some(frame) = source.head.take() else { return Ok(None) };
        let (path, packet) = source.reader.place();
        let (first_ns, first) = self.first.get_or_insert_with(|| (frame.time_ns, path.to_owned()));
        let after_ns = frame.time_ns.saturating_sub(*first_ns);
        if after_ns > SPAN_NS_MAX {
            let (path, first) = (path.to_owned(), first.clone());
            return Err(CaptureError::Span { path, packet, after_ns, first });
        }
        Ok(Some(frame))
    }
}

impl Source {
    fn fill(&mut self) -> Result<(), CaptureError> {
        if self.head.is_some() || self.ended {
            return Ok(());
        }
        let next = self.reader.next_frame();
        self.ended = !matches!(next, Ok(Some(_)));
        self.head = next?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Pcap, frame_of, reader};
    use super::*;

    /// A capture of frames at these nanoseconds; the fourteenth byte of the frames is `tag`.
    fn capture(tag: u8, times_ns: &[u64]) -> Reader {
        let mut file = Pcap { nanoseconds: true, ..Pcap::default() };
        for time_ns in times_ns {
            file = file.packet(*time_ns, &frame_of(tag), 14);
        }
        reader(&file.bytes()).unwrap()
    }

    fn order(readers: Vec<Reader>) -> Vec<(u8, u64)> {
        let mut merge = Merge::new(readers);
        let mut order = Vec::new();
        while let Some(frame) = merge.next_frame().unwrap() {
            order.push((frame.data[13], frame.time_ns));
        }
        assert_eq!(merge.next_frame().unwrap(), None);
        order
    }

    #[test]
    fn frames_come_in_order_of_time() {
        let merged = order(vec![capture(1, &[10, 40, 50]), capture(2, &[20, 30, 60]), capture(3, &[])]);
        assert_eq!(merged, [(1, 10), (2, 20), (2, 30), (1, 40), (1, 50), (2, 60)]);
    }

    #[test]
    fn ties_go_to_the_capture_named_first() {
        let merged = order(vec![capture(1, &[5, 5, 9]), capture(2, &[5, 9]), capture(3, &[1, 5])]);
        assert_eq!(merged, [(3, 1), (1, 5), (1, 5), (2, 5), (3, 5), (1, 9), (2, 9)]);
    }

    #[test]
    fn a_capture_keeps_its_own_order_when_its_time_goes_back() {
        let merged = order(vec![capture(1, &[30, 10, 40]), capture(2, &[20, 35])]);
        assert_eq!(merged, [(2, 20), (1, 30), (1, 10), (2, 35), (1, 40)]);
    }

    #[test]
    fn no_captures_are_no_frames() {
        assert_eq!(order(Vec::new()), []);
    }

    #[test]
    fn a_broken_capture_is_told_when_its_frame_is_due() {
        let whole = Pcap::default().packet(1_000, &frame_of(1), 14).packet(2_000, &frame_of(1), 14).bytes();
        let broken = reader(&whole[..whole.len() - 1]).unwrap();
        let mut merge = Merge::new(vec![broken, capture(2, &[500, 5_000])]);
        let mut tags = Vec::new();
        let error = loop {
            match merge.next_frame() {
                Ok(frame) => tags.push(frame.unwrap().data[13]),
                Err(error) => break error,
            }
        };
        assert_eq!(tags, [2, 1]);
        assert!(matches!(error, CaptureError::Truncated { packets: 1, .. }), "{error}");
        assert_eq!(merge.next_frame().unwrap().unwrap().time_ns, 5_000);
        assert_eq!(merge.next_frame().unwrap(), None);
    }

    #[test]
    fn a_packet_beyond_the_clock_is_told_with_its_capture() {
        let whole = order(vec![capture(1, &[7]), capture(2, &[5, 5 + YEARS_18])]);
        assert_eq!(whole, [(2, 5), (1, 7), (2, 5 + YEARS_18)]);
        let mut merge = Merge::new(vec![capture(1, &[0]), capture(2, &[5, 7, 1 + YEARS_18])]);
        for _ in 0..3 {
            assert!(merge.next_frame().unwrap().is_some());
        }
        let error = merge.next_frame().unwrap_err();
        assert!(matches!(error, CaptureError::Span { packet: 3, .. }), "{error}");
        let said = error.to_string();
        for part in ["test.pcap: packet 3 is 18 years", "at most 18", "editcap"] {
            assert!(said.contains(part), "{part:?} is missing in: {said}");
        }
    }

    const YEARS_18: u64 = 18 * 365 * 86_400 * 1_000_000_000;

    #[test]
    fn opening_names_the_missing_capture() {
        let error = Merge::open(&["/nonexistent/x.pcap"]).err().unwrap();
        assert!(matches!(error, CaptureError::NotFound { .. }), "{error}");
    }
}
