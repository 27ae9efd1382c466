//! What the tests share: the API server that `tests/run.sh` started, and how an operator sees it.

use std::{
    env,
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use leasehold::{Locker, kubernetes::Access};

/// Who may do everything, and who may do nothing.
pub(crate) const ADMIN: &str = "admin-token";
pub(crate) const NOBODY: &str = "plain-token";

fn variable(name: &str) -> String {
    env::var(name).expect("`tests/run.sh kubernetes` starts an API server and says where it is")
}

pub(crate) fn server() -> String {
    variable("LEASEHOLD_KUBERNETES")
}

pub(crate) fn authority() -> String {
    variable("LEASEHOLD_KUBERNETES_CA")
}

pub(crate) fn access(token: &str) -> Access {
    Access::to(&server()).unwrap().ca_file(authority()).unwrap().token(token).unwrap()
}

/// The name of an object that no other test uses.
pub(crate) fn fresh() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("locks-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst))
}

/// A locker on a ConfigMap, which is made when it is missing.
pub(crate) fn locker_on(name: &str) -> Locker {
    Locker::new(access(ADMIN).object("default", "configmaps", name).create(true).build().unwrap())
}

/// A request of an operator's: status, and what was answered.
#[track_caller]
pub(crate) fn by_hand(method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
    by_hand_at(&server(), method, path, kind, body)
}

#[track_caller]
pub(crate) fn by_hand_at(server: &str, method: &str, path: &str, kind: &str, body: &str) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-sk", "--max-time", "30", "-X", method, "-w", "\n%{http_code}"]);
    command.args(["-H", &format!("Authorization: Bearer {ADMIN}"), "-H", &format!("Content-Type: {kind}")]);
    if !body.is_empty() {
        command.args(["--data-binary", "@-"]);
    }
    let mut child = command
        .arg(format!("{server}{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl(1)");
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (answer, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), answer.to_owned())
}

/// Where the tests' ConfigMaps are.
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Writes an object as an operator does: a merge patch.
#[track_caller]
pub(crate) fn merge(path: &str, change: &str) -> String {
    let (status, answer) = by_hand("PATCH", path, "application/merge-patch+json", change);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Makes a ConfigMap with these annotations.
#[track_caller]
pub(crate) fn make(name: &str, annotations: &str) {
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","annotations":{annotations}}},
            "data":{{"key":"value"}}}}"#
    );
    let (status, answer) = by_hand("POST", CONFIG_MAPS, "application/json", &body);
    assert_eq!(status, 201, "{answer}");
}

#[track_caller]
pub(crate) fn look(name: &str) -> String {
    by_hand("GET", &format!("{CONFIG_MAPS}/{name}"), "application/json", "").1
}
