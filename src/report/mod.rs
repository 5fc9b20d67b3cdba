//! Findings → table, JSON, CSV, Prometheus, HTML. Wire types of its own, so that the domain types can
//! change without changing what users script against. Holds no plaintext but the values that
//! `history --reveal` asks for.

#[cfg(feature = "cli")]
#[cfg(feature = "live")]
pub mod all_objects;
pub mod backups;
mod causes;
pub mod diff;
pub mod doctor;
pub mod history;
pub mod keys;
pub mod kms;
#[cfg(feature = "live")]
pub mod migrate;
pub mod objects;
mod page;
#[cfg(feature = "cli")]
pub mod posture;
pub mod profile;
pub mod residue;
pub mod restore;
#[cfg(feature = "live")]
pub mod rotate;
pub mod scan;
#[cfg(feature = "live")]
pub mod scrub;
pub mod table;
pub mod text;
#[cfg(feature = "cli")]
pub mod unreadable;
pub mod wire;

/// Output formats, of which each command takes some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// Sentences for people.
    Text,
    /// One document.
    Json,
    /// One document a line.
    Jsonl,
    /// Comma-separated, with a header.
    Csv,
    /// Text exposition format, for a textfile collector.
    Prometheus,
    /// One page to keep, print or send.
    Html,
    /// What code scanners write.
    Sarif,
    /// YAML documents.
    Yaml,
    /// One `path: value` line per field.
    Fields,
}

impl Format {
    /// The word of `-w`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Text => "text",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Prometheus => "prometheus",
            Self::Html => "html",
            Self::Sarif => "sarif",
            Self::Yaml => "yaml",
            Self::Fields => "fields",
        }
    }
}
