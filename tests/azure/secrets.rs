//! No secret of an identity is told: in no error, no `Debug`, no line of a log.
#![cfg(target_os = "linux")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::SystemTime,
};

use leasehold::{
    Error, Locker,
    azure::{Account, Token},
};

use crate::{
    fault_server::{Act, FaultServer, coded, logged, transient},
    identities::{
        ASSERTION, File, HEADER, SECRET, SECRET_ON_THE_WIRE, free_port, identities, is_probe, refuses_probe,
    },
    identity_server::{Asked, IdentityServer, Script, grants_token, json},
    support::NAME,
};

/// All that a credential can be made to say, with a token service that repeats what it was told.
pub(crate) fn tell_all() {
    let said = logged();
    let port = env::var("LEASEHOLD_PORT").unwrap().parse().unwrap();
    let repeats = |status: u16| {
        move |asked: &Asked| {
            let plain = |text: &str| text.replace(['"', '\\', '\r', '\n'], " ");
            let decoded = asked.body.replace(SECRET_ON_THE_WIRE, SECRET);
            let told = plain(&format!("{} {} {decoded}", asked.head, asked.body));
            json(status, &format!("{{\"error\":\"invalid_client\",\"error_description\":\"{told}\"}}"))
        }
    };
    let mut acts: Vec<Box<Script>> = Vec::new();
    for status in [200, 302, 400, 401, 403, 404, 429, 500, 503] {
        acts.push(Box::new(repeats(status)));
    }
    for (_, act) in transient() {
        if let Act::Answer(bytes) | Act::Last(bytes) = act {
            acts.push(Box::new(move |_| bytes.clone()));
        }
    }
    for token in ["hunter2 token", "hunter2\\u000atoken", "hunter2token"] {
        acts.push(Box::new(move |_| grants_token(token, "\"expires_in\":0")));
        acts.push(Box::new(move |_| grants_token(token, "\"expires_in\":3600")));
        acts.push(Box::new(move |_| grants_token(token, "\"expires_in\":x")));
    }
    let count = acts.len();
    let (turn, acts) = (Arc::new(AtomicUsize::new(0)), acts);
    let now = turn.clone();
    let _identity = IdentityServer::start_at(port, move |asked| {
        if is_probe(asked) { refuses_probe() } else { acts[now.load(SeqCst)](asked) }
    });
    let store = FaultServer::scripted(|seen| match &*seen.what {
        "acquire" => coded(401, "InvalidAuthenticationInfo"),
        _ => coded(403, "AuthorizationPermissionMismatch"),
    });
    let mut told = Vec::new();
    for n in 0..count {
        turn.store(n, SeqCst);
        let account = Account::from_env().unwrap().endpoint(&store.endpoint()).unwrap();
        let built = account.container("locks").build().unwrap();
        told.push(format!("{account:?} {account:#?} {built:?}"));
        let locker = Locker::new(built);
        let errors = [locker.try_lock("x").map(drop).unwrap_err(), locker.status("x").map(drop).unwrap_err()];
        told.extend(errors.map(|e: Error| {
            let cause = std::error::Error::source(&e).map(|cause| format!("{cause} {cause:?}"));
            format!("{e} {e:?} {e:#?} {cause:?} {:?}", std::io::Error::from(e.clone()))
        }));
    }
    assert!(!store.seen("acquire").is_empty(), "some token was sent");
    told.extend(said.lock().unwrap().iter().cloned());
    for line in &told {
        for secret in [SECRET, SECRET_ON_THE_WIRE, ASSERTION, HEADER, "hunter2", "Bearer a", "Bearer h"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
    println!("\n@{} lines", told.len());
}

#[test]
fn no_secret_of_an_identity_is_told() {
    let assertion = File::new("token", ASSERTION);
    let port = free_port();
    for (name, environment) in identities(&format!("http://127.0.0.1:{port}"), &assertion) {
        let environment = environment.and("AZURE_STORAGE_ACCOUNT", NAME);
        let said = environment.and("LEASEHOLD_PORT", &port.to_string()).run("secrets");
        println!("{name}: {said}");
        assert!(said.ends_with(" lines"), "{said}");
    }
    let token = Token::new("hunter2", SystemTime::UNIX_EPOCH);
    assert!(!format!("{token:?} {token:#?}").contains("hunter2"));
}
