//! Numbers as exact decimals: `0.{digits} × 10^exponent`, compared without rounding.

use super::scan::Scan;

/// Whether the whole text is a number by JSON's grammar.
#[must_use]
pub fn is_spelling(text: &[u8]) -> bool {
    let mut scan = Scan { bytes: text, at: 0 };
    scan.number().is_ok() && scan.at == text.len()
}

/// A number's digits without leading and trailing zeros, and where the point stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    pub negative: bool,
    /// Empty for zero.
    pub digits: Vec<u8>,
    /// Of the last digit in `digits`; 0 for zero. Clamped far beyond what any type holds.
    pub exponent: i64,
    /// As spelled: trailing zeros that were cut from `digits`.
    pub trailing_zeros: i64,
}

/// Beyond every exponent that a double or a Decimal128 can hold, far below overflow.
const FAR: i64 = 1 << 40;

impl Decimal {
    /// Reads a spelling of JSON's grammar (checked before), or of Rust's `{:e}`.
    #[must_use]
    pub fn read(spelling: &[u8]) -> Self {
        let negative = spelling.first() == Some(&b'-');
        let mut digits = Vec::with_capacity(spelling.len());
        let mut exponent = 0_i64;
        let mut point = false;
        let mut rest = &spelling[usize::from(negative)..];
        while let Some((byte, tail)) = rest.split_first() {
            rest = tail;
            match byte {
                b'.' => point = true,
                b'e' | b'E' => {
                    exponent = exponent.saturating_add(read_exponent(tail));
                    break;
                }
                digit => {
                    digits.push(*digit);
                    exponent -= i64::from(point);
                }
            }
        }
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        let kept = digits.len() - digits.iter().rev().take_while(|digit| **digit == b'0').count();
        let trailing = i64::try_from(digits.len() - kept).unwrap_or(FAR);
        digits.truncate(kept);
        if digits.is_empty() {
            return Self { negative, digits, exponent: 0, trailing_zeros: 0 };
        }
        Self { negative, digits, exponent: (exponent + trailing).clamp(-FAR, FAR), trailing_zeros: trailing }
    }

    /// Whether both are the same number; zeros are equal whatever their sign.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.digits == other.digits
            && self.exponent == other.exponent
            && (self.negative == other.negative || self.digits.is_empty())
    }
}

fn read_exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let size = digits.iter().fold(0_i64, |size, digit| (size * 10 + i64::from(digit - b'0')).min(FAR));
    if negative { -size } else { size }
}
