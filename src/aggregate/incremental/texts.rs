//! Texts in binary order, each as what it has beyond the one before it, in blocks that begin anew: a text is found by a
//! search for its block and a walk through that one, and none is laid out for it.

use polars_arrow::array::BinaryArray;
use polars_arrow::datatypes::ArrowDataType;
use polars_arrow::offset::OffsetsBuffer;

use crate::aggregate::arrow::{bug, damaged};
use crate::error::Result;

/// Texts of one block.
const BLOCK: usize = 32;

/// Appends a number, seven bits a byte.
pub(super) fn put(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or_default());
}

/// Takes a number that [`put`] wrote.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u32> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        if shift > 28 {
            return None;
        }
    }
}

/// A cell for each block of texts, which ascend and stand once.
///
/// # Errors
/// `Bug`, as Arrow says.
pub fn packed<'a>(texts: impl Iterator<Item = &'a str>) -> Result<BinaryArray<i64>> {
    let (mut bytes, mut ends) = (Vec::new(), vec![0_i64]);
    let mut before: &[u8] = &[];
    let mut end = |bytes: &Vec<u8>| ends.push(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    for (at, text) in texts.map(str::as_bytes).enumerate() {
        if at % BLOCK == 0 && at > 0 {
            end(&bytes);
        }
        let shared =
            if at % BLOCK == 0 { 0 } else { before.iter().zip(text).take_while(|(one, two)| one == two).count() };
        put(&mut bytes, u32::try_from(shared).map_err(bug)?);
        put(&mut bytes, u32::try_from(text.len() - shared).map_err(bug)?);
        bytes.extend_from_slice(&text[shared..]);
        before = text;
    }
    if !bytes.is_empty() {
        end(&bytes);
    }
    let ends = OffsetsBuffer::try_from(ends).map_err(bug)?;
    BinaryArray::try_new(ArrowDataType::LargeBinary, ends, bytes.into(), None).map_err(bug)
}

/// Packed texts.
#[derive(Debug, Clone)]
pub struct Texts(BinaryArray<i64>);

/// The texts of a block.
struct Walk<'a> {
    left: &'a [u8],
    text: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn of(block: &'a [u8]) -> Self {
        Self { left: block, text: Vec::new() }
    }

    /// The next one; `None` at the end, and where the bytes make no sense.
    fn next(&mut self) -> Option<&[u8]> {
        let (shared, length) = (take(&mut self.left)? as usize, take(&mut self.left)? as usize);
        let (new, rest) = self.left.split_at_checked(length)?;
        self.left = rest;
        self.text.truncate(shared);
        self.text.extend_from_slice(new);
        (self.text.len() == shared + length).then_some(&self.text)
    }
}

impl Texts {
    /// Those that [`packed`] wrote.
    #[must_use]
    pub const fn new(blocks: BinaryArray<i64>) -> Self {
        Self(blocks)
    }

    /// Where a text stands among them.
    #[must_use]
    pub fn rank(&self, text: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.0.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let mut first = self.0.value(middle);
            // It shares nothing.
            take(&mut first)?;
            let length = take(&mut first)? as usize;
            if first.get(..length)? <= text.as_bytes() { low = middle + 1 } else { high = middle }
        }
        let block = low.checked_sub(1)?;
        let mut walk = Walk::of(self.0.value(block));
        let mut at = block * BLOCK;
        while let Some(one) = walk.next() {
            match one.cmp(text.as_bytes()) {
                std::cmp::Ordering::Less => at += 1,
                std::cmp::Ordering::Equal => return u32::try_from(at).ok(),
                std::cmp::Ordering::Greater => break,
            }
        }
        None
    }

    /// Each of them in order; there are `count`.
    ///
    /// # Errors
    /// `Data` for bytes that are not as they were written.
    pub fn each(&self, count: u64, mut take: impl FnMut(&str)) -> Result<()> {
        let mut found = 0;
        for block in self.0.values_iter() {
            let mut walk = Walk::of(block);
            while let Some(one) = walk.next() {
                take(std::str::from_utf8(one).map_err(|_| damaged())?);
                found += 1;
            }
        }
        if found == count { Ok(()) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_found_at_its_place_and_no_other() {
        for count in [0, 1, 31, 32, 33, 500] {
            let mut all: Vec<String> =
                (0..count).map(|i| format!("device-{:04}-é{}", i * 2, "x".repeat(i % 300))).collect();
            all.extend([String::new(), "\0".to_owned()].into_iter().take(count));
            all.sort_unstable();
            let texts = Texts::new(packed(all.iter().map(String::as_str)).expect("packs"));
            let mut laid_out = Vec::new();
            texts.each(all.len() as u64, |text| laid_out.push(text.to_owned())).expect("reads");
            assert_eq!(laid_out, all);
            assert!(texts.each(all.len() as u64 + 1, |_| ()).is_err());
            for (text, at) in all.iter().zip(0..) {
                assert_eq!(texts.rank(text), Some(at));
                assert_eq!(texts.rank(&format!("{text}!")), None);
            }
            assert_eq!(texts.rank("device-0001-é"), None);
            assert_eq!(texts.rank("zzz"), None);
        }
    }
}
