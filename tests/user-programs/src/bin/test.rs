//! A user's test: what does my program do when the lock is lost?
use leasehold::{Break, ErrorKind, Locker, Result, backend::Clock, memory};
use std::time::Duration;
fn main() -> Result<()> {
    let time = Clock::manual();
    let store = memory::Store::with_clock(time.clone());
    let locker = Locker::new(store.clone()).ttl(Duration::from_secs(30));
    let guard = locker.lock("x")?;
    store.fail(usize::MAX, ErrorKind::Unavailable);
    time.advance(Duration::from_secs(31));
    assert!(!guard.is_held());
    assert_eq!(guard.check().unwrap_err().kind(), ErrorKind::Lost);
    store.fail(0, ErrorKind::Unavailable);
    assert!(std::panic::catch_unwind(|| locker.with_lock("y", |_| panic!("boom"))).is_err());
    let _y = locker.try_lock("y")?.expect("free again");
    assert!(Locker::new(store).break_lock("y", Break::Now)?.is_some());
    Ok(())
}
