//! One request → one answer, without a network.

mod listing;

use std::sync::Arc;

use serde_json::{Value, json};

pub(super) use listing::{Chunks, Listing};

use super::catalogue::Catalogue;
use super::request::{Form, Request};
use super::status::Status;
use super::{access, discovery, openapi};
use crate::objects::Objects;
use crate::resource::Scope;
use crate::source::pieces::Pieces;
use crate::source::{KeyRange, SourceError};

/// What is served, and how.
pub struct Api {
    pieces: Box<dyn Pieces>,
    objects: Objects,
    scope: Scope,
    catalogue: Catalogue,
    /// Secret data are shown.
    reveal: bool,
    /// The revision that is served, if not the newest of a live source.
    revision: Option<i64>,
}

/// What a client gets.
pub enum Answer {
    /// A document that is at hand.
    Whole(u16, &'static str, Vec<u8>),
    /// A list, written piece by piece.
    List(Listing),
    /// A watch.
    Watch(Watch),
}

/// A watch: what is there, and then nothing any more, for nothing changes.
pub struct Watch {
    /// What is watched.
    pub listing: Listing,
    /// It begins with the objects that are there.
    pub initial: bool,
    /// The end of the objects that are there is marked.
    pub marked: bool,
    /// Bookmarks are welcome.
    pub bookmarks: bool,
    /// How long it lasts, seconds.
    pub seconds: u64,
}

const JSON: &str = "application/json";
/// How long a watch lasts that names no end, seconds.
const WATCH: u64 = 3600;

impl Api {
    /// Looks through the source for what can be served.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(
        pieces: Box<dyn Pieces>,
        objects: Objects,
        scope: Scope,
        reveal: bool,
        revision: Option<i64>,
    ) -> Result<Self, SourceError> {
        let catalogue = Catalogue::read(pieces.as_ref(), &objects, &scope)?;
        Ok(Self { pieces, objects, scope, catalogue, reveal, revision })
    }

    /// What there is.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Answers a request; `address` is where this server is reached.
    ///
    /// # Errors
    /// The refusal that is sent.
    pub fn answer(&self, request: &Request, address: &str) -> Result<Answer, Status> {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        if request.method == "POST"
            && let ["apis", group, "v1", resource] = path[..]
            && let Some(answer) = access::review(group, resource, &request.body)
        {
            return Ok(whole(201, &answer));
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(Status::read_only(&request.method));
        }
        if let Some(answer) = self.document(request, &path, address)? {
            return Ok(answer);
        }
        let (group, version, rest) = match &path[..] {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Status::no_path()),
        };
        self.resource(request, group, version, rest)
    }

    /// Everything but objects.
    fn document(
        &self,
        request: &Request,
        path: &[&str],
        address: &str,
    ) -> Result<Option<Answer>, Status> {
        let catalogue = &self.catalogue;
        Ok(Some(match path {
            ["version"] => whole(200, &version()),
            ["healthz" | "livez" | "readyz", ..] => {
                Answer::Whole(200, "text/plain; charset=utf-8", b"ok".to_vec())
            }
            [] => whole(200, &json!({"paths": self.paths()})),
            ["api" | "apis"] => {
                let core = path == ["api"];
                match aggregated(request) {
                    Some(("v2", media)) => {
                        document(media, &discovery::aggregated(catalogue, core, "v2"))
                    }
                    Some((_, media)) => {
                        document(media, &discovery::aggregated(catalogue, core, "v2beta1"))
                    }
                    None if core => whole(200, &discovery::core_versions(address)),
                    None => whole(200, &discovery::groups(catalogue)),
                }
            }
            ["api", version] => {
                let found = discovery::resources(catalogue, "", version);
                whole(200, &found.ok_or_else(Status::no_path)?)
            }
            ["apis", group] => {
                let found = discovery::one_group(catalogue, group);
                whole(200, &found.ok_or_else(Status::no_path)?)
            }
            ["apis", group, version] => {
                let found = discovery::resources(catalogue, group, version);
                whole(200, &found.ok_or_else(Status::no_path)?)
            }
            ["openapi", "v2"] if !request.takes_json() => return Err(Status::not_acceptable()),
            ["openapi", "v2"] => whole(200, &openapi::swagger(catalogue)),
            ["openapi", "v3"] => whole(200, &openapi::index(catalogue)),
            ["openapi", "v3", "api", version] => {
                whole(200, &openapi::document(catalogue, "", version).ok_or_else(Status::no_path)?)
            }
            ["openapi", "v3", "apis", group, version] => {
                let found = openapi::document(catalogue, group, version);
                whole(200, &found.ok_or_else(Status::no_path)?)
            }
            _ => return Ok(None),
        }))
    }

    /// A list, a watch or an object.
    fn resource(
        &self,
        request: &Request,
        group: &str,
        version: &str,
        rest: &[&str],
    ) -> Result<Answer, Status> {
        // `namespaces/N/RESOURCE…`, but `namespaces/N` and its status are the namespace itself.
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..]
                if !(rest.is_empty()
                    || group.is_empty() && matches!(rest, ["status" | "finalize"])) =>
            {
                (Some(*namespace), rest)
            }
            rest => (None, rest),
        };
        let [plural, rest @ ..] = rest else { return Err(Status::no_path()) };
        let resource = self.catalogue.find(group, version, plural).ok_or_else(Status::no_path)?;
        if namespace.is_some() && !resource.namespaced {
            return Err(Status::no_path());
        }
        if !request.takes_json() {
            return Err(Status::not_acceptable());
        }
        match rest {
            [] => {
                let listing = Listing::new(resource, namespace, request)?;
                if request.is_set("watch") {
                    return watch(listing, request).map(Answer::Watch);
                }
                Ok(Answer::List(listing))
            }
            [name, rest @ ..] if namespace.is_some() || !resource.namespaced => {
                if let [sub, ..] = rest
                    && !(rest.len() == 1 && resource.subresources.iter().any(|s| s == sub))
                {
                    return Err(match *sub {
                        "log" | "exec" | "attach" | "portforward" | "proxy" => {
                            Status::forbidden(format!(
                                "{plural}/{sub} needs a running cluster: this server shows what etcd or a backup holds"
                            ))
                        }
                        _ => Status::no_path(),
                    });
                }
                let listing = Listing::single(resource, namespace, name, request)?;
                Ok(Answer::Whole(200, JSON, self.get(&listing)?))
            }
            _ => Err(Status::no_path()),
        }
    }

    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = [
            "/api",
            "/api/v1",
            "/apis",
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned)
        .to_vec();
        for (group, versions) in self.catalogue.groups.iter().filter(|(g, _)| !g.is_empty()) {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
        }
        paths.sort();
        paths
    }

    /// The revision of a list without entries.
    pub(super) fn current_revision(&self) -> Result<i64, SourceError> {
        if let Some(visit) = self.pieces.opened() {
            return Ok(visit.revision);
        }
        let nothing = KeyRange::single(b"\0");
        let read =
            self.pieces.read(&nothing, self.revision, &mut |_| std::ops::ControlFlow::Continue(()));
        read.map(|visit| visit.revision)
    }

    /// A revision as objects and lists name it.
    #[allow(clippy::unused_self)] // one place says how
    pub(super) fn shown_revision(&self, revision: i64) -> Value {
        revision.to_string().into()
    }
}

fn whole(code: u16, value: &Value) -> Answer {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    Answer::Whole(code, JSON, bytes)
}

fn document(media: &'static str, value: &Value) -> Answer {
    Answer::Whole(200, media, value.to_string().into_bytes())
}

/// The version of the aggregated document that a client wants first, if any.
fn aggregated(request: &Request) -> Option<(&'static str, &'static str)> {
    let words = |version| ["as=APIGroupDiscoveryList", "g=apidiscovery.k8s.io", version];
    if request.accepts(&words("v=v2")) {
        return Some((
            "v2",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ));
    }
    request.accepts(&words("v=v2beta1")).then_some((
        "v2beta1",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    ))
}

/// The API that is spoken, and who speaks it.
fn version() -> Value {
    json!({"major": "1", "minor": "36", "gitVersion": concat!("v1.36.0+atrest.", env!("CARGO_PKG_VERSION")),
           "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
           "goVersion": "", "compiler": "rustc", "platform": std::env::consts::OS})
}

/// Reads the parameters of a watch (apiserver `pkg/storage/cacher`: without a resource version it
/// begins with what is there).
fn watch(listing: Listing, request: &Request) -> Result<Watch, Status> {
    let begun = request.parameter("resourceVersion").is_some_and(|v| v != "0");
    let bookmarks = request.is_set("allowWatchBookmarks");
    let initial = match request.parameter("sendInitialEvents") {
        Some(_) => request.is_set("sendInitialEvents"),
        None => !begun,
    };
    let seconds = match request.parameter("timeoutSeconds") {
        None => WATCH,
        Some(text) => match text.parse() {
            Ok(0) => WATCH,
            Ok(seconds) => seconds,
            Err(_) => {
                return Err(Status::bad_request(format!("timeoutSeconds: invalid value `{text}`")));
            }
        },
    };
    let marked = request.is_set("sendInitialEvents") && bookmarks;
    Ok(Watch { listing, initial, marked, bookmarks, seconds })
}

impl Watch {
    /// The line that says how far the watch has come.
    #[must_use]
    pub fn bookmark(&self, revision: i64, end_of_initial: bool) -> Vec<u8> {
        let resource: &Arc<_> = &self.listing.resource;
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.listing.form {
            Form::Table => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null,
                "rows": [{"cells": [], "object": {"kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1", "metadata": metadata}}]}),
            Form::Metadata => json!({"kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
            Form::Object => json!({"kind": resource.kind, "apiVersion": resource.api_version(),
                                   "metadata": metadata}),
        };
        let mut line = json!({"type": "BOOKMARK", "object": object}).to_string().into_bytes();
        line.push(b'\n');
        line
    }
}
