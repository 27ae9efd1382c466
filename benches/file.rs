//! What locks cost: file locks beside the bare system calls, their hand-over between processes, memory locks.
//!
//! `cargo bench --bench file` prints one table; with `-- --check` it fails when a target is missed. Without
//! `--bench` (as under `cargo test --benches`) every part runs for a moment only, and the figures mean nothing.
//!
//! Things that are compared run in one process, in turns (A B A B), and the medians of their rounds are compared.
//! Waiters are other processes: this program starts itself with `--wait` or `--hold`.

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("This bench reads /proc and shares a clock between processes: it runs on Linux only.");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        env, fmt,
        fs::{self, OpenOptions},
        io::{self, Read, Write},
        path::{Path, PathBuf},
        process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
        thread,
        time::Duration,
    };

    use crate::common::{Result, end, end_in_time, head, resident};
    use leasehold::{Error, Guard, Locker, Unlocked};
    use rustix::{
        fs::{FlockOperation, flock},
        time::{ClockId, clock_gettime},
    };

    /// The whole bench takes a third of this.
    const AT_MOST: Duration = Duration::from_secs(60);
    const HELD: usize = 1000;

    /// How much of everything.
    struct Amount {
        rounds: usize,
        cycles: u32,
        hand_overs: usize,
    }

    const FULL: Amount = Amount { rounds: 81, cycles: 2000, hand_overs: 600 };
    const QUICK: Amount = Amount { rounds: 3, cycles: 50, hand_overs: 5 };

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--wait", how, dir] => wait(how, Path::new(dir)).map(|()| true),
            ["--hold"] => hold().map(|()| true),
            ref options => {
                // Whatever is broken, this ends.
                let amount = if options.contains(&"--bench") { FULL } else { QUICK };
                measure(&amount).map(|all_met| all_met || !options.contains(&"--check"))
            }
        };
        end(done)
    }

    fn measure(amount: &Amount) -> Result<bool> {
        // Not in the directory for temporary files, which may be memory.
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let dir = Dir(dir);
        let mut table = Table::default();
        head();
        // With one thread and with more: the kernel then counts who uses a file at each call.
        cycles(&dir.0, amount, &mut table, "", Some(Figure::Ratio(2.0)))?;
        end_in_time(AT_MOST);
        cycles(&dir.0, amount, &mut table, ", two threads", None)?;
        hand_overs(&dir.0, amount, &mut table)?;
        memory(amount, &mut table)?;
        Ok(!table.missed)
    }

    // One process takes a free lock, and lets it go.

    fn cycles(
        dir: &Path,
        amount: &Amount,
        table: &mut Table,
        how: &str,
        target: Option<Figure>,
    ) -> Result<()> {
        let locker = open(dir)?;
        locker.lock("cycle")?.unlock()?;
        let bare = dir.join("bare");
        // As long as the line of a lock file.
        fs::copy(dir.join("cycle.lock"), &bare)?;
        let mut lock_cycle = || -> Result<()> {
            match locker.lock("cycle")?.unlock()? {
                Unlocked::Confirmed => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        };
        let mut bare_cycle = || -> Result<()> {
            let file = OpenOptions::new().read(true).write(true).open(&bare)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(())
        };
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..amount.rounds {
            ours.push(round(amount.cycles, &mut lock_cycle)?);
            floor.push(round(amount.cycles, &mut bare_cycle)?);
        }
        let (ours, floor) = (quantile(&mut ours, 50), quantile(&mut floor, 50));
        table.row(&format!("file: lock + unlock{how}"), Figure::Time(ours), None);
        table.row(&format!("file: bare open + flock + close{how}"), Figure::Time(floor), None);
        let ratio = ours.as_secs_f64() / floor.as_secs_f64();
        table.row(&format!("file: ratio of the two{how}"), Figure::Ratio(ratio), target);
        Ok(())
    }

    /// The mean time of one cycle in a round of many.
    fn round(cycles: u32, cycle: &mut impl FnMut() -> Result<()>) -> Result<Duration> {
        let began = now();
        for _ in 0..cycles {
            cycle()?;
        }
        Ok(now().saturating_sub(began) / cycles)
    }

    // One process lets a lock go that another one waits for.

    /// How the other process waits.
    const WAYS: [&str; 3] = ["lock()", "timeout(60 s)", "bare flock"];

    fn hand_overs(dir: &Path, amount: &Amount, table: &mut Table) -> Result<()> {
        let locker = open(dir)?;
        let mut waiters = Vec::new();
        for way in WAYS {
            waiters.push((way, Waiter::start(way, dir)?, Vec::new()));
        }
        for i in 0..amount.hand_overs {
            for (_, waiter, times) in &mut waiters {
                let guard = locker.lock("hand-over")?;
                waiter.go()?;
                // It has said that it asks now, and needs a moment to fall asleep. Not always the same one, so
                // that no timer of the waiter's falls on the release each time.
                pause(Duration::from_micros(3000 + 137 * (i as u64 % 23)));
                let released = now();
                guard.unlock()?;
                let time = waiter.had_it_at()?.checked_sub(released);
                times.push(time.ok_or("the waiter had the lock before its release")?);
            }
        }
        for (way, _, mut times) in waiters {
            let targets = match way {
                "bare flock" => [None, None],
                _ => [Some(Duration::from_micros(200)), Some(Duration::from_millis(5))],
            };
            for (percent, target) in [50, 99].into_iter().zip(targets) {
                let time = Figure::Time(quantile(&mut times, percent));
                table.row(&format!("file: hand-over, {way}, p{percent}"), time, target.map(Figure::Time));
            }
        }
        Ok(())
    }

    /// A process that takes the lock each time that it is told to.
    struct Waiter {
        child: Child,
        to: ChildStdin,
        from: ChildStdout,
    }

    impl Waiter {
        fn start(way: &str, dir: &Path) -> Result<Self> {
            let mut command = Command::new(env::current_exe()?);
            command.args(["--wait", way]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn()?;
            let (to, from) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
            Ok(Self { child, to, from })
        }

        /// Returns when it is about to lock.
        fn go(&mut self) -> Result<()> {
            self.to.write_all(b"g")?;
            Ok(self.from.read_exact(&mut [0])?)
        }

        /// When it had the lock. It has let it go again.
        fn had_it_at(&mut self) -> Result<Duration> {
            let mut nanos = [0; 8];
            self.from.read_exact(&mut nanos)?;
            Ok(Duration::from_nanos(u64::from_ne_bytes(nanos)))
        }
    }

    impl Drop for Waiter {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// The other process.
    fn wait(way: &str, dir: &Path) -> Result<()> {
        let locker = open(dir)?;
        let (mut orders, mut words) = (io::stdin().lock(), io::stdout().lock());
        while orders.read_exact(&mut [0]).is_ok() {
            words.write_all(b"w")?;
            words.flush()?;
            let had_it = match way {
                "lock()" => hold_for_a_moment(locker.lock("hand-over")?)?,
                "bare flock" => {
                    let file = OpenOptions::new().read(true).write(true).open(dir.join("hand-over.lock"))?;
                    flock(&file, FlockOperation::LockExclusive)?;
                    now()
                }
                _ => hold_for_a_moment(locker.request("hand-over").timeout(AT_MOST).lock()?)?,
            };
            words.write_all(&u64::try_from(had_it.as_nanos())?.to_ne_bytes())?;
            words.flush()?;
        }
        Ok(())
    }

    fn hold_for_a_moment(guard: Guard) -> Result<Duration, Error> {
        let had_it = now();
        guard.unlock()?;
        Ok(had_it)
    }

    // Leases that are renewed by a thread each.

    fn memory(amount: &Amount, table: &mut Table) -> Result<()> {
        let locker = Locker::open("memory:")?;
        let mut cycle = || -> Result<()> { Ok(locker.lock("x")?.unlock().map(drop)?) };
        let mut times = Vec::new();
        for _ in 0..amount.rounds {
            times.push(round(amount.cycles / 4, &mut cycle)?);
        }
        table.row("memory: lock + unlock", Figure::Time(quantile(&mut times, 50)), None);
        // In a process of its own, where nothing was used and freed before.
        let output = Command::new(env::current_exe()?).arg("--hold").stderr(Stdio::inherit()).output()?;
        let bytes = String::from_utf8(output.stdout)?.trim().parse()?;
        table.row(&format!("memory: RSS per lease of {HELD} held"), Figure::Bytes(bytes), None);
        Ok(())
    }

    /// Prints what each of many held leases adds to the resident memory.
    fn hold() -> Result<()> {
        let locker = Locker::open("memory:")?;
        let first = locker.lock("first")?;
        let before = resident()?;
        let held: Vec<Guard> =
            (0..HELD).map(|i| locker.lock(&format!("lock {i}"))).collect::<Result<_, Error>>()?;
        let after = resident()?;
        if !held.iter().chain([&first]).all(Guard::is_held) {
            return Err("a lease was lost".into());
        }
        println!("{}", after.saturating_sub(before) / HELD);
        Ok(())
    }

    // What all of them need.

    fn open(dir: &Path) -> Result<Locker> {
        Ok(Locker::open(&format!("file:{}", dir.display()))?)
    }

    /// The same clock in all processes.
    fn now() -> Duration {
        Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a release some time after a wait began is what is measured"
    )]
    fn pause(time: Duration) {
        thread::sleep(time);
    }

    fn quantile(times: &mut [Duration], percent: usize) -> Duration {
        times.sort_unstable();
        times[(times.len() * percent / 100).min(times.len() - 1)]
    }

    #[derive(Default)]
    struct Table {
        missed: bool,
    }

    impl Table {
        fn row(&mut self, what: &str, figure: Figure, at_most: Option<Figure>) {
            let Some(at_most) = at_most else {
                return println!("{what:<44} {:>11}", figure.to_string());
            };
            let is_met = figure.number() <= at_most.number();
            self.missed |= !is_met;
            let verdict = if is_met { "ok" } else { "MISSED" };
            let at_most = format!("<= {at_most}");
            println!("{what:<44} {:>11}   {at_most:<11} {verdict}", figure.to_string());
        }
    }

    #[derive(Clone, Copy)]
    enum Figure {
        Time(Duration),
        Ratio(f64),
        Bytes(u32),
    }

    impl Figure {
        fn number(self) -> f64 {
            match self {
                Self::Time(time) => time.as_secs_f64(),
                Self::Ratio(ratio) => ratio,
                Self::Bytes(bytes) => f64::from(bytes),
            }
        }
    }

    impl fmt::Display for Figure {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Time(time) => {
                    let us = time.as_secs_f64() * 1e6;
                    let digits = if us < 10.0 { 2 } else { 0 };
                    write!(f, "{us:.digits$} us")
                }
                Self::Ratio(ratio) => write!(f, "{ratio:.2} x"),
                Self::Bytes(bytes) => write!(f, "{:.1} KiB", f64::from(*bytes) / 1024.0),
            }
        }
    }

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
