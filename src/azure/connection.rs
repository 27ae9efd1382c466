//! Connection strings, and the endpoints that they name.
//!
//! The grammar is that of "Configure Azure Storage connection strings": `Name=Value` parts with `;` between
//! them, split at the first `=`. Names are taken in any case, as .NET does, and unknown ones are passed over.
//! No value of a connection string is ever in an error.

use std::fmt;

use super::{credential::Credential, shared_key::Key};
use crate::{Error, ErrorKind, Result, http::is_loopback, percent::encode_onto};

/// The account that the emulator has, in "Use the Azurite emulator for local Azure Storage development".
const EMULATOR: &str = "devstoreaccount1";
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_PORT: u16 = 10000;
const PUBLIC_CLOUD: &str = "core.windows.net";

/// What a connection string says.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) credential: Credential,
    /// Where the blobs are.
    pub(super) endpoint: Endpoint,
}

/// A shared access signature, as it is put behind the query of a URL.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sas(String);

impl Sas {
    /// A token, with or without the `?` in front. It is percent-encoded already, and stays as it is.
    ///
    /// # Errors
    /// `Config`, when it is none. No part of it is in the error.
    pub(super) fn new(token: &str) -> Result<Self> {
        let token = token.trim();
        let token = token.strip_prefix('?').unwrap_or(token);
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"#?\"<>\\".contains(&byte);
        if !token.split('&').any(|part| part.strip_prefix("sig=").is_some_and(|sig| !sig.is_empty())) {
            let what = "the SAS token has no `sig=`: give the whole token, which starts with `sv=` or the \
                        like, and not the URL";
            return Err(config(what));
        }
        if !token.bytes().all(plain) {
            return Err(config(
                "the SAS token holds what no URL does: copy it as it was given, percent-encoded",
            ));
        }
        Ok(Self(token.to_owned()))
    }

    pub(super) fn query(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sas(..)")
    }
}

/// The parts of a connection string that mean something here.
#[derive(Default)]
struct Parts<'a> {
    emulator: Option<&'a str>,
    emulator_proxy: Option<&'a str>,
    protocol: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    sas: Option<&'a str>,
    suffix: Option<&'a str>,
    endpoint: Option<&'a str>,
}

impl Connection {
    /// Reads a connection string.
    ///
    /// # Errors
    /// `Config`, naming the part that is missing or wrong.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parts = Parts::parse(text)?;
        match parts.emulator {
            Some(yes) if yes.eq_ignore_ascii_case("true") => parts.emulator(),
            Some(no) if !no.eq_ignore_ascii_case("false") => {
                Err(wrong("UseDevelopmentStorage", "is neither `true` nor `false`"))
            }
            _ => parts.account(),
        }
    }
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let mut parts = Self::default();
        for (n, part) in text.split(';').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                let what =
                    format!("part {} of the connection string has no `=`: write `Name=Value;..`", n + 1);
                return Err(config(what));
            };
            let (place, name) = match name.trim().to_ascii_lowercase().as_str() {
                "usedevelopmentstorage" => (&mut parts.emulator, "UseDevelopmentStorage"),
                "developmentstorageproxyuri" => (&mut parts.emulator_proxy, "DevelopmentStorageProxyUri"),
                "defaultendpointsprotocol" => (&mut parts.protocol, "DefaultEndpointsProtocol"),
                "accountname" => (&mut parts.account, "AccountName"),
                "accountkey" => (&mut parts.key, "AccountKey"),
                "sharedaccesssignature" => (&mut parts.sas, "SharedAccessSignature"),
                "endpointsuffix" => (&mut parts.suffix, "EndpointSuffix"),
                "blobendpoint" => (&mut parts.endpoint, "BlobEndpoint"),
                _ => continue,
            };
            match value.trim() {
                "" => return Err(wrong(name, "is empty")),
                value if place.is_some_and(|other| other != value) => {
                    return Err(wrong(name, "is there twice"));
                }
                value => *place = Some(value),
            }
        }
        Ok(parts)
    }

    fn emulator(self) -> Result<Connection> {
        let others = [self.account, self.key, self.sas, self.endpoint, self.suffix];
        if others.iter().any(Option::is_some) {
            return Err(wrong(
                "UseDevelopmentStorage",
                "stands for account, key and endpoint: leave those out",
            ));
        }
        let host = match self.emulator_proxy {
            None => "http://127.0.0.1".to_owned(),
            Some(proxy) => {
                let proxy = Endpoint::parse(proxy).map_err(|e| in_part("DevelopmentStorageProxyUri", &e))?;
                format!("{}://{}", proxy.scheme(), proxy.host)
            }
        };
        Ok(Connection {
            credential: Credential::Key {
                account: EMULATOR.to_owned(),
                key: Key::from_base64(EMULATOR_KEY).expect("it is base64"),
            },
            endpoint: Endpoint::parse(&format!("{host}:{EMULATOR_PORT}/{EMULATOR}"))?,
        })
    }

    fn account(self) -> Result<Connection> {
        let secure = match self.protocol.map(str::to_ascii_lowercase).as_deref() {
            None | Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(wrong("DefaultEndpointsProtocol", "is neither `http` nor `https`")),
        };
        let credential = match (self.account, self.key, self.sas) {
            // Where both are given, the SAS counts.
            (_, _, Some(sas)) => Credential::Sas(Sas::new(sas)?),
            (Some(account), Some(key), None) => {
                check_account(account)?;
                Credential::Key { account: account.to_owned(), key: Key::from_base64(key)? }
            }
            (None, Some(_), None) => return Err(missing("AccountName")),
            (_, None, None) => return Err(missing("AccountKey` or `SharedAccessSignature")),
        };
        let endpoint = match (self.endpoint, self.account) {
            (Some(url), _) => Endpoint::parse(url).map_err(|e| in_part("BlobEndpoint", &e))?,
            (None, Some(account)) => {
                Endpoint::of_account(secure, account, self.suffix.unwrap_or(PUBLIC_CLOUD))?
            }
            (None, None) => return Err(missing("BlobEndpoint` or `AccountName")),
        };
        Ok(Connection { credential, endpoint })
    }
}

/// Where the blobs of an account are: `https://ACCOUNT.blob.core.windows.net`, a domain of one's own, or, as
/// with the emulator, `http://127.0.0.1:10000/ACCOUNT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    secure: bool,
    /// In lower case; an IPv6 address with its brackets.
    host: String,
    port: Option<u16>,
    /// Empty, or `/` and more, with no slash at the end.
    path: String,
}

impl Endpoint {
    /// The usual endpoint of an account.
    ///
    /// # Errors
    /// `Config`, when account or suffix cannot be part of a host name.
    pub(super) fn of_account(secure: bool, account: &str, suffix: &str) -> Result<Self> {
        check_account(account)?;
        let suffix = suffix.strip_prefix('.').unwrap_or(suffix);
        let host = check_host(&format!("{account}.blob.{suffix}"))
            .map_err(|_| config("the endpoint suffix is not a host name such as `core.windows.net`"))?;
        Ok(Self { secure, host, port: None, path: String::new() })
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// `Config`, naming the part of the URL that cannot be, and never what is in it.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let url = url.trim();
        if url.contains(['?', '#']) {
            let what = "the endpoint has a `?` or `#`: give the URL without them, and a SAS token on its own \
                        (`SharedAccessSignature`, `AZURE_STORAGE_SAS_TOKEN`)";
            return Err(config(what));
        }
        let (secure, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            _ => return Err(config("the endpoint does not start with `https://` or `http://`")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(config(
                "the endpoint has a user in front of the host: give key or token on their own",
            ));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(check_port(port)?)),
            _ => (authority, None),
        };
        Ok(Self { secure, host: check_host(host)?, port, path: check_path(path)? })
    }

    /// The path of a container, as it is sent and signed.
    pub(super) fn container_path(&self, container: &str) -> String {
        let mut path = String::with_capacity(self.path.len() + container.len() + 64);
        path.push_str(&self.path);
        path.push('/');
        encode_onto(&mut path, container);
        path
    }

    /// The path of a blob, as it is sent and signed. Slashes in the blob's name stay.
    pub(super) fn blob_path(&self, container: &str, blob: &str) -> String {
        let mut path = self.container_path(container);
        path.push('/');
        encode_onto(&mut path, blob);
        path
    }

    /// The URL of a path, and of a query unless it is empty.
    pub(super) fn url(&self, path: &str, query: &str) -> String {
        let mut url = self.to_string();
        url.truncate(url.len() - self.path.len());
        url.push_str(path);
        if !query.is_empty() {
            url.extend(["?", query]);
        }
        url
    }

    /// The cloud that it is in, as far as its host tells; a domain of one's own is in the public one.
    pub(super) fn cloud(&self) -> Cloud {
        let host = self.host.strip_suffix('.').unwrap_or(&self.host);
        if host.ends_with(".core.usgovcloudapi.net") {
            Cloud::Government
        } else if host.ends_with(".core.chinacloudapi.cn") {
            Cloud::China
        } else {
            Cloud::Public
        }
    }

    /// Whether somebody on the way could read what is sent there.
    pub(super) fn is_open(&self) -> bool {
        !self.secure && !is_loopback(&self.host)
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// The clouds with a service of their own that gives tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cloud {
    Public,
    Government,
    China,
}

impl Cloud {
    /// "National clouds", Microsoft Entra authentication endpoints.
    pub(super) fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::Government => "https://login.microsoftonline.us",
            Self::China => "https://login.chinacloudapi.cn",
        }
    }
}

/// The URL, with no slash at the end.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

/// "Storage account name": 3 to 24 of `a-z 0-9`.
fn check_account(name: &str) -> Result<()> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if plain && (3..=24).contains(&name.len()) {
        return Ok(());
    }
    Err(config("the account name is not one: it takes 3 to 24 lower-case letters `a-z` and digits"))
}

fn check_port(port: &str) -> Result<u16> {
    match port.parse() {
        Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(config("the port of the endpoint is not a number from 1 to 65535")),
    }
}

fn check_host(host: &str) -> Result<String> {
    if let Some(ip) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip: std::net::Ipv6Addr =
            ip.parse().map_err(|_| config("the brackets of the endpoint hold no IPv6 address"))?;
        return Ok(format!("[{ip}]"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let host = host.to_ascii_lowercase();
    let labels = || host.strip_suffix('.').unwrap_or(&host).split('.');
    if !host.bytes().all(plain) || labels().any(str::is_empty) || host.len() > 255 {
        let what = "the host of the endpoint is no host name: it takes letters `a-z`, digits, `-` and `.` \
                    (other scripts in their `xn--` form), and brackets around an IPv6 address";
        return Err(config(what));
    }
    // It can only be read, and lags behind.
    if labels().next().is_some_and(|first| first.ends_with("-secondary")) && labels().any(|l| l == "blob") {
        return Err(config(
            "the endpoint is the secondary one, where nothing can be locked: give the primary",
        ));
    }
    Ok(host)
}

fn check_path(path: &str) -> Result<String> {
    let path = path.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    let segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    if path.is_empty() || path[1..].split('/').all(segment) {
        return Ok(path.to_owned());
    }
    Err(config(
        "the path of the endpoint cannot be: it takes plain characters, nothing percent-encoded, and no \
         `//`, `.` or `..`",
    ))
}

fn config(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, what.into())
}

fn wrong(part: &str, what: &str) -> Error {
    config(format!("`{part}` of the connection string {what}"))
}

fn missing(part: &str) -> Error {
    config(format!("the connection string has no `{part}`"))
}

fn in_part(part: &str, error: &Error) -> Error {
    use std::error::Error as _;
    let why = error.source().map(ToString::to_string).unwrap_or_default();
    config(format!("`{part}` of the connection string: {why}"))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
