//! Addresses: one line of text that names a store.

use crate::{Error, ErrorKind, Locker, Result, memory};

/// What an address names, with what it says of it.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    File {
        dir: &'a str,
        names: FileNames,
    },
    Memory,
    /// What stands behind `azure:`.
    Azure(&'a str),
    /// What stands behind `consul:`.
    Consul(&'a str),
    /// What stands behind `lockgate+`.
    Lockgate(&'a str),
    /// What stands behind `kubernetes:`.
    Kubernetes(&'a str),
}

/// What `?names=` says of a `file:` address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileNames {
    Escaped,
    Lockgate,
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
        #[cfg(feature = "lockgate")]
        Address::Lockgate(url) => Ok(Locker::new(crate::lockgate::Store::new(url)?)),
        #[cfg(not(feature = "lockgate"))]
        Address::Lockgate(_) => Err(config(
            "`lockgate+http:` addresses need the feature `lockgate` of leasehold, which is off".to_owned(),
        )),
        #[cfg(feature = "kubernetes")]
        Address::Kubernetes(rest) => Ok(Locker::new(crate::kubernetes::open(rest)?)),
        #[cfg(not(feature = "kubernetes"))]
        Address::Kubernetes(_) => Err(config(
            "`kubernetes:` addresses need the feature `kubernetes` of leasehold, which is off".to_owned(),
        )),
        #[cfg(feature = "file")]
        Address::File { dir, names } => {
            let names = match names {
                FileNames::Escaped => crate::file::Names::Escaped,
                #[cfg(feature = "lockgate-files")]
                FileNames::Lockgate => crate::file::Names::Lockgate,
                #[cfg(not(feature = "lockgate-files"))]
                FileNames::Lockgate => {
                    let what =
                        "`names=lockgate` needs the feature `lockgate-files` of leasehold, which is off";
                    return Err(config(what.to_owned()));
                }
            };
            Ok(Locker::new(crate::file::Store::new(dir).names(names)))
        }
        #[cfg(not(feature = "file"))]
        Address::File { .. } => {
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
        "kubernetes" => Ok(Address::Kubernetes(rest)),
        "lockgate+http" | "lockgate+https" => Ok(Address::Lockgate(&address["lockgate+".len()..])),
        _ => Err(config(
            "the scheme is not known: write `file:DIR`, `azure:CONTAINER`, `consul:`, `kubernetes:..`, `lockgate+http:..` or `memory:`".to_owned(),
        )),
    }
}

fn file(rest: &str) -> Result<Address<'_>> {
    let (dir, names) = match rest.split_once('?') {
        None => (rest, Some(FileNames::Escaped)),
        Some((dir, "names=lockgate")) => (dir, Some(FileNames::Lockgate)),
        Some((dir, _)) => (dir, None),
    };
    match names {
        None => Err(config(
            "what follows the `?` of a `file:` address is not known: it can be `names=lockgate`; a directory with \
             `?` in its name can be opened with `file::Store::new`"
                .to_owned(),
        )),
        Some(_) if dir.is_empty() => Err(config(
            "`file:` names no directory: write `file:/var/lock/myapp`".to_owned(),
        )),
        Some(_) if dir.starts_with("//") && !dir.starts_with("///") => Err(config(
            "`file://HOST/..` is not supported: write `file:/var/lock/myapp`".to_owned(),
        )),
        Some(names) => Ok(Address::File { dir, names }),
    }
}

/// Whether it is an address, as far as that is known without the environment.
#[cfg(fuzzing)]
pub(crate) fn check(address: &str) -> Result<()> {
    match parse(address)? {
        #[cfg(feature = "azure")]
        Address::Azure(rest) => crate::azure::check_address(rest),
        #[cfg(feature = "consul")]
        Address::Consul(rest) => crate::consul::check_address(rest),
        #[cfg(feature = "kubernetes")]
        Address::Kubernetes(rest) => crate::kubernetes::check_address(rest),
        _ => Ok(()),
    }
}

/// What is set in the environment to something.
#[cfg(any(feature = "azure", feature = "consul", feature = "kubernetes"))]
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
        let file = |dir| Address::File { dir, names: FileNames::Escaped };
        assert_eq!(parse("file:/a b/%20").unwrap(), file("/a b/%20"));
        assert_eq!(parse("file:a").unwrap(), file("a"));
        assert_eq!(parse("file:///a").unwrap(), file("///a"));
        let lockgate = Address::File { dir: "a", names: FileNames::Lockgate };
        assert_eq!(parse("file:a?names=lockgate").unwrap(), lockgate);
        for wrong in [
            "",
            "x",
            "/tmp",
            "file:",
            "file://host/a",
            "file:a?names=azmutex",
            "file:?names=lockgate",
            "file:a?b",
            "memory:x",
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
