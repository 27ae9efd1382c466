//! Times as text: RFC 3339, section 5.6.

#[cfg(any(feature = "consul", feature = "kubeconfig", test))]
use std::time::Duration;
use std::time::SystemTime;

/// RFC 3339 in UTC to the second: `2026-11-21T06:47:00Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end in the leap day, so the months before it have fixed lengths.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A time of RFC 3339, section 5.6, since 1970; fractions of a second are dropped.
#[cfg(any(feature = "consul", feature = "kubeconfig", test))]
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-')?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => rest,
    };
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), zone) => {
            let (hours, minutes) = zone.split_once(':')?;
            let two = |text: &str, end: i64| {
                let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse::<i64>().ok().filter(|number| digits && *number < end)
            };
            let offset = two(hours, 24)? * 3600 + two(minutes, 60)? * 60;
            if sign == "+" { offset } else { -offset }
        }
        _ => return None,
    };
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    // Days since 0000-03-01, of years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(any(feature = "consul", feature = "kubeconfig", test))]
fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text
        .split(between)
        .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates() {
        let at = |s| rfc3339(SystemTime::UNIX_EPOCH + s * SECOND);
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(at(1_795_244_820), "2026-11-21T07:07:00Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn times() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2024-12-31T23:59:59.999999Z", 1_735_689_599),
            ("2026-11-21t01:07:00-06:00", 1_795_244_820),
            ("2100-03-01T00:00:00z", 4_107_542_400),
        ] {
            assert_eq!(parse(text), Some(at(seconds)), "{text}");
        }
        for wrong in [
            "",
            "2026",
            "2026-11-21",
            "2026-11-21T01:07:00",
            "2026-13-01T00:00:00Z",
            "2026-11-21T01:07Z",
            "1969-12-31T23:59:59Z",
            "2026-1-121T01:07:00Z",
            "2026-11-21T01:07:00+2",
            "é026-11-21T01:07:00Z",
            "2026-11-21T01:07:00+2562047788015216:00",
            "2026-11-21T01:07:00+00:153722867280912931",
            "2026-11-21T01:07:00--9:00",
            "2026-11-21T01:07:00+24:00",
            "2026-11-21T01:07:00+02:60",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for seconds in [0, 951_782_399, 951_782_400, 1_735_689_599, 1_795_244_820, 4_107_542_400] {
            assert_eq!(parse(&rfc3339(at(seconds))), Some(at(seconds)), "{seconds}");
        }
        assert_eq!(parse("2026-11-21T09:07:00.123+02:00"), Some(at(1_795_244_820)));
        assert_eq!(parse("2026-11-21T01:37:00-05:30"), Some(at(1_795_244_820)));
        for wrong in [
            "",
            "2026-11-21",
            "2026-11-21T07:07:00",
            "2026-13-21T07:07:00Z",
            "2026-11-21T07:07:00x02:00",
            "+026-11-21T07:07:00Z",
            "2026-11-21T07:07:00+307445734561825861:00",
            "2026-11-21T07:07:00+02:18446744073709551615",
            "2026-11-21T07:07:00+2:00",
            "2026-11-21T07:07:00+02:60",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_time_that_we_write_is_read(seconds in 0_u64..10_000_000_000) {
            prop_assert_eq!(parse(&rfc3339(at(seconds))), Some(at(seconds)));
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("2026-11-21T01:07:00{text}"));
        }
    }
}
