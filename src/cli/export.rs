//! `atrest export`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::Value;

use super::args::{self, Shared};
use super::failure::{Exit, Failure, export_failure};
use super::open::{self, Selection};
use super::progress::Progress;
use super::restore::Exporting;
use super::{Ctx, ending, nothing, ui};
use crate::entry::EntryRef;
use crate::export::{Tree, clean, top};
use crate::objects::{Hollow, Objects, Shown};
use crate::report::objects::fields;
use crate::report::{Format, table};
use crate::resource::{Location, Selector};
use crate::scan::Causes;
use crate::scan::place::Misplaced;
use crate::source::{Query, Source};
use crate::storage;

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // flags are what a command line has
pub struct Args {
    /// Write one file per object below this directory: GROUP/RESOURCE/NAMESPACE/NAME.yaml
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Strip what the server fills in, for applying to another cluster
    #[arg(long)]
    pub clean: bool,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long)]
    pub try_keys: bool,

    /// Also write objects that are not what their etcd key says, under that key's name
    #[arg(long)]
    pub include_misplaced: bool,

    /// Replace existing files
    #[arg(long, requires = "out")]
    pub force: bool,

    /// Keep metadata.managedFields, which kubectl hides as well
    #[arg(long)]
    pub show_managed_fields: bool,

    /// Write what an empty cluster accepts, in numbered steps, and `DIR/apply.sh` to apply them
    #[arg(long, requires = "out", conflicts_with = "show_managed_fields")]
    pub restore: bool,

    /// Say what is left out, changed or converted, and why
    #[arg(long, requires = "restore")]
    pub explain: bool,

    #[command(flatten)]
    pub choices: super::restore::Choices,

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

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Yaml, Format::Json]), default_value = "yaml", help_heading = "Output")]
    pub write_out: Format,

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

/// How many misplaced objects are named.
const NAMED: usize = 20;

/// What other objects need to exist first.
const FIRST: [&str; 2] = ["namespaces", "customresourcedefinitions.apiextensions.k8s.io"];

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    if let Some(dir) = args.out.as_deref().filter(|_| args.restore) {
        let exporting = Exporting {
            choices: &args.choices,
            format: args.write_out,
            include_misplaced: args.include_misplaced,
            force: args.force,
            explain: args.explain,
        };
        return super::restore::export(ctx, &exporting, dir);
    }
    if let Some(option) = args.choices.given() {
        return Err(Failure::usage(format!("{option} is for --restore"))
            .hint("atrest export --restore --out DIR, or atrest restore plan"));
    }
    let format = args.write_out;
    let reader = super::inside::objects(ctx)?
        .managed_fields(args.show_managed_fields)
        .try_keys(args.try_keys);
    let selection = open::selection(ctx, reader.resources())?;
    let mut source = open::source(ctx)?;
    nothing::look(ctx, source.as_mut(), &selection)?;
    let tree = match &args.out {
        Some(dir) => Some(Tree::open(dir, args.force).map_err(|e| export_failure(&e))?),
        None => None,
    };
    for remark in tree.iter().flat_map(Tree::remarks) {
        ctx.ui.warn(&remark);
    }
    let mut writer = Writer::new(ctx, args, format, tree);
    let mut query = selection.query(ctx.global.revision, true);
    let progress = Progress::entries(&ctx.ui, || source.estimate(&query));

    // Namespaces and definitions come first, so that the result can be applied in order.
    let first = selection.only(&FIRST);
    let mut damage = Vec::new();
    let mut notes = Vec::new();
    let mut passes = Vec::new();
    if !first.resources.is_empty() {
        passes.push((&first, true));
    }
    passes.push((&selection, false));
    for (pass, is_first) in passes {
        let ranges = Query { ranges: pass.query(None, true).ranges, ..query.clone() };
        let visit = writer.visit(
            source.as_mut(),
            &ranges,
            &reader,
            &progress,
            |location| {
                pass.resources.iter().any(|s| s.matches(&location.resource))
                    && FIRST.contains(&location.resource.as_ref()) == is_first
            },
            &selection,
        )?;
        // Both passes see one state.
        query.revision = Some(visit.revision);
        damage = visit.damage;
        notes = visit.notes;
    }
    progress.finish();
    writer.finish()?;
    let revision = query.revision.unwrap_or_default();
    writer.tell(|found| Ok(reader.look(source.as_mut(), revision, &selection.scope, found)?));
    for note in &notes {
        ctx.ui.note(note);
    }
    ending::damage(ctx, &damage);
    if let Some(dir) = &args.out {
        ctx.ui.note(&format!(
            "{} written to {}",
            table::counted(writer.written, "object", "objects"),
            dir.display()
        ));
        if args.clean {
            // As they are stored they need not be served, and not in this order.
            ctx.ui
                .note("for another cluster: export --restore writes what it accepts, and a script");
        }
    }
    if writer.failed > 0 {
        ctx.ui.warn(&format!("{} could not be exported", table::entries(writer.failed)));
    }
    if writer.left_out > 0 {
        ctx.ui.warn(&format!(
            "{} left out: they are not the objects that their keys say; --include-misplaced writes them as well",
            table::entries(writer.left_out)
        ));
    }
    Ok(if writer.left_out > 0 || writer.failed > 0 || writer.incomplete > 0 || !damage.is_empty() {
        Exit::Partial
    } else {
        Exit::Ok
    })
}

struct Writer<'c> {
    ctx: &'c Ctx,
    clean: bool,
    include_misplaced: bool,
    format: Format,
    tree: Option<Tree>,
    out: std::io::BufWriter<std::io::StdoutLock<'static>>,
    written: u64,
    failed: u64,
    /// Written, but with fields missing that this version does not know.
    incomplete: u64,
    /// Misplaced, and so not written.
    left_out: u64,
    /// Why some could not be written.
    causes: Causes,
    /// Misplaced objects by their keys, the first few.
    misplaced: Vec<(Vec<u8>, Box<Misplaced>)>,
    error: Option<Failure>,
}

impl<'c> Writer<'c> {
    fn new(ctx: &'c Ctx, args: &Args, format: Format, tree: Option<Tree>) -> Self {
        Self {
            ctx,
            clean: args.clean,
            include_misplaced: args.include_misplaced,
            format,
            tree,
            out: ui::stdout(),
            written: 0,
            failed: 0,
            incomplete: 0,
            left_out: 0,
            causes: Causes::default(),
            misplaced: Vec::new(),
            error: None,
        }
    }

    fn visit(
        &mut self,
        source: &mut dyn Source,
        query: &Query,
        reader: &Objects,
        progress: &Progress,
        wanted: impl Fn(&Location<'_>) -> bool,
        selection: &Selection,
    ) -> Result<crate::source::Visit, Failure> {
        let visit = source.visit(query, &mut |entry| {
            let location = selection.locate(entry.key);
            let Some(location) = location.filter(|l| !l.internal && wanted(l)) else {
                return ControlFlow::Continue(());
            };
            progress.advance(1);
            match self.one(entry, &location, reader) {
                Ok(()) => ControlFlow::Continue(()),
                Err(failure) => {
                    self.error = Some(failure);
                    ControlFlow::Break(())
                }
            }
        })?;
        match self.error.take() {
            Some(failure) => Err(failure),
            None => Ok(visit),
        }
    }

    fn one(
        &mut self,
        entry: EntryRef<'_>,
        location: &Location<'_>,
        reader: &Objects,
    ) -> Result<(), Failure> {
        let key = || table::visible(&String::from_utf8_lossy(entry.key));
        let mut shown = match reader.read(entry, location) {
            Ok(shown) => shown,
            Err(not) => {
                self.failed += 1;
                self.causes.add(entry.key, &not.words());
                return Ok(());
            }
        };
        if let Some(found) = shown.judged.misplaced.take() {
            if self.misplaced.len() < NAMED {
                self.misplaced.push((entry.key.to_vec(), found));
            }
            if !self.include_misplaced {
                self.left_out += 1;
                return Ok(());
            }
        }
        if let Some(hollow) = shown.hollow.take() {
            self.failed += 1;
            return self.raw(&hollow, location, entry.key);
        }
        let Shown { unknown, json, .. } = &mut shown;
        if !unknown.is_empty() {
            self.incomplete += 1;
            self.ctx.ui.warn(&format!("{}: these are missing: {}", key(), fields(unknown)));
        }
        if self.clean {
            clean(json);
        }
        self.object(json, location, entry.key)
    }

    /// The bytes of an object that cannot be written as a manifest, beside the reason: not lost,
    /// and no manifest that would make an empty object. There is no place for them on stdout.
    fn raw(&mut self, hollow: &Hollow, location: &Location<'_>, key: &[u8]) -> Result<(), Failure> {
        let Some(tree) = &self.tree else {
            self.causes.add(key, &hollow.reason);
            return Ok(());
        };
        let directories = directories(location, key);
        let (_, name) = location.exactly(key);
        let reason = format!(
            "{}.\nThe stored bytes, decrypted, are in the file beside this one.\n",
            hollow.reason
        );
        for (extension, content) in
            [(".protobuf", hollow.bytes.expose()), (".protobuf.txt", reason.as_bytes())]
        {
            tree.write(&directories, name, extension, content).map_err(|e| export_failure(&e))?;
        }
        self.causes.add(key, &format!("{}; its bytes are in a .protobuf file", hollow.reason));
        Ok(())
    }

    /// What was not written, and why.
    fn tell(&mut self, look: impl FnOnce(&mut [&mut Misplaced]) -> Result<(), Failure>) {
        for line in self.causes.lines("cannot export") {
            self.ctx.ui.warn(&line);
        }
        if self.causes.any(|cause| cause.contains(" reads it (")) {
            self.ctx.ui.note(open::TRY_KEYS);
        }
        // That nobody can look makes the objects no less misplaced.
        let _ = look(&mut self.misplaced.iter_mut().map(|(_, m)| &mut **m).collect::<Vec<_>>());
        for (key, found) in &self.misplaced {
            let key = table::visible(&String::from_utf8_lossy(key));
            self.ctx.ui.warn(&format!("misplaced: {key}: {found}"));
        }
    }

    fn object(&mut self, json: &Value, location: &Location<'_>, key: &[u8]) -> Result<(), Failure> {
        let text = zeroize::Zeroizing::new(match self.format {
            Format::Json => format!("{json:#}\n"),
            _ => storage::yaml::to_string(json),
        });
        if let Some(tree) = &self.tree {
            // By the key's own bytes: as text, names that are none would be alike.
            let (_, name) = location.exactly(key);
            let directories = directories(location, key);
            let extension = if self.format == Format::Json { ".json" } else { ".yaml" };
            tree.write(&directories, name, extension, text.as_bytes())
                .map_err(|e| export_failure(&e))?;
            self.written += 1;
            return Ok(());
        }
        let first = self.written == 0;
        let result = if self.format == Format::Json {
            let lead = if first { LIST_HEAD } else { "," };
            let indented = zeroize::Zeroizing::new(text.trim_end().replace('\n', "\n    "));
            write!(self.out, "{lead}\n    {}", indented.as_str())
        } else {
            let lead = if first { "" } else { "---\n" };
            write!(self.out, "{lead}{}", text.as_str())
        };
        self.written += 1;
        result.map_err(|e| ui::write_failure(&e))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.tree.is_none() && self.format == Format::Json {
            let tail = if self.written == 0 { EMPTY_LIST } else { LIST_TAIL };
            write!(self.out, "{tail}").map_err(|e| ui::write_failure(&e))?;
        }
        if let Some(tree) = &self.tree {
            tree.sync().map_err(|e| export_failure(&e))?;
        }
        self.out.flush().map_err(|e| ui::write_failure(&e))
    }
}

/// Where an object's file lies below the tree.
fn directories<'a>(location: &'a Location<'_>, key: &'a [u8]) -> Vec<&'a [u8]> {
    let (group, resource) = top(&location.resource);
    let mut directories = vec![group.as_bytes(), resource.as_bytes()];
    directories.extend(location.exactly(key).0);
    directories
}

// The list is written as it is read; its frame is that of `list` in serde_json's order.
const LIST_HEAD: &str = "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"List\",\n  \"items\": [";
const LIST_TAIL: &str = "\n  ]\n}\n";
const EMPTY_LIST: &str =
    "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"List\",\n  \"items\": []\n}\n";

impl Selection {
    /// The selection narrowed to some resources.
    fn only(&self, resources: &[&str]) -> Self {
        let narrowed = resources
            .iter()
            .filter(|r| self.resources.iter().any(|s| s.matches(r)))
            .map(|r| Selector::Exact((*r).to_owned()))
            .collect();
        Self { resources: narrowed, ..self.clone() }
    }
}
