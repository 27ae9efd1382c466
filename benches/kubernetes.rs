//! What a Kubernetes lock costs beside lockgate's, in one run on one API server.
//!
//! `LEASEHOLD_KUBERNETES=URL LEASEHOLD_KUBERNETES_CA=FILE LEASEHOLD_PEERS=DIR cargo bench --bench kubernetes --features
//! kubernetes` prints one table (`tests/run.sh` says how the server and the Go programs in `DIR` are built); with
//! `-- --check` it fails when a target is missed. Without `--bench` every part runs for a moment only.
//!
//! The two take turns (A B A B), and the medians of their rounds are compared. A hand-over is the time from when the
//! holder's unlock has returned to when the waiter's lock has.
#![allow(clippy::disallowed_methods, reason = "a bench measures real time and starts real threads")]

mod common;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{Result, end, end_in_time};
use leasehold::{Locker, kubernetes::Access};

const AT_MOST: Duration = Duration::from_secs(180);
const OBJECT: &str = "leasehold-bench";

/// How much of everything.
struct Amount {
    rounds: usize,
    cycles: usize,
    hands: usize,
    /// lockgate waits two seconds.
    their_hands: usize,
}

const FULL: Amount = Amount { rounds: 15, cycles: 40, hands: 200, their_hands: 15 };
const QUICK: Amount = Amount { rounds: 1, cycles: 3, hands: 3, their_hands: 1 };

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [server, authority, peers] = ["LEASEHOLD_KUBERNETES", "LEASEHOLD_KUBERNETES_CA", "LEASEHOLD_PEERS"]
        .map(|name| env::var(name).ok());
    let (Some(server), Some(authority), Some(peers)) = (server, authority, peers) else {
        println!("skipped: LEASEHOLD_KUBERNETES, .._CA and LEASEHOLD_PEERS do not say where they are");
        return ExitCode::SUCCESS;
    };
    end_in_time(AT_MOST);
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let bench = Bench { server, authority, peers };
    let done = bench.measure(if has("--bench") { &FULL } else { &QUICK });
    end(done.map(|all_met| all_met || !has("--check")))
}

struct Bench {
    server: String,
    authority: String,
    peers: String,
}

impl Bench {
    fn measure(&self, amount: &Amount) -> Result<bool> {
        println!("{:<52} {:>11}   {:<11}", "what", "figure", "target");
        let locker = self.locker()?;
        locker.lock("warm")?.unlock()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..amount.rounds {
            let mut cycles = Vec::new();
            for _ in 0..amount.cycles {
                let start = Instant::now();
                locker.lock("x")?.unlock()?;
                cycles.push(start.elapsed());
            }
            ours.push(quantile(&mut cycles, 50));
            // Its first one makes the connection.
            let mut cycles = self.lockgate("cycle", amount.cycles + 1)?.split_off(1);
            theirs.push(quantile(&mut cycles, 50));
        }
        let [ours, theirs] = [&mut ours, &mut theirs].map(|rounds| quantile(rounds, 50).as_secs_f64());
        let mut all_met = row("lock + unlock, median", ours * 1e3, "ms", None);
        all_met &= row("the same by lockgate", theirs * 1e3, "ms", None);
        all_met &= row("lock + unlock beside lockgate", ours / theirs, "", Some(0.65));

        let mut hands = self.hand_over(amount.hands)?;
        all_met &= row("hand-over, p50", quantile(&mut hands, 50).as_secs_f64() * 1e3, "ms", Some(10.0));
        all_met &= row("hand-over, p99", quantile(&mut hands, 99).as_secs_f64() * 1e3, "ms", None);
        let mut hands = self.lockgate("pass", amount.their_hands)?;
        all_met &= row("the same by lockgate, p50", quantile(&mut hands, 50).as_secs_f64() * 1e3, "ms", None);
        Ok(all_met)
    }

    fn locker(&self) -> Result<Locker> {
        let access = Access::to(&self.server)?.ca_file(&self.authority)?.token("admin-token")?;
        Ok(Locker::new(access.object("default", "configmaps", OBJECT).create(true).build()?))
    }

    /// From one holder to one who waits, of two stores that know nothing of each other.
    fn hand_over(&self, times: usize) -> Result<Vec<Duration>> {
        let (holder, waiter) = (self.locker()?, self.locker()?);
        let (ask, asked) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let waiting = thread::spawn(move || {
            while asked.recv().is_ok() {
                let guard = waiter.lock("hand").unwrap();
                tell.send(Instant::now()).unwrap();
                guard.unlock().unwrap();
                tell.send(Instant::now()).unwrap();
            }
        });
        let mut took = Vec::new();
        for turn in 0..times {
            let guard = holder.lock("hand")?;
            ask.send(())?;
            // Anywhere in the second of a watch.
            thread::sleep(Duration::from_millis(20 + (turn as u64 * 37) % 200));
            guard.unlock()?;
            let released = Instant::now();
            took.push(told.recv()?.saturating_duration_since(released));
            told.recv()?;
        }
        drop(ask);
        waiting.join().map_err(|_| "the waiter failed")?;
        Ok(took)
    }

    fn lockgate(&self, job: &str, times: usize) -> Result<Vec<Duration>> {
        let mut command = Command::new(Path::new(&self.peers).join("lockgate"));
        command
            .args(["-server", &self.server, "-ca", &self.authority])
            .env("KUBERNETES_TOKEN", "admin-token");
        let output = command
            .arg(format!("kubernetes:default/configmaps/{OBJECT}"))
            .args(["theirs", job, &times.to_string()])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let said = String::from_utf8(output.stdout)?;
        let times = said.lines().filter_map(|line| line.strip_prefix('@')?.parse().ok());
        Ok(times.map(Duration::from_nanos).collect())
    }
}

/// Prints one figure, and says whether it is no more than its target.
fn row(what: &str, figure: f64, unit: &str, at_most: Option<f64>) -> bool {
    let is_met = at_most.is_none_or(|at_most| figure <= at_most);
    let verdict = if is_met { "ok" } else { "MISSED" };
    let target = at_most.map(|at_most| format!("<= {at_most:<8} {verdict}"));
    println!("{what:<52} {figure:>7.2} {unit:<3}   {}", target.unwrap_or_default());
    is_met
}

fn quantile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
