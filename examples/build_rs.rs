//! A build script that must not generate its file twice at once.
//!
//! Cargo may run the build scripts of several profiles or workspaces side by side, and what they fill may be
//! shared: a cache of downloads, a submodule, a generated source. The one that comes first does the work, and the
//! others wait for it and find it done. In `Cargo.toml`:
//!
//! ```toml
//! [build-dependencies]
//! leasehold = { version = "0.1", default-features = false, features = ["file"] }
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a build script is told by its environment what to do")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use leasehold::{Event, Locker, file};

fn main() -> io::Result<()> {
    // Cargo sets it; the other directory is for trying this out.
    let dir =
        env::var_os("OUT_DIR").map_or_else(|| env::temp_dir().join("leasehold-build-rs"), PathBuf::from);
    let generated = dir.join("generated.rs");
    let locker = Locker::new(file::Store::new(&dir))
        .holder(format!("build script of {}", env!("CARGO_PKG_NAME")))
        // Cargo shows this with -vv, or when the script fails.
        .on_event(|event| {
            if let Event::Waiting { .. } = event {
                eprintln!("{event}");
            }
        });
    // An error of the lock becomes an `io::Error` by the first `?`; that of `generate` comes out of the second.
    locker.request("generated").timeout(Duration::from_secs(300)).with_lock(|_| generate(&generated))??;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=GENERATED={}", generated.display());
    Ok(())
}

/// Runs under the lock, so that the file cannot appear between the question and the work.
fn generate(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // Renamed when whole: a build that is killed leaves no half of it.
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, "pub const ANSWER: u32 = 42;\n")?;
    fs::rename(unfinished, path)?;
    eprintln!("generated {}", path.display());
    Ok(())
}
