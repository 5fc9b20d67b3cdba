//! The messages of every built-in kind: what a Go API type's struct tags say.
//!
//! `kinds.txt` is generated (scripts/kinds.py) and parsed when the first protobuf object is met,
//! in well under a millisecond or two, so that commands that decode nothing pay nothing.

use std::collections::HashMap;
use std::sync::OnceLock;

/// How often a field may occur, and how its absence is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Always has a value: the type's zero when absent.
    Plain,
    /// Absent is different from zero.
    Pointer,
    /// Repeated.
    List,
    /// Keyed by strings.
    Map,
}

/// What a field or an element holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Int,
    Bool,
    Bytes,
    /// A message: its index in [`Schema::message`].
    Message(usize),
    /// `metav1.Time`: RFC 3339 in whole seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with six decimals.
    MicroTime,
    Quantity,
    IntOrString,
    /// A JSON document of any shape.
    RawExtension,
    /// The JSON document of a managed-fields entry.
    FieldsV1,
    /// A list of strings that is a message of its own.
    Strings,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct FieldDef {
    pub number: u32,
    /// The JSON name; empty for a struct whose fields stand among its parent's.
    pub name: &'static str,
    pub shape: Shape,
    pub kind: Kind,
    /// Go's `omitempty`: empty scalars, lists, maps and nil pointers are left out.
    pub omit_empty: bool,
    /// Go's `omitzero`: a zero struct is left out too.
    pub omit_zero: bool,
    /// The newest release lacks it: read, but written only when set.
    pub removed: bool,
}

/// One message: fields in ascending order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub name: &'static str,
    pub fields: Vec<FieldDef>,
}

impl Message {
    /// Position of the field with this number.
    pub fn position(&self, number: u32) -> Option<usize> {
        // Most messages number their fields 1, 2, 3, …
        let guess = (number as usize).wrapping_sub(1);
        if self.fields.get(guess).is_some_and(|f| f.number == number) {
            return Some(guess);
        }
        self.fields.binary_search_by_key(&number, |f| f.number).ok()
    }
}

/// Every known kind.
#[derive(Debug, Default)]
pub(super) struct Schema {
    messages: Vec<Message>,
    index: HashMap<&'static str, usize>,
    kinds: HashMap<(&'static str, &'static str, &'static str), usize>,
}

impl Schema {
    /// The table, parsed on first use.
    pub fn get() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| parse(include_str!("kinds.txt")))
    }

    /// The message of a kind of `api_version` (`v1`, `apps/v1`).
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds.get(&(group, version, kind)).map(|i| &self.messages[*i])
    }

    /// The message at an index that [`Kind::Message`] holds.
    pub fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }

    /// A message by its name, `meta/v1.ObjectMeta`.
    pub fn named(&self, name: &str) -> Option<&Message> {
        self.index.get(name).map(|i| &self.messages[*i])
    }

    /// Group (empty for core), version, kind and message of everything known.
    #[cfg(test)]
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &str, &Message)> {
        self.kinds.iter().map(|((g, v, k), i)| (*g, *v, *k, &self.messages[*i]))
    }
}

/// Parses the generated table. Lines that do not fit are passed over; a test makes sure that the
/// committed table has none.
fn parse(text: &'static str) -> Schema {
    let mut schema = Schema::default();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("M ") {
            schema.index.insert(name, schema.messages.len());
            schema.messages.push(Message { name, fields: Vec::new() });
        }
    }
    let mut at = 0usize;
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("K"), Some(group), Some(version)) => {
                let (Some(kind), Some(message)) = (words.next(), words.next()) else { continue };
                let Some(index) = schema.index.get(message) else { continue };
                let group = if group == "-" { "" } else { group };
                schema.kinds.insert((group, version, kind), *index);
            }
            (Some("M"), Some(_), _) => at += 1,
            (Some(number), Some(name), Some(type_name)) => {
                let Ok(number) = number.parse() else { continue };
                let flags = words.next().unwrap_or_default();
                let Some((shape, kind)) = parse_type(&schema.index, type_name) else { continue };
                let Some(message) = at.checked_sub(1).and_then(|at| schema.messages.get_mut(at))
                else {
                    continue;
                };
                message.fields.push(FieldDef {
                    number,
                    name: if name == "-" { "" } else { name },
                    shape,
                    kind,
                    omit_empty: flags.contains('o'),
                    omit_zero: flags.contains('z'),
                    removed: flags.contains('r'),
                });
            }
            _ => {}
        }
    }
    schema
}

fn parse_type(index: &HashMap<&'static str, usize>, text: &str) -> Option<(Shape, Kind)> {
    let (shape, name) = if let Some(rest) = text.strip_prefix("[]") {
        (Shape::List, rest)
    } else if let Some(rest) = text.strip_prefix("{}") {
        (Shape::Map, rest)
    } else if let Some(rest) = text.strip_prefix('*') {
        (Shape::Pointer, rest)
    } else {
        (Shape::Plain, text)
    };
    let kind = match name {
        "string" => Kind::String,
        "int" => Kind::Int,
        "bool" => Kind::Bool,
        "bytes" => Kind::Bytes,
        "Time" => Kind::Time,
        "MicroTime" => Kind::MicroTime,
        "Quantity" => Kind::Quantity,
        "IntOrString" => Kind::IntOrString,
        "RawExtension" => Kind::RawExtension,
        "FieldsV1" => Kind::FieldsV1,
        "Strings" => Kind::Strings,
        message => Kind::Message(*index.get(message)?),
    };
    Some((shape, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let text = include_str!("kinds.txt");
        let schema = Schema::get();
        let fields = text.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).count();
        assert_eq!(schema.messages.iter().map(|m| m.fields.len()).sum::<usize>(), fields);
        let kinds = text.lines().filter(|l| l.starts_with("K ")).count();
        assert_eq!(schema.kinds().count(), kinds);
        assert!(kinds > 150, "{kinds}");
        for message in &schema.messages {
            assert!(message.fields.is_sorted_by_key(|f| f.number), "{}", message.name);
        }
    }

    #[test]
    fn fields_are_found_by_number_with_gaps() {
        let meta = Schema::get().named("meta/v1.ObjectMeta").unwrap();
        for (number, name) in [(1, "name"), (14, "finalizers"), (17, "managedFields")] {
            assert_eq!(meta.fields[meta.position(number).unwrap()].name, name);
        }
        assert_eq!(meta.position(16), None);
        assert_eq!(meta.position(0), None);
        assert_eq!(meta.position(u32::MAX), None);
    }

    #[test]
    fn removed_kinds_are_known() {
        for (api_version, kind) in [
            ("v1", "Secret"),
            ("v1", "RangeAllocation"),
            ("extensions/v1beta1", "Ingress"),
            ("policy/v1beta1", "PodSecurityPolicy"),
            ("batch/v1beta1", "CronJob"),
            ("autoscaling/v2beta1", "HorizontalPodAutoscaler"),
            ("autoscaling/v2beta2", "HorizontalPodAutoscaler"),
            ("flowcontrol.apiserver.k8s.io/v1beta1", "FlowSchema"),
            ("flowcontrol.apiserver.k8s.io/v1beta3", "PriorityLevelConfiguration"),
            ("storagemigration.k8s.io/v1alpha1", "StorageVersionMigration"),
        ] {
            assert!(Schema::get().kind(api_version, kind).is_some(), "{api_version} {kind}");
        }
        assert!(Schema::get().kind("apps/v1", "Secret").is_none());
        assert!(Schema::get().kind("v9", "Secret").is_none());
    }
}
