//! What a lock cannot rule out, the resource can: here a file and a blob refuse the write of a holder that was too
//! late. Each keeps the token of its last write, and takes none with a smaller one.
//!
//! ```text
//! fencing ADDRESS RESOURCE VALUE
//! ```
//!
//! ADDRESS is a store with fencing tokens, such as `file:DIR` or `azure:CONTAINER`. RESOURCE is a path, or the URL of
//! a blob with its SAS (read, create, write). VALUE is what to write. It takes the lock, and writes when a line comes
//! on its standard input: so let it wait, break its lock, start another that writes, and see the first one refused
//! with exit code 76.
//!
//! The blob is asked twice: for its token and version, and to be written only if it still is that version (`If-Match`
//! of "Put Blob"). A database does the same in one statement: `UPDATE .. SET .., token = 7 WHERE token <= 7`.
//!
//! If the lock is a lease of the very blob that is written, there is no need for tokens: send
//! [`Guard::lease_id`](leasehold::Guard::lease_id) as `x-ms-lease-id` with each write, and the service refuses what
//! another lease, or none, has come in between ("Lease Blob", write operations on leased blobs). That works with
//! `names=azmutex`, where lock names are blob names, and with [`azure::Blob`](leasehold::azure::Blob) for any blob.
#![forbid(unsafe_code)]

use std::{
    env, fs,
    io::{self, BufRead, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use leasehold::Locker;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const REFUSED: u8 = 76;
const NULL: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(REFUSED),
        Err(error) => {
            let _ = writeln!(io::stderr(), "fencing: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, resource, value] = &arguments[..] else {
        return Err("usage: fencing ADDRESS RESOURCE VALUE".into());
    };
    let guard = Locker::open(address)?.request("resource").fenced().lock()?;
    let token = guard.fencing_token().ok_or("no token")?;
    println!("holds the lock with token {token}; writes at the next line");
    // Here a process is stopped, or its network is: its lease runs out, and nobody can tell it.
    io::stdin().lock().read_line(&mut String::new())?;
    // A careful program asks `guard.check()` first; that makes such a write rare, and the resource makes it harmless.
    let written = if resource.contains("://") {
        write_blob(resource, token, value)?
    } else {
        write_file(Path::new(resource), token, value)?
    };
    match written {
        Ok(()) => println!("written with token {token}"),
        Err(newer) => println!("refused: token {token} is older than {newer}"),
    }
    Ok(written.is_ok())
}

/// Writes the file, whose first line is the token; `Err`: the newer token that is there.
fn write_file(path: &Path, token: u64, value: &str) -> Result<Result<(), u64>> {
    // The resource's own latch, for the moment from its look to its write; it says nothing of who may write.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let latch = Locker::open(&format!("file:{}", directory.display()))?;
    let name = path.file_name().ok_or("no file name")?.to_string_lossy();
    let _latch = latch.lock(&format!("{name}.latch"))?;
    let last = match fs::read_to_string(path) {
        Ok(text) => text.lines().next().unwrap_or_default().parse()?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e.into()),
    };
    if token < last {
        return Ok(Err(last));
    }
    // At once or not at all, so that no crash leaves a value without its token.
    let new = path.with_file_name(format!("{name}.new"));
    fs::write(&new, format!("{token}\n{value}\n"))?;
    fs::rename(&new, path)?;
    Ok(Ok(()))
}

/// Writes the blob, whose metadata has the token; `Err`: the newer token that is there.
fn write_blob(url: &str, token: u64, value: &str) -> Result<Result<(), u64>> {
    loop {
        let there = curl(url, &["--head"])?;
        let header = |name: &str| {
            let mut headers = there.lines().filter_map(|line| line.split_once(": "));
            headers.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let condition = match status(&there)? {
            "200" => {
                let last = header("x-ms-meta-token").unwrap_or("0").parse()?;
                if token < last {
                    return Ok(Err(last));
                }
                format!("If-Match: {}", header("etag").ok_or("no version in the answer")?)
            }
            "404" => "If-None-Match: *".to_owned(),
            other => return Err(format!("status {other}").into()),
        };
        let meta = format!("x-ms-meta-token: {token}");
        let kind = ["-H", "x-ms-blob-type: BlockBlob", "-H", "Content-Type: text/plain"];
        let put = ["--request", "PUT", "--data-raw", value, "-H", &meta, "-H", &condition];
        match status(&curl(url, &[&put[..], &kind].concat())?)? {
            "201" => return Ok(Ok(())),
            // Another wrote between the two requests: perhaps one with a newer token.
            "409" | "412" => {}
            other => return Err(format!("status {other}").into()),
        }
    }
}

/// Stands for the client that a program writes its blobs with. Gives the answer's head.
fn curl(url: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10", "--dump-header", "-", "--output", NULL]);
    command.args(["-H", "x-ms-version: 2019-12-12"]).args(arguments);
    // The URL has a secret in it, which an argument would show to everybody on this machine.
    command.args(["--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("curl: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        writeln!(stdin, "url = \"{url}\"")?;
    }
    let answer = child.wait_with_output()?;
    if !answer.status.success() {
        return Err("curl could not ask the service".into());
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// The status of the last answer: before it there may be a `100 Continue`.
fn status(head: &str) -> Result<&str> {
    let last = head.lines().rfind(|line| line.starts_with("HTTP/"));
    Ok(last.and_then(|line| line.split(' ').nth(1)).ok_or("no answer")?)
}
