//! The few fields of a raw BSON document that a report needs, found without building the document.

/// A value as it lies in the document.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Element<'a> {
    #[default]
    Missing,
    Null,
    Text(&'a [u8]),
    Integer(i64),
    /// Milliseconds since 1970-01-01.
    Date(i64),
    ObjectId(&'a [u8; 12]),
    Double(f64),
    /// Binary integer form.
    Decimal(&'a [u8; 16]),
    Bool(bool),
    /// Whole, with its length before it.
    Document(&'a [u8]),
    Other,
}

impl std::fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => {
                let shown: String = String::from_utf8_lossy(text).chars().take(60).collect();
                write!(f, "{shown}")
            }
            Self::Integer(number) => write!(f, "{number}"),
            Self::ObjectId(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Document(_) => f.write_str("Document"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Calls `take` with the name and value of each top-level element. False when the document is cut short.
pub fn walk<'a>(document: &'a [u8], take: impl FnMut(&'a [u8], Element<'a>)) -> bool {
    elements(document, |_, tail| memchr::memchr(0, tail).map(|end| (&tail[..end], end + 1)), take)
}

/// The one way through a document. `name` is asked, by its place among all, for what begins with a name: what the name
/// stands for, and how long it is with the 0 that ends it.
fn elements<'a, N>(
    document: &'a [u8],
    mut name: impl FnMut(usize, &'a [u8]) -> Option<(N, usize)>,
    mut take: impl FnMut(N, Element<'a>),
) -> bool {
    let mut rest = document.get(4..).unwrap_or_default();
    for place in 0.. {
        let Some((kind, tail)) = rest.split_first() else { break };
        if *kind == 0 {
            return true;
        }
        let Some((named, length)) = name(place, tail) else { break };
        let value = &tail[length..];
        let Some((element, length)) = read(*kind, value) else { break };
        let Some(after) = value.get(length..) else { break };
        take(named, element);
        rest = after;
    }
    false
}

/// The names that documents had so far, by their place: those of one program have the same ones in the same order, and a name
/// met again where it was is not looked up.
#[derive(Debug, Default)]
pub struct Layout {
    /// Each with the 0 that ends it, and the slot that its value goes to.
    names: Vec<(Vec<u8>, Option<usize>)>,
}

/// Documents of more fields than this are looked up from there on.
const PLACES: usize = 64;

impl Layout {
    /// Calls `take` with the slot and value of each top-level element whose name has one. False when the document is cut
    /// short.
    pub fn walk<'a>(
        &mut self,
        document: &'a [u8],
        slot: impl Fn(&[u8]) -> Option<usize>,
        mut take: impl FnMut(usize, Element<'a>),
    ) -> bool {
        let name = |place: usize, tail: &'a [u8]| {
            if let Some((name, wanted)) = self.names.get(place)
                && tail.starts_with(name)
            {
                return Some((*wanted, name.len()));
            }
            let end = memchr::memchr(0, tail)?;
            let wanted = slot(&tail[..end]);
            self.learn(place, &tail[..=end], wanted);
            Some((wanted, end + 1))
        };
        elements(document, name, |wanted, element| {
            if let Some(wanted) = wanted {
                take(wanted, element);
            }
        })
    }

    fn learn(&mut self, place: usize, name: &[u8], slot: Option<usize>) {
        if let Some(known) = self.names.get_mut(place) {
            known.0.clear();
            known.0.extend_from_slice(name);
            known.1 = slot;
        } else if place < PLACES {
            self.names.push((name.to_vec(), slot));
        }
    }
}

/// The value at the end of a way through nested documents.
#[must_use]
pub fn inside<'a>(element: Element<'a>, steps: &[String]) -> Element<'a> {
    let Some((step, rest)) = steps.split_first() else { return element };
    let Element::Document(document) = element else { return Element::Missing };
    let mut found = Element::Missing;
    walk(document, |name, element| {
        if name == step.as_bytes() {
            found = element;
        }
    });
    inside(found, rest)
}

fn read(kind: u8, value: &[u8]) -> Option<(Element<'_>, usize)> {
    let length = || value.first_chunk().map(|bytes| usize::try_from(i32::from_le_bytes(*bytes)).unwrap_or(usize::MAX));
    let eight = || value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes));
    Some(match kind {
        0x02 => {
            let length = length()?;
            (Element::Text(value.get(4..4 + length.checked_sub(1)?)?), length.checked_add(4)?)
        }
        0x07 => (Element::ObjectId(value.first_chunk()?), 12),
        0x09 => (Element::Date(eight()?), 8),
        0x0a | 0x06 => (Element::Null, 0),
        0x10 => (Element::Integer(i64::from(i32::from_le_bytes(*value.first_chunk()?))), 4),
        0x12 => (Element::Integer(eight()?), 8),
        0x01 => (Element::Double(f64::from_bits(u64::from_le_bytes(*value.first_chunk()?))), 8),
        0x03 => (Element::Document(value.get(..length()?)?), length()?),
        0x04 => (Element::Other, length()?),
        0x05 => (Element::Other, length()?.checked_add(5)?),
        0x08 => (Element::Bool(*value.first()? != 0), 1),
        0x0b => {
            let first = memchr::memchr(0, value)?;
            (Element::Other, first + 2 + memchr::memchr(0, &value[first + 1..])?)
        }
        0x0c => (Element::Other, length()?.checked_add(16)?),
        0x0d | 0x0e => (Element::Other, length()?.checked_add(4)?),
        0x0f => (Element::Other, length()?),
        0x11 => (Element::Other, 8),
        0x13 => (Element::Decimal(value.first_chunk()?), 16),
        0x7f | 0xff => (Element::Other, 0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_layout_finds_what_a_walk_finds(documents in prop::collection::vec(
            prop::collection::vec(("[a-c]{0,2}", any::<i32>()), 0..80), 1..6), cut in 0..40_usize
        ) {
            let names = ["a", "bc", ""];
            let slot = |name: &[u8]| names.iter().position(|known| known.as_bytes() == name);
            let mut layout = Layout::default();
            for fields in documents {
                let mut document = vec![0; 4];
                for (name, value) in &fields {
                    document.push(0x10);
                    document.extend_from_slice(name.as_bytes());
                    document.push(0);
                    document.extend_from_slice(&value.to_le_bytes());
                }
                document.push(0);
                document.truncate(document.len().saturating_sub(cut).max(cut.min(document.len())));
                let (mut wanted, mut found) = (Vec::new(), Vec::new());
                let whole = walk(&document, |name, element| {
                    if let Some(slot) = slot(name) {
                        wanted.push((slot, element));
                    }
                });
                prop_assert_eq!(layout.walk(&document, slot, |slot, element| found.push((slot, element))), whole);
                prop_assert_eq!(wanted, found);
            }
        }
    }
}
