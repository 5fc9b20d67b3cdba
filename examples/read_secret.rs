//! One object out of a snapshot, decrypted, as JSON:
//! `cargo run --no-default-features --example read_secret -- SNAPSHOT ENCRYPTION-CONFIG ETCD-KEY`.
//! Its output is a secret.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use atrest::config::{self, ConfigSet};
use atrest::kms::NoPlugins;
use atrest::range::KeyRange;
use atrest::resource::Scope;
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{Query, Source as _};
use atrest::storage;
use atrest::transform::Transformers;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(snapshot), Some(file), Some(key)) = (args.next(), args.next(), args.next()) else {
        return Err("give a snapshot, an encryption configuration and an etcd key".into());
    };
    let files = config::load(&std::fs::read(&file)?, &file)?;
    let configs = ConfigSet::new(files).ok_or("the file holds no configuration")?;
    let transformers = Transformers::new(&configs, Arc::new(NoPlugins))?;

    let ranges = vec![KeyRange::single(key.as_bytes())];
    let query = Query { ranges, revision: None, ordered: false };
    let mut found = None;
    let mut source = Snapshot::open(Path::new(&snapshot), &SnapshotOptions::default())?;
    source.visit(&query, &mut |entry| {
        let resource = Scope::new("/registry").locate(entry.key).resource;
        // The etcd key is authenticated with the value: under another one it does not decrypt.
        found = Some(transformers.for_resource(&resource).read(entry, entry.stored()));
        ControlFlow::Break(())
    })?;
    let opened = found.ok_or("there is no such key")??;
    let object = storage::decode(opened.plaintext.expose())?;
    println!("{:#}", object.json);
    eprintln!("read with {}{}", opened.used, if opened.stale { ", stale" } else { "" });
    Ok(())
}
