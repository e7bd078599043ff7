//! One pass over a message: UTF-8, grammar, depth, duplicate keys. What passes is left as a flat list of tokens.
//!
//! The checks have a fixed order over the whole message, not the order of the text: a message with both a duplicate key
//! and a syntax error is `invalid_json`.

use hashbrown::HashSet;

use super::reason::{DeadLetter, Reason};
use super::scan::{Scan, invalid};
use super::text;

/// Objects and arrays may nest this deep, the top one counted.
pub const MAX_DEPTH: usize = 100;
/// Objects of more keys than this are searched for duplicates with a hash set.
const FEW_KEYS: usize = 64;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    /// A member's name; its value is the next token.
    Key,
    String,
    Number,
    True,
    False,
    Null,
}

/// A value or a member's name. For strings and keys `start..end` is the text between the quotes; for numbers the
/// spelling.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    pub kind: Kind,
    /// Strings and keys: a backslash occurs.
    pub escaped: bool,
    pub start: u32,
    pub end: u32,
    /// Containers: the index of the token after the last one inside. Others: the next index.
    pub next: u32,
}

/// The tokens of one message; kept between messages so that none allocates.
#[derive(Debug, Default)]
pub struct Tape {
    pub tokens: Vec<Token>,
    open: Vec<(bool, u32)>,
}

impl Tape {
    /// Checks `bytes` and fills [`Self::tokens`]; the first token is the top object.
    ///
    /// # Errors
    /// The first reason that applies of `empty`, `invalid_utf8`, `invalid_json`, `not_object`, `too_deep`,
    /// `duplicate_key`.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), DeadLetter> {
        self.tokens.clear();
        self.open.clear();
        if bytes.is_empty() {
            return Err(DeadLetter::new(Reason::Empty, "zero bytes"));
        }
        if simdutf8::basic::from_utf8(bytes).is_err() {
            let at = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), |_| 0);
            return Err(DeadLetter::new(Reason::InvalidUtf8, format!("at byte {at}")));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(DeadLetter::new(Reason::TooLarge, format!("{} bytes", bytes.len())));
        }
        let deepest = self.grammar(bytes)?;
        if self.tokens.first().is_none_or(|top| top.kind != Kind::Object) {
            return Err(DeadLetter::new(Reason::NotObject, "the top value is no object"));
        }
        if deepest > MAX_DEPTH {
            return Err(DeadLetter::new(Reason::TooDeep, format!("{deepest} levels, {MAX_DEPTH} are kept")));
        }
        self.duplicates(bytes)
    }

    /// Checks the grammar and returns the depth. Iterative: the depth of a message is no concern of the stack.
    fn grammar(&mut self, bytes: &[u8]) -> Result<usize, DeadLetter> {
        let mut scan = Scan { bytes, at: 0 };
        let mut deepest = 0;
        loop {
            // A value is due.
            scan.blank();
            let start = scan.at;
            match scan.peek() {
                Some(open @ (b'{' | b'[')) => {
                    scan.at += 1;
                    let object = open == b'{';
                    let index = self.push(if object { Kind::Object } else { Kind::Array }, start, start, false);
                    self.open.push((object, index));
                    deepest = deepest.max(self.open.len());
                    scan.blank();
                    if scan.peek() == Some(if object { b'}' } else { b']' }) {
                        scan.at += 1;
                        self.close(scan.at);
                    } else {
                        if object {
                            self.key(&mut scan)?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    let escaped = scan.string()?;
                    self.push(Kind::String, start + 1, scan.at - 1, escaped);
                }
                Some(b't') => self.word(&mut scan, b"true", Kind::True)?,
                Some(b'f') => self.word(&mut scan, b"false", Kind::False)?,
                Some(b'n') => self.word(&mut scan, b"null", Kind::Null)?,
                Some(b'-' | b'0'..=b'9') => {
                    scan.number()?;
                    self.push(Kind::Number, start, scan.at, false);
                }
                _ => return Err(invalid(start, "no value")),
            }
            // A value is done: what follows it?
            loop {
                scan.blank();
                let Some((object, _)) = self.open.last().copied() else {
                    return if scan.at == bytes.len() {
                        Ok(deepest)
                    } else {
                        Err(invalid(scan.at, "text after the value"))
                    };
                };
                match scan.peek() {
                    Some(b',') => {
                        scan.at += 1;
                        if object {
                            scan.blank();
                            self.key(&mut scan)?;
                        }
                        break;
                    }
                    Some(b'}') if object => {
                        scan.at += 1;
                        self.close(scan.at);
                    }
                    Some(b']') if !object => {
                        scan.at += 1;
                        self.close(scan.at);
                    }
                    _ => return Err(invalid(scan.at, "neither a comma nor the end of the object or array")),
                }
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)] // `read` refused messages over u32
    fn push(&mut self, kind: Kind, start: usize, end: usize, escaped: bool) -> u32 {
        let index = self.tokens.len() as u32;
        self.tokens.push(Token { kind, escaped, start: start as u32, end: end as u32, next: index + 1 });
        index
    }

    #[allow(clippy::cast_possible_truncation)]
    fn close(&mut self, at: usize) {
        let next = self.tokens.len() as u32;
        if let Some((_, index)) = self.open.pop() {
            let token = &mut self.tokens[index as usize];
            token.next = next;
            token.end = at as u32;
        }
    }

    fn key(&mut self, scan: &mut Scan<'_>) -> Result<(), DeadLetter> {
        let start = scan.at;
        if scan.peek() != Some(b'"') {
            return Err(invalid(start, "no member name"));
        }
        let escaped = scan.string()?;
        self.push(Kind::Key, start + 1, scan.at - 1, escaped);
        scan.blank();
        if scan.peek() != Some(b':') {
            return Err(invalid(scan.at, "no colon after a member name"));
        }
        scan.at += 1;
        Ok(())
    }

    fn word(&mut self, scan: &mut Scan<'_>, word: &[u8], kind: Kind) -> Result<(), DeadLetter> {
        let start = scan.at;
        if !scan.bytes[start..].starts_with(word) {
            return Err(invalid(start, "no value"));
        }
        scan.at += word.len();
        self.push(kind, start, scan.at, false);
        Ok(())
    }

    fn duplicates(&self, bytes: &[u8]) -> Result<(), DeadLetter> {
        for (index, token) in self.tokens.iter().enumerate() {
            if token.kind == Kind::Object
                && let Some(key) = self.repeated(index, bytes)
            {
                let name = String::from_utf8_lossy(key).chars().take(60).collect::<String>();
                return Err(DeadLetter::new(Reason::DuplicateKey, format!("member {name:?} occurs twice")));
            }
        }
        Ok(())
    }

    /// The names of an object's members, in their order.
    fn keys(&self, object: usize) -> impl Iterator<Item = Token> {
        let (mut member, end) = (object + 1, self.tokens[object].next as usize);
        std::iter::from_fn(move || {
            let key = (member < end).then(|| self.tokens[member])?;
            member = self.tokens[member + 1].next as usize;
            Some(key)
        })
    }

    fn repeated<'a>(&self, object: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
        // Only keys of one trace are compared: most objects need no comparison at all, and no memory.
        let mut met = [0_u64; 16];
        for (i, key) in self.keys(object).enumerate() {
            if key.escaped || i == FEW_KEYS {
                return self.repeated_of_many(object, bytes);
            }
            let name = key.text(bytes);
            let trace = trace(name);
            let (word, bit) = (trace / 64, 1 << (trace % 64));
            if met[word] & bit != 0 && self.keys(object).take(i).any(|earlier| earlier.text(bytes) == name) {
                return Some(name);
            }
            met[word] |= bit;
        }
        None
    }

    fn repeated_of_many<'a>(&self, object: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut names = self.keys(object).map(|key| key.text(bytes));
        if self.keys(object).any(|key| key.escaped) {
            let mut seen = HashSet::new();
            return names.find(|name| !seen.insert(text::code_units(name)));
        }
        let mut seen = HashSet::new();
        names.find(|name| !seen.insert(*name))
    }
}

/// A small number that equal keys share and most others do not.
fn trace(key: &[u8]) -> usize {
    let at = |i: usize| key.get(i).map_or(0, |byte| usize::from(*byte));
    let middle = key.len() / 2;
    (key.len() * 37 + at(0) * 5 + at(middle) * 11 + at(key.len().wrapping_sub(1)) * 23 + at(middle + 1) * 7) % 1_024
}

impl Token {
    /// The token's text in the message it was read from.
    #[must_use]
    pub fn text<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &[u8]) -> Option<Reason> {
        Tape::default().read(text).err().map(|letter| letter.reason)
    }

    #[test]
    fn grammar_shapes() {
        for good in [
            r"{}",
            r#" {"a" : [1, -0.5e+3, true, false, null, "\u00e9\n"] } "#,
            r#"{"":{"":[]}}"#,
            r#"{"a":0}"#,
            "{\"a\":\"\u{7f}\u{e9}\"}",
            r#"{"a":1E400}"#,
            r#"{"a":"\ud800"}"#,
        ] {
            assert_eq!(reason(good.as_bytes()), None, "{good}");
        }
        for bad in [
            " ",
            "{",
            "}",
            "{]",
            "[}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r"{,}",
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":-}"#,
            r#"{"a":1e}"#,
            r#"{"a":tru}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":1}x"#,
            r#"{'a':1}"#,
            r#"{a:1}"#,
            r#"{"a":NaN}"#,
            "[1,]",
            "\u{feff}{}",
            r#"{"a":1"#,
            r#"{"a":"#,
            "{\"a\":\"\0\"}",
            r#"{"a":1}{}"#,
            "[1 2]",
        ] {
            assert_eq!(reason(bad.as_bytes()), Some(Reason::InvalidJson), "{bad}");
        }
        assert_eq!(reason(b""), Some(Reason::Empty));
        assert_eq!(reason(b"{\"a\":\"\xff\"}"), Some(Reason::InvalidUtf8));
        assert_eq!(reason(b"[]"), Some(Reason::NotObject));
        assert_eq!(reason(b"1"), Some(Reason::NotObject));
    }

    #[test]
    fn depth_is_counted_and_never_recursed() {
        let nested = |n: usize| format!("{}{}{}", r#"{"a":"#.repeat(n), "1", "}".repeat(n));
        assert_eq!(reason(nested(100).as_bytes()), None);
        assert_eq!(reason(nested(101).as_bytes()), Some(Reason::TooDeep));
        assert_eq!(reason("[".repeat(500_000).as_bytes()), Some(Reason::InvalidJson));
        assert_eq!(reason(nested(200_000).as_bytes()), Some(Reason::TooDeep));
    }

    #[test]
    fn duplicates_are_judged_after_unescaping_and_after_grammar() {
        assert_eq!(reason(br#"{"a":1,"\u0061":2}"#), Some(Reason::DuplicateKey));
        assert_eq!(reason(br#"{"b":{"a":1,"a":2}}"#), Some(Reason::DuplicateKey));
        assert_eq!(reason(br#"{"a":1,"A":2}"#), None);
        assert_eq!(reason(br#"{"a":1,"a":2"#), Some(Reason::InvalidJson));
        let many: String = (0..500).map(|i| format!("\"k{i}\":{i},")).collect();
        assert_eq!(reason(format!("{{{many}\"z\":1}}").as_bytes()), None);
        assert_eq!(reason(format!("{{{many}\"k250\":1}}").as_bytes()), Some(Reason::DuplicateKey));
    }

    proptest::proptest! {
        #[test]
        fn accepts_what_serde_json_accepts(text in r#"[\{\}\[\]",:0-9eE+\-.a-c\\untrfls ]{0,24}"#) {
            let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            let ours = reason(text.as_bytes());
            // serde_json keeps the last of two equal keys, refuses huge exponents and lone surrogates.
            if object.is_ok() {
                proptest::prop_assert!(ours.is_none() || ours == Some(Reason::DuplicateKey), "{text}: {ours:?}");
            }
            if ours.is_none() && !text.contains(['e', 'E', 'u']) {
                proptest::prop_assert!(object.is_ok(), "{text}");
            }
        }
    }
}
