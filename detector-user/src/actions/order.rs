//! What people say about a fleet: throttle it, or leave it alone.

use std::fmt;

use detector_fleets::fleet::{Fleet, FleetId};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::budget::SharedBudgets;
use crate::policy::{Budget, Budgets, incident::IncidentAction};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Throttle it. What is not said of its budgets is as usual.
    Throttle {
        /// Packets that its members share.
        packets: Option<Budget>,
        /// Connections that they share.
        connections: Option<Budget>,
    },
    /// Leave it alone: what `allow fleet:ID` asks for, and what undoes an action of the daemon's.
    Leave,
}

impl Wanted {
    /// To throttle it, with the usual budgets.
    pub const THROTTLE: Self = Self::Throttle { packets: None, connections: None };

    /// What the command of an operator means about a fleet; `None`: a throttle without rates.
    ///
    /// # Errors
    ///
    /// That it cannot be done to a fleet, and what can.
    pub fn of(action: Option<&IncidentAction>) -> Result<Self, String> {
        let budgets = match action {
            None => return Ok(Self::THROTTLE),
            Some(IncidentAction::Allow) => return Ok(Self::Leave),
            Some(IncidentAction::Block) => {
                return Err("a fleet is not blocked, since there are others among its members: expected a throttle, by \
                            which they share one budget; without rates it is what such clients normally used"
                    .to_owned());
            }
            Some(IncidentAction::Throttle(budgets) | IncidentAction::ThrottleShared(budgets)) => budgets,
        };
        let Budgets { packets, bytes, connections, handshakes } = *budgets;
        let other = [("bytes", bytes), ("handshakes", handshakes)];
        if let Some((name, _)) = other.iter().find(|(_, budget)| budget.is_some()) {
            return Err(format!(
                "`{name}` does not limit a fleet: expected `rate` or `connections`, which its members share"
            ));
        }
        Ok(Self::Throttle { packets, connections })
    }

    /// Whether it is to be throttled.
    pub const fn is_throttle(self) -> bool {
        matches!(self, Self::Throttle { .. })
    }

    /// The budgets that it says, in the place of others.
    pub fn instead_of(self, usual: SharedBudgets) -> SharedBudgets {
        match self {
            Self::Leave => usual,
            Self::Throttle { packets, connections } => SharedBudgets {
                packets: packets.unwrap_or(usual.packets),
                connections: connections.unwrap_or(usual.connections),
            },
        }
    }
}

/// An order of an operator about one fleet. It comes before the mode; the switch and the lists of whom to let pass come before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetOrder)]
pub struct Order {
    /// Its number, from 1.
    pub id: u64,
    /// The fleet.
    #[serde(serialize_with = "number")]
    #[schema(value_type = String)]
    pub fleet: FleetId,
    /// What, as people read it.
    #[serde(serialize_with = "words")]
    #[schema(value_type = String)]
    pub wanted: Wanted,
    /// Also where a guard would leave it a suggestion.
    pub force: bool,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when, seconds since the Unix epoch.
    pub at_s: u64,
    /// Until when, likewise.
    pub until_s: u64,
}

/// The switch: no action on any fleet, whoever wants one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FleetsStop)]
pub struct Stop {
    /// Who turned it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, seconds since the Unix epoch.
    pub at_s: u64,
}

/// As the number of a fleet is told everywhere.
fn number<S: Serializer>(fleet: &FleetId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&fleet.0)
}

fn words<S: Serializer>(wanted: &Wanted, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(wanted)
}

/// `allow`, or `throttle` with the rates that are said.
impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Throttle { packets, connections } = self else { return formatter.write_str("allow") };
        formatter.write_str("throttle")?;
        for (name, budget) in [("packets", packets), ("connections", connections)] {
            if let Some(Budget { rate, burst }) = budget {
                write!(formatter, " {name} {rate} burst {burst}")?;
            }
        }
        Ok(())
    }
}

/// The order about a fleet that holds at a time: the last one. To leave a fleet alone that became part of it is to leave it alone: its members are
/// among the others.
pub fn holds<'a>(orders: &'a [Order], fleet: &Fleet, now_s: u64) -> Option<&'a Order> {
    let is_about = |order: &&Order| {
        order.fleet == fleet.id || order.wanted == Wanted::Leave && fleet.joined.contains(&order.fleet)
    };
    let holding = orders.iter().filter(|order| order.until_s > now_s).filter(is_about);
    holding.max_by_key(|order| (order.at_s, order.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_about_a_fleet_are_a_throttle_or_to_leave_it_alone() {
        let budget = Budget { rate: crate::policy::Rate { count: 5, per_ns: 1_000_000_000 }, burst: 5 };
        let packets = Budgets { packets: Some(budget), ..Budgets::default() };
        let bytes = Budgets { bytes: Some(budget), ..Budgets::default() };
        assert_eq!(Wanted::of(None), Ok(Wanted::THROTTLE));
        assert_eq!(Wanted::of(Some(&IncidentAction::Allow)), Ok(Wanted::Leave));
        let throttle = Wanted::of(Some(&IncidentAction::Throttle(packets))).unwrap();
        assert_eq!(throttle, Wanted::Throttle { packets: Some(budget), connections: None });
        assert_eq!(
            [throttle, Wanted::THROTTLE, Wanted::Leave].map(|wanted| wanted.to_string()),
            ["throttle packets 5/s burst 5", "throttle", "allow"]
        );
        let other = Budget { burst: 1, ..budget };
        let usual = SharedBudgets { packets: other, connections: other };
        assert_eq!(throttle.instead_of(usual), SharedBudgets { packets: budget, connections: other });
        for action in [IncidentAction::Block, IncidentAction::Throttle(bytes)] {
            assert!(Wanted::of(Some(&action)).unwrap_err().contains("expected"), "{action:?}");
        }
    }

    #[test]
    fn the_last_order_holds_until_its_end() {
        let order = |id, at_s, until_s| Order {
            id,
            fleet: FleetId(3),
            wanted: Wanted::Leave,
            force: false,
            by: "ann".to_owned(),
            reason: "a partner".to_owned(),
            at_s,
            until_s,
        };
        let orders = [order(2, 10, 50), order(1, 5, 100), order(3, 10, 40)];
        let of = |id| crate::actions::fixtures::fleet(id, 1);
        let holding = |now_s| holds(&orders, &of(3), now_s).map(|order| order.id);
        assert_eq!([holding(10), holding(40), holding(50), holding(100)], [Some(3), Some(2), Some(1), None]);
        assert_eq!(holds(&orders, &of(4), 10), None);
        let joined = Fleet { joined: vec![FleetId(3)], ..of(4) };
        assert_eq!(holds(&orders, &joined, 10).map(|order| order.id), Some(3), "it became part of another");
        let throttles = orders.map(|order| Order { wanted: Wanted::THROTTLE, ..order });
        assert_eq!(holds(&throttles, &joined, 10), None, "that is about a part");
    }
}
