//! Source prefixes as ranges of addresses in a static B-tree: what the most specific prefix says, in a few cache lines.
//!
//! Prefixes are cut into ranges that do not overlap, each with the value of the longest prefix around it. A range is
//! known by its first address, its *key*; a range ends where the next one begins. The keys stand in sorted order in a
//! B-tree without pointers: child *c* of node *n* is node *n* × (keys + 1) + *c* + 1 (Khuong & Morin, "Array Layouts for
//! Comparison-Based Searching", 2017). The daemon builds the nodes and maps them in; nothing is inserted or removed.
//!
//! A million prefixes are two million ranges at most: six nodes of one line of keys and one of values for IPv4.

use core::borrow::Borrow;

use crate::{
    abi_struct,
    branchless::{bounded, is_equal, is_less},
    limits::{KEYS_V4, KEYS_V6, LEVELS_MAX},
};

abi_struct! {
    /// A node of the ranges of IPv4. Unused keys at the end are the highest there is, with the value of the last range.
    #[derive(Default)]
    pub struct NodeV4: 128 {
        /// First addresses of ranges, ascending; the last element is no key.
        pub keys: [u32; KEYS_V4 + 1],
        /// What they say; the last element is unused.
        pub values: [u32; KEYS_V4 + 1],
    }
}

abi_struct! {
    /// A node of the ranges of IPv6, as [`NodeV4`].
    #[derive(Default)]
    pub struct NodeV6: 160 {
        /// Upper halves of the first addresses.
        pub highs: [u64; KEYS_V6 + 1],
        /// Lower halves.
        pub lows: [u64; KEYS_V6 + 1],
        /// What they say; the last element is unused.
        pub values: [u32; KEYS_V6 + 1],
    }
}

/// A node of either family.
pub trait Node: Copy {
    /// The first address of a range.
    type Key: Copy + Ord;
    /// The highest of them.
    const HIGHEST: Self::Key;
    /// Keys of a node; one less than a power of two.
    const KEYS: usize;

    /// How many keys of the node are not above `key`.
    fn rank(&self, key: Self::Key) -> usize;
    /// The value of a range, by its place in the node.
    fn value(&self, place: usize) -> u32;
    /// Puts a range at its place in the node.
    fn put(&mut self, place: usize, key: Self::Key, value: u32);
}

impl Node for NodeV4 {
    type Key = u32;
    const HIGHEST: u32 = u32::MAX;
    const KEYS: usize = KEYS_V4;

    #[inline(always)]
    fn rank(&self, key: u32) -> usize {
        let mut rank = 0_u64;
        let mut step = KEYS_V4.div_ceil(2) as u64;
        while step > 0 {
            let above = is_less(key as u64, self.keys[bounded::<KEYS_V4>(rank + step - 1)] as u64);
            rank += step & !above;
            step /= 2;
        }
        rank as usize
    }

    #[inline(always)]
    fn value(&self, place: usize) -> u32 {
        self.values[bounded::<KEYS_V4>(place as u64)]
    }

    fn put(&mut self, place: usize, key: u32, value: u32) {
        self.keys[place] = key;
        self.values[place] = value;
    }
}

impl Node for NodeV6 {
    type Key = (u64, u64);
    const HIGHEST: (u64, u64) = (u64::MAX, u64::MAX);
    const KEYS: usize = KEYS_V6;

    #[inline(always)]
    fn rank(&self, (high, low): (u64, u64)) -> usize {
        let mut rank = 0_u64;
        let mut step = KEYS_V6.div_ceil(2) as u64;
        while step > 0 {
            let place = bounded::<KEYS_V6>(rank + step - 1);
            let above = is_less(high, self.highs[place])
                | is_equal(high, self.highs[place]) & is_less(low, self.lows[place]);
            rank += step & !above;
            step /= 2;
        }
        rank as usize
    }

    #[inline(always)]
    fn value(&self, place: usize) -> u32 {
        self.values[bounded::<KEYS_V6>(place as u64)]
    }

    fn put(&mut self, place: usize, (high, low): (u64, u64), value: u32) {
        self.highs[place] = high;
        self.lows[place] = low;
        self.values[place] = value;
    }
}

/// The value of the range around a key; `default` where no range begins at or before it. `node` gives the node of a number,
/// `None` beyond the last.
#[inline(always)]
pub fn find<N: Node, B: Borrow<N>>(node: impl Fn(u32) -> Option<B>, key: N::Key, default: u32) -> u32 {
    let (mut number, mut value) = (0_u32, default);
    for _ in 0..LEVELS_MAX {
        let Some(node) = node(number) else { break };
        let node: &N = node.borrow();
        let rank = node.rank(key);
        if rank > 0 {
            // Ranges further down begin later, and not above the key either.
            value = node.value(rank - 1);
        }
        number = number.wrapping_mul(N::KEYS as u32 + 1).wrapping_add(rank as u32 + 1);
    }
    value
}
