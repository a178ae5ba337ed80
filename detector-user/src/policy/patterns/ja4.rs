//! Patterns of JA4s: `t13d1516h2_8daaf6152771_*`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::policy::spelling::{meant, quoted};
use crate::policy::text::Issue;

/// What is expected, for messages.
pub(in crate::policy) const EXPECTED: &str =
    "a JA4 such as \"t13d1516h2_8daaf6152771_b186095e22b6\", parts with `*`";

/// Three parts, each as a JA4 has it, or with `*` for any characters of the part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ja4Pattern {
    /// None is longer than it has to be: no `*` stands beside another.
    parts: [String; 3],
}

const DECIMAL: &str = "0123456789";
const HEXADECIMAL: &str = "0123456789abcdef";
const ALPHANUMERIC: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// A hash as JA4 has it.
const HASH: [&str; 12] = [HEXADECIMAL; 12];
/// What JA4 writes of a ClientHello: transport, version, whether it names the server, numbers of ciphers and extensions, and
/// ends of the first application protocol.
const HEAD: [&str; 10] =
    [TRANSPORTS, "01sd", "0123", "di", DECIMAL, DECIMAL, DECIMAL, DECIMAL, ALPHANUMERIC, ALPHANUMERIC];
/// TCP, QUIC, DTLS.
const TRANSPORTS: &str = "tqd";
/// Digits of a JA3, an MD5.
const JA3_DIGITS: usize = 32;

impl Ja4Pattern {
    /// Whether a JA4, full or stable, is one of these.
    pub fn matches(&self, ja4: &str) -> bool {
        let mut parts = ja4.split('_');
        let all = self.parts.iter().all(|pattern| parts.next().is_some_and(|part| is_of(pattern, part)));
        all && parts.next().is_none()
    }

    /// Characters that are not `*`.
    pub fn literals(&self) -> usize {
        self.parts.iter().flat_map(|part| part.chars()).filter(|&character| character != '*').count()
    }

    /// Whether it is of no ClientHello over TCP, the only ones that the kernel reads.
    pub fn is_beyond_tcp(&self) -> bool {
        let mut over_tcp = HEAD;
        over_tcp[0] = "t";
        !is_possible(&self.parts[0], &over_tcp)
    }
}

/// Whether a text is one of a pattern.
fn is_of(pattern: &str, text: &str) -> bool {
    let bytes = text.as_bytes();
    reaches_end(pattern, bytes.len(), |place, character| char::from(bytes[place]) == character)
}

/// Whether there is a text of one of these characters at each place that is one of a pattern.
fn is_possible(pattern: &str, form: &[&str]) -> bool {
    reaches_end(pattern, form.len(), |place, character| form[place].contains(character))
}

/// Whether a pattern takes a text of a length, of which `is_at` knows the characters.
fn reaches_end(pattern: &str, length: usize, is_at: impl Fn(usize, char) -> bool) -> bool {
    // Whether so many characters of the text can be those of the pattern so far.
    let mut reached = vec![false; length + 1];
    reached[0] = true;
    for character in pattern.chars() {
        if character == '*' {
            let first = reached.iter().position(|&is_reached| is_reached).unwrap_or(reached.len());
            reached[first..].fill(true);
            continue;
        }
        for place in (0..length).rev() {
            reached[place + 1] = reached[place] && is_at(place, character);
        }
        reached[0] = false;
    }
    reached[length]
}

/// Reads a pattern.
pub(in crate::policy) fn parse(text: &str) -> Result<Ja4Pattern, Issue> {
    read(text).map_err(|issue| {
        let help = meant(other_spellings(text), read);
        issue.better_help(help)
    })
}

/// What was probably meant: cut short, in upper case, with blanks around it or other signs between its parts.
fn other_spellings(text: &str) -> impl Iterator<Item = String> {
    let plain = text.trim().replace('-', "_").to_lowercase();
    let plain = plain.strip_prefix("ja4=").unwrap_or(&plain).to_owned();
    ["", "_*", "_*_*"].into_iter().map(move |rest| format!("{plain}{rest}"))
}

fn read(text: &str) -> Result<Ja4Pattern, Issue> {
    if text.len() == JA3_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let help =
            "JA3 is another fingerprint: `detector top fingerprints` shows the JA4 of clients".to_owned();
        return Err(Issue::new("a JA3 hash, not a JA4", EXPECTED).help(help));
    }
    if text.contains(',') {
        let help = "write the JA4 itself, with the hashes of the lists".to_owned();
        return Err(Issue::new("a JA4 with lists instead of hashes", EXPECTED).help(help));
    }
    let parts: Vec<&str> = text.split('_').collect();
    let Ok(parts) = <[&str; 3]>::try_from(parts) else {
        return Err(Issue::new("not three parts with `_` between them", EXPECTED));
    };
    let forms: [(&[&str], &str); 3] = [
        (&HEAD, "10 characters such as t13d1516h2, or fewer with `*`"),
        (&HASH, "12 hexadecimal digits in lower case, or fewer with `*`"),
        (&HASH, "12 hexadecimal digits in lower case, or fewer with `*`"),
    ];
    for ((part, (form, expected)), name) in parts.iter().zip(forms).zip(["first", "second", "third"]) {
        if !is_possible(part, form) {
            let issue = Issue::new(format!("no JA4 has such a {name} part"), expected);
            return Err(issue.found(format!("`{}`", quoted(part))));
        }
    }
    if parts.iter().all(|part| part.chars().all(|character| character == '*')) {
        let help = "to limit every client, give the service a profile".to_owned();
        return Err(Issue::new("a pattern of every JA4", "at least one character that is not `*`").help(help));
    }
    Ok(Ja4Pattern { parts: parts.map(shortest) })
}

/// A pattern with one `*` where there are several in a row.
fn shortest(part: &str) -> String {
    let mut short = String::with_capacity(part.len());
    for character in part.chars() {
        if character != '*' || !short.ends_with('*') {
            short.push(character);
        }
    }
    short
}

impl fmt::Display for Ja4Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.parts.join("_"))
    }
}

impl FromStr for Ja4Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).map_err(Issue::one_line)
    }
}

impl TryFrom<String> for Ja4Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ja4Pattern> for String {
    fn from(pattern: Ja4Pattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHROME: &str = "t13d1516h2_8daaf6152771_b186095e22b6";

    fn pattern(text: &str) -> Ja4Pattern {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts_are_compared_one_by_one() {
        for text in [
            CHROME,
            "t13d1516h2_8daaf6152771_*",
            "*_8daaf6152771_*",
            "t13d*_*_*",
            "*h2_8d*1_*b6",
            "t*15*h2_*_*",
            "*_*_b186095e22b6*",
        ] {
            assert!(pattern(text).matches(CHROME), "{text}");
        }
        for text in [
            "q13d1516h2_8daaf6152771_*",
            "*_8daaf6152772_*",
            "t13i*_*_*",
            "*H2_*_*",
            "*_*27_*",
            "t13d*h1_8daaf6152771_*",
        ] {
            assert!(!pattern(text).matches(CHROME), "{text}");
        }
        for text in ["", "_", "__", "t13d1516h2", "t13d1516h2_8daaf6152771", "x_y_z_w"] {
            assert!(!pattern("*_*_b*").matches(text) && !pattern("t*_*_*").matches(text), "{text}");
        }
        assert!(!pattern("t*_*_*").matches(&format!("{CHROME}_0")));
    }

    #[test]
    fn several_stars_are_one() {
        assert_eq!(pattern("t**_***_*").to_string(), "t*_*_*");
        assert_eq!((pattern("t**_***_*").literals(), pattern(CHROME).literals()), (1, 34));
    }

    #[test]
    fn only_those_of_tcp_are_read() {
        for (text, is_beyond) in
            [(CHROME, false), ("q13d*_*_*", true), ("*h3_*_*", false), ("d*_*_*", true), ("*_*_0*", false)]
        {
            assert_eq!(pattern(text).is_beyond_tcp(), is_beyond, "{text}");
        }
    }

    /// A JA4 of any client.
    fn ja4() -> impl Strategy<Value = String> {
        "[tq](13|12|11|10|s3|00)[di][0-9]{4}[0-9a-zA-Z]{2}_[0-9a-f]{12}_[0-9a-f]{12}"
    }

    proptest! {
        #[test]
        fn a_ja4_matches_itself_and_no_other(ja4 in ja4(), other in ja4()) {
            prop_assert!(pattern(&ja4).matches(&ja4));
            prop_assert_eq!(pattern(&ja4).matches(&other), ja4 == other);
            prop_assert_eq!(pattern(&ja4).to_string(), ja4);
        }

        #[test]
        fn it_still_matches_with_a_star_in_place_of_a_part(ja4 in ja4(), part in 0..3_usize) {
            let parts = ja4.split('_').enumerate().map(|(place, text)| if place == part { "*" } else { text });
            prop_assert!(pattern(&parts.collect::<Vec<_>>().join("_")).matches(&ja4));
        }

        #[test]
        fn it_still_matches_with_a_star_in_place_of_some_characters(
            ja4 in ja4(), part in 0..3_usize, start in 0..12_usize, length in 0..12_usize,
        ) {
            let cut = |text: &str| {
                let start = start.min(text.len());
                let end = (start + length).min(text.len());
                format!("{}*{}", &text[..start], &text[end..])
            };
            let parts = ja4.split('_').enumerate();
            let parts: Vec<_> =
                parts.map(|(place, text)| if place == part { cut(text) } else { text.to_owned() }).collect();
            let short = pattern(&parts.join("_"));
            prop_assert!(short.matches(&ja4));
            prop_assert!(short.literals() <= pattern(&ja4).literals());
        }

        #[test]
        fn any_text_is_a_pattern_or_a_complaint(text in "[*_0-9a-ftqdTHi,é]{0,40}|\\PC*", other in "\\PC*|[*_0-9a-f]*") {
            if let Ok(pattern) = parse(&text) {
                pattern.matches(&other);
                prop_assert_eq!(&self::pattern(&pattern.to_string()), &pattern);
                let json = serde_json::to_string(&pattern).unwrap();
                prop_assert_eq!(serde_json::from_str::<Ja4Pattern>(&json).unwrap(), pattern);
            }
        }
    }
}
