//! What librdkafka tells us in callbacks: kept as facts (did authentication fail? was there a transport error since?),
//! never printed by itself, so that nothing is both logged and raised.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

/// Facts collected by one client's callbacks.
#[derive(Debug, Default)]
pub struct Context {
    authentication: AtomicBool,
    transport: AtomicU64,
    last: Mutex<Option<String>>,
    refused: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Context {
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

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                self.authentication.store(true, Ordering::Release);
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
