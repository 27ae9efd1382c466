//! Shows the locks of a store, and breaks one: for operators, and for scripts. `locks --help` tells the rest.
#![forbid(unsafe_code)]

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, Write},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use leasehold::{Break, ErrorKind, Holder, Locker, Mode, Result, Status};

const HELP: &str = "\
Shows the locks of a store, and breaks one.

usage: locks [--json] ADDRESS list
       locks [--json] ADDRESS status NAME
       locks [--json] ADDRESS break [--now] NAME

ADDRESS  the store: file:DIR, azure:CONTAINER, or another that this program was built with
NAME     the lock

list     every lock that the store knows of, free ones too
status   one lock: `held`, `shared` or `free`, then by whom and since when, as far as the store tells;
         `(no TTL)`: no time frees it, but only its holder, the end of that in a `file:` store, or a break
break    takes the lock from whoever has it; says when the next one can have it

  --json   one line of JSON: an object, for `list` an array of them. `since` is in seconds since 1970,
           what is not known is null
  --now    break at once, beside a holder who still believes that it has the lock: for when that is
           surely dead. Without it nobody gets the lock before its holder had the time to see it
  --help   print this
  --       ends the options, for a NAME that begins with `-`

Exit codes: 0 when it was done, whatever it found, or
   64  wrong usage, address, setting or lock name
   69  the store cannot be used, or cannot do this
   74  the output cannot be written
";

const WRONG_USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const NOT_WRITTEN: u8 = 74;

fn main() -> ExitCode {
    let (code, out) = match Options::parse(std::env::args().skip(1)) {
        Err(wrong) => {
            say(wrong);
            say("usage: locks [--json] ADDRESS list | status NAME | break [--now] NAME; --help tells more");
            return WRONG_USAGE.into();
        }
        Ok(None) => (0, HELP.to_owned()),
        Ok(Some(options)) => match run(&options) {
            Ok(out) => (0, out),
            Err(error) => {
                say(&error);
                let wrong = matches!(error.kind(), ErrorKind::Config | ErrorKind::Name);
                (if wrong { WRONG_USAGE } else { UNAVAILABLE }, String::new())
            }
        },
    };
    match io::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(format_args!("cannot write: {error}"));
            NOT_WRITTEN.into()
        }
        _ => code.into(),
    }
}

/// Not `eprintln`, which panics on a closed stderr.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "locks: {what}");
}

enum Task {
    List,
    Status(String),
    Break(String, Break),
}

struct Options {
    json: bool,
    address: String,
    task: Task,
}

impl Options {
    /// `None`: help is wanted.
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut json, mut now, mut ended) = (false, false, false);
        let mut words = Vec::new();
        for arg in args {
            match &*arg {
                _ if ended || !arg.starts_with('-') => words.push(arg),
                "--" => ended = true,
                "--help" | "-h" => return Ok(None),
                "--json" => json = true,
                "--now" => now = true,
                _ => return Err(format!("there is no option {arg}; `--` stands before what begins so")),
            }
        }
        let mut words = words.into_iter();
        let mut word = |what| words.next().ok_or_else(|| format!("{what} is missing"));
        let address = word("ADDRESS")?;
        let task = match &*word("`list`, `status` or `break`")? {
            "list" => Task::List,
            "status" => Task::Status(word("NAME")?),
            "break" => Task::Break(word("NAME")?, if now { Break::Now } else { Break::AfterNotice }),
            other => return Err(format!("{other:?} is none of `list`, `status` and `break`")),
        };
        if let Some(more) = words.next() {
            return Err(format!("{more:?} is one word too many"));
        }
        if now && !matches!(task, Task::Break(..)) {
            return Err("--now belongs to `break`".to_owned());
        }
        Ok(Some(Self { json, address, task }))
    }
}

/// Gives what is to be printed.
fn run(options: &Options) -> Result<String> {
    let locker = Locker::open(&options.address)?;
    let mut out = String::new();
    match (&options.task, options.json) {
        (Task::List, false) => {
            for status in locker.list()? {
                let _ = writeln!(out, "{:?} {}", status.name(), in_words(&status));
            }
            return Ok(out);
        }
        (Task::List, true) => {
            let all: Vec<_> = locker.list()?.iter().map(in_json).collect();
            let _ = write!(out, "[{}]", all.join(","));
        }
        (Task::Status(name), false) => out = in_words(&locker.status(name)?),
        (Task::Status(name), true) => out = in_json(&locker.status(name)?),
        (Task::Break(name, how), json) => {
            let broken = locker.break_lock(name, *how)?;
            let seconds = broken.as_ref().map(Duration::as_secs_f64);
            let _ = match (json, seconds) {
                (true, seconds) => {
                    let (name, free_in) = (text(name), or_null(seconds));
                    write!(
                        out,
                        r#"{{"name":{name},"broken":{},"free_in_seconds":{free_in}}}"#,
                        seconds.is_some()
                    )
                }
                (false, None) => write!(out, "free: nobody had it"),
                (false, Some(0.0)) => write!(out, "broken: free now"),
                (false, Some(seconds)) => write!(out, "broken: free in {seconds:.0} s at the latest"),
            };
        }
    }
    out.push('\n');
    Ok(out)
}

fn state(status: &Status) -> &'static str {
    match status.mode() {
        None => "free",
        Some(Mode::Shared) => "shared",
        Some(_) => "held",
    }
}

fn in_words(status: &Status) -> String {
    let mut words = state(status).to_owned();
    if status.mode().is_some() {
        if !status.expires() {
            words += " (no TTL)";
        }
        // A holder quotes what could do harm to a terminal.
        let holders: Vec<_> = status.holders().iter().map(Holder::to_string).collect();
        words += " by ";
        words += if holders.is_empty() { "somebody unknown" } else { "" };
        words += &holders.join(", ");
    }
    words
}

fn in_json(status: &Status) -> String {
    let holder = |holder: &Holder| {
        let since = holder.since().and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        format!(
            r#"{{"words":{},"host":{},"pid":{},"since":{}}}"#,
            text(holder.words()),
            or_null(holder.host().map(text)),
            or_null(holder.pid()),
            or_null(since.map(|since| since.as_secs())),
        )
    };
    let free = status.mode().is_none();
    let holders: Vec<_> = status.holders().iter().filter(|_| !free).map(holder).collect();
    format!(
        r#"{{"name":{},"state":"{}","expires":{},"holders":[{}]}}"#,
        text(status.name()),
        state(status),
        or_null((!free).then(|| status.expires())),
        holders.join(","),
    )
}

fn or_null(value: Option<impl Display>) -> Cow<'static, str> {
    value.map_or("null".into(), |value| value.to_string().into())
}

/// A string of JSON (RFC 8259, section 7).
fn text(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            // Also what turns a terminal's state or the direction of text.
            _ if character.is_control()
                || matches!(character, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
