//! Leader election: be elected, work while leader, step down on loss, stand again.
use leasehold::{Error, ErrorKind, Guard, Locker};
use std::{sync::mpsc, time::Duration};
fn lead(guard: &Guard) -> Result<(), Error> {
    std::thread::scope(|s| {
        for _ in 0..4 { let term = guard.watch(); s.spawn(move || while term.check_for(Duration::from_millis(200)).is_ok() { /* work */ }); }
        loop { println!("leading"); guard.check_for(Duration::from_secs(5))?; }
    })
}
fn main() -> Result<(), Error> {
    let (stop, signal) = mpsc::channel();
    let locker = Locker::open(&std::env::args().nth(1).expect("address"))?.ttl(Duration::from_secs(15)).shutdown_on(signal);
    loop {
        let guard = locker.lock("leader")?;
        match lead(&guard) { Err(e) if e.kind() == ErrorKind::Lost => eprintln!("stepped down: {e}"), other => { drop(stop); return other } }
    }
}
