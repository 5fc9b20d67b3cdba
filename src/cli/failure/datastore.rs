//! What to do about database servers that cannot be read.

use super::etcd;
use crate::source::DatastoreError;

/// What serves any of kine's databases as an etcd (k3s-io/kine `pkg/app/app.go`: it listens on
/// port 2379).
const BESIDE: &str = "`kine --endpoint URL` serves it as an etcd, which is read with --endpoints";

pub(super) fn datastore(e: &DatastoreError) -> Option<String> {
    if let Some(hint) = nats(e) {
        return Some(hint.to_owned());
    }
    let hint = match e {
        DatastoreError::Address { .. } => {
            "write postgres://USER@HOST:PORT/DATABASE or mysql://USER@tcp(HOST:PORT)/DATABASE or nats://HOST:PORT, as k3s's datastore-endpoint does"
        }
        DatastoreError::Scheme { scheme } if matches!(scheme.as_str(), "http" | "https") => {
            "this is an etcd: read it with --endpoints"
        }
        DatastoreError::Scheme { .. } => BESIDE,
        DatastoreError::Parameter { .. } => "leave it out: it says nothing about what is stored",
        DatastoreError::TlsFile(e) => return etcd::tls_file(e).map(str::to_owned),
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
        DatastoreError::Runtime(_)
        | DatastoreError::Embedded
        | DatastoreError::CredentialsFile { .. }
        | DatastoreError::NoJetStream { .. }
        | DatastoreError::Stranger { .. }
        | DatastoreError::Forbidden { .. } => return None,
        DatastoreError::Failed { .. } => "run it again; the server's own log may say more",
    };
    Some(hint.to_owned())
}

/// What holds of NATS alone.
fn nats(e: &DatastoreError) -> Option<&'static str> {
    Some(match e {
        DatastoreError::Embedded => {
            "give kine a server that others reach (without dontListen), and name that: nats://HOST:PORT?noEmbed"
        }
        DatastoreError::CredentialsFile { .. } => {
            "name a file that may be read: credsFile= one of `nsc generate creds`, contextFile= one of the nats program"
        }
        DatastoreError::NoJetStream { .. } => {
            "name the server of kine, and a user of the account that has its bucket with --user"
        }
        DatastoreError::Stranger { .. } => {
            "give the user's password with --password-file FILE or NATS_PASSWORD, another user with --user, or credsFile=FILE in the address"
        }
        DatastoreError::Forbidden { .. } => {
            "give the user of kine, or one that may publish to $JS.API.> and subscribe to _INBOX.>, with --user"
        }
        DatastoreError::Unreachable { at, .. } if is_nats(at) => {
            "check host and port; a server inside kine listens where its serverConfig says, else on a port of its choice: name that, nats://HOST:PORT?noEmbed"
        }
        DatastoreError::TlsNotOffered { at } if is_nats(at) => {
            "give no certificates: then TLS is used where the server asks for it"
        }
        DatastoreError::NoDatabase { at } if is_nats(at) => {
            "bucket=NAME in the address names the bucket of kine; without it, it is kine"
        }
        _ => return None,
    })
}

fn is_nats(at: &str) -> bool {
    at.starts_with("nats:")
}

fn is_postgres(at: &str) -> bool {
    at.starts_with("postgres:")
}
