//! A migration tool: one at a time, stops between steps when the lock is lost, and the database refuses what
//! comes too late all the same.
//!
//! ```text
//! migration ADDRESS [SECONDS]
//! ```
//!
//! SECONDS is how long each step takes, none if it is not given. Exit codes: 75 when another migrates and does
//! not end in time, 76 when the lock was lost, 1 for anything else.
#![forbid(unsafe_code)]

use std::{error, process::ExitCode, time::Duration};

use leasehold::{ErrorKind, Guard, Locker, Unlocked};

type Result<T, E = Box<dyn error::Error + Send + Sync>> = std::result::Result<T, E>;

/// How long to wait for another migration.
const PATIENCE: Duration = Duration::from_secs(2);
const STEPS: u32 = 3;

fn main() -> ExitCode {
    let Err(error) = run() else {
        return ExitCode::SUCCESS;
    };
    eprintln!("migration: {error}");
    match error.downcast_ref::<leasehold::Error>().map(leasehold::Error::kind) {
        Some(ErrorKind::Timeout) => ExitCode::from(75),
        Some(ErrorKind::Lost) => ExitCode::from(76),
        _ => ExitCode::FAILURE,
    }
}

fn run() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("usage: migration ADDRESS [SECONDS]")?;
    let step_takes = args.next().map_or(Ok(0), |seconds| seconds.parse()).map(Duration::from_secs)?;
    let locker = Locker::open(&address)?.holder("migration of shop 1.2");
    let mut database = Database::default();

    let guard = lock(&locker)?;
    let old = token(&guard)?;
    migrate(&mut database, &guard, step_takes)?;
    if guard.unlock()? == Unlocked::Expiring {
        println!("the store did not confirm the release: the lock frees itself soon");
    }

    // Later, another process migrates. Then one wakes that was stopped in the middle of a step, with a lock that
    // ran out long ago. No lock can prevent that; the token makes it harmless.
    locker.request("migration").fenced().with_lock(|guard| database.apply(STEPS + 1, token(guard)?))??;
    match database.apply(2, old) {
        Err(refused) => println!("too late: {refused}"),
        Ok(()) => return Err("the database took a step from the past".into()),
    }
    println!("the database is at version {}", database.version);
    Ok(())
}

/// Says that it waits, if it must.
fn lock(locker: &Locker) -> Result<Guard> {
    let request = locker.request("migration").fenced().timeout(PATIENCE);
    if let Some(guard) = request.try_lock()? {
        return Ok(guard);
    }
    println!("another migration runs: waiting for {PATIENCE:?}");
    Ok(request.lock()?)
}

/// Databases keep it in a signed column.
fn token(guard: &Guard) -> Result<i64> {
    Ok(guard.fencing_token().ok_or("the store gave no fencing token")?.try_into()?)
}

fn migrate(database: &mut Database, guard: &Guard, step_takes: Duration) -> Result<()> {
    let token = token(guard)?;
    for step in 1..=STEPS {
        println!("step {step}");
        // The work: it stops when the lock is lost. What cannot be stopped, such as a long statement, gets
        // `guard.valid_for()` as its limit.
        guard.check_for(step_takes)?;
        database.apply(step, token)?;
    }
    Ok(())
}

/// Stands for a table with one row.
#[derive(Default)]
struct Database {
    version: u32,
    fence: i64,
}

impl Database {
    /// `UPDATE schema SET version = :version, fence = :token WHERE fence <= :token`, and an error if that changed
    /// no row.
    fn apply(&mut self, version: u32, token: i64) -> Result<()> {
        if token < self.fence {
            return Err(format!("token {token} is smaller than {}", self.fence).into());
        }
        self.version = version;
        self.fence = token;
        Ok(())
    }
}
