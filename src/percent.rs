//! Percent-encoding (RFC 3986, section 2.1).

#[cfg(feature = "azure")]
use std::borrow::Cow;
use std::fmt::Write;

/// Percent-encodes all but `A-Z a-z 0-9 - . _ ~` and the slash (RFC 3986, section 2.3), so that nothing on
/// the way has a reason to write the path in another way than it was signed.
pub(crate) fn encode_onto(path: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                path.push(byte.into());
            }
            _ => write!(path, "%{byte:02X}").expect("a `String` takes all"),
        }
    }
}

/// Decodes what was encoded like that, and nothing else.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Decodes what anybody encoded, once; a `+` stays, and so does a `%` that starts no code.
#[cfg(feature = "azure")]
pub(crate) fn decode_any(text: &str) -> Cow<'_, str> {
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
