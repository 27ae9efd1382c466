//! A parent takes a lock and does the first part of the work, a child process goes on with it: nobody gets the lock in
//! between, and the parent may end.
//!
//! ```text
//! handover ADDRESS [TICKET]
//! ```
//!
//! ADDRESS is a store with leases, which processes can share, such as `azure:locks`: not `file:`, whose locks end with
//! their process, and not `memory:`. TICKET is what the parent gives its child: no secret, so that an argument may carry it.
#![forbid(unsafe_code)]

use std::{
    env, error,
    process::{self, Command, ExitCode},
};

use leasehold::{ErrorKind, Locker, Ticket};

type Result<T, E = Box<dyn error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handover: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = env::args().skip(1);
    let address = args.next().ok_or("usage: handover ADDRESS [TICKET]")?;
    let locker = Locker::open(&address)?.holder("deployment of shop 1.2");
    match args.next() {
        Some(ticket) => child(&locker, &ticket.parse()?),
        None => parent(&locker, &address),
    }
}

fn parent(locker: &Locker, address: &str) -> Result<()> {
    let guard = locker.lock("deployment")?;
    println!("parent {} holds {:?}, token {:?}", process::id(), guard.name(), guard.fencing_token());
    // The first part of the work. When it is done, the child has a whole TTL to start in.
    let ticket = guard.detach()?;
    let child = Command::new(env::current_exe()?).args([address, &ticket.to_string()]).spawn();
    let ended = child.and_then(|mut child| child.wait());
    if ended.as_ref().is_ok_and(process::ExitStatus::success) {
        return Ok(());
    }
    // Perhaps it never came to adopt the lock: then it is freed here, without waiting for the TTL.
    match locker.adopt(&ticket) {
        Ok(guard) => drop(guard),
        Err(e) if e.kind() == ErrorKind::Lost => {}
        Err(e) => return Err(e.into()),
    }
    Err(format!("the child failed: {}", ended?).into())
}

fn child(locker: &Locker, ticket: &Ticket) -> Result<()> {
    let guard = locker.adopt(ticket)?;
    println!("child {} holds {:?}, token {:?}", process::id(), guard.name(), guard.fencing_token());
    // The second part of the work.
    guard.check()?;
    guard.unlock()?;
    Ok(())
}
