//! What the lab shows: a table every second, sentences at the end.

use std::io::IsTerminal as _;

use super::account::{Line, Summary, Verdict};

/// How output looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    terminal: bool,
    colour: bool,
}

pub(super) const BOLD: &str = "1";
pub(super) const RED: &str = "31";
pub(super) const GREEN: &str = "32";

impl Style {
    /// Colour, and a table that is drawn over the last one, only where a person looks.
    pub(super) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Text in a colour.
    pub(super) fn paint(self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Whether a person looks.
    pub(super) const fn is_terminal(self) -> bool {
        self.terminal
    }

    /// What comes before a table: it takes the place of the last one.
    pub(super) fn fresh(self) -> &'static str {
        if self.terminal { "\x1b[H\x1b[2J" } else { "" }
    }
}

const HEADER: [&str; 9] =
    ["WHO", "SOURCE", "DOES", "OK", "FAILED", "PACKETS/S", "PASSED/S", "LIMITED/S", "SPENT BUDGET"];

/// Columns of text; the others hold numbers, to the right.
const TEXT: [bool; 9] = [true, true, true, false, false, false, false, false, true];

/// The table of a moment.
pub(super) fn table(style: Style, seconds: u64, lines: &[Line]) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(lines.iter().map(cells));
    let widths: [usize; 9] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = format!("{}\n", style.paint(BOLD, &format!("after {seconds} s")));
    for (number, row) in rows.iter().enumerate() {
        let line = number.checked_sub(1).and_then(|number| lines.get(number));
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let cell = pad(cell, widths[column], TEXT[column]);
            colour(style, line, column, cell)
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(line: &Line) -> [String; 9] {
    let (ok, failed) = match line.fared {
        Some((ok, failed)) => (number(ok), number(failed)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    [
        line.name.to_owned(),
        line.source.to_string(),
        line.does.to_owned(),
        ok,
        failed,
        number(line.packets),
        number(line.passed),
        number(line.limited),
        line.budget.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn pad(cell: &str, width: usize, is_text: bool) -> String {
    if is_text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
}

fn colour(style: Style, line: Option<&Line>, column: usize, cell: String) -> String {
    let Some(line) = line else { return style.paint(BOLD, &cell) };
    let failed = line.fared.is_some_and(|(_, failed)| failed > 0);
    match column {
        3 if line.is_client => style.paint(GREEN, &cell),
        4 if failed => style.paint(RED, &cell),
        7 | 8 if line.limited > 0 => style.paint(RED, &cell),
        _ => cell,
    }
}

/// A number with commas.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What happened, in sentences.
pub(super) fn sentences(style: Style, summary: &Summary) -> String {
    let requests: u64 = summary.clients.iter().map(|client| client.requests).sum();
    let failed: u64 = summary.clients.iter().map(|client| client.failed).sum();
    let limited: u64 = summary.clients.iter().map(|client| client.limited).sum();
    let mut text = format!(
        "\nIn {:.1} s, {} clients made {} requests: {} failed, {} of their packets were limited.\n",
        summary.seconds,
        summary.clients.len(),
        number(requests),
        number(failed),
        number(limited)
    );
    for client in &summary.clients {
        if let Some(complaint) = &client.complaint {
            text.push_str(&format!("  {}: {complaint}\n", client.source));
        }
    }
    for offender in &summary.offenders {
        text.push_str(&format!(
            "The {} ({}) {} {} {}: {} passed, {} packets were dropped. \
             Allowed are {} at once and {} a second, {} in {:.1} s.\n",
            offender.name,
            offender.source,
            if offender.unit == "packets" { "sent" } else { "asked for" },
            number(offender.sent),
            offender.unit,
            number(offender.passed),
            number(offender.limited),
            number(offender.burst as u64),
            number(offender.per_second as u64),
            number(offender.allowed.round() as u64),
            offender.seconds,
        ));
    }
    let (colour, verdict) = match summary.verdict {
        Verdict::Kept => {
            (GREEN, "The clients lost nothing, and every offender was cut to its limit.".to_owned())
        }
        Verdict::Broken => (RED, format!("This is not what the policy says: {}.", summary.faults.join("; "))),
    };
    text.push_str(&style.paint(colour, &verdict));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let line = |name, packets| Line {
            name,
            source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            does: "this",
            is_client: true,
            fared: None,
            packets,
            passed: 1,
            limited: 0,
            budget: None,
        };
        let style = Style { terminal: false, colour: false };
        let text = table(style, 3, &[line("short", 1_000_000), line("a longer name", 1)]);
        let rows: Vec<&str> = text.lines().skip(1).collect();
        let column = |row: &str, what: &str| row.find(what).expect("a cell");
        assert_eq!(column(rows[0], "SOURCE"), column(rows[1], "127"));
        assert_eq!(column(rows[1], "127"), column(rows[2], "127"));
        assert_eq!(column(rows[0], "PACKETS/S") + 9, column(rows[1], "1,000,000") + 9);
        assert!(!text.contains('\x1b') && text.lines().all(|row| row == row.trim_end()));
    }
}
