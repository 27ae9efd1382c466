//! Addresses: one line of text that names a store.

use crate::{Error, ErrorKind, Locker, Result, memory};

/// What an address names, with what it says of it.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    File(&'a str),
    Memory,
    /// What stands behind `azure:`.
    Azure(&'a str),
    /// What stands behind `consul:`.
    Consul(&'a str),
}

pub(crate) fn open(address: &str) -> Result<Locker> {
    match parse(address)? {
        Address::Memory => Ok(Locker::new(memory::Store::of_this_process())),
        #[cfg(feature = "azure")]
        Address::Azure(rest) => Ok(Locker::new(crate::azure::open(rest)?)),
        #[cfg(not(feature = "azure"))]
        Address::Azure(_) => {
            Err(config("`azure:` addresses need the feature `azure` of leasehold, which is off".to_owned()))
        }
        #[cfg(feature = "consul")]
        Address::Consul(rest) => Ok(Locker::new(crate::consul::open(rest)?)),
        #[cfg(not(feature = "consul"))]
        Address::Consul(_) => {
            Err(config("`consul:` addresses need the feature `consul` of leasehold, which is off".to_owned()))
        }
        #[cfg(feature = "file")]
        Address::File(dir) => Ok(Locker::new(crate::file::Store::new(dir))),
        #[cfg(not(feature = "file"))]
        Address::File(_) => {
            Err(config("`file:` addresses need the feature `file` of leasehold, which is off".to_owned()))
        }
    }
}

/// Never repeats the address in an error: it may hold what was never meant for one.
fn parse(address: &str) -> Result<Address<'_>> {
    let Some((scheme, rest)) = address.split_once(':') else {
        return Err(config(
            "the address has no scheme: write `file:DIR`, `azure:CONTAINER`, `consul:` or `memory:`"
                .to_owned(),
        ));
    };
    match scheme {
        "file" => file(rest),
        "memory" if rest.is_empty() => Ok(Address::Memory),
        "memory" => Err(config("`memory:` has nothing behind it".to_owned())),
        "azure" => Ok(Address::Azure(rest)),
        "consul" => Ok(Address::Consul(rest)),
        "kubernetes" | "lockgate+http" | "lockgate+https" => {
            Err(config(format!("`{scheme}:` addresses are not in this version of leasehold yet")))
        }
        _ => Err(config(
            "the scheme is not known: write `file:DIR`, `azure:CONTAINER`, `consul:` or `memory:`".to_owned(),
        )),
    }
}

fn file(rest: &str) -> Result<Address<'_>> {
    let (dir, query) = match rest.split_once('?') {
        Some((dir, query)) => (dir, Some(query)),
        None => (rest, None),
    };
    match query {
        Some("names=lockgate") => Err(config(
            "`names=lockgate` is not in this version of leasehold yet".to_owned(),
        )),
        Some(_) => Err(config(
            "what follows the `?` of a `file:` address is not known; a directory with `?` in its name can be \
             opened with `file::Store::new`"
                .to_owned(),
        )),
        None if dir.is_empty() => Err(config(
            "`file:` names no directory: write `file:/var/lock/myapp`".to_owned(),
        )),
        None if dir.starts_with("//") && !dir.starts_with("///") => Err(config(
            "`file://HOST/..` is not supported: write `file:/var/lock/myapp`".to_owned(),
        )),
        None => Ok(Address::File(dir)),
    }
}

/// What is set in the environment to something.
#[cfg(any(feature = "azure", feature = "consul"))]
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse("memory:").unwrap(), Address::Memory);
        assert_eq!(parse("file:/a b/%20").unwrap(), Address::File("/a b/%20"));
        assert_eq!(parse("file:a").unwrap(), Address::File("a"));
        assert_eq!(parse("file:///a").unwrap(), Address::File("///a"));
        for wrong in [
            "",
            "x",
            "/tmp",
            "file:",
            "file://host/a",
            "file:a?names=lockgate",
            "file:a?b",
            "memory:x",
            "kubernetes:",
            "redis:x",
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
        }
    }

    #[test]
    fn no_secret_of_an_address_is_in_the_error() {
        for address in ["redis://:hunter2@h", "hunter2", "file:x?key=hunter2"] {
            assert!(!parse(address).unwrap_err().to_string().contains("hunter2"));
        }
    }
}
