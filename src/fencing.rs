//! Fencing tokens for stores that have no number of their own.
//!
//! A writer's token grows by construction, over the last one, and by the time, which still holds when the last
//! one was lost. What remains, a counter that was lost *and* a clock that went back, is said in the docs.

use std::time::SystemTime;

use crate::{Error, ErrorKind, Mode, Result};

/// A token, and the counter that must be in the store before anybody sees the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) token: u64,
    pub(crate) counter: u64,
}

/// The next token after the counter `last`, where one was found.
///
/// Readers take the number between two writers, and leave the counter as it is.
///
/// # Errors
/// At the end of the numbers that a signed 64-bit column can keep.
pub(crate) fn next(last: Option<u64>, mode: Mode, now: SystemTime) -> Result<Fence> {
    let micros = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX));
    let counter = match (mode, last) {
        (Mode::Exclusive, last) => last.unwrap_or(0).saturating_add(2).max(micros),
        (Mode::Shared, Some(last)) => last,
        (Mode::Shared, None) => micros,
    };
    let token = match mode {
        Mode::Exclusive => counter,
        Mode::Shared => counter.saturating_add(1),
    };
    if i64::try_from(token).is_err() {
        let what = format!("the fencing counter is at its end ({token})");
        return Err(Error::new(ErrorKind::Foreign, what));
    }
    Ok(Fence { token, counter })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(micros: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
    }

    #[test]
    fn grows_with_the_counter_and_with_the_time() {
        let write = |last, now| next(last, Mode::Exclusive, at(now)).unwrap().token;
        assert_eq!(write(None, 500), 500);
        assert_eq!(write(Some(500), 400), 502, "the clock went back");
        assert_eq!(write(Some(500), 900), 900);
        assert_eq!(write(None, 901), 901, "the counter was lost");
    }

    #[test]
    fn readers_come_between_writers_and_leave_the_counter() {
        let read = next(Some(500), Mode::Shared, at(900)).unwrap();
        assert_eq!(read, Fence { token: 501, counter: 500 });
        let write = next(Some(read.counter), Mode::Exclusive, at(0)).unwrap();
        assert!(write.token > read.token);
        let first = next(None, Mode::Shared, at(900)).unwrap();
        assert_eq!(first, Fence { token: 901, counter: 900 });
    }

    #[test]
    fn the_end_is_an_error_and_not_a_wrap() {
        let end = i64::MAX.cast_unsigned();
        assert!(next(Some(end - 2), Mode::Exclusive, at(0)).is_ok());
        for last in [end - 1, end, u64::MAX] {
            assert!(next(Some(last), Mode::Exclusive, at(0)).is_err());
        }
        assert!(next(Some(end), Mode::Shared, at(0)).is_err());
    }
}
