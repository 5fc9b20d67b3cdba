//! Nothing found is not all well: what was asked for by name and is not there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::Ctx;
use super::failure::Failure;
use crate::jobs::holdings::Holdings;
use crate::range::KeyRange;
use crate::report::table;
use crate::resource::{NamedKey, Selection, Selector, Sought, base_of};
use crate::source::{Query, Source};

/// Names that are alike enough to be meant (Jaro-Winkler).
const ALIKE: f64 = 0.8;
/// How many entries beside a KEY are looked at.
const BESIDE: usize = 10_000;
/// How many names are listed.
const LISTED: usize = 8;

/// What the options name, to be looked for.
#[must_use]
pub fn sought(ctx: &Ctx, selection: &Selection) -> Sought {
    Sought::new(selection, !ctx.global.resource.is_empty())
}

/// Looks for what the options name, before the job begins: for sources that answer at once.
///
/// # Errors
/// As [`check`].
pub fn look(ctx: &Ctx, source: &mut dyn Source, selection: &Selection) -> Result<(), Failure> {
    if ctx.global.allow_empty {
        return Ok(());
    }
    let mut sought = sought(ctx, selection);
    source
        .visit(&selection.query(ctx.global.revision, false), &mut |entry| {
            if let Some(location) = selection.locate(entry.key) {
                sought.saw(&location);
            }
            if sought.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(|e| super::lost::advised(ctx, e))?;
    check(ctx, source, selection, &sought)
}

/// Whether what the options name is there, by what was seen of it. Resources that only a
/// configuration names may be missing.
///
/// # Errors
/// Names each thing that is not there, the nearest name that is, and which prefixes there are.
pub fn check(
    ctx: &Ctx,
    source: &mut dyn Source,
    selection: &Selection,
    sought: &Sought,
) -> Result<(), Failure> {
    if sought.is_complete() {
        return Ok(());
    }
    if ctx.global.allow_empty {
        if !sought.any() {
            ctx.ui.note(&format!("no entry of {}", selection.words()));
        }
        return Ok(());
    }
    let missing = Missing::of(ctx, source, selection, sought)?;
    if sought.any() || is_anything_below(ctx, source, selection)? {
        if missing.resources.is_empty() && missing.namespaces.is_empty() {
            if !sought.any() {
                ctx.ui.note(&format!("no entry of {}", selection.words()));
            }
            return Ok(());
        }
        return Err(missing.failure(ctx, selection));
    }
    Err(prefix(ctx, selection, &missing.holdings))
}

/// What to tell where no entry at all is under the prefix, if there are some under others.
///
/// # Errors
/// When the source cannot be read.
pub fn elsewhere(
    ctx: &Ctx,
    source: &mut dyn Source,
    selection: &Selection,
) -> Result<Option<Failure>, Failure> {
    if is_anything_below(ctx, source, selection)? {
        return Ok(None);
    }
    // Whoever may not read everything is told less.
    let mut held = Holdings::of(source, &selection.scope, ctx.global.revision).unwrap_or_default();
    held.bases.retain(|base| !selection.scope.bases().contains(base));
    Ok((!held.bases.is_empty()).then(|| prefix(ctx, selection, &held)))
}

/// What is there of what was not seen among the selected entries: a resource that has no objects
/// in the namespaces that were asked for is none that does not exist.
struct Missing<'a> {
    resources: Vec<&'a Selector>,
    namespaces: Vec<&'a str>,
    holdings: Holdings,
    /// The source is an archive of objects.
    archive: bool,
}

impl<'a> Missing<'a> {
    fn of(
        ctx: &Ctx,
        source: &mut dyn Source,
        selection: &Selection,
        sought: &'a Sought,
    ) -> Result<Self, Failure> {
        let scope = &selection.scope;
        let mut resources = Vec::new();
        // What the API server keeps in another etcd is nowhere to be seen here.
        let kept_elsewhere = |selector: &&Selector| {
            ctx.global.overrides.iter().any(|o| selector.matches(&o.resource))
        };
        for selector in sought.resources().filter(|s| !kept_elsewhere(s)) {
            let ranges = scope.ranges(std::slice::from_ref(selector));
            let is_it = |key: &[u8]| selector.matches(&scope.locate(key).resource);
            if !any(ctx, source, ranges, &is_it)? {
                resources.push(selector);
            }
        }
        let mut namespaces = Vec::new();
        for name in sought.namespaces() {
            let key = format!("{}namespaces/{name}", scope.base());
            if !any(ctx, source, vec![KeyRange::single(key.as_bytes())], &|_| true)? {
                namespaces.push(name);
            }
        }
        // Whoever may not read everything is told less.
        let holdings = Holdings::of(source, scope, ctx.global.revision).unwrap_or_default();
        namespaces.retain(|name| !holdings.namespaces.contains(*name));
        let archive = source.info().kind.is_archive();
        Ok(Self { resources, namespaces, holdings, archive })
    }

    /// Names what is not there, and what is.
    fn failure(&self, ctx: &Ctx, selection: &Selection) -> Failure {
        let mut things = Vec::new();
        let mut causes = Vec::new();
        let mut hints = Vec::new();
        for selector in &self.resources {
            let name = selector.to_string();
            things.push(format!("of `{}`", table::visible(&name)));
            if let Some(nearest) = nearest(&name, &self.holdings.resources) {
                causes.push(format!("the name nearest to {} is {nearest}", table::visible(&name)));
                hints.push(format!("--resource {nearest}"));
            }
        }
        for name in &self.namespaces {
            things.push(format!("in namespace `{}`", table::visible(name)));
            if let Some(nearest) = nearest(name, &self.holdings.namespaces) {
                causes.push(format!("the name nearest to {} is {nearest}", table::visible(name)));
                hints.push(format!("-n {nearest}"));
            }
        }
        let base = selection.scope.base();
        let mut failure = Failure::new(format!("no entry {} under {base}", things.join(", ")));
        let bases = &self.holdings.bases;
        if !bases.is_empty() {
            causes.push(format!("the source holds entries under {}", list(bases.iter())));
        }
        failure.causes = causes;
        let has_pages = ctx.global.is_file() && !self.archive;
        if hints.is_empty() && ctx.global.takes_lost && has_pages {
            hints.push(
                "`atrest residue --recover DIR` writes what was deleted and still lies in the file"
                    .to_owned(),
            );
        }
        hints.push("--allow-empty, if empty is fine".to_owned());
        failure.hint(hints.join("; "))
    }
}

fn is_anything_below(
    ctx: &Ctx,
    source: &mut dyn Source,
    selection: &Selection,
) -> Result<bool, Failure> {
    let scope = &selection.scope;
    // What other prefixes hold, above this one or below it, is not this one's.
    let own = |key: &[u8]| {
        let base = scope.bases().iter().find(|base| key.starts_with(base.as_bytes()));
        base_of(key).is_none_or(|at| base.is_some_and(|base| base.len() == at))
    };
    let wanted = |key: &[u8]| !scope.locate(key).internal && own(key);
    any(ctx, source, scope.ranges(&[Selector::All]), &wanted)
}

/// Whether there is such a key. Where a user may not read, there may be anything.
fn any(
    ctx: &Ctx,
    source: &mut dyn Source,
    ranges: Vec<KeyRange>,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> Result<bool, Failure> {
    let mut any = false;
    let query = Query { ranges, revision: ctx.global.revision, ordered: false };
    let visit = source.visit(&query, &mut |entry| {
        any |= wanted(entry.key);
        if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match visit {
        Ok(_) => Ok(any),
        Err(e) if e.is_unreadable_to_user() => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// The prefix that was asked for, or the default one, holds nothing.
fn prefix(ctx: &Ctx, selection: &Selection, holdings: &Holdings) -> Failure {
    let base = selection.scope.base();
    let mut failure = Failure::new(format!("no entry under {base}"));
    let held = &holdings.bases;
    failure.causes.push(match held.len() {
        0 => "the source holds no objects of an API server".to_owned(),
        _ => format!("the source holds entries under {}", list(held.iter())),
    });
    let longest = held.iter().filter(|b| base.starts_with(b.as_str())).max_by_key(|b| b.len());
    let namespace = ctx.global.proxy_namespace.as_deref().unwrap_or_default();
    failure.hint(match (longest, held.iter().next()) {
        (Some(held), _) => format!(
            "--prefix is the API server's --etcd-prefix, here {held}; -n and --resource narrow"
        ),
        (None, Some(first)) if namespace.is_empty() => {
            // No API server's prefix has two slashes: a proxy's namespace that ends with one was
            // put before it.
            let (option, name) = match first.find("//") {
                Some(at) => ("--proxy-namespace", &first[..=at]),
                None => ("--prefix", first.as_str()),
            };
            format!("name it: {option} {name}; or --allow-empty, if empty is fine")
        }
        _ => "--allow-empty says that empty is fine".to_owned(),
    })
}

/// Says what is there that is most like a KEY which is not.
#[must_use]
pub fn near(ctx: &Ctx, source: &mut dyn Source, key: &NamedKey, mut failure: Failure) -> Failure {
    let Some(first) = key.keys.first() else { return failure };
    let mut whole = first.strip_suffix(b"/").unwrap_or(first);
    // The name, else the namespace or resource that it is in.
    let mut siblings = BTreeSet::new();
    for _ in 0..3 {
        let at = whole.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        siblings = beside(ctx, source, &whole[..at]);
        if !siblings.is_empty() || at < 2 {
            break;
        }
        whole = &whole[..at - 1];
    }
    let at = whole.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let (parent, name) =
        (String::from_utf8_lossy(&whole[..at]), String::from_utf8_lossy(&whole[at..]));
    if let Some(nearest) = nearest(&name, &siblings) {
        let nearest = table::visible(&format!("{parent}{nearest}"));
        failure.causes.push(format!("the nearest that is there is {nearest}"));
    } else if siblings.is_empty() {
        let scope = super::open::scope(ctx);
        let held = Holdings::of(source, &scope, ctx.global.revision).unwrap_or_default().bases;
        if !held.iter().any(|base| base == scope.base()) && !held.is_empty() {
            failure.causes.push(format!("the source holds entries under {}", list(held.iter())));
        }
    }
    failure
}

/// What the keys that begin so have up to the next slash.
fn beside(ctx: &Ctx, source: &mut dyn Source, parent: &[u8]) -> BTreeSet<String> {
    let query = Query {
        ranges: vec![KeyRange::prefix(parent)],
        revision: ctx.global.revision,
        ordered: true,
    };
    let mut names = BTreeSet::new();
    let mut left = BESIDE;
    let looked = source.visit(&query, &mut |entry| {
        let rest = entry.key.get(parent.len()..).unwrap_or_default();
        let name = rest.split(|b| *b == b'/').next().unwrap_or_default();
        names.insert(String::from_utf8_lossy(name).into_owned());
        left -= 1;
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    // It is only a help: who may not read is told less.
    if looked.is_ok() { names } else { BTreeSet::new() }
}

/// The name that is most like another.
fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
    // As people write it, without the group.
    let short = |name: &'a str| name.split('.').next().unwrap_or(name);
    let likeness = |other: &'a str| {
        strsim::jaro_winkler(name, other).max(strsim::jaro_winkler(name, short(other)))
    };
    names
        .into_iter()
        .map(|other| (likeness(other), other.as_str()))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

fn list<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let total = names.len();
    let text = names.take(LISTED).map(|n| table::visible(n)).collect::<Vec<_>>().join(", ");
    if total > LISTED { format!("{text} and {} more", total - LISTED) } else { text }
}
