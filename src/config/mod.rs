//! `EncryptionConfiguration`: model, strict parsing, the API server's own validation, and which
//! providers serve a resource. Pure: bytes come in, values go out.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `tree` | YAML or JSON → nodes with their places |
//! | `decode` | nodes → raw fields, strict |
//! | `validate` | raw fields → [`EncryptionConfig`], every rule |
//! | `model` | what a valid configuration says, [`EncryptionConfig::serving`] |
//! | `advice` | what the API server accepts and a person should know |
//! | `compare` | where two configurations differ |
//! | `endpoint` | KMS endpoint URLs |
//! | `generate` | a new configuration's text |
//! | `places` | field path → line and column |
//! | `kept` | the files of RKE, Talos and `OpenShift` that hold one, or its keys |
//! | `load` | the forms in which backups hold a configuration |
//! | `rotate` | the next file of a key rotation, the user's comments kept |
//! | `set` | several configurations together |

mod advice;
mod compare;
mod decode;
mod endpoint;
mod finding;
mod generate;
mod kept;
mod load;
mod loaded;
mod model;
mod places;
mod rotate;
mod set;
mod validate;

use crate::yaml_tree;
pub use crate::yaml_tree::Position;
pub use compare::differences;
pub use endpoint::{Endpoint, EndpointError, Socket};
pub use finding::{ConfigErrors, Finding};
pub use generate::{New, Writer, generate};
pub use load::load;
pub use loaded::{LoadError, Loaded};
pub use model::{
    EncryptionConfig, GroupResource, Key, Kms, ProviderConfiguration, ResourceConfiguration,
    Served, Serving,
};
pub use places::Places;
pub use rotate::{Choice, RotateError, Rotated, Step, Unclear, Which, rotate};
pub use set::ConfigSet;

/// A configuration that the API server would accept.
#[derive(Clone)]
pub struct Parsed {
    /// What it says.
    pub config: EncryptionConfig,
    /// Warnings about the text itself: the API server does not read it as a person would.
    pub warnings: Vec<Finding>,
    /// Where everything stands.
    pub places: Places,
}

impl Parsed {
    /// What the API server accepts and a person should know, in file order.
    #[must_use]
    pub fn advice(&self) -> Vec<Finding> {
        advice::advise(&self.config, &self.places)
    }
}

/// Reads and validates a configuration in YAML or JSON.
///
/// # Errors
/// With everything that the API server would refuse.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ConfigErrors> {
    let refuse = |error: Finding| ConfigErrors { errors: vec![error], warnings: Vec::new() };
    if bytes.is_empty() {
        return Err(refuse(Finding::whole("the configuration is empty")));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(refuse(Finding::whole("the configuration is not UTF-8 text")));
    };
    let documents = yaml_tree::parse(text)
        .map_err(|e| refuse(Finding { path: String::new(), message: e.message, at: e.at }))?;
    let mut warnings = Vec::new();
    if let [_, second, ..] = documents.as_slice() {
        warnings.push(Finding::new(
            "",
            "the file has several YAML documents: the API server reads the first one only",
            second.at,
        ));
    }
    let Some(document) = documents.first() else {
        return Err(refuse(Finding::new(
            "kind",
            "is required: EncryptionConfiguration",
            Position { line: 1, column: 1 },
        )));
    };
    parse_document(document, warnings)
}

fn parse_document(
    document: &yaml_tree::Node,
    warnings: Vec<Finding>,
) -> Result<Parsed, ConfigErrors> {
    let mut errors = Vec::new();
    let raw = decode::decode(document, &mut errors);
    let Some(config) = validate::validate(raw, &mut errors) else {
        errors.sort_by_key(|e| e.at.map_or((0, 0), |at| (at.line, at.column)));
        return Err(ConfigErrors { errors, warnings });
    };
    Ok(Parsed { config, warnings, places: Places::of(document) })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_load;
#[cfg(test)]
mod tests_serving;
