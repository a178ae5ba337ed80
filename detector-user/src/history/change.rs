//! What differs between two versions.

use std::{collections::HashMap, fmt, time::Duration};

use serde::Serialize;
use similar::{Algorithm, ChangeTag, TextDiff};
use utoipa::ToSchema;

use super::{Content, SourceFile};

/// Source files of at most so many bytes are compared line by line; larger ones only have their lines counted.
const DIFF_BYTES_MAX: usize = 1 << 20;

/// Time that a comparison of two texts may take. What is left then is told as removed and added.
const DIFF_TIME: Duration = Duration::from_millis(500);

/// How many lines differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LineCounts)]
pub struct Lines {
    /// Lines that only the later one has.
    pub added: usize,
    /// Lines that only the earlier one has.
    pub removed: usize,
}

/// How many lines of a version differ from another's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = VersionChanges)]
pub struct Changes {
    /// Of the policy's text.
    pub text: Lines,
    /// Of its source files that differ, or are in one of both only.
    pub sources: Vec<SourceChange>,
}

/// A source file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = VersionSourceChange)]
pub struct SourceChange {
    /// Its name.
    pub name: String,
    /// How many of its lines differ, wherever they stand in it.
    pub lines: Lines,
}

impl fmt::Display for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "+{} −{}", self.added, self.removed)
    }
}

/// On one line: `+12 −3`, `+1 −1, partner.txt +1204 −33`; `none`.
impl fmt::Display for Changes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if self.text != Lines::default() {
            write!(formatter, "{}", self.text)?;
            separator = ", ";
        }
        for SourceChange { name, lines } in &self.sources {
            write!(formatter, "{separator}{name} {lines}")?;
            separator = ", ";
        }
        if separator.is_empty() { formatter.write_str("none") } else { Ok(()) }
    }
}

/// What differs between two versions; without an earlier one everything is new.
pub fn changes(earlier: Option<&Content>, later: &Content) -> Changes {
    let text = match earlier {
        Some(earlier) => lines_of(&earlier.text, &later.text),
        None => Lines { added: later.text.lines().count(), removed: 0 },
    };
    let sources = pairs(earlier, later).into_iter().map(|(name, earlier, later)| {
        let lines = counted(earlier.unwrap_or_default(), later.unwrap_or_default());
        SourceChange { name: name.to_owned(), lines }
    });
    Changes { text, sources: sources.collect() }
}

/// The unified diff of two versions: of the text, then of each source file that differs. `titles` name the two.
pub fn diff(earlier: Option<&Content>, later: &Content, titles: [&str; 2]) -> String {
    let before = earlier.map_or("", |earlier| &earlier.text);
    let mut diff = unified(before, &later.text, titles);
    for (name, earlier, later) in pairs(earlier, later) {
        let (earlier, later) = (earlier.unwrap_or_default(), later.unwrap_or_default());
        let titles = titles.map(|title| format!("{title}: {name}"));
        if earlier.len().max(later.len()) > DIFF_BYTES_MAX {
            let lines = counted(earlier, later);
            diff += &format!("--- {}\n+++ {}\n{lines} lines\n", titles[0], titles[1]);
            continue;
        }
        // Source files are UTF-8, or their policy is refused.
        let (earlier, later) = (String::from_utf8_lossy(earlier), String::from_utf8_lossy(later));
        diff += &unified(&earlier, &later, [&titles[0], &titles[1]]);
    }
    diff
}

fn unified(earlier: &str, later: &str, [from, to]: [&str; 2]) -> String {
    compared(earlier, later).unified_diff().context_radius(3).header(from, to).to_string()
}

fn compared<'t>(earlier: &'t str, later: &'t str) -> TextDiff<'t, 't, str> {
    TextDiff::configure().algorithm(Algorithm::Myers).timeout(DIFF_TIME).diff_lines(earlier, later)
}

fn lines_of(earlier: &str, later: &str) -> Lines {
    let mut lines = Lines::default();
    for change in compared(earlier, later).iter_all_changes() {
        match change.tag() {
            ChangeTag::Insert => lines.added += 1,
            ChangeTag::Delete => lines.removed += 1,
            ChangeTag::Equal => {}
        }
    }
    lines
}

/// How many lines only one of both has, wherever they stand: the order of prefixes means nothing.
///
/// Of lists that are edited most lines stand where they stood, from the start or from the end. Those are passed over; counting
/// a million takes a third of a second.
fn counted(earlier: &[u8], later: &[u8]) -> Lines {
    let lines = |bytes| <[u8]>::split(bytes, |&byte: &u8| byte == b'\n').collect::<Vec<_>>();
    let (earlier, later) = (lines(earlier), lines(later));
    let at_end = earlier.iter().rev().zip(later.iter().rev()).take_while(|(one, other)| one == other).count();
    let (earlier, later) = (&earlier[..earlier.len() - at_end], &later[..later.len() - at_end]);
    let mut counts: HashMap<&[u8], i64> = HashMap::new();
    let mut count = |line: &'_ _, step| *counts.entry(*line).or_default() += step;
    for (one, other) in earlier.iter().zip(later).filter(|(one, other)| one != other) {
        count(one, -1);
        count(other, 1);
    }
    let both = earlier.len().min(later.len());
    earlier[both..].iter().for_each(|line| count(line, -1));
    later[both..].iter().for_each(|line| count(line, 1));
    counts.remove(&[][..]);
    let sum = |sign: i64| counts.values().map(|count| (count * sign).max(0) as usize).sum();
    Lines { added: sum(1), removed: sum(-1) }
}

type Pair<'c> = (&'c str, Option<&'c [u8]>, Option<&'c [u8]>);

/// The source files that differ, by name.
fn pairs<'c>(earlier: Option<&'c Content>, later: &'c Content) -> Vec<Pair<'c>> {
    let earlier = earlier.map_or(&[][..], |earlier| &earlier.sources);
    let of = |files: &'c [SourceFile], name: &str| {
        files.iter().find(|file| file.name == name).map(|file| &*file.bytes)
    };
    let mut names: Vec<&str> = earlier.iter().chain(&later.sources).map(|file| &*file.name).collect();
    names.sort_unstable();
    names.dedup();
    let pair = |name| (name, of(earlier, name), of(&later.sources, name));
    names.into_iter().map(pair).filter(|(_, earlier, later)| earlier != later).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str, sources: &[(&str, &str)]) -> Content {
        let file = |&(name, text): &(&str, &str)| SourceFile { name: name.into(), bytes: text.into() };
        Content { text: text.to_owned(), sources: sources.iter().map(file).collect() }
    }

    #[test]
    fn lines_are_counted_and_shown() {
        let one = content("a\nb\nc\n", &[("same", "1\n"), ("list", "10.0.0.0/8\n192.0.2.0/24\n")]);
        let two = content("a\nx\nc\nd\n", &[("same", "1\n"), ("list", "192.0.2.0/24\n"), ("new", "::1\n")]);
        let changes = changes(Some(&one), &two);
        assert_eq!(changes.to_string(), "+2 −1, list +0 −1, new +1 −0");
        let diff = diff(Some(&one), &two, ["version 1", "version 2"]);
        assert!(
            diff.starts_with("--- version 1\n+++ version 2\n@@ -1,3 +1,4 @@\n a\n-b\n+x\n c\n+d\n"),
            "{diff}"
        );
        assert!(diff.contains("--- version 1: list\n+++ version 2: list\n"), "{diff}");
        assert!(diff.contains("-10.0.0.0/8\n") && !diff.contains("same"), "{diff}");
    }

    #[test]
    fn what_is_the_same_or_first_is_told_so() {
        let one = content("a\nb\n", &[("list", "::1\n")]);
        assert_eq!(changes(Some(&one), &one).to_string(), "none");
        assert_eq!(diff(Some(&one), &one, ["1", "2"]), "");
        assert_eq!(changes(None, &one).to_string(), "+2 −0, list +1 −0");
    }

    #[test]
    fn the_order_of_prefixes_means_nothing_and_a_large_file_is_only_counted() {
        let many: Vec<String> = (0..200_000).map(|number: u32| format!("{number}\n")).collect();
        let (forward, backward) = (many.concat(), many.iter().rev().map(String::as_str).collect::<String>());
        let (one, two) = (content("", &[("list", &forward)]), content("", &[("list", &(backward + "x\n"))]));
        assert_eq!(changes(Some(&one), &two).to_string(), "list +1 −0");
        let diff = diff(Some(&one), &two, ["1", "2"]);
        assert_eq!(diff, "--- 1: list\n+++ 2: list\n+1 −0 lines\n");
    }

    #[test]
    fn lines_are_counted_alike_wherever_they_moved() {
        let lines = |earlier: &str, later: &str| counted(earlier.as_bytes(), later.as_bytes()).to_string();
        assert_eq!(lines("", ""), "+0 −0");
        assert_eq!(lines("a\nb\nc\n", "a\nx\nb\nc\n"), "+1 −0");
        assert_eq!(lines("a\nb\nc\nd\n", "d\nb\nc\na\n"), "+0 −0");
        assert_eq!(lines("a\na\nb\n", "a\nb"), "+0 −1");
        assert_eq!(lines("a\n\nb\nc\n", "b\n\n\ny\nz\na\n"), "+2 −1");
    }
}
