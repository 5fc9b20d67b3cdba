//! Where two configurations differ: masters that disagree, an old file from a backup. Says
//! which keys, never what they are.

use std::fmt;

use super::finding::shown;
use super::model::{EncryptionConfig, GroupResource, Kms, ProviderConfiguration};
use crate::envelope::Version;
use crate::secret::KeyMaterial;

/// One thing that reads: a static key or a KMS provider, or identity.
#[derive(Clone)]
struct Unit<'c> {
    provider: &'c ProviderConfiguration,
    name: Option<&'c str>,
    secret: Option<&'c KeyMaterial>,
}

impl<'c> Unit<'c> {
    fn list(config: &'c EncryptionConfig, gr: GroupResource<'_>) -> Vec<Self> {
        // A wildcard is asked for by itself: `*` is no resource's name.
        let serving = config.serving(&gr.to_string());
        let mut units = Vec::new();
        for provider in serving.providers.iter().map(|s| s.provider) {
            match provider {
                ProviderConfiguration::Identity => {
                    units.push(Unit { provider, name: None, secret: None });
                }
                ProviderConfiguration::Kms(kms) => {
                    units.push(Unit { provider, name: Some(&kms.name), secret: None });
                }
                _ => units.extend(provider.keys().iter().map(|k| Unit {
                    provider,
                    name: Some(&k.name),
                    secret: Some(&k.secret),
                })),
            }
        }
        units
    }

    /// Writes and reads the same values.
    fn same(&self, other: &Unit<'_>) -> bool {
        self.like(other)
            && match (self.secret, other.secret) {
                (Some(a), Some(b)) => a.same(b),
                _ => true,
            }
    }

    /// Writes the same prefix.
    fn like(&self, other: &Unit<'_>) -> bool {
        self.provider.provider() == other.provider.provider()
            && self.provider.version() == other.provider.version()
            && self.name == other.name
    }

    fn kms(&self) -> Option<&'c Kms> {
        match self.provider {
            ProviderConfiguration::Kms(kms) => Some(kms),
            _ => None,
        }
    }
}

impl fmt::Display for Unit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.provider.provider().with_shown_key(self.name.map(shown));
        key.of_version(self.provider.version()).fmt(f)
    }
}

/// What differs, one sentence each; `here` and `there` name the two in the sentences. Empty when
/// both mean the same.
#[must_use]
pub fn differences(
    a: &EncryptionConfig,
    b: &EncryptionConfig,
    here: &str,
    there: &str,
) -> Vec<String> {
    let mut all = a.group_resources();
    for gr in b.group_resources() {
        if !all.contains(&gr) {
            all.push(gr);
        }
    }
    // Resources of one entry differ in the same way: each sentence is said once for all of them.
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for gr in all {
        for sentence in one(gr, a, b, here, there) {
            match said.iter_mut().find(|(s, _)| *s == sentence) {
                Some((_, resources)) => resources.push(gr.to_string()),
                None => said.push((sentence, vec![gr.to_string()])),
            }
        }
    }
    said.into_iter().map(|(s, resources)| format!("{}: {s}", resources.join(", "))).collect()
}

fn one(
    gr: GroupResource<'_>,
    a: &EncryptionConfig,
    b: &EncryptionConfig,
    here: &str,
    there: &str,
) -> Vec<String> {
    let mut out = Vec::new();
    for (config, who, other) in [(a, here, there), (b, there, here)] {
        if !config.group_resources().contains(&gr) {
            let how = match config.serving(&gr.to_string()).rule {
                Some(rule) => format!("{who} serves it by `{rule}`"),
                None => format!("{who} leaves it unencrypted"),
            };
            out.push(format!("configured in {other} only; {how}"));
        }
    }
    let (left, right) = (Unit::list(a, gr), Unit::list(b, gr));
    if left.is_empty() || right.is_empty() {
        return out;
    }
    if let (Some(l), Some(r)) = (left.first(), right.first())
        && !l.same(r)
    {
        out.push(format!("{here} writes with {l}, {there} with {r}"));
    }
    for (mine, theirs, who) in [(&left, &right, there), (&right, &left, here)] {
        for unit in mine.iter().filter(|u| !theirs.iter().any(|t| t.same(u))) {
            if theirs.iter().any(|t| t.like(unit)) {
                // Said once, from the left.
                if std::ptr::eq(mine, &raw const left) {
                    out.push(format!("{unit} has another secret in {there} than in {here}"));
                }
            } else if let Some(twin) = theirs.iter().find(|t| {
                t.provider.provider() == unit.provider.provider()
                    && matches!((t.secret, unit.secret), (Some(x), Some(y)) if x.same(y))
            }) {
                out.push(format!("the secret of {unit} is called {twin} in {who}"));
            } else {
                out.push(format!("{who} lacks {unit}"));
            }
        }
    }
    let common = |mine: &[Unit<'_>], theirs: &[Unit<'_>]| -> Vec<String> {
        mine.iter().filter(|u| theirs.iter().any(|t| t.same(u))).map(ToString::to_string).collect()
    };
    if common(&left, &right) != common(&right, &left) {
        out.push("the order of providers or keys differs".to_owned());
    }
    for (l, r) in left.iter().filter_map(|l| Some((l, right.iter().find(|r| r.same(l))?))) {
        let (Some(x), Some(y)) = (l.kms(), r.kms()) else { continue };
        if x.endpoint != y.endpoint {
            out.push(format!(
                "{l} is at {} in {here} and at {} in {there}",
                shown(&x.endpoint.url),
                shown(&y.endpoint.url)
            ));
        }
        if x.timeout != y.timeout || (x.api_version == Version::V1 && x.cachesize != y.cachesize) {
            out.push(format!("{l} has another timeout or cache size"));
        }
    }
    out
}
