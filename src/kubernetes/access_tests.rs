use std::time::Duration;

use super::*;
use crate::http::{self, Request, Response};

fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("leasehold-access-{}-{name}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn a_pod_is_known_by_its_files() {
    let files = dir("pod");
    let account = || Access::of_account("::1", "443", &files);
    assert_eq!(account().unwrap_err().kind(), ErrorKind::Config);
    fs::write(files.join("namespace"), "team\n").unwrap();
    fs::write(files.join("ca.crt"), "no certificate").unwrap();
    assert!(account().unwrap_err().to_string().contains("certificate"));
    fs::remove_dir_all(&files).unwrap();
}

#[test]
fn a_token_is_read_again_when_it_is_refused() {
    let path = dir("token").join("token");
    fs::write(&path, "one\n").unwrap();
    let access = Access::to("http://127.0.0.1:1").unwrap().token_file(&path).unwrap();
    let mut sent = Vec::new();
    let mut ask = |status: fn(&str) -> u16| {
        let request =
            Request { method: "GET", url: "/x", headers: &[], body: &[], lane: http::Lane::Ordinary };
        let response = access.send(&request, Duration::from_secs(5), &mut |_, request, _| {
            assert_eq!(request.url, "http://127.0.0.1:1/x");
            let (_, token) = request.headers.iter().find(|(name, _)| *name == "Authorization").unwrap();
            sent.push((*token).to_owned());
            Ok(Response::of(status(token), &[], ""))
        });
        response.unwrap().status
    };
    assert_eq!(ask(|_| 200), 200);
    fs::write(&path, "two").unwrap();
    assert_eq!(ask(|token| if token == "Bearer two" { 200 } else { 401 }), 200);
    assert_eq!(ask(|_| 401), 401, "there is no other to be tried");
    assert_eq!(sent, ["Bearer one", "Bearer one", "Bearer two", "Bearer two"]);
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_can_be_no_setting() {
    for server in ["", "10.0.0.1:6443", "ftp://x", "https://x?token=hunter2"] {
        let error = Access::to(server).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.to_string().contains("hunter2"));
    }
    let access = || Access::to("https://10.0.0.1:6443/prefix/").unwrap();
    for token in ["", " ", "a b", "hunter2\nx"] {
        let error = access().token(token).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let access = access().token("hunter2").unwrap().server_name("api.internal").unwrap();
    assert_eq!(access.0.server, "https://api.internal:6443/prefix");
    assert_eq!(access.0.alias, Some(("api.internal".to_owned(), "10.0.0.1".to_owned())));
    assert!(!format!("{access:?}").contains("hunter2"));
    let six = Access::to("https://[::1]").unwrap().server_name("api").unwrap();
    assert_eq!((&*six.0.server, six.0.alias.as_ref().unwrap().1.as_str()), ("https://api", "::1"));
    let plain = Access::to("http://10.0.0.1").unwrap().object("a", "configmaps", "x").build();
    assert!(plain.unwrap_err().to_string().contains("plain http"));
}
