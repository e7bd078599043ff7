//! Times of raw events: RFC 3339 texts and epochs, written as RFC 3339 UTC with `Z`, no digit invented or lost.

use jiff::tz::AmbiguousOffset;

use crate::json::number::Decimal;
use crate::json::{DeadLetter, Reason};

const DAY: i64 = 86_400;

fn bad(detail: &str) -> DeadLetter {
    DeadLetter::new(Reason::BadTime, detail)
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
#[must_use]
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// The date of a day since 1970-01-01; the inverse of [`days_from_civil`].
#[must_use]
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let pair = text.get(at..at + 2)?;
    pair.iter().all(u8::is_ascii_digit).then(|| i64::from(pair[0] - b'0') * 10 + i64::from(pair[1] - b'0'))
}

/// `YYYY-MM-DD` + one of `T`, `t`, blank + `HH:MM:SS[.f…]`: seconds since 1970 as if UTC, fraction digits, what follows.
fn clock(text: &[u8]) -> Option<(i64, &[u8], &[u8])> {
    let at = |i: usize, wanted: &[u8]| text.get(i).is_some_and(|byte| wanted.contains(byte));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month, day) = (two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?);
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = &text[19..];
    let (fraction, rest) = match rest.split_first() {
        Some((b'.', tail)) => {
            let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            tail.split_at(digits)
        }
        _ => rest.split_at(0),
    };
    Some((days_from_civil(year, month, day) * DAY + hour * 3_600 + minute * 60 + second, fraction, rest))
}

/// Appends an instant as `YYYY-MM-DDTHH:MM:SS[.f]Z`, in quotes.
fn write(seconds: i64, fraction: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    if !(1..=9_999).contains(&year) {
        return Err(bad("the UTC year is outside 0001-9999"));
    }
    let kept = fraction.len() - fraction.iter().rev().take_while(|digit| **digit == b'0').count();
    if fraction.len() > 9 {
        return Err(bad("more than 9 fraction digits"));
    }
    let clock = seconds.rem_euclid(DAY);
    let text = [
        (year / 100, b'"'),
        (year % 100, 0),
        (month, b'-'),
        (day, b'-'),
        (clock / 3_600, b'T'),
        (clock / 60 % 60, b':'),
        (clock % 60, b':'),
    ];
    for (number, before) in text {
        if before != 0 {
            out.push(before);
        }
        let digits = u8::try_from(number).map_err(|_| bad("a number out of its range"))?;
        out.extend_from_slice(&[b'0' + digits / 10, b'0' + digits % 10]);
    }
    if kept > 0 {
        out.push(b'.');
        out.extend_from_slice(&fraction[..kept]);
    }
    out.extend_from_slice(b"Z\"");
    Ok(())
}

/// Appends the time that a string says: RFC 3339 with an offset, or an epoch of just 10 or 13 digits.
///
/// # Errors
/// `bad_time`, or `time_unit` for digits of another length or range.
pub fn from_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    if !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        if text.len() != 10 && text.len() != 13 {
            return Err(DeadLetter::new(Reason::TimeUnit, format!("an epoch of {} digits", text.len())));
        }
        return from_number(text, out);
    }
    let (seconds, fraction, rest) = clock(text).ok_or_else(|| bad("no RFC 3339 time"))?;
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (Some(hours @ 0..=23), Some(minutes @ 0..=59)) = (two(rest, 1), two(rest, 4)) else {
                return Err(bad("no valid offset"));
            };
            let offset = hours * 3_600 + minutes * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        [] => return Err(bad("no offset")),
        _ => return Err(bad("no valid offset")),
    };
    write(seconds - offset, fraction, out)
}

/// Appends the time of an epoch: 10⁹ ≤ n < 10¹⁰ are seconds, 10¹² ≤ n < 10¹³ milliseconds.
///
/// # Errors
/// `time_unit` outside these ranges, `bad_time` for more than 9 fraction digits of a second.
pub fn from_number(spelling: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let number = Decimal::read(spelling);
    let size = i64::try_from(number.digits.len()).unwrap_or(i64::MAX).saturating_add(number.exponent);
    let seconds_digits = match size {
        10 => 10_usize,
        13 => 10,
        _ => 0,
    };
    if seconds_digits == 0 || number.negative || number.digits.is_empty() {
        return Err(DeadLetter::new(Reason::TimeUnit, "neither seconds nor milliseconds since 1970"));
    }
    let mut digits = number.digits;
    while digits.len() < seconds_digits {
        digits.push(b'0');
    }
    let (whole, fraction) = digits.split_at(seconds_digits);
    let seconds = whole.iter().fold(0_i64, |seconds, digit| seconds * 10 + i64::from(digit - b'0'));
    write(seconds, fraction, out)
}

fn wall(seconds: i64) -> Option<jiff::civil::DateTime> {
    let narrow = |number: i64| i8::try_from(number).ok();
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    let clock = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (narrow(clock / 3_600)?, narrow(clock / 60 % 60)?, narrow(clock % 60)?);
    jiff::civil::DateTime::new(i16::try_from(year).ok()?, narrow(month)?, narrow(day)?, hour, minute, second, 0).ok()
}

/// Appends the instant of a wall clock without offset in `zone`, or returns false when it is no such text. In a gap the
/// clock is read as if it had not been put forward yet; of a repeated hour the first is taken.
pub fn from_wall_clock(text: &[u8], zone: &jiff::tz::TimeZone, out: &mut Vec<u8>) -> bool {
    let Some((seconds, fraction, [])) = clock(text) else { return false };
    if fraction.len() > 9 {
        return false;
    }
    let Some(wall) = wall(seconds) else { return false };
    // By the offset alone: jiff's instants end a day before the year 9999 does.
    let offset = match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. } => before,
    };
    let before = out.len();
    if write(seconds - i64::from(offset.seconds()), fraction, out).is_err() {
        out.truncate(before);
        return false;
    }
    true
}
