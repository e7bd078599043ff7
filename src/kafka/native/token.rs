//! A client's token for SASL/OAUTHBEARER, extensions among it.

use std::ffi::CString;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use crate::kafka::tokens::Token;

/// Gives a token to a client: connections made from now on, and those whose session ends, use it.
///
/// # Errors
/// librdkafka's code; its words would quote the token and are left aside.
pub fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), RDKafkaErrorCode> {
    let text = |text: &str| CString::new(text).map_err(|_| RDKafkaErrorCode::InvalidArgument);
    let (value, principal) = (text(&token.value)?, text(&token.principal)?);
    let pairs = token.extensions.iter().flat_map(|(name, value)| [name, value]);
    let extensions = pairs.map(|part| text(part)).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = extensions.iter().map(|part| part.as_ptr()).collect();
    let mut said = [0; 512];
    // SAFETY: the handle lives as long as `client`; every string outlives the call, which copies them.
    let code = unsafe {
        sys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.expiry_ms,
            principal.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            said.as_mut_ptr(),
            said.len(),
        )
    };
    if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(code.into()) }
}
