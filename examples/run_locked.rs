//! Runs a command while it holds a lock, in the manner of `flock(1)` and `consul lock`.
//!
//! The command never works beside another holder: the lock is let go after its end only, and when the lock
//! cannot be kept, the command is ended first. `run_locked --help` tells the rest.
#![forbid(unsafe_code)]

use std::{
    error::Error as _,
    ffi::{OsStr, OsString},
    fmt::Display,
    io::{self, Write},
    path::Path,
    process::{Command, ExitCode},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use leasehold::{Error, ErrorKind, Event, Guard, Holder, Locker, Result, Unlocked};

#[cfg_attr(unix, path = "run_locked/unix.rs")]
#[cfg_attr(not(unix), path = "run_locked/other.rs")]
mod os;

const HELP: &str = "\
Runs a command while it holds a lock.

usage: run_locked [OPTION]... ADDRESS NAME [--] COMMAND [ARG]...

ADDRESS  the store: file:DIR (locks are files in DIR, as those of flock(1)), memory: (this process
         only, to try things out), or that of another store that this program was built with
NAME     the lock
COMMAND  what to run; all that follows belongs to it

Options stand before COMMAND; `--` ends them.
  --shared           share the lock with other shared holders
  --try              do not wait: exit 75 if another holds the lock
  --timeout SECONDS  wait so long at most, then exit 75; 0.5 is half a second
  --ttl SECONDS      how long the lock outlives a machine that died, where the store has such a limit
  --quiet            do not say for whom we wait, nor who holds a lock that was not to be had
  --help             print this

Exit codes: that of COMMAND, 128 + n if signal n ended it, or
   64  wrong usage, address, setting or lock name
   69  the store cannot be used
   75  the lock was not to be had
   76  the lock was lost, or could not be renewed: COMMAND was ended, before another could have the lock
       unless somebody broke or deleted it
  126  COMMAND cannot be executed
  127  there is no such COMMAND
  128 + n  signal n came before COMMAND was started

Environment of COMMAND:
  LEASEHOLD_NAME           the lock's name
  LEASEHOLD_FENCING_TOKEN  larger than that of every earlier holder, where the store has one: let what
                           COMMAND writes to refuse smaller ones

Signals: INT, TERM and HUP end the wait, or go to COMMAND's process group; the lock is kept until
COMMAND has ended. When renewals fail, the group gets TERM at a quarter of the lock's time, and KILL when
the lock is lost. On Linux COMMAND gets KILL when run_locked itself is killed (kill -9); that covers
COMMAND, but not what it started, and no set-uid program. The lock is let go when COMMAND ends, even if
something that it started runs on. A run_locked that is stopped (kill -STOP) cannot renew.
";

const WRONG_USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const BUSY: u8 = 75;
const LOST: u8 = 76;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    #[cfg(unix)]
    if let Some(code) = os::hidden_errand() {
        return code.into();
    }
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            say(wrong);
            say("usage: run_locked [OPTION]... ADDRESS NAME [--] COMMAND [ARG]...; --help tells more");
            return WRONG_USAGE.into();
        }
    };
    let code = run(&options).unwrap_or_else(|error| {
        let code = match error.kind() {
            // A cause is what the store failed with all the while: it was not busy.
            ErrorKind::Timeout if error.source().is_none() => BUSY,
            ErrorKind::Config | ErrorKind::Name => WRONG_USAGE,
            ErrorKind::Lost => LOST,
            _ => UNAVAILABLE,
        };
        if !(options.quiet && code == BUSY) {
            say(error);
        }
        code
    });
    code.into()
}

/// Not `eprintln`, whose panic on a closed stderr would let the lock go beside a running command.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "run_locked: {what}");
}

#[derive(Default)]
struct Options {
    shared: bool,
    only_try: bool,
    quiet: bool,
    timeout: Option<Duration>,
    ttl: Option<Duration>,
    address: String,
    name: String,
    command: OsString,
    args: Vec<OsString>,
}

impl Options {
    /// `None`: help is wanted.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        let mut words = Vec::new();
        let mut ended = false;
        while words.len() < 3 {
            let missing = ["ADDRESS", "NAME", "COMMAND"][words.len()];
            let arg = args.next().ok_or_else(|| format!("{missing} is missing"))?;
            match &*arg.to_string_lossy() {
                "--" if !ended || words.len() == 2 => ended = true,
                option if !ended && option.starts_with('-') => match option {
                    "--help" | "-h" => return Ok(None),
                    "--shared" => options.shared = true,
                    "--try" => options.only_try = true,
                    "--quiet" => options.quiet = true,
                    "--timeout" => options.timeout = Some(seconds(option, args.next())?),
                    "--ttl" => options.ttl = Some(seconds(option, args.next())?),
                    _ => {
                        return Err(format!(
                            "there is no option {option}; `--` stands before what begins so"
                        ));
                    }
                },
                _ => words.push(arg),
            }
        }
        if options.only_try && options.timeout.is_some() {
            return Err("--try does not wait, so that it cannot have a --timeout".to_owned());
        }
        let utf8 =
            |word: OsString| word.into_string().map_err(|word| format!("{} is not UTF-8", word.display()));
        options.command = words.pop().unwrap_or_default();
        options.name = utf8(words.pop().unwrap_or_default())?;
        options.address = utf8(words.pop().unwrap_or_default())?;
        options.args = args.collect();
        Ok(Some(options))
    }
}

fn seconds(option: &str, value: Option<OsString>) -> Result<Duration, String> {
    // Some thirty years: longer than any wait, and far from where adding times would overflow.
    const MOST: f64 = 1e9;
    let value = value.ok_or_else(|| format!("{option} needs SECONDS"))?;
    let value = value.to_string_lossy();
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = value.parse().ok().filter(|_| is_plain);
    match number.filter(|number| *number <= MOST) {
        Some(number) => Ok(Duration::from_secs_f64(number)),
        None => Err(format!("{option} takes seconds from 0 to {MOST}, such as 30 or 0.5, and not {value:?}")),
    }
}

/// What wakes the main thread while the command runs.
enum Happening {
    /// This signal came for us.
    #[cfg(unix)]
    Signal(os::Signal),
    /// The terminal stopped the command: ctrl-Z, or an access from the background.
    #[cfg(unix)]
    Stopped,
    /// The command ended, or the lock was lost.
    Look,
}

fn run(options: &Options) -> Result<u8> {
    let (tell, happenings) = mpsc::channel();
    let locker = open(options, &tell)?;
    let held = acquire(&locker, options).and_then(|held| {
        // A signal may have come together with the lock.
        held.as_ref().map_or(Ok(()), Guard::check).map(|()| held)
    });
    let guard = match held {
        Ok(Some(guard)) => guard,
        Ok(None) => return Ok(busy(&locker, options)),
        #[cfg(unix)]
        Err(error) if error.kind() == ErrorKind::Shutdown => return Ok(os::code_of_signal(&happenings)),
        Err(error) => return Err(error),
    };
    let reserve = guard.valid_for().unwrap_or_default() / 4;
    let mut job = match os::Job::start(command(options, &guard), &tell) {
        Ok(job) => job,
        Err(error) => return Ok(cannot_run(&options.command, &error)),
    };
    // Nothing from here to the command's end may fail or panic: that would let the lock go.
    let kept = attend(&guard, reserve, &mut job, &happenings);
    let ended = job.finish();
    if !kept {
        return Ok(LOST);
    }
    // `unlock` may not look for a lock file that was deleted.
    if let Some(error) = loss(&guard) {
        return Err(error);
    }
    if guard.unlock()? == Unlocked::Expiring {
        say("the release was not confirmed: the lock frees itself soon");
    }
    Ok(ended.map_or_else(|error| cannot_run(&options.command, &error), os::exit_code))
}

fn open(options: &Options, tell: &Sender<Happening>) -> Result<Locker> {
    // The name alone: arguments may hold secrets, and others can read this.
    let command = Path::new(&options.command).file_name().unwrap_or_default().to_string_lossy();
    let told = AtomicBool::new(options.quiet);
    let at_loss = tell.clone();
    let mut locker = Locker::open(&options.address)?.holder(format!("run_locked {command}"));
    locker = locker.on_event(move |event| match event {
        Event::Waiting { .. } if !told.swap(true, Ordering::Relaxed) => say(event),
        Event::Lost { .. } => drop(at_loss.send(Happening::Look)),
        _ => {}
    });
    if let Some(ttl) = options.ttl {
        locker = locker.ttl(ttl);
    }
    #[cfg(unix)]
    let locker = os::end_on_signals(locker, tell.clone())
        .map_err(|error| Error::new(ErrorKind::Unavailable, error))?;
    Ok(locker)
}

fn acquire(locker: &Locker, options: &Options) -> Result<Option<Guard>> {
    let mut request = locker.request(&options.name).timeout(options.timeout);
    if options.shared {
        request = request.shared();
    }
    if options.only_try { request.try_lock() } else { request.lock().map(Some) }
}

fn busy(locker: &Locker, options: &Options) -> u8 {
    if !options.quiet {
        let status = locker.status(&options.name);
        let holder = status.as_ref().ok().and_then(|status| status.holders().first());
        let holder = holder.map_or("another holder".to_owned(), Holder::to_string);
        say(format_args!("lock {:?} is held by {holder}", options.name));
    }
    BUSY
}

fn command(options: &Options, guard: &Guard) -> Command {
    let mut command = os::command(&options.command);
    command.args(&options.args).env("LEASEHOLD_NAME", guard.name());
    match guard.fencing_token() {
        Some(token) => command.env("LEASEHOLD_FENCING_TOKEN", token.to_string()),
        // Not that of another lock, under which we may run.
        None => command.env_remove("LEASEHOLD_FENCING_TOKEN"),
    };
    command
}

fn cannot_run(command: &OsStr, error: &io::Error) -> u8 {
    say(format_args!("cannot run {}: {error}", command.display()));
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn loss(guard: &Guard) -> Option<Error> {
    guard.check().err().filter(|error| error.kind() == ErrorKind::Lost)
}

/// Stays with the command until it has ended, and ends it when the lock goes. `false`: it had to.
fn attend(guard: &Guard, reserve: Duration, job: &mut os::Job, happenings: &Receiver<Happening>) -> bool {
    let (mut warned, mut killed) = (false, false);
    while !job.has_ended() {
        let lost = loss(guard).filter(|_| !killed);
        let left = guard.valid_for().filter(|_| !killed);
        if let Some(error) = lost {
            killed = true;
            job.signal(os::KILL);
            say(format_args!("{error}; the command was killed"));
        } else if !warned && left.is_some_and(|left| left <= reserve) {
            warned = true;
            job.signal(os::TERM);
            say(format_args!("lock {:?} could not be renewed: the command has to end", guard.name()));
        }
        let due = left.map_or(os::LOOK, |left| if warned { left } else { left.saturating_sub(reserve) });
        match happenings.recv_timeout(due.min(os::LOOK)) {
            #[cfg(unix)]
            Ok(Happening::Signal(signal)) => job.signal(signal),
            #[cfg(unix)]
            Ok(Happening::Stopped) => job.stop_with_it(|| guard.is_held()),
            Ok(Happening::Look) | Err(_) => {}
        }
    }
    !warned && !killed
}
