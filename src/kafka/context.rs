//! What librdkafka tells us in callbacks: kept as facts (did authentication fail? was there a transport error since?),
//! never printed by itself, so that nothing is both logged and raised.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use super::Properties;
use super::statistics::Statistics;
use super::tokens::Tokens;

/// Facts collected by one client's callbacks.
#[derive(Debug, Default)]
pub struct Context {
    authentication: AtomicBool,
    tls: AtomicBool,
    transport: AtomicU64,
    tokens: Option<Arc<Tokens>>,
    /// The number of the token that the client has.
    token: AtomicU64,
    statistics: Option<Arc<Statistics>>,
    last: Mutex<Option<String>>,
    refused: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Context {
    /// The context of a client of one side.
    #[must_use]
    pub fn of(properties: &Properties) -> Self {
        let (tokens, statistics) = (properties.tokens.clone(), properties.statistics.clone());
        Self { tokens, statistics, ..Self::default() }
    }

    /// Where this client's tokens come from.
    #[must_use]
    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// Whether the client has an older token than this number's; it is taken to have this one from now on.
    #[must_use]
    pub fn is_newer(&self, number: u64) -> bool {
        self.token.swap(number, Ordering::AcqRel) != number
    }

    /// Whether a TLS handshake failed.
    #[must_use]
    pub fn tls_failed(&self) -> bool {
        self.tls.load(Ordering::Acquire)
    }

    /// Whether the broker refused our credentials.
    #[must_use]
    pub fn authentication_failed(&self) -> bool {
        self.authentication.load(Ordering::Acquire)
    }

    /// How many connections failed or were lost so far.
    #[must_use]
    pub fn transport_errors(&self) -> u64 {
        self.transport.load(Ordering::Acquire)
    }

    /// The last error told, in librdkafka's words.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first record that the broker refused, by this producer.
    #[must_use]
    pub fn refused(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn stats_raw(&self, told: &[u8]) {
        if let Some(statistics) = &self.statistics {
            statistics.take(told);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                self.authentication.store(true, Ordering::Release);
            }
            Some(RDKafkaErrorCode::SSL) => {
                self.tls.store(true, Ordering::Release);
                self.transport.fetch_add(1, Ordering::AcqRel);
            }
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
            ) => {
                self.transport.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, message)) = result {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.is_none()
                && let Some(code) = error.rdkafka_error_code()
            {
                *refused = Some((code, format!("topic {} partition {}", message.topic(), message.partition())));
            }
        }
    }
}
