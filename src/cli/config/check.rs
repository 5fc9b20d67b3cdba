//! `atrest config check`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::{print_json, print_text};
use crate::cli::Ctx;
use crate::cli::args::{self, Shared};
use crate::cli::configuration;
use crate::cli::failure::{Exit, Failure};
use crate::config::{self, Finding, LoadError, Loaded};
use crate::report::Format;

/// Options of `config check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configurations: YAML, JSON, a Secret manifest, a tar archive that holds one; `-` is stdin
    /// (those of --encryption-config are checked, too)
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    distribution: args::Distribution,

    #[command(flatten)]
    reading: args::Reading,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Text, Format::Json]), default_value = "text", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.distribution, &self.reading, &self.output])
    }
}

/// The JSON document.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    valid: bool,
    errors: Vec<WireFinding<'a>>,
    warnings: Vec<WireFinding<'a>>,
    /// Every configuration found; an archive may hold several.
    files: Vec<WireFile<'a>>,
    /// Where the others differ from the first one.
    differences: Vec<String>,
}

#[derive(Serialize)]
struct WireFinding<'a> {
    path: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    location: &'a str,
}

#[derive(Serialize)]
struct WireFile<'a> {
    location: &'a str,
    valid: bool,
    sha256: Option<&'a str>,
}

/// What was found out about one configuration.
struct Checked {
    location: String,
    loaded: Option<Loaded>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let paths: Vec<&PathBuf> = args.files.iter().chain(&ctx.global.encryption_config).collect();
    if paths.is_empty() {
        return Err(Failure::usage("no configuration to check")
            .hint("give files, `-` for stdin, or --encryption-config FILE"));
    }
    let mut checked = Vec::new();
    for path in paths {
        checked.extend(check(path)?);
    }
    let differences = differences(&checked);
    let valid = checked.iter().all(|c| c.errors.is_empty());
    let same = differences.is_empty();
    match args.write_out {
        Format::Json => print_json(&report(&checked, valid, differences))?,
        _ => print_text(&text(&checked, &differences))?,
    }
    Ok(if valid && same { Exit::Ok } else { Exit::Found })
}

fn check(path: &std::path::Path) -> Result<Vec<Checked>, Failure> {
    let content = configuration::read(path)?;
    let exposed = content.exposed.as_ref().map(|message| Finding {
        path: String::new(),
        message: message.clone(),
        at: None,
    });
    let mut all: Vec<Checked> = match config::load(&content.bytes, &content.origin) {
        Ok(configs) => configs
            .into_iter()
            .map(|loaded| Checked {
                location: loaded.location.clone(),
                errors: Vec::new(),
                warnings: loaded.warnings.iter().chain(&loaded.advice).cloned().collect(),
                loaded: Some(loaded),
            })
            .collect(),
        Err(LoadError::Invalid { location, errors, .. }) => {
            let config::ConfigErrors { errors, warnings } = errors;
            vec![Checked { location, loaded: None, errors, warnings }]
        }
        Err(e) => return Err(configuration::failure(&e)),
    };
    if let (Some(first), Some(exposed)) = (all.first_mut(), exposed) {
        first.warnings.insert(0, exposed);
    }
    Ok(all)
}

/// Each configuration against the first valid one.
fn differences(checked: &[Checked]) -> Vec<String> {
    let mut valid = checked.iter().filter_map(|c| c.loaded.as_ref());
    let Some(first) = valid.next() else { return Vec::new() };
    let mut all = Vec::new();
    for other in valid.filter(|o| o.sha256 != first.sha256) {
        let found =
            config::differences(&first.config, &other.config, &first.location, &other.location);
        if found.is_empty() {
            all.push(format!(
                "{} and {} mean the same, but differ byte by byte",
                first.location, other.location
            ));
        }
        all.extend(found);
    }
    all
}

fn report(checked: &[Checked], valid: bool, differences: Vec<String>) -> Report<'_> {
    let wire = |pick: fn(&Checked) -> &Vec<Finding>| {
        checked
            .iter()
            .flat_map(|c| {
                pick(c).iter().map(|f| WireFinding {
                    path: &f.path,
                    message: &f.message,
                    line: f.at.map(|at| at.line),
                    column: f.at.map(|at| at.column),
                    location: &c.location,
                })
            })
            .collect()
    };
    Report {
        schema: "atrest.config/v1",
        valid,
        errors: wire(|c| &c.errors),
        warnings: wire(|c| &c.warnings),
        files: checked
            .iter()
            .map(|c| WireFile {
                location: &c.location,
                valid: c.errors.is_empty(),
                sha256: c.loaded.as_ref().map(|l| l.sha256.as_str()),
            })
            .collect(),
        differences,
    }
}

fn text(checked: &[Checked], differences: &[String]) -> String {
    let mut out = String::new();
    for c in checked {
        let verdict = match &c.loaded {
            Some(loaded) => format!("valid (sha256:{})", loaded.sha256),
            None => "not valid: the API server would refuse it".to_owned(),
        };
        let _ = writeln!(out, "{}: {verdict}", c.location);
        for (word, findings) in [("error", &c.errors), ("warning", &c.warnings)] {
            for finding in findings {
                let _ = writeln!(out, "  {word}: {finding}");
            }
        }
    }
    for difference in differences {
        let _ = writeln!(out, "difference: {difference}");
    }
    out
}
