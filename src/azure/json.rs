//! The JSON object (RFC 8259) that an identity service answers: a small strict reader.
//!
//! Only texts and numbers at the top are kept; what else there is has to be JSON, and is passed over. Values
//! are tokens, so nothing here shows one.

/// How deep what is passed over may be nested.
const DEEPEST: usize = 32;

/// The texts and numbers of one object.
pub(super) struct Object(Vec<(String, Value)>);

enum Value {
    Text(String),
    /// As it stands there.
    Number(String),
    Other,
}

impl Object {
    /// Reads all of the bytes as one object; `None` for anything else. Two members of one name are refused:
    /// readers do not agree which of them counts.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(std::str::from_utf8(bytes).ok()?);
        reader.sign('{')?;
        let mut members: Vec<(String, Value)> = Vec::new();
        reader.list('}', |reader| {
            let (name, value) = reader.member(DEEPEST)?;
            if members.iter().any(|(other, _)| *other == name) {
                return None;
            }
            members.push((name, value));
            Some(())
        })?;
        reader.space();
        reader.0.is_empty().then_some(Self(members))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative, written as a number or as a text.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        let (Value::Text(digits) | Value::Number(digits)) = self.get(name)? else { return None };
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }
}

/// What is left to read.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// This sign, after white space.
    fn sign(&mut self, sign: char) -> Option<()> {
        self.space();
        self.0 = self.0.strip_prefix(sign)?;
        Some(())
    }

    /// Items with commas between them, up to the end sign; the start sign is read already.
    fn list(&mut self, end: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.sign(end).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.sign(end).is_some() {
                return Some(());
            }
            self.sign(',')?;
        }
    }

    fn member(&mut self, depth: usize) -> Option<(String, Value)> {
        self.sign('"')?;
        let name = self.text()?;
        self.sign(':')?;
        Some((name, self.value(depth)?))
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let deeper = depth.checked_sub(1)?;
        self.space();
        match self.0.chars().next()? {
            '"' => {
                self.0 = &self.0[1..];
                self.text().map(Value::Text)
            }
            '{' => {
                self.0 = &self.0[1..];
                self.list('}', |reader| reader.member(deeper).map(drop))?;
                Some(Value::Other)
            }
            '[' => {
                self.0 = &self.0[1..];
                self.list(']', |reader| reader.value(deeper).map(drop))?;
                Some(Value::Other)
            }
            '-' | '0'..='9' => self.number().map(Value::Number),
            _ => {
                let word = ["true", "false", "null"].into_iter().find(|word| self.0.starts_with(word))?;
                self.0 = &self.0[word.len()..];
                Some(Value::Other)
            }
        }
    }

    /// The rest of a string (section 7), with its end sign.
    fn text(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let end = self.0.find(|c| matches!(c, '"' | '\\' | '\0'..='\x1f'))?;
            text.push_str(&self.0[..end]);
            let sign = self.0.as_bytes()[end];
            self.0 = &self.0[end + 1..];
            match sign {
                b'"' => return Some(text),
                b'\\' => text.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let sign = self.0.chars().next()?;
        self.0 = &self.0[sign.len_utf8()..];
        Some(match sign {
            '"' | '\\' | '/' => sign,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match self.unit()? {
                high @ 0xd800..=0xdbff => {
                    self.0 = self.0.strip_prefix("\\u")?;
                    let low = self.unit().filter(|low| (0xdc00..=0xdfff).contains(low))?;
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                }
                unit => char::from_u32(unit)?,
            },
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.0.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.0 = &self.0[4..];
        u32::from_str_radix(digits, 16).ok()
    }

    /// A number (section 6).
    fn number(&mut self) -> Option<String> {
        let whole = self.0;
        self.0 = self.0.strip_prefix('-').unwrap_or(self.0);
        let zero = self.0.starts_with('0');
        // Nothing follows a zero at the front: `01` is no number.
        if self.digits()? > 1 && zero {
            return None;
        }
        if let Some(fraction) = self.0.strip_prefix('.') {
            self.0 = fraction;
            self.digits()?;
        }
        if let Some(exponent) = self.0.strip_prefix(['e', 'E']) {
            self.0 = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            self.digits()?;
        }
        Some(whole[..whole.len() - self.0.len()].to_owned())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<usize> {
        let rest = self.0.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = self.0.len() - rest.len();
        self.0 = rest;
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
