//! The runs of a plugin that gives credentials: one at a time, for all who need what it gives.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    access::Access,
    exec::{Issued, Plugin},
    session::{FRESH, State},
};
use crate::{
    Error, ErrorKind, Result,
    backend::Moment,
    clock::{Clock, Limit, wall},
    threads,
};

/// How long a plugin may take. Who needs what it gives waits for as long as his own request may take.
const PLUGIN: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Runs {
    running: bool,
    /// How many have ended, and why the last one brought nothing.
    ended: u64,
    failure: Option<Error>,
}

impl Access {
    /// Waits for a plugin, when what it gave before is over or was refused. It runs on a thread of its own, once for all
    /// who wait.
    pub(super) fn ask<'a>(
        &'a self,
        plugin: &Arc<Plugin>,
        mut state: MutexGuard<'a, State>,
        limit: &Limit,
    ) -> Result<MutexGuard<'a, State>> {
        let before = state.runs.ended;
        loop {
            let has = state.token.is_some() || state.issued.is_some();
            if has && state.until.is_none_or(|until| Clock::system().now() < until) {
                return Ok(state);
            }
            if state.runs.ended != before {
                return state.runs.failure.clone().map_or(Ok(state), Err);
            }
            if !state.runs.running {
                // First the thread: a run that is dropped here would wait for the lock that we have.
                let thread = threads::reserve("plugin");
                let thread =
                    thread.map_err(|e| unavailable(format!("the operating system refuses a thread: {e}")))?;
                let (run, plugin) = (Run::new(self), plugin.clone());
                thread.run("plugin", move || run.end(plugin.ask(PLUGIN, wall())));
                state.runs.running = true;
            }
            let left = limit.remaining();
            if left.is_zero() {
                let name = plugin.exec.command.display();
                return Err(unavailable(format!("`{name}` has not given a credential yet")));
            }
            let told = self.0.session.told.wait_timeout(state, left);
            state = told.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn unavailable(what: String) -> Error {
    Error::new(ErrorKind::Unavailable, what).not_sent()
}

/// A plugin's run. When it is dropped its end is told, after a panic too.
struct Run {
    access: Access,
    began: Moment,
    issued: Option<Result<Issued>>,
}

impl Run {
    fn new(access: &Access) -> Self {
        Self { access: access.clone(), began: Clock::system().now(), issued: None }
    }

    fn end(mut self, issued: Result<Issued>) {
        self.issued = Some(issued);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut state = self.access.state();
        let ended = state.runs.ended + 1;
        state.runs = Runs { ended, ..Runs::default() };
        match self.issued.take() {
            Some(Ok(issued)) => {
                // It has to be good on arrival.
                state.until =
                    issued.life.map(|life| self.began + life.saturating_sub((life / 10).min(FRESH)));
                state.token = issued.token;
                if state.issued != issued.certificate {
                    state.connection = None;
                }
                state.issued = issued.certificate;
            }
            Some(Err(error)) => state.runs.failure = Some(error),
            None => state.runs.failure = Some(unavailable("the plugin was not run to its end".to_owned())),
        }
        self.access.0.session.told.notify_all();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_slow_plugin_is_run_once_and_holds_up_nobody_for_longer_than_he_may_wait() {
        let dir = std::env::temp_dir().join(format!("leasehold-plugin-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho >>runs\nread _ <gate\n\
            echo '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
            \"status\":{\"token\":\"t\"}}'\n";
        fs::write(dir.join("plugin"), script).unwrap();
        fs::set_permissions(dir.join("plugin"), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(dir.join("gate")).status().unwrap().success());
        let kubeconfig = "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}],
            clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}],
            users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin}}}]}";
        fs::write(dir.join("config"), kubeconfig).unwrap();
        let access = Access::from_kubeconfig_file(dir.join("config"), None).unwrap();

        let clock = Clock::system();
        let start = clock.now();
        for _ in 0..3 {
            let error =
                access.prepare(&Limit::after(&clock, Duration::from_millis(100))).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("plugin` has not given a credential yet"), "{error}");
        }
        assert!(clock.now().saturating_since(start) < Duration::from_secs(5));
        fs::write(dir.join("gate"), "\n").unwrap();
        let (_, token) = access.prepare(&Limit::after(&clock, PLUGIN)).unwrap();
        assert_eq!(token.as_deref(), Some("t"));
        assert_eq!(fs::read(dir.join("runs")).unwrap(), b"\n", "once");
        fs::remove_dir_all(&dir).unwrap();
    }
}
