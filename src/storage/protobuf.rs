//! Built-in kinds from protobuf, driven by the table of [`super::schema`].
//!
//! What is printed when a field is absent or empty follows Go's `encoding/json` on the API types:
//! `omitempty`, `omitzero`, nil pointers, nil lists and maps.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::schema::{FieldDef, Kind, Message, Schema, Shape};
use super::{DecodeError, Encoding, Object, UnknownField, Why, raw};
use crate::proto::{Field, Fields, Wire};

/// Deepest nesting of messages accepted; the deepest real kind stays below 20.
const MAX_DEPTH: usize = 100;
/// Most objects inside one another: a value has room for more than the stack. Real ones have one
/// in them.
const MAX_INSIDE: usize = 8;

/// Decodes what follows the magic: `runtime.Unknown` (apimachinery `pkg/runtime/generated.proto`),
/// inside that many `others`.
pub(super) fn decode(envelope: &[u8], others: usize) -> Result<Object, DecodeError> {
    let damaged = |_| DecodeError::Protobuf { path: "the envelope".into() };
    let (mut type_meta, mut body, mut encoding, mut media) = (&[][..], &[][..], &[][..], &[][..]);
    for field in Fields::new(envelope) {
        let field = field.map_err(damaged)?;
        let Some(bytes) = field.bytes() else { continue };
        match field.number {
            1 => type_meta = bytes,
            2 => body = bytes,
            3 => encoding = bytes,
            4 => media = bytes,
            _ => {}
        }
    }
    if !encoding.is_empty() || !(media.is_empty() || media.ends_with(b"protobuf")) {
        return Err(DecodeError::ContentType);
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields::new(type_meta) {
        let field = field.map_err(damaged)?;
        let Some(bytes) = field.bytes() else { continue };
        match field.number {
            1 => api_version = String::from_utf8_lossy(bytes).into_owned(),
            2 => kind = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
    }
    let mut decoder =
        Decoder { schema: Schema::get(), path: Vec::new(), unknown: Vec::new(), others };
    let mut json = match decoder.schema.kind(&api_version, &kind) {
        Some(message) => decoder.message(message, body)?,
        None => decoder.unknown_kind(body)?,
    };
    if kind == "StatefulSet" && api_version.starts_with("apps/") {
        name_claim_templates(&mut json);
    }
    json.insert("apiVersion".into(), api_version.clone().into());
    json.insert("kind".into(), kind.clone().into());
    let unknown = decoder.unknown;
    Ok(Object { api_version, kind, json: json.into(), unknown, encoding: Encoding::Protobuf })
}

/// The only objects inside another whose type the API server shows: it is not stored, but filled in
/// on reading (kubernetes `pkg/apis/apps/*/zz_generated.defaults.go`).
fn name_claim_templates(stateful_set: &mut Map<String, Value>) {
    let templates = stateful_set.get_mut("spec").and_then(|s| s.get_mut("volumeClaimTemplates"));
    let Some(Value::Array(templates)) = templates else { return };
    for template in templates.iter_mut().filter_map(Value::as_object_mut) {
        template.insert("apiVersion".into(), "v1".into());
        template.insert("kind".into(), "PersistentVolumeClaim".into());
    }
}

/// A step into a nested value, kept for messages only.
enum Step<'a> {
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

/// A field's occurrences on the wire.
#[derive(Clone)]
enum Slot<'a> {
    Absent,
    One(Wire<'a>),
    Many(Vec<Wire<'a>>),
}

impl<'a> Slot<'a> {
    fn add(&mut self, value: Wire<'a>) {
        match self {
            Self::Absent => *self = Self::One(value),
            Self::One(first) => *self = Self::Many(vec![*first, value]),
            Self::Many(all) => all.push(value),
        }
    }

    fn all(&self) -> &[Wire<'a>] {
        match self {
            Self::Absent => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(all) => all,
        }
    }
}

struct Decoder<'a> {
    schema: &'static Schema,
    path: Vec<Step<'a>>,
    unknown: Vec<UnknownField>,
    /// Objects that this one lies inside of.
    others: usize,
}

impl<'a> Decoder<'a> {
    /// Decodes a message with its fields in place.
    fn message(
        &mut self,
        message: &Message,
        bytes: &'a [u8],
    ) -> Result<Map<String, Value>, DecodeError>
    where
        'static: 'a,
    {
        let mut json = Map::new();
        self.message_into(message, bytes, &mut json)?;
        Ok(json)
    }

    fn message_into(
        &mut self,
        message: &Message,
        bytes: &'a [u8],
        json: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        if self.path.len() > MAX_DEPTH {
            return Err(DecodeError::TooDeep { path: self.path() });
        }
        let mut slots = vec![Slot::Absent; message.fields.len()];
        for field in Fields::new(bytes) {
            let field = field.map_err(|_| self.damaged())?;
            match message.position(field.number) {
                Some(at) => slots[at].add(field.value),
                None => self.note_field(field, Why::UnknownField),
            }
        }
        for (field, slot) in message.fields.iter().zip(&slots) {
            self.path.push(Step::Field(field.name));
            self.field(field, slot.all(), json)?;
            self.path.pop();
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &FieldDef,
        found: &[Wire<'a>],
        json: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let value = match field.shape {
            Shape::List => self.list(field, found)?,
            Shape::Map => self.map(field, found)?,
            Shape::Pointer if found.is_empty() => Value::Null,
            Shape::Pointer | Shape::Plain => {
                if let Kind::Message(index) = field.kind {
                    let message = self.schema.message(index);
                    if field.name.is_empty() {
                        return self.singular_message(message, found, json);
                    }
                    let mut inner = Map::new();
                    self.singular_message(message, found, &mut inner)?;
                    if field.omit_zero && inner.is_empty() {
                        return Ok(());
                    }
                    inner.into()
                } else {
                    let last = found.last().copied();
                    let value = self.scalar(field.kind, last)?;
                    if field.shape == Shape::Plain && omitted(field, &value) {
                        return Ok(());
                    }
                    json.insert(field.name.into(), value);
                    return Ok(());
                }
            }
        };
        // Nil pointers, lists and maps: left out, or null where the type does not omit them.
        let left_out = value.is_null() && field.omit_empty;
        if !left_out && !field.name.is_empty() {
            json.insert(field.name.into(), value);
        }
        Ok(())
    }

    /// Several occurrences of one message are merged: protobuf's rule is as if their bytes
    /// followed one another. Only a first-to-last merge of whole fields is needed here, because
    /// Go's writer never splits a message.
    fn singular_message(
        &mut self,
        message: &Message,
        found: &[Wire<'a>],
        json: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        match found {
            [] => self.message_into(message, &[], json),
            [one] => {
                let bytes = self.bytes(*one)?;
                self.message_into(message, bytes, json)
            }
            _ => Err(self.damaged()),
        }
    }

    fn list(&mut self, field: &FieldDef, found: &[Wire<'a>]) -> Result<Value, DecodeError> {
        if found.is_empty() {
            return Ok(Value::Null);
        }
        let mut list = Vec::with_capacity(found.len());
        for (i, wire) in found.iter().enumerate() {
            // The packed form of numbers, which readers must accept.
            if let (Kind::Int | Kind::Bool, Wire::Bytes(mut packed)) = (field.kind, *wire) {
                while !packed.is_empty() {
                    let (number, len) =
                        crate::proto::varint(packed).ok_or_else(|| self.damaged())?;
                    packed = &packed[len..];
                    list.push(self.scalar(field.kind, Some(Wire::Varint(number)))?);
                }
                continue;
            }
            self.path.push(Step::Index(i));
            list.push(self.element(field.kind, Some(*wire))?);
            self.path.pop();
        }
        Ok(list.into())
    }

    fn map(&mut self, field: &FieldDef, found: &[Wire<'a>]) -> Result<Value, DecodeError> {
        if found.is_empty() {
            return Ok(Value::Null);
        }
        let mut map = Map::new();
        for wire in found {
            let (mut key, mut value) = (&[][..], None);
            for entry in Fields::new(self.bytes(*wire)?) {
                let entry = entry.map_err(|_| self.damaged())?;
                match entry.number {
                    1 => key = self.bytes(entry.value)?,
                    2 => value = Some(entry.value),
                    _ => self.note_field(entry, Why::UnknownField),
                }
            }
            let key_text = self.text(key);
            self.path.push(Step::Key(std::str::from_utf8(key).unwrap_or("?")));
            let value = match (field.kind, value) {
                (Kind::Bytes, None) => "".into(),
                (kind, value) => self.element(kind, value)?,
            };
            self.path.pop();
            map.insert(key_text, value);
        }
        Ok(map.into())
    }

    /// An element of a list or map, or a pointer's target.
    fn element(&mut self, kind: Kind, wire: Option<Wire<'a>>) -> Result<Value, DecodeError> {
        let Kind::Message(index) = kind else { return self.scalar(kind, wire) };
        let bytes = wire.map_or(Ok(&[][..]), |wire| self.bytes(wire))?;
        Ok(self.message(self.schema.message(index), bytes)?.into())
    }

    /// A value that is no message of the table; absent, it has Go's zero value.
    fn scalar(&mut self, kind: Kind, wire: Option<Wire<'a>>) -> Result<Value, DecodeError> {
        Ok(match kind {
            Kind::Int => self.varint(wire)?.cast_signed().into(),
            Kind::Bool => (self.varint(wire)? != 0).into(),
            Kind::String => {
                let bytes = self.optional_bytes(wire)?.unwrap_or_default();
                self.text(bytes).into()
            }
            Kind::Bytes => {
                self.optional_bytes(wire)?.map_or(Value::Null, |b| STANDARD.encode(b).into())
            }
            Kind::Time | Kind::MicroTime => self.time(kind, wire)?,
            Kind::Quantity => {
                let text = self.inner(wire, 1)?.map_or(Ok(&[][..]), |w| self.bytes(w))?;
                if text.is_empty() { "0".into() } else { self.text(text).into() }
            }
            Kind::IntOrString => {
                let variant = self.inner(wire, 1)?;
                if self.varint(variant)? == 1 {
                    let text = self.inner(wire, 3)?.map_or(Ok(&[][..]), |w| self.bytes(w))?;
                    self.text(text).into()
                } else {
                    let number = self.inner(wire, 2)?;
                    self.varint(number)?.cast_signed().into()
                }
            }
            Kind::RawExtension | Kind::FieldsV1 => match self.inner(wire, 1)? {
                Some(raw) => {
                    let bytes = self.bytes(raw)?;
                    self.document(bytes)
                }
                None => Value::Null,
            },
            Kind::Strings => {
                let mut list: Vec<Value> = Vec::new();
                let bytes = self.optional_bytes(wire)?.unwrap_or_default();
                for field in Fields::new(bytes) {
                    let field = field.map_err(|_| self.damaged())?;
                    if field.number == 1 {
                        let text = self.bytes(field.value)?;
                        list.push(self.text(text).into());
                    } else {
                        self.note_field(field, Why::UnknownField);
                    }
                }
                list.into()
            }
            Kind::Message(_) => return self.element(kind, wire),
        })
    }

    /// `google.protobuf.Timestamp`'s fields; an empty message is Go's zero time, printed as null
    /// (apimachinery `pkg/apis/meta/v1/time_proto.go`).
    fn time(&mut self, kind: Kind, wire: Option<Wire<'a>>) -> Result<Value, DecodeError> {
        let bytes = self.optional_bytes(wire)?.unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let seconds = self.inner(wire, 1)?;
        let seconds = self.varint(seconds)?.cast_signed();
        let nanos = self.inner(wire, 2)?;
        let nanos = i32::try_from(self.varint(nanos)?.cast_signed()).map_err(|_| self.damaged())?;
        let nanos = if kind == Kind::Time { 0 } else { nanos - nanos % 1000 };
        let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| self.damaged())?;
        Ok(if kind == Kind::Time { time.to_string() } else { format!("{time:.6}") }.into())
    }

    /// A JSON document inside a message.
    fn document(&mut self, bytes: &'a [u8]) -> Value {
        if bytes.is_empty() {
            return Value::Null;
        }
        let parsed =
            if bytes.starts_with(super::PROTOBUF_MAGIC) || bytes.starts_with(super::CBOR_MAGIC) {
                let inside = self.others + 1;
                let object = (inside <= MAX_INSIDE).then(|| super::decode_inside(bytes, inside));
                object.and_then(Result::ok).map(|object| {
                    for field in object.unknown {
                        let outer = &self.path;
                        let path = || format!("{}.{}", path(outer), field.path);
                        let what = (field.count, field.len, field.why);
                        super::remember(&mut self.unknown, path, what);
                    }
                    object.json
                })
            } else {
                raw::parse_json(bytes).ok()
            };
        parsed.unwrap_or_else(|| {
            self.note(bytes.len(), Why::Opaque);
            Value::Null
        })
    }

    /// A kind that the table lacks: every kind has its metadata in field 1.
    fn unknown_kind(&mut self, body: &'a [u8]) -> Result<Map<String, Value>, DecodeError> {
        let mut json = Map::new();
        for field in Fields::new(body) {
            let field = field.map_err(|_| self.damaged())?;
            let metadata = self.schema.named("meta/v1.ObjectMeta");
            if let (1, Some(bytes), Some(message)) = (field.number, field.bytes(), metadata) {
                self.path.push(Step::Field("metadata"));
                let metadata = self.message(message, bytes)?;
                self.path.pop();
                json.insert("metadata".into(), metadata.into());
            } else {
                self.note_field(field, Why::UnknownKind);
            }
        }
        Ok(json)
    }

    /// The last occurrence of a field of a small message.
    fn inner(&self, wire: Option<Wire<'a>>, number: u32) -> Result<Option<Wire<'a>>, DecodeError> {
        let mut found = None;
        for field in Fields::new(self.optional_bytes(wire)?.unwrap_or_default()) {
            let field = field.map_err(|_| self.damaged())?;
            if field.number == number {
                found = Some(field.value);
            }
        }
        Ok(found)
    }

    fn bytes(&self, wire: Wire<'a>) -> Result<&'a [u8], DecodeError> {
        if let Wire::Bytes(bytes) = wire { Ok(bytes) } else { Err(self.damaged()) }
    }

    fn optional_bytes(&self, wire: Option<Wire<'a>>) -> Result<Option<&'a [u8]>, DecodeError> {
        wire.map(|wire| self.bytes(wire)).transpose()
    }

    fn varint(&self, wire: Option<Wire<'a>>) -> Result<u64, DecodeError> {
        match wire {
            None => Ok(0),
            Some(Wire::Varint(number)) => Ok(number),
            Some(_) => Err(self.damaged()),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> String {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return text.to_owned();
        }
        self.note(bytes.len(), Why::NotUtf8);
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn note_field(&mut self, field: Field<'_>, why: Why) {
        let len = match field.value {
            Wire::Bytes(bytes) => bytes.len(),
            Wire::Varint(number) => (64 - (number | 1).leading_zeros() as usize).div_ceil(7),
            Wire::Fixed64(_) => 8,
            Wire::Fixed32(_) => 4,
        };
        let outer = &self.path;
        let path = || {
            let mut path = path(outer);
            if !path.is_empty() {
                path.push('.');
            }
            // Writing to a String cannot fail.
            let _ = write!(path, "#{}", field.number);
            path
        };
        super::remember(&mut self.unknown, path, (1, len, why));
    }

    /// Notes that what is read now cannot be shown.
    fn note(&mut self, len: usize, why: Why) {
        let outer = &self.path;
        super::remember(&mut self.unknown, || path(outer), (1, len, why));
    }

    fn damaged(&self) -> DecodeError {
        let path = self.path();
        DecodeError::Protobuf { path: if path.is_empty() { "the object".into() } else { path } }
    }

    fn path(&self) -> String {
        path(&self.path)
    }
}

/// Steps as text. Of a key that is no name, the beginning says enough.
fn path(steps: &[Step<'_>]) -> String {
    const KEY_SHOWN: usize = 64;
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Field("") => {}
            Step::Field(name) if path.is_empty() => path.push_str(name),
            Step::Field(name) => {
                path.push('.');
                path.push_str(name);
            }
            Step::Key(key) => {
                let shown = &key[..key.floor_char_boundary(KEY_SHOWN)];
                let more = if shown.len() < key.len() { "…" } else { "" };
                let _ = write!(path, "[{shown:?}{more}]");
            }
            Step::Index(index) => {
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}

/// Whether Go's writer leaves out a field that is no pointer. Structs are never empty to it, only
/// zero.
fn omitted(field: &FieldDef, value: &Value) -> bool {
    let empty = match value {
        Value::Null => field.kind == Kind::Bytes,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    let of_scalar =
        matches!(field.kind, Kind::String | Kind::Int | Kind::Bool | Kind::Bytes | Kind::Strings);
    (field.omit_empty && empty && of_scalar)
        || (field.omit_zero && (empty || (field.kind == Kind::Time && value.is_null())))
}
