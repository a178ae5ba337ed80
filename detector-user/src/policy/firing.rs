//! Rules that never decide about any packet, or not about all of their sources.

use ipnet::IpNet;

use super::diagnostic::Severity;
use super::raw::RawPolicy;
use super::sources::{Rank, RankedRule, Sources};
use super::text::{At, Issue, Report};

/// Why a rule cannot fire for one of its sources.
#[derive(Clone, Copy)]
enum Why {
    /// `defaults.allow` has an entry around it.
    Allowed(usize),
    /// A rule decides about the same prefix before.
    Before(Rank),
    /// Rules decide about all parts of it.
    MadeUp,
}

/// A source at which a rule cannot fire: the rank of the rule and the place among its sources.
type Idle = (Rank, u32, Why);

/// Warns of what another rule or `defaults.allow` always decides about. A rule that ends leaves its sources to others
/// then, so it keeps nothing from firing.
pub(super) fn never(raw: &RawPolicy, sources: &Sources<'_>, report: &mut Report<'_>) {
    let mut idle = idle(sources);
    idle.sort_unstable_by_key(|&(rank, place, _)| (rank, place));
    for of_rule in idle.chunk_by(|one, other| one.0 == other.0) {
        let Some(ranked) = sources.rule(of_rule[0].0) else { continue };
        never_at(raw, sources, ranked, of_rule, report);
    }
}

fn idle(sources: &Sources<'_>) -> Vec<Idle> {
    let lasting = Lasting::new(sources);
    let mut cursors = vec![0; sources.services];
    // Ranks of the first lasting rule about each service at the current prefix.
    let mut first: Vec<Option<Rank>> = vec![None; sources.services];
    let mut idle = Vec::new();
    for number in sources.numbers() {
        let allowed = sources.allowed(number).map(Why::Allowed);
        for (entry, ranked) in sources.named(number) {
            // One for one service is also kept from firing by one for every service; not the other way round.
            let before = first[0].into_iter().chain(first[ranked.service]).min();
            let before = before.filter(|&before| before < entry.rank).map(Why::Before);
            let made_up = || {
                let mut sets = [0, ranked.service].into_iter();
                sets.any(|service| lasting.make_up(sources, number, service, &mut cursors))
                    .then_some(Why::MadeUp)
            };
            idle.extend(allowed.or(before).or_else(made_up).map(|why| (entry.rank, entry.place, why)));
            if ranked.rule.until.is_none() {
                first[ranked.service].get_or_insert(entry.rank);
            }
        }
        sources.named(number).for_each(|(_, ranked)| first[ranked.service] = None);
    }
    idle
}

/// Prefixes that rules without an end decide about, in order, by the number of the rules' service.
struct Lasting {
    by_service: Vec<Vec<u32>>,
}

impl Lasting {
    fn new(sources: &Sources<'_>) -> Self {
        let mut by_service = vec![Vec::new(); sources.services];
        for number in sources.numbers() {
            for (_, ranked) in sources.named(number).filter(|(_, ranked)| ranked.rule.until.is_none()) {
                let prefixes: &mut Vec<u32> = &mut by_service[ranked.service];
                if prefixes.last() != Some(&number) {
                    prefixes.push(number);
                }
            }
        }
        Self { by_service }
    }

    /// Whether more specific prefixes of rules about a service make up all of a prefix. The cursors hold how far each
    /// service has been asked for; prefixes are asked for in order.
    fn make_up(&self, sources: &Sources<'_>, number: u32, service: usize, cursors: &mut [usize]) -> bool {
        let (prefixes, cursor) = (&self.by_service[service], &mut cursors[service]);
        while prefixes.get(*cursor).is_some_and(|&prefix| prefix <= number) {
            *cursor += 1;
        }
        sources.make_up(number, &prefixes[*cursor..])
    }
}

/// One warning at the rule's name if it fires at none of its sources, otherwise one at each of these.
fn never_at(
    raw: &RawPolicy,
    sources: &Sources<'_>,
    ranked: &RankedRule<'_>,
    idle: &[Idle],
    report: &mut Report<'_>,
) {
    let Some(name) = &ranked.rule.name else { return };
    let of_source = |&(_, place, why): &Idle| Some((ranked.source(place)?, why));
    if idle.len() < ranked.rule.sources.len() {
        let places =
            idle.iter().filter_map(of_source).map(|(source, why)| (source.span.clone(), (source, why)));
        report.many(Severity::Warning, places, |report, (source, why)| {
            let reason = told(raw, sources, source, why, report);
            Issue::remark(format!("rule `{}` can never fire here: {reason}", name.value))
        });
        return;
    }
    if let Some((source, why)) = idle.first().and_then(of_source) {
        let reason = told(raw, sources, source, why, report);
        let issue = Issue::remark(format!("rule `{}` can never fire: {reason}", name.value));
        report.warning(name.span.clone(), issue);
    }
}

fn told(raw: &RawPolicy, sources: &Sources<'_>, source: &At<IpNet>, why: Why, report: &Report<'_>) -> String {
    let source = source.value;
    match why {
        Why::Allowed(place) => {
            let prefix = raw.allow.get(place).map_or(source, |prefix| prefix.value);
            format!("{prefix} of defaults.allow passes before any rule")
        }
        Why::Before(rank) => {
            let name = sources.rule(rank).and_then(|ranked| ranked.rule.name.as_ref());
            let (name, line) = name.map_or(("", 0), |name| (&name.value, report.line(&name.span)));
            format!("rule `{name}` of line {line} decides about {source} before it")
        }
        Why::MadeUp => format!("more specific prefixes of rules make up all of {source}"),
    }
}

/// Warns of prefixes that one rule names more than once, once for each rule.
pub(super) fn repeated(sources: &Sources<'_>, report: &mut Report<'_>) {
    let mut counts: Vec<(u32, u32)> = Vec::new();
    for number in sources.numbers() {
        let mut last = None;
        for (entry, _) in sources.named(number) {
            if last == Some(entry.rank) {
                let rank = usize::from(entry.rank);
                counts.resize(counts.len().max(rank + 1), (0, u32::MAX));
                let (count, place) = &mut counts[rank];
                *count += 1;
                *place = entry.place.min(*place);
            }
            last = Some(entry.rank);
        }
    }
    for (rank, ranked) in sources.rules() {
        let Some(&(count, place)) = counts.get(usize::from(rank)) else { continue };
        let (Some(name), Some(source)) = (&ranked.rule.name, ranked.source(place)) else { continue };
        let (name, prefix) = (&name.value, source.value);
        let times =
            if count == 1 { "a prefix again".to_owned() } else { format!("prefixes again {count} times") };
        let issue = Issue::remark(format!("rule `{name}` names {times}, first {prefix} here"));
        report.warning(source.span.clone(), issue.help("once is enough".to_owned()));
    }
}
