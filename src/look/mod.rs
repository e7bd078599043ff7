//! What stands in the stores, for people to look at: which jobs a cluster keeps, and dead letters in a topic or in a
//! collection. Reads only, joins no group, and is bounded: in letters, in bytes and in time. Reports are looked at in
//! [`crate::aggregate::history`].
//!
//! | module | owns |
//! |---|---|
//! | [`letters`] | jobs of a cluster, dead letters of a bridge |
//! | [`stored`] | collections of a database, dead letters of a sink |

pub mod letters;
pub mod stored;

use std::collections::BTreeMap;

use serde::Serialize;

/// Letters that are told singly.
const TOLD: usize = 50;
/// Bytes of a key or value that are shown.
const SHOWN: usize = 8 << 10;

/// Dead letters: how many by reason, and some of them, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Letters {
    /// Where they are kept.
    pub place: String,
    /// All that are kept, as far as that can be told without reading them.
    pub held: i64,
    /// So many were looked at.
    pub looked_at: u64,
    /// Of those looked at.
    pub by_reason: BTreeMap<String, u64>,
    pub letters: Vec<Told>,
}

/// One dead letter.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Told {
    /// Names it where it is kept.
    pub id: String,
    pub reason: String,
    pub detail: String,
    /// Where its event was read.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The event's own time.
    pub timestamp_ms: Option<i64>,
    /// Of the value.
    pub bytes: i64,
    /// Of a letter that was asked for by itself.
    pub key: Option<Shown>,
    pub value: Option<Shown>,
}

/// Raw bytes as a person can read them: the first of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Shown {
    /// Text where the bytes are UTF-8, otherwise hexadecimal.
    pub text: String,
    pub hexadecimal: bool,
    /// How many there are.
    pub bytes: usize,
    /// Whether more follow.
    pub cut: bool,
}

impl Shown {
    /// Shows the beginning of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let cut = bytes.len() > SHOWN;
        let head = &bytes[..bytes.len().min(SHOWN)];
        let text = match std::str::from_utf8(head) {
            Ok(text) => Some(text),
            // A character that the cut went through.
            Err(error) if cut && error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok(),
            Err(_) => None,
        };
        let hexadecimal = text.is_none();
        let text = text.map_or_else(
            || {
                let pairs: Vec<String> = head[..head.len().min(SHOWN / 4)].iter().map(|b| format!("{b:02x}")).collect();
                pairs.join(" ")
            },
            str::to_owned,
        );
        Self { text, hexadecimal, bytes: bytes.len(), cut: cut || (hexadecimal && bytes.len() > SHOWN / 4) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_or_as_hexadecimal_and_never_whole_when_they_are_many() {
        assert_eq!(Shown::of(b"a\xc3\xa4").text, "aä");
        let raw = Shown::of(b"\xff\x00a");
        assert_eq!((raw.text.as_str(), raw.hexadecimal, raw.cut), ("ff 00 61", true, false));
        let mut long = vec![b'x'; SHOWN - 1];
        long.extend("ä".as_bytes());
        let cut = Shown::of(&long);
        assert_eq!((cut.text.len(), cut.hexadecimal, cut.cut, cut.bytes), (SHOWN - 1, false, true, SHOWN + 1));
        assert!(Shown::of(&vec![0xff; SHOWN]).cut);
    }
}
