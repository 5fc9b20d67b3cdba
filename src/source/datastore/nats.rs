//! `nats://user:password@host:port?bucket=…` (k3s-io/kine `pkg/drivers/nats/config.go`:
//! `parseConnection`, `examples/nats.md`).

use zeroize::Zeroizing;

use super::{Address, Kind, Nats, Place, host_and_port, malformed, parameters, unescaped};
use crate::hex::percent;
use crate::source::DatastoreError;

const PORT: u16 = 4222;
/// k3s-io/kine `pkg/drivers/nats/new.go`: `defaultBucket`.
const BUCKET: &str = "kine";

/// Parameters that change nothing of what is read: how kine writes, and how it runs a server of
/// its own.
const WITHOUT_EFFECT: [&str; 6] =
    ["replicas", "revHistory", "slowMethod", "serverConfig", "stdoutLogging", "dataDir"];

/// What follows `://`.
pub(super) fn parse(text: &str) -> Result<Address, DatastoreError> {
    let mut servers = text.split(',');
    // Parameters and user count where they stand first.
    let (first, query) = apart(servers.next().unwrap_or_default());
    let (userinfo, first) = first.rsplit_once('@').map_or((None, first), |(u, h)| (Some(u), h));
    let (host, port) = host_and_port(first, PORT)?;
    let mut address = Address::new(Kind::Nats, Place::Tcp(unescaped(&host)?, port));
    BUCKET.clone_into(&mut address.database);
    for server in servers {
        let server = server.strip_prefix("nats://");
        let server = server.ok_or_else(|| malformed("not every server begins with nats://"))?;
        let (server, _) = apart(server);
        let server = server.rsplit_once('@').map_or(server, |(_, host)| host);
        let (host, port) = host_and_port(server, PORT)?;
        address.nats.others.push((unescaped(&host)?, port));
    }
    if let Some(userinfo) = userinfo {
        identify(&mut address, userinfo)?;
    }
    let Nats { creds, context, .. } = &mut address.nats;
    let (mut embeds, mut listens) = (true, true);
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "bucket" if value.is_empty() => {}
            "bucket" => address.database = value,
            "credsFile" => *creds = Some(value.into()),
            "contextFile" => *context = Some(value.into()),
            "noEmbed" => embeds = false,
            "dontListen" => listens = false,
            name if WITHOUT_EFFECT.contains(&name) => {}
            _ => return Err(DatastoreError::Parameter { name }),
        }
    }
    if context.is_some() && !first.is_empty() {
        return Err(malformed("it names both a host and a contextFile"));
    }
    if embeds && !listens {
        return Err(DatastoreError::Embedded);
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if !address.database.bytes().all(valid) {
        return Err(malformed("its bucket is no name of one"));
    }
    Ok(address)
}

/// Host and parameters; a path says nothing.
fn apart(server: &str) -> (&str, &str) {
    let (server, query) = server.split_once('?').unwrap_or((server, ""));
    (server.split_once('/').map_or(server, |(host, _)| host), query)
}

/// User and password, or a token alone. kine sends them as Go's `url.Userinfo.String` writes them,
/// which escapes again what was escaped.
fn identify(address: &mut Address, userinfo: &str) -> Result<(), DatastoreError> {
    let sent = |text: &str| -> Result<String, DatastoreError> {
        // Go `net/url/url.go`: `shouldEscape` in mode `encodeUserPassword`.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&b);
        Ok(percent(unescaped(text)?.as_bytes(), plain))
    };
    if userinfo.contains(':') {
        return address.identify(userinfo, sent);
    }
    address.password = Some(Zeroizing::new(sent(userinfo)?)).filter(|token| !token.is_empty());
    Ok(())
}
