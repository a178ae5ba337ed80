//! What happened, by the sources' own account and by detector's; and whether that is what the policy says.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use super::cast::{Actor, Part};
use crate::{
    daemon::{Site, Source},
    traffic::Receiver,
};

/// One of the cast at a moment.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) source: IpAddr,
    pub(super) does: &'static str,
    pub(super) is_client: bool,
    /// Requests or connections that succeeded and failed, where it makes any.
    pub(super) fared: Option<(u64, u64)>,
    /// In the last second.
    pub(super) packets: u64,
    pub(super) passed: u64,
    pub(super) limited: u64,
    /// The budget that is spent, if packets were dropped.
    pub(super) budget: Option<String>,
}

/// Two looks at the table of sources.
pub(super) struct Meter {
    before: HashMap<String, Source>,
    at: Instant,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { before: HashMap::new(), at: Instant::now() }
    }

    /// Everybody's line since the last look.
    pub(super) fn look(&mut self, site: &Site<'_>, cast: &[Actor]) -> Result<Vec<Line>> {
        let now: HashMap<_, _> =
            site.sources()?.into_iter().map(|source| (source.prefix.clone(), source)).collect();
        let elapsed = self.at.elapsed();
        self.at = Instant::now();
        let before = std::mem::replace(&mut self.before, now);
        cast.iter().map(|actor| self.line(site, actor, &before, elapsed)).collect()
    }

    fn line(
        &self,
        site: &Site<'_>,
        actor: &Actor,
        before: &HashMap<String, Source>,
        elapsed: Duration,
    ) -> Result<Line> {
        let prefix = prefix(actor.source);
        let (now, before) = (self.before.get(&prefix).cloned(), before.get(&prefix).cloned());
        let (now, before) = (now.unwrap_or_default(), before.unwrap_or_default());
        let rate = |of: fn(&Source) -> u64| {
            (of(&now).saturating_sub(of(&before)) as f64 / elapsed.as_secs_f64()).round() as u64
        };
        let limited = rate(|source| source.dropped);
        Ok(Line {
            name: actor.name,
            source: actor.source,
            does: actor.does,
            is_client: actor.part == Part::Client,
            fared: (actor.part != Part::Flood).then(|| actor.fared()),
            packets: rate(|source| source.packets),
            passed: rate(Source::passed),
            limited,
            budget: if limited > 0 { spent(site, actor.source)? } else { None },
        })
    }
}

/// The budget of a source of which least is left.
fn spent(site: &Site<'_>, source: IpAddr) -> Result<Option<String>> {
    let budgets = budgets(site, source)?;
    let least = budgets.into_iter().min_by(|a, b| (a.left / a.burst).total_cmp(&(b.left / b.burst)));
    Ok(least.map(|budget| budget.name))
}

/// A budget as `explain` tells it.
struct Budget {
    name: String,
    burst: f64,
    per_second: f64,
    left: f64,
}

fn budgets(site: &Site<'_>, source: IpAddr) -> Result<Vec<Budget>> {
    let (_, answer) = site.ask_json(&["explain", &source.to_string()])?;
    let budgets = answer["services"][0]["budgets"].as_array();
    let budgets = budgets.ok_or_else(|| anyhow!("explain {source} tells no budgets: {answer}"))?;
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let read = |budget: &Value| Budget {
        name: budget["budget"].as_str().unwrap_or_default().to_owned(),
        burst: number(&budget["burst"]),
        per_second: number(&budget["per_second"]),
        left: number(&budget["left"]),
    };
    Ok(budgets.iter().map(read).collect())
}

/// The prefix of a source as detector writes it.
fn prefix(source: IpAddr) -> String {
    match source {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The clients lost nothing, the offenders got their limits.
    Kept,
    /// Not so.
    Broken,
}

/// What happened in the lab.
#[derive(Debug)]
pub struct Summary {
    pub(super) seconds: f64,
    pub(super) clients: Vec<ClientAccount>,
    pub(super) offenders: Vec<OffenderAccount>,
    /// What was not as promised.
    pub(super) faults: Vec<String>,
    /// How it ended.
    pub verdict: Verdict,
}

/// What a client got.
#[derive(Debug)]
pub(super) struct ClientAccount {
    pub(super) source: IpAddr,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) limited: u64,
    pub(super) complaint: Option<String>,
}

/// What an offender got.
#[derive(Debug)]
pub(super) struct OffenderAccount {
    pub(super) name: &'static str,
    pub(super) source: IpAddr,
    pub(super) unit: &'static str,
    pub(super) sent: u64,
    pub(super) passed: u64,
    pub(super) limited: u64,
    pub(super) burst: f64,
    pub(super) per_second: f64,
    pub(super) seconds: f64,
    pub(super) allowed: f64,
}

/// How far an offender may be from its limit: a percent, and two units for a lab of a few seconds.
const TOLERANCE: f64 = 0.01;
const TOLERANCE_UNITS: f64 = 2.0;

impl Summary {
    /// Draws up the account at the end of the whole. How long the flood lasted, its receiver has seen.
    pub(super) fn new(site: &Site<'_>, cast: &[Actor], whole: Duration, flooded: &Receiver) -> Result<Self> {
        let mut summary = Self {
            seconds: whole.as_secs_f64(),
            clients: Vec::new(),
            offenders: Vec::new(),
            faults: Vec::new(),
            verdict: Verdict::Kept,
        };
        for actor in cast {
            let source = site.source(&prefix(actor.source))?;
            match actor.part {
                Part::Client => summary.client(actor, &source),
                Part::Flood => {
                    flooded.wait_for(actor.source, source.passed())?;
                    summary.offender(
                        site,
                        actor,
                        &source,
                        "packets",
                        source.packets,
                        flooded.span(actor.source),
                    )?
                }
                Part::Connections | Part::Hammer => {
                    summary.offender(site, actor, &source, "connections", source.connections, whole)?;
                }
            }
        }
        if !summary.faults.is_empty() {
            summary.verdict = Verdict::Broken;
        }
        Ok(summary)
    }

    fn client(&mut self, actor: &Actor, source: &Source) {
        let (succeeded, failed) = actor.fared();
        if failed > 0 || source.dropped > 0 || succeeded == 0 {
            self.faults.push(format!(
                "{} had {succeeded} answers, {failed} failures and {} packets limited",
                actor.name, source.dropped
            ));
        }
        let complaint = actor.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let requests = succeeded + failed;
        let limited = source.dropped;
        self.clients.push(ClientAccount { source: actor.source, requests, failed, limited, complaint });
    }

    /// The packets that are dropped for want of a connection are those that ask for one.
    fn offender(
        &mut self,
        site: &Site<'_>,
        actor: &Actor,
        source: &Source,
        unit: &'static str,
        sent: u64,
        time: Duration,
    ) -> Result<()> {
        let budget = budgets(site, actor.source)?
            .into_iter()
            .find(|budget| budget.name == unit)
            .with_context(|| format!("the policy of the lab limits {unit}"))?;
        let seconds = time.as_secs_f64();
        let allowed = budget.burst + budget.per_second * seconds;
        let passed = sent.saturating_sub(source.dropped);
        let room = allowed * TOLERANCE + TOLERANCE_UNITS;
        if source.dropped == 0 {
            self.faults.push(format!("nothing of the {} was dropped", actor.name));
        }
        if passed as f64 > allowed + room {
            self.faults.push(format!("{passed} {unit} of the {} passed, {allowed:.0} may", actor.name));
        }
        // The others do not press hard enough at every moment to use all that they may.
        if actor.part == Part::Flood && (passed as f64) < allowed - room {
            self.faults.push(format!("only {passed} {unit} of the {} passed, {allowed:.0} may", actor.name));
        }
        self.offenders.push(OffenderAccount {
            name: actor.name,
            source: actor.source,
            unit,
            sent,
            passed,
            limited: source.dropped,
            burst: budget.burst,
            per_second: budget.per_second,
            seconds,
            allowed,
        });
        Ok(())
    }

    /// The account for programs.
    pub(super) fn json(&self) -> Value {
        let clients = self.clients.iter().map(|client| {
            json!({
                "source": client.source.to_string(), "requests": client.requests,
                "failed": client.failed, "limited": client.limited,
            })
        });
        let offenders = self.offenders.iter().map(|offender| {
            json!({
                "name": offender.name, "source": offender.source.to_string(), "unit": offender.unit,
                "sent": offender.sent, "passed": offender.passed, "limited": offender.limited,
                "allowed": offender.allowed.round(),
            })
        });
        json!({
            "seconds": (self.seconds * 10.0).round() / 10.0,
            "kept": self.verdict == Verdict::Kept,
            "faults": self.faults,
            "clients": clients.collect::<Vec<_>>(),
            "offenders": offenders.collect::<Vec<_>>(),
        })
    }
}
