//! The time that locks are judged by, and the only place that asks the machine for it.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Add,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

/// A point on a store's [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Later than every moment that a clock can show.
    pub(crate) const NEVER: Self = Self(Duration::from_nanos(u64::MAX));

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// Since the clock's own beginning; ends at 584 years.
    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time from `earlier` to here; zero when that is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time)).min(Self::NEVER)
    }
}

/// A clock that nobody can set and that goes on while the machine is suspended.
///
/// `CLOCK_BOOTTIME` on Linux and Android, `CLOCK_MONOTONIC` on Apple, [`std::time::Instant`] elsewhere. A
/// [`manual`](Self::manual) one is moved by a test.
#[derive(Clone)]
pub struct Clock(Option<Arc<Manual>>);

#[derive(Default)]
struct Manual {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    now: Duration,
    next_id: u64,
    appointments: BTreeMap<u64, Slot>,
}

struct Slot {
    due: Moment,
    stalled: bool,
}

impl Clock {
    /// How long a thread sleeps before it looks again at a clock that is moved by hand.
    const GLANCE: Duration = Duration::from_micros(300);
    /// How long `advance` bears a keeper that hangs in its store.
    const STALL: Duration = Duration::from_secs(1);

    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until a test moves it.
    pub fn manual() -> Self {
        Self(Some(Arc::default()))
    }

    /// Lets time pass: what falls due meanwhile (renewals) is done at its own moment, before this returns.
    ///
    /// # Blocking
    /// For as long as the stores take, and at most a second for each keeper that hangs in its store.
    ///
    /// # Panics
    /// The system's clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        let manual = self.by_hand();
        let mut state = manual.lock();
        let target = Moment(state.now) + by;
        while let Some((&id, due)) = state
            .appointments
            .iter()
            .filter(|(_, slot)| !slot.stalled && slot.due <= target)
            .map(|(id, slot)| (id, slot.due))
            .min_by_key(|&(_, due)| due)
        {
            state.now = state.now.max(due.0);
            manual.changed.notify_all();
            let (back, wait) = manual
                .changed
                .wait_timeout_while(state, Self::STALL, |s| {
                    s.appointments.get(&id).is_some_and(|s| s.due == due)
                })
                .unwrap_or_else(PoisonError::into_inner);
            state = back;
            if wait.timed_out()
                && let Some(slot) = state.appointments.get_mut(&id)
            {
                slot.stalled = true;
            }
        }
        state.now = state.now.max(target.0);
        manual.changed.notify_all();
    }

    /// Moves to a later time at once, as if the machine had been suspended: nothing was done on the way.
    ///
    /// # Panics
    /// The system's clock cannot be moved.
    pub fn suspend(&self, time: Duration) {
        let manual = self.by_hand();
        let mut state = manual.lock();
        state.now = (Moment(state.now) + time).0;
        manual.changed.notify_all();
    }

    /// The time now.
    pub fn now(&self) -> Moment {
        match &self.0 {
            None => Moment(system_now()),
            Some(manual) => Moment(manual.lock().now),
        }
    }

    fn by_hand(&self) -> &Manual {
        self.0.as_deref().expect("only a `Clock::manual` can be moved")
    }

    /// How long a thread may really sleep when it wants to see `time` pass on this clock.
    pub(crate) fn real(&self, time: Duration) -> Duration {
        match &self.0 {
            None => time,
            Some(_) => time.min(Self::GLANCE),
        }
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.0.is_some()
    }

    /// Tells a manual clock when this thread has to act next, so that `advance` waits for it.
    pub(crate) fn appointment(&self) -> Appointment {
        let id = self.0.as_ref().map_or(0, |manual| {
            let mut state = manual.lock();
            state.next_id += 1;
            state.next_id
        });
        Appointment { clock: self.clone(), id }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_manual() { "manual" } else { "system" };
        write!(f, "Clock({kind}, {:?})", self.now())
    }
}

impl Manual {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When one thread acts next; kept with a manual clock, nothing at all with the system's.
pub(crate) struct Appointment {
    clock: Clock,
    id: u64,
}

impl Appointment {
    pub(crate) fn set(&self, due: Moment) {
        if let Some(manual) = &self.clock.0 {
            let stalled = false;
            let slot = Slot { due, stalled };
            manual.lock().appointments.insert(self.id, slot);
            manual.changed.notify_all();
        }
    }
}

impl Drop for Appointment {
    fn drop(&mut self) {
        if let Some(manual) = &self.clock.0 {
            manual.lock().appointments.remove(&self.id);
            manual.changed.notify_all();
        }
    }
}

/// Time that passes on the store's clock or on the machine's, whichever goes faster.
///
/// So a test that moves a clock by hand can let a timeout pass, and one that does not is never stuck.
#[derive(Clone, Debug)]
pub(crate) struct Stopwatch {
    clock: Clock,
    began: Moment,
    really_began: Moment,
}

impl Stopwatch {
    pub(crate) fn start(clock: &Clock) -> Self {
        let began = clock.now();
        let really_began = if clock.is_manual() { Moment(system_now()) } else { began };
        Self { clock: clock.clone(), began, really_began }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let elapsed = self.clock.now().saturating_since(self.began);
        if self.clock.is_manual() {
            return elapsed.max(Moment(system_now()).saturating_since(self.really_began));
        }
        elapsed
    }

    /// So long after its start.
    pub(crate) fn limit(&self, time: Duration) -> Limit {
        Limit { watch: self.clone(), time }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The end of a wait, by a [`Stopwatch`].
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    watch: Stopwatch,
    time: Duration,
}

impl Limit {
    pub(crate) fn after(clock: &Clock, time: Duration) -> Self {
        Self { watch: Stopwatch::start(clock), time }
    }

    /// None at all: reads no clock.
    pub(crate) fn never(clock: &Clock) -> Self {
        let began = Moment(Duration::ZERO);
        Stopwatch { clock: clock.clone(), began, really_began: began }.limit(Duration::MAX)
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.time.saturating_sub(self.watch.elapsed())
    }

    pub(crate) fn passed(&self) -> bool {
        self.remaining().is_zero()
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.watch.clock()
    }

    #[cfg(feature = "file")]
    pub(crate) fn began(&self) -> Moment {
        self.watch.began
    }
}

/// The wall clock, for what people read and for fencing counters; never for a lease.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(unix)]
fn system_now() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const ID: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const ID: ClockId = ClockId::Monotonic;
    let time = clock_gettime(ID);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(unix))]
#[expect(clippy::disallowed_methods, reason = "the one place")]
fn system_now() -> Duration {
    use std::{sync::OnceLock, time::Instant};
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn manual_clocks_move_by_hand_only_and_never_overflow() {
        let clock = Clock::manual();
        let start = clock.now();
        assert_eq!(clock.clone().now(), start);
        clock.advance(SECOND);
        assert_eq!(clock.now().saturating_since(start), SECOND);
        clock.suspend(Duration::MAX);
        assert_eq!(clock.now() + Duration::MAX, Moment::NEVER);
    }

    #[test]
    fn the_system_clock_goes_on() {
        let clock = Clock::system();
        let start = clock.now();
        while clock.now() == start {}
        assert!(clock.now() > start);
    }

    #[test]
    fn a_limit_ends_on_a_clock_moved_by_hand_and_on_the_machines() {
        let clock = Clock::manual();
        let limit = Limit::after(&clock, 60 * SECOND);
        assert!(!limit.passed());
        clock.advance(60 * SECOND);
        assert!(limit.passed());
        let short = Limit::after(&clock, Duration::from_millis(2));
        while !short.passed() {}
    }
}
