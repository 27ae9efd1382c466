//! Jittered pauses, and the dice for them.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    ops::RangeInclusive,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::Limit;

/// A random number in `0.0..1.0`: good for spreading load, for nothing else.
pub(crate) fn roll() -> f64 {
    thread_local! {
        static SEED: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    let seed = SEED.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEED.set(seed);
    // SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    #[expect(clippy::cast_precision_loss, reason = "the lost bits do not matter")]
    let unit = (z >> 11) as f64 / (1_u64 << 53) as f64;
    unit
}

/// Pauses that grow from the start of a range to its end.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    pauses: u32,
}

impl Backoff {
    /// The next pause: between half of what is due and all of it.
    pub(crate) fn next(&mut self, range: &RangeInclusive<Duration>, roll: f64) -> Duration {
        let factor = 1.5_f64.powi(self.pauses.min(32).cast_signed());
        self.pauses += 1;
        let due = range.start().as_secs_f64() * factor;
        let due = due.min(range.end().as_secs_f64());
        Duration::try_from_secs_f64(due * (0.5 + 0.5 * roll)).unwrap_or(*range.end())
    }

    /// Starts again from the shortest pause.
    pub(crate) fn reset(&mut self) {
        self.pauses = 0;
    }
}

/// The pace at which one name is asked for in this process. It belongs to the name, not to who asks.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    state: Mutex<Beat>,
    nudged: Condvar,
}

#[derive(Debug, Default)]
struct Beat {
    backoff: Backoff,
    /// What the store asked for; no pause is shorter.
    retry_after: Option<Duration>,
    nudges: u64,
}

impl Pace {
    /// How long to pause now.
    pub(crate) fn next(&self, range: &RangeInclusive<Duration>) -> Duration {
        let mut beat = self.lock();
        let asked_for = beat.retry_after.take().unwrap_or_default();
        beat.backoff.next(range, roll()).max(asked_for)
    }

    pub(crate) fn retry_after(&self, wait: Option<Duration>) {
        self.lock().retry_after = wait;
    }

    /// The name was had: who comes next starts with short pauses.
    pub(crate) fn reset(&self) {
        self.lock().backoff.reset();
    }

    /// This process released the lock: another try makes sense now.
    pub(crate) fn nudge(&self) {
        self.lock().nudges += 1;
        self.nudged.notify_all();
    }

    /// Sleeps to the end of `limit`, for `slice` at most; `true` when nudged meanwhile.
    pub(crate) fn sleep(&self, limit: &Limit, slice: Duration) -> bool {
        let slice = Limit::after(limit.clock(), slice);
        let mut beat = self.lock();
        let before = beat.nudges;
        loop {
            let left = limit.remaining().min(slice.remaining());
            if left.is_zero() || beat.nudges != before {
                return beat.nudges != before;
            }
            let left = limit.clock().real(left);
            beat = self.nudged.wait_timeout(beat, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Beat> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_are_fair_enough() {
        let rolls: Vec<f64> = (0..10_000).map(|_| roll()).collect();
        assert!(rolls.iter().all(|r| (0.0..1.0).contains(r)));
        let mean = rolls.iter().sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }

    #[test]
    fn pauses_grow_to_the_end_of_the_range_and_stay_inside() {
        let range = Duration::from_millis(100)..=Duration::from_secs(1);
        let mut backoff = Backoff::default();
        let low: Vec<_> = (0..40).map(|_| backoff.next(&range, 0.0)).collect();
        assert_eq!(low[0], Duration::from_millis(50));
        assert_eq!(low[39], Duration::from_millis(500));
        assert!(low.windows(2).all(|w| w[0] <= w[1]));
        assert!(backoff.next(&range, 0.999) <= *range.end());
        backoff.reset();
        assert!(backoff.next(&range, 0.999) <= *range.start());
    }
}
