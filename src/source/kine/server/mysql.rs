//! `MySQL` and `MariaDB`.

use mysql_async::prelude::Queryable as _;
use mysql_async::{
    ClientIdentity, Conn, DriverError, Error, IoError, OptsBuilder, Row, ServerError, SslOpts,
    Value,
};

use super::{Parts, Place, Raw, Security, Target, is_tls, said, words};
use crate::source::DatastoreError;
use crate::source::live::Verify;

/// Most bytes of one packet: a row's two values, each a `MEDIUMBLOB`.
const PACKET: usize = 64 << 20;

/// A connection.
pub(super) struct Connection(Box<Conn>);

impl Connection {
    pub async fn open(target: &Target) -> Result<Self, DatastoreError> {
        let opts = OptsBuilder::default()
            .user(Some(&target.user))
            .pass(target.password.as_ref().map(|p| p.as_str()))
            .db_name(Some(&target.address.database))
            // The server it was told to, by the way it was told to.
            .prefer_socket(false)
            .max_allowed_packet(Some(PACKET));
        let opts = match &target.address.place {
            Place::Tcp(host, port) => opts.ip_or_hostname(host).tcp_port(*port),
            Place::Unix(path, _) => opts.socket(Some(path.to_string_lossy())),
        };
        let secured = if target.security == Security::Plain { None } else { Some(tls(target)?) };
        let opened = Conn::new(opts.clone().ssl_opts(secured)).await;
        let opened = match opened {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer))
                if target.security == Security::Preferred =>
            {
                Conn::new(opts).await
            }
            opened => opened,
        };
        opened.map(|c| Self(Box::new(c))).map_err(|e| told(target, &e))
    }

    /// One moment is seen, and nothing can be written.
    pub async fn begin(&mut self) -> Result<(), Error> {
        self.0.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        self.0.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
    }

    pub async fn end(&mut self) -> Result<(), Error> {
        self.0.query_drop("ROLLBACK").await
    }

    /// Says goodbye, so that the server has nothing to write into its log.
    pub async fn close(self) {
        let _ = self.0.disconnect().await;
    }

    pub async fn stream(&mut self, sql: &str, mut parts: Parts<'_>) -> Result<(), Error> {
        let mut result = self.0.query_iter(sql).await?;
        while let Some(row) = result.next().await? {
            if !parts.add(raw(row)).await {
                return Ok(());
            }
        }
        parts.finish().await;
        Ok(())
    }
}

fn tls(target: &Target) -> Result<SslOpts, DatastoreError> {
    // The driver reads the same files; what is wrong with them is told here.
    target.files().config(target.verify())?;
    let mut opts = SslOpts::default().with_disable_built_in_roots(true);
    if target.verify() == Verify::Nothing {
        opts = opts.with_danger_accept_invalid_certs(true);
    }
    // Its verifier is made of roots even where it accepts anything.
    let roots = target.files().authorities()?;
    opts = opts.with_root_certs(roots.iter().map(|c| c.to_vec().into()).collect());
    if let (Some(cert), Some(key)) = (&target.cert, &target.key) {
        let identity = ClientIdentity::new(cert.clone().into(), key.clone().into());
        opts = opts.with_client_identity(Some(identity));
    }
    Ok(opts)
}

fn raw(mut row: Row) -> Raw {
    let bytes = |i| match row.take(i) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    };
    let number = |text: Option<Vec<u8>>| std::str::from_utf8(&text?).ok()?.parse::<i64>().ok();
    let mut cells: [_; 9] = std::array::from_fn(bytes);
    // NULL is what kine reads as 0.
    let or_0 = |cell: &mut Option<Vec<u8>>| number(cell.take()).unwrap_or_default();
    let [id, name, created, deleted, create_revision, prev_revision, lease, value, old_value] =
        &mut cells;
    Raw {
        id: number(id.take()),
        name: name.take(),
        created: or_0(created),
        deleted: or_0(deleted),
        create_revision: or_0(create_revision),
        prev_revision: or_0(prev_revision),
        lease: or_0(lease),
        value: value.take().unwrap_or_default().into(),
        old_value: old_value.take().unwrap_or_default().into(),
    }
}

/// What an error says about the server (`MySQL` and `MariaDB` error reference).
pub(super) fn told(target: &Target, e: &Error) -> DatastoreError {
    let (at, user) = (target.at.clone(), target.user.clone());
    match e {
        Error::Server(ServerError { code, message, .. }) => {
            let cause = said(message);
            match code {
                1049 => DatastoreError::NoDatabase { at },
                1146 => DatastoreError::NoTable { at },
                1044 | 1142 | 1143 => DatastoreError::Denied { at, user, cause },
                1045 | 1698 => DatastoreError::Refused { at, user, cause },
                3159 => DatastoreError::TlsDemanded { at, cause },
                _ => DatastoreError::Failed { at, cause },
            }
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            DatastoreError::TlsNotOffered { at }
        }
        Error::Io(IoError::Tls(_)) => DatastoreError::Tls { at, cause: words(e) },
        e if is_tls(e) => DatastoreError::Tls { at, cause: words(e) },
        Error::Io(IoError::Io(io)) if is_connecting(io) => {
            DatastoreError::Unreachable { at, cause: said(&io.to_string()) }
        }
        e => DatastoreError::Failed { at, cause: words(e) },
    }
}

fn is_connecting(e: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(
        e.kind(),
        K::ConnectionRefused
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NotFound
            | K::PermissionDenied
            | K::TimedOut
            | K::AddrNotAvailable
    ) || e.raw_os_error().is_none() && e.kind() == K::Other
}
