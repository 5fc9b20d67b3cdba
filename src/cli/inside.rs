//! What `--encryption-config` names: files, and with `etcd:…` what lies in the source itself.

use std::ops::ControlFlow;

use zeroize::Zeroizing;

use super::failure::Failure;
use super::{Ctx, configuration, open};
use crate::config::{ConfigSet, Loaded};
use crate::entry::Entry;
use crate::jobs::kms::uses::configured;
use crate::objects::Objects;
use crate::report::table;
use crate::source::{KeyRange, Query};
use crate::storage;
use crate::transform::{Transformers, bootstrap};

/// What an argument of `--encryption-config` begins with that names an entry of the source.
pub const SCHEME: &str = "etcd:";
/// The bootstrap record of k3s and RKE2, which `--token` opens.
pub const BOOTSTRAP: &str = "etcd:/bootstrap";

/// The configurations that `--encryption-config` names, if any: the first says what is current.
///
/// # Errors
/// When a file cannot be read or is no valid configuration; every error in it is a cause.
pub fn configs(ctx: &Ctx) -> Result<Option<ConfigSet>, Failure> {
    let mut all = Vec::new();
    for path in &ctx.global.encryption_config {
        let inside = path.to_str().and_then(|text| text.strip_prefix(SCHEME));
        let found = if let Some(place) = inside {
            read(ctx, place, &all)?
        } else {
            let content = configuration::read(path)?;
            if let Some(warning) = &content.exposed {
                ctx.ui.warn(warning);
            }
            configuration::load(&content)?
        };
        for loaded in found {
            for warning in &loaded.warnings {
                ctx.ui.warn(&format!("{}: {warning}", loaded.location));
            }
            all.push(loaded);
        }
    }
    let set = ConfigSet::new(all);
    unwrapping(ctx, set.as_ref())?;
    Ok(set)
}

/// Whether `--kms-exec` and `--kms-escrow` are of providers that there are.
fn unwrapping(ctx: &Ctx, set: Option<&ConfigSet>) -> Result<(), Failure> {
    let given = &ctx.global.kms_exec;
    let names: Vec<_> = set.map(configured).unwrap_or_default();
    for (i, exec) in given.iter().enumerate() {
        let name = table::visible(&exec.name);
        if given[..i].iter().any(|other| other.name == exec.name) {
            return Err(Failure::usage(format!("--kms-exec is given twice for `{name}`")));
        }
        if !names.iter().any(|(known, _)| known.name == exec.name) {
            let mut known: Vec<_> = names.iter().map(|(n, _)| table::visible(&n.name)).collect();
            known.dedup();
            let hint = match known.as_slice() {
                [] => {
                    "give a configuration with KMS providers: --encryption-config FILE".to_owned()
                }
                known => format!("there is {}", known.join(", ")),
            };
            let none = format!("--kms-exec: no KMS provider is called `{name}`");
            return Err(Failure::usage(none).hint(hint));
        }
    }
    let Some(escrow) = &ctx.escrow else { return Ok(()) };
    let known = escrow.providers();
    if names.is_empty() {
        return Err(Failure::usage("--kms-escrow: no configuration has a KMS provider")
            .hint("give a configuration with KMS providers: --encryption-config FILE"));
    }
    if !names.iter().any(|(name, _)| known.contains(&&*name.name)) {
        let known: Vec<_> = known.into_iter().map(table::visible).collect();
        ctx.ui.warn(&format!(
            "the escrow has data keys of {}, and no configuration has such a KMS provider",
            known.join(", ")
        ));
    }
    Ok(())
}

/// What is told of encrypted entries without any of them.
pub const NO_KEYS: &str = "encrypted, and no --encryption-config was given";

/// What reads objects, with the configurations that `--encryption-config` names, if any.
///
/// # Errors
/// As [`configs`], and when a key does not fit its provider.
pub fn objects(ctx: &Ctx) -> Result<Objects, Failure> {
    let configs = configs(ctx)?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    Ok(Objects::new(transformers.ok_or(NO_KEYS)))
}

/// The configurations at `place`, which is `NAMESPACE/NAME` of a Secret or config map, an etcd key,
/// or `/bootstrap`. `before` are those that were named earlier: they decrypt the Secret.
///
/// # Errors
/// When there is none, or it cannot be read.
fn read(ctx: &Ctx, place: &str, before: &[Loaded]) -> Result<Vec<Loaded>, Failure> {
    if !ctx.global.takes_source {
        return Err(Failure::usage(format!("{SCHEME}{place}: this command reads no source"))
            .hint("give the configuration in a file"));
    }
    if place.trim_end_matches('/') == "/bootstrap" {
        return from_bootstrap(ctx);
    }
    let keys: Vec<String> = if place.starts_with('/') {
        vec![place.to_owned()]
    } else if place.split('/').count() == 2 && !place.starts_with('/') && !place.ends_with('/') {
        let scope = open::scope(ctx);
        let keys =
            |kind: &str| scope.bases().iter().map(|b| format!("{b}{kind}/{place}")).collect();
        let (secrets, maps): (Vec<_>, Vec<_>) = (keys("secrets"), keys("configmaps"));
        [secrets, maps].concat()
    } else {
        return Err(Failure::usage(format!("`{SCHEME}{place}` names no entry"))
            .hint("write etcd:NAMESPACE/NAME of a Secret or ConfigMap, or etcd: and an etcd key"));
    };
    let found = entries(ctx, keys.iter().map(|k| KeyRange::single(k.as_bytes())).collect())?;
    let Some(entry) = keys.iter().find_map(|k| found.iter().find(|e| e.key == k.as_bytes())) else {
        return Err(Failure::new(format!(
            "the source has neither a Secret nor a ConfigMap {}",
            table::visible(place)
        ))
        .hint("`atrest scan --list --resource secrets,configmaps` shows what it has"));
    };
    let name = table::visible(&String::from_utf8_lossy(&entry.key));
    let plain = decrypted(ctx, entry, before)?;
    let mut object = storage::decode(&plain)
        .map_err(|e| Failure::new(format!("cannot decode {name}")).because(&e))?;
    let manifest = Zeroizing::new(object.json.to_string());
    storage::wipe(&mut object.json);
    let content = configuration::Content {
        origin: format!("{SCHEME}{place}"),
        bytes: Zeroizing::new(manifest.as_bytes().to_vec()),
        exposed: None,
    };
    configuration::load(&content)
}

fn entries(ctx: &Ctx, ranges: Vec<KeyRange>) -> Result<Vec<Entry>, Failure> {
    let mut source = open::source(ctx)?;
    let query = Query {
        ranges: crate::resource::merge_ranges(ranges),
        revision: ctx.global.revision,
        ordered: true,
    };
    let mut found = Vec::new();
    source.visit(&query, &mut |entry| {
        found.push(entry.to_entry());
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn decrypted(ctx: &Ctx, entry: &Entry, before: &[Loaded]) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let envelope = crate::envelope::Envelope::of(&entry.value);
    if envelope.is_plaintext() {
        return Ok(Zeroizing::new(entry.value.clone()));
    }
    let name = table::visible(&String::from_utf8_lossy(&entry.key));
    let Some(set) = ConfigSet::new(before.to_vec()) else {
        return Err(Failure::new(format!(
            "{name} is itself encrypted by {}",
            envelope.provider
        ))
        .hint("give the configuration or the keys that read it before it, with another --encryption-config"));
    };
    let transformers = Transformers::new(&set, open::kms(ctx))
        .map_err(|e| Failure::new("the configuration cannot be used").because(&e))?;
    let location = open::scope(ctx).locate(&entry.key);
    let opened = transformers
        .for_resource(&location.resource)
        .read(entry, &entry.value)
        .map_err(|e| Failure::new(format!("cannot decrypt {name}")).because(&e))?;
    Ok(Zeroizing::new(opened.plaintext.expose().to_vec()))
}

fn from_bootstrap(ctx: &Ctx) -> Result<Vec<Loaded>, Failure> {
    let token = token(ctx)?;
    let records = entries(ctx, vec![KeyRange::prefix(bootstrap::PREFIX)])?;
    if records.is_empty() {
        return Err(Failure::new("the source has no bootstrap record of k3s or RKE2").hint(
            "a server with embedded etcd or an SQL datastore keeps one at /bootstrap/; give its encryption-config.json with --encryption-config",
        ));
    }
    // The record that says that it is this token's, else any: the key is no secret's proof.
    let passphrases = bootstrap::passphrases(&token);
    let mut tried: Vec<(&Entry, &str)> = Vec::new();
    for passphrase in &passphrases {
        let key = bootstrap::key(passphrase);
        tried.extend(records.iter().filter(|r| r.key == key).map(|r| (r, passphrase.as_str())));
    }
    let Some((record, passphrase)) = tried.first() else {
        return Err(Failure::new("the bootstrap record was encrypted with another server token")
            .hint("the token is in server/token of the k3s or RKE2 data directory, such as /var/lib/rancher/k3s/server/token"));
    };
    let name = table::visible(&String::from_utf8_lossy(&record.key));
    let config = bootstrap::configuration(passphrase, &record.value)
        .map_err(|e| Failure::new(format!("cannot read {name}")).because(&e))?;
    let content =
        configuration::Content { origin: format!("{SCHEME}{name}"), bytes: config, exposed: None };
    configuration::load(&content)
}

fn token(ctx: &Ctx) -> Result<Zeroizing<String>, Failure> {
    if let Some(token) = &ctx.global.token {
        return Ok(Zeroizing::new(token.expose().to_owned()));
    }
    let Some(path) = &ctx.global.token_file else {
        return Err(Failure::usage("the bootstrap record is opened with the server token")
            .hint("give it with --token-file FILE, such as /var/lib/rancher/k3s/server/token"));
    };
    let content = configuration::read(path)?;
    let text = String::from_utf8(content.bytes.to_vec()).map(Zeroizing::new);
    text.map_err(|_| Failure::new(format!("{} is no token file", path.display())))
}
