//! Shared arguments → an open source, the selected resources and the key prefix. The one place
//! where low-level arguments become built objects.

use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use super::{Ctx, credentials, datastore, escrow, remote};
use crate::config::ConfigSet;
use crate::jobs::residue::Opened;
use crate::jobs::scan::Elsewhere;
use crate::kms::{Instead, Plugins, Program, Unwrap};
use crate::report::table;
pub use crate::resource::Selection;
use crate::resource::{DEFAULT_PREFIX, NamedKey, Scope, Selector};
use crate::source::data_dir::DataDir;
use crate::source::kine::Kine;
use crate::source::live::{Live, LiveOptions};
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{Damage, FileError, Input, Source, SourceError};
use crate::transform::Transformers;

/// Opens the source that the options name.
///
/// # Errors
/// When it cannot be opened, with a hint.
pub fn source(ctx: &Ctx) -> Result<Box<dyn Source>, Failure> {
    Ok(files(ctx)?.into_source())
}

/// As [`source`], for a job that looks into its files.
///
/// # Errors
/// As there.
pub fn files(ctx: &Ctx) -> Result<Opened, Failure> {
    let g = &ctx.global;
    let options = SnapshotOptions { skip_hash_check: g.skip_hash_check, salvage: g.salvage };
    let opened = if let Some(path) = &g.snapshot {
        match remote::fetch(ctx, path)? {
            Some((name, file)) => Opened::of_file(&name, Input::new(file, &ctx.unlock), &options)?,
            None => Opened::file(path, &ctx.unlock, &options)?,
        }
    } else if let Some(dir) = &g.data_dir {
        Opened::DataDir(match remote::fetch(ctx, dir)? {
            Some((name, file)) => DataDir::of_file(&name, Input::new(file, &ctx.unlock), &options)?,
            None => DataDir::open_with(dir, &ctx.unlock, &options)?,
        })
    } else if let Some(path) = g.kine.as_ref().and_then(|kine| kine.file()) {
        Opened::Kine(Box::new(Kine::open_with(path, &ctx.unlock)?))
    } else if let Some(url) = datastore::url(ctx) {
        datastore::open(ctx, url)?
    } else {
        Opened::Served(Box::new(live(ctx)?))
    };
    escrow::is_used(ctx)?;
    Ok(opened)
}

/// Opens a snapshot, which may lie elsewhere.
///
/// # Errors
/// When it cannot be opened or fetched, with a hint.
pub fn snapshot(ctx: &Ctx, path: &Path, options: &SnapshotOptions) -> Result<Snapshot, Failure> {
    let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
    let snapshot = if let Some((name, file)) = remote::fetch(ctx, path)? {
        Snapshot::of_file(&name, Input::new(file, &ctx.unlock), options)?
    } else {
        let file = Input::open(path, &ctx.unlock).map_err(|e| SourceError::from(unreadable(e)))?;
        Snapshot::of_file(path, file, options)?
    };
    escrow::is_used(ctx)?;
    Ok(snapshot)
}

/// Connects to the etcd that the options name.
///
/// # Errors
/// As [`Live::connect`] and [`credentials::of`].
pub fn live(ctx: &Ctx) -> Result<Live, Failure> {
    Ok(Live::connect(&live_options(ctx)?)?)
}

/// The etcd's endpoints: those of the options, or etcdctl's.
pub fn endpoints(ctx: &Ctx) -> Vec<String> {
    let given = &ctx.global.endpoints;
    if given.is_empty() { vec!["127.0.0.1:2379".to_owned()] } else { given.clone() }
}

/// How to connect to the etcd that the options name.
///
/// # Errors
/// As [`credentials::of`].
pub fn live_options(ctx: &Ctx) -> Result<LiveOptions, Failure> {
    let g = &ctx.global;
    let credentials = credentials::of(ctx)?;
    Ok(LiveOptions {
        endpoints: endpoints(ctx),
        cacert: g.cacert.clone(),
        cert: g.cert.clone(),
        key: g.key.clone(),
        credentials,
        insecure_skip_tls_verify: g.insecure_skip_tls_verify,
        insecure_transport: g.insecure_transport,
        dial_timeout: g.dial_timeout,
        command_timeout: g.command_timeout,
        keepalive_time: g.keepalive_time,
        keepalive_timeout: g.keepalive_timeout,
        tempo: g.tempo,
    })
}

/// How a configuration is named in reports.
pub fn config_wire(set: &ConfigSet) -> crate::report::wire::Config {
    let wire = |file: &crate::config::Loaded| crate::report::wire::Config {
        location: file.location.clone(),
        sha256: file.sha256.clone(),
        also: Vec::new(),
    };
    let also = set.files().iter().skip(1).map(wire).collect();
    crate::report::wire::Config { also, ..wire(set.current()) }
}

/// What is to be told beside entries that a secret under another name reads.
pub const TRY_KEYS: &str = "the right secret has another name in the configuration than in etcd: the API server needs the name that is stored; --try-keys reads such values here";

/// Whether a reason says that a secret under another name reads the value.
#[must_use]
pub fn is_other_name(reason: &str) -> bool {
    reason.ends_with(" reads it")
}

/// What unwraps KMS data keys: the plugins, or what the options name in their place. One for the
/// whole run, so that no data key is asked for twice.
#[must_use]
pub fn kms(ctx: &Ctx) -> Arc<dyn Unwrap> {
    let make = || -> Arc<dyn Unwrap> {
        let plugins = Arc::new(Plugins::new());
        let g = &ctx.global;
        if g.kms_exec.is_empty() && ctx.escrow.is_none() {
            return plugins;
        }
        let programs = g.kms_exec.iter().map(|e| Program::new(&e.name, &e.command, g.kms_timeout));
        let instead = programs.fold(Instead::of(plugins), Instead::program);
        Arc::new(ctx.escrow.iter().map(Arc::clone).fold(instead, Instead::escrow))
    };
    Arc::clone(ctx.kms.get_or_init(make))
}

/// What can be done about values that are not read: `any` says whether one of the reasons is such
/// a one.
pub fn advise(ctx: &Ctx, any: impl Fn(&dyn Fn(&str) -> bool) -> bool) {
    if any(&is_other_name) {
        ctx.ui.note(TRY_KEYS);
    }
    if let Some(namespace) = proxied(ctx)
        && any(&|reason| reason.contains("written under another etcd key"))
    {
        ctx.ui.note(&format!(
            "if an etcd proxy put {namespace} before the keys, the API server saw, and authenticated, others: --proxy-namespace {namespace} in place of --prefix says so"
        ));
    }
}

/// What a proxy may have put before the keys: of a prefix that ends with one of the API servers'
/// usual ones, the rest.
fn proxied(ctx: &Ctx) -> Option<String> {
    let prefix = ctx.global.prefix.as_deref().filter(|_| ctx.global.proxy_namespace.is_none())?;
    let scope = Scope::new(prefix);
    let usual = ["/registry/", "/kubernetes.io/"];
    let namespace = usual.iter().find_map(|usual| scope.base().strip_suffix(usual))?;
    (!namespace.is_empty()).then(|| table::visible(namespace))
}

/// The transformers of the configurations, with their KMS plugins.
///
/// # Errors
/// When a key does not fit its provider.
pub fn transformers(ctx: &Ctx, set: &ConfigSet) -> Result<Transformers, Failure> {
    Transformers::new(set, kms(ctx))
        .map(|t| t.behind(ctx.global.proxy_namespace.as_deref().unwrap_or_default().as_bytes()))
        .map_err(|e| Failure::new("the configuration cannot be used").because(&e))
}

/// What is asked for; `configured` are the resources of the encryption configuration, the default
/// when one is given.
///
/// # Errors
/// When a `--resource` is none.
pub fn selection(ctx: &Ctx, configured: Option<Vec<Selector>>) -> Result<Selection, Failure> {
    let global = &ctx.global;
    let resources = if global.all_resources {
        vec![Selector::All]
    } else if global.resource.is_empty() {
        configured.unwrap_or_else(|| vec![Selector::Exact("secrets".to_owned())])
    } else {
        global
            .resource
            .iter()
            .map(|r| Selector::parse(r).map_err(Failure::usage))
            .collect::<Result<_, _>>()?
    };
    Ok(Selection { scope: scope(ctx), resources, namespaces: global.namespace.clone() })
}

/// What is selected and lies in another etcd, of which the API server of the profile takes the
/// same client certificate. One that cannot be reached is a warning: [`unexamined`] tells of it.
#[must_use]
pub fn elsewhere(ctx: &Ctx, selection: &Selection) -> Vec<Elsewhere> {
    let selected = |resource: &str| selection.resources.iter().any(|r| r.matches(resource));
    let mut all: Vec<(&[String], Vec<String>)> = Vec::new();
    for o in ctx.global.overrides.iter().filter(|o| selected(&o.resource)) {
        match all.iter_mut().find(|(servers, _)| *servers == o.servers) {
            Some((_, resources)) => resources.push(o.resource.clone()),
            None => all.push((&o.servers, vec![o.resource.clone()])),
        }
    }
    let open = |(servers, resources): (&[String], Vec<String>)| {
        let connect = || {
            let options = LiveOptions { endpoints: servers.to_vec(), ..live_options(ctx)? };
            Ok::<_, Failure>(Live::connect(&options)?)
        };
        // A revision is one of the first etcd.
        let source = match ctx.global.revision {
            Some(_) => None,
            None => connect().inspect_err(|e| ctx.ui.warn(&e.message)).ok(),
        };
        Elsewhere { resources, source: source.map(|live| Box::new(live) as Box<dyn Source>) }
    };
    all.into_iter().map(open).collect()
}

/// What is selected and lies in an etcd that is not read: the API server of the profile keeps
/// those resources elsewhere.
#[must_use]
pub fn unexamined(ctx: &Ctx, selection: &Selection) -> Vec<Damage> {
    let selected = |resource: &str| selection.resources.iter().any(|r| r.matches(resource));
    ctx.global
        .overrides
        .iter()
        .filter(|o| selected(&o.resource))
        .map(|o| {
            let servers = o.servers.join(",");
            Damage {
                location: o.resource.clone(),
                what: format!(
                    "kept in another etcd ({servers}), which was not examined; it is read with --endpoints {servers} --resource {}",
                    o.resource
                ),
            }
        })
        .collect()
}

/// Where the API server keeps its objects: `--prefix` or its default, behind `--proxy-namespace`.
#[must_use]
pub fn scope(ctx: &Ctx) -> Scope {
    Scope::behind(
        ctx.global.proxy_namespace.as_deref().unwrap_or_default(),
        ctx.global.prefix.as_deref().unwrap_or(DEFAULT_PREFIX),
    )
}

/// KEYs, read in the scope and namespaces that the options name.
///
/// # Errors
/// When a text is no KEY.
pub fn keys(ctx: &Ctx, texts: &[String]) -> Result<Vec<NamedKey>, Failure> {
    let scope = scope(ctx);
    let named = |text: &String| NamedKey::parse(text, &scope, &ctx.global.namespace);
    texts.iter().map(named).collect::<Result<_, _>>().map_err(|e| {
        Failure::usage(e)
            .hint("write it like /registry/secrets/default/login or secrets/default/login")
    })
}
