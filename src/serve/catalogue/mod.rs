//! What can be asked for: the built-in resources, those of the source's
//! `CustomResourceDefinition`s, and whatever else the source holds.

mod custom;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde_json::Value;

use super::jsonpath::JsonPath;
use crate::entry::Entry;
use crate::objects::Objects;
use crate::resource::{Scope, Selector};
use crate::source::pieces::Pieces;
use crate::source::{KeyRange, SourceError};

/// Most kinds of key that a source is searched for: no cluster has so many resources.
const MAX_RESOURCES: usize = 20_000;

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `date`, …
    pub kind: String,
    /// `name` for the object's name, else mostly empty.
    pub format: String,
    /// What it means; the definitions of custom resources say it.
    pub description: String,
    /// 0 is always shown, more with `-o wide`.
    pub priority: i64,
}

/// How the rows of a table come about.
#[derive(Clone, Debug)]
pub enum Printer {
    /// By the kind, as the API server prints it.
    Kind(Vec<Column>),
    /// By the paths of a `CustomResourceDefinition`; the name comes before them.
    Paths(Vec<(Column, Option<JsonPath>)>),
}

/// One resource at one version.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Name in paths.
    pub plural: String,
    /// Kind of its objects.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Name for one.
    pub singular: String,
    /// Objects lie in namespaces.
    pub namespaced: bool,
    /// Names for the hasty.
    pub short_names: Vec<String>,
    /// Names for several resources, such as `all`.
    pub categories: Vec<String>,
    /// Subresources that show the object itself.
    pub subresources: Vec<String>,
    /// Group-qualified name that its keys have.
    pub storage: String,
    /// How tables of it are made.
    pub printer: Printer,
    /// Defined by a `CustomResourceDefinition`, or only by what is stored.
    pub custom: bool,
    /// All versions are the same but for their name.
    pub same_at_all_versions: bool,
    /// The schema of a `CustomResourceDefinition`.
    pub schema: Option<Value>,
    /// Fields that can be selected by, beyond the common ones.
    pub selectable: Vec<String>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Key ranges that hold it, or one namespace of it.
    #[must_use]
    pub fn ranges(&self, scope: &Scope, namespace: Option<&str>) -> Vec<KeyRange> {
        let whole = scope.ranges(&[Selector::Exact(self.storage.clone())]);
        let Some(namespace) = namespace else { return whole };
        let narrowed = |range: KeyRange| {
            // A prefix that reaches into the resource has no room for a namespace.
            if range.start.last() != Some(&b'/') {
                return Some(range);
            }
            let below = [&range.start[..], namespace.as_bytes(), b"/"].concat();
            KeyRange::prefix(&below).intersect(&range)
        };
        whole.into_iter().filter_map(narrowed).collect()
    }
}

/// Group and version as objects name them.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Everything that can be asked for.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Groups in order of preference, with their versions in order of preference.
    pub groups: Vec<(String, Vec<String>)>,
    /// In the order of discovery.
    pub resources: Vec<std::sync::Arc<Resource>>,
    /// What could not be found out, for people.
    pub notes: Vec<String>,
}

impl Catalogue {
    /// Finds out what the source holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(
        pieces: &dyn Pieces,
        objects: &Objects,
        scope: &Scope,
    ) -> Result<Self, SourceError> {
        let mut catalogue = Self::default();
        let table = include_str!("../builtin.txt");
        let resources = builtin(table);
        for group in table.lines().filter_map(|line| line.strip_prefix("G ")) {
            let group = if group == "-" { "" } else { group };
            let mut versions = resources.iter().filter(|r| r.group == group).peekable();
            if versions.peek().is_none() {
                // Reviews are answered, not stored.
                catalogue.group(group, "v1");
            }
            versions.for_each(|r| catalogue.group(group, &r.version));
        }
        for resource in resources {
            catalogue.add(resource);
        }
        for resource in custom::definitions(pieces, objects, scope, &mut catalogue.notes)? {
            catalogue.add(resource);
        }
        for (found, first) in held_resources(pieces, scope)? {
            if catalogue.resources.iter().any(|r| r.storage == found) {
                continue;
            }
            match objects.object(&found, first.as_ref()) {
                Ok(object) => {
                    if let Some(resource) = custom::undefined(&found, &object, scope, &first.key) {
                        catalogue.add(resource);
                    }
                }
                Err(why) => catalogue.notes.push(format!(
                    "{found} is not served: no definition says what it is, and its first entry cannot be read ({why})"
                )),
            }
        }
        Ok(catalogue)
    }

    /// A resource by the parts of its path.
    #[must_use]
    pub fn find(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&std::sync::Arc<Resource>> {
        let found = |r: &&std::sync::Arc<Resource>| {
            r.group == group && r.version == version && r.plural == plural
        };
        self.resources.iter().find(found)
    }

    fn add(&mut self, resource: Resource) {
        self.group(&resource.group, &resource.version);
        self.resources.push(std::sync::Arc::new(resource));
    }

    fn group(&mut self, group: &str, version: &str) {
        match self.groups.iter_mut().find(|(name, _)| name == group) {
            Some((_, versions)) => {
                if !versions.iter().any(|v| v == version) {
                    versions.push(version.to_owned());
                }
            }
            None => self.groups.push((group.to_owned(), vec![version.to_owned()])),
        }
    }
}

/// Reads the table of built-in resources.
fn builtin(text: &str) -> Vec<Resource> {
    let list = |text: &str| match text {
        "-" => Vec::new(),
        text => text.split(',').map(str::to_owned).collect(),
    };
    let mut group = String::new();
    let mut resources: Vec<Resource> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "G" => group = if rest == "-" { String::new() } else { rest.to_owned() },
            "C" => {
                if let Some(last) = resources.last_mut() {
                    last.printer = Printer::Kind(columns(rest));
                }
            }
            "R" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let [version, plural, kind, scope, singular, short, categories, subresources] =
                    words[..]
                else {
                    continue;
                };
                // Events have one place and two groups.
                let storage = match (group.as_str(), plural) {
                    ("" | "events.k8s.io", plural) => plural.to_owned(),
                    (group, plural) => format!("{plural}.{group}"),
                };
                resources.push(Resource {
                    group: group.clone(),
                    version: version.to_owned(),
                    plural: plural.to_owned(),
                    kind: kind.to_owned(),
                    list_kind: format!("{kind}List"),
                    singular: singular.to_owned(),
                    namespaced: scope == "N",
                    short_names: list(short),
                    categories: list(categories),
                    subresources: list(subresources),
                    storage,
                    printer: Printer::Kind(Vec::new()),
                    custom: false,
                    same_at_all_versions: false,
                    schema: None,
                    selectable: crate::serve::selector::fields_of(&group, plural)
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                });
            }
            _ => {}
        }
    }
    resources
}

fn columns(text: &str) -> Vec<Column> {
    let column = |part: &str| {
        let mut fields = part.split(':');
        let mut next = || fields.next().unwrap_or_default().to_owned();
        let (name, kind, format) = (next(), next(), next());
        let priority = next().parse().unwrap_or_default();
        Column { name, kind, format, description: String::new(), priority }
    };
    text.split('|').map(column).collect()
}

/// The resources that the source holds, each with its first entry: the keys in between are
/// skipped.
fn held_resources(pieces: &dyn Pieces, scope: &Scope) -> Result<Vec<(String, Entry)>, SourceError> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for mut range in scope.ranges(&[Selector::All]) {
        for _ in 0..MAX_RESOURCES {
            let mut first = None;
            pieces.read(&range, None, &mut |entry| {
                first = Some(entry.to_entry());
                ControlFlow::Break(())
            })?;
            let Some(entry) = first else { break };
            let location = scope.locate(&entry.key);
            let mut next = if location.internal || location.object_at == 0 {
                [&entry.key[..], &[0]].concat()
            } else {
                let above = entry.key.get(..location.object_at).unwrap_or_default();
                KeyRange::prefix(above).end.unwrap_or_else(|| vec![0xFF])
            };
            if next <= range.start {
                next = [&entry.key[..], &[0]].concat();
            }
            range.start = next;
            let (resource, internal) = (location.resource.into_owned(), location.internal);
            if !internal && seen.insert(resource.clone()) {
                found.push((resource, entry));
            }
            if range.end.as_ref().is_some_and(|end| range.start >= *end) {
                break;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let text = include_str!("../builtin.txt");
        let resources = builtin(text);
        assert_eq!(resources.len(), text.lines().filter(|l| l.starts_with("R ")).count());
        for resource in &resources {
            let Printer::Kind(columns) = &resource.printer else { panic!() };
            assert_eq!(columns.iter().filter(|c| c.format == "name").count().min(1), 1);
        }
    }

    #[test]
    fn ranges_of_namespaces() {
        let all = builtin(include_str!("../builtin.txt"));
        let find = |plural: &str| all.iter().find(|r| r.plural == plural).unwrap();
        let start = |plural, scope: &str, namespace| {
            let ranges = find(plural).ranges(&Scope::new(scope), namespace);
            assert_eq!(ranges.len(), 1, "{plural}");
            String::from_utf8(ranges[0].start.clone()).unwrap()
        };
        assert_eq!(start("secrets", "/registry/", Some("a")), "/registry/secrets/a/");
        assert_eq!(start("services", "/registry/", None), "/registry/services/specs/");
        assert_eq!(start("ingresses", "/registry/", Some("a")), "/registry/ingress/a/");
        assert_eq!(start("secrets", "/other/", Some("a")), "/other/secrets/a/");
    }
}
