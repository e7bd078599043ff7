//! Decimal128 in BSON's binary integer form (IEEE 754-2008): 34 digits, exponents −6176…6111.

use crate::json::number::Decimal;

const DIGITS: i64 = 34;
const LEAST: i64 = -6_176;
const MOST: i64 = 6_111;

/// Encodes a JSON number when it fits exactly: coefficient and exponent as spelled where possible, only zeros padded or
/// dropped.
#[must_use]
pub fn encode(spelling: &[u8]) -> Option<[u8; 16]> {
    let number = Decimal::read(spelling);
    let (coefficient, exponent) = if number.digits.is_empty() {
        (0, 0)
    } else {
        // As spelled: the trailing zeros belong to the coefficient, as far as they fit.
        let digits = i64::try_from(number.digits.len()).ok()?;
        if digits > DIGITS {
            return None;
        }
        let spelled = number.trailing_zeros.min(DIGITS - digits);
        let least = (number.exponent - MOST).max(0);
        let most = (DIGITS - digits).min(number.exponent - LEAST);
        if least > most {
            return None;
        }
        let zeros = spelled.clamp(least, most);
        let mut coefficient = number.digits.iter().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        for _ in 0..zeros {
            coefficient *= 10;
        }
        (coefficient, number.exponent - zeros)
    };
    let biased = u128::try_from(exponent - LEAST).ok()?;
    let bits = u128::from(number.negative) << 127 | biased << 113 | coefficient;
    Some(bits.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn spellings_come_back() {
        for (spelled, wanted) in [
            ("12345678901234567890", "12345678901234567890"),
            ("1.10", "1.10"),
            ("1E+6111", "1E+6111"),
            ("1e6144", "1.000000000000000000000000000000000E+6144"),
            ("1e-6176", "1E-6176"),
            ("-7.5e-3", "-0.0075"),
        ] {
            let bytes = encode(spelled.as_bytes()).expect("fits");
            assert_eq!(bson::Decimal128::from_bytes(bytes).to_string(), wanted, "{spelled}");
        }
        assert!(encode(b"1e6145").is_none());
        assert!(encode(b"1e-6177").is_none());
        assert!(encode("1".repeat(35).as_bytes()).is_none());
    }
}
