//! How much is done at a time. A permit belongs to the work and not to who waits for it: work beside the loop goes on when
//! who asked has gone, and would else have no bound.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{blocking, caller::Who};
use crate::commands::Failure;

/// The right to do something until it is dropped.
pub(super) type Permit = OwnedSemaphorePermit;

/// So many may do something at a time; the others wait in their order.
#[derive(Debug, Clone)]
pub(super) struct Permits(Arc<Semaphore>);

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Waits for one.
    pub(super) async fn take(&self) -> Result<Permit, Failure> {
        take(self.0.clone()).await
    }

    /// One, where it is free at once.
    pub(super) fn try_take(&self) -> Option<Permit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// So many of each caller, so that nobody has those of all.
#[derive(Debug)]
pub(super) struct PermitsOfEach {
    count: usize,
    /// Of those who have or wait for one.
    callers: Mutex<HashMap<Who, Arc<Semaphore>>>,
}

impl PermitsOfEach {
    pub(super) fn new(count: usize) -> Self {
        Self { count, callers: Mutex::default() }
    }

    /// Waits for one.
    pub(super) async fn take(&self, who: &Who) -> Result<Permit, Failure> {
        take(self.of(who)).await
    }

    /// One, where it is free at once.
    pub(super) fn try_take(&self, who: &Who) -> Option<Permit> {
        self.of(who).try_acquire_owned().ok()
    }

    fn of(&self, who: &Who) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        // Each permit, and each who waits, has a count of its own.
        callers.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        callers.entry(who.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.count))).clone()
    }
}

async fn take(semaphore: Arc<Semaphore>) -> Result<Permit, Failure> {
    let permit = semaphore.acquire_owned().await;
    permit.map_err(|_| Failure::unavailable("the daemon is ending: ask the next one"))
}

/// Does work beside the loop that has its permits until it is done, also where nobody waits for it any more.
pub(super) async fn blocking_with<T: Send + 'static>(
    permits: impl Send + 'static,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    blocking(move || {
        let done = work();
        drop(permits);
        done
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_permit_when_nobody_waits_for_it() {
        let permits = Permits::new(1);
        let (end, ended) = mpsc::channel::<()>();
        let permit = permits.take().await.unwrap();
        let work = blocking_with(permit, move || Ok(ended.recv().is_err()));
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        assert!(permits.try_take().is_none(), "the work goes on");
        drop(end);
        assert!(permits.take().await.is_ok());
    }

    #[test]
    fn nobody_has_those_of_all_and_who_has_none_is_forgotten() {
        let permits = PermitsOfEach::new(2);
        let (one, other) = (Who::User(1), Who::Token("1".to_owned()));
        let held = [permits.try_take(&one), permits.try_take(&one)];
        assert!(held.iter().all(Option::is_some) && permits.try_take(&one).is_none());
        assert!(permits.try_take(&other).is_some());
        drop(held);
        assert!(permits.try_take(&one).is_some());
        assert_eq!(permits.callers.lock().unwrap().len(), 1);
    }
}
