//! Tokens: where they go, and what becomes of locks when there is none, a wrong one, or a late one.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::SystemTime,
};

use leasehold::{
    ErrorKind, Locker, Unlocked,
    azure::{Account, Token},
};

use crate::{
    fault_server::{FaultServer, coded, grants},
    support::{NAME, SECOND, kind, ms, timed, until},
};

/// A store on this server, with tokens of a function.
fn with_function(
    server: &FaultServer,
    function: impl Fn() -> io::Result<Token> + Send + Sync + 'static,
) -> Locker {
    let account = Account::with_token(NAME, function).unwrap().endpoint(&server.endpoint()).unwrap();
    Locker::new(account.container("locks").build().unwrap()).ttl(15 * SECOND)
}

#[test]
fn a_token_never_goes_over_plain_http() {
    let account = Account::with_token(NAME, || Err(io::Error::other("never"))).unwrap();
    for far in ["http://storage.example", "http://10.0.0.1/devstoreaccount1", "http://169.254.169.254/x"] {
        let account = account.clone().endpoint(far).unwrap();
        for allowed in [false, true] {
            let error = account.container("locks").allow_http(allowed).build().map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("https"), "{error}");
        }
    }
    for near in ["http://127.0.0.1:1/x", "http://[::1]:1/x", "http://x.blob.localhost:1", "https://h.example"]
    {
        account.clone().endpoint(near).unwrap().container("locks").build().unwrap();
    }
}

#[test]
fn a_refused_token_is_replaced_once_and_the_request_repeated() {
    for refusal in [coded(401, "InvalidAuthenticationInfo"), coded(403, "AuthenticationFailed")] {
        let server = FaultServer::scripted(move |seen| {
            if seen.header("authorization") == "Bearer revoked" { refusal.clone() } else { grants(seen) }
        });
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let locker = with_function(&server, move || {
            let text = if count.fetch_add(1, SeqCst) == 0 { "revoked" } else { "good" };
            Ok(Token::new(text, SystemTime::now() + 3600 * SECOND))
        });
        let guard = locker.lock("x").unwrap();
        let sent: Vec<String> =
            server.seen("acquire").iter().map(|seen| seen.header("authorization").to_owned()).collect();
        assert_eq!(sent, ["Bearer revoked", "Bearer good"]);
        guard.renew().unwrap();
        guard.unlock().unwrap();
        assert_eq!(calls.load(SeqCst), 2);
    }
}

#[test]
fn a_missing_right_is_no_reason_for_another_token() {
    let server = FaultServer::scripted(|_| coded(403, "AuthorizationPermissionMismatch"));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let locker = with_function(&server, move || {
        count.fetch_add(1, SeqCst);
        Ok(Token::new("a.b.c", SystemTime::now() + 3600 * SECOND))
    });
    let error = locker.lock("x").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("Storage Blob Data Contributor"), "{error}");
    assert_eq!((calls.load(SeqCst), server.seen("acquire").len()), (1, 1));
}

#[test]
fn a_function_that_hangs_holds_no_call_beyond_its_budget() {
    let server = FaultServer::scripted(grants);
    let (release, hang) = mpsc::channel::<()>();
    let hang = Mutex::new(hang);
    let calls = AtomicUsize::new(0);
    let locker = with_function(&server, move || {
        if calls.fetch_add(1, SeqCst) > 0 {
            let _ = hang.lock().unwrap().recv();
        }
        Ok(Token::new("a.b.c", SystemTime::now() + 3 * SECOND))
    });
    let locker = locker.release_budget(ms(500));
    let guard = locker.request("x").auto_renew(false).lock().unwrap();
    thread::sleep(4 * SECOND);
    let (result, took) = timed(|| locker.try_lock("y"));
    assert_eq!(kind(result), ErrorKind::Unavailable);
    assert!(took < ms(1250), "{took:?}");
    let (result, took) = timed(|| locker.request("y").timeout(ms(700)).lock());
    assert_eq!(kind(result), ErrorKind::Timeout);
    assert!(took < ms(950), "{took:?}");
    let (result, took) = timed(|| guard.renew());
    assert_eq!(kind(result), ErrorKind::Unavailable);
    assert!(took < 5 * SECOND && guard.is_held(), "{took:?}");
    let (how, took) = timed(|| guard.unlock());
    assert_eq!(how.unwrap(), Unlocked::Expiring);
    assert!(took < ms(750), "{took:?}");
    // It comes to its senses, and so does all else.
    drop(release);
    until("a token", || matches!(locker.try_lock("y"), Ok(Some(_))));
}

#[test]
fn errors_of_a_function_are_told_by_their_kind() {
    for (kind_of, expected) in [
        (io::ErrorKind::PermissionDenied, ErrorKind::Denied),
        (io::ErrorKind::InvalidInput, ErrorKind::Config),
        (io::ErrorKind::TimedOut, ErrorKind::Unavailable),
        (io::ErrorKind::Other, ErrorKind::Unavailable),
    ] {
        let server = FaultServer::scripted(grants);
        let locker = with_function(&server, move || Err(io::Error::new(kind_of, "the broker is shut")));
        let error = locker.patience(ms(200)).lock("x").map(drop).unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(
            error.to_string().contains("no token from the token function: the broker is shut"),
            "{error}"
        );
        assert!(server.seen("acquire").is_empty());
    }
}
