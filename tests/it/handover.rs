//! A lock that goes from one holder to the next without a gap.

use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use leasehold::{
    Break, Error, ErrorKind, Event, Guard, Locker, LostReason, Mode, Result, Ticket, Unlocked,
    backend::{Abilities, Ask, Attempt, Backend, Busy, Call, Grant, Lease, Moment},
    memory,
};

use crate::{
    processes::{Remote, Service, ears, hear, say},
    support::{Actor, Dir, LONG, SECOND, Told, by_hand, kind, ms, timed, until},
};

/// As it would come to another process.
fn passed_on(ticket: &Ticket) -> Ticket {
    format!("{ticket}\n").parse().unwrap()
}

#[test]
fn the_adopter_goes_on_with_mode_token_and_a_whole_ttl() {
    for mode in [Mode::Exclusive, Mode::Shared] {
        let (clock, store, locker) = by_hand();
        let told = Told::default();
        let request = told.by(locker).request("x").fenced().ttl(10 * SECOND);
        let guard = if mode == Mode::Shared { request.shared() } else { request }.lock().unwrap();
        let (token, lease_id, watch) =
            (guard.fencing_token(), guard.lease_id().unwrap().to_owned(), guard.watch());
        let ticket = guard.detach().unwrap();
        assert_eq!((ticket.name(), ticket.mode(), ticket.ttl()), ("x", mode, Some(10 * SECOND)));
        assert_eq!((ticket.fencing_token(), ticket.lease_id()), (token, &*lease_id));
        assert!(!watch.is_held());
        assert_eq!(kind(watch.check()), ErrorKind::Released);
        assert_eq!((told.count("detached"), told.count("released")), (1, 0), "{:?}", told.lines());

        let heir = Locker::new(store.clone()).holder("the heir");
        let guard = heir.adopt(&passed_on(&ticket)).unwrap();
        assert_eq!((guard.name(), guard.fencing_token()), ("x", token));
        assert_ne!(guard.lease_id().unwrap(), lease_id);
        assert_eq!(guard.valid_for(), Some(ms(9_800)), "the ticket's TTL, less the margin");
        let status = heir.status("x").unwrap();
        assert_eq!((status.mode(), status.holders().len()), (Some(mode), 1));
        assert_eq!(status.holders()[0].words(), "the heir");
        clock.advance(3600 * SECOND);
        assert!(guard.is_held(), "renewed as any other");
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
        assert!(heir.status("x").unwrap().mode().is_none());
    }
}

#[test]
fn a_ticket_is_good_for_a_ttl_from_detach() {
    let (clock, _, locker) = by_hand();
    let detach_late = || {
        let guard = locker.request("x").ttl(30 * SECOND).auto_renew(false).lock().unwrap();
        clock.advance(20 * SECOND);
        guard.detach().unwrap()
    };
    let ticket = detach_late();
    clock.advance(ms(29_999));
    let guard = locker.adopt(&ticket).unwrap();
    assert_eq!(guard.valid_for(), Some(ms(29_400)), "and it counts from the adopter's own request");
    drop(guard);

    let ticket = detach_late();
    clock.advance(30 * SECOND);
    let error = locker.adopt(&ticket).unwrap_err();
    assert_eq!((error.kind(), error.lost_reason()), (ErrorKind::Lost, Some(LostReason::Expired)));
    assert!(error.to_string().starts_with("lock \"x\": adopt: lost: "), "{error}");
    assert!(error.to_string().contains("the ticket came too late, or was used already"), "{error}");
    assert!(locker.try_lock("x").unwrap().is_some(), "free, since nobody adopted it");
}

#[test]
fn a_ticket_works_once_and_never_against_another_holder() {
    let (clock, _, locker) = by_hand();
    let ticket = locker.lock("x").unwrap().detach().unwrap();
    let first = locker.adopt(&ticket).unwrap();
    assert_eq!(locker.adopt(&ticket).unwrap_err().lost_reason(), Some(LostReason::Taken));
    clock.advance(60 * SECOND);
    first.check().unwrap();
    let second = first.detach().unwrap();
    assert!(locker.adopt(&ticket).is_err(), "an old one, while a new one is on its way");
    locker.adopt(&second).unwrap().unlock().unwrap();

    let late = locker.lock("x").unwrap().detach().unwrap();
    clock.advance(31 * SECOND);
    let next = locker.lock("x").unwrap();
    assert_eq!(locker.adopt(&late).unwrap_err().lost_reason(), Some(LostReason::Taken));
    clock.advance(60 * SECOND);
    next.check().unwrap();
    assert!(next.fencing_token() > late.fencing_token());
}

#[test]
fn of_many_adopters_one_wins() {
    let store = memory::Store::new();
    for _ in 0..200 {
        let ticket = Locker::new(store.clone()).lock("x").unwrap().detach().unwrap();
        let start = Barrier::new(4);
        let adopted: Vec<Result<Guard>> = thread::scope(|scope| {
            let adopt = || {
                let locker = Locker::new(store.clone());
                start.wait();
                locker.adopt(&ticket)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(adopt)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = adopted.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.into_iter().all(|lost| lost.unwrap_err().lost_reason() == Some(LostReason::Taken)));
        won.into_iter().next().unwrap().unwrap().check().unwrap();
    }
}

#[test]
fn nobody_gets_in_between() {
    let store = memory::Store::new();
    let locker = Locker::new(store.clone()).ttl(ms(2000));
    let mut guard = locker.lock("x").unwrap();
    let token = guard.fencing_token();
    let handed_over = Arc::new(AtomicBool::new(false));
    let waiters: Vec<_> = [locker, Locker::new(store.clone())]
        .map(|locker| {
            let handed_over = handed_over.clone();
            thread::spawn(move || {
                let guard = locker.lock("x").unwrap();
                assert!(handed_over.load(Ordering::SeqCst), "a gap");
                guard.fencing_token()
            })
        })
        .into();
    for _ in 0..300 {
        let ticket = guard.detach().unwrap();
        assert!(Locker::new(store.clone()).try_lock("x").unwrap().is_none(), "a gap");
        guard = Locker::new(store.clone()).adopt(&ticket).unwrap();
        assert_eq!(guard.fencing_token(), token);
    }
    handed_over.store(true, Ordering::SeqCst);
    guard.unlock().unwrap();
    for waiter in waiters {
        assert!(waiter.join().unwrap() > token);
    }
}

#[test]
fn a_detached_lock_never_stops_the_asking() {
    let locker = Locker::new(memory::Store::new()).ttl(ms(400));
    let dropped = locker.lock("x").unwrap().detach().unwrap();
    let (next, took) = timed(|| locker.request("x").timeout(LONG).lock().unwrap());
    assert!(took <= ms(400) + SECOND, "{took:?}");
    assert!(locker.adopt(&dropped).is_err() && next.is_held());
}

#[test]
fn a_ticket_of_a_broken_lock_says_so() {
    for how in [Break::AfterNotice, Break::Now] {
        let (_, store, locker) = by_hand();
        let ticket = locker.lock("x").unwrap().detach().unwrap();
        Locker::new(store).break_lock("x", how).unwrap().unwrap();
        let error = locker.adopt(&ticket).unwrap_err();
        assert_eq!(error.lost_reason(), Some(LostReason::Broken), "{how:?}");
        assert!(!error.to_string().contains("too late"), "{error}");
    }
}

#[test]
fn a_ticket_of_another_store_is_refused_and_stays_good() {
    let (_, _, locker) = by_hand();
    let ticket = locker.lock("x").unwrap().detach().unwrap();
    let (_, _, other) = by_hand();
    let mine = other.lock("x").unwrap();
    let error = other.adopt(&ticket).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("of another memory store"), "{error}");
    assert!(mine.is_held());
    locker.adopt(&ticket).unwrap().check().unwrap();
}

#[test]
fn an_adoption_whose_answer_was_lost_is_asked_for_again_with_the_same_id() {
    let (_, store, locker) = by_hand();
    let told = Told::default();
    let ticket = locker.lock("x").unwrap().detach().unwrap();
    store.lose_answers(2);
    let guard = told.by(locker.clone()).adopt(&ticket).unwrap();
    assert_eq!(locker.status("x").unwrap().holders().len(), 1);
    assert_eq!(told.count("acquired"), 1);
    guard.unlock().unwrap();
    assert!(locker.try_lock("x").unwrap().is_some());
}

#[test]
fn an_adoption_that_was_given_up_leaves_nothing_behind() {
    let (_, store, locker) = by_hand();
    let ticket = locker.lock("x").unwrap().detach().unwrap();
    store.lose_answers(usize::MAX);
    assert_eq!(kind(locker.clone().patience(ms(0)).adopt(&ticket)), ErrorKind::Unavailable);
    store.lose_answers(0);
    until("it is free", || locker.try_lock("x").unwrap().is_some());
    assert_eq!(kind(locker.adopt(&ticket)), ErrorKind::Lost);

    let ticket = locker.lock("y").unwrap().detach().unwrap();
    store.fail(usize::MAX, ErrorKind::Unavailable);
    assert_eq!(kind(locker.clone().patience(ms(0)).adopt(&ticket)), ErrorKind::Unavailable);
    store.fail(0, ErrorKind::Unavailable);
    locker.status("y").unwrap().mode().unwrap();
}

#[test]
fn an_adoption_ends_within_the_ttl_beside_a_store_that_never_answers() {
    let store = memory::Store::new();
    let locker = Locker::new(store.clone()).ttl(ms(800));
    let ticket = locker.lock("x").unwrap().detach().unwrap();
    store.hang(true);
    let (adopted, took) = timed(|| locker.adopt(&ticket));
    assert_eq!(kind(adopted), ErrorKind::Unavailable);
    assert!(took >= ms(700) && took < ms(800) + SECOND, "{took:?}");
    store.hang(false);
    until("what came of it is given back", || locker.try_lock("x").unwrap().is_some());
}

#[test]
fn a_shutdown_forbids_to_adopt_and_lets_one_detach() {
    let store = memory::Store::new();
    let (stop, signal) = mpsc::channel();
    let locker = Locker::new(store.clone()).shutdown_on(signal);
    let heir = Locker::new(store.clone());
    let guard = locker.lock("x").unwrap();
    drop(stop);
    let ticket = guard.detach().unwrap();
    let error = locker.adopt(&ticket).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Shutdown);
    assert_eq!(error.lock_name(), Some("x"));
    heir.adopt(&ticket).unwrap().check().unwrap();

    // While it is being adopted.
    let (stop, signal) = mpsc::channel();
    let told = Told::default();
    let locker = told.by(heir.clone()).shutdown_on(signal);
    let ticket = heir.lock("y").unwrap().detach().unwrap();
    store.hang(true);
    let adopter = thread::spawn(move || kind(locker.adopt(&ticket)));
    until("it asks", || told.count("waiting") == 1);
    let (end, took) = timed(|| {
        drop(stop);
        adopter.join().unwrap()
    });
    assert_eq!(end, ErrorKind::Shutdown);
    assert!(took < SECOND, "{took:?}");
    store.hang(false);
}

#[test]
fn after_the_grace_of_a_shutdown_there_is_nothing_to_detach() {
    let store = memory::Store::new();
    let (stop, signal) = mpsc::channel();
    let guard = Locker::new(store.clone()).shutdown_on(signal).shutdown_grace(ms(0)).lock("x").unwrap();
    drop(stop);
    until("its end", || !guard.is_held());
    assert_eq!(kind(guard.detach()), ErrorKind::Shutdown);
    assert!(Locker::new(store).request("x").timeout(LONG).lock().is_ok());
}

#[test]
fn a_lock_without_expiry_waits_for_its_adopter_for_ever() {
    let (clock, _, locker) = by_hand();
    let told = Told::default();
    let ticket = told.by(locker.clone()).request("x").no_expiry().lock().unwrap().detach().unwrap();
    assert_eq!(ticket.ttl(), None);
    assert_eq!(
        told.lines().last().unwrap(),
        "detached: detached lock \"x\": held until it is adopted or broken"
    );
    clock.advance(1_000_000 * SECOND);
    assert!(locker.try_lock("x").unwrap().is_none());
    let guard = locker.adopt(&passed_on(&ticket)).unwrap();
    assert_eq!(guard.valid_for(), None);
    clock.advance(1_000_000 * SECOND);
    let ticket = guard.detach().unwrap();
    locker.break_lock("x", Break::Now).unwrap().unwrap();
    assert_eq!(locker.adopt(&ticket).unwrap_err().lost_reason(), Some(LostReason::Broken));
}

#[test]
fn a_lost_guard_gives_no_ticket() {
    let (clock, store, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker.clone()).lock("x").unwrap();
    clock.suspend(31 * SECOND);
    let error = guard.detach().unwrap_err();
    assert_eq!((error.kind(), error.lost_reason()), (ErrorKind::Lost, Some(LostReason::Expired)));
    until("the event", || told.count("lost") == 1);

    // One that hears of its loss by the renewal of `detach`.
    let guard = told.by(locker.clone()).lock("y").unwrap();
    Locker::new(store).break_lock("y", Break::Now).unwrap();
    assert_eq!(guard.detach().unwrap_err().lost_reason(), Some(LostReason::Broken));
    assert_eq!((told.count("lost"), told.count("detached")), (2, 0), "{:?}", told.lines());
}

#[test]
fn a_renewal_that_fails_is_tried_again_before_the_ticket_is_made() {
    let (_, store, locker) = by_hand();
    let guard = locker.lock("x").unwrap();
    store.lose_answers(1);
    let ticket = guard.detach().unwrap();
    store.fail(1, ErrorKind::Unavailable);
    locker.adopt(&ticket).unwrap().unlock().unwrap();
}

#[test]
fn a_renewal_that_is_not_confirmed_in_time_gives_no_ticket_and_frees_the_lock() {
    let (clock, store, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker.clone()).ttl(60 * SECOND).lock("x").unwrap();
    let watch = guard.watch();
    store.fail(usize::MAX, ErrorKind::Unavailable);
    let detaching = thread::spawn(|| guard.detach());
    until("a try", || told.count("renewal failed") > 0);
    clock.suspend(10 * SECOND);
    until("its end", || !watch.is_held());
    store.fail(0, ErrorKind::Unavailable);
    let error = detaching.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("a test wants this call to fail"), "{error}");
    assert_eq!((told.count("released"), told.count("detached")), (1, 0), "{:?}", told.lines());
    assert!(locker.try_lock("x").unwrap().is_some());
}

#[test]
fn who_gives_up_a_detach_gets_no_ticket_and_leaves_no_lock() {
    let (clock, store, locker) = by_hand();
    let told = Told::default();
    let guard = told.by(locker.clone()).ttl(60 * SECOND).release_budget(SECOND).lock("x").unwrap();
    let watch = guard.watch();
    store.hang(true);
    let detaching = thread::spawn(|| guard.detach());
    assert!(watch.is_held());
    let error = loop {
        if detaching.is_finished() {
            break detaching.join().unwrap().unwrap_err();
        }
        clock.suspend(ms(100));
        thread::sleep(ms(1));
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!watch.is_held());
    store.hang(false);
    until("it is free", || locker.try_lock("x").unwrap().is_some());
    until("the release is told", || told.count("released") == 1);
    assert_eq!((told.count("detached"), told.count("lost")), (0, 0), "{:?}", told.lines());
}

#[test]
fn detach_inside_a_callback_of_the_lock_does_not_wait_for_itself() {
    let (clock, _, locker) = by_hand();
    let held: Arc<Mutex<Option<Guard>>> = Arc::default();
    let (tell, told) = mpsc::channel();
    let mine = held.clone();
    let locker = locker.on_event(move |event| {
        if let Event::Renewed { .. } = event
            && let Some(guard) = mine.lock().unwrap().take()
        {
            tell.send(kind(guard.detach())).unwrap();
        }
    });
    *held.lock().unwrap() = Some(locker.lock("x").unwrap());
    clock.advance(10 * SECOND);
    assert_eq!(told.recv_timeout(LONG).unwrap(), ErrorKind::Unsupported);
    until("it is released", || locker.try_lock("x").unwrap().is_some());
}

#[test]
fn files_stay_in_their_process() {
    let dir = Dir::new("handover");
    let locker = dir.locker();
    let error = locker.lock("x").unwrap().detach().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("the kernel keeps a file lock for the process"), "{error}");
    assert!(locker.try_lock("x").unwrap().is_some(), "released");
    let ticket = by_hand().2.lock("x").unwrap().detach().unwrap();
    assert_eq!(kind(locker.adopt(&ticket)), ErrorKind::Unsupported);
}

/// Grants everything, to leases that know nothing of handing over, or have no id to be handed over by.
#[derive(Clone, Default)]
struct Plain(Arc<AtomicUsize>);
struct Nameless(Plain);

impl Backend for Plain {
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let since = ask.call().now();
        Ok(Attempt::Granted(match ask.name() {
            "nameless" => Grant::new(Nameless(self.clone()), since),
            _ => Grant::new(self.clone(), since).lease_id(ask.id()),
        }))
    }
}

impl Lease for Plain {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        Ok(call.now())
    }
    fn release(&mut self, _: &Call) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Lease for Nameless {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        self.0.renew(call)
    }
    fn release(&mut self, call: &Call) -> Result<()> {
        self.0.release(call)
    }
    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok(String::new())
    }
}

#[test]
fn a_store_that_hands_nothing_over_says_so_and_releases() {
    let store = Plain::default();
    let locker = Locker::new(store.clone());
    for (name, released) in [("plain", 1), ("nameless", 2)] {
        let error = locker.lock(name).unwrap().detach().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains("detach: not supported: this store cannot hand a lock over"),
            "{error}"
        );
        assert_eq!(store.0.load(Ordering::SeqCst), released);
    }
    let ticket = by_hand().2.lock("x").unwrap().detach().unwrap();
    assert_eq!(kind(locker.adopt(&ticket)), ErrorKind::Unsupported);
}

/// Locks that are told by name, and never run out; no call of theirs blocks.
#[derive(Clone, Default)]
struct Local(Arc<Mutex<HashMap<String, String>>>);
struct Kept(Local, String, String);

impl Backend for Local {
    fn abilities(&self) -> Abilities {
        Abilities::default().immediate()
    }
    fn try_acquire(&self, ask: &mut Ask) -> Result<Attempt> {
        let mut locks = self.0.lock().unwrap();
        if locks.contains_key(ask.name()) {
            return Ok(Attempt::Busy(Busy::default()));
        }
        locks.insert(ask.name().into(), ask.id().into());
        let kept = Kept(self.clone(), ask.name().into(), ask.id().into());
        Ok(Attempt::Granted(Grant::new(kept, ask.call().now()).lease_id(ask.id())))
    }
    fn adopt(&self, ask: &mut Ask, ticket: &Ticket) -> Result<Grant> {
        match self.0.lock().unwrap().get_mut(ask.name()) {
            Some(id) if *id == ticket.lease_id() && ticket.note() == "a note: %" => *id = ask.id().into(),
            _ => return Err(Error::lost(LostReason::Taken)),
        }
        let kept = Kept(self.clone(), ask.name().into(), ask.id().into());
        Ok(Grant::new(kept, ask.call().now()).lease_id(ask.id()))
    }
}

impl Lease for Kept {
    fn renew(&mut self, call: &Call) -> Result<Moment> {
        let Self(Local(locks), name, id) = self;
        let held = locks.lock().unwrap().get(name) == Some(id);
        if held { Ok(call.now()) } else { Err(Error::lost(LostReason::Deleted)) }
    }
    fn release(&mut self, _: &Call) -> Result<()> {
        let Self(Local(locks), name, _) = self;
        locks.lock().unwrap().remove(name);
        Ok(())
    }
    fn detach(&mut self, _: &Call) -> Result<String> {
        Ok("a note: %".to_owned())
    }
}

#[test]
fn a_store_that_never_blocks_hands_over_too() {
    let store = Local::default();
    let told = Told::default();
    let locker = told.by(Locker::new(store.clone()));
    let guard = locker.lock("x").unwrap();
    let watch = guard.watch();
    let ticket = guard.detach().unwrap();
    assert_eq!((kind(watch.check()), ticket.note()), (ErrorKind::Released, "a note: %"));
    assert!(locker.try_lock("x").unwrap().is_none());
    let guard = locker.adopt(&passed_on(&ticket)).unwrap();
    guard.check().unwrap();
    assert_eq!(kind(locker.adopt(&ticket)), ErrorKind::Lost);
    assert_eq!((told.count("detached"), told.count("released"), told.count("acquired")), (1, 0, 2));

    store.0.lock().unwrap().clear();
    assert_eq!(guard.detach().unwrap_err().lost_reason(), Some(LostReason::Deleted));
    assert_eq!((told.count("lost"), told.count("released")), (1, 0), "{:?}", told.lines());
}

/// The role of the process that goes on with a lock, until its standard input ends.
pub(crate) fn adopt(arguments: &[&str]) {
    let locker = Locker::new(Remote(arguments[0].to_owned()));
    let guard = locker.adopt(&arguments[1].parse().unwrap()).unwrap();
    say(&guard.fencing_token().unwrap().to_string());
    let _ = std::io::stdin().read(&mut [0; 1]);
    guard.unlock().unwrap();
}

#[test]
fn a_parent_passes_its_lock_to_a_child_process() {
    let service = Service::start();
    let locker = Locker::new(Remote(service.clone())).ttl(3 * SECOND);
    let (tell, told) = mpsc::channel();
    let other = Locker::new(Remote(service.clone()));
    let guard = locker.request("x").fenced().lock().unwrap();
    thread::spawn(move || tell.send(other.lock("x").unwrap().fencing_token()));
    let token = guard.fencing_token().unwrap();
    let ticket = guard.detach().unwrap().to_string();
    let mut child = Actor::start("adopt", &[&service, &ticket]);
    let mut said = ears(&mut child.0);
    assert_eq!(hear(&mut said), token.to_string());
    assert!(told.recv_timeout(4 * SECOND).is_err(), "held on, for longer than its TTL");
    drop(child.0.stdin.take());
    assert!(told.recv_timeout(LONG).unwrap() > Some(token));
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn an_adopter_that_is_killed_leaves_the_lock_within_its_ttl() {
    let service = Service::start();
    let locker = Locker::new(Remote(service.clone())).ttl(3 * SECOND);
    let ticket = locker.lock("x").unwrap().detach().unwrap().to_string();
    let mut child = Actor::start("adopt", &[&service, &ticket]);
    let mut said = ears(&mut child.0);
    hear(&mut said);
    child.0.kill().unwrap();
    let killed = Instant::now();
    let _next = locker.request("x").timeout(LONG).lock().unwrap();
    let took = killed.elapsed();
    assert!(took <= 3 * SECOND + ms(1500), "{took:?}");
}
