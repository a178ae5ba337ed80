//! Changes of the policy from within this process take turns: so each kind of them has one thread at most. That nobody else
//! changes the policy meanwhile is not their matter but that of the policy's lock, which each of them takes besides.

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Which changes wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ends a trial: waits for no look at the traffic.
    EndTrial,
    /// Takes incident rules back.
    Undo,
    /// Says something of fleets, which the daemon hears: waits for no look at the traffic either.
    Fleets,
    /// Anything else, which may look at the traffic for seconds.
    Ordinary,
}

impl Kind {
    /// How many there are, and so how many changes are made at a time.
    pub(crate) const COUNT: usize = 4;
}

/// The turns of those who change the policy.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Read by everyone who has or waits for a turn, written by the end.
    begun: RwLock<()>,
    kinds: [Mutex<()>; Kind::COUNT],
}

/// The right to change the policy under its lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _begun: RwLockReadGuard<'a, ()>,
    _kind: MutexGuard<'a, ()>,
}

impl Turns {
    /// Waits for those of the same kind who came before; not for others.
    pub(crate) async fn take(&self, kind: Kind) -> Turn<'_> {
        // In this order: the end waits also for who waits.
        let begun = self.begun.read().await;
        Turn { _begun: begun, _kind: self.kinds[kind as usize].lock().await }
    }

    /// Waits for all who came before. Who comes later gets no turn while this is held.
    pub(crate) async fn end(&self) -> RwLockWriteGuard<'_, ()> {
        self.begun.write().await
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use super::*;

    /// Whether something does not wait, as of now.
    async fn is_ready<T>(future: impl Future<Output = T>) -> bool {
        let mut future = pin!(future);
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn only_those_of_a_kind_wait_for_each_other() {
        let turns = Turns::default();
        let ordinary = turns.take(Kind::Ordinary).await;
        assert!(!is_ready(turns.take(Kind::Ordinary)).await);
        let way_out = turns.take(Kind::EndTrial).await;
        let undo = turns.take(Kind::Undo).await;
        assert!(!is_ready(turns.take(Kind::EndTrial)).await && !is_ready(turns.take(Kind::Undo)).await);
        drop((ordinary, way_out, undo));
        assert!(is_ready(turns.take(Kind::Ordinary)).await);
    }

    #[tokio::test]
    async fn the_end_waits_for_all_who_came_before() {
        let turns = Turns::default();
        let ordinary = turns.take(Kind::Ordinary).await;
        let mut next = pin!(turns.take(Kind::Ordinary));
        assert!(!is_ready(next.as_mut()).await);
        let mut end = pin!(turns.end());
        assert!(!is_ready(end.as_mut()).await);
        drop(ordinary);
        assert!(!is_ready(end.as_mut()).await, "one has waited");
        drop(next.await);
        let end = end.await;
        assert!(!is_ready(turns.take(Kind::Undo)).await);
        drop(end);
    }
}
