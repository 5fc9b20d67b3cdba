//! Gets and lists: entries → objects, rows or metadata, page by page.

use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Api;
use crate::entry::{Entry, EntryRef};
use crate::serve::catalogue::Resource;
use crate::serve::request::{Form, Request};
use crate::serve::selector::{Fields, Labels};
use crate::serve::status::Status;
use crate::serve::{redact, table};
use crate::source::{KeyRange, RevisionError, SourceError};
use crate::storage;

/// Entries that are read before the first of them are worked on, and their size, bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 << 20;

/// How much of an object a table's rows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// Objects of one resource that are asked for.
pub struct Listing {
    /// The resource.
    pub resource: Arc<Resource>,
    /// One namespace of it.
    pub namespace: Option<String>,
    /// One object of it.
    name: Option<String>,
    labels: Labels,
    fields: Fields,
    limit: Option<usize>,
    /// Keys from here on, when a list goes on.
    from: Option<Vec<u8>>,
    /// The revision that a list began at.
    revision: Option<i64>,
    /// How objects are written.
    pub form: Form,
    include: Include,
    now: Timestamp,
}

/// Takes pieces of the answer; breaks when nobody wants more.
pub type Chunks<'c> = dyn FnMut(Vec<u8>) -> ControlFlow<()> + 'c;

impl Listing {
    /// Reads the parameters of a list.
    ///
    /// # Errors
    /// 400 for what cannot be understood.
    pub fn new(
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        request: &Request,
    ) -> Result<Self, Status> {
        let labels = Labels::parse(request.parameter("labelSelector").unwrap_or_default())
            .map_err(Status::bad_request)?;
        let supported: Vec<&str> = resource.selectable.iter().map(String::as_str).collect();
        let selector = request.parameter("fieldSelector").unwrap_or_default();
        let fields = Fields::parse(selector, resource.namespaced, &supported)
            .map_err(Status::bad_request)?;
        let limit = match request.parameter("limit") {
            None => None,
            Some(text) => match text.parse::<i64>() {
                Ok(0) => None,
                Ok(n) if n > 0 => usize::try_from(n).ok(),
                _ => return Err(Status::bad_request(format!("limit: invalid value `{text}`"))),
            },
        };
        let (from, revision) = match request.parameter("continue") {
            None => (None, None),
            Some(token) => resumed(token)
                .map(|(key, revision)| (Some(key), Some(revision)))
                .ok_or_else(|| Status::bad_request("continue key is not valid"))?,
        };
        let namespace = namespace.or(fields.namespace()).map(str::to_owned);
        Ok(Self {
            resource: Arc::clone(resource),
            namespace,
            name: fields.name().map(str::to_owned),
            labels,
            fields,
            limit,
            from,
            revision,
            form: request.form(),
            include: included(request)?,
            now: Timestamp::now(),
        })
    }

    /// One object, whatever the parameters say.
    ///
    /// # Errors
    /// 400 for what cannot be understood.
    pub fn single(
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        name: &str,
        request: &Request,
    ) -> Result<Self, Status> {
        Ok(Self {
            resource: Arc::clone(resource),
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            labels: Labels::default(),
            fields: Fields::default(),
            limit: None,
            from: None,
            revision: None,
            form: request.form(),
            include: included(request)?,
            now: Timestamp::now(),
        })
    }

    /// Whether all objects are selected.
    fn is_whole(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    fn ranges(&self, api: &Api) -> Vec<KeyRange> {
        let ranges = self.resource.ranges(&api.scope, self.namespace.as_deref());
        let located = self.namespace.is_some() || !self.resource.namespaced;
        let narrowed = |mut range: KeyRange| {
            if let (Some(name), true) = (&self.name, located && range.start.last() == Some(&b'/')) {
                range = KeyRange::single(&[&range.start[..], name.as_bytes()].concat());
            }
            if let Some(from) = self.from.as_ref().filter(|from| **from > range.start) {
                range.start.clone_from(from);
            }
            let empty = range.end.as_ref().is_some_and(|end| range.start >= *end);
            (!empty).then_some(range)
        };
        ranges.into_iter().filter_map(narrowed).collect()
    }

    /// Whether an entry of the ranges is one of those asked for, by its key.
    fn wants(&self, api: &Api, entry: EntryRef<'_>) -> bool {
        let location = api.scope.locate(entry.key);
        !location.internal
            && location.resource == self.resource.storage
            && location.namespace.is_some() == self.resource.namespaced
            && self.namespace.as_deref().is_none_or(|n| location.namespace.as_deref() == Some(n))
            && self.name.as_deref().is_none_or(|n| location.name == n)
    }
}

fn included(request: &Request) -> Result<Include, Status> {
    match request.parameter("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => {
            Err(Status::bad_request(format!("unrecognized includeObject value: \"{other}\"")))
        }
    }
}

/// Where a list goes on, for a client to give back.
fn token(key: &[u8], revision: i64) -> String {
    let text = json!({"v": "meta.k8s.io/v1", "rv": revision,
                      "start": URL_SAFE_NO_PAD.encode(key)});
    URL_SAFE_NO_PAD.encode(text.to_string())
}

fn resumed(token: &str) -> Option<(Vec<u8>, i64)> {
    let text = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok()?;
    let value: Value = serde_json::from_slice(&text).ok()?;
    let key = URL_SAFE_NO_PAD.decode(value["start"].as_str()?).ok()?;
    Some((key, value["rv"].as_i64()?))
}

/// What went through a list.
#[derive(Default)]
struct Progress {
    written: usize,
    revision: i64,
    /// The key to go on at.
    next: Option<Vec<u8>>,
    gone: bool,
}

impl Api {
    /// Writes a list. What cannot be read is left out and told by way of `warn`.
    ///
    /// # Errors
    /// When nothing can be read at all, or nothing at that revision any more.
    pub(in crate::serve) fn list(
        &self,
        listing: &Listing,
        out: &mut Chunks<'_>,
        warn: &mut dyn FnMut(String),
    ) -> Result<(), Status> {
        let resource = &listing.resource;
        let (head, list) = match listing.form {
            Form::Object => {
                (json!({"kind": resource.list_kind, "apiVersion": resource.api_version()}), "items")
            }
            Form::Metadata => (
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}),
                "items",
            ),
            Form::Table => (
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": table::columns(resource)}),
                "rows",
            ),
        };
        let mut head = head.to_string();
        head.pop();
        head.extend([",\"", list, "\":["]);
        let mut head = Some(head.into_bytes());
        let mut progress = Progress::default();
        self.items(listing, &mut progress, warn, &mut |first, item| {
            let mut bytes = head.take().unwrap_or_default();
            if !first {
                bytes.push(b',');
            }
            bytes.extend(item);
            out(bytes)
        })?;
        if progress.gone {
            return Ok(());
        }
        let mut metadata = json!({"resourceVersion": self.shown_revision(progress.revision)});
        if let Some(next) = &progress.next {
            metadata["continue"] = token(next, progress.revision).into();
            if let Some(left) = listing.is_whole().then(|| self.left(listing, next)).flatten() {
                metadata["remainingItemCount"] = left.into();
            }
        }
        let mut tail = head.take().unwrap_or_default();
        tail.extend(format!("],\"metadata\":{metadata}}}\n").into_bytes());
        let _ = out(tail);
        Ok(())
    }

    fn left(&self, listing: &Listing, next: &[u8]) -> Option<usize> {
        let mut left = 0;
        for mut range in listing.resource.ranges(&self.scope, listing.namespace.as_deref()) {
            if range.start.as_slice() < next {
                range.start = next.to_vec();
            }
            if range.end.as_ref().is_none_or(|end| range.start < *end) {
                left += self.pieces.count(&range)?;
            }
        }
        Some(left)
    }

    /// Hands out the selected objects in the form that is wanted, and whether each is the first.
    fn items(
        &self,
        listing: &Listing,
        progress: &mut Progress,
        warn: &mut dyn FnMut(String),
        give: &mut dyn FnMut(bool, Vec<u8>) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let asked = listing.revision.or(self.revision);
        for range in listing.ranges(self) {
            let mut batch: Vec<Entry> = Vec::new();
            let mut size = 0;
            let mut last_key = Vec::new();
            let visit = self.pieces.read(&range, asked, &mut |entry| {
                // The limit was reached before this one.
                if listing.limit.is_some_and(|limit| progress.written >= limit) {
                    progress.next = Some(if last_key.is_empty() {
                        range.start.clone()
                    } else {
                        [&last_key[..], &[0]].concat()
                    });
                    return ControlFlow::Break(());
                }
                if !listing.wants(self, entry) {
                    return ControlFlow::Continue(());
                }
                size += entry.stored().len();
                batch.push(entry.to_entry());
                let room =
                    listing.limit.map_or(BATCH, |limit| (limit - progress.written).min(BATCH));
                if batch.len() < room && size < BATCH_BYTES {
                    return ControlFlow::Continue(());
                }
                last_key = entry.key.to_vec();
                size = 0;
                self.work(listing, &mut batch, progress, warn, give)
            });
            let visit = visit.map_err(|e| failed(&e, listing.revision))?;
            for damage in &visit.damage {
                warn(format!("cannot read {}: {}", damage.location, damage.what));
            }
            progress.revision = visit.revision;
            if progress.next.is_none() && !progress.gone {
                let _ = self.work(listing, &mut batch, progress, warn, give);
            }
            if progress.next.is_some() || progress.gone {
                return Ok(());
            }
        }
        if progress.revision == 0 {
            progress.revision = self.current_revision().map_err(|e| failed(&e, None))?;
        }
        Ok(())
    }

    fn work(
        &self,
        listing: &Listing,
        batch: &mut Vec<Entry>,
        progress: &mut Progress,
        warn: &mut dyn FnMut(String),
        give: &mut dyn FnMut(bool, Vec<u8>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let done: Vec<_> =
            batch.par_iter().map(|entry| self.item(listing, entry.as_ref())).collect();
        for (entry, item) in batch.iter().zip(done) {
            match item {
                Ok(Some(item)) => {
                    if give(progress.written == 0, item).is_break() {
                        progress.gone = true;
                        return ControlFlow::Break(());
                    }
                    progress.written += 1;
                }
                Ok(None) => {}
                Err(why) => warn(self.unreadable(entry.as_ref(), &why)),
            }
        }
        batch.clear();
        ControlFlow::Continue(())
    }

    fn unreadable(&self, entry: EntryRef<'_>, why: &str) -> String {
        let location = self.scope.locate(entry.key);
        let namespace = location.namespace.map(|n| format!("{n}/")).unwrap_or_default();
        let name = format!("{} {namespace}{}", location.resource, location.name);
        format!("{} cannot be shown: {why}", name.escape_debug())
    }

    /// An entry in the form that is wanted; `None` when it is not selected.
    fn item(&self, listing: &Listing, entry: EntryRef<'_>) -> Result<Option<Vec<u8>>, String> {
        let mut object = self.object(&listing.resource, entry)?;
        let selected = listing.labels.match_object(&object) && listing.fields.match_object(&object);
        let written = selected.then(|| Self::written(listing, &mut object));
        storage::wipe(&mut object);
        written.transpose()
    }

    /// The object as the resource's version has it, redacted unless that is not wanted.
    fn object(&self, resource: &Resource, entry: EntryRef<'_>) -> Result<Value, String> {
        let object = self.objects.object(&resource.storage, entry)?;
        if object.is_hollow() {
            return Err(format!(
                "the fields of {} of {} are not known to this program",
                object.kind, object.api_version
            ));
        }
        let location = self.scope.locate(entry.key);
        let metadata = &object.json["metadata"];
        if metadata["name"].as_str().is_some_and(|name| name != location.name)
            || location.namespace.is_some_and(|ns| metadata["namespace"].as_str() != Some(&*ns))
        {
            return Err("its value is of another object than its key says".to_owned());
        }
        let mut json = crate::serve::version::at(resource, object);
        if !self.reveal {
            redact::redact(&mut json, resource.storage == "secrets");
        }
        Ok(json)
    }

    fn written(listing: &Listing, object: &mut Value) -> Result<Vec<u8>, String> {
        let text = |value: &Value| serde_json::to_vec(value).map_err(|e| e.to_string());
        match listing.form {
            Form::Object => {
                // Items of built-in lists are of the list's kind, and do not repeat it.
                let resource = &listing.resource;
                if !resource.custom
                    && object["apiVersion"] == resource.api_version().as_str()
                    && let Some(map) = object.as_object_mut()
                {
                    map.remove("apiVersion");
                    map.remove("kind");
                }
                text(object)
            }
            Form::Metadata => text(&metadata(object)),
            Form::Table => {
                let mut row = table::row(&listing.resource, object, listing.now);
                match listing.include {
                    Include::None => {}
                    Include::Metadata => {
                        row.insert("object".into(), metadata(object));
                    }
                    Include::Object => {
                        row.insert("object".into(), object.take());
                    }
                }
                let mut row = Value::Object(row);
                let written = text(&row);
                storage::wipe(&mut row);
                written
            }
        }
    }

    /// One object in the form that is wanted.
    ///
    /// # Errors
    /// 404 without it, 500 when it cannot be read.
    pub(in crate::serve) fn get(&self, listing: &Listing) -> Result<Vec<u8>, Status> {
        let resource = &listing.resource;
        let mut found = None;
        for range in listing.ranges(self) {
            let read = self.pieces.read(&range, self.revision, &mut |entry| {
                if listing.wants(self, entry) {
                    found = Some(entry.to_entry());
                }
                ControlFlow::Continue(())
            });
            let visit = read.map_err(|e| failed(&e, None))?;
            if let Some(damage) = visit.damage.first() {
                return Err(Status::internal(format!("{}: {}", damage.location, damage.what)));
            }
        }
        let name = listing.name.as_deref().unwrap_or_default();
        let entry =
            found.ok_or_else(|| Status::not_found(&resource.group, &resource.plural, name))?;
        let object = self.object(resource, entry.as_ref());
        let mut object =
            object.map_err(|why| Status::internal(self.unreadable(entry.as_ref(), &why)))?;
        let mut written = match listing.form {
            Form::Object => serde_json::to_vec(&object).map_err(|e| e.to_string()),
            Form::Metadata => Self::written(listing, &mut object),
            Form::Table => {
                let version = object["metadata"]["resourceVersion"].clone();
                let row = Self::written(listing, &mut object);
                row.map(|row| {
                    let columns = table::columns(resource);
                    let mut all = format!(
                        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{{\"resourceVersion\":{version}}},\"columnDefinitions\":{columns},\"rows\":["
                    )
                    .into_bytes();
                    all.extend(row);
                    all.extend(b"]}");
                    all
                })
            }
        }
        .map_err(Status::internal)?;
        storage::wipe(&mut object);
        written.push(b'\n');
        Ok(written)
    }

    /// Writes what a watch begins with: the objects that are there, as `ADDED`. Returns the
    /// revision that they are of.
    ///
    /// # Errors
    /// As [`Api::list`].
    pub(in crate::serve) fn added(
        &self,
        listing: &Listing,
        out: &mut Chunks<'_>,
        warn: &mut dyn FnMut(String),
    ) -> Result<i64, Status> {
        let mut progress = Progress::default();
        let columns = table::columns(&listing.resource);
        let custom = &listing.resource;
        self.items(listing, &mut progress, warn, &mut |first, item| {
            let mut line = b"{\"type\":\"ADDED\",\"object\":".to_vec();
            if listing.form == Form::Table {
                // Only the first table of a watch says what its columns are.
                let columns = if first { columns.to_string() } else { "null".to_owned() };
                line.extend(format!("{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{{}},\"columnDefinitions\":{columns},\"rows\":[").into_bytes());
                line.extend(item);
                line.extend(b"]}");
            } else if listing.form == Form::Object && !custom.custom && !item.starts_with(b"{\"apiVersion\"") {
                // Items of lists go without these, events do not.
                let head = format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", custom.api_version(), custom.kind);
                line.extend(head.into_bytes());
                line.extend(item.get(1..).unwrap_or_default());
            } else {
                line.extend(item);
            }
            line.extend(b"}\n");
            out(line)
        })?;
        Ok(progress.revision)
    }
}

/// An object's metadata alone.
fn metadata(object: &mut Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
           "metadata": object["metadata"].take()})
}

/// A source that cannot be read; `begun` is the revision of a list that goes on.
fn failed(error: &SourceError, begun: Option<i64>) -> Status {
    let gone = matches!(
        error,
        SourceError::Revision(
            RevisionError::Forgotten(_)
                | RevisionError::CompactedMeanwhile(_)
                | RevisionError::Gone
        )
    );
    if begun.is_some() && gone {
        return Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.",
        );
    }
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        assert_eq!(resumed(&token(b"/a/\xff\0", 7)), Some((b"/a/\xff\0".to_vec(), 7)));
        for wrong in ["", "x", "e30"] {
            assert_eq!(resumed(wrong), None, "{wrong}");
        }
    }
}
