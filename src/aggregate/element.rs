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
pub fn walk<'a>(document: &'a [u8], mut take: impl FnMut(&'a [u8], Element<'a>)) -> bool {
    let mut rest = document.get(4..).unwrap_or_default();
    while let Some((kind, tail)) = rest.split_first() {
        if *kind == 0 {
            return true;
        }
        let Some(end) = memchr::memchr(0, tail) else { return false };
        let (name, value) = (&tail[..end], &tail[end + 1..]);
        let Some((element, length)) = read(*kind, value) else { return false };
        let Some(after) = value.get(length..) else { return false };
        take(name, element);
        rest = after;
    }
    false
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
