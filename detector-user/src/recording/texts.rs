//! Texts are read as numbers, which are made of them where they stand on a page. As a `ByteArray` each text holds its page: to count that up and down takes
//! longer than to read what the text says.

use bytes::Bytes;
use parquet::{
    basic::Encoding,
    column::{
        page::{Page, PageMetadata, PageReader},
        reader::ColumnReaderImpl,
    },
    data_type::{ByteArray, ByteArrayType},
    errors::ParquetError,
    schema::types::ColumnDescPtr,
};

use super::{elements::width, row_group::ROWS};

/// Pages of the numbers of a column of texts.
pub(super) struct Texts<N> {
    pages: Box<dyn PageReader>,
    column: ColumnDescPtr,
    /// The number of a text.
    number: N,
}

impl<N: FnMut(&[u8]) -> u64 + Send> Texts<N> {
    pub(super) fn new(pages: Box<dyn PageReader>, column: ColumnDescPtr, number: N) -> Self {
        Self { pages, column, number }
    }

    fn numbered(&mut self, mut page: Page) -> Result<Page, ParquetError> {
        // Numbers in a dictionary are what they were.
        let is_numbers = matches!(page.encoding(), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
        let numbers = match &page {
            Page::DictionaryPage { buf, num_values, .. } => {
                let numbers = self.numbers(buf, *num_values as usize, Vec::new())?;
                if numbers.len() != *num_values as usize * size_of::<u64>() {
                    return Err(self.broken());
                }
                numbers
            }
            _ if is_numbers => return Ok(page),
            _ => {
                let levels = self.levels(&page).ok_or_else(|| self.broken())?;
                self.values(&page, levels)?
            }
        };
        match &mut page {
            Page::DictionaryPage { buf, .. } => *buf = numbers,
            Page::DataPage { buf, encoding, .. } | Page::DataPageV2 { buf, encoding, .. } => {
                (*buf, *encoding) = (numbers, Encoding::PLAIN);
            }
        }
        Ok(page)
    }

    /// How many bytes before the values say which of them are there; `None`: the page is shorter. A column of texts has no lists.
    fn levels(&self, page: &Page) -> Option<usize> {
        let length = match page {
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                *def_levels_byte_len as usize + *rep_levels_byte_len as usize
            }
            _ if self.column.max_def_level() == 0 => 0,
            Page::DataPage { def_level_encoding: Encoding::RLE, buf, .. } => {
                4 + u32::from_le_bytes(*buf.first_chunk()?) as usize
            }
            // Side by side (`BIT_PACKED`, of old writers); another encoding is refused by the library.
            _ => (page.num_values() as usize * width(self.column.max_def_level()) as usize).div_ceil(8),
        };
        (length <= page.buffer().len()).then_some(length)
    }

    /// The page's levels, and the numbers of its values behind them.
    fn values(&mut self, page: &Page, levels: usize) -> Result<Bytes, ParquetError> {
        let (levels, values) = page.buffer().split_at(levels);
        if page.encoding() == Encoding::PLAIN {
            return self.numbers(values, page.num_values() as usize, levels.to_vec());
        }
        // Other encodings are rare, and known to the library. It makes room for as many as are asked for, whatever is there.
        let (mut numbers, mut definitions, mut texts) =
            (levels.to_vec(), Vec::new(), Vec::<ByteArray>::new());
        let page = Box::new(One(Some(page.clone())));
        let mut reader = ColumnReaderImpl::<ByteArrayType>::new(self.column.clone(), page);
        while reader.read_records(ROWS, Some(&mut definitions), None, &mut texts)?.0 > 0 {
            for text in texts.drain(..) {
                numbers.extend((self.number)(text.data()).to_le_bytes());
            }
            definitions.clear();
        }
        Ok(numbers.into())
    }

    /// The numbers of at most so many texts, each of which has its length before it (Parquet's Encodings.md, "Plain"), after what is there.
    fn numbers(
        &mut self,
        mut texts: &[u8],
        most: usize,
        mut numbers: Vec<u8>,
    ) -> Result<Bytes, ParquetError> {
        for _ in 0..most {
            if texts.is_empty() {
                break;
            }
            let text = texts
                .split_first_chunk::<4>()
                .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
            let (text, rest) = text.ok_or_else(|| self.broken())?;
            numbers.extend((self.number)(text).to_le_bytes());
            texts = rest;
        }
        Ok(numbers.into())
    }

    fn broken(&self) -> ParquetError {
        ParquetError::General(format!("a page of its column `{}` ends too soon", self.column.name()))
    }
}

impl<N: FnMut(&[u8]) -> u64 + Send> Iterator for Texts<N> {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<N: FnMut(&[u8]) -> u64 + Send> PageReader for Texts<N> {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        page.map(|page| self.numbered(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        Err(ParquetError::NYI("the dictionary of a page that is skipped is not kept".to_owned()))
    }
}

/// A page alone.
struct One(Option<Page>);

impl Iterator for One {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl PageReader for One {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        Ok(self.0.take())
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.0 = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        basic::Type as Physical,
        schema::types::{ColumnDescriptor, ColumnPath, Type},
    };

    use super::*;

    const LONG: &[u8] = b"198.51.100.7/32";

    fn column(most: i16) -> ColumnDescPtr {
        let of = Type::primitive_type_builder("source", Physical::BYTE_ARRAY).build().expect("a type");
        ColumnDescPtr::new(ColumnDescriptor::new(of.into(), most, 0, ColumnPath::from("source")))
    }

    fn plain(texts: &[&[u8]]) -> Vec<u8> {
        texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text].concat()).collect()
    }

    fn page(buf: Vec<u8>, num_values: u32, encoding: Encoding, levels: Encoding) -> Page {
        Page::DataPage {
            buf: buf.into(),
            num_values,
            encoding,
            def_level_encoding: levels,
            rep_level_encoding: levels,
            statistics: None,
        }
    }

    /// The numbers of a page, which are the lengths of its texts, and what stands before them.
    fn read(most: i16, page: Page, levels: usize) -> Result<(Vec<u64>, Vec<u8>), ParquetError> {
        let mut texts = Texts::new(Box::new(One(Some(page))), column(most), |text: &[u8]| text.len() as u64);
        let page = texts.get_next_page()?.expect("a page");
        let (levels, numbers) = page.buffer().split_at(levels);
        let (numbers, rest) = numbers.as_chunks::<8>();
        assert!(rest.is_empty());
        Ok((numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(), levels.to_vec()))
    }

    #[test]
    fn texts_are_numbers_behind_the_levels_of_each_encoding() {
        let texts = plain(&[LONG, b"", b"x"]);
        let rle = [&[2, 0, 0, 0, 6, 1][..], &texts].concat();
        // Nine values, of which the first three are there.
        #[expect(deprecated, reason = "old writers have it")]
        let packed = Encoding::BIT_PACKED;
        let bits = [&[0b1110_0000, 0][..], &texts].concat();
        for (most, page, levels) in [
            (0, page(texts.clone(), 3, Encoding::PLAIN, Encoding::RLE), 0),
            (1, page(rle, 3, Encoding::PLAIN, Encoding::RLE), 6),
            (1, page(bits, 9, Encoding::PLAIN, packed), 2),
        ] {
            let before = page.buffer()[..levels].to_vec();
            assert_eq!(read(most, page, levels).expect("numbers"), (vec![15, 0, 1], before));
        }
        // What stands behind the last value is nobody's.
        let more = page([texts, vec![9; 3]].concat(), 3, Encoding::PLAIN, Encoding::RLE);
        assert_eq!(read(0, more, 0).expect("numbers").0, [15, 0, 1]);
    }

    #[test]
    fn pages_that_end_too_soon_are_refused_and_take_no_memory() {
        let broken = "a page of its column `source` ends too soon";
        let texts = plain(&[LONG, b"x"]);
        let short = page(texts[..texts.len() - 1].to_vec(), 2, Encoding::PLAIN, Encoding::RLE);
        assert!(read(0, short, 0).expect_err("refused").to_string().ends_with(broken));
        let levels = page(vec![9, 0, 0, 0, 1], 2, Encoding::PLAIN, Encoding::RLE);
        assert!(read(1, levels, 0).expect_err("refused").to_string().ends_with(broken));
        let few = Page::DictionaryPage {
            buf: texts.into(),
            num_values: 3,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert!(read(0, few, 0).expect_err("refused").to_string().ends_with(broken));
        // To make room for what is not there would take 64 GB.
        let huge = page(vec![0; 8], i32::MAX as u32, Encoding::DELTA_BYTE_ARRAY, Encoding::RLE);
        read(0, huge, 0).expect_err("refused");
    }
}
