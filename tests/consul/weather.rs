//! Many processes, stopped and killed holders, a leader that dies, ACLs, TLS.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use leasehold::{Break, Error, ErrorKind, Locker, Mode, consul::Builder};

use crate::{
    common::{Actor, Dir, now, play, promises::a_stopped_holder_finds_it_lost, read_number, say, watch},
    support::{
        Consul, LONG, SECOND, TTL, address, builder, field, free_port, fresh_prefix, locker_at, ms, request,
        sessions, timed, until,
    },
};

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| match role {
        "count" => count(&locker_at(arguments[0], arguments[1]), &arguments[2..]),
        "watch" => watch(&locker_at(arguments[0], arguments[1])),
        "open" => open(arguments[0]),
        "once" => {
            let locker = locker_at(arguments[0], arguments[1]).holder(arguments[1]);
            locker.lock("x").unwrap().unlock().unwrap();
        }
        other => panic!("no such role: {other}"),
    });
}

fn start(role: &str, arguments: &[&str]) -> Actor {
    Actor::run(Actor::command("weather::role", role, arguments).stdin(Stdio::null()))
}

/// Adds to the number in a file, in four threads; says when it held the lock, on a clock that is one for all.
fn count(locker: &Locker, arguments: &[&str]) {
    let path = Path::new(arguments[0]);
    let left = AtomicUsize::new(arguments[1].parse().unwrap());
    let held = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
                    let guard = locker.lock("counter").unwrap();
                    let from = now();
                    // Cut and written: whoever reads meanwhile finds no number.
                    fs::write(path, (read_number(path) + 1).to_string()).unwrap();
                    let to = now();
                    assert!(guard.is_held());
                    guard.unlock().unwrap();
                    held.lock().unwrap().push((from, to));
                }
            });
        }
    });
    for (from, to) in held.lock().unwrap().iter() {
        println!("\n@{from} {to}");
    }
}

/// Lets processes count, and asserts that each addition is there and no two were made at once.
fn four_processes_count(addresses: &[String], times: usize, meanwhile: impl FnOnce(&dyn Fn() -> u64)) {
    let (dir, prefix) = (Dir::new(&format!("count-{}", fresh_prefix())), fresh_prefix());
    let number = dir.0.join("number");
    fs::write(&number, "0").unwrap();
    let each = (times / 4).to_string();
    let (mut held, took) = timed(|| {
        let mut actors: Vec<Actor> = (0..4)
            .map(|i| {
                start("count", &[&addresses[i % addresses.len()], &prefix, number.to_str().unwrap(), &each])
            })
            .collect();
        meanwhile(&|| fs::read_to_string(&number).ok().and_then(|text| text.parse().ok()).unwrap_or(0));
        let said: Vec<String> = actors.iter_mut().flat_map(Actor::ends_well_saying).collect();
        let mut held: Vec<(u64, u64)> = said
            .iter()
            .map(|line| {
                let (from, to) = line.split_once(' ').unwrap();
                (from.parse().unwrap(), to.parse().unwrap())
            })
            .collect();
        held.sort_unstable();
        held
    });
    println!("{times} times by 4 processes of 4 threads: {took:?}");
    assert_eq!(read_number(&number), times as u64);
    assert_eq!(held.len(), times);
    held.dedup_by(|next, before| {
        assert!(before.1 <= next.0, "two held it at once");
        false
    });
    let waits = held.windows(2).map(|w| w[1].0 - w[0].1).max().unwrap();
    println!("the longest time that nobody held it: {:?}", Duration::from_nanos(waits));
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn four_processes_of_four_threads_count_exactly() {
    four_processes_count(&[address()], 1000, |_| {});
}

/// Three servers.
fn cluster() -> Vec<Consul> {
    let config = r#"{"bootstrap_expect":3,"performance":{"raft_multiplier":1},"leave_on_terminate":false}"#;
    let name = |i| format!("-node=server{i}");
    let mut servers = vec![Consul::start("server0", false, config, &[&name(0)])];
    for i in 1..3 {
        let join = format!("-retry-join=127.0.0.1:{}", servers[0].serf);
        servers.push(Consul::start(&format!("server{i}"), false, config, &[&name(i), &join]));
    }
    servers
}

fn leader(servers: &[Consul]) -> Option<usize> {
    let said = servers.iter().find_map(|server| {
        let (status, body) = request(&server.address(), "", "GET", "status/leader", "");
        (status == 200 && body.contains(':')).then_some(body)
    })?;
    servers.iter().position(|server| said.contains(&format!(":{}\"", server.server)))
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn the_leader_of_three_servers_dies_under_load_and_all_count_exactly() {
    let mut servers = cluster();
    for server in &servers {
        server.is_ready("");
    }
    let addresses: Vec<String> = servers.iter().map(Consul::address).collect();
    let prefix = fresh_prefix();
    // A lock that is held all the while, by way of a server that stays.
    let first = leader(&servers).unwrap();
    let stays = (0..3).find(|i| *i != first).unwrap();
    let kept = locker_at(&addresses[stays], &prefix).lock("kept").unwrap();
    four_processes_count(&addresses, 2000, |number| {
        for round in 1..=2_u64 {
            until("some load", || number() > round * 300);
            let dies = leader(&servers).filter(|i| *i != stays).unwrap_or(first);
            let before = number();
            servers[dies].dies();
            println!("round {round}: server {dies} killed at {before}");
            until("another leader", || {
                let survivors = servers.iter().enumerate().filter(|(i, _)| *i != dies);
                survivors.into_iter().all(|(_, server)| server.has_leader(""))
            });
            servers[dies].comes_back();
            until("load goes on", || number() > before + 50);
        }
    });
    kept.check().expect("ridden out");
    kept.renew().unwrap();
    assert_eq!(kept.unlock().unwrap(), leasehold::Unlocked::Confirmed);
}

/// A program that ends right after its unlock leaves no session to its TTL.
#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_program_that_ends_leaves_no_session() {
    let words = fresh_prefix();
    for _ in 0..10 {
        start("once", &[&address(), &words]).ends_well();
    }
    assert_eq!(sessions(&address(), &words), 0);
    drop(locker_at(&address(), &words).try_lock("x").unwrap().expect("free at once"));
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_stopped_holder_finds_its_lock_lost_before_its_code_can_act_on_it() {
    let prefix = fresh_prefix();
    let holder = start("watch", &[&address(), &prefix]);
    let [locker, beside] = [(); 2].map(|()| locker_at(&address(), &prefix));
    a_stopped_holder_finds_it_lost(holder, &locker, &beside);
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn a_killed_holder_leaves_the_lock_within_two_ttls_and_the_lock_delay() {
    let prefix = fresh_prefix();
    let mut holder = start("watch", &[&address(), &prefix]);
    assert_eq!(holder.hear(), "held");
    let locker = locker_at(&address(), &prefix);
    holder.dies();
    let (guard, took) = timed(|| locker.request("x").timeout(LONG).lock().unwrap());
    println!("had the lock {took:?} after the kill, of a TTL and lock-delay of {TTL:?}");
    assert!(guard.is_held() && took + SECOND >= 2 * TTL && took <= 3 * TTL + SECOND, "{took:?}");
}

// Rights.

const ROOT: &str = "00000000-0000-4000-8000-000000000001";

/// A token with these rules.
fn token(consul: &Consul, name: &str, rules: &str) -> String {
    let address = consul.address();
    let policy = format!(r#"{{"Name":"{name}","Rules":{rules:?}}}"#);
    let (status, body) = request(&address, ROOT, "PUT", "acl/policy", &policy);
    assert_eq!(status, 200, "{body}");
    let (status, body) =
        request(&address, ROOT, "PUT", "acl/token", &format!(r#"{{"Policies":[{{"Name":"{name}"}}]}}"#));
    assert_eq!(status, 200, "{body}");
    field(&body, "SecretID")
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn with_acls_the_documented_rules_do_and_what_is_lacking_is_named() {
    let config = format!(
        r#"{{"acl":{{"enabled":true,"default_policy":"deny","enable_key_list_policy":true,
            "tokens":{{"initial_management":"{ROOT}","agent":"{ROOT}"}}}}}}"#
    );
    let consul = Consul::start("acl", true, &config, &[]);
    consul.is_ready(ROOT);
    until("the token of the start", || {
        request(&consul.address(), ROOT, "GET", "acl/token/self", "").0 == 200
    });
    let session = r#"session_prefix "" { policy = "write" }"#;
    let key = r#"key_prefix "locks/" { policy = "write" }"#;
    let list = r#"key_prefix "locks/" { policy = "list" }"#;
    let locker = |name: &str, rules: &[&str]| {
        let secret = token(&consul, name, &rules.join(" "));
        let store = builder(&consul.address(), "locks").token(&secret).build().unwrap();
        Locker::new(store).ttl(TTL)
    };
    let able = locker("able", &[session, key]);
    let guard = able.lock("x").unwrap();
    guard.renew().unwrap();
    assert!(able.try_lock("x").unwrap().is_none());
    guard.unlock().unwrap();
    let reader = able.request("x").shared().lock().unwrap();
    assert!(able.try_lock("x").unwrap().is_none());
    reader.renew().unwrap();
    drop(reader);
    able.lock("x").unwrap().unlock().unwrap();
    assert_eq!(able.status("x").unwrap().mode(), None);
    assert_eq!(able.list().unwrap().len(), 1);
    let guard = able.lock("y").unwrap();
    assert_eq!(able.break_lock("y", Break::AfterNotice).unwrap(), Some(TTL));
    drop(guard);

    let denied = |what: &str, locker: &Locker, rule: &str| {
        let (result, took) = timed(|| locker.lock("x"));
        let error = result.expect_err(what);
        println!("{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error}");
        assert!(error.to_string().contains(rule), "{what}: {error}");
        assert!(took < 2 * SECOND, "at once: {took:?}");
    };
    denied("without sessions", &locker("no-session", &[key]), "session_prefix \"\" { policy = \"write\" }");
    denied("without keys", &locker("no-key", &[session]), "key_prefix \"locks/\" { policy = \"read\" }");
    denied(
        "only to read keys",
        &locker("read-key", &[session, r#"key_prefix "locks/" { policy = "read" }"#]),
        "key_prefix \"locks/\" { policy = \"write\" }",
    );
    denied(
        "only to list keys",
        &locker("list-key", &[session, list]),
        "key_prefix \"locks/\" { policy = \"write\" }",
    );
    // Who may not see readers must not be let in beside them.
    denied(
        "only this key",
        &locker("one-key", &[session, r#"key "locks/x" { policy = "write" }"#]),
        "key_prefix \"locks/\" { policy = \"write\" }",
    );
    let stranger = Locker::new(builder(&consul.address(), "locks").token("no-such-token").build().unwrap());
    denied("a token that is none", &stranger, "ACL not found");
    let nobody = Locker::new(builder(&consul.address(), "locks").build().unwrap());
    denied("no token", &nobody, "anonymous token");
}

// TLS.

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and certificates of a server and a client by it: `ca.pem`, `server.pem`, `client.pem`, and `.key` of each.
fn certificates(dir: &Path) {
    openssl(
        dir,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
    );
    for (name, extensions) in [
        ("server", "subjectAltName=DNS:server.dc1.consul\nextendedKeyUsage=serverAuth,clientAuth\n"),
        ("client", "subjectAltName=DNS:client.dc1.consul\nextendedKeyUsage=clientAuth\n"),
    ] {
        openssl(
            dir,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ),
        );
        fs::write(dir.join("extensions"), extensions).unwrap();
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
            ),
        );
    }
}

/// Opens an address with what the environment says, and says what came of it.
fn open(address: &str) {
    let locked = Locker::open(address).and_then(|locker| locker.patience(ms(500)).lock("x")?.unlock());
    say(&locked.map_or_else(|e: Error| e.to_string(), |how| format!("{how:?}")));
}

#[test]
#[ignore = "needs Consul: tests/run.sh consul"]
fn tls_with_a_private_ca_and_a_client_certificate() {
    let dir = Dir::new("tls-files");
    certificates(&dir.0);
    let file = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
    let config = format!(
        r#"{{"tls":{{"https":{{"ca_file":"{}","cert_file":"{}","key_file":"{}","verify_incoming":true}}}}}}"#,
        file("ca.pem"),
        file("server.pem"),
        file("server.key")
    );
    let https = free_port();
    let consul = Consul::start("tls", true, &config, &[&format!("-https-port={https}")]);
    consul.is_ready("");
    let url = format!("https://127.0.0.1:{https}");
    let read = |name: &str| fs::read(file(name)).unwrap();
    let base = || Builder::new().address(&url).prefix("tls").server_name("server.dc1.consul");
    let locker = |builder: Builder| Locker::new(builder.build().unwrap()).patience(ms(500));
    let trusted = || base().ca(&read("ca.pem"));
    let secure = locker(trusted().client_certificate(&read("client.pem"), &read("client.key")));
    let guard = secure.lock("x").unwrap();
    guard.renew().unwrap();
    assert_eq!(secure.status("x").unwrap().mode(), Some(Mode::Exclusive));
    guard.unlock().unwrap();
    for (what, builder) in [
        ("without the CA", base().client_certificate(&read("client.pem"), &read("client.key"))),
        ("without a certificate of ours", trusted()),
        (
            "by another name",
            trusted()
                .server_name("other.consul")
                .client_certificate(&read("client.pem"), &read("client.key")),
        ),
    ] {
        let error = locker(builder).lock("x").unwrap_err();
        println!("{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
    }
    // By the variables of Consul's own tools.
    let open = |variables: &[(&str, &str)]| {
        let mut command = Actor::command("weather::role", "open", &["consul:tls"]);
        for name in ["CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_SSL"] {
            command.env_remove(name);
        }
        Actor::run(command.envs(variables.iter().copied()).stdin(Stdio::null())).hear()
    };
    let address = format!("127.0.0.1:{https}");
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let mut variables = vec![
        ("CONSUL_HTTP_ADDR", &*address),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_CLIENT_CERT", &*certificate),
        ("CONSUL_CLIENT_KEY", &*key),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
    ];
    assert!(open(&variables).contains("certificate"), "in the words of the TLS library");
    variables.push(("CONSUL_CACERT", &*ca));
    assert_eq!(open(&variables), "Confirmed");
}
