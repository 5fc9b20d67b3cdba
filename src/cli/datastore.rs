//! `--kine URL`: the server that an address and the connection options name. Variables of etcdctl
//! are about an etcd, and no other server is given what stands in them.

use std::time::Duration;

use super::Ctx;
use super::failure::Failure;
use crate::jobs::residue::Opened;
use crate::profile::Found;
#[cfg(not(feature = "datastore"))]
use crate::source::DatastoreError;
use crate::source::datastore::Url;
use crate::source::{Source, SourceError};

/// Connection options that a database server honours; of the others nothing is known to it.
const HONOURED: [&str; 9] = [
    "cacert",
    "cert",
    "key",
    "user",
    "password",
    "password-file",
    "insecure-skip-tls-verify",
    "dial-timeout",
    "command-timeout",
];

/// How long connecting may take unless an option says otherwise.
const DIAL: Duration = Duration::from_secs(10);
/// How long a server may send nothing unless an option says otherwise: it may look through all of
/// a large table for the first row.
const SILENCE: Duration = Duration::from_mins(1);

/// Drops what variables said of an etcd where a database server is read.
pub fn forget_variables(ctx: &mut Ctx) {
    let (g, given) = (&mut ctx.global, &ctx.given);
    let keep = |name| given.has(name);
    for (name, path) in [("cacert", &mut g.cacert), ("cert", &mut g.cert), ("key", &mut g.key)] {
        *path = path.take().filter(|_| keep(name));
    }
    g.user = g.user.take().filter(|_| keep("user"));
    g.password = g.password.take().filter(|_| keep("password"));
    g.insecure_skip_tls_verify &= keep("insecure-skip-tls-verify");
    if !keep("dial-timeout") {
        g.dial_timeout = DIAL;
    }
    if !keep("command-timeout") {
        g.command_timeout = SILENCE;
    }
}

/// The address that is read, if a server is.
pub fn url(ctx: &Ctx) -> Option<&Url> {
    ctx.global.kine.as_ref()?.url()
}

/// Refuses connection options that a database server does not honour.
///
/// # Errors
/// When there is one.
pub fn check(ctx: &Ctx) -> Result<(), Failure> {
    match ctx.given.connection_but(&HONOURED) {
        Some(name) => Err(Failure::usage(format!(
            "--{name} says how to connect to an etcd, but a database server is read"
        ))),
        None => Ok(()),
    }
}

#[cfg(feature = "datastore")]
pub use reading::{found, open};

/// As with the feature: addresses are known, and refused.
///
/// # Errors
/// Always.
#[cfg(not(feature = "datastore"))]
pub fn open(_ctx: &Ctx, _url: &Url) -> Result<Opened, Failure> {
    Err(Failure::usage("this build reads kine's SQLite files only")
        .hint("build it with the feature datastore"))
}

/// As with the feature: addresses are known, and refused.
///
/// # Errors
/// Always.
#[cfg(not(feature = "datastore"))]
pub fn found(_found: &Found, url: &Url) -> Result<Box<dyn Source>, SourceError> {
    Err(DatastoreError::Scheme { scheme: url.scheme().to_owned() }.into())
}

#[cfg(feature = "datastore")]
mod reading {
    use super::{Ctx, DIAL, Failure, Found, Opened, SILENCE, Source, SourceError, Url};
    use crate::cli::credentials;
    use crate::source::DatastoreError;
    use crate::source::datastore::{Address, Kind, Security};
    use crate::source::kine::server::{Server, ServerOptions};
    use crate::source::live::Credentials;

    /// Connects to the server that the address and the options name.
    ///
    /// # Errors
    /// When the address is wrong, a file cannot be used, or the server cannot be read.
    pub fn open(ctx: &Ctx, url: &Url) -> Result<Opened, Failure> {
        let g = &ctx.global;
        let told = |e: DatastoreError| Failure::from(SourceError::from(e));
        let address = url.parse().map_err(told)?;
        let tls = ["cacert", "cert", "key", "insecure-skip-tls-verify"];
        if let Some(name) = tls.iter().find(|name| ctx.given.has(name))
            && address.kind == Kind::Postgres
            && address.security == Some(Security::Plain)
        {
            return Err(Failure::usage(format!(
                "--{name} goes with TLS, which the address switches off (sslmode=disable)"
            )));
        }
        let options = ServerOptions {
            credentials: credentials_for(ctx, &address)?,
            cacert: g.cacert.clone(),
            cert: g.cert.clone(),
            key: g.key.clone(),
            insecure_skip_tls_verify: g.insecure_skip_tls_verify,
            dial_timeout: g.dial_timeout,
            silence: g.command_timeout,
            address,
        };
        Ok(Opened::Datastore(Box::new(Server::connect(&options)?)))
    }

    /// Connects as a distribution does.
    ///
    /// # Errors
    /// As [`open`].
    pub fn found(found: &Found, url: &Url) -> Result<Box<dyn Source>, SourceError> {
        let [cacert, cert, key] = found.tls_files();
        Ok(Box::new(Server::connect(&ServerOptions {
            address: url.parse()?,
            credentials: None,
            cacert,
            cert,
            key,
            insecure_skip_tls_verify: false,
            dial_timeout: DIAL,
            silence: SILENCE,
        })?))
    }

    /// The variable that the server's own clients take a password from.
    fn variable(kind: Kind) -> &'static str {
        match kind {
            Kind::Postgres => "PGPASSWORD",
            Kind::MySql => "MYSQL_PWD",
            // nats-io/natscli `cli/cli.go`.
            Kind::Nats => "NATS_PASSWORD",
        }
    }

    /// User and password, where not those of the address: options count most, then the address,
    /// then the variable.
    fn credentials_for(ctx: &Ctx, address: &Address) -> Result<Option<Credentials>, Failure> {
        let g = &ctx.global;
        let name = variable(address.kind);
        let from_variable = || std::env::var(name).ok().filter(|p| !p.is_empty());
        let by_option = g.password.is_some() || g.password_file.is_some();
        if let Some(user) = &g.user {
            if !by_option
                && !user.expose().contains(':')
                && let Some(password) = from_variable()
            {
                return Ok(Some(Credentials::new(user.expose(), &password)));
            }
            return credentials::of(ctx);
        }
        let Some(user) = &address.user else { return credentials::of(ctx) };
        if by_option {
            return credentials::of_user(ctx, user);
        }
        if address.password.is_some() {
            let on_line = ["kine", "a", "b"].iter().any(|name| ctx.given.has(name));
            credentials::warn_of(
                ctx,
                on_line,
                &format!("--password-file FILE and {name} keep it from others"),
            );
            return Ok(None);
        }
        Ok(from_variable().map(|password| Credentials::new(user, &password)))
    }
}
