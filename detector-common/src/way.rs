//! One entry of a table, a way of its set: who it belongs to, its budgets, and what is counted.
//!
//! Ways are claimed by compare-and-swap on [`Way::meta`]; see [`Meta`] for the states.

use crate::{
    abi_struct,
    address::Address,
    budget::TICKS_PER_NS,
    fingerprint::Kind,
    limits::FLEET_SLOTS,
    table::Unit,
    verdict::{FIRST_DROP, REASONS, Reason},
};

pub(crate) const SERVICE_MASK: u64 = 0xfff;
pub(crate) const UNIT_SHIFT: u32 = 12;
pub(crate) const OCCUPIED: u64 = 1 << 15;
const TAG_MASK: u64 = 0xffff;
const CLASS_SHIFT: u32 = 16;
const CLASS_MASK: u64 = 0xfff;
const PENDING_SHIFT: u32 = 28;
const PENDING_MASK: u64 = 0xf;
const EPOCH_SHIFT: u32 = 32;
const EPOCH_MASK: u64 = 0x3_ffff;
const FLEET_SHIFT: u32 = 50;
const FLEET_MASK: u64 = FLEET_SLOTS as u64 - 1;
const GENERATION_SHIFT: u32 = 56;
/// The tag of a way that is changing hands: not occupied, and yet not empty.
const BUSY: u64 = 7 << UNIT_SHIFT;

/// One word of a way: who it belongs to and what the policy said of it.
///
/// | bits | meaning |
/// |---|---|
/// | 0–11 | service |
/// | 12–14 | unit; 7 without an occupied bit in a way that is changing hands |
/// | 15 | occupied |
/// | 16–27 | class |
/// | 28–31 | connections of a source that are in their handshake, see [`Self::pending`] |
/// | 32–49 | epoch of the policy that gave the class; 0: look it up for every packet |
/// | 50–55 | slot of the fleet that the source belongs to, see [`crate::fleet`]; 0: none |
/// | 56–63 | generation: changes with the owner, so that a swap by a CPU that saw an earlier owner fails |
///
/// A class is taken for current when its epoch equals the policy's. Epochs come again: an entry untouched through exactly 262,143 policies
/// would keep its class for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta(pub u64);

impl Meta {
    /// Whether the way belongs to the key's service and unit; the prefix is to be compared too.
    #[inline(always)]
    pub const fn has_tag(self, tag: u64) -> bool {
        self.0 & TAG_MASK == tag
    }

    /// Whether another CPU is giving the way to a new owner.
    #[inline(always)]
    pub const fn is_busy(self) -> bool {
        self.0 & TAG_MASK == BUSY
    }

    /// Whether the way has an owner.
    #[inline(always)]
    pub const fn is_occupied(self) -> bool {
        self.0 & OCCUPIED != 0
    }

    /// The class.
    #[inline(always)]
    pub const fn class(self) -> u16 {
        (self.0 >> CLASS_SHIFT & CLASS_MASK) as u16
    }

    /// Connections whose handshake is being followed; [`PENDING_MAX`] stands for so many or more.
    #[inline(always)]
    pub const fn pending(self) -> u32 {
        (self.0 >> PENDING_SHIFT & PENDING_MASK) as u32
    }

    /// The same owner with so many connections in their handshake.
    #[inline(always)]
    pub const fn with_pending(self, pending: u32) -> Self {
        Self(self.0 & !(PENDING_MASK << PENDING_SHIFT) | (pending as u64 & PENDING_MASK) << PENDING_SHIFT)
    }

    /// The epoch of the class.
    #[inline(always)]
    pub const fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT & EPOCH_MASK) as u32
    }

    /// The slot of the fleet that the source belongs to; 0: none.
    #[inline(always)]
    pub const fn fleet(self) -> u32 {
        (self.0 >> FLEET_SHIFT & FLEET_MASK) as u32
    }

    /// The same owner, of the fleet in a slot.
    #[inline(always)]
    pub const fn with_fleet(self, slot: u32) -> Self {
        Self(self.0 & !(FLEET_MASK << FLEET_SHIFT) | (slot as u64 & FLEET_MASK) << FLEET_SHIFT)
    }

    /// The service of the owner.
    pub const fn service(self) -> u16 {
        (self.0 & SERVICE_MASK) as u16
    }

    /// The unit of the owner's prefix; `None` in a way without owner.
    pub const fn unit(self) -> Option<Unit> {
        if !self.is_occupied() {
            return None;
        }
        Unit::from_number((self.0 >> UNIT_SHIFT & 7) as u8)
    }

    /// What the owner is a fingerprint of; `None` in a way without owner, and in other tables than that of fingerprints.
    pub const fn kind(self) -> Option<Kind> {
        if !self.is_occupied() {
            return None;
        }
        Kind::from_number((self.0 >> UNIT_SHIFT & 7) as u8)
    }

    /// The generation.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> GENERATION_SHIFT) as u8
    }

    /// The word while the way changes hands.
    #[inline(always)]
    pub const fn claimed(self) -> Self {
        Self((self.generation().wrapping_add(1) as u64) << GENERATION_SHIFT | BUSY)
    }

    /// The word of a new owner, from the claimed one.
    #[inline(always)]
    pub const fn owned(self, tag: u64, class: u16, epoch: u32) -> Self {
        Self(self.0 & 0xff << GENERATION_SHIFT | tag).with_class(class, epoch)
    }

    /// The word of the owner that a claimed way had, for which it was meant to be emptied.
    #[inline(always)]
    pub const fn returned(self, owner: Self) -> Self {
        Self(self.0 & 0xff << GENERATION_SHIFT | owner.0 & !(0xff << GENERATION_SHIFT))
    }

    /// The tag of the owner, see [`crate::table::Key::tag`].
    #[inline(always)]
    pub const fn tag(self) -> u64 {
        self.0 & TAG_MASK
    }

    /// The word of a way that its owner gives back.
    #[inline(always)]
    pub const fn released(self) -> Self {
        Self(self.0 & 0xff << GENERATION_SHIFT)
    }

    /// The same owner, of the same fleet, with another class.
    #[inline(always)]
    pub const fn with_class(self, class: u16, epoch: u32) -> Self {
        let kept = self.0 & !(CLASS_MASK << CLASS_SHIFT | EPOCH_MASK << EPOCH_SHIFT);
        Self(kept | (class as u64 & CLASS_MASK) << CLASS_SHIFT | (epoch as u64 & EPOCH_MASK) << EPOCH_SHIFT)
    }
}

/// As many connections in their handshake as a way counts.
pub const PENDING_MAX: u32 = PENDING_MASK as u32;

/// The highest epoch.
pub const EPOCH_MAX: u32 = EPOCH_MASK as u32;

/// The epoch after one; 0 never comes again.
pub const fn next_epoch(epoch: u32) -> u32 {
    if epoch >= EPOCH_MAX { 1 } else { epoch + 1 }
}

abi_struct! {
    /// One entry: a source, or a prefix around sources, at one service. One cache line.
    #[derive(Default)]
    pub struct Way: 64 {
        /// The owner's prefix, left-aligned.
        pub prefix: u64,
        /// See [`Meta`].
        pub meta: u64,
        /// Theoretical arrival time of the packet budget, ticks. Without such a budget: when the last packet came.
        pub packets_tat: u64,
        /// Theoretical arrival time of the byte budget, ticks.
        pub bytes_tat: u64,
        /// Theoretical arrival time of the connection budget, ticks.
        pub connections_tat: u64,
        /// In a parent's entry the theoretical arrival time of the budget of new sources, ticks. In a source's the
        /// [`Refusal`] of its last packet that was refused, 0: none was.
        pub special_tat: u64,
        /// Packets seen in the lower half, bytes in the upper: one addition counts both. Both wrap; every 2^32 packets
        /// carry one byte over.
        pub traffic: u64,
        /// Packets refused in the lower half, whether they were dropped or would have been, had the mode been `enforce` for
        /// the source; new connections seen in the upper. Both wrap, as above.
        pub outcomes: u64,
    }
}

impl Way {
    /// The newest of the times: when the way is, or was, idle. A way is idle when this is not after now.
    #[inline(always)]
    pub const fn busy_until(&self) -> u64 {
        let (a, b) = (self.packets_tat, self.bytes_tat);
        let (c, d) = (self.connections_tat, self.special_tat);
        let first = if a > b { a } else { b };
        let second = if c > d { c } else { d };
        if first > second { first } else { second }
    }

    /// The meta word.
    pub const fn meta(&self) -> Meta {
        Meta(self.meta)
    }

    /// Packets seen since the way changed hands, modulo 2^32.
    pub const fn packets(&self) -> u32 {
        traffic_packets(self.traffic)
    }

    /// Bytes seen since the way changed hands, modulo 2^32.
    pub const fn bytes(&self) -> u32 {
        (self.traffic >> 32) as u32
    }

    /// Packets refused since the way changed hands, modulo 2^32; see [`Self::outcomes`].
    pub const fn refused(&self) -> u32 {
        self.outcomes as u32
    }

    /// The last refusal of a source; `None`: no packet was refused since the way changed hands.
    pub const fn last_refusal(&self) -> Option<Refusal> {
        if self.special_tat == 0 { None } else { Some(Refusal(self.special_tat)) }
    }

    /// New connections seen since the way changed hands, modulo 2^32.
    pub const fn connections(&self) -> u32 {
        (self.outcomes >> 32) as u32
    }

    /// The owner's prefix as an address; `None` in a way without owner.
    pub const fn owner(&self) -> Option<(Address, Unit)> {
        let Some(unit) = self.meta().unit() else { return None };
        let high = self.prefix & crate::address::mask(unit.length());
        Some((Address { family: unit.family(), high, low: 0 }, unit))
    }
}

/// The last refusal of a source, in one word: when, in ticks, and in the lowest four bits, in which a time in ticks has
/// nothing, the reason as its distance from the first one to drop. A nanosecond early, so that it is never after now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub u64);

impl Refusal {
    /// A packet that was refused at a time, in ticks, for a reason to drop.
    #[inline(always)]
    pub const fn new(now: u64, reason: u8) -> Self {
        Self((now & !15).saturating_sub(16) | (reason as u64).wrapping_sub(FIRST_DROP as u64) & 15)
    }

    /// When, in ticks.
    pub const fn at(self) -> u64 {
        self.0 & !15
    }

    /// Why; `None` for a number that is no reason's.
    pub const fn reason(self) -> Option<Reason> {
        Reason::from_number((self.0 & 15) as u8 + FIRST_DROP as u8)
    }
}

const _: () = assert!(REASONS - FIRST_DROP <= 16, "the reasons to drop fit four bits");
const _: () = assert!(TICKS_PER_NS == 16, "the lowest four bits of a time are 0");

/// What one packet adds to [`Way::traffic`].
#[inline(always)]
pub const fn traffic_of(bytes: u32) -> u64 {
    (bytes as u64) << 32 | 1
}

/// The packets in such a word, modulo 2^32.
#[inline(always)]
pub const fn traffic_packets(traffic: u64) -> u32 {
    traffic as u32
}

/// What one packet adds to [`Way::outcomes`].
#[inline(always)]
pub const fn outcomes_of(refused: bool, connection: bool) -> u64 {
    (connection as u64) << 32 | refused as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Key;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_is_never_after_now_and_keeps_its_reason() {
        for &reason in Reason::ALL.iter().skip(FIRST_DROP) {
            let now = crate::budget::ticks(3_600_000_000_000);
            let refusal = Refusal::new(now, reason as u8);
            assert_eq!((refusal.reason(), refusal.at()), (Some(reason), now - 16));
            assert!(refusal.0 < now, "it holds no way");
        }
    }

    #[test]
    fn epochs_never_return_to_zero() {
        assert_eq!((next_epoch(0), next_epoch(1), next_epoch(EPOCH_MAX)), (1, 2, 1));
    }

    proptest! {
        #[test]
        fn meta_keeps_its_fields_apart(word in any::<u64>(), class in 0_u16..4096, epoch in 0_u32..=EPOCH_MAX, service in 0_u16..4096) {
            let key = Key::new(Address::v4([198, 51, 100, 7]), Unit::V4Source, service);
            let claimed = Meta(word).claimed();
            prop_assert!(claimed.is_busy() && !claimed.is_occupied() && !claimed.has_tag(key.tag));
            prop_assert_eq!(claimed.generation(), Meta(word).generation().wrapping_add(1));
            let owned = claimed.owned(key.tag, class, epoch);
            prop_assert!(owned.has_tag(key.tag) && owned.is_occupied() && !owned.is_busy());
            prop_assert_eq!((owned.class(), owned.epoch(), owned.service()), (class, epoch, service));
            prop_assert_eq!(owned.generation(), claimed.generation());
            prop_assert_eq!(owned.unit(), Some(Unit::V4Source));
            let returned = owned.claimed().returned(owned);
            prop_assert_eq!(returned.0 << 8, owned.0 << 8, "all but the generation");
            prop_assert_ne!(returned.generation(), owned.generation());
            prop_assert_eq!(returned.tag(), key.tag);
            for kind in [Kind::Tls, Kind::Syn, Kind::Initial] {
                let of_client = claimed.owned(Key::of_fingerprint(kind, word, service).tag, 0, 0);
                prop_assert!(of_client.is_occupied() && !of_client.is_busy());
                prop_assert_eq!((of_client.kind(), of_client.unit(), of_client.service()), (Some(kind), None, service));
            }
            let of_fleet = owned.with_fleet(word as u32 % 64);
            prop_assert_eq!((owned.fleet(), of_fleet.fleet(), of_fleet.with_fleet(0)), (0, word as u32 % 64, owned));
            prop_assert_eq!((of_fleet.class(), of_fleet.epoch(), of_fleet.generation()), (class, epoch, owned.generation()));
            prop_assert_eq!(of_fleet.claimed().fleet(), 0, "a new owner is of no fleet");
            let other = of_fleet.with_class(class ^ 1, next_epoch(epoch));
            prop_assert_eq!(other.fleet(), of_fleet.fleet());
            prop_assert!(other.has_tag(key.tag));
            prop_assert_eq!((other.class(), other.epoch()), (class ^ 1, next_epoch(epoch)));
        }
    }
}
