//! Signing requests with an account key.
//!
//! Each stage is a pure function, so that a wrong signature can be told from its first wrong stage. The rules
//! are those of "Authorize with Shared Key" in the REST documentation, and hold for `x-ms-version` 2016-05-31
//! and later. A request is signed anew for each try, with its own `x-ms-date`; a `Date` header is never sent.

use std::{borrow::Cow, cmp::Ordering, fmt};

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Error, ErrorKind, Result, percent::decode_any};

/// An account key, decoded once, as an HMAC that has taken it in.
///
/// What is left of the key in memory is not wiped: the HTTP layer copies header values as well.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

/// What is signed of a request, byte for byte as it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// Upper case.
    pub(super) method: &'static str,
    /// The percent-encoded path of the URL, with the path of the endpoint in front.
    pub(super) path: &'a str,
    /// What follows the `?` of the URL, or nothing.
    pub(super) query: &'a str,
    /// Every header that is sent but `Authorization` and those that no signature covers (`Host`,
    /// `User-Agent`).
    pub(super) headers: &'a [(&'a str, &'a str)],
}

impl Key {
    /// The key as the portal shows it.
    ///
    /// # Errors
    /// `Config`, when it is no base64. No part of it is in the error.
    pub(super) fn from_base64(text: &str) -> Result<Self> {
        let bytes = STANDARD.decode(text.trim()).map_err(|e| match e {
            DecodeError::InvalidByte(at, _) => wrong(format!("its character {} is none of base64", at + 1)),
            DecodeError::InvalidLastSymbol { .. } => wrong("its end was changed or cut off"),
            DecodeError::InvalidLength { .. } | DecodeError::InvalidPadding => {
                wrong("its length is not that of base64 with `=` at the end, so something was cut off")
            }
        })?;
        if bytes.is_empty() {
            return Err(wrong("it is empty"));
        }
        Ok(Self(Hmac::new_from_slice(&bytes).expect("an HMAC takes a key of any length")))
    }

    /// The signature of a string to sign.
    pub(super) fn signature(&self, string_to_sign: &str) -> String {
        STANDARD.encode(self.0.clone().chain_update(string_to_sign).finalize().into_bytes())
    }

    /// The value of the `Authorization` header.
    // Off the stack while a request is under way.
    #[inline(never)]
    pub(super) fn authorization(&self, account: &str, request: &Request<'_>) -> String {
        format!("SharedKey {account}:{}", self.signature(&string_to_sign(account, request)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

fn wrong(what: impl fmt::Display) -> Error {
    let remedy = "copy it again from the storage account's access keys";
    Error::new(ErrorKind::Config, format!("the account key is not valid: {what}; {remedy}"))
}

/// The headers with a line each of their own, in the order of their lines. `Date` is left out, since
/// `x-ms-date` is always sent ("Specifying the Date header").
const SLOTS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// "Constructing the signature string".
pub(super) fn string_to_sign(account: &str, request: &Request<'_>) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(request.method);
    text.push('\n');
    for slot in SLOTS {
        let header = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(slot));
        match header {
            // Since 2015-02-21 a length of nothing is signed as nothing.
            Some(&(_, "0")) if slot == "content-length" => {}
            Some((_, value)) => text.push_str(value.trim()),
            None => {}
        }
        text.push('\n');
    }
    canonical_headers(&mut text, request.headers);
    canonical_resource(&mut text, account, request.path, request.query);
    text
}

/// "Constructing the canonicalized headers string": each `x-ms-` header once, in the order of [`collate`].
fn canonical_headers(text: &mut String, headers: &[(&str, &str)]) {
    let mut ours: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    ours.sort_by(|(a, _), (b, _)| collate(a, b));
    // The service refuses a header that comes twice.
    ours.dedup_by(|(later, _), (first, _)| later == first);
    for (name, value) in ours {
        text.extend([&name, ":", &unfold(value.trim()), "\n"]);
    }
}

/// The order that the service sorts header names in, which is that of words in a dictionary: `_` before
/// digits before letters, and hyphens count only where all else is equal (`a`, `a_b`, `ab`, `a-b`).
///
/// Not documented; the service's own client libraries carry tables for it.
fn collate(a: &str, b: &str) -> Ordering {
    let letters = |name| str::bytes(name).filter(|&byte| byte != b'-');
    let weights = |name| letters(name).map(|byte| if byte == b'_' { 0 } else { byte });
    let hyphens = |name| str::bytes(name).map(|byte| byte == b'-');
    weights(a).cmp(weights(b)).then_with(|| hyphens(a).cmp(hyphens(b)))
}

/// One space for each run of white space that holds a line break or a tab.
fn unfold(value: &str) -> Cow<'_, str> {
    let breaks = |c| matches!(c, '\r' | '\n' | '\t');
    if !value.contains(breaks) {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find([' ', '\r', '\n', '\t']) {
        let (before, from) = rest.split_at(start);
        let after = from.trim_start_matches([' ', '\r', '\n', '\t']);
        let run = &from[..from.len() - after.len()];
        text.push_str(before);
        text.push_str(if run.contains(breaks) { " " } else { run });
        rest = after;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// "Constructing the canonicalized resource string", for Shared Key since 2009-09-19. On an endpoint whose
/// path starts with the account, the account is there twice.
fn canonical_resource(text: &mut String, account: &str, path: &str, query: &str) {
    text.extend(["/", account, if path.is_empty() { "/" } else { path }]);
    let mut parameters: Vec<_> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decode_any(name).to_lowercase(), decode_any(value)))
        .collect();
    parameters.sort();
    let mut last = None;
    for (name, value) in &parameters {
        if last == Some(name) {
            text.extend([",", value]);
        } else {
            text.extend(["\n", name, ":", value]);
        }
        last = Some(name);
    }
}

#[cfg(test)]
#[path = "shared_key_tests.rs"]
mod tests;
