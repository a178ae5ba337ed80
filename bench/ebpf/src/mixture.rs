//! Frames of several groups of sources, mixed. Both sides read this file.

/// Groups of a mixture.
pub(crate) const GROUPS: usize = 3;

/// Each frame from another source: of IPv4 from anywhere, of IPv6 inside one /48, where they come again.
pub(crate) const SPOOFED: usize = 0;
/// The first group of known sources, who send in turn.
pub(crate) const FIRST: usize = 1;
/// The second.
pub(crate) const SECOND: usize = 2;

/// Known sources that a group can have.
pub(crate) const KNOWN_MAX: u64 = 1 << 16;

/// The destination port of the spoofed sources; the next ones belong to the known groups.
pub(crate) const FIRST_PORT: u16 = 8000;

/// What is mixed, and how far it is. Of words, so that it may be mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mixture {
    /// Frames of each group in a cycle.
    pub(crate) in_cycle: [u64; GROUPS],
    /// Sources of each known group, 1 to [`KNOWN_MAX`].
    pub(crate) known: u64,
    /// 1: the frame is IPv6.
    pub(crate) is_ipv6: u64,
    /// Frames of each group so far. Written by the program.
    pub(crate) sent: [u64; GROUPS],
    /// The place in the cycle. Written by the program.
    pub(crate) place: u64,
}

/// What tells the sources of a group apart: the IPv4 address, or the third and fourth part of an IPv6 address.
#[inline(always)]
pub(crate) const fn source_word(group: usize, number: u64, is_ipv6: bool) -> u32 {
    if group != SPOOFED {
        // 198.18.0.0/15, the block for measurements; 2001:db8:1::/48 and 2001:db8:2::/48.
        let first = if is_ipv6 { 0 } else { 0xc612_0000 - 0x1_0000 };
        return first + ((group as u32) << 16) + (number % KNOWN_MAX) as u32;
    }
    // MurmurHash3's finaliser: one number, one address.
    let mut word = number as u32;
    word = (word ^ word >> 16).wrapping_mul(0x85eb_ca6b);
    word = (word ^ word >> 13).wrapping_mul(0xc2b2_ae35);
    word ^= word >> 16;
    if is_ipv6 { 0xf_0000 | word & 0xffff } else { word }
}
