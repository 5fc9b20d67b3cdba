//! `mysql://user:password@tcp(host:port)/database?tls=…` (go-sql-driver/mysql `dsn.go`: `ParseDSN`;
//! k3s-io/kine `pkg/drivers/mysql/mysql.go`: `PrepareDSN`), and the same as a plain URL.

use super::{Address, Kind, Place, Security, host_and_port, malformed, parameters, unescaped};
use crate::source::DatastoreError;

const PORT: u16 = 3306;
const SOCKET: &str = "/var/run/mysqld/mysqld.sock";

/// Parameters of the driver that change nothing of what is read.
const WITHOUT_EFFECT: [&str; 20] = [
    "allowCleartextPasswords",
    "allowNativePasswords",
    "allowOldPasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "timeTruncate",
    "timeout",
    "writeTimeout",
    "compress",
];

/// What follows `://`.
pub(super) fn parse(text: &str) -> Result<Address, DatastoreError> {
    // Of a socket's path, and of a password, the last slash is no part.
    let (server, rest) = text.rsplit_once('/').unwrap_or((text, ""));
    let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user, server) = match server.rsplit_once('@') {
        Some((user, server)) => (Some(user), server),
        None => (None, server),
    };
    let (place, is_dsn) = place(server)?;
    let mut address = Address::new(Kind::MySql, place);
    // A DSN escapes nothing, a URL does.
    let plain = |text: &str| if is_dsn { Ok(text.to_owned()) } else { unescaped(text) };
    if let Some(user) = user {
        address.identify(user, plain)?;
    }
    if !database.is_empty() {
        address.database = unescaped(database)?;
    }
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "tls" => {
                address.security = Some(match value.to_ascii_lowercase().as_str() {
                    "false" | "0" => Security::Plain,
                    "true" | "1" => Security::Full,
                    "skip-verify" => Security::Unverified,
                    "preferred" => Security::Preferred,
                    _ => {
                        return Err(malformed(
                            "tls is none of true, false, skip-verify, preferred",
                        ));
                    }
                });
            }
            name if WITHOUT_EFFECT.contains(&name) => {}
            _ => return Err(DatastoreError::Parameter { name }),
        }
    }
    Ok(address)
}

/// Where the server listens, and whether it is written as the driver does.
fn place(text: &str) -> Result<(Place, bool), DatastoreError> {
    let Some((net, address)) = text.split_once('(') else {
        return Ok(match text {
            "" | "tcp" => (Place::Tcp("127.0.0.1".to_owned(), PORT), true),
            "unix" => (Place::Unix(SOCKET.into(), 0), true),
            text => {
                let (host, port) = host_and_port(text, PORT)?;
                (Place::Tcp(unescaped(&host)?, port), false)
            }
        });
    };
    let address = address.strip_suffix(')').ok_or_else(|| malformed("`(` without `)`"))?;
    let place = match net {
        "tcp" | "tcp4" | "tcp6" => {
            let (host, port) = host_and_port(address, PORT)?;
            Place::Tcp(host, port)
        }
        "unix" => Place::Unix(address.into(), 0),
        _ => return Err(malformed("before `(` stands neither tcp nor unix")),
    };
    Ok((place, true))
}
