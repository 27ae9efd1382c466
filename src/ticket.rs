//! A detached lock as one line of text.
//!
//! `leasehold-ticket:1:MODE:TTL:TOKEN:NAME:LEASE:NOTE:SUM`: the TTL in milliseconds, `-` for what there is not, texts
//! percent-encoded (RFC 3986, section 2.1), the sum over all before it.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    Error, ErrorKind, Mode, Result,
    percent::{decode, encode_onto},
};

const PREFIX: &str = "leasehold-ticket:";
const VERSION: &str = "1";
const NONE: &str = "-";
/// The parts between colons, the prefix and the sum included.
const PARTS: usize = 9;
const SUM_DIGITS: usize = 16;

/// A detached lock, on its way to whoever [adopts](crate::Locker::adopt) it.
///
/// [`Display`](fmt::Display) writes one line without blanks, fit for a variable or an argument; [`FromStr`] reads it,
/// and says what is wrong with one that was cut or changed. There is no secret in it: who adopts it needs the rights
/// to the store besides.
///
/// Dropping one does nothing: the lock frees itself after its TTL, and one without expiry stays until somebody breaks
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    name: String,
    lease_id: String,
    token: Option<u64>,
    mode: Mode,
    ttl: Option<Duration>,
    note: String,
}

/// What a [`Ticket`] is made of.
pub(crate) struct Handed<'a> {
    pub(crate) name: &'a str,
    pub(crate) lease_id: &'a str,
    pub(crate) token: Option<u64>,
    pub(crate) mode: Mode,
    pub(crate) ttl: Option<Duration>,
    pub(crate) note: String,
}

impl Ticket {
    pub(crate) fn new(handed: Handed<'_>) -> Self {
        let Handed { name, lease_id, token, mode, ttl, note } = handed;
        // As it is written: in whole milliseconds, and never more than there is.
        let ttl = ttl.map(|ttl| Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
        Self { name: name.to_owned(), lease_id: lease_id.to_owned(), token, mode, ttl, note }
    }

    /// The lock's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id under which the store knows the detached lease; who adopts it gets another.
    pub fn lease_id(&self) -> &str {
        &self.lease_id
    }

    /// The [fencing token](crate::Guard::fencing_token), which goes with the lock.
    pub fn fencing_token(&self) -> Option<u64> {
        self.token
    }

    /// How the lock is held.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How long after [`Guard::detach`](crate::Guard::detach) it can be adopted, and its TTL after that. `None`: it
    /// never runs out.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// What the store wrote for itself, in [`Lease::detach`](crate::backend::Lease::detach).
    pub fn note(&self) -> &str {
        &self.note
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Exclusive => "exclusive",
            Mode::Shared => "shared",
        };
        let number = |number: Option<String>| number.unwrap_or_else(|| NONE.to_owned());
        let ttl = number(self.ttl.map(|ttl| ttl.as_millis().to_string()));
        let token = number(self.token.map(|token| token.to_string()));
        let [name, lease, note] = [&self.name, &self.lease_id, &self.note].map(|text| {
            let mut encoded = String::with_capacity(text.len());
            encode_onto(&mut encoded, text);
            encoded
        });
        let text = format!("{PREFIX}{VERSION}:{mode}:{ttl}:{token}:{name}:{lease}:{note}");
        write!(f, "{text}:{}", sum(&text))
    }
}

impl FromStr for Ticket {
    type Err = Error;

    /// Reads a ticket; blanks and line ends around it do not matter.
    ///
    /// # Errors
    /// `Config`, with what is wrong. What was given is not repeated: it may be something else, and secret.
    fn from_str(text: &str) -> Result<Self> {
        parse(text.trim()).map_err(|what| Error::new(ErrorKind::Config, what).during("read a ticket"))
    }
}

/// Of a store that hands over, and gives its leases no ids to be handed over by.
pub(crate) fn no_lease_id() -> Error {
    Error::unsupported("hand a lock over: its leases have no id")
}

fn parse(text: &str) -> Result<Ticket, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let Some(rest) = text.strip_prefix(PREFIX) else {
        return Err(format!("it does not begin with `{PREFIX}`, so it is cut or something else"));
    };
    let version = rest.split(':').next().unwrap_or_default();
    // Before the sum: another version may count differently.
    if version != VERSION && is_number(version) {
        return Err(format!(
            "it is of version {version}, and this program reads version {VERSION}: \
             use one version of leasehold on both sides"
        ));
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() < PARTS {
        return Err(format!("it is cut short: it has {} of {PARTS} parts", parts.len()));
    }
    let damaged = || "it was changed on its way: its sum does not fit".to_owned();
    let (body, check) = text.rsplit_once(':').ok_or_else(damaged)?;
    if parts.len() == PARTS && check.len() < SUM_DIGITS {
        return Err("it is cut short: its sum is not whole".to_owned());
    }
    let &[_, VERSION, mode, ttl, token, name, lease_id, note, _] = parts.as_slice() else {
        return Err(damaged());
    };
    if check != sum(body) {
        return Err(damaged());
    }
    // From here on only what another program wrote can be wrong.
    let bad = |part: &str| format!("its {part} makes no sense");
    let mode = match mode {
        "exclusive" => Mode::Exclusive,
        "shared" => Mode::Shared,
        _ => return Err(bad("mode")),
    };
    let number = |text: &str, part| match text {
        NONE => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| bad(part)),
    };
    Ok(Ticket {
        name: decode(name).filter(|name| !name.is_empty()).ok_or_else(|| bad("name"))?,
        lease_id: decode(lease_id).ok_or_else(|| bad("lease id"))?,
        token: number(token, "fencing token")?,
        mode,
        ttl: number(ttl, "TTL")?.map(Duration::from_millis),
        note: decode(note).ok_or_else(|| bad("note"))?,
    })
}

/// Up to a length that nobody minds in an error.
fn is_number(text: &str) -> bool {
    (1..=6).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// FNV-1a of 64 bits in hexadecimal: sees every single changed byte, and of other damage all but 1 in 2^64.
fn sum(text: &str) -> String {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// With a sum that fits.
#[cfg(fuzzing)]
pub(crate) fn summed(body: &str) -> String {
    format!("{body}:{}", sum(body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> Ticket {
        Ticket::new(Handed {
            name: "shop/deploy: é\n",
            lease_id: "1f0c0e8e-7d2b-4a43-9a0e-0d9a3f8f7e11",
            token: Some(1_795_244_820_000_000),
            mode: Mode::Shared,
            ttl: Some(Duration::from_secs(30)),
            note: "locks/a%b".to_owned(),
        })
    }

    fn why(text: &str) -> String {
        let error = text.parse::<Ticket>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        error.to_string()
    }

    #[test]
    fn is_one_plain_line_that_is_read_back() {
        let text = ticket().to_string();
        assert_eq!(
            text,
            "leasehold-ticket:1:shared:30000:1795244820000000:shop/deploy%3A%20%C3%A9%0A:\
             1f0c0e8e-7d2b-4a43-9a0e-0d9a3f8f7e11:locks/a%25b:fc4553956556cb3d"
        );
        assert_eq!(text.parse::<Ticket>().unwrap(), ticket());
        assert_eq!(format!(" {text}\r\n").parse::<Ticket>().unwrap(), ticket());
    }

    #[test]
    fn the_sum_is_fnv_1a() {
        assert_eq!(sum(""), "cbf29ce484222325");
        assert_eq!(sum("foobar"), "85944171f73967e8");
    }

    #[test]
    fn says_what_is_wrong() {
        let text = ticket().to_string();
        assert!(why(" \n").ends_with("read a ticket: wrong setting: it is empty"));
        for other in ["hunter2", "{}", &text[1..], "leasehold-tick"] {
            let said = why(other);
            assert!(said.contains("does not begin with `leasehold-ticket:`"), "{said}");
            assert!(!said.contains("hunter2"), "it may be a secret");
        }
        let newer = text.replacen(":1:", ":27:", 1);
        assert!(why(&newer).contains("of version 27, and this program reads version 1"));
        assert!(why("leasehold-ticket:").contains("cut short: it has 2 of 9 parts"));
        assert!(why(&text[..40]).contains("cut short: it has 5 of 9 parts"));
        assert!(why(&text[..text.len() - 1]).contains("cut short: its sum is not whole"));
        assert!(why(&text.replace("deploy", "destroy")).contains("changed on its way"));
        assert!(why(&format!("{text}:x")).contains("changed on its way"));
        let forged = |body: &str| why(&format!("{body}:{}", sum(body)));
        assert!(forged("leasehold-ticket:1:both:1:2:n:l:").contains("its mode makes no sense"));
        assert!(forged("leasehold-ticket:1:shared:1s:2:n:l:").contains("its TTL makes no sense"));
        assert!(forged("leasehold-ticket:1:shared:1:-2:n:l:").contains("its fencing token makes no sense"));
        for name in ["", "%", "%zz", "%+1", "%ff", "a%2"] {
            assert!(forged(&format!("leasehold-ticket:1:shared:1:2:{name}:l:")).contains("its name makes"));
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_goes_unseen() {
        let text = ticket().to_string();
        for end in 0..text.len() {
            why(&text[..end]);
        }
        for place in 0..text.len() {
            for to in [b':', b'0', b'z', b'%', b' '] {
                let mut bytes = text.clone().into_bytes();
                if bytes[place] != to {
                    bytes[place] = to;
                    why(&String::from_utf8(bytes).unwrap());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_ticket_comes_back(
            name in ".+", lease_id in ".*", note in ".*",
            token in any::<Option<u64>>(), shared: bool, ttl in any::<Option<Duration>>(),
        ) {
            let mode = if shared { Mode::Shared } else { Mode::Exclusive };
            let ticket = Ticket::new(Handed { name: &name, lease_id: &lease_id, token, mode, ttl, note });
            let text = ticket.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert!(ticket.ttl() <= ttl, "never more than there is");
            prop_assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*", tail in "[0-9a-z:%-]*") {
            let _ = text.parse::<Ticket>();
            let _ = format!("{PREFIX}{tail}").parse::<Ticket>();
        }
    }
}
