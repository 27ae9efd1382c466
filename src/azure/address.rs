//! What stands behind `azure:` in an address.

use super::{Account, Names, Store, peers::GOAZURELOCKING_CONTAINER};
use crate::{Error, ErrorKind, Result};

/// `CONTAINER[/PREFIX]` or `//ACCOUNT/CONTAINER[/PREFIX]`, then `?endpoint=URL`, `?names=..`, or both with `&`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    account: Option<&'a str>,
    container: &'a str,
    prefix: &'a str,
    endpoint: Option<&'a str>,
    names: Names,
}

/// The store that an address names, with the account of the environment.
pub(crate) fn open(rest: &str) -> Result<Store> {
    let Address { account, container, prefix, endpoint, names } = parse(rest)?;
    let account = Account::from_env_for(account)?;
    let account = match endpoint {
        Some(url) => account.endpoint(url)?,
        None => account,
    };
    // As `file:` makes its directory.
    account.container(container).prefix(prefix).names(names).create_container(true).build()
}

/// Never repeats what is wrong in an error: it may hold what was never meant for one.
fn parse(rest: &str) -> Result<Address<'_>> {
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let (endpoint, names) = query.map_or(Ok((None, Names::default())), parameters)?;
    let (account, path) = match path.strip_prefix("//") {
        None => (None, path),
        Some(path) => {
            let (account, path) = path.split_once('/').unwrap_or((path, ""));
            if account.is_empty() || account.contains(['@', ':']) {
                return Err(config(
                    "write `azure://ACCOUNT/CONTAINER`: the account's name alone, its key goes into AZURE_STORAGE_KEY",
                ));
            }
            (Some(account), path)
        }
    };
    let (container, prefix) = path.split_once('/').unwrap_or((path, ""));
    let container = match (container, account, names) {
        // That library's own.
        ("", _, Names::GoAzureLocking) if prefix.is_empty() => GOAZURELOCKING_CONTAINER,
        ("", None, _) => return Err(config("`azure:` names no container: write `azure:locks`")),
        ("", Some(_), _) => {
            return Err(config("the address names no container: write `azure://ACCOUNT/CONTAINER`"));
        }
        (container, ..) => container,
    };
    Ok(Address { account, container, prefix, endpoint, names })
}

/// What follows the `?`: each at most once, in any order.
fn parameters(query: &str) -> Result<(Option<&str>, Names)> {
    let (mut endpoint, mut names) = (None, None);
    for parameter in query.split('&') {
        let repeated = match parameter.split_once('=') {
            Some(("endpoint", url)) if !url.is_empty() => endpoint.replace(url).is_some(),
            Some(("names", "goazurelocking")) => names.replace(Names::GoAzureLocking).is_some(),
            Some(("names", "azmutex")) => names.replace(Names::AzMutex).is_some(),
            Some(("names", _)) => {
                return Err(config("`names=` in an `azure:` address is `goazurelocking` or `azmutex`"));
            }
            _ => {
                return Err(config(
                    "after the `?` of an `azure:` address stand `endpoint=URL` and `names=goazurelocking` or \
                     `names=azmutex`, with `&` between them",
                ));
            }
        };
        if repeated {
            return Err(config("after the `?` of an `azure:` address stands each parameter once"));
        }
    }
    Ok((endpoint, names.unwrap_or_default()))
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

    fn address<'a>(account: Option<&'a str>, container: &'a str, prefix: &'a str) -> Address<'a> {
        Address { account, container, prefix, endpoint: None, names: Names::Escaped }
    }

    #[test]
    fn addresses() {
        assert_eq!(parse("locks").unwrap(), address(None, "locks", ""));
        assert_eq!(parse("locks/ci/x").unwrap(), address(None, "locks", "ci/x"));
        assert_eq!(parse("//acc/locks/ci").unwrap(), address(Some("acc"), "locks", "ci"));
        let at = Address { endpoint: Some("http://h:1/p"), ..address(None, "locks", "") };
        assert_eq!(parse("locks?endpoint=http://h:1/p").unwrap(), at);
        let both = Address { names: Names::AzMutex, ..at };
        assert_eq!(parse("locks?endpoint=http://h:1/p&names=azmutex").unwrap(), both);
        assert_eq!(parse("locks?names=azmutex&endpoint=http://h:1/p").unwrap(), both);
    }

    #[test]
    fn goazurelocking_has_a_container_of_its_own() {
        let of =
            |account| Address { names: Names::GoAzureLocking, ..address(account, "azlockcontainer", "") };
        for same in ["?names=goazurelocking", "azlockcontainer?names=goazurelocking"] {
            assert_eq!(parse(same).unwrap(), of(None), "{same}");
        }
        for same in ["//acc?names=goazurelocking", "//acc/?names=goazurelocking"] {
            assert_eq!(parse(same).unwrap(), of(Some("acc")), "{same}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (wrong, says) in [
            ("", "azure:locks"),
            ("//acc", "ACCOUNT/CONTAINER"),
            ("//acc/", "ACCOUNT/CONTAINER"),
            ("///locks", "AZURE_STORAGE_KEY"),
            ("//acc:hunter2@host/locks", "AZURE_STORAGE_KEY"),
            ("?names=azmutex", "azure:locks"),
            ("/p?names=goazurelocking", "azure:locks"),
            ("locks?", "endpoint=URL"),
            ("locks?endpoint=", "endpoint=URL"),
            ("locks?sig=hunter2", "endpoint=URL"),
            ("locks?names=azmutex&", "endpoint=URL"),
            ("locks?names", "endpoint=URL"),
            ("locks?names=", "`goazurelocking` or `azmutex`"),
            ("locks?names=hunter2", "`goazurelocking` or `azmutex`"),
            ("locks?names=azmutex&names=azmutex", "once"),
            ("locks?names=azmutex&names=goazurelocking", "once"),
            ("locks?endpoint=a&names=azmutex&endpoint=b", "once"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains("hunter2"), "{wrong}: {text}");
        }
    }
}
