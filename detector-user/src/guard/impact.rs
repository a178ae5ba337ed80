//! What a change of the policy does to the sources that are there.

use std::collections::BTreeMap;

use detector_common::policy::{Action, Class, ParentClass};
use serde::Serialize;
use utoipa::ToSchema;

use super::estimate::{MINUTE_S, drops};
use crate::{
    policy::compile::{Judge, Judged},
    traffic::{Flow, Traffic},
};

/// Packets a minute from which on a source counts as dropped.
const DROPPED_MIN: f64 = 1.0;

/// A source that a change concerns.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Victim {
    /// An IPv4 address or an IPv6 /64.
    pub source: String,
    /// The service.
    pub service: String,
    /// Its class now.
    pub from: String,
    /// Its class with the change.
    pub to: String,
    /// Packets it sends, a second.
    pub packets_per_s: f64,
    /// Packets of these that are dropped now, a second: estimated.
    pub dropped_per_s: f64,
    /// Packets of these that the change drops, a second: estimated.
    pub would_drop_per_s: f64,
}

/// Sources that go from one class to another.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Move {
    /// Their class now.
    pub from: String,
    /// Their class with the change; the same name with other budgets is another class.
    pub to: String,
    /// How many.
    pub sources: usize,
    /// Packets they sent while they were looked at.
    pub packets: u64,
    /// The same a second.
    pub packets_per_s: f64,
}

/// What a change does to the sources of the table.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Impact {
    /// Time that was looked at, s.
    pub window_s: f64,
    /// Sources that have an entry, each service counted.
    pub sources: usize,
    /// Of these, sources whose class changes.
    pub sources_changed: usize,
    /// Packets of all sources, a second.
    pub packets_per_s: f64,
    /// Packets that would be dropped and are not now, a second: estimated.
    pub newly_dropped_per_s: f64,
    /// The same as a share of all packets, 0 to 1.
    pub newly_dropped_share: f64,
    /// Sources that would start to be dropped.
    pub starts: usize,
    /// Sources that would no longer be dropped.
    pub stops: usize,
    /// From which class to which, most packets first.
    pub moves: Vec<Move>,
    /// Those of whom more would be dropped, the most of them first.
    pub victims: Vec<Victim>,
    /// Those of whom less would be dropped, the most of them first.
    pub relieved: Vec<Victim>,
}

/// Compares what two policies do to the sources of the table; of victims and relieved ones at most so many.
pub fn impact(before: &Judge<'_>, after: &Judge<'_>, traffic: &Traffic, victims_max: usize) -> Impact {
    let now = drops(traffic, |flow| judged(before, flow), |number| before.parent_class(number));
    let then = drops(traffic, |flow| judged(after, flow), |number| after.parent_class(number));
    let seconds = traffic.seconds();
    let mut moves: BTreeMap<(String, String), (usize, u64)> = BTreeMap::new();
    let (mut more, mut less) = (Vec::new(), Vec::new());
    let (mut newly, mut starts, mut stops) = (0.0, 0, 0);
    for (flow, (now, then)) in traffic.flows.iter().zip(now.into_iter().zip(then)) {
        let (from, to) = (judged(before, flow), judged(after, flow));
        if is_changed(before, from, after, to) {
            let names = (before.label(from), after.label(to));
            let (sources, packets) = moves.entry(names).or_default();
            *sources += 1;
            *packets += u64::from(flow.packets);
        }
        newly += (then - now).max(0.0);
        let (was, is) = (is_dropped(from, now), is_dropped(to, then));
        starts += usize::from(is && !was);
        stops += usize::from(was && !is);
        if then - now >= DROPPED_MIN || is && !was {
            more.push((flow, from, to, now, then));
        } else if now - then >= DROPPED_MIN || was && !is {
            less.push((flow, from, to, now, then));
        }
    }
    let victim = |(flow, from, to, now, then): (&Flow, Option<Judged<'_>>, Option<Judged<'_>>, f64, f64)| {
        let service = [before, after].map(|judge| judge.tables.manifest.service_name(flow.service));
        Victim {
            source: flow.prefix().to_string(),
            service: if after.tables.has_service(flow.service) { service[1] } else { service[0] }.to_owned(),
            from: before.label(from),
            to: after.label(to),
            packets_per_s: f64::from(flow.packets) / seconds,
            dropped_per_s: now / MINUTE_S,
            would_drop_per_s: then / MINUTE_S,
        }
    };
    more.sort_by(|one, other| (other.4 - other.3).total_cmp(&(one.4 - one.3)));
    less.sort_by(|one, other| (other.3 - other.4).total_cmp(&(one.3 - one.4)));
    let mut moves: Vec<_> = moves
        .into_iter()
        .map(|((from, to), (sources, packets))| Move {
            from,
            to,
            sources,
            packets,
            packets_per_s: packets as f64 / seconds,
        })
        .collect();
    moves.sort_by_key(|change| std::cmp::Reverse((change.packets, change.sources)));
    let packets_per_s = traffic.packets_per_s();
    let newly_dropped_per_s = newly / MINUTE_S;
    Impact {
        window_s: seconds,
        sources: traffic.flows.len(),
        sources_changed: moves.iter().map(|change| change.sources).sum(),
        packets_per_s,
        newly_dropped_per_s,
        newly_dropped_share: if packets_per_s > 0.0 { newly_dropped_per_s / packets_per_s } else { 0.0 },
        starts,
        stops,
        moves,
        victims: more.into_iter().take(victims_max).map(victim).collect(),
        relieved: less.into_iter().take(victims_max).map(victim).collect(),
    }
}

fn judged<'p>(judge: &Judge<'p>, flow: &Flow) -> Option<Judged<'p>> {
    judge.judge(flow.source, flow.service)
}

/// Whether a source is dropped, or would be if it sent.
fn is_dropped(judged: Option<Judged<'_>>, dropped: f64) -> bool {
    let is_denied = |judged: Judged<'_>| judged.enforced && judged.class.action == Action::Deny as u8;
    dropped >= DROPPED_MIN || judged.is_some_and(is_denied)
}

/// Whether two policies say different things of a source: what is done, by whom, and with which budgets.
fn is_changed(
    before: &Judge<'_>,
    from: Option<Judged<'_>>,
    after: &Judge<'_>,
    to: Option<Judged<'_>>,
) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return from.is_some() != to.is_some() };
    (from.class.action, from.enforced) != (to.class.action, to.enforced)
        || before.rule_of(&from) != after.rule_of(&to)
        || before.tables.profile_of(from.class) != after.tables.profile_of(to.class)
        || own(from.class) != own(to.class)
        || parents(before, from.class) != parents(after, to.class)
}

type Own = [detector_common::budget::Budget; 4];

fn own(class: &Class) -> Own {
    [class.packets, class.bytes, class.connections, class.handshakes]
}

fn parents<'p>(judge: &Judge<'p>, class: &Class) -> [Option<&'p ParentClass>; 3] {
    [class.v4_24, class.v6_56, class.v6_48].map(|number| judge.parent_class(number))
}

/// Whether a change can drop more of a source than is dropped now, whatever it sends.
pub fn is_stricter(
    before: &Judge<'_>,
    from: Option<Judged<'_>>,
    after: &Judge<'_>,
    to: Option<Judged<'_>>,
) -> bool {
    let refuses = |judged: Option<Judged<'_>>| match judged {
        Some(Judged { class, enforced: true, .. }) if class.action == Action::Deny as u8 => 2,
        Some(Judged { class, enforced: true, .. }) if class.action == Action::Limit as u8 => 1,
        _ => 0,
    };
    let (was, is) = (refuses(from), refuses(to));
    let (Some(from), Some(to)) = (from, to) else { return is > was };
    if (was, is) != (1, 1) {
        return is > was;
    }
    own(from.class).iter().zip(own(to.class)).any(|(from, to)| is_tighter(*from, to))
        || parents(before, from.class)
            .into_iter()
            .zip(parents(after, to.class))
            .any(|(from, to)| is_parent_tighter(from, to))
}

fn is_parent_tighter(from: Option<&ParentClass>, to: Option<&ParentClass>) -> bool {
    let Some(to) = to else { return false };
    let from = from.copied().unwrap_or_default();
    let budgets = |class: &ParentClass| [class.packets, class.bytes, class.connections, class.new_sources];
    budgets(&from).into_iter().zip(budgets(to)).any(|(from, to)| is_tighter(from, to))
}

fn is_tighter(from: detector_common::budget::Budget, to: detector_common::budget::Budget) -> bool {
    // Bursts in units: one interval of a slower rate is longer.
    let burst = |budget: detector_common::budget::Budget| budget.burst_ticks / budget.interval.max(1);
    to.is_limited() && (!from.is_limited() || to.interval > from.interval || burst(to) < burst(from))
}
