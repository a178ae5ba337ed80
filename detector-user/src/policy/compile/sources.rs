//! Source prefixes: what the most specific one says for each service.
//!
//! A search answers with the longest prefix only, so each prefix carries what it inherits: it names a *selector*, a row
//! of one class for each service. A million prefixes of one rule share one selector.

use std::collections::{BTreeMap, HashMap};

use super::{CompileError, Place, ranges::Prefix};
use crate::policy::{Policy, RULES_MAX, SOURCE_BITS_V6, Service};
use detector_common::{
    address::{Address, Family, mask},
    limits::{ENDS_MAX, PREFIXES_MAX},
    policy::{Cell, RuleValue},
};

/// What [`compile`] makes.
pub(super) struct Sources {
    pub(super) cells: Vec<Cell>,
    /// Prefixes of IPv4, ordered by address and then by length.
    pub(super) v4: Vec<Prefix>,
    /// As `v4`.
    pub(super) v6: Vec<Prefix>,
}

/// Who gives classes: a policy, or incident rules.
pub(super) trait GivesClasses {
    /// The class of sources that `defaults.allow` names.
    fn allowed(&mut self) -> u16;

    /// The class of a service's sources that no rule names.
    fn of_service(&mut self, service: &Service) -> u16;

    /// The class of a service's sources that a rule names; `next`: their class when the rule has ended, 0 if it does not end.
    fn of_rule(&mut self, rule: usize, service: &Service, next: u16) -> u16;

    /// Among rules at equal prefixes the one with the least decides.
    fn precedence(&self, rule: usize) -> (u8, usize);

    /// When a rule ends on the program's clock, ticks: `None`, never; `Some(None)`, it has ended.
    fn end_of(&self, rule: usize) -> Option<Option<u64>>;
}

/// What stands at one prefix itself: rules by number, most important first, or `defaults.allow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Own {
    allowed: bool,
    rules: Vec<u16>,
}

/// A selector under construction: what stands at its prefix and the selector of the prefix around it.
type Lineage = (u32, u32);

/// The selector of sources that no prefix names, and the `Own` of prefixes that only divide.
const NOTHING: u32 = 0;

/// `cells_max`: how many cells there is room for.
pub(super) fn compile(
    policy: &Policy,
    numbers: &BTreeMap<String, u16>,
    classes: &mut impl GivesClasses,
    cells_max: usize,
) -> Result<Sources, CompileError> {
    let mut rows = Rows::new(policy, numbers, classes, cells_max);
    let v4 = compile_family(Family::V4, policy, &mut rows);
    let v6 = compile_family(Family::V6, policy, &mut rows);
    let most = v4.len().max(v6.len());
    if most > PREFIXES_MAX {
        return Err(CompileError {
            place: Place::Rule(policy.rules.len().saturating_sub(1)),
            message: "too many source prefixes",
            found: format!("{most} of one family"),
            expected: format!("at most {PREFIXES_MAX}"),
            help: "merge neighbouring prefixes, and leave out those inside others of the same rule"
                .to_owned(),
        });
    }
    match rows.too_many().or_else(|| rows.too_many_ends()) {
        Some(error) => Err(error),
        None => Ok(Sources { cells: rows.cells, v4, v6 }),
    }
}

/// What names a prefix: the number of a rule, or one above all of them.
type Namer = u16;
/// `defaults.allow`.
const ALLOW: Namer = u16::MAX;
const _: () = assert!(RULES_MAX <= ALLOW as usize);

fn compile_family<C: GivesClasses>(family: Family, policy: &Policy, rows: &mut Rows<'_, C>) -> Vec<Prefix> {
    // Ordered by address, then length: a prefix comes after those that contain it.
    let named = named_prefixes(family, policy);
    let mut compiled: Vec<Prefix> = Vec::with_capacity(named.len());
    let mut around: Vec<(Address, u8, u32)> = Vec::new();
    let (mut own_number, mut namers) = (NOTHING, Vec::new());
    let mut divided = None;
    for group in named.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (address, length, _) = group[0];
        while around.last().is_some_and(|&(outer, outer_length, _)| address.prefix(outer_length) != outer) {
            around.pop();
        }
        let parent = around.last().map_or(NOTHING, |&(_, _, selector)| selector);
        let source = address.prefix(SOURCE_BITS_V6);
        if length > SOURCE_BITS_V6 && divided != Some(source) {
            // The class depends on more than the source unit, which has to be known as a prefix for that. Where it is
            // named, it came last.
            compiled.pop_if(|last| (last.0, last.1) == (source, SOURCE_BITS_V6));
            compiled.push((source, SOURCE_BITS_V6, RuleValue::new(rows.first_cell(parent), false)));
            around.push((source, SOURCE_BITS_V6, parent));
            divided = Some(source);
        }
        // Lists of prefixes have the same namers for long.
        let same = namers.iter().copied().eq(group.iter().map(|&(.., namer)| namer));
        if !same {
            namers = group.iter().map(|&(.., namer)| namer).collect();
            own_number = rows.own(Own::of(&namers, rows.classes));
        }
        let selector = rows.selector(own_number, parent);
        around.push((address, length, selector));
        let cached = length <= SOURCE_BITS_V6;
        compiled.push((address, length, RuleValue::new(rows.first_cell(selector), cached)));
    }
    compiled
}

/// Every prefix of a family with what names it.
fn named_prefixes(family: Family, policy: &Policy) -> Vec<(Address, u8, Namer)> {
    let allowed = policy.allow.iter().map(|net| (net, ALLOW));
    let rules = policy.rules.iter().zip(0..);
    let rules = rules.flat_map(|(rule, number)| rule.matches.sources().iter().map(move |net| (net, number)));
    let named =
        allowed.chain(rules).map(|(net, namer)| (Address::from(net.network()), net.prefix_len(), namer));
    let mut named: Vec<_> = named.filter(|(address, ..)| address.family == family).collect();
    named.sort_unstable();
    named.dedup();
    named
}

impl Own {
    /// What stands at a prefix with so many names, ascending.
    fn of(namers: &[Namer], classes: &impl GivesClasses) -> Self {
        let mut rules: Vec<_> = namers.iter().copied().filter(|&namer| namer < ALLOW).collect();
        rules.sort_by_key(|&number| classes.precedence(number.into()));
        Self { allowed: namers.contains(&ALLOW), rules }
    }
}

/// Selectors and their rows of cells.
struct Rows<'r, C> {
    policy: &'r Policy,
    numbers: &'r BTreeMap<String, u16>,
    classes: &'r mut C,
    cells_max: usize,
    owns: HashMap<Own, u32>,
    /// What stands at the prefix of each `Own` number.
    own_list: Vec<Own>,
    selectors: HashMap<Lineage, u32>,
    /// The selector that was asked for last: lists of prefixes have the same one for long.
    recent: (Lineage, u32),
    /// The lineage of each selector; the first has none.
    lineages: Vec<Lineage>,
    row_length: usize,
    cells: Vec<Cell>,
    /// The first rule that ends after too many others do, and how many there are.
    ends_too_often: Option<(usize, usize)>,
}

impl<'r, C: GivesClasses> Rows<'r, C> {
    fn new(
        policy: &'r Policy,
        numbers: &'r BTreeMap<String, u16>,
        classes: &'r mut C,
        cells_max: usize,
    ) -> Self {
        let row_length = numbers.values().max().map_or(1, |&most| most as usize + 1);
        let mut rows = Self {
            policy,
            numbers,
            classes,
            cells_max,
            owns: HashMap::from([(Own::default(), NOTHING)]),
            own_list: vec![Own::default()],
            selectors: HashMap::new(),
            recent: ((NOTHING, NOTHING), NOTHING),
            lineages: vec![(NOTHING, NOTHING)],
            row_length,
            cells: Vec::new(),
            ends_too_often: None,
        };
        rows.push_row(NOTHING);
        rows
    }

    fn first_cell(&self, selector: u32) -> u32 {
        selector * self.row_length as u32
    }

    /// The number of what stands at a prefix.
    fn own(&mut self, own: Own) -> u32 {
        let next = self.own_list.len() as u32;
        let number = *self.owns.entry(own.clone()).or_insert(next);
        if number == next {
            self.own_list.push(own);
        }
        number
    }

    /// The selector of a prefix at which an own stands, inside a prefix of selector `parent`.
    fn selector(&mut self, own_number: u32, parent: u32) -> u32 {
        if own_number == NOTHING {
            return parent;
        }
        let lineage = (own_number, parent);
        if self.recent.0 != lineage {
            self.recent = (lineage, self.selector_of(lineage));
        }
        self.recent.1
    }

    fn selector_of(&mut self, lineage: Lineage) -> u32 {
        if let Some(&selector) = self.selectors.get(&lineage) {
            return selector;
        }
        let selector = self.lineages.len() as u32;
        self.selectors.insert(lineage, selector);
        self.lineages.push(lineage);
        // Selectors that do not fit are counted for the error.
        if self.lineages.len() * self.row_length <= self.cells_max {
            self.push_row(selector);
        }
        selector
    }

    /// The error of a policy with more cells than fit, at the first rule of the file with which they are too many.
    fn too_many(&self) -> Option<CompileError> {
        let rows = self.lineages.len();
        let cells = rows * self.row_length;
        if cells <= self.cells_max {
            return None;
        }
        let mut rows_of_rules = vec![0; self.policy.rules.len()];
        for &(own, _) in &self.lineages {
            if let Some(&rule) = self.own_list[own as usize].rules.first() {
                rows_of_rules[rule as usize] += 1;
            }
        }
        let mut taken = rows - rows_of_rules.iter().sum::<usize>();
        let beyond = rows_of_rules.iter().position(|rows| {
            taken += rows;
            taken * self.row_length > self.cells_max
        });
        let (services, number_max) = (self.policy.services.len(), self.row_length - 1);
        let mut help =
            "from this rule on they do not fit: merge rules that do the same, use fewer services, or fewer \
                        rules whose prefixes lie inside each other"
                .to_owned();
        if number_max > services {
            let cells = rows * (services + 1);
            help += &format!(
                "; services of earlier policies hold numbers up to {number_max}: {cells} cells are needed after \
                 `detector unload`"
            );
        }
        Some(CompileError {
            place: Place::Rule(beyond.unwrap_or_default()),
            message: "too many combinations of rules and services",
            found: format!("{cells} cells, {rows} combinations of rules × service numbers 0 to {number_max}"),
            expected: format!("at most {} cells", self.cells_max),
            help,
        })
    }

    /// The error of a source for which more rules end, one after the other, than the program follows.
    fn too_many_ends(&self) -> Option<CompileError> {
        let (rule, count) = self.ends_too_often?;
        Some(CompileError {
            place: Place::Rule(rule),
            message: "too many rules end one after the other for the same sources",
            found: format!("{count} of them"),
            expected: format!("at most {ENDS_MAX}"),
            help: "merge rules for these sources, or let some of them end at the same time".to_owned(),
        })
    }

    fn push_row(&mut self, selector: u32) {
        let first = self.cells.len();
        self.cells.resize(first + self.row_length, Cell::default());
        let policy = self.policy;
        for service in &policy.services {
            let class = self.class_of(selector, service);
            let number = self.numbers[&service.name] as usize;
            self.cells[first + number] = Cell { class: u32::from(class), reserved: 0 };
        }
    }

    /// Walks outwards from the most specific prefix; `defaults.allow` anywhere on the way comes before every rule.
    fn class_of(&mut self, selector: u32, service: &Service) -> u16 {
        // Rules that end, each later than those before it: `(rule, end)`.
        let mut ending: Vec<(usize, u64)> = Vec::new();
        let mut lasting = None;
        let mut at = selector;
        while at != NOTHING {
            let (own, parent) = self.lineages[at as usize];
            let own = &self.own_list[own as usize];
            if own.allowed {
                return self.classes.allowed();
            }
            for &rule in own.rules.iter().filter(|_| lasting.is_none()) {
                let rule = usize::from(rule);
                let wanted = &self.policy.rules[rule].service;
                if wanted.as_deref().is_some_and(|wanted| wanted != service.name) {
                    continue;
                }
                match self.classes.end_of(rule) {
                    None => {
                        lasting = Some(rule);
                        break;
                    }
                    Some(Some(end)) if ending.last().is_none_or(|&(_, before)| end > before) => {
                        ending.push((rule, end));
                    }
                    // It has ended, or does before it could apply.
                    Some(_) => {}
                }
            }
            at = parent;
        }
        if ending.len() > ENDS_MAX {
            self.ends_too_often.get_or_insert((ending[ENDS_MAX].0, ending.len()));
        }
        let last = match lasting {
            Some(rule) => self.classes.of_rule(rule, service, 0),
            None => self.classes.of_service(service),
        };
        ending.iter().rev().fold(last, |next, &(rule, _)| self.classes.of_rule(rule, service, next))
    }
}

const _: () = assert!(mask(SOURCE_BITS_V6) == u64::MAX, "an IPv6 source is the upper half of its address");
