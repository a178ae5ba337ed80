//! One decision for each packet: what happens to it and why.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::trace;
use detector_common::{
    budget::Budget,
    fleet::rule_counter,
    limits::{OVERFLOW_BUDGETS, OVERFLOW_SOURCES},
    packet::Packet,
    policy::{Action, Class, is_enforced},
    table::{Key, Unit},
    verdict::Reason,
    way::Way,
};

use crate::{
    atomic::MapWord,
    charge::{self, Demand, Step},
    fleet,
    maps::OVERFLOW,
    parent::{self, Around, Purpose},
    policy::{Classification, Policy},
    source::{self, Created, Found, Owner, Place, Table},
};

/// What was decided of a packet.
pub(crate) struct Decision<'a> {
    /// The reason, and with it the verdict.
    pub(crate) reason: Reason,
    /// The policy says: count only.
    pub(crate) shadow: bool,
    /// The service; 0: none.
    pub(crate) service: u16,
    /// The class of the source; 0: none was asked for.
    pub(crate) class: u16,
    /// Where drops of the class's rule are counted; 0: nowhere.
    pub(crate) rule_counter: u16,
    /// The packet, where the frame could be read.
    pub(crate) packet: Option<&'a Packet>,
    /// The source's entry, where it has one.
    pub(crate) way: Option<*mut Way>,
}

impl<'a> Decision<'a> {
    /// A frame that is not to be judged.
    #[inline(always)]
    pub(crate) fn unjudged(reason: Reason) -> Self {
        Self { reason, shadow: false, service: 0, class: 0, rule_counter: 0, packet: None, way: None }
    }

    /// A packet before the first policy.
    #[inline(always)]
    pub(crate) fn no_policy(packet: &'a Packet) -> Self {
        Self { packet: Some(packet), ..Self::unjudged(Reason::NoPolicy) }
    }
}

/// The numbers of a decision in one word, for functions that are not inlined.
pub(crate) struct Packed {
    /// The service.
    pub(crate) service: u16,
    /// The class.
    pub(crate) class: u16,
    /// The reason.
    pub(crate) reason: u8,
    /// 1: count only.
    pub(crate) shadow: u8,
    /// See [`Decision::rule_counter`].
    pub(crate) rule_counter: u16,
}

impl Decision<'_> {
    /// See [`Packed`].
    #[inline(always)]
    pub(crate) fn pack(&self) -> u64 {
        let (reason, shadow) = (self.reason as u8, self.shadow as u8);
        let Self { service, class, rule_counter, .. } = *self;
        Packed { service, class, reason, shadow, rule_counter }.pack()
    }
}

impl Packed {
    /// The word.
    #[inline(always)]
    pub(crate) fn pack(&self) -> u64 {
        self.service as u64
            | (self.class as u64) << 16
            | (self.reason as u64) << 32
            | (self.shadow as u64) << 40
            | (self.rule_counter as u64) << 48
    }

    /// The numbers of [`Decision::pack`].
    #[inline(always)]
    pub(crate) fn unpack(word: u64) -> Self {
        Self {
            service: word as u16,
            class: (word >> 16) as u16,
            reason: (word >> 32) as u8,
            shadow: (word >> 40) as u8,
            rule_counter: (word >> 48) as u16,
        }
    }
}

/// Judges a packet by a policy.
#[inline(always)]
pub(crate) fn judge<'a>(
    ctx: &XdpContext,
    policy: &Policy,
    packet: &'a Packet,
    bytes: u32,
    now: u64,
) -> Decision<'a> {
    let Some(service) = policy.service(packet) else {
        return Decision { packet: Some(packet), ..Decision::unjudged(Reason::NoService) };
    };
    let undecided = Decision { service, packet: Some(packet), ..Decision::unjudged(Reason::Unjudged) };
    let key = Key::new(packet.source, Unit::of_source(packet.source.family), service);
    let Some(place) = source::place(&key) else { return undecided };
    let demand = Demand { now, bytes, connection: packet.connection };
    let known = source::find(&place, &key);
    let kept = match &known {
        Some(Found { meta, .. }) if meta.epoch() == policy.epoch() => policy.class(meta.class()),
        _ => None,
    };
    let (classification, class) = match (&known, kept) {
        (Some(Found { meta, .. }), Some(class)) if !class.has_ended(now) => {
            (Classification { number: meta.class(), epoch: policy.epoch() }, class)
        }
        _ => {
            let Some(classification) = policy.classify(packet.source, service, place.hash, now) else {
                return undecided;
            };
            let Some(class) = policy.class(classification.number) else { return undecided };
            (classification, class)
        }
    };
    let decided = Decision {
        class: classification.number,
        rule_counter: class.rule_counter,
        shadow: !is_enforced(place.hash, class.enforced_percent),
        ..undecided
    };
    let way = match known {
        Some(found) => {
            refresh(&found, &classification);
            found.way
        }
        None => match admit(policy, packet, service, &place, &key, class, &classification, &demand) {
            Admission::Entry(way) => way,
            Admission::Refused => return Decision { reason: Reason::NewSources, ..decided },
            Admission::Full => {
                log_full(ctx, place.set_number);
                let shared = shared_budget(&place, class, &demand);
                let reason = without_entry(policy, packet, service, class, shared, &demand);
                return Decision { reason, ..decided };
            }
        },
    };
    match with_entry(policy, packet, service, class, way, &demand) {
        Reason::Fleet => {
            let rule_counter = rule_counter(source::meta(way).fleet());
            Decision { reason: Reason::Fleet, rule_counter, way: Some(way), ..decided }
        }
        reason => Decision { reason, way: Some(way), ..decided },
    }
}

/// Not inlined, for its stack. The call is pruned at load unless the program's log is asked for.
#[inline(never)]
fn log_full(ctx: &XdpContext, set: u32) {
    trace!(ctx, "set {} has no idle way", set);
}

/// Keeps a class that was looked up in the entry, unless it is there. One that must not be kept is written once, as a
/// class of epoch 0, which is nobody's.
#[inline(always)]
fn refresh(found: &Found, classification: &Classification) {
    let is_kept = found.meta.epoch() == classification.epoch
        && (classification.epoch == 0 || found.meta.class() == classification.number);
    if !is_kept {
        source::set_class(found.way, found.meta, classification.number, classification.epoch);
    }
}

/// What became of a source without an entry.
enum Admission {
    Entry(*mut Way),
    Refused,
    Full,
}

/// Gives a new source an entry, if the prefixes around it may bring one more. They pay when it has one.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined; a struct would only be taken apart again")]
fn admit(
    policy: &Policy,
    packet: &Packet,
    service: u16,
    place: &Place,
    key: &Key,
    class: &Class,
    classification: &Classification,
    demand: &Demand,
) -> Admission {
    let around = Around::new(policy, packet, service, class);
    let has_parents = parent::has_parents(class);
    if has_parents && around.step(Purpose::NewSource, Step::Ask, demand).is_err() {
        return Admission::Refused;
    }
    let Classification { number, epoch } = *classification;
    let owner = Owner { class: number, epoch, fleet: fleet::of_newcomer(key) };
    match source::create(Table::Sources, key, demand.now, owner) {
        Created::Made(attempt) => {
            if has_parents {
                // Refused only if another CPU spent the rest since it was asked; the entry is there all the same.
                let _ = around.step(Purpose::NewSource, Step::Charge, demand);
            }
            Admission::Entry(source::way(place, attempt))
        }
        Created::Met(attempt) => Admission::Entry(source::way(place, attempt)),
        Created::Full => Admission::Full,
    }
}

/// The verdict on a source with an entry.
#[inline(always)]
fn with_entry(
    policy: &Policy,
    packet: &Packet,
    service: u16,
    class: &Class,
    way: *mut Way,
    demand: &Demand,
) -> Reason {
    if class.action != Action::Limit as u8 {
        charge::stamp(way, demand.now);
        return match class.action {
            allow if allow == Action::Allow as u8 => Reason::Allowed,
            deny if deny == Action::Deny as u8 => Reason::Denied,
            _ => match fleet::charge(way, demand, Step::Both) {
                Ok(()) => Reason::Unlimited,
                Err(reason) => reason,
            },
        };
    }
    match charge(policy, packet, service, class, way, demand) {
        Ok(()) => Reason::Conforming,
        Err(reason) => reason,
    }
}

/// Asks the source's own budgets and its fleet's, then asks and charges those around it, then charges the others.
#[inline(always)]
fn charge(
    policy: &Policy,
    packet: &Packet,
    service: u16,
    class: &Class,
    way: *mut Way,
    demand: &Demand,
) -> Result<(), Reason> {
    let has_parents = parent::has_parents(class);
    if !has_parents && source::meta(way).fleet() == 0 {
        return charge::own(class, way, demand, Step::Both);
    }
    charge::own(class, way, demand, Step::Ask)?;
    fleet::charge(way, demand, Step::Ask)?;
    if has_parents {
        Around::new(policy, packet, service, class).ask_and_charge(Purpose::of(demand), demand)?;
    }
    fleet::charge(way, demand, Step::Charge)?;
    charge::own(class, way, demand, Step::Charge)
}

/// A budget, its state and what a packet costs of it.
#[derive(Clone, Copy)]
struct Shared<'a> {
    tat: MapWord,
    budget: &'a Budget,
    cost: u64,
}

/// The budget that sources without an entry share, as large as that of [`OVERFLOW_SOURCES`] with one: of connections for a packet that asks for
/// one, else of packets, else of bytes, whichever the class has.
#[inline(always)]
fn shared_budget<'a>(place: &Place, class: &'a Class, demand: &Demand) -> Option<Shared<'a>> {
    let is_connection = demand.connection && class.connections.is_limited();
    // No two classes share a word, nor do packets and connections: states of different rates do not mix.
    let word = place.set_number << 1 | is_connection as u32;
    let mask = (1 << (class.overflow_words_log2 & 31)) - 1;
    let word = class.overflow_first as u32 + (word & mask);
    let tat = MapWord(OVERFLOW.get_ptr_mut(word & (OVERFLOW_BUDGETS as u32 - 1))?);
    let (budget, cost) = if is_connection {
        (&class.connections, class.connections.unit_cost())
    } else if class.packets.is_limited() {
        (&class.packets, class.packets.unit_cost())
    } else if class.bytes.is_limited() {
        (&class.bytes, class.bytes.bytes_cost(demand.bytes))
    } else {
        return None;
    };
    // Rate and burst of so many sources.
    Some(Shared { tat, budget, cost: cost.div_ceil(OVERFLOW_SOURCES) })
}

/// The verdict on a source that found no way.
#[inline(always)]
fn without_entry(
    policy: &Policy,
    packet: &Packet,
    service: u16,
    class: &Class,
    shared: Option<Shared<'_>>,
    demand: &Demand,
) -> Reason {
    match class.action {
        allow if allow == Action::Allow as u8 => return Reason::Allowed,
        deny if deny == Action::Deny as u8 => return Reason::Denied,
        count if count == Action::Count as u8 => return Reason::Unlimited,
        _ => {}
    }
    if let Some(Shared { tat, budget, cost }) = shared
        && charge::ask(tat, budget, cost, demand.now, Reason::Overflow).is_err()
    {
        return Reason::Overflow;
    }
    if parent::has_parents(class) {
        let around = Around::new(policy, packet, service, class);
        if let Err(reason) = around.ask_and_charge(Purpose::of(demand), demand) {
            return reason;
        }
    }
    if let Some(Shared { tat, budget, cost }) = shared
        && charge::charge(tat, budget, cost, demand.now, Reason::Overflow).is_err()
    {
        return Reason::Overflow;
    }
    Reason::TableFull
}
