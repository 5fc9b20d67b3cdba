//! kine on a server: its table in `PostgreSQL`, `MySQL` and `MariaDB`, read in transactions that
//! can write nothing, and its bucket in NATS `JetStream`.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `database` | a server of SQL |
//! | `jetstream` | NATS |
//! | `table` | the reads of the table, made of queries |
//! | `sql` | the queries |
//! | `connection`, `postgres`, `mysql` | connections, what a row is, what an error says |

mod connection;
mod database;
mod jetstream;
mod mysql;
mod postgres;
mod sql;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::Sender;
use zeroize::Zeroizing;

use self::database::Sql;
use self::jetstream::Bucket;
use super::database::{Body, Database};
use crate::source::datastore::{Address, Kind, Place, Security};
use crate::source::live::{Credentials, TlsFiles, Verify};
use crate::source::{Cause, DatastoreError, SourceError, Visit};
use crate::visible::visible;

/// Rows that are handed on together, at most.
const ROWS: usize = 256;
/// Bytes of values after which rows are handed on.
const BYTES: usize = 1 << 20;
/// Parts that may wait, received and not yet looked at.
const AHEAD: usize = 4;
/// How long a server that is no longer needed is waited for.
const GOODBYE: Duration = Duration::from_secs(1);
/// Most characters of a server's own words that are shown.
const SHOWN: usize = 400;

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it is, which database, and what the address says beside.
    pub address: Address,
    /// User and password, in place of the address's.
    pub credentials: Option<Credentials>,
    /// PEM bundle that the server is verified against, in place of the address's.
    pub cacert: Option<PathBuf>,
    /// PEM client certificate, in place of the address's.
    pub cert: Option<PathBuf>,
    /// PEM client key, in place of the address's.
    pub key: Option<PathBuf>,
    /// Accept any server certificate.
    pub insecure_skip_tls_verify: bool,
    /// How long connecting may take.
    pub dial_timeout: Duration,
    /// How long the server may send nothing while it is asked.
    pub silence: Duration,
}

/// What connections are made with.
struct Target {
    address: Address,
    /// What it is called.
    at: String,
    user: String,
    password: Option<Zeroizing<String>>,
    security: Security,
    cacert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    dial_timeout: Duration,
    silence: Duration,
}

impl Target {
    fn new(options: &ServerOptions) -> Result<Self, DatastoreError> {
        let ServerOptions { address, credentials, .. } = options;
        let (user, password) = match credentials {
            Some(c) => {
                let password = Zeroizing::new(c.password().to_owned());
                (Some(c.user().to_owned()), Some(password).filter(|p| !p.is_empty()))
            }
            None => (address.user.clone(), address.password.clone()),
        };
        // NATS may know nobody by name.
        let user = user.or_else(|| (address.kind == Kind::Nats).then(String::new));
        let why = "it names no user".to_owned();
        let pair = options.cert.is_some() || options.key.is_some();
        let mut target = Self {
            at: address.shown(),
            user: user.ok_or(DatastoreError::Address { why })?,
            password,
            security: Security::Plain,
            cacert: options.cacert.clone().or_else(|| address.cacert.clone()),
            // A certificate and its key go together.
            cert: if pair { options.cert.clone() } else { address.cert.clone() },
            key: if pair { options.key.clone() } else { address.key.clone() },
            dial_timeout: options.dial_timeout,
            silence: options.silence,
            address: address.clone(),
        };
        target.security = target.secured(options.insecure_skip_tls_verify);
        Ok(target)
    }

    /// What kine's drivers make of the address and the files (k3s-io/kine
    /// `pkg/drivers/pgsql/pgsql.go`, `pkg/drivers/mysql/mysql.go`: `prepareDSN`; lib/pq `ssl.go`).
    fn secured(&self, anybody: bool) -> Security {
        let files = self.has_files();
        let said = self.address.security;
        let security = match (self.address.kind, &self.address.place) {
            // Nobody else hears a socket.
            (_, Place::Unix(..)) => Security::Plain,
            // What is given replaces what the address says.
            (Kind::MySql | Kind::Nats, _) if files => Security::Full,
            (Kind::MySql, _) => said.unwrap_or(Security::Plain),
            // A server that demands TLS says so when it is reached.
            (Kind::Nats, _) => Security::Preferred,
            (Kind::Postgres, _) => match said {
                None if files => Security::Full,
                None => Security::Unverified,
                Some(Security::Unverified) if self.cacert.is_some() => Security::Authority,
                Some(said) => said,
            },
        };
        match security {
            Security::Authority | Security::Full if anybody => Security::Unverified,
            security => security,
        }
    }

    /// Of a server of SQL.
    fn dialect(&self) -> sql::Dialect {
        if self.address.kind == Kind::Postgres {
            sql::Dialect::Postgres
        } else {
            sql::Dialect::MySql
        }
    }

    fn has_files(&self) -> bool {
        self.cacert.is_some() || self.cert.is_some() || self.key.is_some()
    }

    fn files(&self) -> TlsFiles<'_> {
        TlsFiles {
            cacert: self.cacert.as_deref(),
            cert: self.cert.as_deref(),
            key: self.key.as_deref(),
        }
    }

    fn verify(&self) -> Verify {
        match self.security {
            Security::Full => Verify::Full,
            Security::Authority => Verify::Authority,
            Security::Plain | Security::Preferred | Security::Unverified => Verify::Nothing,
        }
    }

    fn lost(&self) -> DatastoreError {
        DatastoreError::Failed { at: self.at.clone(), cause: "the connection was lost".into() }
    }
}

/// A server's or driver's own words, safe to show.
fn said(text: &str) -> Cause {
    let text: String = text.chars().take(SHOWN).collect();
    visible(&text).into()
}

/// An error and what led to it, in one line, without what it may carry beside its words.
fn words(e: &dyn std::error::Error) -> Cause {
    said(&crate::chain::chain(e))
}

/// Whether TLS is what failed.
fn is_tls(e: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(e), |e| e.source()).any(|e| {
        let inner = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        e.is::<rustls::Error>()
            || inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
    })
}

/// A row as a server sent it; of columns that were not asked for, nothing.
#[derive(Clone, Default)]
struct Raw {
    id: Option<i64>,
    name: Option<Vec<u8>>,
    created: i64,
    deleted: i64,
    create_revision: i64,
    prev_revision: i64,
    lease: i64,
    value: Zeroizing<Vec<u8>>,
    old_value: Zeroizing<Vec<u8>>,
}

/// Hands rows on in parts.
struct Parts<'s> {
    send: &'s Sender<Vec<Raw>>,
    rows: Vec<Raw>,
    bytes: usize,
}

impl<'s> Parts<'s> {
    fn new(send: &'s Sender<Vec<Raw>>) -> Self {
        Self { send, rows: Vec::new(), bytes: 0 }
    }

    /// Whether anybody still wants rows.
    async fn add(&mut self, row: Raw) -> bool {
        self.bytes += row.value.len() + row.old_value.len();
        self.rows.push(row);
        if self.rows.len() < ROWS && self.bytes < BYTES {
            return true;
        }
        self.finish().await
    }

    async fn finish(&mut self) -> bool {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        rows.is_empty() || self.send.send(rows).await.is_ok()
    }
}

/// What sends and receives: one worker, while the caller's thread looks at what has arrived.
fn runtime() -> Result<Runtime, DatastoreError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("atrest-kine")
        .enable_all()
        .build()
        .map_err(DatastoreError::Runtime)
}

/// A server that has what kine wrote.
pub struct Server {
    kind: Kind,
    inner: Box<dyn Database>,
}

impl Server {
    /// Connects, and looks whether the table or bucket is there.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses the user, or has no such thing.
    pub fn connect(options: &ServerOptions) -> Result<Self, SourceError> {
        let kind = options.address.kind;
        let inner: Box<dyn Database> = match kind {
            Kind::Postgres | Kind::MySql => Box::new(Sql::connect(options)?),
            Kind::Nats => Box::new(Bucket::connect(options)?),
        };
        Ok(Self { kind, inner })
    }

    /// The server's protocol.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl Database for Server {
    fn name(&self) -> PathBuf {
        self.inner.name()
    }

    fn transaction(&mut self, body: &mut Body<'_>) -> Result<Visit, SourceError> {
        self.inner.transaction(body)
    }

    fn again(&self) -> Result<Box<dyn Database>, SourceError> {
        self.inner.again()
    }
}
