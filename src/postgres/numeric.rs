//! NUMERIC in binary, from a decimal spelling: exact, whatever its length.
//! <https://github.com/postgres/postgres/blob/REL_16_STABLE/src/backend/utils/adt/numeric.c> (`numeric_recv`)

use bytes::{BufMut, BytesMut};

/// Decimal digits in one of the server's.
const GROUP: usize = 4;

/// Appends a value with its length; `None` for what is no plain decimal number (`-12.50`), or too long a one.
pub fn put(buffer: &mut BytesMut, text: &str) -> Option<()> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !plain(whole) || !plain(fraction) {
        return None;
    }
    let scale = u16::try_from(fraction.len()).ok().filter(|scale| *scale < 0x4000)?;
    let whole = whole.trim_start_matches('0');
    // Groups are counted from the point: the first may be short, the last is filled up with zeros.
    let padded = format!("{}{whole}{fraction}", "0".repeat((GROUP - whole.len() % GROUP) % GROUP));
    let groups: Vec<i16> = padded.as_bytes().chunks(GROUP).map(group).collect();
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let trailing = groups.iter().rev().take_while(|group| **group == 0).count();
    let kept = if leading == groups.len() { &[][..] } else { &groups[leading..groups.len() - trailing] };
    let weight = i32::try_from(whole.len().div_ceil(GROUP)).ok()? - 1 - i32::try_from(leading).ok()?;
    let weight = if kept.is_empty() { 0 } else { i16::try_from(weight).ok()? };
    let count = u16::try_from(kept.len()).ok()?;
    buffer.put_i32(8 + 2 * i32::from(count));
    buffer.put_u16(count);
    buffer.put_i16(weight);
    buffer.put_u16(if negative && !kept.is_empty() { 0x4000 } else { 0 });
    buffer.put_u16(scale);
    for group in kept {
        buffer.put_i16(*group);
    }
    Some(())
}

fn group(digits: &[u8]) -> i16 {
    (0..GROUP).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| i16::from(*digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_the_server_groups_them() {
        let of = |text: &str| {
            let mut buffer = BytesMut::new();
            put(&mut buffer, text).map(|()| {
                let words: Vec<i16> =
                    buffer[4..].chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
                (words[1], words[2], words[3], words[4..].to_vec())
            })
        };
        assert_eq!(of("12345.6"), Some((1, 0, 1, vec![1, 2345, 6000])));
        assert_eq!(of("-0.00001"), Some((-2, 0x4000, 5, vec![1000])));
        assert_eq!(of("100000000"), Some((2, 0, 0, vec![1])));
        assert_eq!(of("-0.00"), Some((0, 0, 2, vec![])));
        assert_eq!(of("9223372036854775808"), Some((4, 0, 0, vec![922, 3372, 368, 5477, 5808])));
        for text in ["", "-", ".", "1e5", "NaN", "+1", "1.2.3"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
