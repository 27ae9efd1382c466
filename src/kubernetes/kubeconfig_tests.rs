use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

const WHOLE: &str = r#"
apiVersion: v1
kind: Config
current-context: one
preferences: {}
contexts:
- name: one
  context: {cluster: here, user: me, namespace: team}
- name: two
  context:
    cluster: there
    user: plugin
clusters:
- name: here
  cluster:
    server: https://10.0.0.1:6443/prefix
    certificate-authority-data: Q0EK
    certificate-authority: ignored.crt
- name: there
  cluster:
    server: https://there:6443
    certificate-authority: ca.crt
    tls-server-name: api.internal
users:
- name: me
  user:
    token: hunter2
    tokenFile: secrets/token
    as: another
    as-groups: [a, b]
- name: plugin
  user:
    client-certificate: c.pem
    client-key-data: S0VZCg==
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./bin/plugin
      args: [--cluster, x]
      env:
      - {name: A, value: "1"}
      interactiveMode: IfAvailable
      provideClusterInfo: true
      installHint: "get it"
"#;

fn files(texts: &[&str]) -> Files {
    let mut files = Files::default();
    for (i, text) in texts.iter().enumerate() {
        files.add(Path::new(&format!("/dir{i}/config")), text).unwrap();
    }
    files
}

#[track_caller]
fn why(text: &str) -> String {
    let mut files = Files::default();
    let error = files.add(Path::new("/dir/config"), text).and_then(|()| files.context(None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let said = error.to_string();
    assert!(!said.contains("hunter2"), "{said}");
    said
}

#[test]
fn the_current_context_with_what_stands_in_the_file() {
    let context = files(&[WHOLE]).context(None).unwrap();
    assert_eq!(context.server, "https://10.0.0.1:6443/prefix");
    assert_eq!(context.authority, Some(Pem::Inline(b"CA\n".to_vec())));
    assert_eq!(context.namespace.as_deref(), Some("team"));
    assert_eq!(context.token, Some(Token::File("/dir0/secrets/token".into())), "it may be replaced");
    assert_eq!(
        context.impersonation,
        [
            ("Impersonate-User", "another".to_owned()),
            ("Impersonate-Group", "a".to_owned()),
            ("Impersonate-Group", "b".to_owned())
        ]
    );
}

#[test]
fn another_context_with_files_and_a_plugin() {
    let context = files(&[WHOLE]).context(Some("two")).unwrap();
    assert_eq!(context.authority, Some(Pem::File("/dir0/ca.crt".into())));
    assert_eq!(context.server_name.as_deref(), Some("api.internal"));
    assert_eq!(context.certificate, Some((Pem::File("/dir0/c.pem".into()), Pem::Inline(b"KEY\n".to_vec()))));
    let exec = context.exec.unwrap();
    assert_eq!(exec.command, Path::new("/dir0/./bin/plugin"));
    assert_eq!((exec.arguments.len(), exec.with_cluster, exec.hint.as_deref()), (2, true, Some("get it")));
    assert_eq!(exec.environment, [("A".to_owned(), "1".to_owned())]);
}

#[test]
fn of_several_files_the_first_counts_whole() {
    let first = "{current-context: two, users: [{name: plugin, user: {token: t}}], clusters: null}";
    let context = files(&["", first, WHOLE]).context(None).unwrap();
    assert_eq!(context.token, Some(Token::Text("t".to_owned())));
    assert_eq!((context.exec, context.certificate), (None, None), "no fields are mixed");
    assert_eq!(context.authority, Some(Pem::File("/dir2/ca.crt".into())), "by its own file");
}

#[test]
fn where_the_files_are() {
    let list = std::env::join_paths(["a", "", "b", "a"]).unwrap();
    let paths = Files::default_paths(list.to_str(), Some("/home/x"));
    assert_eq!(paths, [Path::new("a"), Path::new("b")]);
    assert_eq!(Files::default_paths(None, Some("/home/x")), [Path::new("/home/x/.kube/config")]);
    let missing = [PathBuf::from("/no/such/file")];
    assert!(Files::read(&missing, true).unwrap().is_empty());
    assert_eq!(Files::read(&missing, false).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn says_what_is_wrong_and_no_secret() {
    assert!(why("a: [hunter2").contains("/dir/config: not YAML, at line"));
    assert!(why("- hunter2").contains("no kubeconfig"));
    assert!(why("a: 1\n---\nb: 2").contains("more than one"));
    assert!(why("{}").contains("current-context"));
    assert!(why("current-context: x").contains("no context called \"x\""));
    let with = |cluster: &str, user: &str| {
        why(&format!(
            "{{current-context: x, contexts: [{{name: x, context: {{cluster: c, user: u}}}}], \
             clusters: [{{name: c, cluster: {{{cluster}}}}}], users: [{{name: u, user: {{{user}}}}}]}}"
        ))
    };
    assert!(with("", "").contains("no `server`"));
    let server = "server: 'https://x'";
    assert!(
        with("server: 'https://x', insecure-skip-tls-verify: true", "").contains("insecure-skip-tls-verify")
    );
    assert!(with("server: 'https://x', proxy-url: 'http://hunter2@p'", "").contains("HTTPS_PROXY"));
    assert!(with("server: 'https://x', certificate-authority-data: 'hunter2!'", "").contains("not base64"));
    assert!(with(server, "username: me, password: hunter2").contains("passwords"));
    assert!(with(server, "auth-provider: {name: gcp}").contains("auth-provider"));
    assert!(with(server, "client-certificate: x").contains("alone"));
    let exec = |fields: &str| with(server, &format!("exec: {{{fields}}}"));
    assert!(exec("command: x").contains("apiVersion"));
    assert!(exec("command: x, apiVersion: client.authentication.k8s.io/v1alpha1").contains("v1alpha1"));
    assert!(exec("apiVersion: client.authentication.k8s.io/v1").contains("no `command`"));
    let always = "command: x, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Always";
    assert!(exec(always).contains("wants to ask a person"));
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in ".*", yaml in "[a-z:\\-{}\\[\\]&* ,\n'\"]{0,60}") {
        for text in [text, yaml] {
            let mut files = Files::default();
            let _ = files.add(Path::new("x"), &text).and_then(|()| files.context(None).map(drop));
        }
    }
}
