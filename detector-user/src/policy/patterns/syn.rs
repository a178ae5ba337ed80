//! Patterns of SYNs: `4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:*:0`, as p0f 3 writes them, with `*` for any value of a field.

use std::fmt;
use std::str::FromStr;

use detector_common::syn::{OPTION_BYTES_MAX, Syn, WindowUnit, quirks};
use serde::{Deserialize, Serialize};

use crate::policy::spelling::{did_you_mean, meant, quoted, synonym};
use crate::policy::text::Issue;

/// What is expected, for messages.
pub(in crate::policy) const EXPECTED: &str =
    "a SYN as p0f writes it, such as \"4:64:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0\", fields with `*`";

/// What is asked of each field; nothing where it is `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SynPattern {
    version: Option<u8>,
    initial_ttl: Option<u8>,
    ip_options_bytes: Option<u16>,
    mss: Option<u16>,
    window: Option<Window>,
    scale: Option<u8>,
    layout: Option<Layout>,
    quirks: Option<u64>,
    payload: Option<bool>,
}

/// A window, in whatever unit the SYN's text has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Window {
    Bytes(u16),
    Mss(u16),
    Mtu(u16),
}

/// Kinds of options in their order, and the bytes behind their end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Layout {
    kinds: Vec<u8>,
    padding_bytes: u8,
}

const END: u8 = 0;
/// What options are called that have a name; the end has the padding in its own.
const OPTIONS: [(u8, &str); 6] = [(1, "nop"), (2, "mss"), (3, "ws"), (4, "sok"), (5, "sack"), (8, "ts")];
/// What others call them.
const OPTION_SYNONYMS: [(&str, &str); 8] = [
    ("wscale", "ws"),
    ("wsopt", "ws"),
    ("sackok", "sok"),
    ("sackOK", "sok"),
    ("timestamp", "ts"),
    ("timestamps", "ts"),
    ("TS", "ts"),
    ("eol", "eol+0"),
];
const INITIAL_TTLS: [u8; 4] = [32, 64, 128, 255];
/// Quirks of IPv4, and of IPv6.
const QUIRKS_V4: u64 = quirks::DF | quirks::NONZERO_ID | quirks::ZERO_ID | quirks::RESERVED;
const QUIRKS_V6: u64 = quirks::FLOW;
/// Below, no window is written as a multiple.
const MSS_OF_MULTIPLES_MIN: u64 = 100;

impl SynPattern {
    /// Whether the signature of a SYN is one of these.
    pub fn matches(&self, syn: &Syn) -> bool {
        fn is_asked<T: PartialEq>(asked: Option<T>, is: T) -> bool {
            asked.is_none_or(|asked| asked == is)
        }
        is_asked(self.version, syn.version)
            && is_asked(self.initial_ttl, syn.initial_ttl)
            && is_asked(self.ip_options_bytes, syn.ip_options_bytes)
            && is_asked(self.mss, syn.mss)
            && self.window.is_none_or(|window| window.is_of(syn))
            && is_asked(self.scale, syn.scale)
            && self.layout.as_ref().is_none_or(|layout| layout.is_of(syn))
            && is_asked(self.quirks, syn.quirks)
            && is_asked(self.payload, syn.payload != 0)
    }

    /// Characters that are not `*`.
    pub fn literals(&self) -> usize {
        self.to_string().chars().filter(|&character| character != '*').count()
    }
}

impl Window {
    /// Whether a SYN has it, in bytes: a window that is a multiple of several things is written as that of the first.
    fn is_of(self, syn: &Syn) -> bool {
        let (mss, window) = (u64::from(syn.mss), u64::from(syn.window));
        let mtu = mss + if syn.version == 4 { 40 } else { 60 };
        let bytes = match syn.window_unit {
            unit if unit == WindowUnit::Mss as u8 => window * mss,
            unit if unit == WindowUnit::Mtu as u8 => window * mtu,
            _ => window,
        };
        match self {
            Self::Bytes(asked) => u64::from(asked) == bytes,
            Self::Mss(times) => mss >= MSS_OF_MULTIPLES_MIN && u64::from(times) * mss == bytes,
            Self::Mtu(times) => mss >= MSS_OF_MULTIPLES_MIN && u64::from(times) * mtu == bytes,
        }
    }
}

impl Layout {
    fn is_of(&self, syn: &Syn) -> bool {
        let kinds = syn.layout.get(..usize::from(syn.options));
        kinds == Some(&self.kinds) && syn.padding_bytes == self.padding_bytes
    }
}

/// Reads a pattern.
pub(in crate::policy) fn parse(text: &str) -> Result<SynPattern, Issue> {
    read(text).map_err(|issue| {
        let plain = text.trim();
        let help = meant([plain.to_owned(), plain.to_lowercase(), format!("{plain}:*")], read);
        issue.better_help(help)
    })
}

fn read(text: &str) -> Result<SynPattern, Issue> {
    let fields: Vec<&str> = text.split(':').collect();
    let Ok([version, ttl, olen, mss, window, layout, quirks, payload]) = <[&str; 8]>::try_from(fields) else {
        return Err(Issue::new("not eight fields with `:` between them", EXPECTED));
    };
    let (window, scale) = match (window, window.split_once(',')) {
        ("*", _) => ("*", "*"),
        (_, Some(both)) => both,
        (_, None) => {
            return Err(wrong("window and its scale", window, "such as mss*44,7 or 64240,* or `*`"));
        }
    };
    let pattern = SynPattern {
        version: any_or(version, |text| match text {
            "4" => Ok(4),
            "6" => Ok(6),
            _ => Err(wrong("version of IP", text, "4, 6 or `*`")),
        })?,
        initial_ttl: any_or(ttl, initial_ttl)?,
        ip_options_bytes: any_or(olen, |text| number("length of the options of IP", text))?,
        mss: any_or(mss, |text| number("maximum segment size", text))?,
        window: any_or(window, self::window)?,
        scale: any_or(scale, |text| number("window scale", text))?,
        layout: any_or(layout, self::layout)?,
        quirks: any_or(quirks, self::quirks)?,
        payload: any_or(payload, |text| match text {
            "0" => Ok(false),
            "+" => Ok(true),
            _ => Err(wrong("class of the payload", text, "0 for none, + for some or `*`")),
        })?,
    };
    if pattern == SynPattern::default() {
        let help = "to limit every client, give the service a profile".to_owned();
        return Err(Issue::new("a pattern of every SYN", "at least one field that is not `*`").help(help));
    }
    let of_other = match pattern.version {
        Some(4) => QUIRKS_V6,
        Some(6) => QUIRKS_V4,
        _ => 0,
    };
    if let (Some(bits), Some(version)) = (pattern.quirks, pattern.version)
        && bits & of_other != 0
    {
        let expected = format!("quirks that a SYN over IPv{version} can have");
        return Err(Issue::new("quirks of the other version of IP", expected).found(found(quirks)));
    }
    Ok(pattern)
}

fn any_or<T>(text: &str, read: impl FnOnce(&str) -> Result<T, Issue>) -> Result<Option<T>, Issue> {
    if text == "*" { Ok(None) } else { read(text).map(Some) }
}

fn wrong(what: &str, text: &str, expected: impl Into<String>) -> Issue {
    Issue::new(format!("invalid {what}"), expected).found(found(text))
}

fn found(text: &str) -> String {
    format!("`{}`", quoted(text))
}

/// Digits alone, without zeros before them: what a SYN's text has.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain && (text == "0" || !text.starts_with('0')))
}

trait Bounded: FromStr {
    const MOST: u32;
}

impl Bounded for u8 {
    const MOST: u32 = u8::MAX as u32;
}

impl Bounded for u16 {
    const MOST: u32 = u16::MAX as u32;
}

fn number<T: Bounded>(what: &str, text: &str) -> Result<T, Issue> {
    digits(text).ok_or_else(|| wrong(what, text, format!("a number from 0 to {} or `*`", T::MOST)))
}

fn initial_ttl(text: &str) -> Result<u8, Issue> {
    if let Some(ttl) = digits(text).filter(|ttl| INITIAL_TTLS.contains(ttl)) {
        return Ok(ttl);
    }
    // What p0f writes of a SYN on its way: 57+7, or 64- where the way is not known.
    let seen = text.trim_end_matches('-').split_once('+').map_or(text.trim_end_matches('-'), |(ttl, _)| ttl);
    let initial = digits(seen).and_then(|seen: u8| INITIAL_TTLS.into_iter().find(|&ttl| ttl >= seen));
    let help = initial.map(|ttl| format!("write {ttl}, the hop limit that the packet started with"));
    Err(wrong("initial hop limit", text, "32, 64, 128, 255 or `*`").help(help))
}

fn window(text: &str) -> Result<Window, Issue> {
    let times = |prefix: &str| text.strip_prefix(prefix).and_then(digits).filter(|&times| times > 0);
    let read = digits(text).map(Window::Bytes);
    let read = read.or_else(|| times("mss*").map(Window::Mss)).or_else(|| times("mtu*").map(Window::Mtu));
    read.ok_or_else(|| wrong("window", text, "a number up to 65535, mss*N, mtu*N or `*`"))
}

fn layout(text: &str) -> Result<Layout, Issue> {
    let mut layout = Layout::default();
    if text.is_empty() {
        return Ok(layout);
    }
    let names = || OPTIONS.iter().map(|(_, name)| *name);
    for option in text.split(',') {
        if layout.kinds.last() == Some(&END) {
            return Err(wrong("layout of options", option, "nothing after the end of the options"));
        }
        let named = OPTIONS.iter().find(|(_, name)| *name == option).map(|(kind, _)| *kind);
        let padding = option.strip_prefix("eol+").and_then(digits::<u8>);
        let is_unnamed = |kind: &u8| *kind != END && OPTIONS.iter().all(|(known, _)| known != kind);
        let unnamed = || option.strip_prefix('?').and_then(digits).filter(is_unnamed);
        match (named.or_else(unnamed), padding) {
            (Some(kind), _) => layout.kinds.push(kind),
            (None, Some(padding_bytes)) => {
                layout.kinds.push(END);
                layout.padding_bytes = padding_bytes;
            }
            (None, None) => {
                let expected = "nop, mss, ws, sok, sack, ts, ?N for another kind, or eol+N";
                let help = synonym(option, &OPTION_SYNONYMS).or_else(|| did_you_mean(option, names()));
                return Err(wrong("option", option, expected).help(help));
            }
        }
    }
    if layout.kinds.len() > OPTION_BYTES_MAX || usize::from(layout.padding_bytes) >= OPTION_BYTES_MAX {
        return Err(wrong("layout of options", text, format!("options of at most {OPTION_BYTES_MAX} bytes")));
    }
    Ok(layout)
}

fn quirks(text: &str) -> Result<u64, Issue> {
    let mut bits = 0;
    for name in text.split(',').filter(|_| !text.is_empty()) {
        let Some(bit) = quirks::NAMES.iter().position(|known| *known == name) else {
            let expected = format!("quirks of p0f: {}", quirks::NAMES.join(", "));
            return Err(wrong("quirk", name, expected).help(did_you_mean(name, quirks::NAMES)));
        };
        bits |= 1 << bit;
    }
    Ok(bits)
}

/// As it is written: a field with a value, or `*`.
impl fmt::Display for SynPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn field(value: Option<impl fmt::Display>) -> String {
            value.map_or_else(|| "*".to_owned(), |value| value.to_string())
        }
        let quirks = self.quirks.map(|bits| {
            let names = quirks::NAMES.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
            names.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
        });
        write!(
            formatter,
            "{}:{}:{}:{}:{},{}:{}:{}:{}",
            field(self.version),
            field(self.initial_ttl),
            field(self.ip_options_bytes),
            field(self.mss),
            field(self.window),
            field(self.scale),
            field(self.layout.as_ref()),
            field(quirks),
            field(self.payload.map(|has_payload| if has_payload { "+" } else { "0" })),
        )
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(formatter, "{bytes}"),
            Self::Mss(times) => write!(formatter, "mss*{times}"),
            Self::Mtu(times) => write!(formatter, "mtu*{times}"),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, kind) in self.kinds.iter().enumerate() {
            if place > 0 {
                formatter.write_str(",")?;
            }
            match OPTIONS.iter().find(|(known, _)| known == kind) {
                Some((_, name)) => formatter.write_str(name)?,
                None if *kind == END => write!(formatter, "eol+{}", self.padding_bytes)?,
                None => write!(formatter, "?{kind}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for SynPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).map_err(Issue::one_line)
    }
}

impl TryFrom<String> for SynPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SynPattern> for String {
    fn from(pattern: SynPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
#[path = "syn_tests.rs"]
mod tests;
