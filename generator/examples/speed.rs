//! How many rows a second one core generates: `cargo run --release -p detector-generator --example speed -- SCENARIO.toml`.

use std::time::Instant;

use detector_generator::{Scenario, generate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which scenario? tests/scenarios has some")?;
    let scenario = Scenario::from_toml(&std::fs::read_to_string(path)?)?;
    let began = Instant::now();
    let generation = generate(&scenario, u64::from(scenario.seed));
    let made = began.elapsed();
    let rows: usize = generation.map(|epoch| epoch.rows.len()).sum();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{rows} rows in {seconds:.2} s: {:.2} M a second ({made:.0?} to make the populations)",
        rows as f64 / seconds / 1e6
    );
    Ok(())
}
