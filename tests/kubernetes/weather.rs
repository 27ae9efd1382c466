//! Servers that die, holders that die, many processes, clocks.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant, SystemTime},
};

use leasehold::{Locker, kubernetes::Access};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    common::{
        Actor, Dir, LONG, SECOND, example, ms, play,
        promises::{Stop, under_load},
        read_number, say, timed, until,
    },
    support::{ADMIN, authority, fresh, locker_on, make, server},
};

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    play(|role, arguments| {
        if role == "storm" {
            let locker = locker_at(arguments[0], arguments[1].into());
            return storm(&locker, arguments[2], arguments[3].parse().unwrap());
        }
        let locker = locker_on(arguments[0]);
        match role {
            "count" => {
                let path = PathBuf::from(arguments[1]);
                for _ in 0..arguments[2].parse().unwrap() {
                    let guard = locker.lock("counter").unwrap();
                    // Cut and written: whoever reads meanwhile finds no number.
                    fs::write(&path, (read_number(&path) + 1).to_string()).unwrap();
                    guard.unlock().unwrap();
                }
            }
            "hold" => {
                let _guard = locker.ttl(arguments[1].parse::<u32>().unwrap() * SECOND).lock("x").unwrap();
                say("held");
                thread::sleep(LONG);
            }
            other => panic!("no such role: {other}"),
        }
    });
}

fn start(role: &str, arguments: &[&str]) -> Actor {
    Actor::run(Actor::command("weather::role", role, arguments).stdin(Stdio::null()))
}

fn locker_at(url: &str, authority: PathBuf) -> Locker {
    let access = Access::to(url).unwrap().ca_file(authority).unwrap().token(ADMIN).unwrap();
    Locker::new(access.object("default", "configmaps", "locks").create(true).build().unwrap()).patience(LONG)
}

/// An API server of one test, with an etcd of its own.
struct Cluster {
    starter: Actor,
    dir: Dir,
    url: String,
}

impl Cluster {
    fn start(name: &str) -> Self {
        let dir = Dir::new(name);
        let starter = Self::run(&dir, None);
        let url = fs::read_to_string(dir.0.join("ready")).unwrap().trim().to_owned();
        Self { starter, dir, url }
    }

    fn run(dir: &Dir, port: Option<&str>) -> Actor {
        let _ = fs::remove_file(dir.0.join("ready"));
        let start = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/kubernetes/start");
        let programs = env::var("LEASEHOLD_KUBERNETES_PROGRAMS").expect("tests/run.sh says where they are");
        let mut command = Command::new(start);
        command.arg(programs).arg(&dir.0).args(port).stdin(Stdio::null());
        let starter = Actor::run(&mut command);
        until("the API server", || dir.0.join("ready").exists());
        starter
    }

    fn pid(&self, name: &str) -> Pid {
        let text = fs::read_to_string(self.dir.0.join(format!("{name}.pid"))).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    /// Both die, as if the machine had.
    fn dies(&mut self) {
        for name in ["apiserver", "etcd"] {
            kill_process(self.pid(name), Signal::KILL).unwrap();
        }
        let _ = self.starter.child.wait();
    }

    fn comes_back(&mut self) {
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        self.starter = Self::run(&self.dir, Some(&port));
    }

    fn authority(&self) -> PathBuf {
        self.dir.0.join("certs/apiserver.crt")
    }

    fn locker(&self) -> Locker {
        locker_at(&self.url, self.authority())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for name in ["apiserver", "etcd"] {
            let _ = kill_process(self.pid(name), Signal::KILL);
        }
    }
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn servers_die_and_stand_still_under_load_and_all_go_on() {
    let mut cluster = Cluster::start("cluster");
    let kept = cluster.locker().request("kept").ttl(60 * SECOND).lock().unwrap();
    let lockers: Vec<Locker> = (0..3).map(|_| cluster.locker().ttl(5 * SECOND)).collect();
    under_load(&lockers, |all_go_on| {
        all_go_on(10);
        for _ in 0..2 {
            cluster.dies();
            thread::sleep(SECOND);
            cluster.comes_back();
            let ((), took) = timed(|| all_go_on(10));
            println!("all went on {took:?} after both servers were killed and started again");
            kept.renew().expect("what was stored is kept");
            assert!(lockers[0].try_lock("kept").unwrap().is_none());
        }
        let etcd = cluster.pid("etcd");
        kill_process(etcd, Signal::STOP).unwrap();
        thread::sleep(5 * SECOND);
        kill_process(etcd, Signal::CONT).unwrap();
        let ((), took) = timed(|| all_go_on(10));
        println!("all went on {took:?} after etcd stood still for 5 s");
    });
    kept.renew().unwrap();
}

/// Locks and unlocks a name of its own; says how long each took, in microseconds.
fn storm(locker: &Locker, name: &str, times: usize) {
    let mut took = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        locker.lock(name).unwrap().unlock().unwrap();
        took.push(start.elapsed().as_micros().to_string());
    }
    say(&took.join(" "));
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn sixteen_names_of_one_object_in_sixteen_processes() {
    const TIMES: u32 = 50;
    // One of its own, whose requests can be counted.
    let cluster = Cluster::start("storm");
    cluster.locker().lock("warm").unwrap().unlock().unwrap();
    let before = requests(&cluster.url);
    let authority = cluster.authority();
    let (mut took, whole) = timed(|| {
        let mut actors: Vec<Actor> = (0..16)
            .map(|i| {
                let name = format!("name {i}");
                start("storm", &[&cluster.url, authority.to_str().unwrap(), &name, &TIMES.to_string()])
            })
            .collect();
        let said: Vec<String> = actors.iter_mut().map(Actor::hear).collect();
        said.iter().flat_map(|said| said.split(' ')).map(|us| us.parse().unwrap()).collect::<Vec<u64>>()
    });
    let requests = requests(&cluster.url) - before;
    took.sort_unstable();
    let at = |percent: usize| Duration::from_micros(took[(took.len() * percent / 100).min(took.len() - 1)]);
    println!(
        "16 processes, 16 names of one object, {TIMES} cycles each: {whole:?}; p50 {:?}, p99 {:?}, most {:?}; \
         {:.2} requests a cycle",
        at(50),
        at(99),
        at(100),
        requests / f64::from(16 * TIMES)
    );
    assert_eq!(took.len(), 16 * TIMES as usize, "all made progress");
    assert!(at(99) < 5 * SECOND, "{:?}", at(99));
}

/// How many patches and gets of ConfigMaps the API server has answered.
fn requests(url: &str) -> f64 {
    let metrics = crate::support::by_hand_at(url, "GET", "/metrics", "text/plain", "").1;
    let counts = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"configmaps\"")
            && (line.contains("verb=\"PATCH\"") || line.contains("verb=\"GET\""))
    });
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn eight_processes_count_exactly() {
    let (object, dir) = (fresh(), Dir::new("count"));
    let number = dir.0.join("number");
    fs::write(&number, "0").unwrap();
    let ((), took) = timed(|| {
        let arguments = [&*object, number.to_str().unwrap(), "25"];
        let mut actors: Vec<Actor> = (0..8).map(|_| start("count", &arguments)).collect();
        actors.iter_mut().for_each(Actor::ends_well);
    });
    println!("200 times by 8 processes: {took:?}");
    assert_eq!(read_number(&number), 200);
}

/// From cron: each time a new process, which has seen nothing, and tries once.
#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn run_locked_try_gets_in_after_a_crash() {
    let (object, dir) = (fresh(), Dir::new("cron"));
    make(&object, "{}");
    let config = dir.0.join("config");
    let text = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
         clusters: [{{name: k, cluster: {{server: '{}', certificate-authority: '{}'}}}}], \
         users: [{{name: u, user: {{token: {ADMIN}}}}}]}}",
        server(),
        authority()
    );
    fs::write(&config, text).unwrap();
    let run_locked = || {
        let mut command = example::example("run_locked");
        command.env("KUBECONFIG", &config).env_remove("KUBERNETES_SERVICE_HOST");
        command.args(["--try", &format!("kubernetes:configmaps/{object}"), "x", "--", "true"]);
        command.status().unwrap().code()
    };
    assert_eq!(run_locked(), Some(0));
    let mut holder = start("hold", &[&object, "3"]);
    assert_eq!(holder.hear(), "held");
    assert_eq!(run_locked(), Some(75));
    holder.dies();
    let ((), took) = timed(|| {
        until("it gets in", || {
            let code = run_locked();
            assert!([Some(0), Some(75)].contains(&code), "{code:?}");
            // Cron, with a short minute.
            thread::sleep(ms(500));
            code == Some(0)
        });
    });
    println!("run_locked --try got in {took:?} after the kill, of a TTL of 3 s");
    // The TTL, five seconds for the clocks of API servers, and what whole seconds make of it.
    assert!((ms(5000)..ms(14_000)).contains(&took), "{took:?}");
}

/// No wall clock of ours is asked, so that these do not matter: an hour apart, standing still, going back and forth.
#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn wall_clocks_do_not_matter() {
    let (object, dir) = (fresh(), Dir::new("clocks"));
    let number = dir.0.join("number");
    fs::write(&number, "0").unwrap();
    let library = dir.0.join("wall_clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/wall_clock.c");
    // The compiler that Rust links with.
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(made.unwrap().success());
    let with_clock = |time: &str, role: &str, arguments: &[&str]| {
        let mut command = Actor::command("weather::role", role, arguments);
        let time = if time == "strobe" { dir.0.join("time") } else { time.into() };
        command.env("LD_PRELOAD", &library).env("LEASEHOLD_WALL_CLOCK", time);
        Actor::run(command.stdin(Stdio::null()))
    };
    let arguments = [&*object, number.to_str().unwrap(), "25"];
    // It stands still at a time at which the server's certificate is valid.
    let still = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let still = format!("={still}");
    let clocks = ["-3600", "+3600", &still, "strobe"];
    let set = |time: &str| {
        fs::write(dir.0.join("new time"), time).unwrap();
        fs::rename(dir.0.join("new time"), dir.0.join("time")).unwrap();
    };
    set("+3600");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            for time in ["-3600", "+3600", "+0"].iter().cycle().take_while(|_| !stop.load(SeqCst)) {
                set(time);
                thread::sleep(ms(20));
            }
        });
        let mut actors: Vec<Actor> =
            clocks.iter().cycle().take(8).map(|time| with_clock(time, "count", &arguments)).collect();
        actors.iter_mut().for_each(Actor::ends_well);
        assert_eq!(read_number(&number), 200);
        for time in clocks {
            let mut holder = with_clock(time, "hold", &[&object, "3"]);
            assert_eq!(holder.hear(), "held");
            thread::sleep(5 * SECOND);
            let locker = locker_on(&object);
            assert!(locker.try_lock("x").unwrap().is_none(), "{time}: it is renewed");
            let status = locker.status("x").unwrap();
            assert_eq!(status.holders().len(), 1);
            holder.dies();
            let (_guard, took) = timed(|| locker.request("x").timeout(LONG).lock().unwrap());
            println!("holder's clock {time}: free {took:?} after its death, of a TTL of 3 s");
            assert!(took < ms(4500), "{time}: {took:?}");
        }
    });
}
