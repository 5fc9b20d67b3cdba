//! What is encrypted in an escrow: one JSON document.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::{EscrowError, Name};
use crate::envelope::Version;
use crate::hex::{from_hex, hex};
use crate::secret::KeyMaterial;

/// The only version there is.
const SCHEMA: &str = "atrest.kms-escrow/v1";
/// Said inside the file, to whoever finds it.
const ABOUT: &str = "unwrapped KMS data keys: with them and a copy of etcd's data, the values \
    that they encrypt are read without the KMS";

/// Data keys, and those that could not be had.
pub struct Document {
    /// When they were unwrapped.
    pub created: String,
    /// What was read: kind, location, revision.
    pub source: (String, String, i64),
    /// What is kept.
    pub keys: Vec<Kept>,
    /// What could not be unwrapped.
    pub missing: Vec<Missing>,
}

/// A data key that is kept.
pub struct Kept {
    /// Which one.
    pub name: Name,
    /// v2: `seed` or `key`.
    pub kind: Option<Cow<'static, str>>,
    /// The key itself.
    pub key: KeyMaterial,
    /// Live entries under it.
    pub entries: u64,
    /// Superseded revisions under it; `None` where the source does not tell them.
    pub history_entries: Option<u64>,
}

/// A data key that is not kept.
pub struct Missing {
    /// Which one.
    pub name: Name,
    /// Live entries under it.
    pub entries: u64,
    /// Superseded revisions under it; `None` where the source does not tell them.
    pub history_entries: Option<u64>,
    /// Why.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    schema: Cow<'a, str>,
    about: Cow<'a, str>,
    created: Cow<'a, str>,
    source: WireSource<'a>,
    #[serde(borrow)]
    keys: Vec<WireKey<'a>>,
    #[serde(borrow)]
    missing: Vec<WireKey<'a>>,
}

/// What any version says of itself.
#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct WireSource<'a> {
    kind: Cow<'a, str>,
    location: Cow<'a, str>,
    revision: i64,
}

/// A data key with its bytes, or the reason why there are none.
#[derive(Serialize, Deserialize)]
struct WireKey<'a> {
    provider: Cow<'a, str>,
    version: Cow<'a, str>,
    key_id: Option<Cow<'a, str>>,
    annotations: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    source_sha256: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Secret<'a>>,
    entries: u64,
    history_entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
}

/// Base64 of a key: borrowed where it was read, wiped where it was made.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Secret<'a>(#[serde(borrow)] Cow<'a, str>);

impl Drop for Secret<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

impl<'a> From<&'a Kept> for WireKey<'a> {
    fn from(kept: &'a Kept) -> Self {
        Self {
            kind: kept.kind.clone(),
            key: Some(Secret(STANDARD.encode(kept.key.expose()).into())),
            ..Self::new(&kept.name, kept.entries, kept.history_entries)
        }
    }
}

impl<'a> From<&'a Missing> for WireKey<'a> {
    fn from(missing: &'a Missing) -> Self {
        Self {
            reason: Some(missing.reason.as_str().into()),
            ..Self::new(&missing.name, missing.entries, missing.history_entries)
        }
    }
}

impl<'a> WireKey<'a> {
    fn new(name: &'a Name, entries: u64, history_entries: Option<u64>) -> Self {
        let annotations =
            name.annotations.iter().map(|(n, v)| (n.into(), STANDARD.encode(v).into()));
        Self {
            provider: name.provider.as_str().into(),
            version: name.version.as_str().into(),
            key_id: name.key_id.as_deref().map(Into::into),
            annotations: annotations.collect(),
            source_sha256: hex(&name.sha256).into(),
            kind: None,
            key: None,
            entries,
            history_entries,
            reason: None,
        }
    }

    fn name(&self) -> Result<Name, String> {
        let version = match &*self.version {
            "v1" => Version::V1,
            "v2" => Version::V2,
            other => return Err(format!("there is no version {other:?} of KMS")),
        };
        let value = |text: &str| STANDARD.decode(text).map_err(|_| "an annotation is no base64");
        let annotations = self.annotations.iter().map(|(n, v)| Ok((n.to_string(), value(v)?)));
        Ok(Name {
            provider: self.provider.to_string(),
            version,
            key_id: self.key_id.as_ref().map(ToString::to_string),
            sha256: digest(&self.source_sha256).ok_or("a digest is none")?,
            annotations: annotations.collect::<Result<_, &str>>()?,
        })
    }

    fn kept(self) -> Result<Kept, String> {
        let name = self.name()?;
        let secret = self.key.ok_or("a data key is missing")?;
        // The message of the decoder would tell a byte of it.
        let key = STANDARD.decode(&*secret.0).map_err(|_| "a data key is no base64")?;
        Ok(Kept {
            name,
            kind: self.kind.map(|kind| kind.into_owned().into()),
            key: KeyMaterial::new(key),
            entries: self.entries,
            history_entries: self.history_entries,
        })
    }

    fn missing(self) -> Result<Missing, String> {
        Ok(Missing {
            name: self.name()?,
            entries: self.entries,
            history_entries: self.history_entries,
            reason: self.reason.unwrap_or_default().into_owned(),
        })
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    from_hex(text)?.try_into().ok()
}

impl Document {
    /// Writes it. No copy of a key is left behind but in `out`.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (kind, location, revision) = &self.source;
        let wire = Wire {
            schema: SCHEMA.into(),
            about: ABOUT.into(),
            created: self.created.as_str().into(),
            source: WireSource {
                kind: kind.as_str().into(),
                location: location.as_str().into(),
                revision: *revision,
            },
            keys: self.keys.iter().map(Into::into).collect(),
            missing: self.missing.iter().map(Into::into).collect(),
        };
        serde_json::to_writer(&mut *out, &wire)?;
        out.write_all(b"\n")
    }

    /// Reads it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, EscrowError> {
        // The parser's message may quote what stands there.
        let wrong = |what: &str| EscrowError::NotAnEscrow(what.to_owned());
        let schema: Schema<'_> = serde_json::from_slice(bytes)
            .map_err(|_| wrong("not a JSON document with a schema"))?;
        if schema.schema != SCHEMA {
            let schema: String = schema.schema.chars().take(80).collect();
            return Err(wrong(&format!("its schema is {schema:?}, not {SCHEMA:?}")));
        }
        let wire: Wire<'_> = serde_json::from_slice(bytes)
            .map_err(|_| wrong("a field is missing or of another type"))?;
        let keys: Result<_, _> = wire.keys.into_iter().map(WireKey::kept).collect();
        let missing: Result<_, _> = wire.missing.into_iter().map(WireKey::missing).collect();
        Ok(Self {
            created: wire.created.into_owned(),
            source: (
                wire.source.kind.into_owned(),
                wire.source.location.into_owned(),
                wire.source.revision,
            ),
            keys: keys.map_err(|why: String| wrong(&why))?,
            missing: missing.map_err(|why: String| wrong(&why))?,
        })
    }
}
