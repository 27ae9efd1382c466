//! What a Consul lock costs beside `api.Lock`, the lock of Consul's own library, in one run on one agent.
//!
//! `LEASEHOLD_CONSUL=127.0.0.1:PORT LEASEHOLD_PEERS=DIR cargo bench --bench consul --features consul` prints one table
//! (`tests/run.sh` says how the agent and the Go programs in `DIR` are built); with `-- --check` it fails when a target
//! is missed. Without `--bench` every part runs for a moment only.
//!
//! The two take turns (A B A B), and the medians of their rounds are compared. A hand-over is the time from just before
//! the holder's unlock to just after the waiter's lock returned, on one clock, between two processes.

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("This bench compares the clocks of processes: it runs on Linux only.");
}

#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_methods, reason = "a bench measures real time and starts real threads")]
mod linux {
    use std::{
        env,
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
        path::Path,
        process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::{Duration, Instant},
    };

    use crate::common::{Result, end, end_in_time, head, row};
    use leasehold::{Guard, Locker, Unlocked, consul::Builder};

    const AT_MOST: Duration = Duration::from_secs(120);

    /// How much of everything.
    struct Amount {
        rounds: usize,
        cycles: u32,
        hands: usize,
    }

    const FULL: Amount = Amount { rounds: 41, cycles: 50, hands: 300 };
    const QUICK: Amount = Amount { rounds: 3, cycles: 5, hands: 5 };

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let Ok(address) = env::var("LEASEHOLD_CONSUL") else {
            println!("skipped: LEASEHOLD_CONSUL does not say where Consul is");
            return ExitCode::SUCCESS;
        };
        end_in_time(AT_MOST);
        let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--steps", key] => steps(&address, key).map(|()| true),
            ref options => {
                let amount = if options.contains(&"--bench") { FULL } else { QUICK };
                measure(&address, &amount).map(|all_met| all_met || !options.contains(&"--check"))
            }
        };
        end(done)
    }

    fn measure(address: &str, amount: &Amount) -> Result<bool> {
        head();
        let mut all_met = requests(address)?;
        let Ok(peers) = env::var("LEASEHOLD_PEERS") else {
            println!("no peer: LEASEHOLD_PEERS does not say where the Go programs are");
            return Ok(all_met);
        };
        let program = Path::new(&peers).join("apilock");
        all_met &= cycles(address, &program, amount)?;
        all_met &= hand_overs(address, &program, amount)?;
        Ok(all_met)
    }

    fn locker(address: &str) -> Result<Locker> {
        Ok(Locker::new(Builder::new().address(address).build()?))
    }

    fn key(what: &str) -> String {
        format!("bench-{}/{what}", std::process::id())
    }

    fn quantile(times: &mut [f64], percent: usize) -> f64 {
        times.sort_unstable_by(f64::total_cmp);
        times[(times.len() * percent / 100).min(times.len() - 1)]
    }

    // A free lock is taken and let go.

    fn cycles(address: &str, program: &Path, amount: &Amount) -> Result<bool> {
        let (locker, ours) = (locker(address)?, key("ours"));
        let (rounds, times) = ((amount.rounds + 1).to_string(), amount.cycles.to_string());
        let mut peer =
            Peer::start(Command::new(program).args([address, &key("theirs"), "cycles", &rounds, &times]))?;
        let round = || -> Result<f64> {
            let start = Instant::now();
            for _ in 0..amount.cycles {
                cycle(&locker, &ours)?;
            }
            Ok(start.elapsed().as_secs_f64() / f64::from(amount.cycles))
        };
        // The first ones teach the processor, and Consul's.
        let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
        for turn in 0..=amount.rounds {
            let (ours, theirs) = (round()?, peer.number("go")? / 1e9);
            if turn > 0 {
                our_times.push(ours);
                their_times.push(theirs);
            }
        }
        let (ours, theirs) = (quantile(&mut our_times, 50), quantile(&mut their_times, 50));
        row("lock + unlock", ours * 1e6, 0, "us", None);
        row("lock + unlock of api.Lock", theirs * 1e6, 0, "us", None);
        Ok(row("ratio of the two", ours / theirs, 3, "x", Some(0.5)))
    }

    fn cycle(locker: &Locker, name: &str) -> Result<()> {
        match locker.lock(name)?.unlock()? {
            Unlocked::Confirmed => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    // From one process to another that waits.

    /// A process that takes steps as it is told.
    struct Peer {
        child: Child,
        tell: ChildStdin,
        said: BufReader<ChildStdout>,
    }

    impl Peer {
        fn start(command: &mut Command) -> Result<Self> {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (tell, said) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
            let mut peer = Self { child, tell, said: BufReader::new(said) };
            peer.hear()?;
            Ok(peer)
        }

        fn tell(&mut self, word: &str) -> Result<()> {
            Ok(writeln!(self.tell, "{word}")?)
        }

        fn hear(&mut self) -> Result<String> {
            let mut line = String::new();
            if self.said.read_line(&mut line)? == 0 {
                return Err("a process ended".into());
            }
            Ok(line.trim_start_matches('@').trim_end().to_owned())
        }

        fn number(&mut self, word: &str) -> Result<f64> {
            self.tell(word)?;
            Ok(self.hear()?.parse()?)
        }
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn hand_overs(address: &str, program: &Path, amount: &Amount) -> Result<bool> {
        let (our_key, their_key) = (key("our-hands"), key("their-hands"));
        let ours = || Peer::start(Command::new(env::current_exe()?).args(["--steps", &our_key]));
        let theirs = || Peer::start(Command::new(program).args([address, &their_key, "steps"]));
        let mut pairs = [[ours()?, ours()?], [theirs()?, theirs()?]];
        let mut times = [Vec::new(), Vec::new()];
        for turn in 0..amount.hands {
            for ([holder, waiter], times) in pairs.iter_mut().zip(&mut times) {
                holder.number("lock")?;
                waiter.tell("lock")?;
                // Some more, so that it surely waits: it has a session to make first.
                thread::sleep(Duration::from_millis(15 + turn as u64 % 4));
                let released = holder.number("unlock")?;
                let had: f64 = waiter.hear()?.parse()?;
                times.push((had - released) / 1e9);
                waiter.number("unlock")?;
            }
        }
        let [ours, theirs] = &mut times;
        let medians = [quantile(ours, 50), quantile(theirs, 50)];
        row("hand-over, p50", medians[0] * 1e6, 0, "us", None);
        row("hand-over, p99", quantile(ours, 99) * 1e6, 0, "us", None);
        row("hand-over of api.Lock, p50", medians[1] * 1e6, 0, "us", None);
        row("hand-over of api.Lock, p99", quantile(theirs, 99) * 1e6, 0, "us", None);
        Ok(row("ratio of the medians", medians[0] / medians[1], 3, "x", Some(1.1)))
    }

    /// Takes the lock and lets it go as the lines say, and says when.
    fn steps(address: &str, name: &str) -> Result<()> {
        let locker = locker(address)?;
        let mut held: Option<Guard> = None;
        println!("ready");
        for line in std::io::stdin().lines() {
            let at = match (line?.as_str(), held.take()) {
                ("lock", None) => {
                    held = Some(locker.lock(name)?);
                    now()
                }
                ("unlock", Some(guard)) => {
                    let at = now();
                    guard.unlock()?;
                    at
                }
                other => return Err(format!("{other:?}").into()),
            };
            println!("{at}");
        }
        Ok(())
    }

    /// Nanoseconds on a clock that is one for all processes.
    fn now() -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }

    // Requests, as somebody on the way sees them.

    fn requests(address: &str) -> Result<bool> {
        const CYCLES: usize = 20;
        let counted = Arc::new(AtomicUsize::new(0));
        let port = listen(address.to_owned(), counted.clone())?;
        let (locker, name) = (locker(&format!("127.0.0.1:{port}"))?, key("counted"));
        cycle(&locker, &name)?;
        let cold = counted.swap(0, Ordering::SeqCst);
        for _ in 0..CYCLES {
            cycle(&locker, &name)?;
        }
        let warm = counted.load(Ordering::SeqCst);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (cold, warm) = (cold as f64, warm as f64 / CYCLES as f64);
        let mut all_met = row("requests of the first lock + unlock", cold, 2, "", Some(4.0));
        all_met &= row("requests of each after that", warm, 2, "", Some(2.0));
        Ok(all_met)
    }

    /// Passes bytes on to a server, and counts the headers that pass.
    fn listen(server: String, counted: Arc<AtomicUsize>) -> Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else { return };
                let Ok((from, to)) = client.try_clone().and_then(|c| Ok((c, server.try_clone()?))) else {
                    return;
                };
                let counted = counted.clone();
                thread::spawn(move || pass(from, to, &counted));
                thread::spawn(move || std::io::copy(&mut &server, &mut &client));
            }
        });
        Ok(port)
    }

    /// No body has an empty line in it.
    fn pass(mut from: TcpStream, mut to: TcpStream, counted: &AtomicUsize) {
        let (mut piece, mut end) = ([0; 4096], Vec::new());
        while let Ok(n @ 1..) = from.read(&mut piece) {
            end.extend_from_slice(&piece[..n]);
            let headers = end.windows(4).filter(|four| *four == b"\r\n\r\n").count();
            counted.fetch_add(headers, Ordering::SeqCst);
            end.drain(..end.len().saturating_sub(3));
            if to.write_all(&piece[..n]).is_err() {
                return;
            }
        }
    }
}
