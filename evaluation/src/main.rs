//! Measures detection on scenarios.

use std::{env, fs, time::Instant};

use anyhow::{Context as _, Result};
use detector_fleets::{
    detection::{Detection, WINDOWS},
    observation::{Kind, Observation, ServiceId},
    source::Source,
};
use detector_generator::{Family, Row, Scenario};

fn observation(row: &Row, time_s: u64, span_s: u32) -> Result<Observation> {
    let source = match row.source.family {
        Family::V4 => Source::of_v4((row.source.address as u32).into()),
        Family::V6 => {
            let source = Source::of_v6(row.source.address.into());
            source.with_context(|| format!("{} is in ::/32, which is nobody's", row.source))?
        }
    };
    Ok(Observation {
        time_s,
        span_s,
        source,
        kind: Kind { service: ServiceId(row.service), syn_key: row.syn_key, tls_key: row.tls_key },
        packets: row.packets,
        bytes: row.bytes,
        dropped_packets: row.dropped_packets,
        connections: row.connections,
        handshakes: row.handshakes,
        exchanges: row.exchanges,
        request_sizes: row.request_sizes,
        response_sizes: row.response_sizes,
        rtt: row.rtt,
        hello_gap: row.hello_gap,
        finish_gap: row.finish_gap,
    })
}

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().context("a scenario")?;
    let seed: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let scenario = Scenario::from_toml(&fs::read_to_string(&path)?)?;
    let mut generation = detector_generator::generate(&scenario, seed);
    let mut detection = Detection::new(2_000_000, seed);
    let (mut rows, mut detecting) = (0_u64, 0.0);
    let mut start = 0;
    for epoch in generation.by_ref() {
        if start == 0 {
            start = epoch.time_s;
        }
        let began = Instant::now();
        let mut looks = detection.go_on_to(epoch.time_s);
        for row in &epoch.rows {
            rows += 1;
            looks.extend(detection.observe(&observation(row, epoch.time_s, epoch.span_s)?));
        }
        detecting += began.elapsed().as_secs_f64();
        for look in looks {
            let hours = (look.end_s - start) as f64 / 3600.0;
            let shown = look.findings.iter().filter(|finding| finding.is_alarm() || finding.total() > 12.0);
            for finding in shown {
                let evidence: Vec<String> = finding
                    .evidence
                    .iter()
                    .map(|one| {
                        format!(
                            "{} {:.1} ({:.2}/{:.2})",
                            one.family.name(),
                            one.log_factor,
                            one.observed,
                            one.expected
                        )
                    })
                    .collect();
                println!(
                    "{hours:7.2} h {:2} h {} {:?}: {} of {:.0}, z {:.1}, {}, total {:.1}",
                    WINDOWS[look.window].intervals / 4,
                    if finding.is_alarm() { "ALARM" } else { "     " },
                    finding.cell.common,
                    finding.sources,
                    finding.expected_sources,
                    finding.z,
                    evidence.join(", "),
                    finding.total()
                );
            }
        }
    }
    let truth = generation.truth();
    for fleet in &truth.fleets {
        println!(
            "fleet {} {:?} from {:.2} h to {:.2} h, {} members, {} exchanges",
            fleet.name,
            fleet.level,
            (fleet.start_s - start) as f64 / 3600.0,
            (fleet.end_s - start) as f64 / 3600.0,
            fleet.members.len(),
            fleet.exchanges
        );
    }
    println!("{rows} rows, {detecting:.1} s to detect, {:.2} M rows a second", rows as f64 / detecting / 1e6);
    Ok(())
}
