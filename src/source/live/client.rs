//! Requests off the hot path, made with etcd-client over this session's connections: tokens,
//! what members say about themselves, snapshots. Pages, watches and transactions are not: their
//! values are read in place, bounded in size, and wiped (`wire`, `txn`).

use std::sync::Arc;

use etcd_client::{Channel, Client, SnapshotStreaming};
use http::{HeaderValue, Request};
use tonic::metadata::AsciiMetadataValue;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::Credentials;
use super::session::{Answer, CallError, Refusal, Session};

impl From<etcd_client::Error> for CallError {
    fn from(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::from_status(status),
            etcd_client::Error::TransportError(e) => Self::from_transport(&e),
            other => Self::from_status(tonic::Status::unknown(other.to_string())),
        }
    }
}

impl Session {
    /// etcd-client over the connection to one member, with the session's token.
    async fn client(
        self: &Arc<Self>,
        index: usize,
        token: Option<AsciiMetadataValue>,
    ) -> Result<Client, CallError> {
        let token = match token.map(|t| HeaderValue::from_bytes(t.as_bytes())).transpose() {
            Ok(token) => token.map(|mut t| {
                t.set_sensitive(true);
                t
            }),
            Err(_) => return Err(CallError::Token),
        };
        let channel = self.channel(index).await?.map_err(tower::BoxError::from).map_request(
            move |mut request: Request<tonic::body::Body>| {
                if let Some(token) = &token {
                    request.headers_mut().insert("token", token.clone());
                }
                request
            },
        );
        let channel = Channel::Custom(BoxCloneSyncService::new(channel));
        Ok(Client::from_channel(channel, None).await?)
    }

    /// Asks one member for a token.
    pub(super) async fn authenticate(
        self: &Arc<Self>,
        index: usize,
        credentials: &Credentials,
    ) -> Result<String, CallError> {
        let mut client = self.client(index, None).await?.auth_client();
        let (user, password) = (credentials.user().to_owned(), credentials.password().to_owned());
        let response = self.in_time(client.authenticate(user, password)).await?;
        Ok(response.token().to_owned())
    }

    /// A request made with etcd-client, with the session's failover.
    pub(super) async fn ask<T, F>(
        self: &Arc<Self>,
        request: impl Fn(Client) -> F + Clone + Send + Sync + 'static,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let send = move |session: Arc<Self>, index, token| -> Answer<T> {
            let request = request.clone();
            Box::pin(async move {
                let client = session.client(index, token).await?;
                session.in_time(request(client)).await
            })
        };
        self.call_with(&send).await
    }

    /// Begins a snapshot of a member that answers.
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<SnapshotStreaming, Refusal> {
        self.ask(async |client: Client| client.maintenance_client().snapshot().await).await
    }
}
