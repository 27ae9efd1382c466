//! Every credential: what is sent for it, to the letter, and that locks live on it.
//!
//! What reads the environment runs in a process of its own.
#![cfg(target_os = "linux")]

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::SystemTime,
};

use leasehold::{Locker, Unlocked};

use crate::{
    fault_server::{FaultServer, Seen, answer, coded, grants},
    identities::{
        ASSERTION, AUDIENCE, CLIENT, Environment, File, HEADER, TENANT, az, fault_of, identities, is_probe,
        no_machine, refuses_probe, token_service,
    },
    identity_server::{IdentityServer, grants_token, json, jwt, seconds},
    secrets,
    support::{NAME, SECOND, fresh_container, timed},
    ten_minutes,
};

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    let Ok(role) = env::var("LEASEHOLD_ROLE") else { return };
    match &*role {
        "lock" => lock_once(),
        "keep" => keep(),
        "hold" => ten_minutes::hold(),
        "secrets" => secrets::tell_all(),
        other => panic!("no such role: {other}"),
    }
}

/// Locks and unlocks at an address, and says how that went.
fn lock_once() {
    let address = env::var("LEASEHOLD_ADDRESS").unwrap();
    let locked = || -> leasehold::Result<Unlocked> {
        let locker = Locker::open(&address)?.patience(SECOND);
        locker.lock("x")?.unlock()
    };
    match locked() {
        Ok(how) => println!("\n@{how:?}"),
        Err(e) => println!("\n@{:?} {e}", e.kind()),
    }
}

/// Keeps a lock for longer than its TTL.
fn keep() {
    let locker = Locker::open(&env::var("LEASEHOLD_ADDRESS").unwrap()).unwrap().ttl(15 * SECOND);
    let guard = locker.lock("x").unwrap();
    guard.check_for(20 * SECOND).unwrap();
    println!("\n@{:?}", guard.unlock().unwrap());
}

fn at(environment: &Environment, endpoint: &str) -> Environment {
    let address = format!("azure://{NAME}/{}?endpoint={endpoint}", fresh_container());
    environment.clone().and("LEASEHOLD_ADDRESS", &address)
}

/// A store that grants all to whoever has a token, and remembers those.
fn store() -> FaultServer {
    FaultServer::scripted(|seen| match seen.header("authorization").strip_prefix("Bearer ") {
        Some(token) if token.matches('.').count() == 2 => grants(seen),
        _ => coded(401, "NoAuthenticationInformation"),
    })
}

#[test]
fn each_credential_asks_to_the_letter() {
    let (service, assertion) = (token_service(), File::new("token", &format!("{ASSERTION}\n")));
    for (name, environment) in identities(&service.url(), &assertion) {
        let store = store();
        let before = service.asked().len();
        assert_eq!(at(&environment, &store.endpoint()).run("lock"), "Confirmed", "{name}");
        let asked = service.asked().split_off(before);
        let asked: Vec<_> = asked.iter().filter(|asked| !is_probe(asked)).collect();
        assert_eq!(asked.len(), 1, "{name}: one token for all requests");
        assert_eq!(fault_of(asked[0]), None, "{name}");
        let sent = [store.seen("acquire"), store.seen("release")].concat();
        let tokens: Vec<&str> = sent.iter().map(|seen| seen.header("authorization")).collect();
        assert!(
            tokens.len() == 2 && tokens[0].starts_with("Bearer ") && tokens[0] == tokens[1],
            "{tokens:?}"
        );
        // The first version that takes tokens.
        assert!(sent.iter().all(|seen| seen.header("x-ms-version") >= "2017-11-09"));
    }
    let (store, az) = (store(), az());
    let environment = no_machine(Environment::new(&[("PATH", az.dir())]));
    assert_eq!(at(&environment, &store.endpoint()).run("lock"), "Confirmed", "the Azure CLI");
}

#[test]
fn one_of_several_managed_identities_is_named() {
    for (variable, path) in [("IDENTITY_ENDPOINT", "/msi/token"), ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "")] {
        let service = IdentityServer::start(|asked| {
            if is_probe(asked) { refuses_probe() } else { grants_token("a.b.c", "\"expires_in\":\"3600\"") }
        });
        let environment =
            Environment::new(&[(variable, &*(service.url() + path)), ("AZURE_CLIENT_ID", CLIENT)]);
        let environment = environment.and("IDENTITY_HEADER", HEADER);
        assert_eq!(at(&environment, &store().endpoint()).run("lock"), "Confirmed");
        let line = service.asked().pop().unwrap().line;
        assert!(
            line.ends_with(&format!("&resource=https%3A%2F%2Fstorage.azure.com&client_id={CLIENT}")),
            "{line}"
        );
    }
}

#[test]
fn a_key_or_a_signature_comes_before_an_identity() {
    let (service, assertion) = (token_service(), File::new("token", ASSERTION));
    for (name, value) in [("AZURE_STORAGE_KEY", "c2VjcmV0"), ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=x")] {
        let server = FaultServer::scripted(grants);
        for (_, environment) in identities(&service.url(), &assertion) {
            assert_eq!(at(&environment.and(name, value), &server.endpoint()).run("lock"), "Confirmed");
        }
        let bearer = |seen: &Seen| seen.header("authorization").starts_with("Bearer");
        assert!(!server.seen("acquire").iter().any(bearer), "{name}");
    }
    assert!(service.asked().is_empty());
    // A secret comes before a file, a file before an app, an app before a machine.
    let all = identities(&service.url(), &assertion);
    for (n, (name, _)) in all.iter().enumerate() {
        let rest = all[n..].iter().flat_map(|(_, environment)| environment.0.clone());
        assert_eq!(at(&Environment(rest.collect()), &store().endpoint()).run("lock"), "Confirmed");
        let line = service.asked().pop().unwrap();
        let expected = match *name {
            "client secret" => line.body.contains("client_secret"),
            "workload identity" => line.body.contains("client_assertion"),
            "app" => line.line.contains("/msi/token"),
            _ => line.line.contains("/metadata/"),
        };
        assert!(expected, "{name}: {line:?}");
    }
}

#[test]
fn when_no_credential_fits_the_error_says_what_was_tried() {
    let nothing = no_machine(Environment::new(&[("PATH", "/no/such/directory")]));
    let (said, took) = timed(|| at(&nothing, &store().endpoint()).run("lock"));
    for part in [
        "Config",
        "no credential fits",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "client secret: AZURE_CLIENT_SECRET is not set",
        "workload identity: AZURE_FEDERATED_TOKEN_FILE is not set",
        "managed identity of an app: IDENTITY_ENDPOINT is not set",
        "managed identity of this machine: GET to 127.0.0.1:",
        "Azure CLI: there is no `az` on the PATH",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    println!("after {took:?}: {said}");
    let logged_out =
        File::az("echo \"ERROR: Please run 'az login' to setup account.\" >&2; echo hunter2; exit 1");
    let environment =
        no_machine(Environment::new(&[("PATH", logged_out.dir()), ("AZURE_CLIENT_SECRET", "hunter2")]));
    let said = at(&environment, &store().endpoint()).run("lock");
    assert!(
        said.starts_with("Denied ") && said.contains("Azure CLI: `az`: ERROR: Please run 'az login'"),
        "{said}"
    );
    assert!(
        said.contains("client secret: AZURE_CLIENT_ID is not set") && !said.contains("hunter2"),
        "{said}"
    );
    // The service of another cloud at this address is no reason to stop there.
    let elsewhere = IdentityServer::start(|_| answer(404, &[("Connection", "close")], "<html></html>"));
    let az = az();
    let environment = Environment::new(&[("PATH", az.dir())]);
    let environment = environment.and("AZURE_POD_IDENTITY_AUTHORITY_HOST", &elsewhere.url());
    assert_eq!(at(&environment, &store().endpoint()).run("lock"), "Confirmed");
    // Nor is a machine to which no identity was given.
    let none = IdentityServer::start(|asked| {
        let not_found = "{\"error\":\"invalid_request\",\"error_description\":\"Identity not found\"}";
        if is_probe(asked) { refuses_probe() } else { json(400, not_found) }
    });
    let machine =
        |environment: &Environment| environment.clone().and("AZURE_POD_IDENTITY_AUTHORITY_HOST", &none.url());
    assert_eq!(at(&machine(&environment), &store().endpoint()).run("lock"), "Confirmed");
    let said = at(&machine(&nothing), &store().endpoint()).run("lock");
    assert!(
        said.starts_with("Config ")
            && said.contains("this machine: status 400 invalid_request: Identity not found"),
        "{said}"
    );
    // A machine that has an identity, and cannot tell it now, is waited for: who is logged in is no stand-in.
    let down = IdentityServer::start(|asked| if is_probe(asked) { refuses_probe() } else { json(503, "") });
    let environment = environment.and("AZURE_POD_IDENTITY_AUTHORITY_HOST", &down.url());
    let said = at(&environment, &store().endpoint()).run("lock");
    assert!(said.starts_with("Unavailable ") && said.contains("status 503"), "{said}");
}

#[test]
fn variables_that_cannot_be_are_named() {
    for (name, value, rest, shown) in [
        ("AZURE_AUTHORITY_HOST", "http://login.example", "AZURE_CLIENT_SECRET", "https://"),
        ("AZURE_AUTHORITY_HOST", "https://login.example/?x", "AZURE_CLIENT_SECRET", "`?`"),
        ("AZURE_TENANT_ID", "../hunter2", "AZURE_CLIENT_SECRET", "tenant"),
        ("AZURE_CLIENT_ID", "hunter2/", "AZURE_FEDERATED_TOKEN_FILE", "client id"),
        ("IDENTITY_ENDPOINT", "http://20.0.0.1/msi/token", "IDENTITY_HEADER", "20.0.0.1"),
        ("IDENTITY_ENDPOINT", "https://example.org/msi", "IDENTITY_HEADER", "example.org"),
        ("IDENTITY_ENDPOINT", "http://127.0.0.1/?hunter2", "IDENTITY_HEADER", "`?`"),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://example.org", "X", "example.org"),
    ] {
        let environment = Environment::new(&[("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_ID", CLIENT)]);
        let environment = environment.and(rest, "hunter2").and(name, value);
        let said = at(&environment, &store().endpoint()).run("lock");
        assert!(said.starts_with("Config ") && said.contains(shown), "{name}={value}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn no_proxy_stands_between_a_machine_and_its_identity() {
    let (service, assertion) = (token_service(), File::new("token", ASSERTION));
    let proxy = IdentityServer::start(|_| json(200, "{}"));
    for (name, environment) in identities(&service.url(), &assertion) {
        let environment = environment.and("HTTP_PROXY", &proxy.url()).and("ALL_PROXY", &proxy.url());
        assert_eq!(at(&environment, &store().endpoint()).run("lock"), "Confirmed", "{name}");
    }
    assert!(proxy.asked().is_empty());
}

#[test]
fn an_az_that_hangs_holds_nobody_up() {
    let hangs = File::az("sleep 5");
    let environment = no_machine(Environment::new(&[]));
    let environment = environment.and("PATH", &format!("{}:/usr/bin:/bin", hangs.dir()));
    let (said, took) = timed(|| at(&environment, &store().endpoint()).run("lock"));
    assert!(said.starts_with("Unavailable "), "{said}");
    assert!(took < 4 * SECOND, "{took:?}");
}

/// Azurite looks at the end of a token, and so these have to be new ones all the time.
#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn a_lock_on_azurite_outlives_its_tokens() {
    let variable = |name| env::var(name).ok();
    let [Some(endpoint), Some(certificate)] =
        ["LEASEHOLD_AZURITE_HTTPS", "LEASEHOLD_AZURITE_CERTIFICATE"].map(variable)
    else {
        return println!("skipped: no Azurite with https was started");
    };
    let number = AtomicUsize::new(0);
    let service = IdentityServer::start(move |_| {
        let end = seconds(SystemTime::now()) + 6;
        grants_token(&jwt(AUDIENCE, end, number.fetch_add(1, SeqCst)), "\"expires_in\":5")
    });
    let assertion = File::new("token", ASSERTION);
    let environment = identities(&service.url(), &assertion).swap_remove(0).1;
    let environment = at(&environment.and("SSL_CERT_FILE", &certificate), &endpoint);
    assert_eq!(environment.run("keep"), "Confirmed");
    let tokens = service.asked().len();
    println!("{tokens} tokens of 5 s in 20 s");
    assert!((4..=8).contains(&tokens), "{tokens}");
}

#[test]
#[ignore = "needs Azurite: tests/run.sh azure"]
fn tokens_on_azurite_over_https() {
    let variable = |name| env::var(name).ok();
    let [Some(endpoint), Some(certificate)] =
        ["LEASEHOLD_AZURITE_HTTPS", "LEASEHOLD_AZURITE_CERTIFICATE"].map(variable)
    else {
        return println!("skipped: no Azurite with https was started");
    };
    let (service, assertion, az) = (token_service(), File::new("token", ASSERTION), az());
    let mut all = identities(&service.url(), &assertion);
    all.push(("Azure CLI", no_machine(Environment::new(&[("PATH", az.dir())]))));
    for (name, environment) in all {
        let environment = at(&environment.and("SSL_CERT_FILE", &certificate), &endpoint);
        assert_eq!(environment.run("lock"), "Confirmed", "{name}");
        println!("{name}: Confirmed");
    }
    let other = IdentityServer::start(|_| {
        let end = seconds(SystemTime::now()) + 3600;
        grants_token(&jwt("https://vault.azure.net", end, 0), "\"expires_in\":3600")
    });
    let environment = identities(&other.url(), &assertion).swap_remove(0).1;
    let said = at(&environment.and("SSL_CERT_FILE", &certificate), &endpoint).run("lock");
    assert!(said.starts_with("Denied ") && said.contains("AuthenticationFailed"), "{said}");
    assert!(said.contains("the token of the client secret was not accepted"), "{said}");
    assert_eq!(other.asked().len(), 2, "one more token was asked for, and no third");
}
