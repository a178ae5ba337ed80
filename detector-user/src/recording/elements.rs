//! Lists of one length are read as their elements. Levels say where in a column a list begins and whether its elements are there (Dremel, Melnik et al.
//! 2010): for lists of one length always the same. To have the library decode them, one after the other, takes as long as to decode the counts, so
//! they are taken off its pages and looked at here, eight at a time.

use parquet::{
    basic::Encoding,
    column::page::{Page, PageMetadata, PageReader},
    errors::ParquetError,
    schema::types::ColumnDescriptor,
};

/// Pages of the elements of a column of lists.
pub(super) struct Elements {
    pages: Box<dyn PageReader>,
    lists: Lists,
    /// Which element of a list the next page begins with.
    at: usize,
    /// By element of a list, a bit for each of eight elements from it on: whether it is in the list of the one before.
    repeated: Vec<u8>,
}

/// What the lists of a column have to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lists {
    /// The column.
    name: &'static str,
    /// How many elements each has.
    length: usize,
    /// The level of repetition of all but the first one.
    repetition: i16,
    /// The level of definition of all that are there.
    definition: i16,
}

impl Lists {
    /// Those of a column.
    ///
    /// # Errors
    ///
    /// It has no lists, or lists of lists.
    pub(super) fn of(name: &'static str, length: usize, column: &ColumnDescriptor) -> Result<Self, String> {
        let (repetition, definition) = (column.max_rep_level(), column.max_def_level());
        // Each of list, element and what they are in may be missing in some files: never hundreds of them.
        if repetition == 1 && definition <= i16::from(i8::MAX) {
            return Ok(Self { name, length, repetition, definition });
        }
        Err(format!("its column `{name}` has no lists of numbers"))
    }

    fn wrong(self) -> ParquetError {
        ParquetError::General(format!(
            "a list of its column `{}` has not {} elements",
            self.name, self.length
        ))
    }
}

impl Elements {
    pub(super) fn new(pages: Box<dyn PageReader>, lists: Lists) -> Self {
        let is_repeated = |at: usize| !at.is_multiple_of(lists.length);
        let bits = |at: usize| (0..8).map(|bit| u8::from(is_repeated(at + bit)) << bit).sum();
        Self { pages, lists, at: 0, repeated: (0..lists.length).map(bits).collect() }
    }

    /// Looks at the levels of a page.
    fn check(&mut self, levels: &Levels<'_>, count: usize) -> Result<(), ParquetError> {
        let Lists { length, repetition, definition, .. } = self.lists;
        let mut at = self.at;
        let is_repeated = each_run(levels.repetitions, repetition, count, |run| match run {
            Run::Same(level, run) => {
                let is_right = if level == 0 { at == 0 && run == 1 } else { at > 0 && at + run <= length };
                at = (at + run) % length;
                is_right
            }
            Run::Packed(levels, mask) => {
                let is_right = (levels ^ u64::from(self.repeated[at])) & mask == 0;
                at = (at + mask.count_ones() as usize) % length;
                is_right
            }
        });
        let width = width(definition);
        let all_there = (0..8).map(|at| (definition as u64) << (at * width)).sum::<u64>();
        let is_there = each_run(levels.definitions, definition, count, |run| match run {
            Run::Same(level, _) => level == definition,
            Run::Packed(levels, mask) => (levels ^ all_there) & mask == 0,
        });
        if !(is_repeated && is_there) {
            return Err(self.lists.wrong());
        }
        self.at = at;
        Ok(())
    }
}

/// The levels of a page.
struct Levels<'a> {
    all: &'a [u8],
    repetitions: &'a [u8],
    definitions: &'a [u8],
}

impl<'a> Levels<'a> {
    /// Those at the start of a page of the first version: the length of each kind stands before it.
    fn of_first(page: &'a [u8]) -> Option<Self> {
        let (length, rest) = page.split_first_chunk::<4>()?;
        let (repetitions, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (definitions, values) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self { all: &page[..page.len() - values.len()], repetitions, definitions })
    }

    /// Those at the start of a page of the second version, whose header has the lengths.
    fn of_second(page: &'a [u8], repetitions: u32, definitions: u32) -> Option<Self> {
        let (repetitions, rest) = page.split_at_checked(repetitions as usize)?;
        let (definitions, values) = rest.split_at_checked(definitions as usize)?;
        Some(Self { all: &page[..page.len() - values.len()], repetitions, definitions })
    }
}

/// Some levels after each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// So many of one.
    Same(i16, usize),
    /// Eight of some bits each, the first one lowest, and bits of those that count, which are all but those after the last one.
    Packed(u64, u64),
}

/// Bits of a level that is at most this one.
const fn width(most: i16) -> u32 {
    i16::BITS - most.leading_zeros()
}

/// Shows levels of at most `most`, `count` of them in all, which are in Parquet's hybrid of run lengths and packed bits (its Encodings.md,
/// "RLE = 3"). Whether there are so many and each run was right.
fn each_run(mut bytes: &[u8], most: i16, count: usize, mut is_right: impl FnMut(Run) -> bool) -> bool {
    let width = width(most) as usize;
    let mut left = count;
    while left > 0 {
        let Some((header, rest)) = variable(bytes) else { return false };
        let length = (header >> 1) as usize;
        if header & 1 == 0 {
            let Some((level, rest)) = rest.split_first() else { return false };
            let run = length.min(left);
            if run == 0 || !is_right(Run::Same((*level).into(), run)) {
                return false;
            }
            (bytes, left) = (rest, left - run);
        } else {
            // Eight levels take as many bytes as one has bits.
            let packed = length.checked_mul(width).and_then(|length| rest.split_at_checked(length));
            let Some((packed, rest)) = packed.filter(|(packed, _)| !packed.is_empty()) else { return false };
            for packed in packed.chunks_exact(width).take(left.div_ceil(8)) {
                let levels = packed.iter().rev().fold(0, |levels, byte| levels << 8 | u64::from(*byte));
                let run = left.min(8);
                if !is_right(Run::Packed(levels, u64::MAX >> (u64::BITS as usize - run * width))) {
                    return false;
                }
                left -= run;
            }
            bytes = rest;
        }
    }
    true
}

/// A number of seven bits a byte, the lowest first (ULEB128).
fn variable(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        number |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

impl Iterator for Elements {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Elements {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let (buf, num_values, encoding, levels) = match self.pages.get_next_page()? {
            Some(Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                ..
            }) => {
                if [def_level_encoding, rep_level_encoding] != [Encoding::RLE; 2] {
                    let name = self.lists.name;
                    return Err(ParquetError::General(format!("levels of its column `{name}` are no runs")));
                }
                let levels = Levels::of_first(&buf).ok_or_else(|| self.lists.wrong())?;
                self.check(&levels, num_values as usize)?;
                let taken = levels.all.len();
                (buf.slice(taken..), num_values, encoding, [def_level_encoding, rep_level_encoding])
            }
            Some(Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            }) => {
                let levels = Levels::of_second(&buf, rep_levels_byte_len, def_levels_byte_len);
                let levels = levels.ok_or_else(|| self.lists.wrong())?;
                self.check(&levels, num_values as usize)?;
                let taken = levels.all.len();
                (buf.slice(taken..), num_values, encoding, [Encoding::RLE; 2])
            }
            other => return Ok(other),
        };
        let [def_level_encoding, rep_level_encoding] = levels;
        Ok(Some(Page::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding,
            rep_level_encoding,
            statistics: None,
        }))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        Err(ParquetError::NYI("levels of a page that is skipped are not looked at".to_owned()))
    }
}

#[cfg(test)]
#[path = "elements_tests.rs"]
mod tests;
