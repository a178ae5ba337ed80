//! What stands between an operator's slip and an outage: a change of the policy is refused when it would lock out who must
//! get in, or newly drop more than a share of the traffic.
//!
//! Both are asked of tables that are compiled and not yet loaded, whatever they were made from.

mod clients;
pub mod estimate;
pub mod host;
mod impact;
mod lockout;
mod openings;
mod share;
mod unseen;

use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use utoipa::ToSchema;

pub use clients::{MATCHING_MAX, Unselective, unselective};
pub use host::Host;
pub use impact::{Impact, Move, Victim, impact, is_stricter};
pub use lockout::{Lockout, lockouts, peers_locked_out};
pub use openings::{Opening, Openings};
pub use share::Share;
pub use unseen::{Stop, Unseen, with_lock};

use crate::{
    cli::{GuardArgs, RunArgs},
    commands::Failure,
    kernel::{
        apply::ApplyError,
        maps::Maps,
        read::{self, ReadError},
    },
    policy::{
        Matches, SOURCE_BITS_V6,
        compile::{Beside, Judge, Standard, Tables},
        incident::{Incident, Incidents},
    },
    traffic::{FileError, Look, Traffic, Watching},
};

/// Packets a second that a change may newly drop, whatever their share: an idle host is not guarded by noise.
pub const FLOOR_PER_S: f64 = 10.0;

/// Victims that a refusal names.
const VICTIMS_NAMED: usize = 5;

/// What is asked of a change, and of whom.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Whose peers are guarded.
    pub host: Host,
    /// The largest share of all packets that a change may newly drop.
    pub max_drop: Share,
    /// Where the traffic is known from.
    pub watching: Watching,
    /// Who is told that the change waits while the traffic is looked at, and why what is kept of it is of no use.
    pub tells_waiting: fn(Duration, Option<&FileError>),
}

/// More packets would newly be dropped than may be.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Blast {
    /// What the change does.
    pub impact: Impact,
    /// The largest share that a change may newly drop, 0 to 1.
    pub max_drop: f64,
}

/// Why a change is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = GuardRefusal)]
pub struct Refusal {
    /// Who would be locked out.
    pub lockouts: Vec<Lockout>,
    /// How much would be dropped, if that is too much.
    pub blast: Option<Blast>,
    /// Rules about fingerprints that ordinary clients have too.
    pub unselective: Vec<Unselective>,
}

impl Refusal {
    /// Whether there is a reason.
    pub fn is_empty(&self) -> bool {
        self.lockouts.is_empty() && self.blast.is_none() && self.unselective.is_empty()
    }

    /// The reasons, one a line, and victims.
    pub fn reasons(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.lockouts.iter().map(|lockout| format!("locks out {lockout}")).collect();
        lines.extend(self.blast.iter().flat_map(Blast::lines));
        lines.extend(self.unselective.iter().map(Unselective::line));
        lines
    }

    /// The failure of a command that is refused.
    ///
    /// # Errors
    ///
    /// There is a reason to refuse.
    pub fn into_result(self) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let mut help = Vec::new();
        if !self.lockouts.is_empty() {
            help.push("add them to `allow` in [defaults]");
        }
        if self.blast.is_some() {
            help.push("try the rule in mode \"shadow\" first");
        }
        if !self.unselective.is_empty() {
            help.push("narrow the patterns, name `ja4` and `syn` together, or throttle the sources");
        }
        help.push("or, if it is meant, apply it with --force (over the API with `force`)");
        let reasons = self.reasons().join("\n  ");
        Err(Failure::invalid(format_args!("not applied: the policy\n  {reasons}\n{}", help.join(", "))))
    }
}

impl Blast {
    fn lines(&self) -> Vec<String> {
        let Impact { window_s, packets_per_s, newly_dropped_per_s, newly_dropped_share, starts, .. } =
            self.impact;
        let mut lines = vec![format!(
            "newly drops {:.1} % of the packets of the last {window_s:.0} s, {newly_dropped_per_s:.0} of \
             {packets_per_s:.0} a second, at most {:.1} % may be (--max-drop); {starts} sources start to be dropped:",
            newly_dropped_share * 100.0,
            self.max_drop * 100.0
        )];
        lines.extend(self.impact.victims.iter().take(VICTIMS_NAMED).map(|victim| {
            let Victim { source, service, from, to, packets_per_s, would_drop_per_s, .. } = victim;
            format!(
                "  {source} at {service}: {from} → {to}, {would_drop_per_s:.0} of {packets_per_s:.0} packets a second"
            )
        }));
        lines
    }
}

/// A policy that is loaded, and how to judge by it and by another one at this moment.
#[derive(Debug)]
pub struct Loaded {
    tables: Option<Tables>,
    seed: detector_common::hash::Seed,
    now: u64,
}

impl Loaded {
    /// What is loaded now.
    ///
    /// # Errors
    ///
    /// The maps cannot be read.
    pub fn read(maps: &Maps) -> Result<Self, ReadError> {
        let tables = read::consistently(maps, |active| active.tables())?;
        Ok(Self { tables, seed: read::settings(maps).seed, now: read::now(maps) })
    }

    /// What comes back if the policy on trial is not confirmed, if one is on trial. For who holds the policy's lock.
    ///
    /// # Errors
    ///
    /// The maps cannot be read.
    pub fn read_before_trial(maps: &Maps) -> Result<Self, ReadError> {
        let tables = read::tables_before_trial(maps)?;
        Ok(Self { tables, seed: read::settings(maps).seed, now: read::now(maps) })
    }

    /// The policy that is loaded, if there is one.
    pub fn judge(&self) -> Option<Judge<'_>> {
        self.tables.as_ref().map(|tables| self.judge_by(tables))
    }

    /// Another policy, in its place.
    pub fn judge_by<'a>(&self, tables: &'a Tables) -> Judge<'a> {
        Judge::new(tables, self.seed, self.now)
    }
}

impl Guard {
    /// What the caller of a command is asked.
    pub fn of(args: &GuardArgs) -> Self {
        let watching = Watching::of(&args.traffic);
        Self { host: Host::own(), max_drop: args.max_drop, watching, tells_waiting: say_waiting }
    }

    /// What somebody is asked whose peers are another host's, or those of another caller.
    pub fn with_host(&self, host: Host) -> Self {
        Self { host, ..self.clone() }
    }

    /// What a daemon is asked that reads its policy again.
    pub fn of_daemon(args: &RunArgs) -> Self {
        let watching = Watching { directory: args.run_dir.clone(), sample: None };
        Self { host: Host::of_everybody(), max_drop: args.max_drop, watching, tells_waiting: log_waiting }
    }

    /// Asks a change that is compiled and not yet made. The look that was taken for it, if one was.
    ///
    /// # Errors
    ///
    /// The maps cannot be read; or there is no look at the traffic, and one is needed.
    pub fn check(&self, maps: &Maps, after: &Tables, look: Option<&Look>) -> Result<Refusal, Stop> {
        let loaded = Loaded::read(maps)?;
        let unselective = unselective(maps, loaded.tables.as_ref(), after);
        let (before, after) = (loaded.judge(), loaded.judge_by(after));
        let lockouts = lockouts(&self.host, &Openings::counted(maps), before.as_ref(), &after);
        let Some(before) = before else { return Ok(Refusal { lockouts, blast: None, unselective }) };
        Ok(Refusal { lockouts, blast: self.check_traffic(maps, &before, &after, look)?, unselective })
    }

    /// Asks a change of the incident rules that is not yet made, beside the policy on trial and the one before it. What it does to
    /// sources that `added` names one by one is meant; sources of wider prefixes count as in any other change. The look that
    /// was taken for it, if one was.
    ///
    /// # Errors
    ///
    /// The maps cannot be read, or the rules do not fit; or there is no look at the traffic, and one is needed.
    pub fn check_incidents(
        &self,
        maps: &Maps,
        added: Option<&Incident>,
        undone: &[u64],
        look: Option<&Look>,
    ) -> Result<Refusal, Stop> {
        let mut refusal = Refusal::default();
        for loaded in [Loaded::read(maps)?, Loaded::read_before_trial(maps)?] {
            let beside = self.check_incidents_beside(&loaded, maps, added, undone, look)?;
            refusal.lockouts.extend(beside.lockouts);
            refusal.blast = refusal.blast.or(beside.blast);
            refusal.unselective.extend(beside.unselective);
        }
        refusal.lockouts.dedup();
        refusal.unselective.dedup();
        Ok(refusal)
    }

    fn check_incidents_beside(
        &self,
        loaded: &Loaded,
        maps: &Maps,
        added: Option<&Incident>,
        undone: &[u64],
        look: Option<&Look>,
    ) -> Result<Refusal, Stop> {
        let Some(before) = loaded.judge() else { return Ok(Refusal::default()) };
        let present =
            before.tables.beside.as_ref().map(|beside| beside.incidents.clone()).unwrap_or_default();
        let with = |added: Option<Incident>| -> Result<Tables, Failure> {
            let staying = present.rules.iter().filter(|incident| !undone.contains(&incident.id)).cloned();
            let incidents = Incidents { rules: staying.chain(added).collect() };
            let standard = Standard::of(before.tables);
            let beside = Beside::new(incidents, &standard, before.tables.clocks).map_err(ApplyError::from)?;
            Ok(Tables { beside, ..before.tables.clone() })
        };
        let after = with(added.cloned())?;
        let asked: Vec<_> =
            added.and_then(|incident| clients::incident_rule(incident, before.tables)).into_iter().collect();
        let unselective = clients::unselective_of(maps, &asked, before.tables);
        let lockouts =
            peers_locked_out(&self.host, &Openings::counted(maps), Some(&before), &loaded.judge_by(&after));
        let is_wide = |source: &IpNet| source.prefix_len() < source_bits(source);
        let wide = |incident: &Incident| {
            let sources: Vec<_> = incident.matches.sources().iter().copied().filter(is_wide).collect();
            (!sources.is_empty()).then(|| Incident { matches: Matches::Sources(sources), ..incident.clone() })
        };
        let wide = added.and_then(wide);
        if wide.is_none() && undone.is_empty() {
            return Ok(Refusal { lockouts, blast: None, unselective });
        }
        let after = with(wide)?;
        let blast = self.check_traffic(maps, &before, &loaded.judge_by(&after), look)?;
        Ok(Refusal { lockouts, blast, unselective })
    }

    /// Whether a change does too much to the traffic.
    fn check_traffic(
        &self,
        maps: &Maps,
        before: &Judge<'_>,
        after: &Judge<'_>,
        look: Option<&Look>,
    ) -> Result<Option<Blast>, Stop> {
        // Without a source of which more may be dropped there is nothing to wait for.
        if !is_any_stricter(maps, before, after) {
            return Ok(None);
        }
        let traffic = self.traffic(maps, look).map_err(Stop::Unseen)?;
        Ok(self.blast(impact(before, after, &traffic, VICTIMS_NAMED)))
    }

    /// Whether a change does too much.
    pub fn blast(&self, impact: Impact) -> Option<Blast> {
        let max_drop = self.max_drop.0;
        // The sums of an estimate may be a bit more than the whole, of which all may be dropped where that is asked for.
        let share = impact.newly_dropped_share.min(1.0);
        let is_too_much = impact.newly_dropped_per_s >= FLOOR_PER_S && share > max_drop;
        is_too_much.then_some(Blast { impact, max_drop })
    }

    /// What was sent since a look, else since the one that is kept.
    fn traffic(&self, maps: &Maps, look: Option<&Look>) -> Result<Traffic, Unseen> {
        if let Some(look) = look {
            return Ok(look.since(maps));
        }
        match self.watching.kept(maps) {
            Ok(Some(look)) => Ok(look.since(maps)),
            Ok(None) => Err(Unseen::new(self, None)),
            Err(error) => Err(Unseen::new(self, Some(error))),
        }
    }
}

/// Bits of the prefix that is one source.
fn source_bits(source: &IpNet) -> u8 {
    if source.addr().is_ipv4() { 32 } else { SOURCE_BITS_V6 }
}

/// Whether there is a source of which a change may drop more.
fn is_any_stricter(maps: &Maps, before: &Judge<'_>, after: &Judge<'_>) -> bool {
    read::entries(&maps.sources).any(|way| {
        let Some((source, _)) = way.owner() else { return false };
        let service = way.meta().service();
        is_stricter(before, before.judge(source, service), after, after.judge(source, service))
    })
}

/// Tells a person why nothing happens for a while.
pub fn say_waiting(time: Duration, error: Option<&FileError>) {
    use std::io::IsTerminal as _;
    if !std::io::stderr().is_terminal() {
        return;
    }
    if let Some(error) = error {
        anstream::eprintln!("{error}");
    }
    anstream::eprintln!("looking at the traffic for {:.0} s", time.as_secs_f64());
}

/// The same in the log of a daemon, which keeps looks itself unless it was just started, cannot write them, or another one
/// writes to the same directory.
fn log_waiting(time: Duration, error: Option<&FileError>) {
    let seconds = time.as_secs_f64();
    match error {
        Some(error) => tracing::warn!("the change waits {seconds:.0} s to look at the traffic: {error}"),
        None => {
            tracing::info!("the change waits {seconds:.0} s to look at the traffic: no look at it is kept")
        }
    }
}

#[cfg(test)]
mod tests;
