//! From host names to addresses, with no thread and no look-up for a request that goes over a pooled connection.
//!
//! The HTTP library asks for addresses before it looks into its pool, and its own resolver starts a thread for each
//! request that has a deadline.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::{Clock, Limit, Moment},
    threads,
};

/// After this an answer is renewed, beside the request that uses it.
const FRESH: Duration = Duration::from_secs(30);
/// After this without an answer from a name server, or from the store at this address, nobody connects to it. Until
/// then a name server that is down takes no lock from those whose connections live.
const USABLE: Duration = Duration::from_secs(300);
/// A look-up that takes longer hangs, and another may be started.
const HUNG: Duration = Duration::from_secs(20);
/// A look-up that failed beside a usable answer is not repeated sooner.
const AGAIN: Duration = Duration::from_secs(1);
/// Look-ups at once, for the case that they hang.
const THREADS: usize = 4;

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The names that one client has met.
#[derive(Clone)]
pub(super) struct Names(Arc<Inner>);

struct Inner {
    look_up: Box<LookUp>,
    clock: Clock,
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    hosts: HashMap<String, Host>,
    running: usize,
}

#[derive(Default)]
struct Host {
    known: Option<Known>,
    /// When the look-up began that is on its way.
    looking: Option<Moment>,
    /// How many look-ups ended, and when and how the last one failed, if it did.
    ended: u64,
    failed: Option<(Moment, String)>,
}

struct Known {
    addresses: Vec<IpAddr>,
    learned: Moment,
    /// When it last proved right.
    proven: Moment,
}

/// Why there is no address.
#[derive(Debug)]
pub(super) enum Unknown {
    Late,
    Failed(io::Error),
}

impl Names {
    pub(super) fn of_the_machine() -> Self {
        let look_up = |host: &str| (host, 0).to_socket_addrs().map(|found| found.map(|a| a.ip()).collect());
        Self::new(&Clock::system(), look_up)
    }

    pub(super) fn new(
        clock: &Clock,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let look_up = Box::new(look_up);
        Self(Arc::new(Inner { look_up, clock: clock.clone(), state: Mutex::default(), told: Condvar::new() }))
    }

    /// The addresses of a host.
    pub(super) fn find(&self, host: &str, limit: Duration) -> Result<Vec<IpAddr>, Unknown> {
        if let Some(addresses) = literal(host) {
            return Ok(addresses);
        }
        let limit = Limit::after(&self.0.clock, limit);
        let mut state = self.0.lock();
        let now = self.0.clock.now();
        let entry = state.hosts.entry(host.to_owned()).or_default();
        let ended = entry.ended;
        if let Some(known) = &entry.known
            && now.saturating_since(known.proven) < USABLE
        {
            let addresses = known.addresses.clone();
            let just_failed = entry.failed.as_ref().is_some_and(|(at, _)| now.saturating_since(*at) < AGAIN);
            if now.saturating_since(known.learned) >= FRESH && !just_failed {
                // Without a new answer, the old one does.
                let _ = self.start(&mut state, host, now);
            }
            return Ok(addresses);
        }
        self.start(&mut state, host, now).map_err(Unknown::Failed)?;
        loop {
            let entry = state.hosts.entry(host.to_owned()).or_default();
            if entry.ended != ended {
                return match (&entry.failed, &entry.known) {
                    (None, Some(known)) => Ok(known.addresses.clone()),
                    (failed, _) => {
                        let why = failed.as_ref().map_or_else(String::new, |(_, why)| why.clone());
                        Err(Unknown::Failed(io::Error::new(io::ErrorKind::NotFound, why)))
                    }
                };
            }
            let left = limit.remaining();
            if left.is_zero() {
                return Err(Unknown::Late);
            }
            let left = self.0.clock.real(left);
            state = self.0.told.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The store itself has just answered at an address that was found.
    pub(super) fn prove(&self, host: &str) {
        if literal(host).is_none()
            && let Some(known) = self.0.lock().hosts.get_mut(host).and_then(|entry| entry.known.as_mut())
        {
            known.proven = self.0.clock.now();
        }
    }

    /// Waits until no look-up is on its way.
    #[cfg(test)]
    pub(super) fn settle(&self, limit: Duration) {
        let waited = self.0.told.wait_timeout_while(self.0.lock(), limit, |state| state.running > 0);
        assert!(!waited.unwrap().1.timed_out(), "a look-up hangs");
    }

    /// Starts a look-up, unless one is on its way.
    fn start(&self, state: &mut State, host: &str, now: Moment) -> io::Result<()> {
        let entry = state.hosts.entry(host.to_owned()).or_default();
        if entry.looking.is_some_and(|since| now.saturating_since(since) < HUNG) {
            return Ok(());
        }
        if state.running >= THREADS {
            return Err(io::Error::other("the name server answers none of the look-ups on their way"));
        }
        let (inner, name) = (self.0.clone(), host.to_owned());
        threads::run("names", move || {
            let found = (inner.look_up)(&name);
            inner.learn(&name, found);
        })?;
        entry.looking = Some(now);
        state.running += 1;
        Ok(())
    }
}

impl Inner {
    fn learn(&self, host: &str, found: io::Result<Vec<IpAddr>>) {
        let mut state = self.lock();
        state.running -= 1;
        let now = self.clock.now();
        let entry = state.hosts.entry(host.to_owned()).or_default();
        entry.looking = None;
        entry.ended += 1;
        entry.failed = match found {
            Ok(addresses) if !addresses.is_empty() => {
                entry.known = Some(Known { addresses, learned: now, proven: now });
                None
            }
            Ok(_) => Some((now, "the name has no address".to_owned())),
            Err(why) => Some((now, why.to_string())),
        };
        drop(state);
        self.told.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

/// What needs no name server: addresses, and the names that RFC 6761 gives to this machine.
fn literal(host: &str) -> Option<Vec<IpAddr>> {
    if let Some(address) = address(host) {
        return Some(vec![address]);
    }
    is_localhost(host).then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

fn is_localhost(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next();
    last.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// Whether a host is this machine, whatever a name server says.
pub(crate) fn is_loopback(host: &str) -> bool {
    is_localhost(host) || address(host).is_some_and(|address| address.to_canonical().is_loopback())
}

/// Whether a host is on this link, where no proxy can stand in: the metadata service of a cloud's machines.
pub(super) fn is_link_local(host: &str) -> bool {
    match address(host).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(v4)) => v4.is_link_local(),
        Some(IpAddr::V6(v6)) => v6.is_unicast_link_local(),
        None => false,
    }
}

/// Whether a host is where a platform serves identities to what runs on it.
pub(super) fn is_nearby(host: &str) -> bool {
    let private = match address(host).map(|address| address.to_canonical()) {
        Some(IpAddr::V4(v4)) => v4.is_private(),
        Some(IpAddr::V6(v6)) => v6.is_unique_local(),
        None => false,
    };
    private || is_loopback(host) || is_link_local(host)
}

/// The addresses with a port, as many as the HTTP library can hold.
pub(super) fn with_port(addresses: Vec<IpAddr>, port: u16) -> impl Iterator<Item = SocketAddr> {
    addresses.into_iter().take(16).map(move |address| SocketAddr::new(address, port))
}
