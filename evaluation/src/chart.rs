//! The chart of docs/detection.md: precision and recall at 24 h by level, and how long an alarm takes.

use std::fmt::Write as _;

use crate::{document::Summary, figures::Figures, statistics::Mean, suite};

const WIDTH: f64 = 760.0;
const PANEL: f64 = 190.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 34.0;
const COLOURS: [&str; 2] = ["#2468b0", "#c26a1b"];

/// A logarithmic scale of times, from 10 minutes to a day.
const ALARM_MIN: f64 = 10.0;
const ALARM_MAX: f64 = 1440.0;

/// What a panel shows of a scenario.
type Value = fn(&Summary) -> Option<Mean>;

/// All panels: for each share of sources a column for each level.
pub(crate) fn chart(figures: &Figures) -> String {
    let mut body = String::new();
    let panels: [(&str, Value); 2] =
        [("precision at 24 h, %", |of| of.compared[1][0]), ("recall at 24 h, %", |of| of.compared[1][1])];
    for (number, (title, value)) in panels.into_iter().enumerate() {
        shares(&mut body, number as f64 * PANEL, title, figures, value);
    }
    alarms(&mut body, 2.0 * PANEL, figures);
    let height = 3.0 * PANEL + 34.0;
    let legend = height - 12.0;
    let _ = writeln!(
        body,
        "<circle cx=\"{LEFT}\" cy=\"{}\" r=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{legend}\">a tenth of the daily sources</text>\
         <circle cx=\"300\" cy=\"{}\" r=\"4\" fill=\"{}\"/><text x=\"310\" y=\"{legend}\">a hundredth; bars: what the mean is within in 95 of 100 cases</text>",
        legend - 4.0,
        COLOURS[0],
        LEFT + 10.0,
        legend - 4.0,
        COLOURS[1]
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

/// Where the column of a level and share is.
fn column(level: usize, share: usize) -> f64 {
    let wide = (WIDTH - LEFT - 20.0) / suite::LEVELS.len() as f64;
    LEFT + wide * (level as f64 + 0.5) + if share == 0 { -10.0 } else { 10.0 }
}

/// The frame of a panel: its title, lines with what they stand for, and names of levels.
fn frame(body: &mut String, top: f64, title: &str, lines: &[(f64, String)]) {
    let _ = writeln!(body, "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{title}</text>", top + 18.0);
    for (y, label) in lines {
        let _ = writeln!(
            body,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#dfe4ea\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - 20.0,
            LEFT - 6.0,
            y + 4.0
        );
    }
    for (number, level) in suite::LEVELS.iter().enumerate() {
        let x = (column(number, 0) + column(number, 1)) / 2.0;
        let _ = writeln!(
            body,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top + PANEL - 2.0,
            level.to_uppercase()
        );
    }
}

/// Summaries by level and share.
fn summaries(figures: &Figures) -> impl Iterator<Item = (f64, usize, Summary)> {
    let all = suite::LEVELS.iter().enumerate().flat_map(|(number, level)| {
        suite::of_level(level).into_iter().enumerate().map(move |(share, name)| (number, share, name))
    });
    all.filter_map(|(number, share, name)| {
        let measured = figures.of(&name)?;
        Some((column(number, share), share, Summary::of_scenario(measured)))
    })
}

fn shares(body: &mut String, top: f64, title: &str, figures: &Figures, value: Value) {
    let height = PANEL - TOP - 20.0;
    let y = |share: f64| top + TOP + height * (1.0 - share.clamp(0.0, 1.0));
    let lines = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (y(share), format!("{:.0}", share * 100.0)));
    frame(body, top, title, &lines);
    for (x, share, summary) in summaries(figures) {
        let Some(Mean { mean, within }) = value(&summary) else { continue };
        let ([least, most], middle) = (within.unwrap_or([mean; 2]).map(y), y(mean));
        let colour = COLOURS[share];
        let _ = writeln!(
            body,
            "<line x1=\"{x:.1}\" y1=\"{most:.1}\" x2=\"{x:.1}\" y2=\"{least:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"4\" fill=\"{colour}\"/>"
        );
    }
}

fn alarms(body: &mut String, top: f64, figures: &Figures) {
    let height = PANEL - TOP - 20.0;
    let y = |minutes: f64| {
        let place = (minutes.clamp(ALARM_MIN, ALARM_MAX) / ALARM_MIN).ln() / (ALARM_MAX / ALARM_MIN).ln();
        top + TOP + height * (1.0 - place)
    };
    let lines = [10.0, 30.0, 120.0, 480.0, 1440.0].map(|minutes| (y(minutes), format!("{minutes:.0}")));
    frame(
        body,
        top,
        "minutes to the alarm: half of the seeds, and nine of ten (a logarithmic scale; none: never)",
        &lines,
    );
    for (x, share, summary) in summaries(figures) {
        let [half, most] = summary.alarm_min.map(|minutes| minutes.map(|minutes| y(minutes as f64)));
        if let Some(half) = half {
            let to = most.unwrap_or_else(|| y(ALARM_MAX));
            let _ = writeln!(
                body,
                "<line x1=\"{x:.1}\" y1=\"{half:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\" stroke=\"{0}\" stroke-width=\"2\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{half:.1}\" r=\"4\" fill=\"{0}\"/>",
                COLOURS[share]
            );
        }
    }
}
