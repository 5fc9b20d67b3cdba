//! Tokens: asked for with user and password, and again when the server wants a new one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tonic::metadata::AsciiMetadataValue;

use super::Credentials;
use super::call::CallError;
use super::session::Session;
use crate::source::live::wire::said::Said;
use crate::source::live::wire::status;

/// Room for a token, bytes: a signed one has a few hundred.
const LIMIT: usize = 1 << 20;

/// Which token will do.
pub(super) enum Need {
    /// Any.
    Any,
    /// Not this one: the server refuses it. Somebody may have replaced it meanwhile.
    OtherThan(Option<AsciiMetadataValue>),
}

impl Session {
    /// Asks for a new token where the session has one; whether it did.
    pub async fn renew_token(self: &Arc<Self>, index: usize) -> Result<bool, CallError> {
        let token = self.token(index, Need::Any).await?;
        if token.is_none() {
            return Ok(false);
        }
        self.token(index, Need::OtherThan(token)).await?;
        Ok(true)
    }

    /// The token to send, asked for where there is none that will do.
    pub(super) async fn token(
        self: &Arc<Self>,
        index: usize,
        need: Need,
    ) -> Result<Option<AsciiMetadataValue>, CallError> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let usable = |token: &Option<AsciiMetadataValue>| match &need {
            Need::Any => token.is_some() || self.auth_off.load(Ordering::Relaxed),
            Need::OtherThan(refused) => token != refused,
        };
        {
            let token = self.token.read().await;
            if usable(&token) {
                return Ok(token.clone());
            }
        }
        let mut token = self.token.write().await;
        if usable(&token) {
            return Ok(token.clone());
        }
        match self.authenticate(index, credentials).await {
            Ok(mut value) => {
                value.set_sensitive(true);
                *token = Some(value);
                self.auth_off.store(false, Ordering::Relaxed);
            }
            // As etcdctl: credentials that nobody asks for do no harm.
            Err(CallError::Status(status)) if Said::of(status.message()) == Said::AuthOff => {
                self.auth_off.store(true, Ordering::Relaxed);
                *token = None;
            }
            Err(e) => return Err(e),
        }
        Ok(token.clone())
    }

    /// Asks one member for a token.
    async fn authenticate(
        self: &Arc<Self>,
        index: usize,
        credentials: &Credentials,
    ) -> Result<AsciiMetadataValue, CallError> {
        let body = status::authenticate(credentials.user(), credentials.password());
        let body = Bytes::from_owner(body);
        let answer = self.once(index, status::AUTHENTICATE, body, LIMIT, None).await?;
        let token = status::token(&answer).map_err(|_| CallError::Token)?;
        AsciiMetadataValue::try_from(token).map_err(|_| CallError::Token)
    }
}
