//! What an Azure lock costs beside the two bare calls that it is made of, and what many held ones cost.
//!
//! `LEASEHOLD_AZURITE=http://127.0.0.1:PORT/devstoreaccount1 cargo bench --bench azure --features azure` prints one
//! table; with `-- --check` it fails when a target is missed. Without `--bench` every part runs for a moment only.
//!
//! Locks and bare calls (`azure::Blob`) take turns in one process (A B A B), and the medians of their rounds are
//! compared.

#[cfg(target_os = "linux")]
mod common;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("This bench reads /proc: it runs on Linux only.");
}

#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_methods, reason = "a bench measures real time and starts real threads")]
mod linux {
    use std::{
        env, fs,
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        process::{Command, ExitCode, Stdio},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
        time::{Duration, Instant},
    };

    use crate::common::{Result, end, end_in_time, head, resident, row};
    use leasehold::{
        Error, Guard, Locker, Unlocked,
        azure::{Account, Acquired, Blob, Store},
    };

    /// Azurite's well-known account and key, which are no secret.
    const NAME: &str = "devstoreaccount1";
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    const ID: &str = "5a0ef1b5-2cf0-4d5c-9c2b-1f7a5e2d8c01";
    /// The whole bench takes half of this.
    const AT_MOST: Duration = Duration::from_secs(60);

    /// How much of everything.
    struct Amount {
        /// For the turns.
        time: Duration,
        cycles: u32,
        held: usize,
    }

    const FULL: Amount = Amount { time: Duration::from_secs(12), cycles: 25, held: 1000 };
    const QUICK: Amount = Amount { time: Duration::from_millis(300), cycles: 5, held: 20 };

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let Ok(endpoint) = env::var("LEASEHOLD_AZURITE") else {
            println!("skipped: LEASEHOLD_AZURITE does not say where Azurite is");
            return ExitCode::SUCCESS;
        };
        end_in_time(AT_MOST);
        let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--hold", held] => hold(&endpoint, held).map(|()| true),
            ref options => {
                let amount = if options.contains(&"--bench") { FULL } else { QUICK };
                measure(&endpoint, &amount).map(|all_met| all_met || !options.contains(&"--check"))
            }
        };
        end(done)
    }

    fn measure(endpoint: &str, amount: &Amount) -> Result<bool> {
        head();
        let mut all_met = cycles(endpoint, amount)?;
        all_met &= requests(endpoint)?;
        // In a process of its own, where nothing was used and freed before.
        let mut command = Command::new(env::current_exe()?);
        command.args(["--hold", &amount.held.to_string()]).stderr(Stdio::inherit());
        let output = String::from_utf8(command.output()?.stdout)?;
        let [bytes, connections] = output.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err("the process that holds leases failed".into());
        };
        let kib = bytes.parse::<f64>()? / 1024.0;
        all_met &= row(&format!("RSS per lease of {} held", amount.held), kib, 1, "KiB", Some(45.0));
        all_met &= row("open connections meanwhile", connections.parse()?, 0, "", Some(16.0));
        Ok(all_met)
    }

    fn store(endpoint: &str, container: &str) -> Result<Store> {
        let account = Account::with_key(NAME, KEY)?.endpoint(endpoint)?;
        Ok(account.container(container).create_container(true).build()?)
    }

    fn locker(endpoint: &str, container: &str) -> Result<Locker> {
        Ok(Locker::new(store(endpoint, container)?))
    }

    fn container() -> String {
        format!("bench-{}", std::process::id())
    }

    // A free lock is taken and let go.

    fn cycles(endpoint: &str, amount: &Amount) -> Result<bool> {
        let store = store(endpoint, &container())?;
        let bare = store.blob("bare")?;
        let locker = Locker::new(store);
        for name in ["ours", "bare"] {
            locker.lock(name)?.unlock()?;
        }
        let mut ours = || lock_cycle(&locker);
        let mut floor = || bare_cycle(&bare);
        // The first ones teach the processor, and Azurite's.
        round(amount.cycles, &mut ours)?;
        round(amount.cycles, &mut floor)?;
        let (mut times, mut floors) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while start.elapsed() < amount.time {
            times.push(round(amount.cycles, &mut ours)?);
            floors.push(round(amount.cycles, &mut floor)?);
        }
        let (time, floor) = (median(&mut times), median(&mut floors));
        row("lock + unlock", time * 1e6, 0, "us", None);
        row("bare acquire + release", floor * 1e6, 0, "us", None);
        Ok(row("ratio of the two", time / floor, 3, "x", Some(1.10)))
    }

    fn lock_cycle(locker: &Locker) -> Result<()> {
        match locker.lock("ours")?.unlock()? {
            Unlocked::Confirmed => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// The mean time of one cycle in a round of many, in seconds.
    fn round(cycles: u32, cycle: &mut impl FnMut() -> Result<()>) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..cycles {
            cycle()?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(cycles))
    }

    fn median(times: &mut [f64]) -> f64 {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// An acquire and a release on one kept connection, by hand.
    fn bare_cycle(blob: &Blob) -> Result<()> {
        let granted = blob.acquire(ID, Some(Duration::from_secs(30)))?;
        if !matches!(granted, Acquired::Granted) {
            return Err(format!("{granted:?}").into());
        }
        Ok(blob.release(ID)?)
    }

    // Requests and connections, as somebody on the way sees them.

    fn requests(endpoint: &str) -> Result<bool> {
        const CYCLES: usize = 20;
        let (scheme, rest) = endpoint.split_once("://").ok_or("no URL")?;
        let (host, path) = rest.split_once('/').ok_or("no account in the path")?;
        if scheme != "http" {
            println!("requests are counted over http only");
            return Ok(true);
        }
        let counted = Arc::new(Counted::default());
        let port = counted.clone().listen(host.to_owned())?;
        let locker = locker(&format!("http://127.0.0.1:{port}/{path}"), &container())?;
        for _ in 0..CYCLES {
            lock_cycle(&locker)?;
        }
        let requests = counted.requests.load(Ordering::SeqCst);
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let each = requests as f64 / CYCLES as f64;
        let mut all_met = row("requests of lock + unlock", each, 2, "", Some(2.0));
        let connections = u32::try_from(counted.connections.load(Ordering::SeqCst))?;
        all_met &= row("connections for all of these", connections.into(), 0, "", Some(1.0));
        Ok(all_met)
    }

    /// Passes bytes on to a server, and counts the headers that pass.
    #[derive(Default)]
    struct Counted {
        requests: AtomicUsize,
        connections: AtomicUsize,
    }

    impl Counted {
        fn listen(self: Arc<Self>, server: String) -> Result<u16> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            thread::spawn(move || {
                for client in listener.incoming().map_while(std::result::Result::ok) {
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    let Ok(server) = TcpStream::connect(&server) else { return };
                    let Ok((from, to)) = client.try_clone().and_then(|c| Ok((c, server.try_clone()?))) else {
                        return;
                    };
                    let counted = self.clone();
                    thread::spawn(move || counted.pass(from, to));
                    thread::spawn(move || std::io::copy(&mut &server, &mut &client));
                }
            });
            Ok(port)
        }

        /// None of the requests has a body.
        fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
            let (mut piece, mut end) = ([0; 4096], Vec::new());
            while let Ok(n @ 1..) = from.read(&mut piece) {
                end.extend_from_slice(&piece[..n]);
                self.requests
                    .fetch_add(end.windows(4).filter(|four| *four == b"\r\n\r\n").count(), Ordering::SeqCst);
                end.drain(..end.len().saturating_sub(3));
                if to.write_all(&piece[..n]).is_err() {
                    return;
                }
            }
        }
    }

    // Leases that are renewed by a thread each.

    /// Prints what each of many held leases adds to the resident memory, and how many sockets are open.
    fn hold(endpoint: &str, held: &str) -> Result<()> {
        let held: usize = held.parse()?;
        let locker = locker(endpoint, &container())?;
        let first = locker.lock("first")?;
        let before = resident()?;
        // 30 s each: the first are renewed while the last are taken, or soon after.
        let all: Vec<Guard> =
            (0..held).map(|i| locker.lock(&format!("lock {i}"))).collect::<Result<_, Error>>()?;
        let mut connections = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(if held > 100 { 12 } else { 0 }) {
            connections = connections.max(sockets()?);
            thread::sleep(Duration::from_millis(20));
        }
        connections = connections.max(sockets()?);
        let after = resident()?;
        if !all.iter().chain([&first]).all(Guard::is_held) {
            return Err("a lease was lost".into());
        }
        println!("{} {connections}", after.saturating_sub(before) / held);
        Ok(())
    }

    fn sockets() -> Result<usize> {
        let links = fs::read_dir("/proc/self/fd")?.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
    }
}
