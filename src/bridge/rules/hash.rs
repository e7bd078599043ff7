//! Keyed hashes of field values. The key comes from a secret and leaves this module in no form but its id.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, Serializer};
use serde_json::Value;
use sha2::Sha256;

use super::table::{Table, wrong};
use crate::error::{Error, Result};

/// The functions, by the names that a definition gives them.
pub const FUNCTIONS: &[(&str, Function)] = &[("hmac-sha256", Function::HmacSha256), ("blake3", Function::Blake3)];

/// How a value is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Function {
    /// RFC 2104 over SHA-256.
    HmacSha256,
    /// BLAKE3's keyed mode.
    Blake3,
}

impl Function {
    /// The name that a definition gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

/// A secret key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// Reads `{env = "NAME"}`, `{file = "path"}` (one line end at its end is cut), or `{hex = "…"}`, which only the
    /// Python class `Secret` writes.
    ///
    /// # Errors
    /// `Config` when there is no such variable or file, or the key is empty.
    pub fn read(place: &str, value: Value) -> Result<Self> {
        if value.is_string() {
            return Err(Error::config(format!("{place}: a key is no plain text"))
                .hint("give {env = \"NAME\"}, {file = \"path\"}, or millpond.Secret in Python"));
        }
        let known: &[&str] = if value.get("hex").is_some() { &["hex"] } else { &["env", "file"] };
        let mut table = Table::open(place, value, known)?;
        let key = match (table.text("env")?, table.text("file")?, table.text("hex")?) {
            (Some(name), None, None) => {
                let found = std::env::var_os(&name).map(std::os::unix::ffi::OsStringExt::into_vec);
                found.ok_or_else(|| {
                    Error::config(format!("{}: there is no environment variable {name:?}", table.place("env")))
                        .hint("set it where the run happens")
                })?
            }
            (None, Some(path), None) => {
                let mut key = std::fs::read(&path).map_err(|error| {
                    Error::config(format!("{}: {path:?} cannot be read", table.place("file"))).because(error)
                })?;
                for end in [b'\n', b'\r'] {
                    if key.last() == Some(&end) {
                        key.pop();
                    }
                }
                key
            }
            (None, None, Some(hex)) => bytes(&hex).ok_or_else(|| wrong(place, "a secret"))?,
            _ => return Err(wrong(place, "one of env and file")),
        };
        if key.is_empty() {
            return Err(Error::config(format!("{place}: the key is empty")).hint("give 32 random bytes or more"));
        }
        Ok(Self(key))
    }

    /// Tells keys apart without telling them.
    fn id(&self) -> String {
        hex(&Keyed::new(Function::HmacSha256, self).digest(b"millpond key id")[..6])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.id())
    }
}

/// A function with its key in it.
#[derive(Clone)]
pub enum Keyed {
    HmacSha256(Box<Hmac<Sha256>>),
    Blake3(Box<[u8; 32]>),
}

impl Keyed {
    /// BLAKE3 takes keys of 32 bytes: one of another length is replaced by its own BLAKE3 hash, as HMAC does with long
    /// ones.
    ///
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn new(function: Function, key: &Key) -> Self {
        match function {
            Function::HmacSha256 => {
                Self::HmacSha256(Box::new(Hmac::new_from_slice(&key.0).expect("HMAC takes a key of any length")))
            }
            Function::Blake3 => {
                let exact: Result<[u8; 32], _> = key.0.as_slice().try_into();
                Self::Blake3(Box::new(exact.unwrap_or_else(|_| *blake3::hash(&key.0).as_bytes())))
            }
        }
    }

    /// The 32 bytes of `text`'s hash.
    #[must_use]
    pub fn digest(&self, text: &[u8]) -> [u8; 32] {
        match self {
            Self::HmacSha256(keyed) => {
                let mut mac = Hmac::clone(keyed);
                mac.update(text);
                mac.finalize().into_bytes().into()
            }
            Self::Blake3(key) => *blake3::keyed_hash(key, text).as_bytes(),
        }
    }

    /// Appends the hash of `text` as a JSON string of 64 hex digits.
    pub fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        out.push(b'"');
        for byte in self.digest(text) {
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        out.push(b'"');
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed(***)")
    }
}

fn digit(half: u8) -> u8 {
    b"0123456789abcdef"[usize::from(half)]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = hex.chars().map(|character| character.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(text: &[u8]) -> Key {
        Key::read("k", json!({"hex": hex(text)})).expect("a key")
    }

    #[test]
    fn published_vectors() {
        // RFC 4231, test case 2.
        let keyed = Keyed::new(Function::HmacSha256, &key(b"Jefe"));
        assert_eq!(
            hex(&keyed.digest(b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        // BLAKE3's test_vectors.json, keyed_hash of the empty input.
        let keyed = Keyed::new(Function::Blake3, &key(b"whats the Elvish word for friend"));
        assert_eq!(hex(&keyed.digest(b"")), "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26");
    }

    #[test]
    fn keys_show_in_nothing() {
        let secret = key(b"n0t-the-key");
        assert_eq!(format!("{secret:?}"), "Key(***)");
        let id = serde_json::to_string(&secret).expect("an id");
        assert_eq!(id.len(), 14);
        assert_ne!(id, serde_json::to_string(&key(b"another")).expect("an id"));
        for (value, wanted) in [
            (json!("n0t-the-key"), "plain text"),
            (json!({"env": "MILLPOND_NO_SUCH_VARIABLE"}), "MILLPOND_NO_SUCH_VARIABLE"),
            (json!({"file": "/nowhere/key"}), "/nowhere/key"),
            (json!({"fyle": "/nowhere/key"}), "k.fyle"),
            (json!({"env": "A", "file": "b"}), "one of"),
            (json!({}), "one of"),
            (json!({"hex": "n0t-the-key"}), "secret"),
            (json!({"hex": ""}), "empty"),
        ] {
            let error = Key::read("k", value).expect_err(wanted);
            assert!(error.what.contains(wanted) && !format!("{error:?}").contains("n0t-the-key"), "{error:?}");
        }
    }
}
