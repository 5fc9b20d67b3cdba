//! What the API server does with what it is given, and what is stored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::{Act, Adder, Check, Layer, Options, Outcome, Program};
use crate::config::{self, LoadError, Loaded, ProviderConfiguration};
use crate::envelope::{Envelope, Version};
use crate::jobs::Observer;
use crate::resource::{DEFAULT_PREFIX, Scope, Selector};
use crate::source::{Query, Record, Source};
use crate::yaml_tree::{self, Node};

/// Flags of the file with the configuration.
const FLAG: &str = "encryption-provider-config";
/// Releases of etcd that lose or mix up data, first and last, and who says so.
const BAD_ETCD: [(&str, &str, &str); 4] = [
    ("3.5.0", "3.5.2", "data inconsistency after a crash (etcd-io/etcd#13766)"),
    (
        "3.5.3",
        "3.5.5",
        "data inconsistency after a crash during defragmentation (kubernetes/kubernetes#114093)",
    ),
    (
        "3.4.20",
        "3.4.21",
        "data inconsistency where members join and users are on (kubernetes/kubernetes#114093)",
    ),
    ("3.4.0", "3.4.7", "authentication can corrupt data (etcd-io/etcd#11651)"),
];

/// Returns the configuration that the API server was started with, where it can be used.
pub(super) fn check(
    options: &Options<'_>,
    (api, etcd): (Option<&Program>, Option<&Program>),
    source: Result<&mut dyn Source, String>,
    observer: &mut dyn Observer,
    checks: &mut Vec<Check>,
) -> Option<Loaded> {
    let mut add = Adder { layer: Layer::Application, checks };
    let loaded = configuration(options, api, &mut add);
    if let Some(loaded) = &loaded {
        providers(options, &mut add, loaded);
        same_everywhere(options, &mut add, loaded);
    }
    stored(options, &mut add, loaded.as_ref(), source, observer);
    audit(options, &mut add, api);
    versions(&mut add, etcd);
    loaded
}

/// The configuration that the API server was started with.
fn configuration(
    options: &Options<'_>,
    api: Option<&Program>,
    add: &mut Adder<'_>,
) -> Option<Loaded> {
    let remedy = (options.command)(Act::NewConfig);
    let remedy = format!("{remedy}, then kube-apiserver: --encryption-provider-config=FILE");
    let Some(found) = &options.found.config else {
        let (result, evidence) = match api {
            Some(api) => (Outcome::Fail, api.says(FLAG)),
            None if options.found.source.is_some() => {
                (Outcome::Fail, "the distribution has no configuration here".to_owned())
            }
            None => (Outcome::Unknown, "nothing says which configuration is used".to_owned()),
        };
        add.add("encryption-configured", &["1.2.27"], result, vec![evidence], remedy);
        return None;
    };
    let path = &found.value;
    let evidence = vec![format!("{} ({})", path.display(), found.from)];
    add.add("encryption-configured", &["1.2.27"], Outcome::Pass, evidence, "");
    let own = options.host.own(path).display().to_string();
    let check = (options.command)(Act::CheckConfig(&own));
    let bytes = match std::fs::read(path) {
        Ok(bytes) => zeroize::Zeroizing::new(bytes),
        Err(e) => {
            let evidence = vec![format!("{}: {e}", path.display())];
            add.add("encryption-config-valid", &["1.2.28"], Outcome::Unknown, evidence, check);
            return None;
        }
    };
    match config::load(&bytes, &path.display().to_string()) {
        Ok(mut all) if !all.is_empty() => {
            let loaded = all.remove(0);
            let evidence = vec![format!("{} (sha256:{})", loaded.location, loaded.sha256)];
            add.add("encryption-config-valid", &["1.2.28"], Outcome::Pass, evidence, "");
            Some(loaded)
        }
        Ok(_) => None,
        Err(LoadError::Invalid { errors, .. }) => {
            let errors = errors.errors.iter().map(ToString::to_string).collect();
            add.add("encryption-config-valid", &["1.2.28"], Outcome::Fail, errors, check);
            None
        }
        Err(e) => {
            let evidence = vec![e.to_string()];
            add.add("encryption-config-valid", &["1.2.28"], Outcome::Fail, evidence, check);
            None
        }
    }
}

/// What Secrets are written with, and what is known of that.
fn providers(options: &Options<'_>, add: &mut Adder<'_>, loaded: &Loaded) {
    let serving = loaded.config.serving("secrets");
    let first = serving.providers.first().map(|s| s.provider);
    let (result, what) = match first {
        None => (Outcome::Fail, "no entry serves secrets: they are stored unencrypted".to_owned()),
        Some(ProviderConfiguration::Identity) => {
            (Outcome::Fail, "identity comes first for secrets".to_owned())
        }
        Some(ProviderConfiguration::AesCbc(_)) => {
            (Outcome::Warn, "aescbc does not notice changed ciphertext".to_owned())
        }
        Some(ProviderConfiguration::Kms(kms)) if kms.api_version == Version::V1 => {
            (Outcome::Warn, "KMS v1 is deprecated".to_owned())
        }
        Some(other) => (Outcome::Pass, format!("secrets are written with {}", other.provider())),
    };
    let remedy = (options.command)(Act::AddProvider);
    add.add("encryption-providers", &["1.2.28"], result, vec![what], remedy);
    let advice: Vec<String> =
        loaded.warnings.iter().chain(&loaded.advice).map(ToString::to_string).collect();
    let (result, evidence) = if advice.is_empty() {
        (Outcome::Pass, vec!["nothing to remark".to_owned()])
    } else {
        (Outcome::Warn, advice)
    };
    let check = (options.command)(Act::CheckConfig(&loaded.location));
    add.add("encryption-config-advice", &["1.2.28"], result, evidence, check);
}

/// The same bytes on all control planes.
fn same_everywhere(options: &Options<'_>, add: &mut Adder<'_>, loaded: &Loaded) {
    if options.confirm.is_empty() {
        return;
    }
    let (mut result, mut evidence) = (Outcome::Pass, Vec::new());
    for path in options.confirm {
        let at = path.display();
        let theirs = std::fs::read(path).map(zeroize::Zeroizing::new).map_err(|e| e.to_string());
        let theirs =
            theirs.and_then(|b| config::load(&b, &at.to_string()).map_err(|e| e.to_string()));
        let (one, text) = match theirs.as_deref() {
            Ok([one, ..]) if one.sha256 == loaded.sha256 => {
                (Outcome::Pass, format!("{at} is the same (sha256:{})", one.sha256))
            }
            Ok([one, ..]) => (Outcome::Fail, format!("{at} differs (sha256:{})", one.sha256)),
            Ok([]) => (Outcome::Unknown, format!("{at} is empty")),
            Err(e) => (Outcome::Unknown, format!("{at}: {e}")),
        };
        result = result.max(one);
        evidence.push(text);
    }
    let remedy =
        "copy the same file to every control plane machine and restart each kube-apiserver";
    add.add("same-configuration", &[], result, evidence, remedy);
}

/// How entries of what is to be encrypted are stored, now and before.
#[derive(Default)]
struct Stored {
    entries: BTreeMap<String, (u64, u64)>,
    revisions: u64,
    internal: u64,
}

fn stored(
    options: &Options<'_>,
    add: &mut Adder<'_>,
    loaded: Option<&Loaded>,
    source: Result<&mut dyn Source, String>,
    observer: &mut dyn Observer,
) {
    let scan = (options.command)(Act::Scan);
    let source = match source {
        Ok(source) => source,
        Err(why) => {
            add.add("stored-encrypted", &[], Outcome::Unknown, vec![why], scan);
            return;
        }
    };
    let prefix = options.found.prefix.as_ref().map_or(DEFAULT_PREFIX, |p| &p.value);
    let scope = Scope::new(prefix);
    // What the configuration encrypts; Secrets in any case.
    let encrypts = |resource: &str| {
        resource == "secrets"
            || loaded.is_some_and(|l| !l.config.serving(resource).writes_plaintext())
    };
    let mut query =
        Query { ranges: scope.ranges(&[Selector::All]), revision: None, ordered: false };
    let mut stored = Stored::default();
    observer.begin("entries", &mut || None);
    let visited = source.visit(&query, &mut |entry| {
        let location = scope.locate(entry.key);
        observer.advance(1);
        if location.internal {
            stored.internal += 1;
        } else if encrypts(&location.resource) {
            let plain = Envelope::of(entry.stored()).is_plaintext();
            let counted = stored.entries.entry(location.resource.into_owned()).or_default();
            counted.0 += u64::from(plain);
            counted.1 += 1;
        }
        ControlFlow::Continue(())
    });
    observer.end();
    let visit = match visited {
        Ok(visit) => visit,
        Err(e) => {
            let evidence = vec![e.to_string()];
            add.add("stored-encrypted", &[], Outcome::Unknown, evidence, scan);
            return;
        }
    };
    let location = source.info().location;
    let plain: u64 = stored.entries.values().map(|(plain, _)| plain).sum();
    let mut evidence: Vec<String> = stored
        .entries
        .iter()
        .map(|(resource, (plain, all))| {
            format!(
                "{resource}: {plain} of {all} stored unencrypted, at revision {} of {location}",
                visit.revision
            )
        })
        .collect();
    evidence.extend(visit.damage.iter().map(|d| format!("cannot read {}: {}", d.location, d.what)));
    let result = match plain {
        0 if !visit.damage.is_empty() => Outcome::Unknown,
        0 if stored.entries.is_empty() => {
            evidence.push(format!("{location} holds no Secrets below {prefix}"));
            Outcome::Unknown
        }
        0 => Outcome::Pass,
        _ => Outcome::Fail,
    };
    let remedy = (options.command)(Act::Migrate);
    add.add("stored-encrypted", &[], result, evidence, remedy);

    query.revision = Some(visit.revision);
    let mut newest: hashbrown::HashMap<Vec<u8>, bool> = hashbrown::HashMap::new();
    let past = source.history(&query, &mut |record| {
        let (key, plain) = match record {
            Record::Put(entry) => (entry.key, Envelope::of(entry.stored()).is_plaintext()),
            Record::Delete { key, .. } => (key, false),
        };
        let location = scope.locate(key);
        if !location.internal && encrypts(&location.resource) {
            let before = newest.insert(key.to_vec(), plain);
            stored.revisions += u64::from(before == Some(true));
        }
        ControlFlow::Continue(())
    });
    let (result, evidence) = match past {
        Ok(_) if stored.revisions == 0 => {
            (Outcome::Pass, "no superseded revision that is held is plaintext".to_owned())
        }
        Ok(_) => {
            let n = stored.revisions;
            (Outcome::Warn, format!("{n} superseded revisions that are held are plaintext"))
        }
        Err(e) => (Outcome::Unknown, e.to_string()),
    };
    let remedy = (options.command)(Act::Residue);
    add.add("no-old-plaintext", &[], result, vec![evidence], remedy);
}

/// What the audit log gets to see of Secrets (kubernetes/apiserver `pkg/apis/audit/types.go`: the
/// first rule that matches counts).
fn audit(options: &Options<'_>, add: &mut Adder<'_>, api: Option<&Program>) {
    const CIS: &[&str] = &["3.2.1", "3.2.2"];
    let remedy = "a rule `{level: Metadata, resources: [{group: \"\", resources: [secrets]}]}` before all others";
    let Some(api) = api else {
        let why = vec!["the flags of kube-apiserver are not known".to_owned()];
        add.add("audit-secrets", CIS, Outcome::Unknown, why, remedy);
        return;
    };
    let Some(path) = api.file(options, "audit-policy-file") else {
        let evidence = vec![api.says("audit-policy-file")];
        add.add(
            "audit-secrets",
            CIS,
            Outcome::Warn,
            evidence,
            "kube-apiserver: --audit-policy-file=FILE --audit-log-path=FILE",
        );
        return;
    };
    let at = path.display().to_string();
    let (result, evidence) = match level(&path) {
        Ok(Some(level)) => {
            let bodies = matches!(level.as_str(), "Request" | "RequestResponse");
            let result = if bodies { Outcome::Fail } else { Outcome::Pass };
            (result, format!("{at}: Secrets are logged at level {level}"))
        }
        Ok(None) => (Outcome::Warn, format!("{at}: no rule is about Secrets")),
        Err(e) => (Outcome::Unknown, format!("{at}: {e}")),
    };
    add.add("audit-secrets", CIS, result, vec![evidence], remedy);
}

/// The level that writes to Secrets are logged at, the highest that a rule without a user or
/// namespace of its own, or with one, gives before one decides for all.
fn level(path: &Path) -> Result<Option<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let documents = yaml_tree::parse(&text).map_err(|e| e.message)?;
    let policy = documents.first().ok_or("it is empty")?;
    let field = |node: &Node, name: &str| node.get(name).and_then(|n| n.text().map(str::to_owned));
    let items = |node: &Node, name: &str| {
        node.get(name)
            .map(|n| {
                n.items().iter().filter_map(|i| i.text().map(str::to_owned)).collect::<Vec<_>>()
            })
            .unwrap_or_default()
    };
    let rank = |level: &str| {
        ["None", "Metadata", "Request", "RequestResponse"].iter().position(|l| *l == level)
    };
    let mut found: Option<String> = None;
    for rule in policy.get("rules").map(Node::items).unwrap_or_default() {
        let groups = rule.get("resources").map(Node::items).unwrap_or_default();
        let about = rule.get("nonResourceURLs").is_none()
            && (groups.is_empty()
                || groups.iter().any(|g| {
                    let names = items(g, "resources");
                    let group = field(g, "group").unwrap_or_default();
                    let about = names.is_empty()
                        || names
                            .iter()
                            .any(|n| matches!(n.as_str(), "secrets" | "*" | "secrets/*"));
                    (group.is_empty() || group == "*") && about
                }));
        if !about {
            continue;
        }
        let level = field(rule, "level").unwrap_or_default();
        if found.as_deref().is_none_or(|f| rank(f) < rank(&level)) {
            found = Some(level);
        }
        // A rule for some users, verbs or namespaces leaves the others to the rules after it.
        let narrow = ["users", "userGroups", "verbs", "namespaces"];
        if narrow.iter().all(|n| items(rule, n).is_empty()) {
            break;
        }
    }
    Ok(found)
}

/// Versions that are known to harm what is stored.
fn versions(add: &mut Adder<'_>, etcd: Option<&Program>) {
    let image = etcd.and_then(|e| e.image.as_deref());
    let version = image.and_then(|i| i.rsplit_once(':')).and_then(|(_, tag)| number(tag));
    let Some(version) = version else {
        let why = vec!["no manifest names etcd's version".to_owned()];
        add.add("etcd-version", &[], Outcome::Unknown, why, "etcd --version");
        return;
    };
    let bad = BAD_ETCD.iter().find(|(first, last, _)| {
        number(first).is_some_and(|f| f <= version) && number(last).is_some_and(|l| version <= l)
    });
    let image = image.unwrap_or_default();
    let (result, evidence) = match bad {
        Some((_, _, why)) => (Outcome::Fail, format!("{image}: {why}")),
        None => (Outcome::Pass, format!("{image}: no release that is known to lose data")),
    };
    add.add(
        "etcd-version",
        &[],
        result,
        vec![evidence],
        "upgrade etcd to the newest patch release of its minor version",
    );
}

/// `3.5.9-0` → (3, 5, 9).
fn number(tag: &str) -> Option<(u32, u32, u32)> {
    let mut parts = tag.trim_start_matches('v').split(['.', '-', '@']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}
