//! Tokens for SASL/OAUTHBEARER: asked of one source for all clients of a side, kept while they are good, and given to a
//! client before librdkafka misses them.
//!
//! librdkafka's own refresh event is left aside: it reaches only who polls at that moment, which a client that is asked
//! questions does not, and rust-rdkafka passes no extensions on. Whoever works with a client calls [`give`] on its way.
//! No token is in any message (I6).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::client::Client;

use super::{Context, native};
use crate::error::{Error, Result};

/// A token that is renewed early is asked for again after this, while the old one is still good.
const AGAIN: Duration = Duration::from_secs(10);

/// One token, as a broker wants it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub value: String,
    /// Milliseconds since 1970.
    pub expiry_ms: i64,
    /// Whom the token names; brokers read it from the token itself.
    pub principal: String,
    /// SASL extensions (RFC 7628).
    pub extensions: Vec<(String, String)>,
}

type Ask = Box<dyn Fn() -> Result<Token> + Send + Sync>;

struct Kept {
    token: Arc<Token>,
    number: u64,
    renew_at_ms: i64,
}

/// The tokens of one side of a run.
pub struct Tokens {
    side: &'static str,
    ask: Ask,
    kept: Mutex<Option<Kept>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tokens of {}", self.side)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Tokens {
    /// Tokens that `ask` makes; `side` names the argument in messages.
    pub fn new(side: &'static str, ask: impl Fn() -> Result<Token> + Send + Sync + 'static) -> Self {
        Self { side, ask: Box::new(ask), kept: Mutex::new(None) }
    }

    /// The token that is good now, and its number. It is asked for again when four fifths of its time are over; should
    /// that fail, it serves until it expires.
    ///
    /// # Errors
    /// What the source says; `Config` for a token that has expired already.
    fn current(&self) -> Result<(u64, Arc<Token>)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.renew_at_ms) {
            return Ok((kept.number, Arc::clone(&kept.token)));
        }
        let asked = (self.ask)().and_then(|token| {
            if token.expiry_ms > now_ms() {
                return Ok(token);
            }
            Err(Error::config(format!("{}: the token that oauth_cb returned has expired already", self.side))
                .hint("the second value is seconds since 1970, such as time.time() + 3600"))
        });
        match (asked, kept.as_mut()) {
            (Ok(token), _) => {
                let number = kept.as_ref().map_or(0, |kept| kept.number) + 1;
                let token = Arc::new(token);
                let renew_at_ms = now + (token.expiry_ms - now) / 5 * 4;
                *kept = Some(Kept { token: Arc::clone(&token), number, renew_at_ms });
                Ok((number, token))
            }
            (Err(_), Some(old)) if old.token.expiry_ms > now => {
                let again = i64::try_from(AGAIN.as_millis()).unwrap_or(i64::MAX);
                old.renew_at_ms = (now + again).min(old.token.expiry_ms);
                Ok((old.number, Arc::clone(&old.token)))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Gives a client the token that is good now; next to nothing when it has it already, or needs none.
///
/// # Errors
/// What the source of tokens says; `Config` for a token that librdkafka does not take.
pub fn give(client: &Client<Context>) -> Result<()> {
    let Some(tokens) = client.context().tokens() else { return Ok(()) };
    let (number, token) = tokens.current()?;
    if !client.context().is_newer(number) {
        return Ok(());
    }
    native::set_token(client, &token).map_err(|_| {
        // librdkafka's words quote the token.
        Error::config(format!("{}: librdkafka does not take the token or its extensions", tokens.side))
            .hint("a token is printable ASCII; an extension's name has letters only and is not \"auth\"")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn token(expires_in_ms: i64) -> Token {
        Token { value: "s3cret".into(), expiry_ms: now_ms() + expires_in_ms, principal: "p".into(), extensions: vec![] }
    }

    #[test]
    fn a_good_token_is_asked_for_once() {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let tokens = Tokens::new("source", move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(token(60_000))
        });
        for _ in 0..3 {
            assert_eq!(tokens.current().expect("good").0, 1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_old_token_serves_until_it_expires() {
        let asked = AtomicU64::new(0);
        let tokens = Tokens::new("source", move || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(token(300)),
            _ => Err(Error::external("source: no answer")),
        });
        assert!(tokens.current().is_ok());
        std::thread::sleep(Duration::from_millis(260));
        assert_eq!(tokens.current().expect("still good").0, 1);
        std::thread::sleep(Duration::from_millis(60));
        assert!(tokens.current().is_err());
    }

    #[test]
    fn an_expired_token_is_refused_and_not_shown() {
        let tokens = Tokens::new("target", || Ok(token(-1)));
        let error = tokens.current().err().expect("expired");
        assert!(error.what.starts_with("target:") && error.hint.contains("time.time()"), "{error:?}");
        assert!(!format!("{error:?} {tokens:?}").contains("s3cret"));
    }
}
