//! What people, the application and the policy say of fleets, read again where something of it is new.

use crate::{
    actions::order::{Order, Stop},
    change,
    commands::{Failure, PolicyFile},
    history::{Heard, History},
    kernel::{maps::Maps, read},
    policy::{Policy, compile::Manifest, incident::Incidents},
};

/// What people and the application say of fleets.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What is said at all has this mark; `None`: it was not read yet.
    mark: Option<Option<i64>>,
    pub(super) orders: Vec<Order>,
    pub(super) stop: Option<Stop>,
    pub(super) hints: Heard,
}

impl Said {
    /// Reads it again, if something was said since or has ended; whether it did.
    ///
    /// # Errors
    ///
    /// The history cannot be read. What was read before stays.
    pub(super) fn refresh(&mut self, history: &History, now_s: u64) -> Result<bool, Failure> {
        // The mark first: what is said after it is news again.
        let mark = history.fleets_said()?;
        let has_ended =
            self.orders_ended(now_s) || self.hints.until_s.is_some_and(|until_s| until_s <= now_s);
        if self.mark == Some(mark) && !has_ended {
            return Ok(false);
        }
        let (orders, stop) = (history.fleet_orders(now_s)?, history.fleets_stopped()?);
        *self = Self { mark: Some(mark), orders, stop, hints: history.hinted(now_s)? };
        Ok(true)
    }

    /// Whether something was said since it was read, or an order has ended: a look at one number. The end of a hint is heard with the next
    /// epoch. What cannot be read is no news.
    pub(super) fn has_news(&self, history: &History, now_s: u64) -> bool {
        self.orders_ended(now_s) || history.fleets_said().is_ok_and(|mark| self.mark != Some(mark))
    }

    fn orders_ended(&self, now_s: u64) -> bool {
        self.orders.iter().any(|order| order.until_s <= now_s)
    }
}

/// What the policy says, and whom it lets pass.
#[derive(Default)]
pub(super) struct InForce {
    pub(super) generation: u64,
    pub(super) manifest: Manifest,
    pub(super) incidents: Incidents,
    /// `None`: the history does not have its text. Whom it allows is not acted on by the program all the same.
    pub(super) policy: Option<Policy>,
}

impl InForce {
    /// `before`: what was read last.
    pub(super) fn read(maps: &Maps, history: &History, before: &Self) -> Result<Self, Failure> {
        let generation = read::settings(maps).active;
        let (manifest, incidents) = read::consistently(maps, |active| -> Result<_, read::ReadError> {
            Ok((active.manifest()?.unwrap_or_default(), active.incidents()?))
        })?;
        let version = change::in_kernel(maps)?.map_or(0, |kernel| kernel.version);
        let policy = history.content(version).map_err(Failure::from).and_then(|content| {
            let file = history.version(version)?.file;
            Ok(PolicyFile::of_version(&file, content)?.checked.policy)
        });
        if let Err(failure) = &policy
            && before.generation != generation
        {
            tracing::warn!(
                "whom the policy allows is not known here and left to the program: {}",
                failure.message
            );
        }
        Ok(Self { generation, manifest, incidents, policy: policy.ok() })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use detector_fleets::fleet::FleetId;

    use super::*;
    use crate::actions::{
        hints::{Hint, Label},
        order::Wanted,
    };

    #[test]
    fn what_is_said_is_read_once_and_again_when_something_is_said_or_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let history = History::new(directory.path(), Path::new("/sys/fs/bpf/one"));
        let mut said = Said::default();
        assert!(said.has_news(&history, 1), "nothing was read yet");
        assert!(said.refresh(&history, 1).expect("read") && !said.refresh(&history, 1).expect("read"));
        assert!(!said.has_news(&history, 1));

        let (by, reason) = ("ann".to_owned(), "INC-4711".to_owned());
        let order = Order {
            id: 0,
            fleet: FleetId(3),
            wanted: Wanted::Leave,
            force: false,
            by,
            reason,
            at_s: 1,
            until_s: 9,
        };
        history.order_fleets(&[order]).expect("ordered");
        assert!(said.has_news(&history, 2) && said.refresh(&history, 2).expect("read"));
        assert!(!said.has_news(&history, 8) && said.has_news(&history, 9), "it ends");
        assert!(said.refresh(&history, 9).expect("read") && said.orders.is_empty());

        let prefix = "192.0.2.7/32".parse().expect("a prefix");
        let (by, label) = ("billing".to_owned(), Label::Customer);
        let hint = Hint { id: 0, prefix, label, service: None, by, reason: None, at_s: 10, until_s: 20 };
        history.keep_hints(&[hint], 10).expect("kept");
        assert!(said.has_news(&history, 11) && said.refresh(&history, 11).expect("read"));
        let source = "192.0.2.7".parse().expect("a source");
        assert!(said.hints.hinted.at("api").is_customer(source));
        assert!(!said.has_news(&history, 20), "that can wait for an epoch");
        assert!(
            said.refresh(&history, 20).expect("read") && !said.hints.hinted.at("api").is_customer(source)
        );
    }
}
