//! A consumer that is gone as soon as librdkafka has closed it.

use std::ops::Deref;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;

use super::{Context, Properties, Role, client};
use crate::error::Result;

/// How long the goodbye to a group that was never joined may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// `BaseConsumer` itself looks every tenth of a second whether it is closed; a short run has several of them.
pub struct PromptConsumer(BaseConsumer<Context>);

impl PromptConsumer {
    /// Makes the consumer; it connects by itself.
    ///
    /// # Errors
    /// As [`client::open`].
    pub fn open(config: ClientConfig, properties: &Properties, role: Role) -> Result<Self> {
        client::open(config, properties, role).map(Self)
    }
}

impl Deref for PromptConsumer {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for PromptConsumer {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        if self.close_queue().is_ok() {
            while !self.closed() && Instant::now() < deadline {
                self.poll(Duration::from_millis(1));
            }
        }
    }
}
