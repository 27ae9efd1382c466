//! Locks that go from one holder to the next without a gap, on Azurite.

use std::{
    env, io,
    process::Stdio,
    sync::{Barrier, mpsc},
    thread,
    time::Duration,
};

use leasehold::{
    Break, ErrorKind, Guard, LockRequest, Locker, LostReason, Mode, Result, Ticket, Unlocked,
    azure::{Builder, Names},
    memory,
};

use crate::{
    common::{Actor, say},
    fault_server::{Act, FaultServer},
    support::{LONG, SECOND, account, account_at, by_hand, fresh_container, kind, ms, timed, until},
};

const TTL: Duration = Duration::from_secs(15);

fn locker_of(builder: Builder) -> Locker {
    Locker::new(builder.create_container(true).build().unwrap()).ttl(TTL)
}

fn on(container: &str) -> Locker {
    locker_of(account().container(container))
}

fn through(server: &FaultServer, container: &str) -> Locker {
    locker_of(account_at(&server.endpoint()).container(container))
}

fn wanted(locker: &Locker, mode: Mode) -> LockRequest {
    let request = locker.request("x");
    if mode == Mode::Shared { request.shared() } else { request }
}

/// As it would come to another process.
fn passed_on(ticket: &Ticket) -> Ticket {
    format!("{ticket}\n").parse().unwrap()
}

const MODES: [Mode; 2] = [Mode::Exclusive, Mode::Shared];

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn the_adopter_goes_on_with_mode_token_and_a_whole_ttl() {
    for (mode, fenced) in [(MODES[0], false), (MODES[0], true), (MODES[1], false), (MODES[1], true)] {
        let container = fresh_container();
        let (locker, heir) = (on(&container).holder("the parent"), on(&container).holder("the heir"));
        let request = wanted(&locker, mode);
        let guard = if fenced { request.fenced() } else { request }.lock().unwrap();
        let (token, lease_id) = (guard.fencing_token(), guard.lease_id().unwrap().to_owned());
        assert_eq!(token.is_some(), fenced);
        let ticket = guard.detach().unwrap();
        assert!(ticket.note().starts_with(&format!("{container}/x")));
        assert!(heir.try_lock("x").unwrap().is_none(), "held by nobody's guard");

        let guard = heir.adopt(&passed_on(&ticket)).unwrap();
        assert_eq!((guard.fencing_token(), ticket.mode()), (token, mode));
        assert_ne!(guard.lease_id().unwrap(), lease_id);
        let left = guard.valid_for().unwrap();
        assert!(left > 12 * SECOND && left < TTL, "{left:?}");
        let status = heir.status("x").unwrap();
        assert_eq!(status.mode(), Some(mode));
        if mode == Mode::Shared || fenced {
            assert_eq!(status.holders()[0].words(), "the heir", "{mode:?}, {fenced}");
        }
        guard.renew().unwrap();
        assert!(locker.try_lock("x").unwrap().is_none());
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
        let next = locker.request("x").fenced().timeout(5 * SECOND).lock().unwrap();
        assert!(next.fencing_token() > token, "the counter went on: {mode:?}");
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn it_costs_two_requests() {
    for (mode, most) in [(Mode::Exclusive, 2), (Mode::Shared, 4)] {
        let (server, container) = (FaultServer::before_azurite(), fresh_container());
        let ticket = wanted(&on(&container), mode).lock().unwrap().detach().unwrap();
        let _guard = through(&server, &container).adopt(&ticket).unwrap();
        let asked: Vec<_> = server.all().into_iter().map(|seen| seen.what).collect();
        assert_eq!(asked.len(), most, "{asked:?}");
        assert_eq!(asked[..2], ["change", "renew"]);
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn of_two_adopters_one_wins() {
    for mode in MODES {
        let container = fresh_container();
        for _ in 0..10 {
            let ticket = wanted(&on(&container), mode).lock().unwrap().detach().unwrap();
            let start = Barrier::new(4);
            let adopted: Vec<Result<Guard>> = thread::scope(|scope| {
                let adopt = || {
                    let locker = on(&container);
                    start.wait();
                    locker.adopt(&ticket)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(adopt)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (won, lost): (Vec<_>, Vec<_>) = adopted.into_iter().partition(Result::is_ok);
            assert_eq!(won.len(), 1, "{mode:?}");
            for lost in lost {
                let error = lost.unwrap_err();
                assert_eq!(error.lost_reason(), Some(LostReason::Taken), "{error}");
                assert!(
                    error.to_string().contains("the ticket came too late, or was used already"),
                    "{error}"
                );
            }
            let guard = won.into_iter().next().unwrap().unwrap();
            guard.renew().unwrap();
            guard.unlock().unwrap();
        }
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_ticket_that_was_used_or_came_too_late_is_refused() {
    for mode in MODES {
        let container = fresh_container();
        let locker = on(&container);
        let ticket = wanted(&locker, mode).lock().unwrap().detach().unwrap();
        let second = locker.adopt(&ticket).unwrap().detach().unwrap();
        assert_eq!(locker.adopt(&ticket).unwrap_err().lost_reason(), Some(LostReason::Taken));
        locker.adopt(&second).unwrap().unlock().unwrap();
        for used in [&ticket, &second] {
            assert_eq!(kind(locker.adopt(used)), ErrorKind::Lost);
        }
        // After its TTL, to which the service may add a second.
        let late = wanted(&locker, mode).timeout(5 * SECOND).lock().unwrap().detach().unwrap();
        let (next, took) = timed(|| locker.request("x").timeout(LONG).lock().unwrap());
        assert!(took <= TTL + 3 * SECOND, "{took:?}");
        assert_eq!(kind(locker.adopt(&late)), ErrorKind::Lost);
        next.renew().unwrap();
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_ticket_of_another_store_is_refused_and_stays_good() {
    for mode in MODES {
        let container = fresh_container();
        let locker = on(&container);
        let ticket = wanted(&locker, mode).lock().unwrap().detach().unwrap();
        let same = account().container(&container);
        for wrong in
            [on(&fresh_container()), locker_of(same.clone().prefix("p")), Locker::open("memory:").unwrap()]
        {
            let error = wrong.adopt(&ticket).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
        let error = on("elsewhere").adopt(&ticket).unwrap_err().to_string();
        assert!(error.contains(&format!("{container}/x")) && error.contains("elsewhere/x"), "{error}");
        let memory = Locker::new(memory::Store::new()).lock("x").unwrap().detach().unwrap();
        assert_eq!(kind(locker.adopt(&memory)), ErrorKind::Config);
        // Another way to the same blobs.
        let server = FaultServer::before_azurite();
        through(&server, &container).adopt(&ticket).unwrap().check().unwrap();
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_ticket_of_a_broken_lock_is_refused() {
    for mode in MODES {
        for how in [Break::Now, Break::AfterNotice] {
            let container = fresh_container();
            let locker = on(&container);
            let ticket = wanted(&locker, mode).lock().unwrap().detach().unwrap();
            locker.break_lock("x", how).unwrap().unwrap();
            assert_eq!(kind(locker.adopt(&ticket)), ErrorKind::Lost, "{mode:?} {how:?}");
        }
        let container = fresh_container();
        let ticket = wanted(&on(&container), mode).lock().unwrap().detach().unwrap();
        let blob = ticket
            .note()
            .rsplit('\n')
            .next()
            .unwrap()
            .trim_start_matches(&format!("{container}/"))
            .to_owned();
        let lease = format!("x-ms-lease-id: {}\r\n", ticket.lease_id());
        let gone = by_hand("DELETE", &format!("{container}/{blob}"), &lease);
        assert!(gone.contains(" 202 "), "{gone}");
        assert_eq!(on(&container).adopt(&ticket).unwrap_err().lost_reason(), Some(LostReason::Deleted));
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn lost_requests_and_answers_are_asked_for_again() {
    for mode in MODES {
        for fault in ["change", "renew"] {
            for act in [Act::Lose, Act::Drop, Act::Cut(20), Act::Twice, Act::Again(ms(300))] {
                let (server, container) = (FaultServer::before_azurite(), fresh_container());
                let ticket = wanted(&on(&container), mode).fenced().lock().unwrap().detach().unwrap();
                server.next(2, fault, act);
                let guard = through(&server, &container).adopt(&ticket).unwrap();
                let mut ids: Vec<_> = server.seen("change").iter().map(new_id).collect();
                ids.dedup();
                assert_eq!(ids, [guard.lease_id().unwrap()], "each try with the same new id");
                thread::sleep(ms(400));
                guard.renew().unwrap();
                assert_eq!(kind(on(&container).adopt(&ticket)), ErrorKind::Lost);
                assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
                assert!(on(&container).request("x").timeout(5 * SECOND).lock().is_ok());
            }
        }
        // Nobody waits for the name of the holder.
        let (server, container) = (FaultServer::before_azurite(), fresh_container());
        let ticket = wanted(&on(&container), mode).fenced().lock().unwrap().detach().unwrap();
        server.always("metadata", Act::Drop);
        let guard = through(&server, &container).adopt(&ticket).unwrap();
        guard.renew().unwrap();
        assert_eq!(guard.fencing_token(), ticket.fencing_token());
    }
}

fn new_id(seen: &crate::fault_server::Seen) -> String {
    seen.header("x-ms-proposed-lease-id").to_owned()
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn an_adoption_that_is_given_up_leaves_nothing_behind() {
    for mode in MODES {
        for fault in ["change", "renew"] {
            let (server, container) = (FaultServer::before_azurite(), fresh_container());
            let ticket = wanted(&on(&container), mode).lock().unwrap().detach().unwrap();
            server.always(fault, Act::Lose);
            let heir = through(&server, &container).patience(SECOND);
            assert_eq!(kind(heir.adopt(&ticket)), ErrorKind::Unavailable);
            server.heal();
            let (next, took) = timed(|| on(&container).request("x").timeout(LONG).lock().unwrap());
            assert!(took < 5 * SECOND, "not after the TTL: {mode:?}, {fault}: {took:?}");
            next.unlock().unwrap();
            if mode == Mode::Shared {
                let left = by_hand("GET", &format!("{container}?restype=container&comp=list"), "");
                assert!(!left.contains("reader-"), "{left}");
            }
        }
        // What was never carried out leaves the ticket good.
        let (server, container) = (FaultServer::before_azurite(), fresh_container());
        let ticket = wanted(&on(&container), mode).lock().unwrap().detach().unwrap();
        server.always("change", Act::Drop);
        let heir = through(&server, &container).patience(SECOND);
        assert_eq!(kind(heir.adopt(&ticket)), ErrorKind::Unavailable);
        server.heal();
        heir.adopt(&ticket).unwrap().unlock().unwrap();
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn nobody_gets_in_between() {
    for mode in MODES {
        let container = fresh_container();
        let mut guard = wanted(&on(&container), mode).fenced().lock().unwrap();
        let token = guard.fencing_token();
        let (tell, told) = mpsc::channel();
        let waiter = on(&container).poll(ms(5)..=ms(20));
        thread::spawn(move || tell.send(waiter.request("x").fenced().lock().unwrap().fencing_token()));
        for _ in 0..20 {
            let ticket = guard.detach().unwrap();
            thread::sleep(ms(30));
            guard = on(&container).adopt(&ticket).unwrap();
            assert!(told.try_recv().is_err(), "a gap: {mode:?}");
        }
        guard.unlock().unwrap();
        assert!(told.recv_timeout(LONG).unwrap() > token);
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn locks_of_other_names_and_without_end_are_handed_over() {
    let container = fresh_container();
    let locker = locker_of(account().container(&container).names(Names::AzMutex)).holder("the heir");
    let ticket = locker.request("tenant/7: x").fenced().lock().unwrap().detach().unwrap();
    let guard = locker.adopt(&passed_on(&ticket)).unwrap();
    assert_eq!(guard.fencing_token(), ticket.fencing_token());
    assert_eq!(locker.status("tenant/7: x").unwrap().holders()[0].words(), "the heir");
    guard.unlock().unwrap();

    let locker = on(&fresh_container());
    let ticket = locker.request("x").no_expiry().lock().unwrap().detach().unwrap();
    assert_eq!(ticket.ttl(), None);
    let guard = locker.adopt(&passed_on(&ticket)).unwrap();
    assert_eq!((guard.valid_for(), locker.status("x").unwrap().expires()), (None, false));
    guard.unlock().unwrap();
    assert!(locker.try_lock("x").unwrap().is_some());
}

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    let Ok(arguments) = env::var("LEASEHOLD_ARGUMENTS") else { return };
    let (container, ticket) = arguments.split_once('\n').unwrap();
    match on(container).adopt(&ticket.parse().unwrap()) {
        Ok(guard) => {
            say("adopted");
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            guard.unlock().unwrap();
        }
        Err(error) => say(&format!("{:?}", error.lost_reason())),
    }
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_parent_passes_its_lock_to_a_child_process() {
    for mode in MODES {
        let container = fresh_container();
        let ticket = wanted(&on(&container), mode).lock().unwrap().detach().unwrap();
        let start = || {
            let arguments = [&*container, &*ticket.to_string()];
            Actor::run(Actor::command("handover::role", "heir", &arguments).stdin(Stdio::piped()))
        };
        // Of two, one goes on.
        let mut children = [start(), start()];
        let said = [children[0].hear(), children[1].hear()];
        let [mut heir, mut other] = children;
        if said[0] != "adopted" {
            std::mem::swap(&mut heir, &mut other);
        }
        assert!(said.contains(&"adopted".to_owned()) && said.contains(&"Some(Taken)".to_owned()), "{said:?}");
        other.ends_well();
        // For longer than the TTL.
        let waiter = on(&container).request("x").timeout(TTL + 3 * SECOND).lock();
        assert_eq!(kind(waiter), ErrorKind::Timeout);
        heir.hear_no_more();
        heir.ends_well();
        until("it is free", || on(&container).try_lock("x").unwrap().is_some());
    }
}
