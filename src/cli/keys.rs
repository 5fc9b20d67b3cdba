//! `atrest keys`.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::open::Selection;
use super::{Ctx, ending, nothing, open, ui};
use crate::config::{ConfigSet, Provider as Configured};
use crate::entry::EntryRef;
use crate::envelope::{Provider, Version};
use crate::forensics::keys::{Census, KeyName, PluginKeys};
use crate::kms::{Plugins, Unwrap as _};
use crate::report::Format;
use crate::report::keys::Report;
use crate::resource::{Selector, Sought};
use crate::scan::{ByPrefix, Judge, Prefixes};
use crate::source::{Query, Record, Source, SourceError, SourceKind, Visit};

/// Options of `keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
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
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv]), default_value = "table", help_heading = "Output")]
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

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out;
    let configs = crate::cli::inside::configs(ctx)?;
    let selection = open::selection(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
    let judge: Box<dyn Judge + '_> = match &transformers {
        None => Box::new(Prefixes),
        Some(t) => Box::new(ByPrefix(t)),
    };
    let mut source = open::source(ctx)?;
    let info = source.info();
    // A key that only other resources or namespaces need is needed all the same, so all are read.
    let mut query = Query {
        ranges: selection.scope.ranges(&[Selector::All]),
        revision: ctx.global.revision,
        ordered: false,
    };
    let mut served = Served::new(configs.as_ref(), &selection);
    let mut sought = nothing::sought(ctx, &selection);
    let mut read = |source: &mut dyn Source, query: &Query, served: &mut Served<'_>| {
        count(ctx, source, query, &selection, judge.as_ref(), (served, &mut sought))
    };
    let mut all_read = true;
    let counted = match read(source.as_mut(), &query, &mut served) {
        // What the user may read is most likely what the configuration serves.
        Err(e) if e.is_unreadable_to_user() => {
            let judged = selection.judged(configs.as_ref().map(ConfigSet::resources));
            query.ranges = judged.query(None, false).ranges;
            let counted = read(source.as_mut(), &query, &mut served)?;
            ctx.ui.warn(&format!("only {} could be read: {e}", judged.names()));
            all_read = false;
            counted
        }
        counted => counted?,
    };
    let Counted { census, mut visit, with_history } = counted;
    let judged = selection.judged(configs.as_ref().map(ConfigSet::resources));
    visit.damage.extend(open::unexamined(ctx, &judged));
    ending::notes(ctx, &visit);
    if let Err(nothing) = nothing::check(ctx, source.as_mut(), &selection, &sought) {
        ending::damage(ctx, &visit.damage);
        return Err(nothing);
    }
    let plugins = configs.as_ref().map(plugin_keys).unwrap_or_default();
    for (name, said) in &plugins {
        if let Err(why) = said {
            ctx.ui.warn(&format!(
                "which key ID the KMS provider `{name}` writes with is not known: {why}"
            ));
        }
    }
    // What the configuration does not serve is nobody's to read by it; without one, anything may
    // need a key.
    let complete = visit.damage.is_empty() && (all_read || configs.is_some());
    let keys = census.rows(configs.as_ref(), &plugins, with_history, complete);
    let report = Report {
        source: &info,
        visit: &visit,
        config: configs.as_ref().map(open::config_wire),
        keys: &keys,
    };
    ui::print(|out| report.write(format, ctx.ui.color, out))?;
    ending::damage(ctx, &visit.damage);
    let safe = keys.iter().any(|k| k.safe_to_remove && k.configured == Some(true));
    if safe || keys.iter().any(|k| k.key_id_needed == Some(false)) {
        ctx.ui.note("what nothing needs here, backups taken earlier may still need");
    }
    Ok(if visit.damage.is_empty() { Exit::Ok } else { Exit::Partial })
}

/// What the entries and revisions of a source need.
struct Counted {
    census: Census,
    visit: Visit,
    /// Superseded revisions are counted, too.
    with_history: bool,
}

fn count(
    ctx: &Ctx,
    source: &mut dyn Source,
    query: &Query,
    selection: &Selection,
    judge: &dyn Judge,
    (served, sought): (&mut Served<'_>, &mut Sought),
) -> Result<Counted, SourceError> {
    let mut census = Census::default();
    let mut tell = |entry: EntryRef<'_>, add: &mut dyn FnMut(KeyName, bool)| {
        let location = selection.scope.locate(entry.key);
        if !location.internal {
            let judged = judge.judge(&location.resource, entry.key, entry.stored());
            let asked_for = selection.locate(entry.key).is_some();
            if asked_for || judged.provider != Provider::Identity || served.has(&location.resource)
            {
                add(KeyName::of(&judged), asked_for);
            }
        }
    };
    let mut visit = source.visit(query, &mut |entry| {
        if let Some(location) = selection.locate(entry.key).filter(|_| !sought.is_complete()) {
            sought.saw(&location);
        }
        tell(entry, &mut |name, selected| census.live(name, selected));
        ControlFlow::Continue(())
    })?;
    let past = Query { revision: Some(visit.revision), ..query.clone() };
    let history = source.history(&past, &mut |record| {
        if let Record::Put(entry) = record {
            tell(entry, &mut |name, _| census.held(name));
        }
        ControlFlow::Continue(())
    });
    let with_history = match history {
        Ok(held) => {
            for damage in held.damage {
                if !visit.damage.contains(&damage) {
                    visit.damage.push(damage);
                }
            }
            for note in held.notes {
                if !visit.notes.contains(&note) {
                    visit.notes.push(note);
                }
            }
            true
        }
        Err(e) if source.info().kind == SourceKind::Etcd => {
            ctx.ui.note(&format!("superseded revisions were not counted: {e}"));
            false
        }
        Err(e) => return Err(e),
    };
    Ok(Counted { census, visit, with_history })
}

/// Which resources' plaintext needs an identity provider of the configuration. What it does not
/// serve is read without one. Where there is no configuration, Secrets are taken to be served.
struct Served<'a> {
    configs: Option<&'a ConfigSet>,
    selection: &'a Selection,
    known: HashMap<String, bool>,
}

impl<'a> Served<'a> {
    fn new(configs: Option<&'a ConfigSet>, selection: &'a Selection) -> Self {
        Self { configs, selection, known: HashMap::new() }
    }

    fn has(&mut self, resource: &str) -> bool {
        if let Some(known) = self.known.get(resource) {
            return *known;
        }
        let served = match self.configs {
            Some(set) => {
                set.files().iter().any(|f| !f.config.serving(resource).is_implied_identity())
            }
            None => {
                resource == "secrets"
                    || self.selection.resources.iter().any(|r| r.matches(resource))
            }
        };
        self.known.insert(resource.to_owned(), served);
        served
    }
}

/// Asks the KMS v2 plugins that write what they write with.
fn plugin_keys(set: &ConfigSet) -> PluginKeys {
    let config = &set.current().config;
    let plugins = Plugins::new();
    let mut said = PluginKeys::new();
    for resource in config.group_resources() {
        let serving = config.serving(&resource.to_string());
        if let Some(Configured::Kms(kms)) = serving.providers.first().map(|s| s.provider)
            && kms.api_version == Version::V2
        {
            said.entry(kms.name.clone()).or_insert_with(|| {
                plugins.key_id(kms).map(|id| id.to_string()).map_err(|e| e.to_string())
            });
        }
    }
    said
}
