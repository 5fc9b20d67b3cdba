//! The certificate that a server shows, whoever signed it.

use std::sync::Arc;
use std::time::Duration;

use super::dial::{Speaks, dial};
use super::endpoint::{ListenAddress, MemberEndpoint};
use super::facts::Facts;
use super::tls::{Tls, TlsFiles, Verify};
use crate::chain::chain;

/// The certificate, in DER, that the server at `endpoint` shows within `timeout`. Its names and its
/// signature are not looked at, and nothing but the handshake is sent.
///
/// # Errors
/// When there is no TLS server, in words.
pub fn shown(endpoint: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let target = MemberEndpoint::parse(endpoint, true).map_err(|e| e.to_string())?;
    if matches!(target.place, ListenAddress::Unix(_)) {
        return Err("certificates of sockets are not looked at".to_owned());
    }
    let tls = Tls::of(TlsFiles::default(), Verify::Nothing).map_err(|e| chain(&e))?;
    let facts = Arc::new(Facts::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let dialled =
        runtime.block_on(dial(&target, Some(&tls), timeout, Arc::clone(&facts), Speaks::Http2));
    match (facts.get().certificate, dialled) {
        // Whether the server wants one of the client in return comes after it.
        (Some(leaf), _) => Ok(leaf.to_vec()),
        (None, Err(e)) => Err(chain(&e)),
        (None, Ok(_)) => Err("it showed no certificate".to_owned()),
    }
}
