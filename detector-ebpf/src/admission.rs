//! Whether a handshake may go on: what the rules on fingerprints say of its client, then the budget of its source.

use detector_common::{
    budget::Budget,
    counters::TableEvent,
    fleet::rule_counter as fleet_counter,
    generation::Generation,
    limits::CLASSES_MAX,
    policy::{
        Action, Class, ClientRule, ClientRuleKey, Trait, client_rules, incident_tree, is_enforced, pair_place,
    },
    table::Key,
    verdict::{FIRST_DROP, Reason},
};

use crate::{
    account,
    atomic::{self, MapWord, word},
    charge::{self, Step},
    fleet,
    judge::Packed,
    maps::{CLIENT_RULES, PAIR_CLASSES, POLICIES, RULE_BUDGETS, SCRATCH},
    policy::class_of,
    source::{self, Table},
};

/// What is asked.
pub(crate) enum Asked {
    /// Whether a connection may begin, by the key of its SYN.
    Connection {
        /// 0: unknown.
        syn_key: u64,
    },
    /// Whether a handshake may go on whose ClientHello is complete, or will never be read.
    Handshake {
        /// Key of the SYN; 0: unknown.
        syn_key: u64,
        /// Key of the ClientHello; 0: unknown.
        tls_key: u64,
        /// The handshake has been charged to its source.
        is_charged: bool,
    },
}

/// Bits of what [`admit`] is asked; the last one: a part of the ClientHello has come.
const HANDSHAKE: u64 = 1;
const CHARGED: u64 = 2;
const PART: u64 = 4;

/// What [`admit`] answers besides 0, it may not go on, and 1.
const LATER: u64 = 2;

/// Whether it may. If not, the decision in the scratch says why; it also does where a rule or budget would refuse, but is not
/// enforced.
#[inline(always)]
pub(crate) fn admits(asked: Asked) -> bool {
    let (syn_key, tls_key, what) = match asked {
        Asked::Connection { syn_key } => (syn_key, 0, 0),
        Asked::Handshake { syn_key, tls_key, is_charged } => {
            (syn_key, tls_key, HANDSHAKE | if is_charged { CHARGED } else { 0 })
        }
    };
    ask(syn_key, tls_key, what) != 0
}

/// What [`charge_part`] says.
pub(crate) enum Part {
    /// It may not go on.
    Refused,
    /// It is charged, or need not be.
    Charged,
    /// It is charged with the rest.
    Uncharged,
}

/// Charges a handshake of which a part of the ClientHello has come: while its client pauses the program may forget it, and then it
/// would see no more of it. Where its key may allow it, that is waited for.
#[inline(always)]
pub(crate) fn charge_part(syn_key: u64) -> Part {
    match ask(syn_key, 0, HANDSHAKE | PART) {
        0 => Part::Refused,
        LATER => Part::Uncharged,
        _ => Part::Charged,
    }
}

/// As [`admit`], of a client whose keys go by the scratch: they would not find room in registers.
#[inline(always)]
fn ask(syn_key: u64, tls_key: u64, what: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 1 };
    atomic::store(word!(scratch, syn_key), syn_key);
    atomic::store(word!(scratch, tls_key), tls_key);
    admit(what)
}

/// A function of numbers with external linkage, so that the verifier walks it once. 0: it may not go on; or [`LATER`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit(what: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 1 };
    let (now, source_hash) = (atomic::load(word!(scratch, now)), atomic::load(word!(scratch, source_hash)));
    let generation = Generation(atomic::load(word!(scratch, generation)));
    let Packed { service, class: number, shadow, .. } =
        Packed::unpack(atomic::load(word!(scratch, decision)));
    let Some(class) = class_of(generation, number) else { return 1 };
    let is_handshake = what & HANDSHAKE != 0;
    if what & PART != 0 && may_allow(generation) {
        return LATER;
    }

    let [syn, tls] = [atomic::load(word!(scratch, syn_key)), atomic::load(word!(scratch, tls_key))];
    let keys = Keys { syn, tls, is_handshake };
    let rule_number = rule_of(generation, service, number, class, &keys, now);
    let mut of_rule = None;
    let mut refusal = Refusal { class: rule_number, rule_counter: 0, is_shadow: false };
    if rule_number != 0 {
        let Some(rule) = class_of(generation, rule_number) else { return 1 };
        refusal.rule_counter = rule.rule_counter;
        refusal.is_shadow = !is_enforced(source_hash, rule.enforced_percent);
        match rule.action {
            allow if allow == Action::Allow as u8 => return 1,
            deny if deny == Action::Deny as u8 => {
                if refusal.is_final(Reason::Fingerprint) {
                    return 0;
                }
            }
            _ => {
                if let Some((tat, budget)) = charged_by(rule, source_hash, is_handshake, now) {
                    let asked = charge::ask(tat, budget, budget.unit_cost(), now, Reason::FingerprintBudget);
                    if asked.is_ok() {
                        of_rule = Some((tat, budget));
                    } else if refusal.is_final(Reason::FingerprintBudget) {
                        return 0;
                    }
                }
            }
        }
    }

    if charge_fleet_of_client(Step::Ask as u64) == 0 {
        return 0;
    }

    let is_to_be_charged = is_handshake && what & CHARGED == 0 && class.action == Action::Limit as u8;
    if is_to_be_charged && class.handshakes.is_limited() {
        let budget = &class.handshakes;
        if let Some(tat) = own_budget(source_hash, 0, now)
            && charge::charge(tat, budget, budget.unit_cost(), now, Reason::Handshakes).is_err()
        {
            let refusal = Refusal { class: number, rule_counter: class.rule_counter, is_shadow: shadow != 0 };
            if refusal.is_final(Reason::Handshakes) {
                return 0;
            }
        }
    }
    if let Some((tat, budget)) = of_rule {
        // Another CPU may have spent the rest since it was asked. What the source has been charged stays charged.
        let charged = charge::charge(tat, budget, budget.unit_cost(), now, Reason::FingerprintBudget);
        if charged.is_err() && refusal.is_final(Reason::FingerprintBudget) {
            return 0;
        }
    }
    charge_fleet_of_client(Step::Charge as u64)
}

/// Asks or charges the fleet that a client at its ClientHello is of, by its keys; 0: it may not go on. Where there is no ClientHello, nothing.
/// The connection of a member was charged when it was asked for.
///
/// A function of numbers with external linkage, as [`admit`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn charge_fleet_of_client(step: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 1 };
    let (syn_key, tls_key) = (atomic::load(word!(scratch, syn_key)), atomic::load(word!(scratch, tls_key)));
    let (now, source_hash) = (atomic::load(word!(scratch, now)), atomic::load(word!(scratch, source_hash)));
    let generation = Generation(atomic::load(word!(scratch, generation)));
    let before = Packed::unpack(atomic::load(word!(scratch, decision)));
    let Some(class) = class_of(generation, before.class) else { return 1 };
    let is_limited = class.action == Action::Limit as u8 || class.action == Action::Count as u8;
    if tls_key == 0 || !is_limited || atomic::load(word!(scratch, fleet)) != 0 {
        return 1;
    }
    let slot = fleet::of_client(before.service, syn_key, tls_key, source_hash, now);
    if slot == 0 || fleet::charge_handshake(slot, now, Step::of(step as u8)).is_ok() {
        return 1;
    }
    let refusal = Refusal {
        class: before.class,
        rule_counter: fleet_counter(slot),
        is_shadow: !is_enforced(source_hash, class.enforced_percent),
    };
    !refusal.is_final(Reason::Fleet) as u64
}

/// Whose refusal it is.
struct Refusal {
    class: u16,
    rule_counter: u16,
    is_shadow: bool,
}

impl Refusal {
    /// Makes it the decision; whether it is enforced. What is not gives way to what was decided before, where that is a refusal.
    #[inline(always)]
    fn is_final(&self, reason: Reason) -> bool {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return false };
        let before = Packed::unpack(atomic::load(word!(scratch, decision)));
        if !self.is_shadow || (before.reason as usize) < FIRST_DROP {
            let decision = Packed {
                service: before.service,
                class: self.class,
                reason: reason as u8,
                shadow: self.is_shadow as u8,
                rule_counter: self.rule_counter,
            };
            atomic::store(word!(scratch, decision), decision.pack());
        }
        !self.is_shadow
    }
}

/// What is known of a client.
struct Keys {
    syn: u64,
    tls: u64,
    /// It is at its ClientHello, not at its SYN.
    is_handshake: bool,
}

/// The class of the rule on fingerprints that decides about a client, whose source has class `of_source`; 0: none does.
///
/// `defaults.allow` comes before all rules, an incident rule that allows the source too; then come incident rules on
/// fingerprints, a rule of the policy that allows the source, and the policy's rules on fingerprints.
#[inline(always)]
fn rule_of(
    generation: Generation,
    service: u16,
    of_source: u16,
    class: &Class,
    keys: &Keys,
    now: u64,
) -> u16 {
    let is_allowed = class.action == Action::Allow as u8;
    if class.is_always_allowed() || is_allowed && of_source as usize >= CLASSES_MAX {
        return 0;
    }
    if let Some(slot) = generation.client_incidents() {
        let rule = rule_in(generation, incident_tree(slot), service, keys, now);
        if rule != 0 {
            return rule;
        }
    }
    let slot = generation.slot();
    let has_rules = POLICIES.get(slot).is_some_and(|header| header.client_rules != 0);
    if is_allowed || !has_rules { 0 } else { rule_in(generation, slot, service, keys, now) }
}

/// Whether there are rules that allow clients by their ClientHello.
#[inline(always)]
fn may_allow(generation: Generation) -> bool {
    let of_policy = POLICIES.get(generation.slot()).map_or(0, |header| header.client_rules);
    (of_policy | generation.incident_client_rules()) & client_rules::ALLOW_BY_HELLO != 0
}

/// That of one policy or set of incident rules. One that names both keys comes before one on the ClientHello. One on the SYN
/// has decided when that came: here it says no more than whether the handshake is allowed.
#[inline(always)]
fn rule_in(generation: Generation, tree: u32, service: u16, keys: &Keys, now: u64) -> u16 {
    let of_syn = client_rule(tree, service, Trait::Syn, keys.syn);
    let of_tls = client_rule(tree, service, Trait::Tls, keys.tls);
    let pairs = of_syn.pairs & of_tls.pairs;
    let mut number = 0;
    if pairs != 0 {
        let place = pair_place(tree, pairs.trailing_zeros());
        number = in_force(generation, PAIR_CLASSES.get(place).map_or(0, |&class| class as u16), now);
    }
    if number == 0 {
        number = in_force(generation, of_tls.class as u16, now);
    }
    if number != 0 {
        return number;
    }
    let number = in_force(generation, of_syn.class as u16, now);
    let is_decided = keys.is_handshake
        && class_of(generation, number).is_none_or(|class| class.action != Action::Allow as u8);
    if is_decided { 0 } else { number }
}

#[inline(always)]
fn client_rule(tree: u32, service: u16, of: Trait, key: u64) -> ClientRule {
    let none = ClientRule { pairs: 0, class: 0, reserved: 0 };
    if key == 0 {
        return none;
    }
    let key = ClientRuleKey::new(tree, service, of, key);
    // SAFETY: the daemon replaces whole values, and old ones live until this program has ended (RCU).
    unsafe { CLIENT_RULES.get(key) }.map_or(none, |rule| *rule)
}

/// The number of a class; 0 where its rule has ended.
#[inline(always)]
fn in_force(generation: Generation, number: u16, now: u64) -> u16 {
    match class_of(generation, number) {
        Some(class) if number != 0 && !class.has_ended(now) => number,
        _ => 0,
    }
}

/// What a rule that limits charges, and its state; `None`: it has no such budget, or no room for its state.
#[inline(always)]
fn charged_by(
    rule: &'static Class,
    source_hash: u64,
    is_handshake: bool,
    now: u64,
) -> Option<(MapWord, &'static Budget)> {
    let budget = if is_handshake { &rule.handshakes } else { &rule.connections };
    if !budget.is_limited() {
        return None;
    }
    let counter = rule.rule_counter;
    let tat = if rule.is_shared != 0 {
        MapWord(RULE_BUDGETS.get_ptr_mut(counter as u32)?)
    } else {
        own_budget(source_hash, counter, now)?
    };
    Some((tat, budget))
}

/// The state of a source's own budget; see [`Key::of_client_budget`].
#[inline(always)]
fn own_budget(source_hash: u64, scope: u16, now: u64) -> Option<MapWord> {
    let key = Key::of_client_budget(&source::seed(), source_hash, scope);
    let place = source::place_in(Table::ClientBudgets, &key)?;
    let Some(attempt) = source::enter(Table::ClientBudgets, &key, now) else {
        account::table_event(TableEvent::ClientBudgetsFull);
        return None;
    };
    Some(MapWord(word!(source::way(&place, attempt), packets_tat)))
}
