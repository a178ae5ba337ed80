//! What the product is to reach, against what a run found.

use crate::{
    decision::{DETECTOR, WITHOUT_HANDSHAKES},
    report::Report,
};

/// Sources of most targets: a table that no cache holds.
const MANY: u32 = 1 << 20;

/// Sources that caches hold.
const FEW: u32 = 1024;

/// Traffic that most of the decision part is about.
pub(crate) const TRAFFIC: &str = "udp4";

/// A bound, and what was found of it.
pub(crate) struct Target {
    /// What is bounded, and by what.
    pub(crate) what: &'static str,
    /// The bound.
    pub(crate) most: f64,
    /// What was found; the same unit.
    pub(crate) found: f64,
    /// Where the bound does not hold: what it would take.
    pub(crate) why: String,
}

impl Target {
    /// Whether the bound holds.
    pub(crate) fn is_met(&self) -> bool {
        self.found <= self.most
    }
}

/// The targets of the parts that were measured.
pub(crate) fn targets(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    targets.extend(decision(report).into_iter().flatten());
    targets.extend(pipeline(report).into_iter().flatten());
    targets.extend(exactness(report));
    targets.extend(flood(report));
    targets.extend(outside_handshakes(report));
    targets.extend(handshakes(report));
    targets.extend(snapshot(report).into_iter().flatten());
    targets.extend(apply(report));
    targets.extend(ten_prefixes(report));
    targets.extend(memory(report));
    targets
}

/// ns of a program at a number of sources, without rules.
fn ns(report: &Report, program: &str, sources: u32) -> Option<f64> {
    let is_it = |row: &&crate::report::Decision| {
        (row.program.as_str(), row.traffic.as_str(), row.sources, row.rules) == (program, TRAFFIC, sources, 0)
    };
    report.decision.iter().find(is_it).map(|row| row.ns_median)
}

fn decision(report: &Report) -> Option<Vec<Target>> {
    let detector = ns(report, DETECTOR, MANY)?;
    let [read, wait, lru, empty] =
        ["array_read", "table_wait", "lru", "empty"].map(|program| ns(report, program, MANY));
    let (read, wait, lru, empty) = (read?, wait?, lru?, empty?);
    let own = ns(report, DETECTOR, 1)? - empty;
    let floor = format!(
        "a packet that waits for one random line among as many pages takes {wait:.0} ns without any other work \
         (`table_wait`), and the program's own work, with one source, {own:.0} ns"
    );
    let of_rules = report.decision.iter().filter(|row| row.rules > 0);
    let rules = of_rules.map(|row| row.ns_median);
    let (least, most) = (rules.clone().fold(f64::MAX, f64::min), rules.fold(0.0, f64::max));
    Some(vec![
        Target {
            what: "decision at 1 M sources, × one random read that waits (`table_wait`)",
            most: 1.5,
            found: detector / wait,
            why: format!("1.5 × is {:.0} ns; {floor}", 1.5 * wait),
        },
        Target {
            what: "decision at 1 M sources, × reads that overlap (`array_read`)",
            most: 1.5,
            found: detector / read,
            why: format!(
                "the processor reads for several packets at once where no verdict hangs on what is read; {floor}"
            ),
        },
        Target {
            what: "decision at 1 M sources, × an LRU hash of token buckets",
            most: 0.45,
            found: detector / lru,
            why: format!("0.45 × is {:.0} ns; {floor}", 0.45 * lru),
        },
        Target {
            what: "decision at 1 k sources, ns more than an empty program",
            most: 70.0,
            found: ns(report, DETECTOR, FEW)? - ns(report, "empty", FEW)?,
            why: String::new(),
        },
        Target {
            what: "decision by number of source prefixes, most / least",
            most: 1.1,
            found: most / least,
            why: String::new(),
        },
    ])
}

fn pipeline(report: &Report) -> Option<Vec<Target>> {
    let of = |receiver: &str, sources: u32| {
        let is_it = |row: &&crate::report::Pipeline| row.receiver == receiver && row.sources == sources;
        report.pipeline.iter().find(is_it).map(|row| row.ns_median)
    };
    let detector = of(DETECTOR, MANY)?;
    let (nftables, hashlimit, lru, drop) =
        (of("nftables", MANY)?, of("hashlimit", MANY)?, of("lru", MANY)?, of("xdp_drop", MANY)?);
    let wait =
        ns(report, "table_wait", MANY).zip(ns(report, "empty", MANY)).map(|(wait, empty)| wait - empty);
    let why = |most: f64| {
        let floor = format!("{most:.0} ns are the bound; generator and veth pair alone take {drop:.0}");
        match wait {
            Some(wait) => format!(
                "{floor}, and waiting for one line of the table {wait:.0} more: {:.0} are left for everything the program \
                 does",
                most - drop - wait
            ),
            None => floor,
        }
    };
    let few = [1, FEW].into_iter().filter_map(|sources| of(DETECTOR, sources)).fold(0.0, f64::max);
    let row = |what, most: f64, other: f64| Target {
        what,
        most: 1.0 / most,
        found: detector / other,
        why: why(other / most),
    };
    Some(vec![
        Target { what: "veth pipeline at 1 M sources, ns", most: 450.0, found: detector, why: why(450.0) },
        Target { what: "veth pipeline at 1 and 1 k sources, ns", most: 300.0, found: few, why: why(300.0) },
        row("veth pipeline at 1 M sources, × an nftables dynamic set", 4.0, nftables),
        row("veth pipeline at 1 M sources, × iptables hashlimit", 3.0, hashlimit),
        row("veth pipeline at 1 M sources, × an LRU hash in XDP", 1.8, lru),
    ])
}

fn exactness(report: &Report) -> Option<Target> {
    let beyond = report.exactness.iter().map(|row| {
        row.admitted.saturating_sub(row.bound_max).max(row.bound_min.saturating_sub(row.admitted))
    });
    Some(Target {
        what: "packets beyond what GCRA gives one source on two CPUs, two clock steps and one packet allowed",
        most: 0.0,
        found: beyond.max()? as f64,
        why: String::new(),
    })
}

fn flood(report: &Report) -> Vec<Target> {
    let planned = "the flood alone is as many active sources as the table is made for, so some newcomers meet full sets, \
                   and a known source that is idle when its set fills up is one when it comes again";
    let sum = |of: fn(&crate::report::Scene) -> u64| report.flood.scenes.iter().map(of).sum::<u64>() as f64;
    if report.flood.scenes.is_empty() {
        return Vec::new();
    }
    vec![
        Target {
            what: "spoofed floods: packets of limited sources that passed beyond their limit",
            most: 0.0,
            found: sum(|row| row.wrongly_passed),
            why: String::new(),
        },
        Target {
            what: "spoofed floods: packets of well-behaved sources dropped",
            most: 0.0,
            found: sum(|row| row.wrongly_dropped),
            why: planned.to_owned(),
        },
    ]
}

/// What following handshakes costs the packets outside of them.
fn outside_handshakes(report: &Report) -> Option<Target> {
    let of = |program: &str, like: &crate::report::Decision| {
        let is_it = |row: &&crate::report::Decision| {
            (row.program.as_str(), &row.traffic, row.sources) == (program, &like.traffic, like.sources)
        };
        report.decision.iter().find(is_it).map(|row| row.ns_median)
    };
    let without = report.decision.iter().filter(|row| row.program == WITHOUT_HANDSHAKES);
    let costs = without.filter_map(|row| Some(of(DETECTOR, row)? - row.ns_median));
    Some(Target {
        what: "a packet outside of handshakes, ns more than if nobody followed them",
        most: 5.0,
        found: costs.reduce(f64::max)?,
        why: String::new(),
    })
}

fn handshakes(report: &Report) -> Option<Target> {
    let slowest = report.handshakes.iter().map(|row| row.ns_median).reduce(f64::max)?;
    Some(Target {
        what: "a TLS handshake from its SYN on, ns (200,000 a second on one core)",
        most: 5000.0,
        found: slowest,
        why: String::new(),
    })
}

fn snapshot(report: &Report) -> Option<Vec<Target>> {
    let row = report.snapshot.readers.iter().find(|row| row.way == "mapping")?;
    let ways = row.table_ways as f64 / 1e6;
    Some(vec![
        Target {
            what: "reading the table, ms a million ways",
            most: 20.0,
            found: row.ms_median / ways,
            why: String::new(),
        },
        Target {
            what: "packets beside a reader without pause, × alone",
            most: 1.05,
            found: row.packet_ns_beside / row.packet_ns_alone,
            why: "the reader takes memory bandwidth without pause; a daemon reads once a second".to_owned(),
        },
    ])
}

fn memory(report: &Report) -> [Target; 2] {
    let target = |what, most, found: u64| Target { what, most, found: found as f64, why: String::new() };
    let on_four_cpus = report.memory.bytes + 4 * report.memory.bytes_each_cpu;
    [
        target("memory of all maps at the default size on four CPUs, bytes", 100e6, on_four_cpus),
        target("memory of an entry of the source table, bytes", 64.0, report.memory.way_bytes),
    ]
}

fn apply(report: &Report) -> Option<Target> {
    Some(Target {
        what: "packets misjudged while policies change",
        most: 0.0,
        found: report.apply.changes.iter().map(|row| row.misjudged).reduce(|a, b| a + b)? as f64,
        why: String::new(),
    })
}

fn ten_prefixes(report: &Report) -> Option<Target> {
    let slowest = report.apply.changes.iter().filter_map(|row| row.ten_prefixes_ms).reduce(f64::max)?;
    Some(Target {
        what: "ten prefixes more beside a million, ms",
        most: 50.0,
        found: slowest,
        why: String::new(),
    })
}
