//! Files of the `nats` program that say how to connect (nats-io/jsm.go `natscontext/context.go`:
//! `settings`), which an address may name in place of a server.

use std::path::PathBuf;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::reach::{text_of, unusable};
use crate::source::DatastoreError;
use crate::source::datastore::{Address, Url};

/// Of its settings, what says who connects, and where.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    nkey: String,
    nsc: String,
    user_jwt: String,
    socks_proxy: String,
    jetstream_domain: String,
    jetstream_api_prefix: String,
}

/// The address that the named file makes of one; without such a name, the address itself.
pub(super) fn followed(address: &Address) -> Result<Address, DatastoreError> {
    let Some(path) = &address.nats.context else { return Ok(address.clone()) };
    let text = text_of(path)?;
    // The parser's own words may show what the file says.
    let read = serde_json::from_str(&text);
    let s: Settings = read.map_err(|_| unusable(path, "it is no context of the nats program"))?;
    let unread = [
        ("nkey", &s.nkey),
        ("nsc", &s.nsc),
        ("user_jwt", &s.user_jwt),
        ("socks_proxy", &s.socks_proxy),
        ("jetstream_domain", &s.jetstream_domain),
        ("jetstream_api_prefix", &s.jetstream_api_prefix),
    ];
    if let Some((name, _)) = unread.iter().find(|(_, value)| !value.is_empty()) {
        return Err(unusable(path, format!("its setting {name} is not honoured")));
    }
    let url = if s.url.is_empty() { "nats://localhost" } else { &s.url };
    let url = Url::of(url).filter(|url| url.scheme() == "nats");
    let url = url.ok_or_else(|| unusable(path, "its url does not begin with nats://"))?;
    let mut found = url.parse()?;
    if found.nats.context.is_some() {
        return Err(unusable(path, "its url names another context"));
    }
    found.database.clone_from(&address.database);
    if !s.user.is_empty() {
        found.user = Some(s.user);
        found.password = Some(Zeroizing::new(s.password));
    } else if !s.token.is_empty() {
        (found.user, found.password) = (None, Some(Zeroizing::new(s.token)));
    }
    let given = |path: PathBuf| Some(path).filter(|path| !path.as_os_str().is_empty());
    found.nats.creds = address.nats.creds.clone().or(given(s.creds));
    (found.cert, found.key, found.cacert) = (given(s.cert), given(s.key), given(s.ca));
    Ok(found)
}
