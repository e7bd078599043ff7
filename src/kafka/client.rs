//! Opening a client: a configuration becomes a consumer, a producer or an admin client that has its token and reports its
//! statistics where its side wants them.

use rdkafka::admin::AdminClient;
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};

use super::{Context, Properties, Role, settings, statistics, tokens};
use crate::error::Result;

/// What every kind of client is underneath.
pub trait Handle {
    /// The client underneath.
    fn handle(&self) -> &Client<Context>;
}

impl Handle for BaseConsumer<Context> {
    fn handle(&self) -> &Client<Context> {
        self.client()
    }
}

impl Handle for BaseProducer<Context> {
    fn handle(&self) -> &Client<Context> {
        self.client()
    }
}

impl Handle for AdminClient<Context> {
    fn handle(&self) -> &Client<Context> {
        self.inner()
    }
}

/// Opens a client of one side.
///
/// # Errors
/// `Config` for what librdkafka refuses; what the source of tokens says.
pub fn open<T>(mut config: ClientConfig, properties: &Properties, role: Role) -> Result<T>
where
    T: FromClientConfigAndContext<Context> + Handle,
{
    if properties.statistics.is_some() {
        config.set("statistics.interval.ms", statistics::INTERVAL_MS.to_string());
    }
    let client: T =
        config.create_with_context(Context::of(properties)).map_err(|error| settings::refused(role.name(), &error))?;
    tokens::give(client.handle())?;
    Ok(client)
}
