//! Findings → table, JSON, CSV, Prometheus, HTML. Wire types of its own, so that the domain types can
//! change without changing what users script against. Never holds plaintext.

pub mod causes;
pub mod history;
mod html;
pub mod keys;
pub mod migrate;
pub mod residue;
pub mod scan;
pub mod table;
pub mod wire;

use std::str::FromStr;

/// Output formats, of which each command takes some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
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
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Prometheus => "prometheus",
            Self::Html => "html",
            Self::Yaml => "yaml",
            Self::Fields => "fields",
        }
    }

    /// Reads `-w` against the formats that a command takes; the first is its default.
    ///
    /// # Errors
    /// With a sentence that lists what it takes.
    pub fn choose(wanted: Option<&str>, takes: &[Self]) -> Result<Self, String> {
        let Some(wanted) = wanted else { return Ok(takes.first().copied().unwrap_or(Self::Table)) };
        wanted.parse().ok().filter(|f| takes.contains(f)).ok_or_else(|| {
            let list: Vec<_> = takes.iter().map(|f| f.as_str()).collect();
            format!("this command does not write `{wanted}`; it writes {}", list.join(", "))
        })
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Ok(match word {
            // etcdctl's word for the human form.
            "table" | "simple" => Self::Table,
            "json" => Self::Json,
            "jsonl" => Self::Jsonl,
            "csv" => Self::Csv,
            "prometheus" => Self::Prometheus,
            "html" => Self::Html,
            "yaml" => Self::Yaml,
            "fields" => Self::Fields,
            _ => return Err(()),
        })
    }
}
