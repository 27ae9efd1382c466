//! What the benches share: how they end, and the table that they print.
#![allow(dead_code, reason = "each bench uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "a bench measures real time and starts real threads")]

use std::{fs, process::ExitCode, thread, time::Duration};

pub(crate) type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Whatever hangs, this ends.
pub(crate) fn end_in_time(at_most: Duration) {
    thread::spawn(move || {
        thread::sleep(at_most);
        eprintln!("still not done after {at_most:?}");
        std::process::exit(1);
    });
}

/// The end of a bench that met all its targets, missed one, or failed.
pub(crate) fn end(done: Result<bool>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what stands above the figures.
pub(crate) fn head() {
    println!("{:<44} {:>11}   {:<11}", "what", "figure", "target");
}

/// Prints one figure, and says whether it is no more than its target.
pub(crate) fn row(what: &str, figure: f64, digits: usize, unit: &str, at_most: Option<f64>) -> bool {
    let is_met = at_most.is_none_or(|at_most| figure <= at_most);
    let verdict = if is_met { "ok" } else { "MISSED" };
    let target = at_most.map(|at_most| format!("<= {at_most:<8} {verdict}"));
    println!("{what:<44} {figure:>7.digits$} {unit:<3}   {}", target.unwrap_or_default());
    is_met
}

/// The resident memory of this process, in bytes.
pub(crate) fn resident() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mut lines = status.lines().filter_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize =
        lines.next().and_then(|rss| rss.trim().strip_suffix(" kB")).ok_or("no VmRSS")?.parse()?;
    Ok(kib * 1024)
}
