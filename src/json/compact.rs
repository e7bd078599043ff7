//! A value written again: no blanks, minimal escapes, members in their order, numbers as they are spelled.

use super::reason::DeadLetter;
use super::tape::{Kind, Tape, Token};
use super::text;

/// Appends a string (or a member's name) with its quotes.
///
/// # Errors
/// `lone_surrogate`.
pub fn string(token: &Token, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    if !token.escaped {
        // With the quotes around it.
        out.extend_from_slice(&message[token.start as usize - 1..=token.end as usize]);
        return Ok(());
    }
    let raw = token.text(message);
    let mut decoded = Vec::with_capacity(raw.len());
    text::decode(raw, &mut decoded)?;
    text::encode(&decoded, out);
    Ok(())
}

/// Appends the value whose first token is `at`. Without recursion, as it was read.
///
/// # Errors
/// `lone_surrogate`, anywhere in it.
pub fn value(tape: &Tape, message: &[u8], at: usize, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let end = tape.tokens[at].next as usize;
    let mut open: Vec<(usize, u8)> = Vec::new();
    let (mut at, mut comma) = (at, false);
    loop {
        while let Some((stop, bracket)) = open.last().copied()
            && stop == at
        {
            open.pop();
            out.push(bracket);
            comma = true;
        }
        if at >= end {
            return Ok(());
        }
        if comma {
            out.push(b',');
        }
        let token = tape.tokens[at];
        comma = true;
        match token.kind {
            Kind::Object | Kind::Array => {
                let [first, last] = if token.kind == Kind::Object { *b"{}" } else { *b"[]" };
                out.push(first);
                open.push((token.next as usize, last));
                comma = false;
            }
            Kind::Key => {
                string(&token, message, out)?;
                out.push(b':');
                comma = false;
            }
            Kind::String => string(&token, message, out)?,
            Kind::Number | Kind::True | Kind::False | Kind::Null => out.extend_from_slice(token.text(message)),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Reason;

    fn rewritten(json: &str) -> Result<String, Reason> {
        let mut tape = Tape::default();
        tape.read(json.as_bytes()).map_err(|letter| letter.reason)?;
        let mut out = Vec::new();
        value(&tape, json.as_bytes(), 0, &mut out).map_err(|letter| letter.reason)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn compact_and_otherwise_the_same() {
        let json =
            "{ \"a\" : [ ] , \"\\u0062\":[1.50, -0,{},[[true ]],\"\\u00e9\\/\"],\n\"c\":{\"d\":null, \"\":false}}";
        let wanted = r#"{"a":[],"b":[1.50,-0,{},[[true]],"é/"],"c":{"d":null,"":false}}"#;
        assert_eq!(rewritten(json).as_deref(), Ok(wanted));
        assert_eq!(rewritten(r#"{"a":[{"\ud800":1}]}"#), Err(Reason::LoneSurrogate));
    }
}
