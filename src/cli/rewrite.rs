//! `atrest rewrite`: a snapshot file with other envelopes.

use std::io::{BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, configuration, open, ui};
use crate::bolt::Db;
use crate::config::ConfigSet;
use crate::migrate::rewrite::{Counts, Fate, rewrite};
use crate::mvcc::Store;
use crate::report::{Format, table};
use crate::resource::Scope;
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{Query, Source as _};
use crate::temporary::Unplaced;
use crate::transform::Transformers;

/// Options of `rewrite`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes a new snapshot file for `etcdutl snapshot restore`, in which every value is stored as an
API server with the new configuration would store it. Revisions, versions, leases and all other
data stay as they are. The input is not changed.")]
pub struct Args {
    /// The new snapshot file; it must not exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,

    /// The configuration to write with; --encryption-config gives those to read with
    #[arg(long, value_name = "FILE")]
    pub write_config: PathBuf,

    /// Leave superseded revisions and deletions out
    #[arg(long)]
    pub drop_history: bool,

    /// Copy values that cannot be read as they are, instead of giving up
    #[arg(long)]
    pub keep_unreadable: bool,

    #[command(flatten)]
    source: args::SnapshotFile,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json]), default_value = "table", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.prefix, &self.reading, &self.output])
    }
}

/// How many unreadable values are named.
const NAMED: usize = 20;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out;
    let Some(input) = &ctx.global.snapshot else {
        return Err(Failure::usage("rewrite reads a snapshot file: give one with --snapshot"));
    };
    if args.out.exists() {
        return Err(Failure::new(format!("{} exists already", args.out.display()))
            .hint("choose another name; nothing is overwritten"));
    }
    let new = one_config(ctx, &args.write_config)?;
    let writer = open::transformers(ctx, &new)?;
    // What the new configuration reads needs no old one.
    let old = crate::cli::inside::configs(ctx)?.unwrap_or_else(|| new.clone());
    let reader = open::transformers(ctx, &old)?;

    let options = SnapshotOptions { skip_hash_check: ctx.global.skip_hash_check, salvage: false };
    let mut snapshot = Snapshot::open(input, &options)?;
    let everything = Query { ranges: Vec::new(), revision: None, ordered: false };
    // An empty visit still waits for the file's hash.
    let visit = snapshot.visit(&everything, &mut |_| std::ops::ControlFlow::Continue(()))?;
    for note in &visit.notes {
        ctx.ui.note(note);
    }
    let bytes = snapshot.bytes().clone();
    let db = Db::open(&bytes).map_err(|e| Failure::new("cannot read the snapshot").because(&e))?;
    let store = Store::open(db);

    let cannot = |e: &std::io::Error| {
        Failure::new(format!("cannot write {}", args.out.display())).because(e)
    };
    // Private from the start, and gone again unless everything went well.
    let temporary = Unplaced::beside(&args.out).map_err(|e| cannot(&e))?;
    let scope = open::scope(ctx);
    let mut decide = |key: &[u8], value: &[u8]| fate(&scope, &reader, &writer, key, value);
    let out = BufWriter::with_capacity(1 << 20, temporary);
    let (out, counts) = rewrite(&store, out, args.drop_history, &mut decide)
        .map_err(|e| Failure::new("cannot rewrite the snapshot").because(&e))?;
    report_unreadable(ctx, &counts);
    if !counts.unreadable.is_empty() && !args.keep_unreadable {
        return Err(Failure::new(format!(
            "{} cannot be read; no file is written",
            values(counts.unreadable.len() as u64)
        ))
        .hint("give the configuration that has their keys as another --encryption-config, or copy them as they are with --keep-unreadable"));
    }
    let mut temporary = out.into_inner().map_err(|e| cannot(e.error()))?;
    append_hash(temporary.as_file_mut()).map_err(|e| cannot(&e))?;
    check(temporary.path(), &counts)?;
    temporary.place(false).map_err(|e| cannot(&e))?;
    ui::print(|out| report(format, args, &counts, out))?;
    Ok(if counts.unreadable.is_empty() { Exit::Ok } else { Exit::Partial })
}

fn values(n: u64) -> String {
    table::counted(n, "value", "values")
}

fn one_config(ctx: &Ctx, path: &Path) -> Result<ConfigSet, Failure> {
    let content = configuration::read(path)?;
    if let Some(warning) = &content.exposed {
        ctx.ui.warn(warning);
    }
    ConfigSet::new(configuration::load(&content)?)
        .ok_or_else(|| Failure::new(format!("{} holds no configuration", path.display())))
}

/// What becomes of one value.
fn fate(
    scope: &Scope,
    reader: &Transformers,
    writer: &Transformers,
    key: &[u8],
    value: &[u8],
) -> Fate {
    let location = scope.locate(key);
    if location.internal {
        return Fate::Keep;
    }
    let to = writer.for_resource(&location.resource);
    // By reading, not by name: an old and a new key may share one.
    let plaintext = match to.read(key, value) {
        Ok(opened) if !opened.stale => return Fate::Keep,
        Ok(opened) => opened.plaintext,
        Err(_) => match reader.for_resource(&location.resource).read(key, value) {
            Ok(opened) => opened.plaintext,
            Err(e) => return Fate::Unreadable(e.to_string()),
        },
    };
    // Another envelope would only hide what it is.
    if let Err(e) = crate::storage::type_meta(plaintext.expose()) {
        return Fate::Unreadable(e.to_string());
    }
    let written = match to.write(key, &plaintext) {
        Ok(written) => written,
        Err(e) => return Fate::Unreadable(format!("cannot be written: {e}")),
    };
    match to.read(key, &written) {
        Ok(back) if back.plaintext.same(&plaintext) => Fate::Replace(written),
        _ => Fate::Unreadable("does not read back as it was written".to_owned()),
    }
}

fn report_unreadable(ctx: &Ctx, counts: &Counts) {
    for (key, revision, reason) in counts.unreadable.iter().take(NAMED) {
        ctx.ui.warn(&format!(
            "cannot read {} at revision {revision}: {reason}",
            table::visible(&String::from_utf8_lossy(key))
        ));
    }
    if counts.unreadable.len() > NAMED {
        ctx.ui.warn(&format!("and {} more", counts.unreadable.len() - NAMED));
    }
}

/// Appends the SHA-256 that `etcdctl snapshot save` appends and `snapshot restore` checks.
fn append_hash(file: &mut std::fs::File) -> std::io::Result<()> {
    let mut hash = Sha256::new();
    file.rewind()?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
    }
    file.write_all(&hash.finalize())?;
    file.sync_all()
}

/// Opens the new file as a reader would, before it gets its name.
fn check(path: &Path, counts: &Counts) -> Result<(), Failure> {
    let wrong = || Failure::new("the new file does not read back as it was written");
    let mut snapshot = Snapshot::open(path, &SnapshotOptions::default())?;
    let mut records = 0;
    let all = Query {
        ranges: vec![crate::source::KeyRange { start: Vec::new(), end: None }],
        revision: None,
        ordered: false,
    };
    let visit = snapshot.history(&all, &mut |_| {
        records += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    (visit.damage.is_empty() && records == counts.events).then_some(()).ok_or_else(wrong)
}

fn report(
    format: Format,
    args: &Args,
    counts: &Counts,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    if format == Format::Json {
        let document = serde_json::json!({
            "schema": "atrest.rewrite/v1",
            "out": args.out.to_string_lossy(),
            "records": counts.records,
            "rewritten": counts.rewritten,
            "dropped": counts.dropped,
            "unreadable": counts.unreadable.len(),
        });
        writeln!(out, "{document:#}")
    } else {
        writeln!(
            out,
            "{}: {} of {} rewritten, {} left out, {} unreadable",
            args.out.display(),
            table::count(counts.rewritten),
            values(counts.records),
            table::count(counts.dropped),
            table::count(counts.unreadable.len() as u64)
        )?;
        writeln!(out, "restore it with: etcdutl snapshot restore {}", args.out.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bolt::write::Writer;

    #[test]
    fn a_new_file_that_lacks_or_has_more_than_was_written_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file, 4096).unwrap();
        let mut keys = writer.bucket(b"key");
        for main in 2..5u8 {
            let mut revision = [0; 17];
            (revision[7], revision[8]) = (main, b'_');
            keys.put(&revision, &[0x0A, 1, b'a' + main, 0x10, main, 0x18, main, 0x20, 1]).unwrap();
        }
        // As `snapshot restore --bump-revision` leaves it: a record, but no event.
        let mut marker = [0; 17];
        (marker[7], marker[8]) = (9, b'_');
        keys.put(&marker, &[]).unwrap();
        keys.finish().unwrap();
        let mut file = writer.finish(3).unwrap();
        append_hash(file.as_file_mut()).unwrap();
        let counts = |events| Counts { records: 4, events, ..Counts::default() };
        assert!(check(file.path(), &counts(3)).is_ok());
        for wrong in [2, 4] {
            assert!(check(file.path(), &counts(wrong)).is_err(), "{wrong}");
        }
    }
}
