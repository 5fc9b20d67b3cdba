//! `postgres://user:password@host:port/database?sslmode=…` (lib/pq `url.go`, `conn.go`; k3s-io/kine
//! `pkg/drivers/pgsql/pgsql.go`: `prepareDSN`).

use zeroize::Zeroizing;

use super::{Address, Kind, Place, Security, host_and_port, malformed, parameters, unescaped};
use crate::source::DatastoreError;

const PORT: u16 = 5432;

/// What follows `://`.
pub(super) fn parse(text: &str) -> Result<Address, DatastoreError> {
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, database) = text.split_once('/').unwrap_or((text, ""));
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.contains(',') {
        return Err(malformed("it names several hosts"));
    }
    let (host, port) = host_and_port(host, PORT)?;
    let mut address = Address::new(Kind::Postgres, Place::Tcp(unescaped(&host)?, port));
    if let Some(user) = user {
        address.identify(user, unescaped)?;
    }
    if !database.is_empty() {
        address.database = unescaped(database)?;
    }
    for (name, value) in parameters(query)? {
        set(&mut address, &name, value)?;
    }
    Ok(address)
}

/// One parameter: what lib/pq knows by itself; any other would be a setting of the session.
fn set(address: &mut Address, name: &str, value: String) -> Result<(), DatastoreError> {
    match name {
        "sslmode" => {
            address.security = Some(match value.as_str() {
                "disable" => Security::Plain,
                "allow" | "prefer" => Security::Preferred,
                "require" => Security::Unverified,
                "verify-ca" => Security::Authority,
                "verify-full" => Security::Full,
                _ => return Err(malformed("sslmode is none of PostgreSQL's")),
            });
        }
        "sslrootcert" => address.cacert = Some(value.into()),
        "sslcert" => address.cert = Some(value.into()),
        "sslkey" => address.key = Some(value.into()),
        "search_path" => address.search_path = Some(value),
        "user" => address.user = Some(value),
        "password" => address.password = Some(Zeroizing::new(value)),
        "dbname" => address.database = value,
        "host" => {
            let port = port(&address.place);
            // A directory is that of a socket.
            address.place = if value.starts_with('/') {
                Place::Unix(value.into(), port)
            } else {
                Place::Tcp(value, port)
            };
        }
        "port" => {
            let number = value.parse().map_err(|_| malformed("the port is no number"))?;
            match &mut address.place {
                Place::Tcp(_, port) | Place::Unix(_, port) => *port = number,
            }
        }
        // They change nothing of what is read.
        "application_name"
        | "fallback_application_name"
        | "connect_timeout"
        | "client_encoding"
        | "binary_parameters"
        | "disable_prepared_binary_result" => {}
        _ => return Err(DatastoreError::Parameter { name: name.to_owned() }),
    }
    Ok(())
}

fn port(place: &Place) -> u16 {
    match place {
        Place::Tcp(_, port) | Place::Unix(_, port) => *port,
    }
}
