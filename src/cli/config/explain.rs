//! `atrest config explain`.

use std::fmt::Write as _;

use serde::Serialize;

use super::{print_json, print_text};
use crate::cli::Ctx;
use crate::cli::args::{self, Shared};
use crate::cli::failure::{Exit, Failure};
use crate::config::{Loaded, ProviderConfiguration, Served};
use crate::report::Format;
use crate::resource::Selector;

/// Options of `config explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The resource, such as `secrets` or `deployments.apps`
    #[arg(value_name = "RESOURCE")]
    pub name: String,

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

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    resource: String,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    location: String,
    sha256: String,
    /// What matched: the resource itself, `*.group`, `*.*`; null for the implied identity.
    rule: Option<String>,
    /// Indices of the entries of `resources[]` that serve it.
    entries: Vec<usize>,
    write: Unit,
    read: Vec<Unit>,
    plaintext_readable: bool,
}

/// One static key, one KMS provider, or identity.
#[derive(Clone, Serialize)]
struct Unit {
    path: Option<String>,
    provider: &'static str,
    version: Option<&'static str>,
    key: Option<String>,
    #[serde(skip)]
    words: String,
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let Selector::Exact(resource) = Selector::parse(&args.name).map_err(Failure::usage)? else {
        return Err(Failure::usage(format!(
            "`{}` is a wildcard: name one resource, such as `secrets`",
            args.name
        )));
    };
    let Some(configs) = crate::cli::inside::configs(ctx)? else {
        return Err(Failure::usage("no configuration to explain")
            .hint("give it with --encryption-config FILE"));
    };
    let files: Vec<File> = configs.files().iter().map(|f| explain(f, &resource)).collect();
    match args.write_out {
        Format::Json => {
            print_json(&Report { schema: "atrest.config-explain/v1", resource, files })?;
        }
        _ => print_text(&text(&resource, &files))?,
    }
    Ok(Exit::Ok)
}

fn units(served: &Served<'_>) -> Vec<Unit> {
    let (by, version) = (served.provider.provider(), served.provider.version());
    let provider = by.as_str();
    let unit = |path: String, key: Option<String>| Unit {
        path: Some(path),
        provider,
        version: version.map(crate::envelope::Version::as_str),
        words: by.with_key(key.as_deref()).of_version(version).to_string(),
        key,
    };
    let path = served.path();
    match served.provider {
        ProviderConfiguration::Identity => vec![unit(path, None)],
        ProviderConfiguration::Kms(kms) => {
            vec![unit(format!("{path}.kms"), Some(kms.name.clone()))]
        }
        other => other
            .keys()
            .iter()
            .enumerate()
            .map(|(i, k)| unit(format!("{path}.{provider}.keys[{i}]"), Some(k.name.clone())))
            .collect(),
    }
}

fn explain(loaded: &Loaded, resource: &str) -> File {
    let serving = loaded.config.serving(resource);
    let implied = Unit {
        path: None,
        provider: "identity",
        version: None,
        key: None,
        words: "identity".to_owned(),
    };
    let mut read: Vec<Unit> = serving.providers.iter().flat_map(units).collect();
    if read.is_empty() {
        read.push(implied);
    }
    let mut entries: Vec<usize> = serving.providers.iter().map(|s| s.entry).collect();
    entries.dedup();
    File {
        location: loaded.location.clone(),
        sha256: loaded.sha256.clone(),
        rule: serving.rule.map(|r| r.to_string()),
        entries,
        write: read[0].clone(),
        plaintext_readable: serving.reads_plaintext(),
        read,
    }
}

fn text(resource: &str, files: &[File]) -> String {
    let mut out = String::new();
    for file in files {
        let _ = writeln!(out, "{resource} in {}", file.location);
        let Some(rule) = &file.rule else {
            out.push_str(
                "  served by  nothing: stored unencrypted (implied identity)\n  cannot     read encrypted values\n",
            );
            continue;
        };
        let entries: Vec<_> = file.entries.iter().map(|i| format!("resources[{i}]")).collect();
        let _ = writeln!(out, "  served by  {} (`{rule}`)", entries.join(" and "));
        let how = if file.write.provider == "identity" { "unencrypted (identity)" } else { "" };
        let how = if how.is_empty() { file.write.words.clone() } else { how.to_owned() };
        let _ = writeln!(out, "  writes     {how}");
        for (i, unit) in file.read.iter().enumerate() {
            let label = if i == 0 { "reads" } else { "" };
            let path = unit.path.as_deref().unwrap_or_default();
            let _ = writeln!(out, "  {label:<10} {}. {} ({path})", i + 1, unit.words);
        }
        let plaintext = if file.plaintext_readable {
            "readable"
        } else {
            "unreadable: no identity in the list"
        };
        let _ = writeln!(out, "  plaintext  {plaintext}");
    }
    out
}
