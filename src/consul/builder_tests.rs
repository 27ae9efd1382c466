use std::collections::HashMap;

use super::*;
use crate::Locker;

fn from(variables: &[(&str, &str)]) -> Result<Builder> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Builder::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn server(address: &str, ssl: bool) -> Server {
    Server::parse(address, ssl).unwrap()
}

#[track_caller]
fn says<T>(result: Result<T>, what: &str) {
    let Err(error) = result else { panic!("no error, and it should say {what}") };
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains(what) && !text.contains("hunter2"), "{text}");
}

#[test]
fn addresses_of_agents() {
    for (address, ssl, base) in [
        ("127.0.0.1:8500", false, "http://127.0.0.1:8500"),
        ("127.0.0.1:8501", true, "https://127.0.0.1:8501"),
        ("http://consul:8500", false, "http://consul:8500"),
        ("http://consul:8501", true, "https://consul:8501"),
        ("https://consul.example", false, "https://consul.example"),
        ("https://proxy/consul/", false, "https://proxy/consul"),
        ("[::1]:8500", false, "http://[::1]:8500"),
        ("http://[fe80::1]/a/b", false, "http://[fe80::1]/a/b"),
    ] {
        assert_eq!(server(address, ssl).base(None), base, "{address}");
    }
    assert_eq!(
        server("https://10.0.0.1:8501/p", false).base(Some("server.dc1.consul")),
        "https://server.dc1.consul:8501/p"
    );
    assert!(server("http://consul:8500", false).in_the_clear && !server("consul:8500", false).in_the_clear);
    for (wrong, what) in [
        ("unix:///var/run/consul.sock", "unix sockets are not supported"),
        ("ftp://consul", "http://"),
        ("http://me:hunter2@consul:8500", "CONSUL_HTTP_AUTH"),
        ("", "127.0.0.1:8500"),
        ("consul:", "127.0.0.1:8500"),
        ("consul:99999", "127.0.0.1:8500"),
        ("a b:1", "127.0.0.1:8500"),
        ("consul:8500/a?hunter2", "127.0.0.1:8500"),
    ] {
        says(Server::parse(wrong, false), what);
        says(from(&[("CONSUL_HTTP_ADDR", wrong)]).unwrap().build(), what);
    }
}

#[test]
fn plain_http_leaves_this_machine_only_when_that_is_written_out() {
    assert!(from(&[("CONSUL_HTTP_ADDR", "localhost:8500")]).unwrap().build().is_ok());
    assert!(from(&[("CONSUL_HTTP_ADDR", "http://consul:8500")]).unwrap().build().is_ok());
    let refused =
        from(&[("CONSUL_HTTP_ADDR", "consul:8500"), ("CONSUL_HTTP_TOKEN", "hunter2")]).unwrap().build();
    says(refused, "CONSUL_HTTP_SSL=true");
}

#[test]
fn what_the_variables_say() {
    let dir = std::env::temp_dir().join(format!("leasehold-consul-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let token = write("token", " hunter2\n");
    let builder = from(&[
        ("CONSUL_HTTP_TOKEN_FILE", &token),
        ("CONSUL_HTTP_TOKEN", "other"),
        ("CONSUL_HTTP_AUTH", "me:hunter2"),
        ("CONSUL_HTTP_SSL", "T"),
        ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
        ("CONSUL_NAMESPACE", "team"),
        ("CONSUL_PARTITION", "part"),
    ])
    .unwrap();
    assert_eq!(builder.token.as_deref(), Some("hunter2"), "the file comes first, without its line end");
    assert_eq!((builder.ssl, builder.auth.as_deref()), (true, Some("me:hunter2")));
    assert_eq!(builder.server_name.as_deref(), Some("server.dc1.consul"));
    assert_eq!((builder.namespace.as_deref(), builder.partition.as_deref()), (Some("team"), Some("part")));
    assert!(!format!("{builder:?}").contains("hunter2"));
    assert_eq!(from(&[("CONSUL_HTTP_TOKEN", "t")]).unwrap().token.as_deref(), Some("t"));

    let (missing, pem) = (dir.join("missing"), write("cut.pem", "-----BEGIN CERTIFICATE-----\nhunter2"));
    let missing = missing.to_str().unwrap();
    for name in ["CONSUL_HTTP_TOKEN_FILE", "CONSUL_CACERT", "CONSUL_CAPATH"] {
        says(from(&[(name, missing)]), name);
        says(from(&[(name, missing)]), missing);
    }
    for (name, value) in [("CONSUL_HTTP_SSL", "yes"), ("CONSUL_HTTP_SSL_VERIFY", "no")] {
        says(from(&[(name, value)]), name);
    }
    says(from(&[("CONSUL_HTTP_SSL_VERIFY", "0")]), "CONSUL_CACERT");
    assert!(from(&[("CONSUL_HTTP_SSL_VERIFY", "true")]).is_ok());
    says(from(&[("CONSUL_CLIENT_CERT", &pem)]), "go together");
    says(from(&[("CONSUL_CLIENT_KEY", &pem)]), "go together");
    says(from(&[("CONSUL_CACERT", &pem)]).unwrap().build(), "certificate");
    says(from(&[("CONSUL_CLIENT_CERT", &pem), ("CONSUL_CLIENT_KEY", &pem)]).unwrap().build(), "certificate");
    let roots = from(&[("CONSUL_CAPATH", dir.to_str().unwrap())]).unwrap().tls.roots.unwrap();
    let roots = String::from_utf8(roots).unwrap();
    assert!(
        roots.contains("BEGIN CERTIFICATE") && roots.contains(" hunter2"),
        "all files, one after the other"
    );
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_is_wrong_is_said_when_it_is_built() {
    let minute = Duration::from_secs(60);
    assert!(Builder::new().lock_delay(minute).build().is_ok());
    says(Builder::new().lock_delay(minute + Duration::from_millis(1)).build(), "60 s");
    says(Builder::new().prefix("/a").build(), "prefix");
    says(Builder::new().token("hunter2\n").build(), "token");
    says(Builder::new().datacenter("a&token=hunter2").build(), "datacenter");
    says(Builder::new().namespace("").build(), "namespace");
    says(Builder::new().address("https://consul").server_name("a/b").build(), "name of a host");
}

#[test]
fn with_checks_the_lock_delay_is_no_shorter_than_the_ttl() {
    let locker = |builder: Builder| Locker::new(builder.address("127.0.0.1:1").build().unwrap());
    let seconds = Duration::from_secs;
    for builder in [Builder::new().node_checks(["serfHealth"]), Builder::new().service_checks(["web"])] {
        let short = locker(builder.clone().lock_delay(seconds(9))).ttl(seconds(10));
        says(short.try_lock("x"), "lock-delay of 9 s");
        says(locker(builder.clone()).ttl(seconds(61)).lock("x"), "TTL of 61 s");
        // Nobody is there, which is another error.
        assert_eq!(locker(builder).try_lock("x").unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn times_to_live() {
    let locker = Locker::new(Builder::new().address("127.0.0.1:1").build().unwrap());
    says(locker.clone().ttl(Duration::from_millis(9_999)).lock("x"), "10 s to 86400 s");
    says(locker.clone().ttl(Duration::from_secs(86_401)).lock("x"), "10 s to 86400 s");
    let error = locker.request("x").no_expiry().lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
