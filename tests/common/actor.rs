//! Processes that a test starts, speaks with and ends.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

/// A process with a role, which ends with the test.
pub(crate) struct Actor {
    pub(crate) child: Child,
    pub(crate) said: BufReader<ChildStdout>,
}

impl Actor {
    /// This program again, for the one test in it that plays roles.
    pub(crate) fn command(test: &str, role: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("LEASEHOLD_ROLE", role).env("LEASEHOLD_ARGUMENTS", arguments.join("\n"));
        command
    }

    pub(crate) fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next line that it says.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the process ended");
            if let Some(said) = line.strip_prefix('@') {
                return said.trim_end().to_owned();
            }
        }
    }

    /// The one line that it says before a good end.
    #[track_caller]
    pub(crate) fn answers(&mut self) -> String {
        let said = self.hear();
        self.ends_well();
        said
    }

    /// Waits for its end. What it still prints is dropped.
    #[track_caller]
    pub(crate) fn ends_well(&mut self) {
        std::io::copy(&mut self.said, &mut std::io::sink()).unwrap();
        assert!(self.child.wait().unwrap().success(), "an assertion failed in a process");
    }

    /// Ends what it reads, for a process that was given a pipe.
    pub(crate) fn hear_no_more(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) fn dies(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// All that it says until its end, which is a good one.
    #[track_caller]
    pub(crate) fn ends_well_saying(&mut self) -> Vec<String> {
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        self.ends_well();
        said.lines().filter_map(|line| line.strip_prefix('@')).map(str::to_owned).collect()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Plays the role that another test started this process for; in a run of all tests there is none.
pub(crate) fn play(roles: impl FnOnce(&str, &[&str])) {
    let Ok(role) = env::var("LEASEHOLD_ROLE") else { return };
    let arguments = env::var("LEASEHOLD_ARGUMENTS").unwrap();
    roles(&role, &arguments.split('\n').collect::<Vec<_>>());
}

/// Says a line to the test that started this process.
pub(crate) fn say(line: &str) {
    println!("\n@{line}");
    std::io::stdout().flush().unwrap();
}
