//! Flows that are being looked at, with a bound: over it, the one that was idle longest goes.

use std::hash::Hash;

use lru::LruCache;

/// What is kept of a flow.
pub trait Held {
    /// Bytes that it holds beside its own fixed size.
    fn held_bytes(&self) -> usize;
}

/// How many flows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Flows at a time.
    pub flows: usize,
    /// Bytes that all of them hold.
    pub bytes: usize,
}

/// Flows by last use.
pub struct Recent<K: Hash + Eq, V> {
    flows: LruCache<K, V>,
    held_bytes: usize,
    bounds: Bounds,
}

impl<K: Hash + Eq + Clone, V: Held + Default> Recent<K, V> {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { flows: LruCache::unbounded(), held_bytes: 0, bounds }
    }

    /// Has something done with a flow, which begins with it if it is new.
    pub fn with<R>(&mut self, key: &K, act: impl FnOnce(&mut V) -> R) -> R {
        let flow = self.flows.get_or_insert_mut_ref(key, V::default);
        let before = flow.held_bytes();
        let result = act(flow);
        self.held_bytes = self.held_bytes + flow.held_bytes() - before;
        result
    }

    /// The flow that was idle longest, taken out where there are more than the bounds allow; to be called until there is none.
    pub fn excess(&mut self) -> Option<(K, V)> {
        let is_over = self.flows.len() > self.bounds.flows || self.held_bytes > self.bounds.bytes;
        if is_over { self.pop() } else { None }
    }

    /// The flow that was idle longest, taken out if something holds of it.
    pub fn pop_if(&mut self, holds: impl FnOnce(&V) -> bool) -> Option<(K, V)> {
        let (_, flow) = self.flows.peek_lru()?;
        if holds(flow) { self.pop() } else { None }
    }

    /// The flow that was idle longest, taken out.
    pub fn pop(&mut self) -> Option<(K, V)> {
        let (key, flow) = self.flows.pop_lru()?;
        self.held_bytes -= flow.held_bytes();
        Some((key, flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Held for Vec<u8> {
        fn held_bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn over_a_bound_the_longest_idle_goes() {
        let mut recent = Recent::<u8, Vec<u8>>::new(Bounds { flows: 3, bytes: 100 });
        for key in [1, 2, 3, 1] {
            recent.with(&key, |flow| flow.push(key));
        }
        assert_eq!(recent.excess(), None);
        recent.with(&4, |flow| flow.push(4));
        assert_eq!(recent.excess(), Some((2, vec![2])));
        assert_eq!(recent.excess(), None);
        recent.with(&4, |flow| flow.resize(98, 0));
        assert_eq!(recent.excess(), Some((3, vec![3])));
        assert_eq!((recent.excess(), recent.held_bytes), (None, 100));
        recent.with(&4, Vec::clear);
        assert_eq!(recent.pop_if(|flow| flow.is_empty()), None);
        assert_eq!(recent.pop_if(|flow| flow == &[1, 1]), Some((1, vec![1, 1])));
        assert_eq!((recent.pop(), recent.held_bytes), (Some((4, vec![])), 0));
    }
}
