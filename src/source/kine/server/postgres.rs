//! `PostgreSQL`.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, Row, Socket};
use tokio_stream::StreamExt as _;

use super::{Parts, Place, Raw, Security, Target, is_tls, said, words};
use crate::source::DatastoreError;

/// One moment is seen, nothing can be written, and rows that a policy would hide are an error.
/// Sorting is avoided: it would leave values in temporary files of the server.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL row_security = off; SET LOCAL enable_sort = off";

/// A connection.
pub(super) struct Connection {
    client: Client,
    task: Task,
}

/// What sends and receives. It ends with whoever asks: otherwise it would receive what is left of
/// an answer.
struct Task(JoinHandle<()>);

impl Task {
    async fn ended(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Self, DatastoreError> {
        let mut config = Config::new();
        config.user(&target.user).dbname(&target.address.database).application_name("atrest");
        match &target.address.place {
            Place::Tcp(host, port) => config.host(host).port(*port),
            Place::Unix(dir, port) => config.host_path(dir).port(*port),
        };
        if let Some(password) = &target.password {
            config.password(password.as_bytes());
        }
        if let Some(path) = &target.address.search_path {
            config.options(format!(
                "-c search_path={}",
                path.replace('\\', "\\\\").replace(' ', "\\ ")
            ));
        }
        config.ssl_mode(match target.security {
            Security::Plain => SslMode::Disable,
            Security::Preferred => SslMode::Prefer,
            Security::Unverified | Security::Authority | Security::Full => SslMode::Require,
        });
        let opened = if target.security == Security::Plain {
            open(&config, NoTls).await
        } else {
            let files = target.files().config(target.verify())?;
            open(&config, Tls(Arc::new(files))).await
        };
        opened.map_err(|e| told(target, &e))
    }

    pub async fn begin(&mut self) -> Result<(), Error> {
        self.client.batch_execute(BEGIN).await
    }

    pub async fn end(&mut self) -> Result<(), Error> {
        self.client.batch_execute("ROLLBACK").await
    }

    /// Says goodbye, so that the server has nothing to write into its log.
    pub async fn close(self) {
        let Self { client, task } = self;
        drop(client);
        task.ended().await;
    }

    pub async fn stream(&mut self, sql: &str, mut parts: Parts<'_>) -> Result<(), Error> {
        let none: [(i64, Type); 0] = [];
        let mut rows = pin!(self.client.query_typed_raw(sql, none).await?);
        while let Some(row) = rows.next().await {
            if !parts.add(raw(&row?)?).await {
                return Ok(());
            }
        }
        parts.finish().await;
        Ok(())
    }
}

async fn open<T>(config: &Config, tls: T) -> Result<Connection, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    // What ends the connection is told to whoever waits for an answer.
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Connection { client, task: Task(task) })
}

/// The bytes of a text.
struct Text<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Text<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn raw(row: &Row) -> Result<Raw, Error> {
    let number = |i| row.try_get::<_, Option<i64>>(i);
    // NULL is what kine reads as 0.
    let or_0 = |i| number(i).map(Option::unwrap_or_default);
    let bytes = |i| row.try_get::<_, Option<&[u8]>>(i).map(|b| b.unwrap_or_default().to_vec());
    Ok(Raw {
        id: number(0)?,
        name: row.try_get::<_, Option<Text<'_>>>(1)?.map(|text| text.0.to_vec()),
        created: or_0(2)?,
        deleted: or_0(3)?,
        create_revision: or_0(4)?,
        prev_revision: or_0(5)?,
        lease: or_0(6)?,
        value: bytes(7)?.into(),
        old_value: bytes(8)?.into(),
    })
}

/// What an error says about the server.
pub(super) fn told(target: &Target, e: &Error) -> DatastoreError {
    let (at, user) = (target.at.clone(), target.user.clone());
    let Some(db) = e.as_db_error() else {
        let source = e.source().map(ToString::to_string).unwrap_or_default();
        return match (e.to_string().as_str(), source.as_str()) {
            (_, "server does not support TLS") => DatastoreError::TlsNotOffered { at },
            (_, "password missing") => {
                DatastoreError::Refused { at, user, cause: said("it asks for a password") }
            }
            ("error performing TLS handshake", _) => DatastoreError::Tls { at, cause: words(e) },
            _ if is_tls(e) => DatastoreError::Tls { at, cause: words(e) },
            ("error connecting to server", _) => {
                DatastoreError::Unreachable { at, cause: said(&source) }
            }
            _ => DatastoreError::Failed { at, cause: words(e) },
        };
    };
    let cause = said(db.message());
    match db.code() {
        // libpq's server says so in words alone (postgres `src/backend/libpq/auth.c`).
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            && target.security == Security::Plain
            && db.message().contains("no encryption") =>
        {
            DatastoreError::TlsDemanded { at, cause }
        }
        code if *code == SqlState::INVALID_PASSWORD
            || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
        {
            DatastoreError::Refused { at, user, cause }
        }
        code if *code == SqlState::INVALID_CATALOG_NAME => DatastoreError::NoDatabase { at },
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            DatastoreError::Denied { at, user, cause }
        }
        code if *code == SqlState::UNDEFINED_TABLE => DatastoreError::NoTable { at },
        _ => DatastoreError::Failed { at, cause },
    }
}

/// Makes TLS connections.
struct Tls(Arc<ClientConfig>);

/// One to a host.
struct TlsTo(Arc<ClientConfig>, ServerName<'static>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Secured<S>;
    type TlsConnect = TlsTo;
    type Error = rustls_pki_types::InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<TlsTo, Self::Error> {
        Ok(TlsTo(Arc::clone(&self.0), ServerName::try_from(host.to_owned())?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for TlsTo {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = tokio_rustls::TlsConnector::from(self.0).connect(self.1, stream);
        Box::pin(async move { connecting.await.map(|stream| Secured(Box::new(stream))) })
    }
}

/// A connection inside TLS.
struct Secured<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
