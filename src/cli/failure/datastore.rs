//! What to do about database servers that cannot be read.

use super::etcd;
use crate::source::DatastoreError;

/// What serves any of kine's databases as an etcd (k3s-io/kine `pkg/app/app.go`: it listens on
/// port 2379).
const BESIDE: &str = "`kine --endpoint URL` serves it as an etcd, which is read with --endpoints";

pub(super) fn datastore(e: &DatastoreError) -> Option<String> {
    let hint = match e {
        DatastoreError::Address { .. } => {
            "write postgres://USER@HOST:PORT/DATABASE or mysql://USER@tcp(HOST:PORT)/DATABASE, as k3s's datastore-endpoint does"
        }
        DatastoreError::Scheme { scheme } if matches!(scheme.as_str(), "http" | "https") => {
            "this is an etcd: read it with --endpoints"
        }
        DatastoreError::Scheme { .. } => BESIDE,
        DatastoreError::Parameter { .. } => "leave it out: it says nothing about what is stored",
        DatastoreError::TlsFile(e) => return etcd::tls_file(e).map(str::to_owned),
        DatastoreError::Runtime(_) => return None,
        DatastoreError::Unreachable { .. } => {
            "check host and port, and that the server listens there"
        }
        DatastoreError::Silent { .. } => {
            "check host and port; --dial-timeout and --command-timeout wait longer"
        }
        DatastoreError::TlsNotOffered { at } if is_postgres(at) => {
            "?sslmode=disable at the end of the address connects without TLS"
        }
        DatastoreError::TlsNotOffered { .. } => {
            "leave tls=… out of the address and give no certificates: then it connects without TLS"
        }
        DatastoreError::TlsDemanded { .. } => {
            "name its CA with --cacert; sslmode=disable in the address would forbid TLS"
        }
        DatastoreError::Tls { .. } => {
            "name the server's CA with --cacert, and a client certificate with --cert and --key if it asks for one"
        }
        DatastoreError::Refused { at, .. } => {
            return Some(format!(
                "give the password of the user in the address with --password-file FILE or {}, or another user with --user",
                if is_postgres(at) { "PGPASSWORD" } else { "MYSQL_PWD" }
            ));
        }
        DatastoreError::NoDatabase { .. } => {
            "the database's name ends the address; without one it is kubernetes, as in k3s"
        }
        DatastoreError::Denied { .. } => {
            "GRANT SELECT ON kine TO the user, or give another with --user"
        }
        DatastoreError::NoTable { .. } => {
            "name the database of k3s at the end of the address, and a user that may read it"
        }
        DatastoreError::NoColumn { .. } => "name the database of k3s at the end of the address",
        DatastoreError::Failed { .. } => "run it again; the server's own log may say more",
    };
    Some(hint.to_owned())
}

fn is_postgres(at: &str) -> bool {
    at.starts_with("postgres:")
}
