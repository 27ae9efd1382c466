//! What stands behind `consul:` in an address.

use super::{Builder, Store};
use crate::{Error, ErrorKind, Result};

/// `[PREFIX]` or `//HOST:PORT/[PREFIX]`, then `?dc=NAME`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    server: Option<&'a str>,
    prefix: &'a str,
    datacenter: Option<&'a str>,
}

/// The store that an address names, with what else the environment says.
pub(crate) fn open(rest: &str) -> Result<Store> {
    let Address { server, prefix, datacenter } = parse(rest)?;
    let mut builder = Builder::from_env()?.prefix(prefix);
    if let Some(server) = server {
        builder = builder.address(server);
    }
    if let Some(name) = datacenter {
        builder = builder.datacenter(name);
    }
    builder.build()
}

/// Never repeats what is wrong in an error: it may hold what was never meant for one.
fn parse(rest: &str) -> Result<Address<'_>> {
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let datacenter = match query.map(|query| query.split_once('=')) {
        None => None,
        Some(Some(("dc", name))) if !name.is_empty() && !name.contains('&') => Some(name),
        Some(_) => {
            return Err(config(
                "after the `?` of a `consul:` address stands `dc=NAME`; a token goes into CONSUL_HTTP_TOKEN",
            ));
        }
    };
    let Some(path) = path.strip_prefix("//") else {
        return Ok(Address { server: None, prefix: path, datacenter });
    };
    let (server, prefix) = path.split_once('/').unwrap_or((path, ""));
    let port = server.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    if server.contains('@') || port.is_none_or(|(host, port)| host.is_empty() || port.is_empty()) {
        return Err(config(
            "write `consul://HOST:PORT/PREFIX`; name and password go into CONSUL_HTTP_AUTH, a token into \
             CONSUL_HTTP_TOKEN",
        ));
    }
    Ok(Address { server: Some(server), prefix, datacenter })
}

fn config(what: &str) -> Error {
    Error::new(ErrorKind::Config, what)
}

#[cfg(fuzzing)]
pub(crate) fn check(rest: &str) -> Result<()> {
    parse(rest).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let local = Address { server: None, prefix: "", datacenter: None };
        assert_eq!(parse("").unwrap(), local);
        assert_eq!(parse("ci/locks").unwrap(), Address { prefix: "ci/locks", ..local });
        assert_eq!(parse("?dc=east").unwrap(), Address { datacenter: Some("east"), ..local });
        let there = Address { server: Some("consul.example:8501"), ..local };
        assert_eq!(parse("//consul.example:8501").unwrap(), there);
        assert_eq!(parse("//consul.example:8501/").unwrap(), there);
        assert_eq!(
            parse("//[::1]:8500/a/b?dc=x").unwrap(),
            Address { server: Some("[::1]:8500"), prefix: "a/b", datacenter: Some("x") }
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wrong, says) in [
            ("//", "HOST:PORT"),
            ("//host", "HOST:PORT"),
            ("//[::1]", "HOST:PORT"),
            ("//me:hunter2@host:1/", "CONSUL_HTTP_AUTH"),
            ("?token=hunter2", "CONSUL_HTTP_TOKEN"),
            ("?dc=a&token=hunter2", "dc=NAME"),
            ("?dc=", "dc=NAME"),
            ("?", "dc=NAME"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains("hunter2"), "{wrong}: {text}");
        }
    }
}
