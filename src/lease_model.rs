//! The machine against a model of a lease service: whatever is delayed, lost or late, and however clocks
//! step, a lease that says `Held` is one that the service cannot have given away.
//!
//! The tests and the fuzz target of the machine make up the histories.

use std::time::Duration;

use super::{Lease, Outcome, State, Step, Ttl};
use crate::{LostReason, clock::Moment};

/// What befalls one renewal, or the time between two.
#[derive(Clone, Debug)]
pub(crate) enum Weather {
    /// Time passes with nothing asked: the keeper was stalled, or the machine suspended.
    Stall(u64),
    /// The machine does what it was told, and the store answers after so long (or not at all).
    Renew { delay: u64, answer: Answer },
    /// Another thread saw the deadline pass first.
    Watchdog,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Yes,
    /// The store acted, its answer was lost.
    Lost,
    Never,
    Gone,
}

/// Plays one history; answers how many renewals were confirmed.
pub(crate) fn play(ttl: u64, born_late: u64, weather: &[Weather], roll: f64) -> u32 {
    let terms = Ttl::new(Duration::from_millis(ttl));
    let margin = terms.0.saturating_sub(terms.validity());
    assert!(margin >= Duration::from_millis(100) && margin >= terms.0 / 50);

    let sent = Moment::from_nanos(10_000_000);
    let mut now = sent + Duration::from_millis(born_late);
    let mut lease = Lease::new(Some(terms), true, sent, roll);
    // The model: the service counts from when it acted, which is never before the request was sent; what we
    // know of it is the newest request that was confirmed in time.
    let mut confirmed = sent;
    let mut over: Option<LostReason> = None;
    let mut renewals = 0;

    for event in weather {
        match *event {
            Weather::Stall(ms) => now = now + Duration::from_millis(ms),
            Weather::Watchdog => {
                if now >= confirmed + terms.validity() {
                    lease.lose(LostReason::Expired);
                }
            }
            Weather::Renew { delay, answer } => 'renew: {
                let limit = match lease.step(now) {
                    Step::Wait(until) => {
                        assert!(until > now, "a wait that is over at once spins");
                        assert!(until <= confirmed + terms.validity());
                        now = until;
                        match lease.step(now) {
                            Step::Renew(limit) => limit,
                            _ => break 'renew,
                        }
                    }
                    Step::Renew(limit) => limit,
                    Step::Lost(_) | Step::Done => break 'renew,
                };
                let sent = now;
                let left = (confirmed + terms.validity()).saturating_since(now);
                assert!(limit <= left / 3, "a try leaves room for two more");
                // A caller that is stalled itself overruns the limit; the answer is then later still.
                let in_time = Duration::from_millis(delay) <= limit;
                now = now + Duration::from_millis(delay);
                let was_over = now >= confirmed + terms.validity();
                let outcome = match answer {
                    Answer::Yes => Outcome::Renewed(sent),
                    Answer::Gone => Outcome::Gone(LostReason::Taken),
                    Answer::Lost | Answer::Never => Outcome::Unclear,
                };
                lease.outcome(now, outcome, roll);
                match (answer, was_over || over.is_some()) {
                    (Answer::Yes, false) => {
                        confirmed = sent;
                        renewals += 1;
                    }
                    (Answer::Gone, false) => over = Some(LostReason::Taken),
                    (Answer::Lost | Answer::Never, false) if in_time => {
                        assert_eq!(lease.state(), State::AtRisk, "ridden out");
                        let Step::Wait(again) = lease.step(now) else {
                            panic!("no pause before the next try");
                        };
                        assert!(again <= confirmed + terms.validity(), "tried while valid");
                    }
                    _ => {}
                }
            }
        }
        let valid = now < confirmed + terms.validity();
        if !valid && over.is_none() {
            over = Some(LostReason::Expired);
        }
        let before = lease.state();
        let step = lease.step(now);
        match over {
            Some(reason) => {
                assert_eq!(step, Step::Lost(reason), "lost is final");
                assert_eq!(lease.state(), State::Lost(reason), "was {before:?}");
            }
            None => assert!(matches!(lease.state(), State::Held | State::AtRisk)),
        }
        // The promise itself: said to be held only while the service still keeps it for us.
        if matches!(lease.state(), State::Held | State::AtRisk) {
            assert!(now < confirmed + terms.0.saturating_sub(margin));
        }
    }
    assert_eq!(lease.release(now), over.is_none());
    assert!(!lease.release(now));
    renewals
}
