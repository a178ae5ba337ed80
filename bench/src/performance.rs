//! The report as tables for a terminal, as docs/performance.md, and as a chart. All figures come from the report.

use std::fmt::Write as _;

use crate::{
    report::{Decision, Pipeline, Report},
    targets::{self, TRAFFIC},
};

/// A table: its title, what it says, its header, its rows. Columns after the first are numbers where they look like one.
struct Section {
    title: &'static str,
    text: &'static str,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

fn sections(report: &Report) -> Vec<Section> {
    let all = [
        targets(report),
        decision(report),
        traffic(report),
        pipeline(report),
        exactness(report),
        flood(report),
        handshakes(report),
        snapshot(report),
        apply(report),
    ];
    all.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

/// All parts for a terminal.
pub(crate) fn tables(report: &Report) -> String {
    let section = |section: Section| {
        let numbers: Vec<_> = (1..section.header.len()).collect();
        let table = detector_user::commands::table(&section.header, &numbers, section.rows);
        format!("{}\n{table}\n", section.title)
    };
    sections(report).into_iter().map(section).collect::<Vec<_>>().join("\n")
}

/// The text of docs/performance.md.
pub(crate) fn markdown(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "# Performance\n\nWritten by `cargo xtask bench` from [performance.json](performance.json); do not edit.\n\n\
         {}, {} CPUs, last-level cache of {} MB, Linux {}, {}{}. Figures are medians of several runs in turn (A B C A B C …),\n\
         least and most beside them: other machines share the cores and the caches, so compare within a table only.\n\n\
         ![Nanoseconds a packet over a veth pair](performance.svg)\n",
        machine.processor,
        machine.cpus,
        machine.last_level_cache_bytes / 1_000_000,
        machine.kernel,
        machine.date,
        if report.quick { " (quick run)" } else { "" },
    );
    for Section { title, text: says, header, rows } in sections(report) {
        let _ = writeln!(text, "\n## {title}\n\n{says}\n");
        let _ = writeln!(text, "| {} |", header.join(" | "));
        let _ = writeln!(text, "|---{}|", "|--:".repeat(header.len() - 1));
        for row in rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
    }
    text
}

fn ns(value: f64) -> String {
    format!("{value:.0}")
}

fn ratio(value: f64, to: Option<f64>) -> String {
    to.filter(|to| *to > 0.0).map_or_else(String::new, |to| format!("{:.2}", value / to))
}

fn targets(report: &Report) -> Section {
    let figure = |value: f64| {
        if value.fract() == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
    };
    let rows = targets::targets(report).into_iter().map(|target| {
        let verdict = if target.is_met() {
            "holds".to_owned()
        } else if target.most > 0.0 {
            format!("missed by {:.0} %", (target.found / target.most - 1.0) * 100.0)
        } else {
            "missed".to_owned()
        };
        let why = if target.is_met() { String::new() } else { target.why };
        vec![target.what.to_owned(), figure(target.most), figure(target.found), verdict, why]
    });
    Section {
        title: "Targets",
        text: "What was meant to be reached before a line was written, and where it is missed, what stands in the way.",
        header: vec!["what", "at most", "found", "", "why"],
        rows: rows.collect(),
    }
}

fn decision(report: &Report) -> Section {
    let of = |row: &Decision, program: &str| {
        let same = |other: &&Decision| {
            other.program == program && other.traffic == row.traffic && other.sources == row.sources
        };
        report.decision.iter().find(same).map(|other| other.ns_median)
    };
    let mut compared: Vec<_> =
        report.decision.iter().filter(|row| row.traffic == TRAFFIC && row.rules == 0).collect();
    compared.sort_by_key(|row| row.sources);
    let rows = compared.into_iter().map(|row| {
        vec![
            row.program.clone(),
            row.sources.to_string(),
            ns(row.ns_median),
            ns(row.ns_min),
            ns(row.ns_max),
            ratio(row.ns_median, of(row, "array_read")),
            ratio(row.ns_median, of(row, "table_wait")),
            ratio(row.ns_median, of(row, "lru")),
        ]
    });
    Section {
        title: "One packet through one program",
        text: "`BPF_PROG_TEST_RUN` on one core, UDP over IPv4, ns a packet; the source is drawn at random for each packet, and the\n\
               draw is in every figure. `empty` returns; `array_read` reads one random line, which the processor does for several\n\
               packets at once; `array_wait` reads one and waits for it, as every verdict does that hangs on what was read; `table_wait`\n\
               does so where the lines are spread over as much memory as detector's table for so many sources has;\n\
               `array_add` adds to it atomically; `lru` is an LRU hash of token buckets, what most XDP limiters do.",
        header: vec!["program", "sources", "ns", "least", "most", "× array_read", "× table_wait", "× lru"],
        rows: rows.collect(),
    }
}

fn traffic(report: &Report) -> Section {
    let rows = report.decision.iter().filter(|row| row.traffic != TRAFFIC || row.rules > 0);
    let rows = rows.map(|row| {
        let [sources, rules] = [row.sources, row.rules].map(|number| number.to_string());
        let [median, min, max] = [row.ns_median, row.ns_min, row.ns_max].map(ns);
        vec![row.traffic.clone(), row.program.clone(), sources, rules, median, min, max]
    });
    Section {
        title: "The same by traffic and by number of rules",
        text: "Rules are source prefixes of one rule; the class of a known source stands in its entry, so their number is to make\n\
               no difference. `tcp4 client hello` is a segment as large as one, of a source without a handshake. Rows `beside`: the program\n\
               and the same as if nobody followed handshakes, in one run. The LRU hash asks for one word of an address, whatever\n\
               the frame.",
        header: vec!["traffic", "program", "sources", "source prefixes", "ns", "least", "most"],
        rows: rows.collect(),
    }
}

fn pipeline(report: &Report) -> Section {
    let detector = |row: &Pipeline| {
        let same =
            |other: &&Pipeline| other.receiver == crate::decision::DETECTOR && other.sources == row.sources;
        report.pipeline.iter().find(same).map(|other| other.ns_median)
    };
    let rows = report.pipeline.iter().map(|row| {
        vec![
            row.receiver.clone(),
            row.sources.to_string(),
            ns(row.ns_median),
            ns(row.ns_min),
            ns(row.ns_max),
            ratio(row.ns_median, detector(row)),
        ]
    });
    Section {
        title: "Over a veth pair",
        text: "Live frames with random sources from a generator over a veth pair into a receiver, all on one core, ns a packet,\n\
               generator and veth pair included (`xdp_drop` is their floor). Every receiver has one limit per source, which all\n\
               sources are over.",
        header: vec!["receiver", "sources", "ns", "least", "most", "× detector"],
        rows: rows.collect(),
    }
}

fn exactness(report: &Report) -> Section {
    let rows = report.exactness.iter().map(|row| {
        vec![
            format!("{}/s", row.per_second),
            row.burst.to_string(),
            format!("{:.2}", row.seconds),
            row.sent.to_string(),
            row.admitted.to_string(),
            row.bound_min.to_string(),
            row.bound_max.to_string(),
        ]
    });
    Section {
        title: "One source from two CPUs",
        text: "Two CPUs send one source as fast as they can. What GCRA admits is burst + rate × time; the last column allows one\n\
               packet and two steps of the clock more.",
        header: vec!["limit", "burst", "seconds", "sent", "admitted", "at least", "at most"],
        rows: rows.collect(),
    }
}

fn flood(report: &Report) -> Section {
    let rows = report.flood.scenes.iter().map(|row| {
        vec![
            row.family.clone(),
            format!("{}/s", row.per_second),
            row.spoofed_packets.to_string(),
            row.spoofed_without_entry.to_string(),
            row.wrongly_passed.to_string(),
            format!("{} of {}", row.limited_evicted, row.limited_sources),
            format!("{} of {}", row.wrongly_dropped, row.good_packets),
            format!("{} of {}", row.good_evicted, row.good_sources),
        ]
    });
    Section {
        title: "A spoofed flood",
        text: "A million packets in a virtual second from random sources, beside sources that send twice their limit and sources that\n\
               send half of it, in a table of the default size. Of IPv4 every packet has a source of its own; the 65,536 sources of\n\
               IPv6 lie inside one /48. With the limit of 2/s the flood keeps as many sources active as the table is made for. Who\n\
               loses an entry loses counters, and its budget only when that is full again anyway.",
        header: vec![
            "family",
            "limit",
            "spoofed packets",
            "without entry",
            "packets wrongly passed",
            "limited sources evicted",
            "good packets dropped",
            "good sources evicted",
        ],
        rows: rows.collect(),
    }
}

fn handshakes(report: &Report) -> Section {
    let rows = report.handshakes.iter().map(|row| {
        vec![
            row.hello.clone(),
            row.packets.to_string(),
            ns(row.ns_median),
            ns(row.ns_min),
            ns(row.ns_max),
            format!("{:.0}", 1e9 / row.ns_median),
        ]
    });
    Section {
        title: "TLS handshakes",
        text: "A new source each: SYN, the answer to the server's, the ClientHello, the first bytes after it. Nanoseconds of all packets of\n\
               one, each run by itself, so that the time to take the time is in them; and so many a second on one core.",
        header: vec!["ClientHello", "packets", "ns", "least", "most", "a second"],
        rows: rows.collect(),
    }
}

fn snapshot(report: &Report) -> Section {
    let with_range = |value: f64, [least, most]: [f64; 2]| format!("{value:.0} ({least:.0} to {most:.0})");
    let rows = report.snapshot.readers.iter().map(|row| {
        vec![
            row.way.clone(),
            row.sources.to_string(),
            format!("{:.1}", row.ms_median),
            format!("{:.1}", row.ms_min),
            format!("{:.1}", row.ms_max),
            with_range(row.packet_ns_alone, row.packet_ns_alone_range),
            with_range(row.packet_ns_beside, row.packet_ns_beside_range),
        ]
    });
    Section {
        title: "Reading the whole table",
        text: "Milliseconds of one core for one look at all sources; ns a packet on the other core with nobody reading and while\n\
               the first reads without pause. `batch`: `BPF_MAP_LOOKUP_BATCH` on a hash map of the same content.",
        header: vec!["way", "sources", "ms", "least", "most", "ns a packet alone", "beside the reader"],
        rows: rows.collect(),
    }
}

fn apply(report: &Report) -> Section {
    let rows = report.apply.changes.iter().map(|row| {
        vec![
            row.prefixes.to_string(),
            row.family.clone(),
            format!("{:.2}", row.seconds),
            format!("{:.2}", row.seconds_min),
            format!("{:.2}", row.seconds_max),
            row.packets.to_string(),
            row.misjudged.to_string(),
            format!("{:.0} MB", row.rules_bytes as f64 / 1e6),
            row.ten_prefixes_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
            row.ten_prefixes_ms.map_or_else(
                || "-".to_owned(),
                |_| format!("{:.1} to {:.1}", row.ten_prefixes_ms_range[0], row.ten_prefixes_ms_range[1]),
            ),
        ]
    });
    Section {
        title: "Replacing the policy",
        text: "From the parsed policy to the last word written, while another CPU sends without pause; a packet is misjudged that is\n\
               judged neither as the old policy says nor as the new one. The prefixes lie apart and are listed in no order.\n\
               The last two columns: an incident rule about ten prefixes is added beside that policy.",
        header: vec![
            "source prefixes",
            "family",
            "seconds",
            "least",
            "most",
            "packets meanwhile",
            "misjudged",
            "memory of the rules",
            "ten prefixes more, ms",
            "least to most",
        ],
        rows: rows.collect(),
    }
}

const WIDTH: usize = 760;
const LABELS: usize = 150;
const BAR: usize = 18;

/// The chart: the veth pipeline, one bar a receiver, grouped by number of sources.
pub(crate) fn chart(report: &Report) -> String {
    let mut sizes: Vec<_> = report.pipeline.iter().map(|row| row.sources).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let most = report.pipeline.iter().map(|row| row.ns_median).fold(1.0, f64::max);
    let mut bars = String::new();
    let machine = &report.machine;
    let _ = writeln!(
        bars,
        "<text x=\"8\" y=\"{}\">ns a packet over a veth pair: {}, Linux {}, {}</text>",
        BAR, machine.processor, machine.kernel, machine.date
    );
    let mut y = 2 * BAR;
    for size in sizes {
        let _ = writeln!(bars, "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{size} sources</text>", y + 13);
        y += BAR + 4;
        for row in report.pipeline.iter().filter(|row| row.sources == size) {
            let width = (row.ns_median / most * (WIDTH - LABELS - 80) as f64).round();
            let colour = if row.receiver == crate::decision::DETECTOR { "#2468b0" } else { "#9aa7b5" };
            let _ = writeln!(
                bars,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                 <rect x=\"{LABELS}\" y=\"{}\" width=\"{width}\" height=\"{}\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"{}\">{:.0} ns</text>",
                LABELS - 8,
                y + 13,
                row.receiver,
                y + 1,
                BAR - 3,
                LABELS as f64 + width + 6.0,
                y + 13,
                row.ns_median
            );
            y += BAR;
        }
        y += 10;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#ffffff\"/>\n{bars}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    /// What is rendered of the last report is what stands beside it; `DETECTOR_WRITE_DOCS=1` writes it anew.
    #[test]
    fn the_documents_are_what_the_report_says() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a document");
        let report: Report = serde_json::from_str(&read("performance.json")).expect("a report");
        for (name, text) in [("performance.md", markdown(&report)), ("performance.svg", chart(&report))] {
            if env::var_os("DETECTOR_WRITE_DOCS").is_some() {
                fs::write(folder.join(name), text).expect("a document is written");
            } else {
                assert!(read(name) == text, "docs/{name} is not what its report says");
            }
        }
    }
}
