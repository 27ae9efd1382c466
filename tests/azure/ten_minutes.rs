//! Ten minutes of locks on tokens that live for seconds, on a clock that is moved by hand.
#![cfg(target_os = "linux")]

use std::{
    collections::HashMap,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, SystemTime},
};

use leasehold::{
    Event, Guard, Locker, Unlocked,
    azure::Account,
    backend::{Clock, Moment},
};

use crate::{
    fault_server::{FaultServer, Seen, answer, coded, grants},
    identities::{ASSERTION, File, fault_of, free_port, identities, is_probe, refuses_probe},
    identity_server::{Asked, IdentityServer, grants_token, json, seconds},
    support::{NAME, SECOND, ms},
};

/// What an identity and a store go through in ten minutes on a clock that is moved by hand.
struct Simulation {
    clock: Clock,
    start: Moment,
    /// How long a token lives.
    life: Duration,
    /// When each token ends.
    tokens: Mutex<HashMap<String, Duration>>,
    asked: AtomicUsize,
    /// Looks whether a metadata service is there.
    probes: AtomicUsize,
    /// Nothing fails any more.
    calm: AtomicBool,
    /// Requests to the store with a token that had ended.
    late: AtomicUsize,
    requests: AtomicUsize,
}

impl Simulation {
    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_since(self.start)
    }

    /// Each minute and a half nobody gets a token for five seconds; else one request in six fails.
    fn gives(&self, asked: &Asked) -> Vec<u8> {
        if is_probe(asked) {
            self.probes.fetch_add(1, SeqCst);
            return refuses_probe();
        }
        if let Some(fault) = fault_of(asked) {
            println!("\n@fault: {fault}");
        }
        let n = self.asked.fetch_add(1, SeqCst);
        let phase = self.elapsed().as_secs() % 90;
        match n % 12 {
            _ if self.calm.load(SeqCst) => {}
            _ if (60..65).contains(&phase) => return json(503, ""),
            5 if phase < 45 => return json(500, "{\"error\":\"server_error\"}"),
            11 if phase < 45 => return answer(429, &[("Retry-After", "1"), ("Connection", "close")], ""),
            _ => {}
        }
        let (token, life) = (format!("a.{n}.c"), self.life.as_secs());
        self.tokens.lock().unwrap().insert(format!("Bearer {token}"), self.elapsed() + self.life);
        if asked.line.starts_with("POST") {
            return grants_token(&token, &format!("\"expires_in\":{life}"));
        }
        // The time of the service goes on with the clock; that of this machine stands still.
        let now = SystemTime::UNIX_EPOCH + 1_700_000_000 * SECOND + self.elapsed();
        let date = httpdate::fmt_http_date(now);
        let body = format!("{{\"access_token\":\"{token}\",\"expires_on\":\"{}\"}}", seconds(now) + life);
        answer(200, &[("Date", &date), ("Connection", "close")], &body)
    }

    /// One request in 50 finds its token revoked.
    fn stores(&self, seen: &Seen) -> Vec<u8> {
        let n = self.requests.fetch_add(1, SeqCst);
        let mut tokens = self.tokens.lock().unwrap();
        let token = seen.header("authorization");
        match tokens.get(token) {
            Some(_) if n % 50 == 49 && !self.calm.load(SeqCst) => {
                tokens.remove(token);
            }
            Some(end) if self.elapsed() < *end => return grants(seen),
            Some(_) => drop(self.late.fetch_add(1, SeqCst)),
            None => {}
        }
        coded(401, "InvalidAuthenticationInfo")
    }
}

pub(crate) fn hold() {
    let number = |name| env::var(name).unwrap().parse::<u64>().unwrap();
    let clock = Clock::manual();
    let simulation = Arc::new(Simulation {
        start: clock.now(),
        clock: clock.clone(),
        life: Duration::from_secs(number("LEASEHOLD_LIFE")),
        tokens: Mutex::default(),
        asked: AtomicUsize::new(0),
        probes: AtomicUsize::new(0),
        calm: AtomicBool::new(false),
        late: AtomicUsize::new(0),
        requests: AtomicUsize::new(0),
    });
    let (identity, store) = (simulation.clone(), simulation.clone());
    let port = u16::try_from(number("LEASEHOLD_PORT")).unwrap();
    let _identity = IdentityServer::start_at(port, move |asked| identity.gives(asked));
    let server = FaultServer::scripted(move |seen| store.stores(seen));
    let account = Account::from_env().unwrap().endpoint(&server.endpoint()).unwrap().clock(clock.clone());
    let (renewed, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count_renewed, count_failed) = (renewed.clone(), failed.clone());
    let locker =
        Locker::new(account.container("locks").build().unwrap()).on_event(move |event| match event {
            Event::Renewed { .. } => drop(count_renewed.fetch_add(1, SeqCst)),
            Event::RenewalFailed { .. } => drop(count_failed.fetch_add(1, SeqCst)),
            Event::Lost { .. } => println!("\n@{event}"),
            _ => {}
        });
    let mut guards: Vec<Guard> = [15, 20, 30, 60]
        .into_iter()
        .map(|ttl| locker.request(&format!("{ttl}")).ttl(ttl * SECOND).lock().unwrap())
        .collect();
    guards.push(locker.request("for ever").no_expiry().lock().unwrap());
    while simulation.elapsed() < 600 * SECOND {
        clock.advance(ms(250));
        assert!(guards.iter().all(Guard::is_held), "lost after {:?}", simulation.elapsed());
    }
    simulation.calm.store(true, SeqCst);
    while guards.iter().any(|guard| guard.renew().is_err()) {
        clock.advance(ms(250));
    }
    for guard in guards {
        assert_eq!(guard.unlock().unwrap(), Unlocked::Confirmed);
    }
    let tokens = simulation.asked.load(SeqCst);
    println!(
        "\n@600 s, {tokens} token requests, {renewed:?} renewals, {failed:?} failed and repeated, {:?} late",
        simulation.late
    );
    assert!(simulation.probes.load(SeqCst) <= 1, "what was found stays");
    assert_eq!(simulation.late.load(SeqCst), 0, "a token was sent after its end");
    let life = usize::try_from(number("LEASEHOLD_LIFE")).unwrap();
    assert!(tokens >= 600 / life && tokens <= 3 * 600 / life.min(5), "{tokens}");
    assert!(renewed.load(SeqCst) > 600 / 5 + 600 / 7 + 600 / 10);
}

#[test]
fn no_lock_is_lost_in_ten_minutes_of_tokens_that_live_for_seconds() {
    let assertion = File::new("token", ASSERTION);
    thread::scope(|scope| {
        for life in ["5", "20", "90"] {
            let port = free_port();
            let all = identities(&format!("http://127.0.0.1:{port}"), &assertion);
            scope.spawn(move || {
                for (name, environment) in all {
                    let environment =
                        environment.and("AZURE_STORAGE_ACCOUNT", NAME).and("LEASEHOLD_LIFE", life);
                    let said = environment.and("LEASEHOLD_PORT", &port.to_string()).run("hold");
                    println!("{name}, tokens of {life} s: {said}");
                    assert!(said.starts_with("600 s") && said.ends_with(" 0 late"), "{name}: {said}");
                }
            });
        }
    });
}
