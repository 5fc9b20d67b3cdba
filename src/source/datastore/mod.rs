//! Addresses of database servers, as k3s's `datastore-endpoint` writes them (k3s-io/kine
//! `pkg/endpoint/endpoint.go`: what stands before `://` names the driver).

mod mysql;
mod nats;
mod postgres;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::DatastoreError;
use crate::hex::from_percent;

/// The database that kine makes where an address names none (k3s-io/kine
/// `pkg/drivers/pgsql/pgsql.go`, `pkg/drivers/mysql/mysql.go`: `prepareDSN`).
const DATABASE: &str = "kubernetes";

/// An address as it was given. It may hold a password: `Debug` hides all of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Arc<Zeroizing<String>>);

impl Url {
    /// The address that `text` is; `None` for a path.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let (scheme, _) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        let begins = letters.next().is_some_and(|b| b.is_ascii_alphabetic());
        let rest = letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        (begins && rest).then(|| Self(Arc::new(Zeroizing::new(text.to_owned()))))
    }

    /// What it says.
    ///
    /// # Errors
    /// When it is malformed, of a system that is not read, or asks for what is not honoured.
    pub fn parse(&self) -> Result<Address, DatastoreError> {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        match scheme {
            "postgres" | "postgresql" => postgres::parse(rest),
            "mysql" => mysql::parse(rest),
            "nats" => nats::parse(rest),
            _ => Err(DatastoreError::Scheme { scheme: scheme.to_owned() }),
        }
    }

    /// What stands before `://`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// The file that `sqlite://` names; its parameters are the driver's.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let path = self.0.strip_prefix("sqlite://")?;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let path = path.strip_prefix("file:").unwrap_or(path);
        (!path.is_empty()).then(|| path.into())
    }

    /// As much of it as may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.parse() {
            Ok(address) => address.shown(),
            Err(_) => format!("{}://…", self.scheme()),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// Whose protocol a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL` or `MariaDB`.
    MySql,
    /// NATS `JetStream`.
    Nats,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Host and port.
    Tcp(String, u16),
    /// A socket: for `PostgreSQL` its directory and the port that it is called by.
    Unix(PathBuf, u16),
}

/// Whether TLS is used, and what of the server's certificate is verified. The names of
/// `PostgreSQL`'s `sslmode` say nearly the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// No TLS.
    Plain,
    /// TLS where the server offers it; its certificate may be anybody's.
    Preferred,
    /// TLS; the certificate may be anybody's.
    Unverified,
    /// TLS; the certificate is of a known authority, whatever name it has.
    Authority,
    /// TLS; the certificate is of a known authority and of this host.
    Full,
}

/// What an address says.
#[derive(Clone)]
pub struct Address {
    /// The protocol.
    pub kind: Kind,
    /// Where the server listens.
    pub place: Place,
    /// The database; of NATS the bucket.
    pub database: String,
    /// The user.
    pub user: Option<String>,
    /// The user's password; of NATS, where no user is named, a token.
    pub password: Option<Zeroizing<String>>,
    /// What it says of TLS; `None` leaves it to the driver's default and to the files given.
    pub security: Option<Security>,
    /// PEM bundle that the server is verified against.
    pub cacert: Option<PathBuf>,
    /// PEM client certificate.
    pub cert: Option<PathBuf>,
    /// PEM client key.
    pub key: Option<PathBuf>,
    /// `PostgreSQL`: the schemas that the table is looked for in.
    pub search_path: Option<String>,
    /// What is NATS's alone.
    pub nats: Nats,
}

/// What an address of NATS says beside.
#[derive(Clone, Default)]
pub struct Nats {
    /// Servers of the same cluster beside the first.
    pub others: Vec<(String, u16)>,
    /// File with a user's token and key.
    pub creds: Option<PathBuf>,
    /// File of the `nats` program that says how to connect, in place of a host.
    pub context: Option<PathBuf>,
}

impl Address {
    fn new(kind: Kind, place: Place) -> Self {
        Self {
            kind,
            place,
            database: DATABASE.to_owned(),
            user: None,
            password: None,
            security: None,
            cacert: None,
            cert: None,
            key: None,
            search_path: None,
            nats: Nats::default(),
        }
    }

    /// Takes user and password of what stands before the `@`; `plain` undoes what it escapes.
    fn identify(
        &mut self,
        userinfo: &str,
        plain: impl Fn(&str) -> Result<String, DatastoreError>,
    ) -> Result<(), DatastoreError> {
        let (user, password) = match userinfo.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (userinfo, None),
        };
        self.user = Some(plain(user)?).filter(|u| !u.is_empty());
        self.password = password.map(|p| plain(p).map(Zeroizing::new)).transpose()?;
        Ok(())
    }

    /// Without user, password and parameters.
    #[must_use]
    pub fn shown(&self) -> String {
        let scheme = match self.kind {
            Kind::Postgres => "postgres",
            Kind::MySql => "mysql",
            Kind::Nats => return self.shown_bucket(),
        };
        let place = match (&self.place, self.kind) {
            (Place::Tcp(host, port), Kind::Postgres | Kind::Nats) => authority(host, *port),
            (Place::Tcp(host, port), Kind::MySql) => format!("tcp({})", authority(host, *port)),
            (Place::Unix(dir, port), Kind::Postgres) => {
                dir.join(format!(".s.PGSQL.{port}")).display().to_string()
            }
            (Place::Unix(path, _), _) => format!("unix({})", path.display()),
        };
        format!("{scheme}://{place}/{}", self.database)
    }

    fn shown_bucket(&self) -> String {
        if let Some(context) = &self.nats.context {
            return format!("nats://?contextFile={}&bucket={}", context.display(), self.database);
        }
        let servers =
            self.servers().map(|(host, port)| format!("nats://{}", authority(host, port)));
        let mut shown: Vec<String> = servers.collect();
        if let Some(first) = shown.first_mut() {
            first.push_str("?bucket=");
            first.push_str(&self.database);
        }
        shown.join(",")
    }

    /// Every server that it names.
    pub fn servers(&self) -> impl Iterator<Item = (&str, u16)> {
        let first = match &self.place {
            Place::Tcp(host, port) => Some((host.as_str(), *port)),
            Place::Unix(..) => None,
        };
        first.into_iter().chain(self.nats.others.iter().map(|(host, port)| (host.as_str(), *port)))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn malformed(why: impl Into<String>) -> DatastoreError {
    DatastoreError::Address { why: why.into() }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`, any of them empty.
fn host_and_port(text: &str, default: u16) -> Result<(String, u16), DatastoreError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| malformed("`[` without `]`"))?;
        let port = rest.strip_prefix(':');
        if !rest.is_empty() && port.is_none() {
            return Err(malformed("something that is no port follows `]`"));
        }
        (host, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        None | Some("") => default,
        Some(port) => port.parse().map_err(|_| malformed("the port is no number"))?,
    };
    Ok((if host.is_empty() { "localhost" } else { host }.to_owned(), port))
}

/// `%41` → `A`.
fn unescaped(text: &str) -> Result<String, DatastoreError> {
    let bytes = from_percent(text);
    let bytes = bytes.ok_or_else(|| malformed("`%` without two hexadecimal digits"))?;
    String::from_utf8(bytes).map_err(|_| malformed("what it escapes is not UTF-8"))
}

/// `a=b&c=d`, unescaped.
fn parameters(query: &str) -> Result<Vec<(String, String)>, DatastoreError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescaped(name)?, unescaped(&value.replace('+', " "))?))
        })
        .collect()
}

#[cfg(test)]
mod tests;
