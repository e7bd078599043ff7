//! One side's librdkafka properties, and what all clients of that side share beside them: where tokens come from and
//! where statistics go. Values never appear in a message or in `Debug` (I6).

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use super::statistics::Statistics;
use super::tokens::Tokens;

/// librdkafka properties, as users write them.
#[derive(Clone, Default)]
pub struct Properties {
    named: BTreeMap<String, String>,
    /// Where tokens for SASL/OAUTHBEARER come from.
    pub tokens: Option<Arc<Tokens>>,
    /// Where the statistics of this side's clients are added up; `None`: none are asked for.
    pub statistics: Option<Arc<Statistics>>,
}

impl Properties {
    /// Whether TLS is spoken, by `security.protocol`.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.protocol().ends_with("ssl")
    }

    /// Whether credentials are sent, by `security.protocol`.
    #[must_use]
    pub fn sasl(&self) -> bool {
        self.protocol().starts_with("sasl_")
    }

    /// `sasl.mechanism`, or its other name.
    #[must_use]
    pub fn mechanism(&self) -> Option<&str> {
        self.named.get("sasl.mechanism").or_else(|| self.named.get("sasl.mechanisms")).map(String::as_str)
    }

    /// The servers to begin with.
    #[must_use]
    pub fn servers(&self) -> &str {
        let given = self.named.get("bootstrap.servers").or_else(|| self.named.get("metadata.broker.list"));
        given.map_or("", String::as_str)
    }

    fn protocol(&self) -> String {
        self.named.get("security.protocol").map_or_else(|| "plaintext".into(), |name| name.to_ascii_lowercase())
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.named
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.named.keys()).finish()
    }
}

impl From<BTreeMap<String, String>> for Properties {
    fn from(named: BTreeMap<String, String>) -> Self {
        Self { named, ..Self::default() }
    }
}

impl<const N: usize> From<[(String, String); N]> for Properties {
    fn from(named: [(String, String); N]) -> Self {
        BTreeMap::from(named).into()
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(named: I) -> Self {
        named.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = (&'a String, &'a String);
    type IntoIter = std::collections::btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.named.iter()
    }
}
