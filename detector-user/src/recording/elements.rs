//! Lists of one length are read as their elements. Levels say where in a column a list begins and whether its elements are there (Dremel, Melnik et al.
//! 2010): for lists of one length always the same. To have the library decode them, one after the other, takes as long as to decode the counts, so
//! they are taken off its pages and looked at here, eight at a time; what repeats itself is looked at once, and then compared as bytes.

use parquet::{
    basic::Encoding,
    column::page::{Page, PageMetadata, PageReader},
    errors::ParquetError,
    schema::types::ColumnDescriptor,
};

/// Pages of the elements of a column of lists.
pub(super) struct Elements {
    pages: WithValues,
    lists: Lists,
    /// Which element of a list the next page begins with.
    at: usize,
    /// For each place in a list whether it and the seven elements after it go on with a list, a bit each.
    goes_on: Vec<u8>,
}

/// What the lists of a column have to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lists {
    /// The column.
    name: &'static str,
    /// How many elements each has.
    length: usize,
    /// The level of definition of all that are there.
    definition: i16,
}

/// The level of repetition of what goes on with a list.
const REPETITION: i16 = 1;

impl Lists {
    /// Those of a column.
    ///
    /// # Errors
    ///
    /// It has no lists, or lists of lists.
    pub(super) fn of(name: &'static str, length: usize, column: &ColumnDescriptor) -> Result<Self, String> {
        let definition = column.max_def_level();
        // One for each thing that may be missing: element, list, what they are in. Up to 127 a level takes a byte, and eight of them a word.
        if column.max_rep_level() == REPETITION && definition <= i16::from(i8::MAX) {
            return Ok(Self { name, length, definition });
        }
        Err(format!("its column `{name}` has no lists of numbers"))
    }

    fn wrong(self, levels: LevelsError) -> ParquetError {
        let Self { name, length, .. } = self;
        ParquetError::General(match levels {
            LevelsError::Wrong => {
                format!("a list of its column `{name}` has not {length} elements, or one of them is missing")
            }
            LevelsError::Broken => format!("the levels of its column `{name}` end too soon or are none"),
            LevelsError::Encoding(encoding) => {
                format!("the levels of its column `{name}` are {encoding}; only RLE is read")
            }
        })
    }
}

/// What is wrong with the levels of a page.
#[derive(Debug, Clone, Copy)]
enum LevelsError {
    /// They are not those of lists of one length.
    Wrong,
    /// They cannot be read.
    Broken,
    /// They are of an encoding that is not read here.
    Encoding(Encoding),
}

impl Elements {
    pub(super) fn new(pages: Box<dyn PageReader>, lists: Lists) -> Self {
        let goes_on = |at: usize| !at.is_multiple_of(lists.length);
        let bits = |at: usize| (0..8).map(|bit| u8::from(goes_on(at + bit)) << bit).sum();
        Self { pages: WithValues(pages), lists, at: 0, goes_on: (0..lists.length).map(bits).collect() }
    }

    /// Looks at the levels of a page, and where in a list it ends.
    fn check(&mut self, levels: &Levels<'_>, count: usize) -> Result<(), LevelsError> {
        let Lists { length, definition, .. } = self.lists;
        let at = each_run(levels.repetitions, REPETITION, count, self.at, |at, run| match run {
            Run::Same(level, count) => {
                let is_start = level == 0 && at == 0 && count == 1;
                let is_rest = level == REPETITION && at > 0 && at + count <= length;
                (is_start || is_rest).then_some((at + count) % length)
            }
            Run::Packed(levels, mask) => {
                let is_right = (levels ^ u64::from(self.goes_on[at])) & mask == 0;
                is_right.then_some((at + mask.count_ones() as usize) % length)
            }
        })?;
        let width = width(definition);
        let all_there = (0..8).map(|at| (definition as u64) << (at * width)).sum::<u64>();
        each_run(levels.definitions, definition, count, 0, |at, run| {
            let is_right = match run {
                Run::Same(level, _) => level == definition,
                Run::Packed(levels, mask) => (levels ^ all_there) & mask == 0,
            };
            is_right.then_some(at)
        })?;
        self.at = at;
        Ok(())
    }

    /// A page without its levels, which were looked at.
    fn without_levels(&mut self, page: Page) -> Result<Page, LevelsError> {
        let (buf, num_values, encoding, levels) = match &page {
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, .. } => {
                let foreign = [*def_level_encoding, *rep_level_encoding];
                if let Some(encoding) = foreign.into_iter().find(|encoding| *encoding != Encoding::RLE) {
                    return Err(LevelsError::Encoding(encoding));
                }
                (buf, num_values, encoding, Levels::of_first(buf))
            }
            Page::DataPageV2 {
                buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, ..
            } => {
                let levels = Levels::of_second(buf, *rep_levels_byte_len, *def_levels_byte_len);
                (buf, num_values, encoding, levels)
            }
            Page::DictionaryPage { .. } => return Ok(page),
        };
        let levels = levels.ok_or(LevelsError::Broken)?;
        self.check(&levels, *num_values as usize)?;
        Ok(Page::DataPage {
            buf: buf.slice(levels.bytes..),
            num_values: *num_values,
            encoding: *encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }
}

/// The levels of a page.
struct Levels<'a> {
    /// Bytes of the page that are theirs.
    bytes: usize,
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
        Some(Self { bytes: page.len() - values.len(), repetitions, definitions })
    }

    /// Those at the start of a page of the second version, whose header has the lengths.
    fn of_second(page: &'a [u8], repetitions: u32, definitions: u32) -> Option<Self> {
        let (repetitions, rest) = page.split_at_checked(repetitions as usize)?;
        let (definitions, values) = rest.split_at_checked(definitions as usize)?;
        Some(Self { bytes: page.len() - values.len(), repetitions, definitions })
    }
}

/// Some levels after each other.
enum Run {
    /// One, so many times.
    Same(i16, usize),
    /// Up to eight side by side, the first one lowest, and a mask of those that count: after the last one there is padding.
    Packed(u64, u64),
}

/// Bits of a level that is at most this one.
pub(super) const fn width(most: i16) -> u32 {
    i16::BITS - most.leading_zeros()
}

/// Shows levels of at most `most`, `count` of them in all, which are in Parquet's hybrid of run lengths and packed bits (its Encodings.md,
/// "RLE = 3"), and where in a list they begin; `step` says where the next ones do, or that they are wrong. Runs that repeat those before them, from
/// the same place in a list, are not shown again. Where in a list the last ones end.
fn each_run(
    mut bytes: &[u8],
    most: i16,
    count: usize,
    start: usize,
    step: impl Fn(usize, Run) -> Option<usize>,
) -> Result<usize, LevelsError> {
    let width = width(most) as usize;
    let step = |at: usize, run: Run| step(at, run).ok_or(LevelsError::Wrong);
    let (mut at, mut left) = (start, count);
    // What was left when a list was last at `start`.
    let (mut cycle_bytes, mut cycle_left) = (bytes, left);
    while left > 0 {
        let (header, rest) = variable(bytes).ok_or(LevelsError::Broken)?;
        let length = (header >> 1) as usize;
        if length == 0 {
            return Err(LevelsError::Broken);
        }
        if header & 1 == 0 {
            let (level, rest) = rest.split_first().ok_or(LevelsError::Broken)?;
            let run = length.min(left);
            at = step(at, Run::Same((*level).into(), run))?;
            (bytes, left) = (rest, left - run);
        } else {
            // Eight levels take as many bytes as one has bits. Some writers leave out what would be padding of the last ones. Where more is left out, zeros are read:
            // no level of an element that is there has 0 as its highest bit, and of levels of repetition, of one bit, eight are there or none.
            let (packed, rest) = rest.split_at(length.saturating_mul(width).min(rest.len()));
            for packed in packed.chunks(width).take(left.div_ceil(8)) {
                let levels = packed.iter().rev().fold(0, |levels, byte| levels << 8 | u64::from(*byte));
                let run = left.min(8);
                at = step(at, Run::Packed(levels, u64::MAX >> (u64::BITS as usize - run * width)))?;
                left -= run;
            }
            bytes = rest;
        }
        if at == start {
            let (cycle, levels) = (cycle_bytes.len() - bytes.len(), cycle_left - left);
            let times = left.checked_div(levels).map_or(0, |most| repeats(cycle_bytes, cycle).min(most));
            (bytes, left) = (&bytes[times * cycle..], left - times * levels);
            (cycle_bytes, cycle_left) = (bytes, left);
        }
    }
    Ok(at)
}

/// How many times at least the first `length` bytes stand there again after them, without a gap.
fn repeats(bytes: &[u8], length: usize) -> usize {
    const AT_ONCE: usize = 64;
    let with = bytes.chunks(AT_ONCE);
    let same =
        bytes[length..].chunks(AT_ONCE).zip(with).take_while(|(these, with)| *these == &with[..these.len()]);
    same.map(|(these, _)| these.len()).sum::<usize>() / length
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

/// The pages that have values: at one without any the library takes its column for read to the end, though others may follow.
pub(super) struct WithValues(pub(super) Box<dyn PageReader>);

impl Iterator for WithValues {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for WithValues {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        loop {
            let page = self.0.get_next_page()?;
            // Room is made for all values of a dictionary at once, and each takes four bytes at least.
            if let Some(Page::DictionaryPage { buf, num_values, .. }) = &page
                && *num_values as usize > buf.len() / 4
            {
                return Err(ParquetError::General("a dictionary has more values than there are".to_owned()));
            }
            if !page.as_ref().is_some_and(|page| page.is_data_page() && page.num_values() == 0) {
                return Ok(page);
            }
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.0.skip_next_page()
    }
}

impl Iterator for Elements {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Elements {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let Some(page) = self.pages.get_next_page()? else { return Ok(None) };
        self.without_levels(page).map(Some).map_err(|wrong| self.lists.wrong(wrong))
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
