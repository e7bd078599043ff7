//! A consumer that is gone as soon as librdkafka has closed it.

use std::ops::Deref;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;

use super::Context;

/// How long the goodbye to a group that was never joined may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// `BaseConsumer` itself looks every tenth of a second whether it is closed; a short run has several of them.
pub struct Client(BaseConsumer<Context>);

impl Client {
    /// Makes the client; it connects by itself.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub fn new(config: &ClientConfig) -> KafkaResult<Self> {
        config.create_with_context(Context::default()).map(Self)
    }
}

impl Deref for Client {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        if self.close_queue().is_ok() {
            while !self.closed() && Instant::now() < deadline {
                self.poll(Duration::from_millis(1));
            }
        }
    }
}
