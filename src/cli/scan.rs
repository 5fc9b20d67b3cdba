//! `atrest scan`.

use std::ops::ControlFlow;

use clap::ValueEnum;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::open::{self, Selection};
use super::progress::Progress;
use super::{Ctx, ending, nothing, ui};
use crate::config::ConfigSet;
use crate::entry::{Entry, EntryRef};
use crate::report::Format;
use crate::report::scan::{KeyReads, Report};
use crate::report::table;
use crate::resource::Sought;
use crate::scan::place::look;
use crate::scan::{
    ByPrefix, ByReading, Causes, Counts, Finding, Judge, Judged, Prefixes, Status, Totals,
};
use crate::source::{Census, Query, Source, Visit};
use crate::storage;
use crate::transform::Transformers;

/// Options of `scan`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// One row per entry
    #[arg(long)]
    pub list: bool,

    /// Also decrypt every entry (needs --encryption-config)
    #[arg(long)]
    pub verify: bool,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long, requires = "verify")]
    pub try_keys: bool,

    /// Exit 3 when an entry has one of these states
    #[arg(long, value_name = "STATUS[,…]", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,

    /// Stay on the live etcd and follow what changes: a live view on a terminal, otherwise a JSON
    /// line per change of counts
    #[arg(long, conflicts_with_all = ["list", "fail_on"])]
    pub watch: bool,

    /// With --watch: exit when nothing is left to rewrite
    #[arg(long, requires = "watch")]
    pub until_done: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format [default: table]
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv, Format::Prometheus, Format::Html]), help_heading = "Output")]
    pub write_out: Option<Format>,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.source,
            &self.selection,
            &self.allow_empty,
            &self.revision,
            &self.reading,
            &self.output,
        ])
    }
}

/// States that `--fail-on` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Stored unencrypted
    Plaintext,
    /// Stored encrypted
    Encrypted,
    /// What the API server would write now
    Current,
    /// Readable, but the API server would rewrite it
    Stale,
    /// No configured provider can read it, or what it reads is no object
    Unreadable,
    /// Current or stale: that could not be decided
    Unknown,
    /// Holds another object than its key says (with --verify)
    Misplaced,
}

impl FailOn {
    fn count(self, totals: &Totals) -> u64 {
        match self {
            Self::Plaintext => totals.plaintext,
            Self::Encrypted => totals.encrypted,
            Self::Current => totals.current,
            // What is not known to be current may be stale.
            Self::Stale => totals.stale + totals.unknown,
            Self::Unreadable => totals.unreadable,
            Self::Unknown => totals.unknown,
            Self::Misplaced => totals.misplaced,
        }
    }

    fn needs_config(self) -> bool {
        !matches!(self, Self::Plaintext | Self::Encrypted)
    }
}

/// How many misplaced entries are named on stderr; `--list` names all.
const NAMED: usize = 20;

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out.unwrap_or(Format::Table);
    let configs = crate::cli::inside::configs(ctx)?;
    if configs.is_none() {
        needs_no_config(args)?;
    }
    if args.fail_on.contains(&FailOn::Misplaced) && !args.verify {
        return Err(Failure::usage("--fail-on misplaced says nothing without reading the values")
            .hint("add --verify"));
    }
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let mut source = open::source(ctx)?;
    let info = source.info();
    let list = args.list || format == Format::Jsonl;
    let query = selection.query(ctx.global.revision, list);

    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let transformers = transformers.map(|t| t.try_keys(args.try_keys));
    let judge: Box<dyn CountingJudge + '_> = match (&transformers, args.verify) {
        (None, _) => Box::new(Prefixes),
        (Some(t), false) => Box::new(ByPrefix(t)),
        (Some(t), true) => Box::new(ByReading::new(t)),
    };
    let mut folder =
        Folder::new(&selection, judge.as_ref(), list, nothing::sought(ctx, &selection));
    let progress = Progress::entries(&ctx.ui, || source.estimate(&query));
    let mut visit = folder.visit(source.as_mut(), &query, args.verify, &progress)?;
    visit.damage.extend(open::unexamined(ctx, &selection));
    progress.finish();
    if let Some(transformers) = &transformers {
        folder.look(source.as_mut(), visit.revision, transformers)?;
    }
    let Folder { counts, entries, unreadable, unknown, misplaced, mut sought, .. } = folder;
    ending::notes(ctx, &visit);
    let totals = counts.totals();
    if ctx.global.namespace.is_empty() {
        counts.groups().iter().for_each(|(group, _)| sought.saw_resource(&group.resource));
    }
    if let Err(nothing) = nothing::check(ctx, source.as_mut(), &selection, &sought) {
        ending::damage(ctx, &visit.damage);
        return Err(nothing);
    }
    drop(source);
    if totals.entries == 0 && !args.fail_on.is_empty() && !ctx.global.allow_empty {
        return Err(Failure::new(format!(
            "no entry of {} was examined, so --fail-on has nothing to say",
            selection.words()
        ))
        .hint("name what is there with --resource; or --allow-empty, if empty is fine"));
    }

    let report = Report {
        source: &info,
        visit: &visit,
        config: configs.as_ref().map(open::config_wire),
        reads: configs.as_ref().map(|c| judge.reads(c)).unwrap_or_default(),
        counts: &counts,
        looked_for: selection.words(),
        verified: args.verify,
        entries: entries.as_deref(),
        timestamp: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
    };
    ui::print(|out| report.write(format, ctx.ui.color, out))?;

    name_causes(ctx, "unreadable:", &unreadable, list);
    if unreadable.any(open::is_other_name) {
        ctx.ui.note(open::TRY_KEYS);
    }
    name_causes(ctx, "current or stale, unknown:", &unknown, list);
    name_misplaced(ctx, &misplaced, totals.misplaced);
    ending::damage(ctx, &visit.damage);
    if args.fail_on.iter().any(|f| f.count(&totals) > 0) {
        return Ok(Exit::Found);
    }
    if totals.unreadable > 0 || totals.misplaced > 0 || !visit.damage.is_empty() {
        return Ok(Exit::Partial);
    }
    Ok(Exit::Ok)
}

/// Options that mean nothing without a configuration are not ignored.
fn needs_no_config(args: &Args) -> Result<(), Failure> {
    if let Some(f) = args.fail_on.iter().find(|f| f.needs_config()) {
        let word = f.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        return Err(Failure::usage(format!(
            "--fail-on {word} says nothing without a configuration"
        ))
        .hint("give the API server's file with --encryption-config"));
    }
    if args.verify { Err(verify_needs_keys()) } else { Ok(()) }
}

/// What is wrong with entries, a line for each cause.
fn name_causes(ctx: &Ctx, what: &str, causes: &Causes, list: bool) {
    for line in causes.lines(what) {
        let more = !list && line.contains(" more");
        ctx.ui.warn(&format!("{line}{}", if more { "; --list names each" } else { "" }));
    }
}

/// Of `total` misplaced entries, the first ones.
fn name_misplaced(ctx: &Ctx, first: &[Finding], total: u64) {
    for f in first {
        let key = table::visible(&String::from_utf8_lossy(&f.key));
        if let Some(misplaced) = &f.judged.misplaced {
            ctx.ui.warn(&format!("misplaced: {key}: {misplaced}"));
        }
    }
    if total > first.len() as u64 {
        ctx.ui.warn(&format!(
            "and {} more that are misplaced; --list names each",
            table::count(total - first.len() as u64)
        ));
    }
}

/// `--verify` without a configuration.
pub(super) fn verify_needs_keys() -> Failure {
    Failure::usage("--verify needs keys to decrypt with")
        .hint("give the API server's file with --encryption-config")
}

/// A judge that may also know which key read how many entries.
trait CountingJudge: Judge {
    /// Which file's which key read how many entries.
    fn reads(&self, configs: &ConfigSet) -> Vec<KeyReads> {
        let _ = configs;
        Vec::new()
    }
}

impl CountingJudge for Prefixes {}

impl CountingJudge for ByPrefix<'_> {}

impl CountingJudge for ByReading<'_> {
    fn reads(&self, configs: &ConfigSet) -> Vec<KeyReads> {
        let location = |i: usize| configs.files().get(i).map(|f| f.location.clone());
        ByReading::reads(self)
            .into_iter()
            .map(|r| KeyReads {
                config: location(r.used.config).unwrap_or_default(),
                provider: r.used.provider.to_string(),
                key: r.used.key.map(|k| k.to_string()),
                entries: r.entries,
            })
            .collect()
    }
}

/// Entries waiting to be decrypted by several threads.
const BATCH_ENTRIES: usize = 4096;
const BATCH_BYTES: usize = 16 << 20;

struct Folder<'a> {
    /// Whether what was asked for by name is there.
    sought: Sought,
    selection: &'a Selection,
    judge: &'a dyn CountingJudge,
    counts: Counts,
    entries: Option<Vec<Finding>>,
    /// How the key before began, and its resource: where only counts are wanted, keys that begin
    /// alike need not be taken apart again.
    before: Option<(Vec<u8>, String)>,
    /// Unreadable entries by cause.
    unreadable: Causes,
    /// Those whose status could not be decided, by cause.
    unknown: Causes,
    /// Misplaced entries, the first few by key.
    misplaced: Vec<Finding>,
}

impl<'a> Folder<'a> {
    fn new(
        selection: &'a Selection,
        judge: &'a dyn CountingJudge,
        list: bool,
        sought: Sought,
    ) -> Self {
        Self {
            sought,
            selection,
            judge,
            counts: Counts::default(),
            entries: list.then(Vec::new),
            before: None,
            unreadable: Causes::default(),
            unknown: Causes::default(),
            misplaced: Vec::new(),
        }
    }

    fn visit(
        &mut self,
        source: &mut dyn Source,
        query: &Query,
        parallel: bool,
        progress: &Progress,
    ) -> Result<Visit, Failure> {
        if !parallel {
            return Ok(source.survey(query, &mut Counting { folder: self, progress })?);
        }
        let mut batch: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut sink = |entry: EntryRef<'_>| {
            bytes += entry.stored().len();
            batch.push(entry.to_entry());
            if batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES {
                progress.advance(batch.len() as u64);
                self.many(&batch);
                batch.clear();
                bytes = 0;
            }
            ControlFlow::Continue(())
        };
        let visit = source.visit(query, &mut sink)?;
        self.many(&batch);
        progress.advance(batch.len() as u64);
        Ok(visit)
    }

    /// Finds out what is where misplaced objects belong.
    fn look(
        &mut self,
        source: &mut dyn Source,
        revision: i64,
        transformers: &Transformers,
    ) -> Result<(), Failure> {
        let mut found: Vec<_> = self
            .misplaced
            .iter_mut()
            .chain(self.entries.iter_mut().flatten())
            .filter_map(|f| f.judged.misplaced.as_deref_mut())
            .collect();
        let scope = &self.selection.scope;
        let read = |entry: EntryRef<'_>| {
            let location = scope.locate(entry.key);
            let reader = transformers.for_resource(&location.resource);
            let opened = reader.read(entry.key, entry.stored()).ok()?;
            Some(storage::type_meta(opened.plaintext.expose()).ok()?.into_owned())
        };
        Ok(look(source, revision, &mut found, &read)?)
    }

    /// The group of an entry like the one before, which needs no more than to be counted.
    fn like_before(&mut self, entry: EntryRef<'_>) -> Option<usize> {
        let (head, resource) = self.before.as_ref()?;
        if self.entries.is_some() || !entry.key.starts_with(head) {
            return None;
        }
        let judged = self.judge.judge(resource, entry.key, entry.stored());
        let plain = matches!(judged.status, None | Some(Status::Current | Status::Stale));
        plain.then(|| self.counts.group(resource, &judged))
    }

    fn one(&mut self, entry: EntryRef<'_>) {
        if let Some(group) = self.like_before(entry) {
            self.counts.add_to(group, entry.stored().len() as u64);
            return;
        }
        let Some(location) = self.selection.locate(entry.key) else { return };
        if location.internal {
            self.counts.internal += 1;
            self.saw_internal(&location);
            return;
        }
        let judged = self.judge.judge(&location.resource, entry.key, entry.stored());
        self.fold(entry, &location, judged);
        self.remember(entry.key, location);
    }

    /// What lies below another prefix is nothing of this one.
    fn saw_internal(&mut self, location: &crate::resource::Location<'_>) {
        if !location.resource.is_empty() {
            self.sought.saw(location);
        }
    }

    /// Keys that begin alike belong to the same resource.
    fn remember(&mut self, key: &[u8], location: crate::resource::Location<'_>) {
        if self.selection.namespaces.is_empty() {
            let head = key[..location.object_at].to_vec();
            self.before = Some((head, location.resource.into_owned()));
        }
    }

    fn many(&mut self, batch: &[Entry]) {
        use rayon::prelude::*;
        let (selection, judge) = (self.selection, self.judge);
        let judged: Vec<_> = batch
            .par_iter()
            .map(|entry| {
                let location = selection.locate(&entry.key)?;
                let judged = (!location.internal)
                    .then(|| judge.judge_at(&location, &entry.key, &entry.value));
                Some((entry, location, judged))
            })
            .collect();
        for (entry, location, judged) in judged.into_iter().flatten() {
            if let Some(judged) = judged {
                self.fold(entry.as_ref(), &location, judged);
            } else {
                self.counts.internal += 1;
                self.saw_internal(&location);
            }
        }
    }

    fn fold(
        &mut self,
        entry: EntryRef<'_>,
        location: &crate::resource::Location<'_>,
        judged: Judged<'_>,
    ) {
        self.counts.add(&location.resource, &judged, entry.stored().len() as u64);
        if !self.selection.namespaces.is_empty() {
            self.sought.saw(location);
        }
        let causes = match judged.status {
            Some(Status::Unreadable) => Some(&mut self.unreadable),
            Some(Status::Unknown) => Some(&mut self.unknown),
            _ => None,
        };
        if let Some(causes) = causes {
            let reason = judged.reason.as_deref();
            causes.add(entry.key, reason.unwrap_or("no configured provider can read it"));
        }
        // The first in the order of keys, whatever order they come in: the same for every run.
        let place = match self.misplaced.binary_search_by(|f| f.key.as_slice().cmp(entry.key)) {
            Err(place) if judged.misplaced.is_some() && place < NAMED => Some(place),
            _ => None,
        };
        if self.entries.is_none() && place.is_none() {
            return;
        }
        let finding = Finding::new(entry, location, judged);
        if let Some(place) = place {
            self.misplaced.insert(place, finding.clone());
            self.misplaced.truncate(NAMED);
        }
        if let Some(entries) = &mut self.entries {
            entries.push(finding);
        }
    }
}

/// Counts what a source surveys.
struct Counting<'f, 'a> {
    folder: &'f mut Folder<'a>,
    progress: &'f Progress,
}

impl Census for Counting<'_, '_> {
    fn glance(&mut self, entry: EntryRef<'_>) -> Option<u32> {
        if self.folder.entries.is_some() {
            return None;
        }
        let group = self.folder.like_before(entry).or_else(|| {
            let location = self.folder.selection.locate(entry.key).filter(|l| !l.internal)?;
            self.folder.remember(entry.key, location);
            self.folder.like_before(entry)
        });
        u32::try_from(group?).ok()
    }

    fn count(&mut self, number: u32, bytes: u64) {
        self.progress.advance(1);
        self.folder.counts.add_to(number as usize, bytes);
    }

    fn entry(&mut self, entry: EntryRef<'_>) {
        self.progress.advance(1);
        self.folder.one(entry);
    }
}
