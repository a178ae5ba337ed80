//! How large everything can get.

/// Seconds that a block sums up: a quarter of an hour.
pub const INTERVAL_S: u64 = 15 * 60;

/// Intervals that are kept: a day.
pub const INTERVALS_MAX: usize = 96;

/// Blocks of one interval, at most and at least: as many as are left of [`BLOCKS_OF_DAY_MAX`], in these bounds. Beyond, a client that is not
/// among them yet is not counted in it, and that is told.
pub const BLOCKS_MAX: usize = 1 << 20;
/// See [`BLOCKS_MAX`].
pub const BLOCKS_MIN: usize = 1 << 16;

/// Blocks of all intervals that are kept: 670 MB. Of a million sources a day there are half as many.
pub const BLOCKS_OF_DAY_MAX: usize = 1 << 24;

/// Blocks of one interval whose clients came with [single packets only](crate::observation::Observation::is_bare): a flood of made-up addresses
/// neither fills the day nor has everybody forgotten who was seen before. Beyond, they are as those beyond [`BLOCKS_MAX`].
pub const BARE_BLOCKS_MAX: usize = 1 << 16;

/// Cells of a window that are counted: the largest, and each service as a whole. A cell takes 1.4 kB, and up to 22 windows wait half a day to be
/// learned from: 130 MB. Who makes up fingerprints makes as many cells as he likes.
pub const CELLS_MAX: usize = 1 << 12;

/// Kinds of client that are told apart: pairs of fingerprints at a service. Beyond, clients of new kinds are counted as of unknown
/// fingerprints.
pub const KINDS_MAX: usize = 1 << 20;

/// Kinds from which on those that nothing is kept of are forgotten, with each interval: fingerprints can be made up without end, and who
/// does that for a while must not have used up all numbers for ever.
pub const KINDS_KEPT: usize = KINDS_MAX / 4 * 3;

/// A source that was seen at a service longer ago than this is known there, not new.
pub const NEW_S: u64 = 24 * 3600;

/// A source that was not seen for so many days is forgotten.
pub const REMEMBERED_DAYS: u8 = 14;

/// Numbers of fleets that became part of another, which are kept with it.
pub const JOINED_MAX: usize = 64;

/// Places in the memory of sources for each that it is planned for, in hundredths: 20 M sources take 72 MB.
pub const PLACES_PER_SOURCE_HUNDREDTHS: u64 = 120;

/// Bins of histograms of sizes: bin *i* is [2^(6+i), 2^(7+i)) bytes, the first and the last one open.
pub const SIZE_BINS: usize = 16;

/// Bins of histograms of times: bin *i* is [2^(i−2), 2^(i−1)) ms, the first and the last one open.
pub const TIME_BINS: usize = 12;

/// New sources of a cell that is looked at, at least.
pub const SOURCES_OF_CELL_MIN: u32 = 25;

/// New sources of a cell that is counted, at least: less than of one that is looked at, so that what such a cell usually has is known when
/// it has more.
pub const SOURCES_COUNTED_MIN: u32 = 5;

/// Sources that a cell's own history has, at least, before it is taken for what is expected of the cell.
pub const SOURCES_OF_HISTORY_MIN: f64 = 60.0;

/// Windows that a cell's own history has, at least, before how much they vary is taken for what is expected of the cell.
pub const WINDOWS_OF_HISTORY_MIN: usize = 8;

/// Concentrations of past windows that are kept of a cell.
pub const CONCENTRATIONS: usize = 32;

/// Windows after which a cell's history is half forgotten.
pub const HALF_LIFE_WINDOWS: f64 = 28.0;

/// Cells that have a history, for each length of window. Beyond, the one that was not counted for longest is forgotten.
pub const HISTORIES_MAX: usize = 8192;

/// Profiles that are kept of windows in which nothing was found, for each length of window: 16 MB.
pub const CLEAN_PROFILES_MAX: usize = 1 << 20;

/// Such windows that are kept of a service, for each length of window.
pub const CLEAN_WINDOWS_MAX: usize = 24;

/// Cells of a look that are asked for members at a service: those with the most evidence.
pub const ALARMED_CELLS_MAX: usize = 64;

/// Fleets that are told apart in a look at a service.
pub const FLEETS_OF_LOOK_MAX: usize = 8;

/// Fleets that are kept. Beyond, the one that was not seen for longest is forgotten.
pub const FLEETS_MAX: usize = 256;

/// Members of all fleets. Beyond, newcomers are left out, and counted.
pub const MEMBERS_MAX: usize = 1 << 20;

/// Suspects of one fleet: the first by address.
pub const SUSPECTS_MAX: usize = 1 << 16;

/// A member that was not active for so long is none any more. Who comes once a day, at any time of it, comes again before that.
pub const MEMBER_S: u64 = 48 * 3600;

/// Pairs of fingerprints that are kept of a fleet: the most frequent.
pub const KINDS_OF_FLEET_MAX: usize = 64;

/// Pairs of fingerprints of a fleet of which it is said how they are used at the service: the most frequent.
pub const KEYS_OF_USAGE_MAX: usize = 8;
const _: () = assert!(KEYS_OF_USAGE_MAX <= KINDS_OF_FLEET_MAX);

/// ClientHellos of a source from which on it is taken for the address of many clients.
pub const SHARED_TLS_KEYS_MIN: u8 = 3;

/// The share of users that are taken for such addresses by their number of connections.
pub const BUSY_SHARE: f64 = 0.05;

/// Nor is a member taken for one that makes at most so many times the connections of half of the members: a fleet may well do more than users.
pub const BUSY_OF_MEMBERS: u16 = 4;

/// The share of a service's sources whose fingerprints are the top ones: those that are acted on by nobody's key alone.
pub const TOP_SHARE: f64 = 0.9;
