//! A parent takes the lock, a child process goes on with it.
use leasehold::{Locker, Ticket};
use std::{env, process::Command};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let locker = Locker::open(&env::var("LEASE_STORE").unwrap_or("azure:locks".into()))?;
    if let Ok(text) = env::var("LEASE_TICKET") {
        let guard = locker.adopt(&text.parse::<Ticket>()?)?;
        println!("child holds {} token {:?}", guard.name(), guard.fencing_token());
        guard.unlock()?;
        return Ok(());
    }
    let ticket = locker.lock("deploy")?.detach()?;
    let spawned = Command::new(env::current_exe()?).env("LEASE_TICKET", ticket.to_string()).spawn();
    if let Err(e) = spawned { locker.adopt(&ticket)?.unlock()?; return Err(e.into()); }
    Ok(())
}
