//! Shared arguments → an open source, the selected resources and the key prefix. The one place
//! where low-level arguments become built objects.

use std::sync::Arc;

use super::failure::Failure;
use super::{Ctx, configuration};
use crate::config::ConfigSet;
use crate::kms::Plugins;
use crate::resource::{DEFAULT_PREFIX, Location, Scope, Selector};
use crate::source::data_dir::DataDir;
use crate::source::kine::Kine;
use crate::source::live::{Credentials, Live, LiveOptions};
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{Query, Source};
use crate::transform::Transformers;

/// Opens the source that the options name.
///
/// # Errors
/// When it cannot be opened, with a hint.
pub fn source(ctx: &Ctx) -> Result<Box<dyn Source>, Failure> {
    let g = &ctx.global;
    let options = SnapshotOptions { skip_hash_check: g.skip_hash_check, salvage: g.salvage };
    if let Some(path) = &g.snapshot {
        return Ok(Box::new(Snapshot::open(path, &options)?));
    }
    if let Some(dir) = &g.data_dir {
        return Ok(Box::new(DataDir::open(dir, &options)?));
    }
    if let Some(path) = &g.kine {
        return Ok(Box::new(Kine::open(path)?));
    }
    Ok(Box::new(live(ctx)?))
}

/// Connects to the etcd that the options name.
///
/// # Errors
/// As [`Live::connect`], and when there is a user without a password.
pub fn live(ctx: &Ctx) -> Result<Live, Failure> {
    let g = &ctx.global;
    let credentials = match (&g.user, &g.password) {
        (None, _) => None,
        (Some(user), Some(password)) => Some(Credentials::new(user.expose(), password.expose())),
        (Some(user), None) => {
            let (user, password) = user.expose().split_once(':').ok_or_else(|| {
                Failure::usage("--user is given without a password")
                    .hint("write --user NAME:PASSWORD, or set ETCDCTL_PASSWORD")
            })?;
            Some(Credentials::new(user, password))
        }
    };
    let endpoints = if g.endpoints.is_empty() {
        vec!["127.0.0.1:2379".to_owned()]
    } else {
        g.endpoints.clone()
    };
    Ok(Live::connect(&LiveOptions {
        endpoints,
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
    })?)
}

/// The configurations that `--encryption-config` names, if any: the first says what is current.
///
/// # Errors
/// When a file cannot be read or is no valid configuration; every error in it is a cause.
pub fn configs(ctx: &Ctx) -> Result<Option<ConfigSet>, Failure> {
    let mut all = Vec::new();
    if !ctx.global.encryption_config.is_empty()
        && let Err(error) = crate::secret::harden()
    {
        ctx.ui.warn(&format!("core dumps cannot be disabled: {error}"));
    }
    for path in &ctx.global.encryption_config {
        let content = configuration::read(path)?;
        if let Some(warning) = &content.exposed {
            ctx.ui.warn(warning);
        }
        for loaded in configuration::load(&content)? {
            for warning in &loaded.warnings {
                ctx.ui.warn(&format!("{}: {warning}", loaded.location));
            }
            all.push(loaded);
        }
    }
    Ok(ConfigSet::new(all))
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

/// The transformers of the configurations, with their KMS plugins.
///
/// # Errors
/// When a key does not fit its provider.
pub fn transformers(set: &ConfigSet) -> Result<Transformers, Failure> {
    Transformers::new(set, Arc::new(Plugins::new()))
        .map_err(|e| Failure::new("the configuration cannot be used").because(&e))
}

/// What the user wants to see.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Where keys begin.
    pub scope: Scope,
    /// Resources; empty is none.
    pub resources: Vec<Selector>,
    /// Namespaces; empty is all.
    pub namespaces: Vec<String>,
}

impl Selection {
    /// Reads the options; `configured` are the resources of the encryption configuration, the
    /// default when one is given.
    ///
    /// # Errors
    /// When a `--resource` is none.
    pub fn new(ctx: &Ctx, configured: Option<Vec<Selector>>) -> Result<Self, Failure> {
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
        Ok(Self { scope: scope(ctx), resources, namespaces: global.namespace.clone() })
    }

    /// What a verdict is about: what was asked for and everything that the configuration serves,
    /// in every namespace.
    #[must_use]
    pub fn judged(&self, configured: Option<Vec<Selector>>) -> Self {
        let mut resources = self.resources.clone();
        resources.extend(configured.unwrap_or_default());
        Self { resources, namespaces: Vec::new(), scope: self.scope.clone() }
    }

    /// The key ranges to read. They may hold more than what is selected.
    #[must_use]
    pub fn query(&self, revision: Option<i64>, ordered: bool) -> Query {
        Query { ranges: self.scope.ranges(&self.resources), revision, ordered }
    }

    /// The resources, for a sentence.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.resources.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// What is looked for, for a sentence.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("{} under {}", self.names(), self.scope.prefix);
        if !self.namespaces.is_empty() {
            words += " in namespace ";
            words += &self.namespaces.join(", ");
        }
        words
    }

    /// Whether a key is selected, and where it belongs.
    #[must_use]
    pub fn locate<'k>(&self, key: &'k [u8]) -> Option<Location<'k>> {
        let location = self.scope.locate(key);
        let wanted = self.resources.iter().any(|r| r.matches(&location.resource))
            && (self.namespaces.is_empty()
                || location
                    .namespace
                    .as_deref()
                    .is_some_and(|ns| self.namespaces.iter().any(|n| n == ns)));
        wanted.then_some(location)
    }
}

/// `--prefix`, or the API server's default.
#[must_use]
pub fn scope(ctx: &Ctx) -> Scope {
    Scope::new(ctx.global.prefix.as_deref().unwrap_or(DEFAULT_PREFIX))
}
