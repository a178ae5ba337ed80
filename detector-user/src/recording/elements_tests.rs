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

/// How a writer goes on: the next levels that are the same are a run, or so many groups of eight are packed.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Same,
    Packed(usize),
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![Just(Choice::Same), (1_usize..6).prop_map(Choice::Packed)]
}

/// Levels in the hybrid encoding, after each choice in turn. Padding of the last ones is there or not.
fn encoded(levels: &[i16], most: i16, choices: &[Choice], is_padded: bool) -> Vec<u8> {
    let (mut bytes, mut left, width) = (Vec::new(), levels, width(most) as usize);
    for choice in choices.iter().cycle() {
        if left.is_empty() {
            break;
        }
        match *choice {
            Choice::Same => {
                let run = left.iter().take_while(|level| **level == left[0]).count();
                // A number of seven bits a byte; two are enough here.
                let header = run << 1;
                bytes.extend([header as u8 & 0x7f | 0x80, (header >> 7) as u8, left[0] as u8]);
                left = &left[run..];
            }
            Choice::Packed(groups) => {
                let groups = groups.min(left.len().div_ceil(8));
                bytes.push((groups << 1 | 1) as u8);
                let (packed, rest) = left.split_at(left.len().min(groups * 8));
                for eight in packed.chunks(8) {
                    let bits = eight.iter().rev().fold(0_u64, |bits, level| bits << width | *level as u64);
                    let length = if is_padded { width } else { (eight.len() * width).div_ceil(8) };
                    bytes.extend(&bits.to_le_bytes()[..length]);
                }
                left = rest;
            }
        }
    }
    bytes
}

/// The same the other way, a bit after the other; `None`: they are not all there.
fn decoded(mut bytes: &[u8], most: i16, count: usize) -> Option<Vec<i16>> {
    let (mut levels, width) = (Vec::new(), width(most) as usize);
    while levels.len() < count {
        let (header, rest) = variable(bytes)?;
        let length = (header >> 1) as usize;
        if length == 0 {
            return None;
        }
        if header & 1 == 0 {
            let (level, rest) = rest.split_first()?;
            levels.extend(std::iter::repeat_n(i16::from(*level), length.min(count - levels.len())));
            bytes = rest;
        } else {
            let (packed, rest) = rest.split_at(rest.len().min(length * width));
            let bit = |at: usize| packed.get(at / 8).map(|byte| i16::from(byte >> (at % 8) & 1));
            for number in 0..(length * 8).min(count - levels.len()) {
                let bits = (0..width).map(|at| Some(bit(number * width + at)? << at));
                levels.push(bits.sum::<Option<i16>>()?);
            }
            bytes = rest;
        }
    }
    Some(levels)
}

const VALUES: &[u8] = b"values";

/// A page of so many elements with these levels of repetition and definition, and a few bytes of values.
fn page(repetitions: &[u8], definitions: &[u8], count: usize, is_second: bool) -> Page {
    let num_values = count as u32;
    let [repetitions_len, definitions_len] = [repetitions, definitions].map(|levels| levels.len() as u32);
    if is_second {
        return Page::DataPageV2 {
            buf: Bytes::from([repetitions, definitions, VALUES].concat()),
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
    let parts: [&[u8]; 5] = [&before_repetitions, repetitions, &before_definitions, definitions, VALUES];
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
    Lists { name: "rtt", length, definition }
}

proptest! {
    /// Whatever the writer made of them, and wherever its pages end, also within a list.
    #[test]
    fn lists_of_one_length_are_their_elements_and_others_are_refused(
        length in prop_oneof![Just(12_usize), Just(16)],
        rows in 1_usize..120,
        most in 1_i16..=3,
        choices in proptest::collection::vec(choice(), 1..12),
        is_padded in any::<bool>(),
        page_levels in prop_oneof![1_usize..200, 1_usize..2000],
        is_second in any::<bool>(),
        wrong in proptest::option::of((any::<prop::sample::Index>(), any::<bool>())),
    ) {
        let right = |at: usize| (i16::from(!at.is_multiple_of(length)), most);
        let mut levels: Vec<_> = (0..rows * length).map(right).collect();
        if let Some((at, of_repetition)) = wrong {
            let (repetition, definition) = &mut levels[at.index(rows * length)];
            if of_repetition { *repetition = 1 - *repetition } else { *definition -= 1 }
        }
        let pages = levels.chunks(page_levels).flat_map(|levels| {
            let (repetitions, definitions): (Vec<_>, Vec<_>) = levels.iter().copied().unzip();
            let repetitions = encoded(&repetitions, 1, &choices, is_padded);
            let definitions = encoded(&definitions, most, &choices, is_padded);
            [page(&repetitions, &definitions, levels.len(), is_second), page(&[], &[], 0, is_second)]
        });
        let read: Result<Vec<_>, _> = Elements::new(Box::new(Ready(pages.collect())), lists(length, most)).collect();
        match read {
            Ok(pages) => {
                prop_assert!(wrong.is_none());
                let counts = pages.iter().map(|page| page.num_values() as usize).sum::<usize>();
                prop_assert_eq!(counts, rows * length);
                prop_assert!(pages.iter().all(|page| page.buffer() == VALUES && page.num_values() > 0));
            }
            Err(error) => {
                prop_assert!(wrong.is_some(), "{}", error);
                let expected = format!("a list of its column `rtt` has not {length} elements, or one of them is missing");
                prop_assert!(error.to_string().ends_with(&expected), "{}", error);
            }
        }
    }

    /// Files are cut off, and come from anywhere.
    #[test]
    fn levels_with_a_wrong_byte_are_right_where_they_say_the_same(
        rows in prop_oneof![1_usize..5, 1_usize..60],
        most in 1_i16..=7,
        choices in proptest::collection::vec(choice(), 1..12),
        is_second in any::<bool>(),
        (at, byte) in any::<(prop::sample::Index, u8)>(),
        kept in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let count = rows * 12;
        let right: Vec<i16> = (0..count).map(|at| i16::from(!at.is_multiple_of(12))).collect();
        let repetitions = encoded(&right, 1, &choices, true);
        let definitions = encoded(&vec![most; count], most, &choices, true);
        let mut bytes = [repetitions.as_slice(), &definitions].concat();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (repetitions, mut definitions) = bytes.split_at(repetitions.len());
        if is_cut {
            definitions = &definitions[..kept.index(definitions.len())];
        }
        let page = page(repetitions, definitions, count, is_second);
        let read = Elements::new(Box::new(Ready([page].into())), lists(12, most)).get_next_page();
        let is_right = decoded(repetitions, 1, count) == Some(right)
            && decoded(definitions, most, count).is_some_and(|levels| levels.iter().all(|level| *level == most));
        prop_assert_eq!(read.is_ok(), is_right, "{:?}", read);
    }
}

#[test]
fn what_stands_behind_the_last_level_is_of_no_list() {
    let repetitions = [2, 0, 22, 1].repeat(60);
    let pages = [page(&repetitions, &[24, 1], 12, true), page(&repetitions, &[24, 1], 12, true)];
    assert_eq!(Elements::new(Box::new(Ready(pages.into())), lists(12, 1)).filter(Result::is_ok).count(), 2);
}

#[test]
fn pages_that_are_no_pages_of_lists_are_told() {
    let told = |page: Page| {
        let read = Elements::new(Box::new(Ready([page].into())), lists(12, 1)).get_next_page();
        read.map(drop).expect_err("refused").to_string()
    };
    let mut short = page(&[3, 0], &[3, 0], 12, true);
    if let Page::DataPageV2 { rep_levels_byte_len, .. } = &mut short {
        *rep_levels_byte_len = 1000;
    }
    for page in [short, page(&[], &[], 12, false), page(&[0, 0], &[2, 1], 12, false)] {
        let told = told(page);
        assert!(told.ends_with("the levels of its column `rtt` end too soon or are none"), "{told}");
    }
    for is_of_repetition in [true, false] {
        let mut packed = page(&[], &[], 12, false);
        if let Page::DataPage { rep_level_encoding, def_level_encoding, .. } = &mut packed {
            *(if is_of_repetition { rep_level_encoding } else { def_level_encoding }) = Encoding::PLAIN;
        }
        let told = told(packed);
        assert!(told.ends_with("the levels of its column `rtt` are PLAIN; only RLE is read"), "{told}");
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
