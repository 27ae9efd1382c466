use std::sync::mpsc::{self, Receiver, Sender};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

type Answer = Result<Fetched, NoToken>;

/// A source that tells each fetch, and answers what it is given: nothing, until then.
struct Told {
    asked: Mutex<Sender<()>>,
    /// What it answers; the end of the channel is a panic.
    answers: Mutex<Receiver<Answer>>,
}

impl Source for Told {
    fn name(&self) -> &'static str {
        "the test"
    }

    fn fetch(&self, _: Cloud, _: Duration) -> Answer {
        self.asked.lock().unwrap().send(()).unwrap();
        let answer = self.answers.lock().unwrap().recv();
        answer.expect("a panic, on purpose")
    }
}

struct Test {
    clock: Clock,
    tokens: Tokens,
    asked: Receiver<()>,
    answers: Sender<Answer>,
}

fn test() -> Test {
    let (tell, asked) = mpsc::channel();
    let (answers, answer) = mpsc::channel();
    let source = Told { asked: Mutex::new(tell), answers: Mutex::new(answer) };
    let clock = Clock::manual();
    let tokens = Tokens::new(Arc::new(source), Cloud::Public, clock.clone());
    Test { clock, tokens, asked, answers }
}

fn good(text: &str, life: Duration) -> Fetched {
    Fetched { text: text.to_owned(), life }
}

fn bad(kind: ErrorKind) -> Answer {
    Err(NoToken::new(kind, "closed"))
}

impl Test {
    fn call(&self, limit: Duration) -> Call {
        Call::lasting(&self.clock, limit)
    }

    fn get(&self) -> Result<Arc<str>> {
        self.tokens.header(&self.call(LONG))
    }

    /// A fetch began, and one only.
    #[track_caller]
    fn is_asked(&self) {
        self.asked.recv_timeout(LONG).expect("a fetch");
        assert!(self.asked.try_recv().is_err(), "a second fetch");
    }

    #[track_caller]
    fn is_left_alone(&self) {
        assert_eq!(self.tokens.0.lock().running, 0);
        assert!(self.asked.try_recv().is_err());
    }

    /// Waits until no fetch is on its way.
    fn settle(&self) {
        let busy = self.tokens.0.lock();
        let waited = self.tokens.0.told.wait_timeout_while(busy, LONG, |state| state.running > 0);
        assert!(!waited.unwrap().1.timed_out(), "a fetch hangs");
    }
}

#[test]
fn one_fetch_serves_all_who_wait_and_the_token_is_kept() {
    let test = test();
    let (tokens, clock) = (&test.tokens, &test.clock);
    std::thread::scope(|scope| {
        let wait = || tokens.header(&Call::lasting(clock, LONG)).unwrap();
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(wait)).collect();
        test.is_asked();
        test.answers.send(Ok(good("a.b.c", 3600 * SECOND))).unwrap();
        for waiter in waiters {
            assert_eq!(&*waiter.join().unwrap(), "Bearer a.b.c");
        }
    });
    test.clock.suspend(3000 * SECOND);
    assert_eq!(&*test.get().unwrap(), "Bearer a.b.c");
    test.is_left_alone();
}

#[test]
fn a_token_is_renewed_well_before_it_ends_while_the_old_one_serves() {
    for (life, quiet, renewed) in [(3600, 3260, 3301), (9, 5, 7)] {
        let test = test();
        test.answers.send(Ok(good("old", life * SECOND))).unwrap();
        test.get().unwrap();
        test.is_asked();
        test.clock.suspend(quiet * SECOND);
        test.get().unwrap();
        test.is_left_alone();
        test.clock.suspend((renewed - quiet) * SECOND);
        assert_eq!(&*test.get().unwrap(), "Bearer old", "nobody waits");
        test.is_asked();
        assert_eq!(&*test.get().unwrap(), "Bearer old");
        test.answers.send(Ok(good("new", life * SECOND))).unwrap();
        test.settle();
        assert_eq!(&*test.get().unwrap(), "Bearer new");
        test.is_left_alone();
    }
}

#[test]
fn a_renewal_that_fails_is_repeated_and_harms_no_request() {
    let test = test();
    test.answers.send(Ok(good("old", 3600 * SECOND))).unwrap();
    test.get().unwrap();
    test.is_asked();
    test.clock.suspend(3301 * SECOND);
    let mut fetches = 0;
    for _ in 0..240 {
        if test.tokens.0.lock().running == 0 {
            test.answers.send(bad(ErrorKind::Denied)).unwrap();
        }
        assert_eq!(&*test.get().unwrap(), "Bearer old");
        test.settle();
        fetches += test.asked.try_iter().count();
        test.clock.suspend(SECOND);
    }
    // What no fetch took yet is taken by the next one.
    assert!((8..=40).contains(&fetches), "{fetches} in four minutes");
    test.clock.suspend(60 * SECOND);
    assert_eq!(test.get().unwrap_err().kind(), ErrorKind::Denied, "it ended");
}

#[test]
fn without_a_token_a_failure_is_told_and_tried_again_after_a_pause() {
    let test = test();
    for (kind, retried) in [(ErrorKind::Unavailable, true), (ErrorKind::Denied, false)] {
        test.answers.send(bad(kind)).unwrap();
        let error = test.get().unwrap_err();
        test.is_asked();
        assert_eq!((error.kind(), error.is_unclear()), (kind, false));
        assert!(error.to_string().contains("no token from the test: closed"), "{error}");
        assert_eq!(error.retry_after().is_some(), retried);
        assert_eq!(test.get().unwrap_err().kind(), kind);
        test.is_left_alone();
        test.clock.suspend(5 * SECOND);
    }
    test.answers.send(Ok(good("new", 60 * SECOND))).unwrap();
    assert_eq!(&*test.get().unwrap(), "Bearer new");
}

#[test]
fn a_service_that_asks_for_a_pause_gets_it() {
    let test = test();
    let why = NoToken { retry_after: Some(40 * SECOND), ..NoToken::for_now("busy") };
    test.answers.send(Err(why)).unwrap();
    assert_eq!(test.get().unwrap_err().retry_after(), Some(40 * SECOND));
    test.is_asked();
    test.clock.suspend(39 * SECOND);
    test.get().unwrap_err();
    test.is_left_alone();
    test.clock.suspend(SECOND);
    test.answers.send(Ok(good("new", 60 * SECOND))).unwrap();
    test.get().unwrap();
}

#[test]
fn a_fetch_that_hangs_holds_nobody_up() {
    let test = test();
    let error = test.tokens.header(&test.call(Duration::from_millis(50))).unwrap_err();
    assert_eq!((error.kind(), error.is_unclear()), (ErrorKind::Unavailable, false));
    assert!(error.to_string().contains("no token from the test in time"), "{error}");
    test.is_asked();
    test.tokens.header(&test.call(Duration::from_millis(50))).unwrap_err();
    assert!(test.asked.try_recv().is_err(), "one at a time");
    // After a minute it counts as stuck; more than a few are not started.
    for _ in 0..5 {
        test.clock.suspend(HUNG);
        test.tokens.header(&test.call(Duration::from_millis(20))).unwrap_err();
    }
    assert_eq!(test.tokens.0.lock().running, MOST);
    for _ in 0..MOST {
        test.answers.send(Ok(good("late", 600 * SECOND))).unwrap();
    }
    test.settle();
}

#[test]
fn a_panic_of_the_function_is_a_failure_that_passes() {
    let mut test = test();
    drop(std::mem::replace(&mut test.answers, mpsc::channel().0));
    let error = test.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn a_refused_token_is_replaced_once() {
    let test = test();
    test.answers.send(Ok(good("old", 3600 * SECOND))).unwrap();
    let old = test.get().unwrap();
    test.is_asked();
    let (tokens, clock) = (&test.tokens, &test.clock);
    std::thread::scope(|scope| {
        let refused = || tokens.refused(&old, &Call::lasting(clock, LONG)).unwrap();
        let refused: Vec<_> = (0..4).map(|_| scope.spawn(refused)).collect();
        test.is_asked();
        test.answers.send(Ok(good("new", 3600 * SECOND))).unwrap();
        assert!(refused.into_iter().all(|refused| refused.join().unwrap()));
    });
    assert!(test.tokens.refused(&old, &test.call(LONG)).unwrap(), "somebody else replaced it already");
    test.is_left_alone();
    let new = test.get().unwrap();
    assert_eq!(&*new, "Bearer new");
    // Who is refused again and again asks for another one now and then only.
    assert!(!test.tokens.refused(&new, &test.call(LONG)).unwrap());
    test.is_left_alone();
    // The same again is no reason to ask the store again.
    test.clock.suspend(6 * SECOND);
    test.answers.send(Ok(good("new", 3600 * SECOND))).unwrap();
    assert!(!test.tokens.refused(&new, &test.call(LONG)).unwrap());
    // Where there is no other one, this one is kept.
    test.clock.suspend(6 * SECOND);
    test.answers.send(bad(ErrorKind::Unavailable)).unwrap();
    assert_eq!(test.tokens.refused(&new, &test.call(LONG)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(&*test.get().unwrap(), "Bearer new");
}

#[test]
fn what_is_no_token_is_refused_and_never_shown() {
    for (text, life, kind) in [
        ("", 60, ErrorKind::Config),
        ("hunter2 x", 60, ErrorKind::Config),
        ("hunter2\r\nx-ms-y: z", 60, ErrorKind::Config),
        ("hunter2\u{e9}", 60, ErrorKind::Config),
        ("hunter2", 0, ErrorKind::Unavailable),
    ] {
        let test = test();
        test.answers.send(Ok(good(text, life * SECOND))).unwrap();
        let error = test.get().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!format!("{error} {:?}", test.tokens).contains("hunter2"));
    }
}

#[test]
fn the_machine_may_sleep_over_the_end_of_a_token() {
    let test = test();
    test.answers.send(Ok(good("old", 3600 * SECOND))).unwrap();
    test.get().unwrap();
    test.clock.suspend(3595 * SECOND);
    test.answers.send(Ok(good("new", 3600 * SECOND))).unwrap();
    assert_eq!(&*test.get().unwrap(), "Bearer new", "what ends on its way is not sent");
}

#[test]
fn no_token_outlives_its_end_or_is_renewed_too_late() {
    let clock = Clock::manual();
    clock.suspend(SECOND);
    let now = clock.now();
    for life in (0..100_000).map(|n| Duration::from_millis(1 + n * 37)) {
        for roll in [0.0, 0.999_999] {
            let held = Held::new(Fetched { text: "x".to_owned(), life }, now, roll)
                .unwrap_or_else(|e| panic!("{e:?}"));
            assert!(held.end < now + life && now < held.renew && held.renew < held.end);
            let left = held.end.saturating_since(held.renew);
            assert!(left >= (life / 5).min(Duration::from_secs(290)));
        }
    }
}
