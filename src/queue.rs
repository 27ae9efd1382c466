//! Who asks next: the threads of one process that want the same lock stand in line, and the first one asks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{Holder, backoff::Pace};

/// The lines of one store, by lock name. A name has one while somebody waits for it.
#[derive(Default)]
pub(crate) struct Queues {
    lines: Mutex<HashMap<Arc<str>, Arc<Line>>>,
    /// How many lines there are, so that an unlock that nobody waits for costs one load.
    count: AtomicUsize,
}

/// Those who wait for one name, in the order in which they came.
#[derive(Default)]
pub(crate) struct Line {
    state: Mutex<State>,
    moved: Condvar,
    pub(crate) pace: Arc<Pace>,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: VecDeque<u64>,
    /// Whom the store named last, so that all in the line know.
    holder: Option<Holder>,
}

impl Queues {
    /// Whether somebody waits for this name already.
    pub(crate) fn is_waited_for(&self, name: &str) -> bool {
        self.count.load(Ordering::SeqCst) > 0 && self.lines().contains_key(name)
    }

    /// Takes the last place in the line of a name.
    pub(crate) fn enter(&self, name: &Arc<str>) -> Place<'_> {
        let mut lines = self.lines();
        let line = lines.entry(name.clone()).or_default().clone();
        self.count.store(lines.len(), Ordering::SeqCst);
        // Under the lock of the lines, so that no line goes away between.
        let mut state = line.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.push_back(id);
        drop(state);
        drop(lines);
        let name = name.clone();
        Place { queues: self, line, name, id }
    }

    /// This process released the lock: whoever asks for it next should do so now.
    pub(crate) fn nudge(&self, name: &str) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(line) = self.lines().get(name)
        {
            line.pace.nudge();
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn holder(&self) -> Option<Holder> {
        self.lock().holder.clone()
    }

    pub(crate) fn set_holder(&self, holder: Option<Holder>) {
        self.lock().holder = holder;
    }
}

/// A place in a line; whoever leaves it, by a grant, an error or a panic, hands it on.
pub(crate) struct Place<'a> {
    queues: &'a Queues,
    pub(crate) line: Arc<Line>,
    name: Arc<str>,
    id: u64,
}

impl Place<'_> {
    /// Waits to be the first, for so long at most.
    ///
    /// Neighbours who share a lock go in one right behind the other: the first leaves with its grant, and the
    /// next one asks at once.
    pub(crate) fn is_first(&self, within: Duration) -> bool {
        let state = self.line.lock();
        let (state, _) = self
            .line
            .moved
            .wait_timeout_while(state, within, |s| s.waiting.front() != Some(&self.id))
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting.front() == Some(&self.id)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.queues.lines();
        let mut state = self.line.lock();
        state.waiting.retain(|id| *id != self.id);
        if state.waiting.is_empty() {
            lines.remove(&self.name);
            self.queues.count.store(lines.len(), Ordering::SeqCst);
        }
        drop(state);
        self.line.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn first_come_first_asks_and_a_line_lives_while_it_is_waited_in() {
        let queues = Queues::default();
        let name: Arc<str> = "x".into();
        assert!(!queues.is_waited_for("x"));
        let first = queues.enter(&name);
        let second = queues.enter(&name);
        let third = queues.enter(&name);
        let other = queues.enter(&"y".into());
        assert!(other.is_first(NOW), "another name, another line");
        assert!(first.is_first(NOW) && !second.is_first(NOW) && !third.is_first(NOW));
        drop(second);
        assert!(!third.is_first(NOW));
        drop(first);
        assert!(third.is_first(NOW) && queues.is_waited_for("x"));
        third.line.set_holder(Some(Holder::new("h")));
        drop(third);
        assert!(!queues.is_waited_for("x"), "nothing is left behind");
        assert_eq!(queues.enter(&name).line.holder(), None);
    }

    #[test]
    fn a_panic_hands_the_place_on() {
        let queues = Queues::default();
        let name: Arc<str> = "x".into();
        std::thread::scope(|scope| {
            let place = queues.enter(&name);
            let behind = queues.enter(&name);
            let panicked = scope.spawn(move || {
                let _place = place;
                panic!("on purpose");
            });
            assert!(behind.is_first(Duration::from_secs(10)));
            assert!(panicked.join().is_err());
        });
    }
}
