//! Who we are to the API server, and what we may.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, thread};

use leasehold::{ErrorKind, Locker, kubernetes::Access};
use serde_json::Value;

use crate::{
    common::{Actor, Dir, LONG, SECOND, ms, say, timed, until},
    support::{ADMIN, CONFIG_MAPS, access, authority, by_hand, fresh, make, server},
};

/// What this program does as the process of another test.
#[test]
#[ignore = "the role of a process that other tests start"]
fn role() {
    if env::var("LEASEHOLD_ROLE").is_err() {
        return;
    }
    let address = env::var("LEASEHOLD_ARGUMENTS").unwrap();
    let tried = Locker::open(&address).and_then(|locker| locker.patience(ms(500)).lock("x")?.unlock());
    say(&match tried {
        Ok(how) => format!("{how:?}"),
        Err(e) => format!("{e}"),
    });
}

/// What a process of ours says of a lock by an address, with these variables.
fn opened(address: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Actor::command("access::role", "open", &[address]);
    for name in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG", "HOME"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    Actor::run(command.stdin(Stdio::null())).hear()
}

#[track_caller]
fn post(path: &str, body: &str) -> Value {
    let (status, answer) = by_hand("POST", path, "application/json", body);
    assert_eq!(status, 201, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// A service account that may use the locks of one object as these verbs allow.
fn account(object: &str, verbs: &str) -> String {
    let (account, group) = (fresh(), "rbac.authorization.k8s.io");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(accounts, &format!(r#"{{"metadata":{{"name":"{account}"}}}}"#));
    let roles = format!("/apis/{group}/v1/namespaces/default");
    // The Role of the documentation.
    post(
        &format!("{roles}/roles"),
        &format!(
            r#"{{"metadata":{{"name":"{account}"}},"rules":[{{"apiGroups":[""],"resources":["configmaps"],
            "resourceNames":["{object}"],"verbs":[{verbs}]}}]}}"#
        ),
    );
    post(
        &format!("{roles}/rolebindings"),
        &format!(
            r#"{{"metadata":{{"name":"{account}"}},"roleRef":{{"apiGroup":"{group}","kind":"Role","name":"{account}"}},
            "subjects":[{{"kind":"ServiceAccount","name":"{account}","namespace":"default"}}]}}"#
        ),
    );
    account
}

/// A token of a service account.
fn token(account: &str) -> String {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let answer = post(&path, r#"{"spec":{"expirationSeconds":600}}"#);
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// The roles that the documentation says are enough.
const VERBS: &str = r#""get","patch","watch""#;

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn the_smallest_role_is_enough_and_without_watch_it_is_polled() {
    let object = fresh();
    make(&object, "{}");
    for verbs in [VERBS, r#""get","patch""#] {
        let account = account(&object, verbs);
        let store = access(&token(&account)).object("default", "configmaps", &object).build().unwrap();
        let (ours, theirs) = (Locker::new(store), crate::support::locker_on(&object));
        until("the role counts", || ours.status("x").is_ok());
        let guard = theirs.lock("x").unwrap();
        let waiter = {
            let ours = ours.clone();
            thread::spawn(move || ours.lock("x").unwrap().unlock().unwrap())
        };
        thread::sleep(ms(1500));
        assert!(!waiter.is_finished());
        let ((), took) = timed(|| {
            guard.unlock().unwrap();
            waiter.join().unwrap();
        });
        println!("with {verbs}: {took:?} after the release");
        assert!(took < 2 * SECOND, "{took:?}");
    }
    let reader = access(&token(&account(&object, r#""get""#)));
    let locker = Locker::new(reader.object("default", "configmaps", &object).build().unwrap());
    until("the role counts", || locker.status("x").is_ok());
    let error = locker.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("verb `patch`") && error.to_string().contains(&object), "{error}");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_token_is_replaced_while_a_lock_is_held() {
    let (object, dir) = (fresh(), Dir::new("token"));
    make(&object, "{}");
    let file = dir.0.join("token");
    let first = account(&object, VERBS);
    let old = token(&first);
    fs::write(&file, &old).unwrap();
    let access = Access::to(&server()).unwrap().ca_file(authority()).unwrap().token_file(&file).unwrap();
    let locker = Locker::new(access.object("default", "configmaps", &object).build().unwrap());
    until("the role counts", || locker.status("x").is_ok());
    let guard = locker.lock("x").unwrap();
    let second = account(&object, VERBS);
    // As the kubelet does it: the new one is there before the old one ends.
    fs::write(dir.0.join("new"), token(&second)).unwrap();
    fs::rename(dir.0.join("new"), &file).unwrap();
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{first}");
    assert_eq!(by_hand("DELETE", &path, "application/json", "").0, 200);
    until("the old token is refused", || {
        guard.renew().expect("the new one counts");
        let old = crate::support::access(&old).object("default", "configmaps", &object);
        let status = Locker::new(old.build().unwrap()).status("x");
        status.is_err_and(|e| e.kind() == ErrorKind::Denied && e.to_string().contains("401"))
    });
    guard.renew().unwrap();
    guard.unlock().unwrap();
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn in_a_pod_the_service_account_is_used() {
    let (object, dir) = (fresh(), Dir::new("pod"));
    make(&object, "{}");
    let account = account(&object, VERBS);
    fs::write(dir.0.join("token"), token(&account)).unwrap();
    fs::write(dir.0.join("namespace"), "default").unwrap();
    fs::copy(authority(), dir.0.join("ca.crt")).unwrap();
    let port = server().rsplit(':').next().unwrap().to_owned();
    // A place of its own for `/run`, which nobody else sees.
    let program = env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && \
         cp -r {} /run/secrets/kubernetes.io/serviceaccount && \
         exec {} --exact access::role --ignored --nocapture --test-threads=1",
        dir.0.display(),
        program.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", &script]).stdin(Stdio::null());
    command
        .env("LEASEHOLD_ROLE", "open")
        .env("LEASEHOLD_ARGUMENTS", format!("kubernetes:configmaps/{object}"));
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", port);
    command.env_remove("KUBECONFIG");
    assert_eq!(Actor::run(&mut command).hear(), "Confirmed");
}

/// A kubeconfig with this user.
fn kubeconfig(dir: &Dir, user: &str) -> String {
    let path = dir.0.join("config");
    let text = format!(
        "current-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u, namespace: default}}\n\
         clusters:\n- name: k\n  cluster:\n    server: {}\n    certificate-authority: {}\n\
         users:\n- name: u\n  user:\n{user}\n",
        server(),
        authority()
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A program that gives the administrator's token for so many seconds, and writes a line for each time.
fn plugin(dir: &Dir, version: &str, seconds: u64, token: &str) {
    let path = dir.0.join("plugin");
    let script = format!(
        "#!/bin/sh\necho \"$KUBERNETES_EXEC_INFO\" >> '{0}/asked'\n\
         echo '{{\"apiVersion\":\"client.authentication.k8s.io/{version}\",\"kind\":\"ExecCredential\",\"status\":\
         {{\"token\":\"'{token}'\",\"expirationTimestamp\":\"'$(date -u -d '+{seconds} sec' +%Y-%m-%dT%H:%M:%SZ)'\"}}}}'\n",
        dir.0.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn asked(dir: &Dir) -> Vec<String> {
    let lines = fs::read_to_string(dir.0.join("asked")).unwrap_or_default();
    lines.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn kubeconfig_with_a_token_a_certificate_and_a_plugin() {
    let object = fresh();
    make(&object, "{}");
    let address = format!("kubernetes:configmaps/{object}");
    let dir = Dir::new("kubeconfig");
    let file = kubeconfig(&dir, &format!("    token: {ADMIN}"));
    assert_eq!(opened(&address, &[("KUBECONFIG", &file)]), "Confirmed");

    let data = Path::new(&authority()).parent().unwrap().parent().unwrap().to_owned();
    let [certificate, key] = ["client.crt", "client.key"].map(|name| data.join(name));
    let user =
        format!("    client-certificate: {}\n    client-key: {}", certificate.display(), key.display());
    let file = kubeconfig(&dir, &user);
    assert_eq!(opened(&address, &[("KUBECONFIG", &file)]), "Confirmed");
    let inline = |path: &Path| {
        let output = std::process::Command::new("base64").args(["-w0"]).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let user = format!(
        "    client-certificate-data: {}\n    client-key-data: {}",
        inline(&certificate),
        inline(&key)
    );
    let home = Dir::new("home");
    fs::create_dir(home.0.join(".kube")).unwrap();
    fs::copy(kubeconfig(&dir, &user), home.0.join(".kube/config")).unwrap();
    assert_eq!(opened(&address, &[("HOME", home.0.to_str().unwrap())]), "Confirmed");

    for version in ["v1", "v1beta1"] {
        let dir = Dir::new(version);
        plugin(&dir, version, 3600, ADMIN);
        let exec = format!(
            "    exec:\n      apiVersion: client.authentication.k8s.io/{version}\n      command: ./plugin\n\
             \x20     interactiveMode: Never\n      provideClusterInfo: true"
        );
        let file = kubeconfig(&dir, &exec);
        assert_eq!(opened(&address, &[("KUBECONFIG", &file)]), "Confirmed");
        let asked = asked(&dir);
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].contains(&server()) && asked[0].contains(version), "{asked:?}");
        fs::remove_file(dir.0.join("plugin")).unwrap();
        let said = opened(&address, &[("KUBECONFIG", &file)]);
        assert!(said.contains("wrong setting: there is no `") && said.contains("plugin`"), "{said}");
    }
    let said = opened(&address, &[]);
    assert!(said.contains("neither a pod") && said.contains("KUBECONFIG"), "{said}");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_plugin_is_asked_again_when_its_token_ends_or_is_refused() {
    let (object, dir) = (fresh(), Dir::new("plugin"));
    make(&object, "{}");
    plugin(&dir, "v1", 3, ADMIN);
    let exec = "    exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin}";
    let file = kubeconfig(&dir, exec);
    let access = Access::from_kubeconfig_file(&file, Some("c")).unwrap();
    let locker = Locker::new(access.object("default", "configmaps", &object).build().unwrap());
    let guard = locker.lock("x").unwrap();
    assert_eq!(asked(&dir).len(), 1);
    guard.renew().unwrap();
    assert_eq!(asked(&dir).len(), 1, "kept until it ends");
    until("it has ended", || {
        guard.renew().unwrap();
        asked(&dir).len() > 1
    });
    // One that the server does not know: it is asked once more for each request, and what it gives then counts.
    plugin(&dir, "v1", 1, "unknown");
    until("it is refused", || guard.renew().is_err());
    plugin(&dir, "v1", 3600, ADMIN);
    guard.renew().unwrap();
    let (how, took) = timed(|| guard.unlock());
    how.unwrap();
    assert!(took < LONG);
    let path = format!("{CONFIG_MAPS}/{object}");
    assert_eq!(by_hand("DELETE", &path, "application/json", "").0, 200);
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn a_certificate_that_cannot_be_used_is_a_wrong_setting() {
    let dir = Dir::new("certificate");
    // Of the first version of X.509, which TLS libraries do not take any more.
    let script = "openssl req -newkey rsa:2048 -nodes -subj /CN=old -keyout key -out request 2>/dev/null && \
                  openssl x509 -req -days 2 -in request -signkey key -out certificate 2>/dev/null";
    let made = std::process::Command::new("sh").args(["-c", script]).current_dir(&dir.0).status().unwrap();
    assert!(made.success());
    let [certificate, key] = ["certificate", "key"].map(|name| fs::read(dir.0.join(name)).unwrap());
    let access = access(ADMIN).client_certificate(certificate, key).unwrap();
    let locker = Locker::new(access.object("default", "configmaps", &fresh()).build().unwrap());
    let error = locker.lock("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("certificate and key cannot be used"), "{error}");
}

#[test]
#[ignore = "needs an API server: tests/run.sh kubernetes"]
fn the_server_is_known_by_its_authority_and_its_name() {
    let object = fresh();
    make(&object, "{}");
    let lock = |access: Access| {
        let store = access.object("default", "configmaps", &object).build().unwrap();
        Locker::new(store).patience(ms(500)).lock("x").and_then(|guard| guard.unlock().map(drop))
    };
    lock(access(ADMIN).server_name("kubernetes.default.svc").unwrap()).unwrap();
    let other = lock(access(ADMIN).server_name("other.example").unwrap()).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Unavailable);
    assert!(other.to_string().contains("certificate"), "{other}");
    let unknown = lock(Access::to(&server()).unwrap().token(ADMIN).unwrap()).unwrap_err();
    assert!(unknown.to_string().contains("certificate is not trusted"), "{unknown}");
}
