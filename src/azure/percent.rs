//! Percent-encoding (RFC 3986, section 2.1).

use std::{borrow::Cow, fmt::Write};

/// Percent-encodes all but `A-Z a-z 0-9 - . _ ~` and the slash (RFC 3986, section 2.3), so that nothing on
/// the way has a reason to write the path in another way than it was signed.
pub(super) fn encode_onto(path: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                path.push(byte.into());
            }
            _ => write!(path, "%{byte:02X}").expect("a `String` takes all"),
        }
    }
}

/// Percent-decodes once; a `+` stays, and so does a `%` that starts no code.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push(u8::try_from(high * 16 + low).expect("two digits are a byte"));
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}
