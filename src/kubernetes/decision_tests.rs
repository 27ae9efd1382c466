use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(30);
/// Some moment of the server's.
const NOW: i64 = 1_795_261_118;

fn wanted<'a>(id: &'a str, mode: Mode, holder: &'a Holder) -> Wanted<'a> {
    Wanted { lock: "x", id, mode, ttl: TTL, holder }
}

fn stamp(counter: u64, time: i64) -> Stamp {
    Stamp { counter, time }
}

fn seen(unchanged: Duration, date: i64) -> Seen {
    Seen { unchanged, date: Some(date) }
}

fn state(slot: &Slot) -> State {
    State::of(slot).unwrap()
}

/// What a holder of ours writes at first.
fn taken(id: &str, mode: Mode) -> Slot {
    let holder = Holder::new("me").with_process("db1", 7);
    let wanted = wanted(id, mode, &holder);
    state(&Slot::default()).take(&wanted, &Verdict::Free, stamp(1, NOW)).unwrap()
}

/// A record as lockgate v0.1.1 writes it.
fn of_lockgate(uuid: &str, expires: i64, count: i64, shared: bool) -> Slot {
    let record = format!(
        r#"{{"uuid":"{uuid}","lockName":"x","ExpireAtTimestamp":{expires},"SharedHoldersCount":{count},"IsShared":{shared}}}"#
    );
    Slot { record: Some(record), note: None }
}

fn is_free(slot: &Slot, seen: Seen) -> bool {
    state(slot).verdict(seen) == Verdict::Free
}

#[test]
fn ours_is_gone_after_its_own_ttl_by_our_clock_whatever_clocks_say() {
    let slot = taken("a", Mode::Exclusive);
    for date in [0, NOW, NOW + 30] {
        assert!(!is_free(&slot, seen(TTL.saturating_sub(SECOND), date)), "{date}");
        assert!(is_free(&slot, seen(TTL, date)), "{date}");
    }
    assert!(is_free(&slot, Seen { unchanged: TTL, date: None }));
    assert!(!is_free(&slot, Seen { unchanged: TTL.saturating_sub(SECOND), date: None }));
}

#[test]
fn who_sees_it_for_the_first_time_goes_by_the_servers_time_and_a_wide_margin() {
    let slot = taken("a", Mode::Exclusive);
    assert!(!is_free(&slot, seen(Duration::ZERO, NOW + 30 + SKEW)));
    assert!(is_free(&slot, seen(Duration::ZERO, NOW + 30 + SKEW + 1)));
    // A user of lockgate to whom the lease was handed renews lockgate's record alone.
    let text = slot.record.as_ref().unwrap().replace(&(NOW + 30).to_string(), &(NOW + 90).to_string());
    let renewed = Slot { record: Some(text), ..slot };
    assert!(!is_free(&renewed, seen(Duration::ZERO, NOW + 90)));
}

#[test]
fn lockgates_is_gone_when_it_stood_still_and_its_time_is_over() {
    let slot = of_lockgate("l", NOW + 10, 1, false);
    assert!(!is_free(&slot, seen(10 * SECOND, NOW + 10)), "its own time is not over");
    assert!(!is_free(&slot, seen(9 * SECOND, NOW + 11)), "it may be renewed just now");
    assert!(is_free(&slot, seen(10 * SECOND, NOW + 11)));
    assert!(!is_free(&slot, seen(Duration::ZERO, NOW + 25)));
    assert!(is_free(&slot, seen(Duration::ZERO, NOW + 26)), "to cron, too");
    assert!(is_free(&of_lockgate("l", NOW + 10, 0, false), seen(Duration::ZERO, NOW)), "let go");
    assert!(is_free(&Slot { record: Some(String::new()), note: None }, seen(Duration::ZERO, NOW)));
}

#[test]
fn a_reader_joins_readers_and_never_shortens_their_time() {
    let holder = Holder::new("r");
    let theirs = of_lockgate("l", NOW + 5000, 2, true);
    let held = state(&theirs).verdict(seen(Duration::ZERO, NOW));
    assert!(matches!(held, Verdict::Held { mode: Mode::Shared, .. }));
    assert_eq!(state(&theirs).take(&wanted("a", Mode::Exclusive, &holder), &held, stamp(1, NOW)), None);
    let joined = state(&theirs).take(&wanted("a", Mode::Shared, &holder), &held, stamp(1, NOW)).unwrap();
    let record = Record::parse(joined.record.as_ref().unwrap()).unwrap();
    assert_eq!((record.uuid(), record.count(), record.expires()), ("l", 3, NOW + 5000));
    assert_eq!(state(&joined).ttl(), LOCKGATE_TTL);
    assert_eq!(state(&joined).counter_of("a", Mode::Shared), Ok(1));
    // Alone with a writer it waits.
    let writer = taken("w", Mode::Exclusive);
    let held = state(&writer).verdict(seen(Duration::ZERO, NOW));
    assert_eq!(state(&writer).take(&wanted("a", Mode::Shared, &holder), &held, stamp(1, NOW)), None);
}

#[test]
fn a_reader_leaves_once_however_often_it_says_so() {
    let holder = Holder::new("r");
    let theirs = of_lockgate("l", NOW + 10, 2, true);
    let held = state(&theirs).verdict(seen(Duration::ZERO, NOW));
    let joined = state(&theirs).take(&wanted("a", Mode::Shared, &holder), &held, stamp(1, NOW)).unwrap();
    let left = state(&joined).release("a", Mode::Shared).unwrap();
    assert_eq!(Record::parse(left.record.as_ref().unwrap()).unwrap().count(), 2);
    assert_eq!(left.note, None, "what is left is lockgate's");
    assert_eq!(state(&left).release("a", Mode::Shared), Err(LostReason::Taken));
    // The last one takes all of it away.
    let alone = taken("a", Mode::Shared);
    assert_eq!(state(&alone).release("a", Mode::Shared), Ok(Slot::default()));
}

#[test]
fn one_who_takes_over_a_shared_lock_alone_has_it_alone() {
    let holder = Holder::new("w");
    let theirs = of_lockgate("l", NOW - 100, 7, true);
    let slot =
        state(&theirs).take(&wanted("a", Mode::Exclusive, &holder), &Verdict::Free, stamp(1, NOW)).unwrap();
    let record = Record::parse(slot.record.as_ref().unwrap()).unwrap();
    assert_eq!((record.uuid(), record.count(), record.is_shared()), ("a", 1, false));
}

#[test]
fn a_renewal_changes_both_annotations_even_when_the_clock_stands() {
    let slot = taken("a", Mode::Exclusive);
    let renewed = state(&slot).renew("a", Mode::Exclusive, stamp(2, NOW)).unwrap();
    assert_ne!(renewed, slot);
    assert_eq!(state(&renewed).counter_of("a", Mode::Exclusive), Ok(2));
    let later = state(&renewed).renew("a", Mode::Exclusive, stamp(3, NOW + 10)).unwrap();
    assert!(later.record != renewed.record && later.note != renewed.note);
    let earlier = state(&later).renew("a", Mode::Exclusive, stamp(4, NOW - 3600)).unwrap();
    assert_eq!(earlier.record, later.record, "never to an earlier time");
    assert_ne!(earlier.note, later.note);
}

#[test]
fn a_loss_is_told_as_what_it_is() {
    let slot = taken("a", Mode::Exclusive);
    let lost = |slot: &Slot| state(slot).renew("a", Mode::Exclusive, stamp(2, NOW)).unwrap_err();
    assert_eq!(lost(&Slot::default()), LostReason::Deleted);
    assert_eq!(lost(&taken("b", Mode::Exclusive)), LostReason::Taken);
    let mixed = Slot { record: of_lockgate("l", NOW, 1, false).record, note: slot.note.clone() };
    assert_eq!(lost(&mixed), LostReason::Taken, "what is left of us says nothing");
    for now in [false, true] {
        let (broken, wait) = state(&slot).break_it(now, "operator", stamp(0, NOW)).unwrap();
        assert_eq!(lost(&broken), LostReason::Broken);
        assert_eq!(wait, if now { Duration::ZERO } else { TTL });
        assert_eq!(is_free(&broken, seen(Duration::ZERO, NOW)), now);
        assert!(is_free(&broken, seen(TTL, NOW)));
        let none = state(&broken).renew("other", Mode::Exclusive, stamp(1, NOW));
        assert_eq!(none, Err(LostReason::Taken), "broken was another's");
    }
    assert_eq!(state(&Slot::default()).break_it(true, "operator", stamp(0, NOW)), None);
}

#[test]
fn of_two_who_adopt_one_has_it() {
    let holder = Holder::new("next");
    for mode in [Mode::Exclusive, Mode::Shared] {
        let slot = taken("a", mode);
        let adopted = state(&slot).adopt("a", &wanted("b", mode, &holder), stamp(1, NOW)).unwrap();
        assert_eq!(state(&adopted).counter_of("b", mode), Ok(1));
        assert_eq!(state(&adopted).counter_of("a", mode), Err(LostReason::Taken));
        let second = state(&adopted).adopt("a", &wanted("c", mode, &holder), stamp(1, NOW));
        assert_eq!(second, Err(LostReason::Taken));
    }
}

#[test]
fn hostile_numbers_do_no_harm() {
    let far = i64::MAX;
    let record =
        format!(r#"{{"uuid":"u","ExpireAtTimestamp":{far},"SharedHoldersCount":{far},"IsShared":true}}"#);
    let note = format!(r#"{{"uuid":"u","ttl":86400000,"time":{far},"members":{{}}}}"#);
    let slot = Slot { record: Some(record), note: Some(note) };
    let held = state(&slot).verdict(seen(Duration::ZERO, far));
    let holder = Holder::new("r");
    let joined = state(&slot).take(&wanted("a", Mode::Shared, &holder), &held, stamp(u64::MAX, far)).unwrap();
    let _ =
        (state(&joined).renew("a", Mode::Shared, stamp(1, far)), state(&joined).release("a", Mode::Shared));
    let _ = (state(&joined).break_it(false, "o", stamp(1, far)), state(&joined).holders());
}

/// One who takes part in a history: what it believes, by true time in milliseconds.
#[derive(Clone, Debug)]
struct Actor {
    id: String,
    mode: Mode,
    ttl: Duration,
    /// Held, and until when it believes so.
    until: Option<u64>,
    counter: u64,
    /// As it saw the slot last, and since when it stood so.
    saw: Option<(Slot, u64)>,
    turns: u32,
}

#[derive(Clone, Debug)]
enum Step {
    /// Time goes on.
    Wait(u64),
    /// An actor tries to take the lock, or to renew it; the answer may be lost, and the request may be late.
    Act {
        actor: usize,
        lost: bool,
        late: u64,
    },
    Release(usize),
    /// An actor reads what stands there, perhaps as an old cache tells it.
    Look(usize),
    /// An actor is forgotten by itself: its process died.
    Die(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..9000_u64).prop_map(Step::Wait),
        6 => (0..4_usize, prop::bool::weighted(0.2), prop_oneof![4 => Just(0), 1 => 0..3000_u64])
            .prop_map(|(actor, lost, late)| Step::Act { actor, lost, late }),
        2 => (0..4_usize).prop_map(Step::Release),
        2 => (0..4_usize).prop_map(Step::Look),
        1 => (0..4_usize).prop_map(Step::Die),
    ];
    prop::collection::vec(step, 1..80)
}

/// The history of one lock, as a server carries it out.
struct World {
    slot: Slot,
    now: u64,
    actors: Vec<Actor>,
}

impl World {
    fn date(&self) -> i64 {
        NOW + i64::try_from(self.now / 1000).unwrap()
    }

    /// Reads, decides and writes; the write tests what was read.
    fn act(&mut self, i: usize, lost: bool, late: u64) {
        let read = self.slot.clone();
        self.look(i);
        let (now, date) = (self.now, self.date());
        let actor = &mut self.actors[i];
        actor.counter += 1;
        let since = actor.saw.as_ref().unwrap().1;
        let unchanged = Duration::from_millis(now - since);
        let holder = Holder::new("");
        // A server's time that is read a little later, and a little earlier.
        let stamp = stamp(actor.counter, date + 2);
        let held = actor.until.is_some_and(|until| until > now);
        let state = state(&read);
        let to = if held {
            state.renew(&actor.id, actor.mode, stamp).ok()
        } else {
            // One id for each acquisition.
            actor.until = None;
            actor.turns += 1;
            actor.id = format!("{i}-{}", actor.turns);
            let verdict = state.verdict(seen(unchanged, date));
            let wanted =
                Wanted { lock: "x", id: &actor.id, mode: actor.mode, ttl: actor.ttl, holder: &holder };
            state.take(&wanted, &verdict, stamp)
        };
        let Some(to) = to else {
            actor.until = None;
            return;
        };
        // The request takes its time; whoever sent it counts from the send.
        self.now += late;
        if self.slot == read {
            self.slot = to;
            let actor = &mut self.actors[i];
            if !lost {
                let ttl = if actor.mode == Mode::Shared { LOCKGATE_TTL } else { actor.ttl };
                actor.until = Some(now + u64::try_from(ttl.as_millis()).unwrap() * 98 / 100);
            }
        }
    }

    fn look(&mut self, i: usize) {
        let actor = &mut self.actors[i];
        if actor.saw.as_ref().is_none_or(|(slot, _)| *slot != self.slot) {
            actor.saw = Some((self.slot.clone(), self.now));
        }
    }

    fn check(&self) {
        let held = |actor: &&Actor| actor.until.is_some_and(|until| until > self.now);
        let (writers, readers): (Vec<&Actor>, Vec<&Actor>) =
            self.actors.iter().filter(held).partition(|actor| actor.mode == Mode::Exclusive);
        assert!(writers.len() <= 1, "{writers:?}");
        assert!(writers.is_empty() || readers.is_empty(), "{writers:?} beside {readers:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn never_two_of_whom_one_is_a_writer(steps in steps(), ttl in 1..40_u64) {
        let actors = (0..4).map(|i| Actor {
            id: String::new(),
            mode: if i < 2 { Mode::Exclusive } else { Mode::Shared },
            ttl: Duration::from_secs(ttl),
            until: None,
            counter: 0,
            saw: None,
            turns: 0,
        });
        let mut world = World { slot: Slot::default(), now: 0, actors: actors.collect() };
        for step in steps {
            match step {
                Step::Wait(time) => world.now += time,
                Step::Act { actor, lost, late } => world.act(actor, lost, late),
                Step::Release(i) => {
                    let actor = &mut world.actors[i];
                    if actor.until.take().is_some_and(|until| until > world.now)
                        && let Ok(to) = state(&world.slot).release(&actor.id, actor.mode)
                    {
                        world.slot = to;
                    }
                }
                Step::Look(i) => world.look(i),
                Step::Die(i) => {
                    let actor = &mut world.actors[i];
                    actor.until = None;
                    actor.saw = None;
                }
            }
            world.check();
        }
    }
}
