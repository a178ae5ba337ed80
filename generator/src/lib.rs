//! Simulated observations with known truth, to measure detection by. It shares no code with detection or with the program: the columns
//! of the observations are all that they have in common. Nothing that is measured on its rows says how well detection does on a real
//! network; no public labelled recording exists.
//!
//! ```
//! let scenario = detector_generator::Scenario::from_toml("days = 1\nscale = 0.01")?;
//! let mut generation = detector_generator::generate(&scenario, 7);
//! let epoch = generation.next().expect("a day has epochs");
//! assert_eq!(epoch.span_s, 60);
//! assert!(generation.truth().fleets.is_empty());
//! # Ok::<(), detector_generator::Error>(())
//! ```
//!
//! The way of a row: `scenario` (what is in it) → `population` (who: users, customers, fleets) → `visits` (when, planned a day ahead)
//! → `conversation` (connections and exchanges, `path` for their times, `software` for their keys) → `rows` (one for each set of keys)
//! → `limiter` → [`Epoch`]. Beside the rows it can be asked what is done ([`deed`]), which [`packets`] makes frames of. Randomness belongs to what it is drawn for (`random`).

mod conversation;
pub mod deed;
mod generation;
mod limiter;
pub mod packets;
pub mod parquet;
mod path;
mod population;
mod random;
mod row;
mod rows;
pub mod scenario;
mod software;
mod source;
mod time;
pub mod truth;
mod visits;

pub use generation::{Generation, generate};
pub use row::{DELAY_BINS, Epoch, Row, SIZE_BINS, delay_bin, size_bin};
pub use scenario::{Error, Scenario};
pub use source::{Family, Source};
pub use truth::Truth;
