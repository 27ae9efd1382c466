//! How many requests of one store may be in flight.
//!
//! The HTTP library limits the connections that are idle, not those that are open: without a gate, 1,000 renewals at
//! once open some 500 connections.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Lane;
use crate::clock::Limit;

/// Requests in flight in the ordinary lane.
pub(super) const ORDINARY: usize = 8;
/// What releases have for themselves, so that a lock is let go while everything else hangs.
pub(super) const RELEASE: usize = 4;
/// Requests at once that wait for something to happen. They keep nobody from anything, but each has a connection: a
/// Consul agent takes 200 from one address (`limits.http_max_conns_per_client`).
pub(super) const WAIT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    ordinary: Condvar,
    release: Condvar,
    wait: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ordinary: usize,
    release: usize,
    wait: usize,
    /// How many wait for an ordinary slot; while any does, releases keep to their own.
    waiting: usize,
    /// How many releases wait: nobody is woken for nothing.
    releases_waiting: usize,
}

/// A slot; let go when dropped.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    slot: Lane,
}

impl Gate {
    /// Waits for a slot; `None` when the time is up.
    pub(super) fn enter(&self, lane: Lane, limit: &Limit) -> Option<Pass<'_>> {
        let mut state = self.lock();
        let ordinary = usize::from(lane == Lane::Ordinary);
        let release = usize::from(lane == Lane::Release);
        state.waiting += ordinary;
        state.releases_waiting += release;
        // A slot comes before the limit, so that no wake-up gets lost with one who gives up.
        let slot = loop {
            if let Some(slot) = state.take(lane) {
                break Some(slot);
            }
            let left = limit.remaining();
            if left.is_zero() {
                break None;
            }
            let free = match lane {
                Lane::Ordinary => &self.ordinary,
                Lane::Release => &self.release,
                Lane::Wait => &self.wait,
            };
            let left = limit.clock().real(left);
            state = free.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= ordinary;
        state.releases_waiting -= release;
        if state.releases_waiting > 0 && state.waiting == 0 && state.ordinary < ORDINARY {
            self.release.notify_one();
        }
        slot.map(|slot| Pass { gate: self, slot })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, lane: Lane) -> Option<Lane> {
        if lane == Lane::Wait {
            let free = self.wait < WAIT;
            self.wait += usize::from(free);
            return free.then_some(Lane::Wait);
        }
        let release = lane == Lane::Release;
        if release && self.release < RELEASE {
            self.release += 1;
            return Some(Lane::Release);
        }
        if self.ordinary < ORDINARY && !(release && self.waiting > 0) {
            self.ordinary += 1;
            return Some(Lane::Ordinary);
        }
        None
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        match self.slot {
            Lane::Release => state.release -= 1,
            Lane::Ordinary => state.ordinary -= 1,
            Lane::Wait => {
                state.wait -= 1;
                return self.gate.wait.notify_one();
            }
        }
        if self.slot == Lane::Ordinary && state.waiting > 0 {
            self.gate.ordinary.notify_one();
        } else if state.releases_waiting > 0 {
            self.gate.release.notify_one();
        }
    }
}
