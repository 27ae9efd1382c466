//! The machine in histories at random, and by hand.

use std::cell::Cell;

use proptest::{prelude::*, test_runner::Config};

use super::{
    model::{Answer, Weather, play},
    *,
};

fn at(ms: u64) -> Moment {
    Moment::from_nanos(ms * 1_000_000)
}

fn weather(ttl: u64) -> impl Strategy<Value = Weather> {
    let answer = prop_oneof![
        6 => Just(Answer::Yes),
        2 => Just(Answer::Lost),
        2 => Just(Answer::Never),
        1 => Just(Answer::Gone),
    ];
    prop_oneof![
        2 => prop_oneof![4 => 0..ttl / 4, 1 => 0..ttl * 2].prop_map(Weather::Stall),
        9 => (prop_oneof![3 => 0..ttl / 8, 1 => 0..ttl * 2], answer)
            .prop_map(|(delay, answer)| Weather::Renew { delay, answer }),
        1 => Just(Weather::Watchdog),
    ]
}

fn history() -> impl Strategy<Value = (u64, u64, Vec<Weather>, f64)> {
    (300_u64..120_000).prop_flat_map(|ttl| {
        (Just(ttl), 0..ttl * 2, prop::collection::vec(weather(ttl), 1..24), 0.0..1.0_f64)
    })
}

#[test]
fn no_history_leaves_it_held_past_its_time() {
    let (histories, renewals) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut config = Config::with_cases(100_000);
    config.failure_persistence = None;
    proptest::test_runner::TestRunner::new(config)
        .run(&history(), |(ttl, late, weather, roll)| {
            renewals.set(renewals.get() + play(ttl, late, &weather, roll));
            histories.set(histories.get() + 1);
            Ok(())
        })
        .unwrap();
    assert!(histories.get() >= 100_000);
    assert!(renewals.get() > histories.get() / 2, "the histories renew");
}

#[test]
fn renewals_come_at_a_third_of_the_ttl_and_a_little_before() {
    let ttl = Duration::from_secs(30);
    for (roll, due) in [(0.0, 8_000), (0.5, 9_000), (0.999, 9_998)] {
        let mut lease = Lease::new(Some(Ttl::new(ttl)), true, at(0), roll);
        assert_eq!(lease.step(at(1)), Step::Wait(at(due)));
        assert!(matches!(lease.step(at(due)), Step::Renew(_)));
    }
    assert_eq!(Ttl::new(ttl).validity(), Duration::from_millis(29_400));
}

#[test]
fn retries_are_spread_and_more_and_more_rare_but_many() {
    let mut lease = Lease::new(Some(Ttl::new(Duration::from_secs(30))), true, at(0), 0.0);
    let mut now = at(8_000);
    let mut pauses = Vec::new();
    while let Step::Renew(_) = lease.step(now) {
        lease.outcome(now, Outcome::Unclear, 0.0);
        if let Step::Wait(next) = lease.step(now) {
            pauses.push(next.saturating_since(now));
            now = next;
        }
    }
    assert_eq!(lease.state(), State::Lost(LostReason::Expired));
    assert!(pauses.len() > 15, "{pauses:?}");
    assert!(pauses[0] < Duration::from_millis(250), "{pauses:?}");
    assert!(pauses[0] < pauses[1] && pauses[1] < pauses[2]);
    let mut high = Lease::new(Some(Ttl::new(Duration::from_secs(30))), true, at(0), 0.0);
    high.outcome(at(8_000), Outcome::Unclear, 0.99);
    let Step::Wait(spread) = high.step(at(8_000)) else { panic!("waits") };
    assert!(spread.saturating_since(at(8_000)) > pauses[0].mul_f64(1.9));
}

#[test]
fn a_renewal_that_was_sent_before_the_newest_one_shortens_nothing() {
    let mut lease = Lease::new(Some(Ttl::new(Duration::from_secs(30))), true, at(5_000), 0.0);
    lease.outcome(at(6_000), Outcome::Renewed(at(1_000)), 0.0);
    assert_eq!(lease.valid_until(), at(34_400));
}

#[test]
fn without_expiry_it_is_asked_after_and_never_runs_out() {
    let mut lease = Lease::new(None, true, at(0), 0.0);
    assert_eq!(lease.step(at(1)), Step::Wait(at(8_000)));
    lease.outcome(at(8_000), Outcome::Unclear, 0.0);
    assert!(matches!(lease.step(at(10_000_000)), Step::Renew(CHECK)));
    lease.outcome(at(10_000_000), Outcome::Gone(LostReason::Broken), 0.0);
    assert_eq!(lease.state(), State::Lost(LostReason::Broken));
    assert!(!lease.is_half_gone(at(0)));
}

#[test]
fn without_auto_renew_only_the_holder_renews() {
    let mut lease = Lease::new(Some(Ttl::new(Duration::from_secs(10))), false, at(0), 0.5);
    assert_eq!(lease.step(at(9_000)), Step::Wait(at(9_800)));
    assert!(!lease.is_half_gone(at(4_900)) && lease.is_half_gone(at(4_901)));
    lease.outcome(at(9_100), Outcome::Renewed(at(9_000)), 0.5);
    assert_eq!(lease.step(at(9_100)), Step::Wait(at(18_800)));
    assert_eq!(lease.step(at(18_800)), Step::Lost(LostReason::Expired));
}
