//! Sums without rounding, whatever is added in whatever order: integers and decimals in limbs of nine digits, doubles in
//! limbs of 32 bits. A double is made of it once, at the end.

use std::cmp::Ordering;

use super::reports::number::Number;

const DECIMAL: i64 = 1_000_000_000;
const BINARY: i64 = 1 << 32;
const DIGITS: i32 = 9;
/// A limb beyond this hands on what is over, long before it overflows.
const FULL: i64 = 1 << 61;

/// The sum of numbers, and how many they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    whole: i128,
    decimals: Limbs<DECIMAL>,
    doubles: Limbs<BINARY>,
    any_double: bool,
}

/// Σ limb × BASE^index, by index; only those that were touched are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Limbs<const BASE: i64>(Vec<(i16, i64)>);

impl<const BASE: i64> Limbs<BASE> {
    fn add(&mut self, index: i16, amount: i64) {
        if amount == 0 {
            return;
        }
        let at = match self.0.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (index, 0));
                at
            }
        };
        let limb = &mut self.0[at].1;
        *limb += amount;
        if limb.abs() > FULL {
            let over = *limb / BASE;
            *limb -= over * BASE;
            self.add(index + 1, over);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (index, amount) in &other.0 {
            // Two full limbs fit into one; each then hands on.
            self.add(*index, *amount);
        }
    }

    /// Sign and limbs from 0 to BASE - 1 of the magnitude, by index, none missing between the first and the last.
    fn magnitude(&self) -> (bool, i16, Vec<i64>) {
        let Some((first, _)) = self.0.first() else { return (false, 0, Vec::new()) };
        let spread = |sign: i64| {
            let (mut limbs, mut carry, mut rest) = (Vec::new(), 0_i64, self.0.iter().peekable());
            let mut index = *first;
            while rest.peek().is_some() || !(-1..=0).contains(&carry) {
                let own = rest.next_if(|(at, _)| *at == index).map_or(0, |(_, limb)| *limb);
                let limb = own * sign + carry;
                limbs.push(limb.rem_euclid(BASE));
                carry = limb.div_euclid(BASE);
                index += 1;
            }
            (carry < 0, limbs)
        };
        let (negative, limbs) = spread(1);
        let limbs = if negative { spread(-1).1 } else { limbs };
        (negative && limbs.iter().any(|limb| *limb != 0), *first, limbs)
    }
}

impl Sum {
    /// Adds one finite number.
    pub fn add(&mut self, number: &Number) {
        self.count += 1;
        match *number {
            Number::Integer(whole) => self.whole += i128::from(whole),
            Number::Double(double) => self.add_double(double),
            Number::Decimal { negative, mut coefficient, exponent } => {
                let (mut index, shift) = (exponent.div_euclid(DIGITS), exponent.rem_euclid(DIGITS));
                let shift = 10_i64.pow(shift.unsigned_abs());
                while coefficient > 0 {
                    let digits = small(coefficient % DECIMAL as u128) * shift;
                    let digits = if negative { -digits } else { digits };
                    let at = narrow(index);
                    self.decimals.add(at, digits % DECIMAL);
                    self.decimals.add(at + 1, digits / DECIMAL);
                    coefficient /= DECIMAL as u128;
                    index += 1;
                }
            }
        }
    }

    fn add_double(&mut self, double: f64) {
        self.any_double = true;
        let bits = double.to_bits();
        let (exponent, fraction) = ((bits >> 52) as i32 & 0x7ff, bits & ((1 << 52) - 1));
        // mantissa × 2^exponent
        let (mantissa, exponent) =
            if exponent == 0 { (fraction, -1_074) } else { (fraction | 1 << 52, exponent - 1_075) };
        let (index, shift) = (exponent.div_euclid(32), exponent.rem_euclid(32));
        let mut rest = u128::from(mantissa) << shift;
        let mut index = narrow(index);
        while rest > 0 {
            let limb = (rest & 0xffff_ffff) as i64;
            self.doubles.add(index, if double < 0.0 { -limb } else { limb });
            rest >>= 32;
            index += 1;
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.whole += other.whole;
        self.decimals.merge(&other.decimals);
        self.doubles.merge(&other.doubles);
        self.any_double |= other.any_double;
    }

    /// Whether it is below, at or above 0.
    #[must_use]
    pub fn sign(&self) -> Ordering {
        let (negative, _, limbs) = self.decimal().magnitude();
        match limbs.iter().any(|limb| *limb != 0) {
            false => Ordering::Equal,
            true if negative => Ordering::Less,
            true => Ordering::Greater,
        }
    }

    /// All of it in limbs of nine digits.
    fn decimal(&self) -> Limbs<DECIMAL> {
        let mut all = self.decimals.clone();
        let (mut whole, mut index) = (self.whole, 0);
        while whole != 0 {
            all.add(index, small(whole % i128::from(DECIMAL)));
            whole /= i128::from(DECIMAL);
            index += 1;
        }
        let (negative, first, limbs) = self.doubles.magnitude();
        let sign = if negative { -1 } else { 1 };
        let point = usize::try_from(-first).unwrap_or(0).min(limbs.len());
        let zeros = usize::try_from(first).unwrap_or(0);
        // Before the point: divided until nothing is left, the least digits first.
        let mut before: Vec<i64> = [vec![0; zeros], limbs[point..].to_vec()].concat();
        let mut index = 0;
        while before.iter().any(|limb| *limb != 0) {
            let rest = before.iter_mut().rev().fold(0_i64, |rest, limb| {
                let here = i128::from(rest) << 32 | i128::from(*limb);
                *limb = small(here / i128::from(DECIMAL));
                small(here % i128::from(DECIMAL))
            });
            all.add(index, sign * rest);
            index += 1;
        }
        // Behind it: multiplied until nothing is left, the greatest digits first.
        let gap = usize::try_from(-first).unwrap_or(0).saturating_sub(limbs.len());
        let mut behind: Vec<i64> = [limbs[..point].to_vec(), vec![0; gap]].concat();
        let mut index = -1;
        while behind.iter().any(|limb| *limb != 0) {
            let over = behind.iter_mut().fold(0_i64, |carry, limb| {
                let here = *limb * DECIMAL + carry;
                *limb = here & 0xffff_ffff;
                here >> 32
            });
            all.add(index, sign * over);
            index -= 1;
        }
        all
    }

    /// The exact decimal spelling.
    #[must_use]
    pub fn exact(&self) -> String {
        let (negative, first, limbs) = self.decimal().magnitude();
        spelled(negative, i32::from(first), &limbs)
    }

    /// As NUMERIC has it: exact; where doubles are in it, rounded once to a double, if there is one as large.
    #[must_use]
    pub fn numeric(&self) -> String {
        match self.double() {
            double if self.any_double && double.is_finite() => Number::Double(double).plain(),
            _ => self.exact(),
        }
    }

    /// The nearest double. Beyond all doubles it is infinite.
    #[must_use]
    pub fn double(&self) -> f64 {
        self.exact().parse().unwrap_or(f64::NAN)
    }

    /// The nearest double of the mean; `None` of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let count = i128::from(self.count);
        if count == 0 {
            return None;
        }
        let (negative, first, limbs) = self.decimal().magnitude();
        let mut first = i32::from(first);
        // Until the quotient ends, or beyond the last digit of what lies between two doubles.
        let mut digits = Vec::with_capacity(limbs.len() + 8);
        let mut rest = 0_i128;
        let mut divide = |limb: i64, digits: &mut Vec<i64>| {
            let here = rest * i128::from(DECIMAL) + i128::from(limb);
            digits.push(small(here / count));
            rest = here % count;
            rest != 0
        };
        let mut left = false;
        for limb in limbs.iter().rev() {
            left = divide(*limb, &mut digits);
        }
        while left && first > -122 {
            left = divide(0, &mut digits);
            first -= 1;
        }
        digits.reverse();
        if left {
            digits.insert(0, 1);
            first -= 1;
        }
        spelled(negative, first, &digits).parse().ok()
    }

    /// As bytes, for Arrow.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 10 * (self.decimals.0.len() + self.doubles.0.len()));
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.whole.to_le_bytes());
        bytes.push(u8::from(self.any_double));
        bytes.extend(u32::try_from(self.decimals.0.len()).unwrap_or(0).to_le_bytes());
        for (index, limb) in self.decimals.0.iter().chain(&self.doubles.0) {
            bytes.extend(index.to_le_bytes());
            bytes.extend(limb.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        let (whole, rest) = rest.split_first_chunk::<16>()?;
        let (any_double, rest) = rest.split_first()?;
        let (decimals, rest) = rest.split_first_chunk::<4>()?;
        let mut limbs = Vec::new();
        for limb in rest.chunks(10) {
            let (index, limb) = limb.split_first_chunk::<2>()?;
            limbs.push((i16::from_le_bytes(*index), i64::from_le_bytes(*limb.first_chunk()?)));
        }
        let decimals = usize::try_from(u32::from_le_bytes(*decimals)).ok()?;
        let doubles = limbs.get(decimals..)?.to_vec();
        limbs.truncate(decimals);
        Some(Self {
            count: u64::from_le_bytes(*count),
            whole: i128::from_le_bytes(*whole),
            decimals: Limbs(limbs),
            doubles: Limbs(doubles),
            any_double: *any_double != 0,
        })
    }
}

/// A decimal from its limbs: the first at 10^(9 × first).
fn spelled(negative: bool, first: i32, limbs: &[i64]) -> String {
    let (mut whole, mut fraction) = (String::new(), String::new());
    let last = first + i32::try_from(limbs.len()).unwrap_or(0) - 1;
    for index in (0.min(first)..=last.max(0)).rev() {
        let limb = usize::try_from(index - first).ok().and_then(|at| limbs.get(at)).copied().unwrap_or(0);
        let side = if index >= 0 { &mut whole } else { &mut fraction };
        side.extend(format!("{limb:09}").chars());
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// A limb, which is below its base.
fn small<T: TryInto<i64>>(limb: T) -> i64 {
    limb.try_into().unwrap_or(0)
}

fn narrow(index: i32) -> i16 {
    i16::try_from(index).expect("BSON's exponents are below 7,000")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[Number]) -> Sum {
        let mut sum = Sum::default();
        for number in numbers {
            sum.add(number);
        }
        sum
    }

    fn doubles(numbers: &[f64]) -> Sum {
        of(&numbers.iter().map(|number| Number::Double(*number)).collect::<Vec<_>>())
    }

    #[test]
    fn sums_are_rounded_once() {
        assert_eq!(doubles(&[0.1; 10]).double().to_bits(), 1.0_f64.to_bits());
        assert_eq!(doubles(&[1e308, 1e308, -1e308, -1e308, 5e-324]).numeric().parse(), Ok(5e-324));
        assert_eq!(doubles(&[1e16, 1.0, -1e16]).numeric(), "1");
        assert!(doubles(&[1.7e308, 1.7e308]).double().is_infinite());
        assert_eq!(of(&[Number::Integer(i64::MAX); 3]).numeric(), "27670116110564327421");
        let cents = Number::Decimal { negative: false, coefficient: 110, exponent: -2 };
        assert_eq!(of(&[cents, cents, Number::Integer(-3)]).numeric(), "-0.8");
        assert_eq!(of(&[Number::Decimal { negative: true, coefficient: 1, exponent: -6176 }]).numeric().len(), 6179);
        assert_eq!(of(&[Number::Integer(1), Number::Integer(1), Number::Integer(0)]).mean(), Some(2.0 / 3.0));
        assert_eq!(of(&[]).mean(), None);
    }

    fn any_number() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<i64>().prop_map(Number::Integer),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Number::Double),
            (any::<bool>(), 0..10_u128.pow(34), -6_176..6_111_i32)
                .prop_map(|(negative, coefficient, exponent)| { Number::Decimal { negative, coefficient, exponent } }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_order_and_any_split_gives_the_same(numbers in prop::collection::vec(any_number(), 0..12), cut in 0..12_usize) {
            let (one, other) = numbers.split_at(cut.min(numbers.len()));
            let mut back = of(other);
            back.merge(&of(one));
            let whole = of(&numbers);
            prop_assert_eq!(back.numeric(), whole.numeric());
            prop_assert_eq!(back.mean().map(f64::to_bits), whole.mean().map(f64::to_bits));
            prop_assert_eq!(Sum::from_bytes(&whole.to_bytes()), Some(whole));
        }

        #[test]
        fn one_double_is_itself(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            // Zero has one sign in a sum.
            let bits = (number + 0.0).to_bits();
            prop_assert_eq!(doubles(&[number]).double().to_bits(), bits);
            prop_assert_eq!(doubles(&[number]).mean().map(f64::to_bits), Some(bits));
            prop_assert_eq!(doubles(&[number]).exact().parse::<f64>(), Ok(number));
        }
    }
}
