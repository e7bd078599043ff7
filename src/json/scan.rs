//! Steps over one token at a time, by the grammar of RFC 8259; what the steps mean is [`super::tape`]'s.

use super::reason::{DeadLetter, Reason};

/// A place in a message.
pub(super) struct Scan<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// The reason for whatever the grammar does not know.
pub(super) fn invalid(at: usize, what: &str) -> DeadLetter {
    DeadLetter::new(Reason::InvalidJson, format!("{what} at byte {at}"))
}

impl Scan<'_> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over a string, both quotes included, and tells whether a backslash occurs.
    pub(super) fn string(&mut self) -> Result<bool, DeadLetter> {
        let opened = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain(&self.bytes[self.at..]);
            match self.peek() {
                None => return Err(invalid(opened, "an unfinished string")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            let digits = self.bytes.get(self.at + 1..self.at + 5).unwrap_or_default();
                            if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                                return Err(invalid(self.at, "a broken \\u escape"));
                            }
                            self.at += 5;
                        }
                        _ => return Err(invalid(self.at, "an unknown escape")),
                    }
                }
                Some(_) => return Err(invalid(self.at, "a raw control character in a string")),
            }
        }
    }

    pub(super) fn number(&mut self) -> Result<(), DeadLetter> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(invalid(start, "a broken number")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            let before = self.at;
            self.digits();
            if self.at == before {
                return Err(invalid(start, "a broken number"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            let before = self.at;
            self.digits();
            if self.at == before {
                return Err(invalid(start, "a broken number"));
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }
}

/// How many bytes from the start need no look: no quote, no backslash, no control character. Eight at a time.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
        let special =
            zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | (word.wrapping_sub(ONES * 0x20) & !word & HIGH);
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], 0..=0x1f | b'"' | b'\\') {
        at += 1;
    }
    at
}
