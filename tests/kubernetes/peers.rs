//! Beside lockgate v0.1.1, on the same objects: `tests/peers` has a program that locks with it.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use leasehold::{Locker, Mode};

use crate::{
    common::{Actor, Dir, LONG, SECOND, ms, play, read_number, say, timed, until},
    support::{ADMIN, CONFIG_MAPS, access, authority, by_hand, fresh, look, make, server},
};

const LOCK: &str = "release/myapp";
/// lockgate's, which is what its users rely on.
const TTL: Duration = Duration::from_secs(10);

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        let locker = if arguments[0].starts_with("lockgate+") {
            Locker::open(arguments[0]).unwrap()
        } else {
            locker(&arguments[..3]).ttl(TTL)
        };
        match role {
            "count" => {
                let [number, enough] = [3, 4].map(|i| Path::new(arguments[i]));
                count(&locker, number, enough);
            }
            "hold" => {
                let _guard = locker.lock(LOCK).unwrap();
                say("held");
                thread::sleep(LONG);
            }
            other => panic!("no such role: {other}"),
        }
    });
}

fn locker(object: &[&str]) -> Locker {
    let [namespace, resource, name] = object else { panic!("{object:?}") };
    Locker::new(access(ADMIN).object(namespace, resource, name).build().unwrap())
}

/// Adds to the number in a file until another file is there, and reads it beside others; says how often it added.
fn count(locker: &Locker, number: &Path, enough: &Path) {
    let mut times = 0;
    while !enough.exists() {
        let guard = locker.lock(LOCK).unwrap();
        // Cut and written: whoever reads meanwhile finds no number.
        fs::write(number, (read_number(number) + 1).to_string()).unwrap();
        guard.unlock().unwrap();
        times += 1;
        thread::sleep(ms(100));
        let guard = locker.request(LOCK).shared().lock().unwrap();
        let before = read_number(number);
        thread::sleep(ms(2));
        assert_eq!(read_number(number), before, "written beside a reader");
        guard.unlock().unwrap();
        thread::sleep(ms(100));
    }
    say(&times.to_string());
}

/// An object that lockgate and we share.
struct Shared {
    namespace: &'static str,
    resource: &'static str,
    name: String,
}

impl Shared {
    fn config_map() -> Self {
        let name = fresh();
        make(&name, r#"{"a.org/other":"kept"}"#);
        Self { namespace: "default", resource: "configmaps", name }
    }

    /// A resource of one's own, of a namespace or of the cluster.
    fn custom(namespaced: bool) -> Self {
        let (plural, scope) = if namespaced { ("things", "Namespaced") } else { ("worlds", "Cluster") };
        let kind = if namespaced { "Thing" } else { "World" };
        let definition = format!(
            r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":
            {{"name":"{plural}.leasehold.test"}},"spec":{{"group":"leasehold.test","scope":"{scope}","names":
            {{"plural":"{plural}","kind":"{kind}"}},"versions":[{{"name":"v1","served":true,"storage":true,"schema":
            {{"openAPIV3Schema":{{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}}]}}}}"#
        );
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let (status, answer) = by_hand("POST", definitions, "application/json", &definition);
        assert!([201, 409].contains(&status), "{answer}");
        let (resource, namespace) = if namespaced {
            ("leasehold.test/v1/things", "default")
        } else {
            ("leasehold.test/v1/worlds", "")
        };
        let name = fresh();
        let path = if namespaced { "/namespaces/default" } else { "" };
        let path = format!("/apis/leasehold.test/v1{path}/{plural}");
        let object = format!(
            r#"{{"apiVersion":"leasehold.test/v1","kind":"{kind}","metadata":{{"name":"{name}"}},"spec":{{"size":7}}}}"#
        );
        until("the resource is served", || by_hand("POST", &path, "application/json", &object).0 == 201);
        Self { namespace, resource, name }
    }

    fn locker(&self) -> Locker {
        locker(&[self.namespace, self.resource, &self.name]).ttl(TTL)
    }

    fn ours(&self, role: &str, arguments: &[&str]) -> Actor {
        let arguments = [&[self.namespace, self.resource, &self.name], arguments].concat();
        Actor::run(Actor::command("peers::role", role, &arguments).stdin(Stdio::null()))
    }

    fn theirs(&self, options: &[&str], job: &[&str]) -> Actor {
        let programs = env::var("LEASEHOLD_PEERS").expect("`tests/run.sh peers` builds the programs");
        let mut command = Command::new(Path::new(&programs).join("lockgate"));
        command
            .args(["-server", &server(), "-ca", &authority()])
            .args(options)
            .env("KUBERNETES_TOKEN", ADMIN);
        command
            .arg(format!("kubernetes:{}/{}/{}", self.namespace, self.resource, self.name))
            .arg(LOCK)
            .args(job);
        Actor::run(command.stdin(Stdio::piped()))
    }

    /// lockgate's server before the object, and its URL.
    fn server(&self) -> (Actor, String) {
        let programs = env::var("LEASEHOLD_PEERS").expect("`tests/run.sh peers` builds the programs");
        let mut command = Command::new(Path::new(&programs).join("lockgate"));
        command.args(["-server", &server(), "-ca", &authority(), "serve"]).env("KUBERNETES_TOKEN", ADMIN);
        command.arg(format!("kubernetes:{}/{}/{}", self.namespace, self.resource, self.name));
        let mut process = Actor::run(command.stdin(Stdio::null()));
        let url = format!("http://127.0.0.1:{}", process.hear());
        (process, url)
    }

    /// What they find when they try it.
    #[track_caller]
    fn to_them(&self, options: &[&str]) -> String {
        self.theirs(options, &["once"]).answers()
    }
}

#[test]
#[ignore = "needs an API server and a Go program: tests/run.sh peers"]
fn four_of_lockgate_and_four_of_ours_count_exactly() {
    const TIMES: u64 = 5;
    for shared in [Shared::config_map(), Shared::custom(true)] {
        let dir = Dir::new(&shared.name);
        let (number, enough) = (dir.0.join("number"), dir.0.join("enough"));
        fs::write(&number, "0").unwrap();
        let [number_path, enough_path] = [&number, &enough].map(|path| path.to_str().unwrap());
        let times = TIMES.to_string();
        let (ours, took) = timed(|| {
            let mut ours: Vec<Actor> =
                (0..4).map(|_| shared.ours("count", &[number_path, enough_path])).collect();
            let theirs = (0..4).map(|_| shared.theirs(&[], &["count", number_path, &times]));
            let readers = (0..2).map(|_| shared.theirs(&["-shared"], &["read", number_path, &times]));
            theirs.chain(readers).collect::<Vec<Actor>>().iter_mut().for_each(Actor::ends_well);
            fs::write(&enough, "").unwrap();
            let times: Vec<u64> = ours.iter_mut().map(|actor| actor.hear().parse().unwrap()).collect();
            ours.iter_mut().for_each(Actor::ends_well);
            times
        });
        let sum = read_number(&number);
        println!(
            "{}: four of lockgate {TIMES} times each, four of ours {ours:?}: {sum}, {took:?}",
            shared.resource
        );
        assert!(ours.iter().all(|times| *times > 0), "they were alone");
        assert_eq!(sum, 4 * TIMES + ours.iter().sum::<u64>());
    }
}

/// Theirs and ours, at the object itself and by lockgate's server before it.
#[test]
#[ignore = "needs an API server and a Go program: tests/run.sh peers"]
fn users_of_the_server_and_of_the_object_count_exactly() {
    const TIMES: u64 = 4;
    let shared = Shared::config_map();
    let (_server, url) = shared.server();
    let dir = Dir::new(&shared.name);
    let (number, enough) = (dir.0.join("number"), dir.0.join("enough"));
    fs::write(&number, "0").unwrap();
    let [number_path, enough_path] = [&number, &enough].map(|path| path.to_str().unwrap());
    let times = TIMES.to_string();
    let by_server = |options: &[&str], job: &[&str]| {
        let mut command = Command::new(Path::new(&env::var("LEASEHOLD_PEERS").unwrap()).join("lockgate"));
        Actor::run(command.args(options).args([&url, LOCK]).args(job).stdin(Stdio::piped()))
    };
    let (ours, took) = timed(|| {
        let address = format!("lockgate+{url}");
        let arguments = [&*address, "", "", number_path, enough_path];
        let mut ours: Vec<Actor> = (0..4)
            .map(|_| Actor::run(Actor::command("peers::role", "count", &arguments).stdin(Stdio::null())))
            .collect();
        ours.push(shared.ours("count", &[number_path, enough_path]));
        let mut theirs: Vec<Actor> =
            (0..4).map(|_| by_server(&[], &["count", number_path, &times])).collect();
        theirs.push(by_server(&["-shared"], &["read", number_path, &times]));
        theirs.push(shared.theirs(&[], &["count", number_path, &times]));
        theirs.iter_mut().for_each(Actor::ends_well);
        fs::write(&enough, "").unwrap();
        let times: Vec<u64> = ours.iter_mut().map(|actor| actor.hear().parse().unwrap()).collect();
        ours.iter_mut().for_each(Actor::ends_well);
        times
    });
    let sum = read_number(&number);
    println!("server: five of lockgate {TIMES} times each, five of ours {ours:?}: {sum}, {took:?}");
    assert!(ours.iter().all(|times| *times > 0), "they were alone");
    assert_eq!(sum, 5 * TIMES + ours.iter().sum::<u64>());
}

#[test]
#[ignore = "needs an API server and a Go program: tests/run.sh peers"]
fn they_keep_us_out_and_we_them() {
    for shared in [Shared::config_map(), Shared::custom(true), Shared::custom(false)] {
        let locker = shared.locker();
        let join = || locker.request(LOCK).shared().try_lock().unwrap();
        assert_eq!(shared.to_them(&[]), "free");
        let mut theirs = shared.theirs(&[], &["hold"]);
        assert_eq!(theirs.hear(), "held");
        assert!(locker.try_lock(LOCK).unwrap().is_none() && join().is_none());
        let status = locker.status(LOCK).unwrap();
        assert_eq!(
            (status.mode(), status.holders()[0].words()),
            (Some(Mode::Exclusive), "a user of lockgate")
        );
        assert_eq!(locker.list().unwrap()[0].name(), LOCK);
        let ((), took) = timed(|| {
            theirs.hear_no_more();
            theirs.ends_well();
        });
        let (guard, more) = timed(|| locker.request(LOCK).timeout(LONG).lock().unwrap());
        println!("{}: they ended after {took:?}, ours {more:?} later", shared.resource);
        assert!(more < SECOND, "their release is seen at once: {more:?}");
        assert_eq!(shared.to_them(&[]), "busy");
        assert_eq!(shared.to_them(&["-shared"]), "busy");
        let mut waiting = shared.theirs(&[], &["hold"]);
        guard.renew().unwrap();
        guard.unlock().unwrap();
        assert_eq!(waiting.hear(), "held");
        waiting.hear_no_more();
        waiting.ends_well();

        let reader = join().unwrap();
        let mut theirs = shared.theirs(&["-shared"], &["hold"]);
        assert_eq!(theirs.hear(), "held", "readers beside readers");
        assert_eq!(shared.to_them(&[]), "busy");
        let second = join().unwrap();
        assert_eq!(locker.status(LOCK).unwrap().holders().len(), 3);
        reader.unlock().unwrap();
        second.renew().unwrap();
        second.unlock().unwrap();
        assert!(locker.try_lock(LOCK).unwrap().is_none(), "theirs is left");
        theirs.hear_no_more();
        theirs.ends_well();
        assert_eq!(shared.to_them(&[]), "free");
        locker.lock(LOCK).unwrap().unlock().unwrap();
    }
    let other = Shared::config_map();
    other.locker().lock(LOCK).unwrap().unlock().unwrap();
    assert!(look(&other.name).contains("\"kept\""), "{CONFIG_MAPS}");
}

/// All at once, since each is a wait for a TTL.
#[test]
#[ignore = "needs an API server and a Go program: tests/run.sh peers"]
fn who_is_killed_leaves_the_lock_to_the_other() {
    let ours_after_theirs = |shared: &Shared, mode: &[&str]| {
        let mut theirs = shared.theirs(mode, &["hold"]);
        assert_eq!(theirs.hear(), "held");
        theirs.dies();
        let locker = shared.locker();
        assert!(locker.try_lock(LOCK).unwrap().is_none());
        let (guard, took) = timed(|| locker.request(LOCK).timeout(LONG).lock().unwrap());
        println!("{}: ours {took:?} after theirs was killed", shared.resource);
        assert!(guard.is_held() && took < TTL + 3 * SECOND, "{took:?}");
    };
    let theirs_after_ours = |shared: &Shared| {
        let mut ours = shared.ours("hold", &[]);
        assert_eq!(ours.hear(), "held");
        ours.dies();
        assert_eq!(shared.to_them(&[]), "busy");
        let mut theirs = shared.theirs(&[], &["hold"]);
        let (said, took) = timed(|| theirs.hear());
        println!("{}: theirs {took:?} after ours was killed", shared.resource);
        assert_eq!(said, "held");
        // Its second is a whole one, and ours two more.
        assert!(took < TTL + 7 * SECOND, "{took:?}");
        theirs.hear_no_more();
        theirs.ends_well();
    };
    let objects: Vec<Shared> =
        vec![Shared::config_map(), Shared::config_map(), Shared::config_map(), Shared::custom(true)];
    thread::scope(|scope| {
        scope.spawn(|| ours_after_theirs(&objects[0], &[]));
        scope.spawn(|| ours_after_theirs(&objects[1], &["-shared"]));
        scope.spawn(|| theirs_after_ours(&objects[2]));
        scope.spawn(|| theirs_after_ours(&objects[3]));
    });
}

/// What lockgate does in v0.1.1 to a lease that was handed to another of its processes is to renew the record, which
/// names the lease and no process. So it does with ours, and we with its.
#[test]
#[ignore = "needs an API server and a Go program: tests/run.sh peers"]
fn a_record_that_another_renews_is_held() {
    let shared = Shared::config_map();
    let locker = shared.locker();
    let guard = locker.request(LOCK).auto_renew(false).lock().unwrap();
    let mut renewing = shared.theirs(&[], &["renew", guard.lease_id().unwrap(), "5"]);
    assert_eq!(renewing.hear(), "renew");
    guard.renew().expect("what they write is ours still");
    renewing.ends_well();
    assert!(locker.try_lock(LOCK).unwrap().is_none());
    guard.unlock().unwrap();
    assert_eq!(shared.to_them(&[]), "free");
}
