//! Fingerprints as the program counts them.

use detector_common::{
    budget::TICKS_PER_NS,
    fingerprint::{Kind, Name, REGISTERS, TIME_BINS},
};

use super::entries::numbered_entries;
use crate::kernel::{maps::Maps, names};

/// A fingerprint at a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The number of its way.
    pub number: u32,
    /// What it is taken from.
    pub kind: Kind,
    /// Its key.
    pub key: u64,
    /// Number of the service.
    pub service: u16,
    /// SYNs that showed it, modulo 2^32; of a ClientHello 0.
    pub connections: u32,
    /// Handshakes that showed it, modulo 2^32.
    pub handshakes: u32,
    /// Packets of its connections while they were followed, counted where that ends; of an Initial 0.
    pub packets: u64,
    /// Distinct sources that showed it, to 6.5 %.
    pub sources: u64,
    /// What it is called; `None`: no exemplar of it came yet.
    pub name: Option<Name>,
    /// Sets of extensions that come and go of which an exemplar was sent, a bit for each; see
    /// [`detector_common::hello::Hello::variant`].
    pub variants: u64,
    /// When it was seen last, kernel time in ns.
    pub last_ns: u64,
    /// From the SYN to the client's first answer; a count for each [`detector_common::fingerprint::time_bin`].
    pub round_trip: [u32; TIME_BINS],
    /// From that answer to the end of the ClientHello.
    pub hello_delay: [u32; TIME_BINS],
    /// From the ClientHello to what the client says next.
    pub finish_delay: [u32; TIME_BINS],
}

/// Every fingerprint of the table, in the order of its ways.
pub fn fingerprints(maps: &Maps) -> impl Iterator<Item = Fingerprint> {
    numbered_entries(&maps.fingerprints).filter_map(|(number, way)| {
        let profile = maps.sightings.read(number as usize);
        let meta = way.meta();
        // The profile follows its entry a moment later.
        if profile.key != way.prefix {
            return None;
        }
        let kind = meta.kind()?;
        Some(Fingerprint {
            number,
            kind,
            key: profile.key,
            name: names::read(maps, number, kind, profile.key),
            service: meta.service(),
            connections: way.connections(),
            handshakes: way.packets(),
            packets: profile.segments,
            sources: distinct(&profile.sources),
            variants: profile.variants,
            last_ns: way.packets_tat / TICKS_PER_NS,
            round_trip: profile.round_trip,
            hello_delay: profile.hello_delay,
            finish_delay: profile.finish_delay,
        })
    })
}

/// Distinct sources of the registers of a [`detector_common::fingerprint::Sightings`] (Flajolet, Fusy, Gandouet & Meunier 2007,
/// figure 3; 56 bits of hash need no correction for many).
fn distinct(registers: &[u8; REGISTERS]) -> u64 {
    const M: f64 = REGISTERS as f64;
    let alpha = 0.7213 / (1.0 + 1.079 / M);
    let sum: f64 = registers.iter().map(|&register| (-f64::from(register)).exp2()).sum();
    let estimate = alpha * M * M / sum;
    let empty = registers.iter().filter(|&&register| register == 0).count();
    if estimate <= 2.5 * M && empty > 0 {
        // Few: by the registers that nobody has met (linear counting).
        return (M * (M / empty as f64).ln()).round() as u64;
    }
    estimate.round() as u64
}

#[cfg(test)]
mod tests {
    use detector_common::{
        fingerprint::register_of,
        hash::{Seed, keyed},
    };

    use super::*;

    #[test]
    fn sources_are_counted_within_the_error() {
        let mut squares = 0.0;
        const RUNS: u64 = 60;
        for run in 0..RUNS {
            let seed = Seed::new([run, 2 * run + 1, 0x9e37_79b9_7f4a_7c15 ^ run, 0xd134_2543_de82_ef95]);
            let mut registers = [0; REGISTERS];
            let mut seen = 0_u64;
            for count in [1_u64, 10, 100, 1_000, 25_000, 200_000] {
                for source in seen..count {
                    let (place, raised) = register_of(keyed(&seed, source << 32, 0x8001));
                    registers[place] = registers[place].max(raised);
                }
                seen = count;
                let error = (distinct(&registers) as f64 - count as f64) / count as f64;
                // Five deviations.
                assert!(error.abs() < 0.33, "{count} sources are said to be {}", distinct(&registers));
                squares += if count == 25_000 { error * error } else { 0.0 };
            }
        }
        let deviation = (squares / RUNS as f64).sqrt();
        assert!((0.04..0.09).contains(&deviation), "the error is {deviation}, not 6.5 %");
    }
}
