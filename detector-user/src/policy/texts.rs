//! The text of a policy and those of its source files, laid end to end: a place tells the text that it is in.

use std::borrow::Cow;
use std::ops::Range;

/// Bytes of all texts, from the start to before the end.
pub(super) type Span = Range<usize>;

/// The texts, the policy's first.
pub(super) struct Texts<'t> {
    texts: Vec<Text<'t>>,
}

/// One text.
pub(super) struct Text<'t> {
    /// The path of a source file; the policy has none.
    pub(super) file: Option<String>,
    pub(super) text: Cow<'t, str>,
    /// Where it starts among all texts.
    base: usize,
    /// Where each line starts in this text, the first after a byte order mark.
    lines: Vec<usize>,
}

impl<'t> Texts<'t> {
    pub(super) fn new(policy: &'t str) -> Self {
        Self { texts: vec![Text::new(None, Cow::Borrowed(policy), 0)] }
    }

    /// Adds the text of a source file and tells where it starts.
    pub(super) fn add(&mut self, file: String, text: String) -> usize {
        // One byte lies between two texts, so that the end of one is not the start of the next.
        let base = self.texts.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.texts.push(Text::new(Some(file), Cow::Owned(text), base));
        base
    }

    /// Where the text of a source file starts, if it is there already.
    pub(super) fn find(&self, file: &str) -> Option<usize> {
        self.texts.iter().find(|text| text.file.as_deref() == Some(file)).map(|text| text.base)
    }

    /// Bytes of all source files.
    pub(super) fn file_bytes(&self) -> usize {
        self.texts.iter().skip(1).map(|text| text.text.len()).sum()
    }

    /// The text that a place is in, and the place in that text.
    pub(super) fn at(&self, span: &Span) -> (&Text<'t>, Span) {
        let number = self.texts.partition_point(|text| text.base <= span.start).saturating_sub(1);
        let text = &self.texts[number];
        (text, span.start - text.base..span.end.max(span.start) - text.base)
    }
}

impl<'t> Text<'t> {
    fn new(file: Option<String>, text: Cow<'t, str>, base: usize) -> Self {
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let lines =
            std::iter::once(first).chain(text.match_indices('\n').map(|(index, _)| index + 1)).collect();
        Self { file, text, base, lines }
    }

    /// The line that a place of this text is on, from 1, and where that starts.
    pub(super) fn line(&self, start: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|line_start| *line_start <= start).max(1);
        (line, self.lines.get(line - 1).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_belongs_to_one_text() {
        let mut texts = Texts::new("ab\n");
        let bases = [texts.add("one".to_owned(), "c".to_owned()), texts.add("two".to_owned(), String::new())];
        assert_eq!((texts.find("two"), texts.find("three"), texts.file_bytes()), (Some(bases[1]), None, 1));
        let file = |start: usize| {
            let (text, span) = texts.at(&(start..start));
            (text.file.as_deref(), span.start)
        };
        // Also the end of a text is in it.
        assert_eq!([0, 3].map(file), [(None, 0), (None, 3)]);
        assert_eq!([bases[0], bases[0] + 1].map(file), [(Some("one"), 0), (Some("one"), 1)]);
        assert_eq!(file(bases[1]), (Some("two"), 0));
    }
}
