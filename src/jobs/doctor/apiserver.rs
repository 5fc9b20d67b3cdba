//! What the running API servers say of themselves.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Act, Adder, Check, Layer, Options, Outcome};
use crate::apiserver::Client;
use crate::apiserver::metrics::Transformations;
use crate::chain::chain;
use crate::config::{ConfigSet, Loaded as File};
use crate::jobs::Observer;
use crate::jobs::confirm::{self, Answered, Loaded};
use crate::kms::NoPlugins;
use crate::migrate::servers;
use crate::resource::{DEFAULT_PREFIX, Scope};
use crate::source::Source;
use crate::transform::Transformers;
use crate::visible::visible;

/// The configuration on this machine.
struct Known {
    place: String,
    /// Of the file's bytes, in hexadecimal digits.
    sha256: String,
}

/// Asks them. `file` is the configuration on this machine.
pub(super) fn check(
    options: &Options<'_>,
    clients: Option<Vec<Client>>,
    file: Option<File>,
    source: Option<&mut dyn Source>,
    observer: &mut dyn Observer,
    checks: &mut Vec<Check>,
) {
    let mut add = Adder { layer: Layer::Apiserver, checks };
    let ask = (options.command)(Act::AskApiServers);
    let Some(clients) = clients else {
        let why = vec!["no API server was asked".to_owned()];
        add.add("apiserver-config-loaded", &[], Outcome::Unknown, why, ask);
        return;
    };
    let known =
        file.as_ref().map(|f| Known { place: f.location.clone(), sha256: f.sha256.clone() });
    let hash = known.as_ref().map_or(String::new(), |k| format!("sha256:{}", k.sha256));
    let leases = source.zip(file).map(|(source, file)| leases(options, file, source));
    let leases = leases.unwrap_or_default();
    let asked = confirm::Options { servers: clients, file: hash, leases, shown: None };
    match confirm::run(&asked, observer) {
        Ok(outcome) => {
            loaded(options, &mut add, known.as_ref(), &outcome);
            reloads(options, &mut add, &outcome.answered);
            values(options, &mut add, &outcome.answered);
        }
        Err(e) => {
            let why = vec![e.to_string()];
            add.add("apiserver-config-loaded", &[], Outcome::Unknown, why, ask);
        }
    }
}

/// Names of the Leases, and of the machines, of the API servers that etcd knows of.
fn leases(options: &Options<'_>, file: File, source: &mut dyn Source) -> Vec<(String, String)> {
    let prefix = options.found.prefix.as_ref().map_or(DEFAULT_PREFIX, |p| &p.value);
    let scope = Scope::new(prefix);
    let set = ConfigSet::new(vec![file]);
    let Some(keys) = set.and_then(|s| Transformers::new(&s, Arc::new(NoPlugins)).ok()) else {
        return Vec::new();
    };
    let found = servers::find(source, scope.bases(), &keys, Timestamp::now());
    found.map(|f| f.identities()).unwrap_or_default()
}

fn loaded(
    options: &Options<'_>,
    add: &mut Adder<'_>,
    file: Option<&Known>,
    outcome: &confirm::Outcome,
) {
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    let mut tell = |one: Outcome, text: String| {
        result = result.max(one);
        evidence.push(text);
    };
    for one in &outcome.answered {
        let name = named(one);
        match (&one.loaded, file) {
            (Loaded::This, Some(file)) => {
                tell(Outcome::Pass, format!("{name} has loaded {}", file.place));
            }
            (Loaded::Other(hash), Some(file)) => tell(
                Outcome::Fail,
                format!(
                    "{name} has loaded {}, not {} (sha256:{})",
                    visible(hash),
                    file.place,
                    file.sha256
                ),
            ),
            (Loaded::Other(hash), None) => tell(
                Outcome::Unknown,
                format!("{name} has loaded {}, and no file is here to compare", visible(hash)),
            ),
            (Loaded::This, None)
            | (Loaded::Untold | Loaded::Reads | Loaded::Cannot(_) | Loaded::Absent, _) => tell(
                Outcome::Unknown,
                format!(
                    "{name} does not say what it has loaded; 1.34 and later do, where encryption is configured"
                ),
            ),
        }
    }
    for (address, e) in &outcome.failed {
        tell(Outcome::Unknown, format!("{} was not asked: {}", visible(address), chain(e)));
    }
    for host in &outcome.silent {
        let host = visible(host);
        tell(
            Outcome::Unknown,
            format!("the API server on {host}, which etcd knows of, was not reached"),
        );
    }
    let remedy = match result {
        Outcome::Fail => {
            "copy the file to it, and wait until it has loaded it or restart it".to_owned()
        }
        _ => (options.command)(Act::AskApiServers),
    };
    add.add("apiserver-config-loaded", &[], result, evidence, remedy);
}

/// A server by its machine or address, with its version.
fn named(one: &Answered) -> String {
    let version = one.metrics.version.as_deref().unwrap_or("version unknown");
    format!("{} ({})", visible(one.name()), visible(version))
}

/// Whether the last try to load the file again came to something.
fn reloads(options: &Options<'_>, add: &mut Adder<'_>, answered: &[Answered]) {
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for one in answered {
        let last = one.metrics.reloads.iter().max_by(|a, b| a.at.total_cmp(&b.at));
        let Some(last) = last.filter(|l| l.at > 0.0) else { continue };
        #[allow(clippy::cast_possible_truncation)] // seconds since 1970
        let at = Timestamp::from_second(last.at as i64)
            .map_or_else(|_| "?".to_owned(), |t| t.to_string());
        let word = if last.success { "came to its end" } else { "failed" };
        if !last.success {
            result = Outcome::Fail;
        }
        evidence.push(format!("{}: its last reload, {at}, {word}", named(one)));
    }
    if !evidence.is_empty() {
        let place = options.found.config.as_ref().map_or_else(
            || "FILE".to_owned(),
            |c| options.host.own(&c.value).display().to_string(),
        );
        let remedy = (options.command)(Act::CheckConfig(&place));
        add.add("apiserver-config-reload", &[], result, evidence, remedy);
    }
}

/// What the servers wrote unencrypted or could not read since they started.
fn values(options: &Options<'_>, add: &mut Adder<'_>, answered: &[Answered]) {
    let told: Vec<&Answered> =
        answered.iter().filter(|a| !a.metrics.transformations.is_empty()).collect();
    if told.is_empty() {
        return;
    }
    let mut one = |id, words: &str, act: Act<'_>, of: &dyn Fn(&Transformations) -> bool| {
        let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
        for server in &told {
            let all = server.metrics.transformations.iter().filter(|t| of(t));
            let count: f64 = all.map(|t| t.count).sum();
            if count > 0.0 {
                result = Outcome::Fail;
            }
            evidence.push(format!("{}: {count} {words} since it started", named(server)));
        }
        add.add(id, &[], result, evidence, (options.command)(act));
    };
    // Without the label (before 1.31) nobody knows of what.
    if told.iter().any(|a| a.metrics.transformations.iter().any(|t| t.resource.is_some())) {
        one("apiserver-writes-encrypted", "Secrets written unencrypted", Act::AddProvider, &|t| {
            t.written && t.prefix.is_empty() && t.resource.as_deref() == Some("secrets")
        });
    }
    one("apiserver-reads", "values that could not be decrypted", Act::Verify, &|t| {
        !t.written && t.status != "OK"
    });
}
