//! What the targets in `fuzz/` call: bytes in, and a panic where a promise does not hold. No part of the API.
//!
//! It is there with `--cfg fuzzing` only, which `cargo fuzz` sets. Inputs are text where that is possible, with the
//! fields of what has several on a line each, so that people can write seeds and read what was found.
#![allow(dead_code, reason = "not every store needs each helper")]

use std::{fmt, time::Duration};

#[cfg(feature = "azure")]
pub use crate::azure::fuzzing::*;
#[cfg(feature = "consul")]
pub use crate::consul::fuzzing::*;
#[cfg(feature = "file")]
pub use crate::file::fuzzing::*;
#[cfg(feature = "kubernetes")]
pub use crate::kubernetes::fuzzing::*;
#[cfg(feature = "lockgate")]
pub use crate::lockgate::fuzzing::*;
use crate::{
    ErrorKind, Mode, Ticket, address,
    lease::model::{Answer, Weather, play},
    ticket,
};

/// Stands wherever an input has a `$`. It is base64, and neither a name of an account nor of a host.
pub(crate) const SECRET: &str = "Hunter2/";

/// A text in which each `$` is a secret; `None` for bytes that are no text.
pub(crate) fn with_secrets(data: &[u8]) -> Option<String> {
    Some(str::from_utf8(data).ok()?.replace('$', SECRET))
}

/// What is said to people holds no secret.
pub(crate) fn keeps_secrets(said: impl fmt::Display) {
    let said = said.to_string();
    assert!(!said.contains(SECRET), "{said}");
}

/// So many lines; the last one has all that is left, and a missing one is empty. `None` for bytes that are no text.
pub(crate) fn lines<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut lines = str::from_utf8(data).ok()?.splitn(N, '\n');
    Some(std::array::from_fn(|_| lines.next().unwrap_or_default()))
}

/// The first line, and the bytes behind it.
pub(crate) fn head_and_body(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((str::from_utf8(&data[..end]).ok()?, &data[end + 1..]))
}

/// It fits into one line of a message.
pub(crate) fn is_for_people(said: &str) {
    assert!(said.chars().count() <= 400 && !said.contains(char::is_control), "{said:?}");
}

/// Tickets: what is read is written and read again, what is refused is not repeated.
pub fn ticket(data: &[u8]) {
    let Some(text) = with_secrets(data) else { return };
    // Once as it is, once with a sum that fits.
    for text in [ticket::summed(&text), text] {
        match text.parse::<Ticket>() {
            Ok(ticket) => {
                let again = ticket.to_string();
                assert!(again.bytes().all(|byte| byte.is_ascii_graphic()), "{again:?}");
                assert_eq!(again.parse::<Ticket>().unwrap(), ticket);
                assert!(!ticket.name().is_empty());
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Config);
                keeps_secrets(error);
            }
        }
    }
    let Some([name, lease_id, note, numbers]) = lines(data) else { return };
    let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse::<u64>().ok());
    let ticket = Ticket::new(ticket::Handed {
        name,
        lease_id,
        token: numbers.next().flatten(),
        mode: if numbers.next().is_some() { Mode::Shared } else { Mode::Exclusive },
        ttl: numbers.next().flatten().map(Duration::from_secs),
        note: note.to_owned(),
    });
    if !name.is_empty() {
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
    }
}

/// Addresses of all stores: what is refused is not repeated.
pub fn address(data: &[u8]) {
    let Some(text) = with_secrets(data) else { return };
    if let Err(error) = address::check(&text) {
        assert_eq!(error.kind(), ErrorKind::Config);
        keeps_secrets(error);
    }
}

/// The state machine of a lease, in a history that the bytes make up.
pub fn lease(data: &[u8]) {
    let [_, _, _, late, later, roll, events @ ..] = data else { return };
    let ttl = 300 + u64::from(u32::from_be_bytes([0, data[0], data[1], data[2]])) % 120_000;
    let share = |byte: u8, of: u64| of * u64::from(byte) / 256;
    let born_late = share(*late, ttl * 2) + u64::from(*later);
    let events: Vec<Weather> = events
        .chunks_exact(3)
        .map(|event| {
            let time = u64::from(event[2]);
            // Short ones and long ones.
            let time =
                time + if event[0] < 192 { share(event[1], ttl / 6) } else { share(event[1], ttl * 2) };
            match event[0] % 8 {
                0 => Weather::Watchdog,
                1 => Weather::Stall(time),
                2 => Weather::Renew { delay: time, answer: Answer::Gone },
                3 => Weather::Renew { delay: time, answer: Answer::Never },
                4 => Weather::Renew { delay: time, answer: Answer::Lost },
                _ => Weather::Renew { delay: time, answer: Answer::Yes },
            }
        })
        .collect();
    // What is over is seen at an event.
    if !events.is_empty() {
        play(ttl, born_late, &events, f64::from(*roll) / 256.0);
    }
}
