//! run_locked: the child is ended before the lock goes, on ctrl-c and on loss.
use leasehold::{Error, ErrorKind, Event, Locker};
use std::{process::{Command, ExitCode}, sync::mpsc, time::Duration};
fn run(timeout: Option<Duration>, shared: bool, try_only: bool) -> Result<u8, Box<dyn std::error::Error>> {
    let (stop, signal) = mpsc::channel();
    ctrlc::set_handler(move || { let _ = stop.send(()); })?;
    let locker = Locker::open("file:locks")?.shutdown_on(signal).on_event(|e| if let Event::Waiting { .. } = e { eprintln!("{e}") });
    let mut request = locker.request("demo").timeout(timeout);
    if shared { request = request.shared(); }
    let guard = if try_only { match request.try_lock()? { Some(g) => g, None => return Ok(75) } } else { request.lock()? };
    let mut command = Command::new("sh");
    command.env("LEASEHOLD_NAME", guard.name());
    if let Some(t) = guard.fencing_token() { command.env("LEASEHOLD_FENCING_TOKEN", t.to_string()); }
    let mut child = command.spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? { break status }
        if let Err(why) = guard.check_for(Duration::from_millis(20)) {
            eprintln!("{why}"); child.kill()?; child.wait()?;
            return Ok(if why.kind() == ErrorKind::Lost { 76 } else { 130 });
        }
    };
    guard.unlock()?;
    Ok(status.code().map_or(1, |c| c as u8))
}
fn main() -> ExitCode {
    match run(None, false, false) {
        Ok(code) => code.into(),
        Err(e) => { eprintln!("{e}"); match e.downcast_ref::<Error>().map(Error::kind) {
            Some(ErrorKind::Timeout) => 75.into(), Some(ErrorKind::Config | ErrorKind::Name) => 64.into(), Some(ErrorKind::Lost) => 76.into(), _ => 69.into() } }
    }
}
