//! What is shown each second.

use super::{Story, account::Count};
use crate::lab::view::{BOLD, GREEN, RED, Style, number};

/// A moment.
pub(super) struct Moment<'a> {
    pub(super) story: &'a Story,
    /// Of people and of the actor: in all, and in the last second.
    pub(super) second: [(Count, Count); 2],
    pub(super) people: usize,
    /// What `detector fleets ID` says; empty: there is none.
    pub(super) explained: &'a str,
}

/// The table of a moment, and what detector says.
pub(super) fn table(style: Style, seconds: u64, moment: &Moment<'_>) -> String {
    let story = moment.story;
    let hours = story.now_min / 60.0;
    let head =
        format!("after {} min {:02} s: hour {hours:.1} of detection's time", seconds / 60, seconds % 60);
    let mut text = format!("{}{}\n", style.fresh(), style.paint(BOLD, &head));
    let header = format!(
        "{:<24}{:>8}{:>12}{:>10}{:>10}{:>10}",
        "WHO", "SOURCES", "ANSWERED/S", "FAILED/S", "ANSWERED", "FAILED"
    );
    text.push_str(&format!("{}\n", style.paint(BOLD, &header)));
    let names = [("people", moment.people), ("one actor, by exits", story.exits.len())];
    for ((name, sources), (all, last)) in names.into_iter().zip(moment.second) {
        let failed = format!("{:>10}", number(last.failed));
        let failed = if last.failed > 0 { style.paint(RED, &failed) } else { failed };
        text.push_str(&format!(
            "{name:<24}{:>8}{:>12}{failed}{:>10}{:>10}\n",
            number(sources as u64),
            number(last.answered),
            number(all.answered),
            number(all.failed),
        ));
    }
    text.push_str(&format!("{}\n", says(style, moment.story)));
    if !moment.explained.is_empty() {
        text.push_str(&format!("\n{}\n{}", style.paint(BOLD, "$ detector fleets ID"), moment.explained));
    }
    text
}

fn says(style: Style, story: &Story) -> String {
    let Story { now_min, learned, found, throttled, newcomers, .. } = *story;
    let ago = |at: f64| format!("{:.1} h ago", (now_min - at) / 60.0);
    match (learned, found, throttled, newcomers) {
        (None, ..) => {
            let until = story.told["services"][0]["learning_until"].as_str().unwrap_or("it is seen");
            format!("detector learns what is usual, until {until}")
        }
        (Some(at), None, ..) => format!("detector looks for fleets; one began to grow {}", ago(at)),
        (_, Some(at), None, _) => style.paint(RED, &format!("a fleet was found {}", ago(at))),
        (_, _, Some(at), None) => style.paint(GREEN, &format!("the fleet is throttled since {}", ago(at))),
        (_, _, Some(at), Some(more)) => style.paint(
            GREEN,
            &format!("the fleet is throttled since {}; exits that it never had came {}", ago(at), ago(more)),
        ),
    }
}
