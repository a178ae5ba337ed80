//! Words of the file in messages: quoting them safely, listing them, finding the one that was meant.

use super::diagnostic::is_plain;

/// Characters quoted from the file at most.
const QUOTED_CHARS_MAX: usize = 60;
/// Names listed at most.
const LISTED_MAX: usize = 12;
/// Characters of a word beyond which no similar one is looked for.
const WORD_CHARS_MAX: usize = 64;

/// A text of the file on one line, shortened, with everything escaped that is not plain to see.
pub(super) fn quoted(text: &str) -> String {
    let mut line = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == QUOTED_CHARS_MAX {
            line.push('…');
            break;
        }
        if is_plain(character) { line.push(character) } else { line.extend(character.escape_debug()) }
    }
    line
}

/// Names in a row: `` `a`, `b` or `c` ``; the first of them where there are many.
pub(super) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|name| format!("`{}`", quoted(name))).collect();
    let hidden = names.len().saturating_sub(LISTED_MAX);
    if hidden > 0 {
        names.truncate(LISTED_MAX);
        names.push(format!("{hidden} more"));
    }
    match names.pop() {
        None => "nothing".to_owned(),
        Some(only) if names.is_empty() => only,
        Some(last) => format!("{} or {last}", names.join(", ")),
    }
}

/// The name most like `word`, if one is close enough to be a slip.
pub(super) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = names
        .into_iter()
        .filter_map(|name| Some((distance(&word.to_lowercase(), &name.to_lowercase())?, name)))
        .min()?;
    let slips_max = (word.chars().count() / 3).max(1);
    (distance <= slips_max).then_some(name)
}

/// Asks for the nearest name.
pub(super) fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, names).map(|name| format!("did you mean `{}`?", quoted(name)))
}

/// Asks for what is called by another word elsewhere, of pairs of that word and the one here.
pub(super) fn synonym(text: &str, synonyms: &[(&str, &str)]) -> Option<String> {
    let (_, here) = synonyms.iter().find(|(elsewhere, _)| *elsewhere == text)?;
    Some(format!("did you mean `{here}`?"))
}

/// Asks for the first of some candidates that can be read.
pub(super) fn meant<T, E>(
    candidates: impl IntoIterator<Item = String>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Option<String> {
    let meant = candidates.into_iter().find(|candidate| read(candidate).is_ok())?;
    Some(format!("did you mean \"{}\"?", quoted(&meant)))
}

/// The characters to insert, remove, change or swap with their neighbour (optimal string alignment), or nothing
/// for words too long to be names.
fn distance(from: &str, to: &str) -> Option<usize> {
    let from: Vec<char> = from.chars().take(WORD_CHARS_MAX + 1).collect();
    let to: Vec<char> = to.chars().take(WORD_CHARS_MAX + 1).collect();
    if from.len() > WORD_CHARS_MAX || to.len() > WORD_CHARS_MAX {
        return None;
    }
    // `rows[i][j]` is the distance of the first `i` characters to the first `j`.
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for i in 0..=from.len() {
        for j in 0..=to.len() {
            rows[i][j] = match (i, j) {
                (0, length) | (length, 0) => length,
                _ => {
                    let changed = usize::from(from[i - 1] != to[j - 1]);
                    let swapped = i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1];
                    let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                    (rows[i - 1][j - 1] + changed).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
                }
            };
        }
    }
    Some(rows[from.len()][to.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slip_in_a_short_word_and_one_in_three_letters() {
        assert_eq!(nearest("dorp", ["allow", "drop"]), Some("drop"));
        assert_eq!(nearest("shadw", ["enforce", "shadow"]), Some("shadow"));
        assert_eq!(nearest("block", ["allow", "drop"]), None);
        assert_eq!(nearest("", ["allow"]), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), ["allow"]), None);
        assert_eq!(distance("kitten", "sitting"), Some(3));
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..20).map(|index| format!("n{index}")).collect();
        let shown = one_of(names.iter().map(String::as_str));
        assert!(shown.ends_with("`n11` or 8 more"), "{shown}");
    }

    #[test]
    fn quotes_are_one_safe_line() {
        assert_eq!(quoted("a\n\u{1b}[31m\"é\""), "a\\n\\u{1b}[31m\"é\"");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), QUOTED_CHARS_MAX + 1);
    }
}
