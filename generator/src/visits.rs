//! Visits: spans of activity of one client, planned a day ahead and held while they last.

use std::ops::Range;

use crate::conversation::Conversation;
use crate::rows::Rows;
use crate::time::DAY_S;

/// A visit to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Visit {
    /// When it begins, seconds since the recording began.
    pub(crate) start_s: u32,
    /// Whose it is, by the number in its population.
    pub(crate) who: u32,
    /// What else the population has to know of it.
    pub(crate) what: u32,
    /// How many exchanges it has.
    pub(crate) exchanges: u32,
    /// How long it lasts, seconds.
    pub(crate) length_s: u32,
}

/// Who visits, when and how.
pub(crate) trait Plan {
    /// Adds the visits that begin on a day of the recording.
    fn day(&mut self, day: u32, visits: &mut Vec<Visit>);

    /// The client of a visit that begins.
    fn begin(&mut self, visit: &Visit) -> Conversation;

    /// A visit had exchanges in the epoch that begins then.
    fn talked(&mut self, _visit: &Visit, _time_s: u32, _exchanges: u32, _conversation: &Conversation) {}
}

/// The visits of one population.
#[derive(Debug)]
pub(crate) struct Visits<P> {
    pub(crate) plan: P,
    /// Of this day, in the order of time.
    planned: Vec<Visit>,
    /// Of them, the next one to begin.
    next: usize,
    active: Vec<Active>,
}

#[derive(Debug)]
struct Active {
    visit: Visit,
    /// Exchanges to come.
    left: u32,
    conversation: Conversation,
}

impl<P: Plan> Visits<P> {
    pub(crate) const fn new(plan: P) -> Self {
        Self { plan, planned: Vec::new(), next: 0, active: Vec::new() }
    }

    /// What goes on in an epoch, seconds since the recording began.
    pub(crate) fn step(&mut self, span: &Range<u32>, rows: &mut Rows) {
        if span.start.is_multiple_of(DAY_S) {
            self.planned.clear();
            self.next = 0;
            self.plan.day(span.start / DAY_S, &mut self.planned);
            self.planned.sort_unstable();
        }
        while let Some(&visit) = self.planned.get(self.next)
            && visit.start_s < span.end
        {
            self.next += 1;
            let conversation = self.plan.begin(&visit);
            self.active.push(Active { visit, left: visit.exchanges, conversation });
        }
        let mut index = 0;
        while let Some(active) = self.active.get_mut(index) {
            active.step(span, rows, &mut self.plan);
            if active.left == 0 {
                active.conversation.end(rows);
                self.active.swap_remove(index);
            } else {
                index += 1;
            }
        }
    }
}

impl Active {
    fn step<P: Plan>(&mut self, span: &Range<u32>, rows: &mut Rows, plan: &mut P) {
        let end_s = self.visit.start_s + self.visit.length_s;
        let now = if end_s < span.end {
            self.left
        } else {
            let from_s = self.visit.start_s.max(span.start);
            let part = f64::from(span.end - from_s) / f64::from(end_s - from_s + 1);
            self.conversation.stream.binomial(self.left, part)
        };
        if now > 0 {
            self.left -= now;
            self.conversation.talk(now, rows);
            plan.talked(&self.visit, span.start, now, &self.conversation);
        }
    }
}
