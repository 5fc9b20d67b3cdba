//! How the Secrets of a snapshot are stored, and whether the API server would rewrite them:
//! `cargo run --no-default-features --example scan_snapshot -- SNAPSHOT ENCRYPTION-CONFIG`.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use atrest::config::{self, ConfigSet};
use atrest::kms::NoPlugins;
use atrest::resource::{Scope, Selector};
use atrest::scan::{ByPrefix, Counts, Judge as _};
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{Query, Source as _};
use atrest::transform::Transformers;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(snapshot), Some(file)) = (args.next(), args.next()) else {
        return Err("give a snapshot and an encryption configuration".into());
    };
    let files = config::load(&std::fs::read(&file)?, &file)?;
    let configs = ConfigSet::new(files).ok_or("the file holds no configuration")?;
    let transformers = Transformers::new(&configs, Arc::new(NoPlugins))?;
    let judge = ByPrefix(&transformers);

    let scope = Scope::new("/registry");
    let ranges = scope.ranges(&[Selector::parse("secrets")?]);
    let query = Query { ranges, revision: None, ordered: false };
    let mut counts = Counts::default();
    let mut source = Snapshot::open(Path::new(&snapshot), &SnapshotOptions::default())?;
    let visit = source.visit(&query, &mut |entry| {
        let resource = scope.locate(entry.key).resource;
        let judged = judge.judge(&resource, entry);
        counts.add(&resource, &judged, entry.stored().len() as u64);
        ControlFlow::Continue(())
    })?;
    for (group, tally) in counts.groups() {
        let key = group.key_name.as_deref().unwrap_or("-");
        let status = group.status.map_or("-", |s| s.as_str());
        println!("{} {} {key} {status}: {}", group.resource, group.provider, tally.entries);
    }
    for damage in &visit.damage {
        eprintln!("not counted: {}: {}", damage.location, damage.what);
    }
    Ok(())
}
