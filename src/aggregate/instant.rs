//! When an event happened: texts in any stored form and BSON dates (design section 6).

use crate::bridge::time_text::{civil_from_days, days_from_civil};

const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01 and 9999-12-31, in days since 1970-01-01.
const FIRST: i32 = -719_162;
const LAST: i32 = 2_932_896;

/// A moment and the date it counts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    /// Days since 1970-01-01.
    pub date: i32,
    /// Microseconds since 1970-01-01, UTC where an offset was given.
    pub micros: i64,
}

impl Instant {
    /// The moment of microseconds since 1970, on its UTC date; `None` outside the years 1 to 9999, which neither a text nor
    /// a reader's calendar has.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        let date = i32::try_from(micros.div_euclid(DAY_US)).ok()?;
        (FIRST..=LAST).contains(&date).then_some(Self { date, micros })
    }

    /// Reads `YYYY-MM-DD`, alone or followed by `T`, `t` or a blank, `HH:MM:SS`, a fraction, and an offset: with offset
    /// on its UTC date, without on its own. `None` for anything else, `:60` and offsets beyond −12:00…+14:00 included.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        Self::of(date(text.get(..10)?)?, &text[10..])
    }

    /// The same of a text whose first ten bytes say `date`, by the `rest` of it.
    #[must_use]
    pub fn of(date: i32, rest: &[u8]) -> Option<Self> {
        let day = i64::from(date) * DAY_US;
        if rest.is_empty() {
            return Self::from_micros(day);
        }
        let at = |i: usize, wanted: &[u8]| rest.get(i).is_some_and(|byte| wanted.contains(byte));
        if !(at(0, b"Tt ") && at(3, b":") && at(6, b":")) {
            return None;
        }
        let (hour, minute, second) = (two(rest, 1)?, two(rest, 4)?, two(rest, 7)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut tail = &rest[9..];
        let mut fraction = 0;
        if let Some((b'.', digits)) = tail.split_first() {
            let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if count == 0 {
                return None;
            }
            // Cut, not rounded, to microseconds.
            fraction =
                (0..6).fold(0, |micros, i| micros * 10 + if i < count { i64::from(digits[i] - b'0') } else { 0 });
            tail = &digits[count..];
        }
        let local = day + (hour * 3_600 + minute * 60 + second) * 1_000_000 + fraction;
        let offset = match tail {
            [] | [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let minutes = two(tail, 1)? * 60 + two(tail, 4)?;
                let offset = if *sign == b'-' { -minutes } else { minutes };
                if two(tail, 4)? > 59 || !(-720..=840).contains(&offset) {
                    return None;
                }
                offset
            }
            _ => return None,
        };
        Self::from_micros(local - offset * 60_000_000)
    }
}

/// The date that the last text began with: most events follow one of their own date.
#[derive(Debug, Clone, Default)]
pub struct LastDate {
    text: [u8; 10],
    date: Option<i32>,
}

impl LastDate {
    /// What [`date`] says of the first ten bytes.
    pub fn of(&mut self, text: &[u8]) -> Option<i32> {
        let text: &[u8; 10] = text.first_chunk()?;
        if *text != self.text {
            *self = Self { text: *text, date: date(text) };
        }
        self.date
    }
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let pair = text.get(at..at + 2)?;
    pair.iter().all(u8::is_ascii_digit).then(|| i64::from(pair[0] - b'0') * 10 + i64::from(pair[1] - b'0'))
}

/// Days since 1970-01-01 of `YYYY-MM-DD`; `None` for what is no date.
#[must_use]
pub fn date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let (year, month, day) = (two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?);
    if year == 0 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day)).then(|| i32::try_from(days).ok())?
}

/// The least text that sorts after every text of the days before `date`.
#[must_use]
pub fn bound(date: i32) -> String {
    // A fifth digit of the year would sort among the first millennium; what follows all digits does not.
    if date > LAST { ":".into() } else { text(date) }
}

/// `YYYY-MM-DD` of a day since 1970-01-01.
#[must_use]
pub fn text(date: i32) -> String {
    let (year, month, day) = civil_from_days(i64::from(date));
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let date_of = |text: &str| Instant::read(text.as_bytes()).map(|instant| super::text(instant.date));
        assert_eq!(date_of("2025-10-31T03:22:11Z").as_deref(), Some("2025-10-31"));
        assert_eq!(date_of("2025-10-31 03:22:11").as_deref(), Some("2025-10-31"));
        assert_eq!(date_of("2025-10-31T03:22:11.123456789+07:00").as_deref(), Some("2025-10-30"));
        assert_eq!(date_of("2025-10-31").as_deref(), Some("2025-10-31"));
        assert_eq!(Instant::read(b"1970-01-01T00:00:00.1234567Z").map(|i| i.micros), Some(123_456));
        for bad in [
            "",
            "N/A",
            "2025-10-31T03:22:60Z",
            "2025-02-30",
            "2025-10-31T03:22:11+14:01",
            "2025-10-31T03:22:11-12:01",
            "2025-10-31T03:22",
            "2025-10-31T03:22:11.Z",
            "0000-01-01",
        ] {
            assert_eq!(date_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_date_says_what_date_says() {
        let mut last = LastDate::default();
        for text in ["", "\0\0\0\0\0\0\0\0\0\0", "2025-10-31T", "2025-10-31", "2025-02-30 ", "2025-02-3", "2025-10-31Z"]
        {
            assert_eq!(last.of(text.as_bytes()), text.get(..10).and_then(|day| date(day.as_bytes())), "{text}");
        }
    }
}
