use std::collections::VecDeque;

use bytes::Bytes;
use parquet::basic::Type;
use proptest::prelude::*;

use super::*;

/// Pages that are there already.
struct Ready(VecDeque<Page>);

impl Iterator for Ready {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.pop_front().map(Ok)
    }
}

impl PageReader for Ready {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        self.next().transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        Ok(())
    }
}

/// Levels in the hybrid encoding: of each choice the next ones are packed by eights, where it says so, or the next ones that are the same are a run.
fn encoded(levels: &[i16], most: i16, choices: &[bool]) -> Vec<u8> {
    let (mut bytes, mut left, width) = (Vec::new(), levels, width(most) as usize);
    for choice in choices.iter().cycle() {
        if left.is_empty() {
            break;
        }
        let run = left.iter().take_while(|level| **level == left[0]).count();
        if !choice {
            // A number of seven bits a byte; two are enough here.
            let header = run << 1;
            bytes.extend([header as u8 & 0x7f | 0x80, (header >> 7) as u8, left[0] as u8]);
            left = &left[run..];
            continue;
        }
        bytes.push(1 << 1 | 1);
        let (packed, rest) = left.split_at(left.len().min(8));
        let bits = packed.iter().rev().fold(0_u64, |bits, level| bits << width | *level as u64);
        bytes.extend(&bits.to_le_bytes()[..width]);
        left = rest;
    }
    bytes
}

const VALUES: &[u8] = b"values";

/// A page with these levels of repetition and definition and a few bytes of values.
fn page(levels: &[(i16, i16)], most: (i16, i16), choices: &[bool], is_second: bool) -> Page {
    let (repetitions, definitions): (Vec<_>, Vec<_>) = levels.iter().copied().unzip();
    let [repetitions, definitions] =
        [encoded(&repetitions, most.0, choices), encoded(&definitions, most.1, choices)];
    let [repetitions_len, definitions_len] = [&repetitions, &definitions].map(|levels| levels.len() as u32);
    let num_values = levels.len() as u32;
    if is_second {
        return Page::DataPageV2 {
            buf: Bytes::from([&repetitions, &definitions, VALUES].concat()),
            num_values,
            encoding: Encoding::PLAIN,
            num_nulls: 0,
            num_rows: 0,
            def_levels_byte_len: definitions_len,
            rep_levels_byte_len: repetitions_len,
            is_compressed: false,
            statistics: None,
        };
    }
    let [before_repetitions, before_definitions] = [repetitions_len, definitions_len].map(u32::to_le_bytes);
    let parts: [&[u8]; 5] = [&before_repetitions, &repetitions, &before_definitions, &definitions, VALUES];
    Page::DataPage {
        buf: Bytes::from(parts.concat()),
        num_values,
        encoding: Encoding::PLAIN,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    }
}

fn lists(length: usize, definition: i16) -> Lists {
    Lists { name: "rtt", length, repetition: 1, definition }
}

proptest! {
    /// Whatever the writer made of them, and wherever its pages end, also within a list.
    #[test]
    fn lists_of_one_length_are_their_elements_and_others_are_refused(
        length in prop_oneof![Just(12_usize), Just(16)],
        rows in 1_usize..40,
        most in 1_i16..=3,
        choices in proptest::collection::vec(any::<bool>(), 1..12),
        page_levels in 1_usize..200,
        is_second in any::<bool>(),
        wrong in proptest::option::of((any::<prop::sample::Index>(), any::<bool>())),
    ) {
        let right = |at: usize| (i16::from(!at.is_multiple_of(length)), most);
        let mut levels: Vec<_> = (0..rows * length).map(right).collect();
        if let Some((at, of_repetition)) = wrong {
            let (repetition, definition) = &mut levels[at.index(rows * length)];
            if of_repetition { *repetition = 1 - *repetition } else { *definition -= 1 }
        }
        let pages = levels.chunks(page_levels).map(|levels| page(levels, (1, most), &choices, is_second));
        let read: Result<Vec<_>, _> = Elements::new(Box::new(Ready(pages.collect())), lists(length, most)).collect();
        match read {
            Ok(pages) => {
                prop_assert!(wrong.is_none());
                let counts = pages.iter().map(|page| page.num_values() as usize).sum::<usize>();
                prop_assert_eq!(counts, rows * length);
                prop_assert!(pages.iter().all(|page| page.buffer() == VALUES));
            }
            Err(error) => {
                prop_assert!(wrong.is_some(), "{}", error);
                let expected = format!("a list of its column `rtt` has not {length} elements");
                prop_assert!(error.to_string().ends_with(&expected), "{}", error);
            }
        }
    }

    /// Files are cut off, and come from anywhere.
    #[test]
    fn bytes_that_are_no_levels_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), count in 0_u32..100) {
        let page = Page::DataPage {
            buf: Bytes::from(bytes),
            num_values: count,
            encoding: Encoding::PLAIN,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        // What is told of them is theirs; they are not to end the program.
        let _ = Elements::new(Box::new(Ready([page].into())), lists(12, 1)).next();
    }
}

#[test]
fn a_column_without_lists_and_one_of_lists_of_lists_are_told() {
    let of = |repetition, definition| {
        let element = parquet::schema::types::Type::primitive_type_builder("element", Type::INT32);
        let path = parquet::schema::types::ColumnPath::from("rtt");
        let element = std::sync::Arc::new(element.build().expect("a type"));
        Lists::of("rtt", 12, &ColumnDescriptor::new(element, definition, repetition, path)).map(drop)
    };
    assert_eq!(of(1, 3), Ok(()));
    for (repetition, definition) in [(0, 0), (2, 2), (1, 200)] {
        assert_eq!(of(repetition, definition), Err("its column `rtt` has no lists of numbers".to_owned()));
    }
}
